"""Tests of the compute capability that a host run is asked to pretend."""

import pytest

from mnist_fp8.core.capability import (
    VARIABLE,
    Capability,
    parse_capability,
    refuse_on_kernels,
    requested_capability,
)
from mnist_fp8.core.errors import ConfigError


@pytest.mark.parametrize(("text", "number"), [("9.0", 90), ("10.0", 100)])
def test_capability_is_written_as_nvidia_does_and_read_as_transformer_engine_does(text: str, number: int) -> None:
    assert (parse_capability(text), str(Capability(number))) == (number, text)
    assert requested_capability({VARIABLE: text}) is Capability(number)


@pytest.mark.parametrize("environ", [{}, {VARIABLE: ""}], ids=["unset", "empty"])
def test_nothing_is_asked_for_by_default(environ: dict[str, str]) -> None:
    assert requested_capability(environ) is None


@pytest.mark.parametrize("text", ["", "8.9", "10", "90", "blackwell"])
def test_other_capabilities_are_refused(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_capability(text)
    assert str(error.value) == f"compute capability is {text!r}; expected 9.0 or 10.0"


def test_variable_with_another_value_is_refused_by_its_name() -> None:
    with pytest.raises(ConfigError) as error:
        requested_capability({VARIABLE: "8.9"})
    assert str(error.value) == f"{VARIABLE} is '8.9'; expected 9.0 or 10.0, or leave it unset"


def test_kernels_have_a_gpu_of_their_own() -> None:
    refuse_on_kernels(None)
    with pytest.raises(ConfigError, match=r"^compute capability 10\.0 can only be pretended on a host run, and this"):
        refuse_on_kernels(Capability.BLACKWELL)
