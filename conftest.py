"""The suite's plugin, which does what tests need, and Hypothesis' profiles."""

import os

import pytest
from hypothesis import Phase, settings
from hypothesis.errors import InvalidArgument

pytest_plugins = ["mnist_fp8.plugin.hooks"]

settings.register_profile("dev", max_examples=25, deadline=None)
settings.register_profile("ci", max_examples=25, deadline=None, derandomize=True)
settings.register_profile("nightly", max_examples=500, deadline=None)
settings.register_profile("fuzz", max_examples=5000, deadline=None, print_blob=True)
# Up to the first failure, which is not made smaller: that would compile a program for each attempt.
_to_the_first = [Phase.explicit, Phase.generate]
settings.register_profile("mutants", settings.get_profile("ci"), phases=_to_the_first, report_multiple_bugs=False)


@pytest.hookimpl(tryfirst=True)  # --hypothesis-profile comes later, and wins
def pytest_configure() -> None:
    """Take the profile that ``HYPOTHESIS_PROFILE`` names."""
    profile = os.environ.get("HYPOTHESIS_PROFILE") or "dev"
    try:
        settings.load_profile(profile)
    except InvalidArgument:
        message = f"HYPOTHESIS_PROFILE is {profile!r}; expected dev, ci, nightly or mutants"
        raise pytest.UsageError(message) from None
