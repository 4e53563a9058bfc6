"""The compute capability that a host run pretends: which there are, how one is asked for, and how it is said.

What judges passes it on to a run, and what is judged heeds it; both know this module.
"""

import enum
import os
from collections.abc import Mapping

from mnist_fp8.core.errors import ConfigError

VARIABLE = "MNIST_FP8_CAPABILITY"
"""The environment variable that tells a run which; without it, each recipe gets the least that has its products."""
OPTION = "--capability"
BY_RECIPE = "9.0, and 10.0 for MXFP8 and NVFP4"
"""What a host run pretends where nobody asks for a capability."""


class Capability(enum.IntEnum):
    """A compute capability, times ten, as Transformer Engine writes it."""

    HOPPER = 90
    BLACKWELL = 100

    def __str__(self) -> str:
        """The capability as NVIDIA writes it, such as ``9.0``."""
        return f"{self // 10}.{self % 10}"


EXPECTED = " or ".join(map(str, Capability))
"""What can be asked for."""
HELP = f"compute capability that a host run pretends for all recipes, {EXPECTED} (default: {BY_RECIPE})"
"""Of the option, wherever it is one."""
ONLY_ON_HOST = "can only be pretended on a host run"
"""What a refusal of kernels says, and what tells it from a failure of Transformer Engine."""


def parse_capability(text: str) -> Capability:
    """The capability that a text such as ``10.0`` names.

    Raises:
        ConfigError: it names none that a host run can pretend.
    """
    found = next((each for each in Capability if str(each) == text), None)
    if found is None:
        raise ConfigError(f"compute capability is {text!r}; expected {EXPECTED}")
    return found


def requested_capability(environ: Mapping[str, str] = os.environ) -> Capability | None:
    """The capability that ``MNIST_FP8_CAPABILITY`` asks for; ``None`` where it is unset or empty.

    Raises:
        ConfigError: it is none that a host run can pretend.
    """
    value = environ.get(VARIABLE, "")
    if not value:
        return None
    try:
        return parse_capability(value)
    except ConfigError:
        raise ConfigError(f"{VARIABLE} is {value!r}; expected {EXPECTED}, or leave it unset") from None


def refuse_on_kernels(capability: Capability | None) -> None:
    """Refuse a capability that is asked of a kernel run, whose GPU has its own.

    Raises:
        ConfigError: one is.
    """
    if capability is not None:
        raise ConfigError(
            f"compute capability {capability} {ONLY_ON_HOST}, and this is a kernel run: its GPU"
            f" has its own; leave out {OPTION}, and unset {VARIABLE}"
        )
