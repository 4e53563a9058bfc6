"""The fault runner: it sees a fault, and does not see one where there is none."""

import dataclasses
from pathlib import Path

import pytest
from faults import FAULTS, Fault, faulty, first_failure

from mutation import subject

pytestmark = pytest.mark.host


def fault_named(what: str) -> Fault:
    return next(fault for fault in FAULTS if fault.what == what)


WITHOUT_FAULTS = {
    "kernel_training",
    "kernel_speed",
    "data_parallel",
    "dense_options",
    "recipe_options",
    "sharding_options",
}
"""Those of the last four are mutants (docs/mutants.md) and past regressions. For the first two there are none: nothing
was found that makes training worse, or a kernel slower, on a GPU alone and is not seen by other claims."""


def test_every_other_claim_has_at_least_five_faults() -> None:
    files = (Path(__file__).parents[1] / "claims").glob("test_*.py")
    claims = {path.stem.removeprefix("test_") for path in files} - WITHOUT_FAULTS
    counts = {claim: sum(fault.claim == claim for fault in FAULTS) for claim in claims}
    assert min(counts.values()) >= 5, f"faults by claim: {counts}"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_the_place_of_every_fault_is_there(fault: Fault) -> None:
    """Also of those that this machine cannot try."""
    assert faulty(fault) != subject.read(fault.file)


def test_a_fault_turns_its_claim_red() -> None:
    test, message = first_failure(fault_named("scale inverted"))
    assert "written" in test or "worked_out_by_hand" in test
    assert "x scale" in message


def test_a_harmless_edit_leaves_the_claim_green() -> None:
    # Control: what turns red is the fault, not the copy.
    harmless = dataclasses.replace(fault_named("scale inverted"), new="sf = (fp8_max / amax) / 2**margin")
    test, message = first_failure(harmless)
    assert not test, f"{test} failed: {message}"


def test_a_fault_without_its_place_is_an_error() -> None:
    misplaced = dataclasses.replace(fault_named("scale inverted"), old="no such text")
    with pytest.raises(LookupError, match=r"the text to replace is not in jax/quantize/quantizer.py"):
        faulty(misplaced)
