"""The named regressions: they fit the installed TE, the page tells them all, and the defective tests let them pass."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_fp8.programs import jaxprs
from proofs.faults import Outcome, load
from proofs.regressions import FOLDER, Regression, edited, linked, page
from support.assertions import assert_close, assert_close_norm, assert_equal
from support.short_run import MODES, THRESHOLDS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "evidence" / "regressions.md"
REGRESSIONS = load(FOLDER, Regression)
BY_NAME = {regression.name: regression for regression in REGRESSIONS}


@pytest.mark.parametrize("regression", REGRESSIONS, ids=lambda regression: regression.name)
def test_place_of_the_edit_is_in_the_installed_te(regression: Regression) -> None:
    before, after = edited(regression)
    assert after != before, f"{regression.name}: the edit changes nothing"
    compile(after, regression.file, "exec")


def test_missing_place_is_an_error_that_names_the_file() -> None:
    misplaced = dataclasses.replace(BY_NAME["metadata-overwritten-with-their-old-values"], old="no such text")
    with pytest.raises(LookupError, match=r"old values: the text to replace is not in jax/quantize/quantizer.py"):
        edited(misplaced)


def test_names_and_edits_are_distinct() -> None:
    names = {regression.what for regression in REGRESSIONS}
    assert len(names) == len(REGRESSIONS), "two regressions have the same name"
    edits = {(regression.file, regression.old, regression.new) for regression in REGRESSIONS}
    assert len(edits) == len(REGRESSIONS), "two regressions make the same edit"


@pytest.mark.parametrize("regression", REGRESSIONS, ids=lambda regression: regression.name)
def test_page_tells_every_regression(regression: Regression) -> None:
    text = " ".join(PAGE.read_text().split())
    for part in (f"| {regression.what} |", linked(regression.origin), " ".join(regression.story.split())):
        assert part in text, f"{PAGE.name} lacks {part!r}: write it anew"


def test_page_says_that_all_are_caught() -> None:
    text = PAGE.read_text()
    assert f"{len(REGRESSIONS)} of {len(REGRESSIONS)} are caught" in text
    assert "issed**" not in text
    assert text.count("\n## ") == len(REGRESSIONS), f"{PAGE.name} has sections of regressions that are gone"


@pytest.mark.parametrize(
    ("test", "message", "caught"),
    [
        ("test_history", "step 0: x scale: 1 of 1 elements are wrong; worst []=1, but should be 448", True),
        ("test_history", "step 0: x scale: 1 of 1 elements are wrong; worst []=2, but should be 448", False),
        ("", "42 passed", False),
    ],
    ids=["its message", "another message", "green"],
)
def test_only_the_message_asked_for_counts(test: str, message: str, caught: bool) -> None:  # noqa: FBT001
    outcome = Outcome(BY_NAME["scale-computed-and-the-old-one-written-back"], test, message)
    assert outcome.caught is caught
    assert ("1 of 1 are caught" in page([outcome])) is caught
    assert ("issed**" in page([outcome])) is not caught


# --- comparisons that let a defect through, and ours ---------------------------------------------------------------

EXPECTED = np.linspace(-4, 4, 64).reshape(8, 8)


def test_condition_that_is_a_tuple_lets_zeros_pass() -> None:
    """TransformerEngine#2230: meant for one case, in force for all, because of the comma at the end."""
    the_one_case = False
    condition = (the_one_case,)
    tolerance = {"atol": 0.08, "rtol": 15} if condition else {"atol": 0.01, "rtol": 0.01}
    np.testing.assert_allclose(0 * EXPECTED, EXPECTED, atol=tolerance["atol"], rtol=tolerance["rtol"])
    with pytest.raises(AssertionError, match="all that was found is zero"):
        assert_equal(where="y", actual=0 * EXPECTED, expected=EXPECTED)


def test_nan_equals_nan_for_numpy() -> None:
    """TransformerEngine#2415: both sides of the comparison are NaN."""
    both = np.full(4, np.nan)
    np.testing.assert_allclose(both, both)
    with pytest.raises(AssertionError, match="found values that are not finite"):
        assert_close(where="y", actual=both, expected=both, tolerance=1)
    with pytest.raises(ValueError, match="the expected value holds NaN"):
        assert_equal(where="y", actual=both, expected=both)


def test_nan_is_not_above_a_tolerance() -> None:
    """MaxText 9b4d96c09: one NaN in a gradient makes its mean error NaN."""
    gradient = EXPECTED.copy()
    gradient[0, 0] = np.nan
    error = np.abs(gradient - EXPECTED).mean() / np.abs(EXPECTED).mean()
    mismatch = error > 1.5
    assert not mismatch
    with pytest.raises(AssertionError, match="relative difference=nan"):
        assert_close_norm(where="g", actual=gradient, expected=EXPECTED, tolerance=1.5)
    with pytest.raises(AssertionError, match=r"1 of 64 elements are wrong; worst \[0, 0\]=nan"):
        assert_close(where="g", actual=gradient, expected=EXPECTED, tolerance=1.5)


def test_network_that_guesses_passes_a_bound_of_0_098() -> None:
    """TransformerEngine#2933: one in ten digits is right by chance."""
    guessing = 1 / 10
    assert guessing > 0.098
    assert guessing < min(THRESHOLDS[mode] for mode in MODES)


def test_name_of_a_float8_type_in_a_program_is_no_float8_product() -> None:
    """The check of TE's MNIST example, on a cast that nothing is multiplied with."""

    def decoy(x: jax.Array) -> Any:
        return x.astype(jnp.float8_e4m3fn), x @ x

    program = jax.make_jaxpr(decoy)(jnp.ones((4, 4), jnp.bfloat16))
    assert "f8_e5m2" in str(program) or "f8_e4m3" in str(program)
    assert [(gemm.lhs, gemm.rhs) for gemm in jaxprs.gemms(program)] == [("bfloat16", "bfloat16")]


def test_mean_does_not_see_the_order_of_rows() -> None:
    """TE's tests of whole layers compare the means of the outputs."""
    reordered = EXPECTED[::-1]
    np.testing.assert_allclose(reordered.mean(), EXPECTED.mean(), atol=1e-12)
    with pytest.raises(AssertionError, match="64 of 64 elements are wrong"):
        assert_close(where="y", actual=reordered, expected=EXPECTED, tolerance=0.01)


@pytest.mark.parametrize(("rank", "axis"), [(2, -1), (3, -1), (3, -2), (4, -2)])
def test_axis_that_is_not_positive_skipped_every_case(rank: int, axis: int) -> None:
    """TransformerEngine#1808: an axis counted from the end is below zero, in range or not."""
    in_range = -rank < axis < 0
    skipped = (axis < 0 and axis + rank <= 0) or axis <= 0
    assert in_range
    assert skipped
