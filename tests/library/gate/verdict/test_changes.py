"""How large a difference is, against the noise, and how a value is shown."""

import math

import pytest

from mnist_fp8.gate.reports import values
from mnist_fp8.gate.verdict.rules.rule import Severity
from mnist_fp8.record.entries import (
    Cost,
    Failure,
    Signature,
    Text,
    Value,
)
from support.comparing import compared, curves, numbers, one

BREAKS = Severity.BREAKS
ERROR = "numerics/R/output against float64"


def test_number_within_noise_does_not_differ() -> None:
    old, new = numbers(1.0, noise=0.01), numbers(1.039, noise=0.01)
    assert compared({ERROR: old}, {ERROR: new}).differences == ()
    assert values.size(one(old, numbers(1.05, noise=0.01), ERROR).entries[0]) == "+5.00%, 5 times the noise"


def test_exact_number_differs_by_its_last_bit() -> None:
    size = values.size(one(numbers(1.0), numbers(1.0 + 2**-40), ERROR).entries[0])
    assert size.endswith("exact: noise is 0")
    old, new = values.sides(one(numbers(1.0), numbers(1.0 + 2**-40), ERROR).entries[0])
    assert old != new, "in as many digits as it takes"


def test_noise_of_the_old_side_is_noise_of_both() -> None:
    assert compared({ERROR: numbers(1.0, noise=0.01)}, {ERROR: numbers(1.03)}).differences == ()


@pytest.mark.parametrize("noise", [1e-9, 0.5, 1.0, 1e9, math.inf, math.nan, -1.0])
def test_noise_that_came_is_a_difference_of_its_own(noise: float) -> None:
    difference = one(numbers(1.0), numbers(1.0, noise=noise), ERROR)
    assert (difference.rule.id, difference.rule.severity) == ("noise-grew", Severity.CHANGES)
    assert values.sides(difference.entries[0]) == ("noise 0", f"noise {noise:.5g}")
    assert compared({ERROR: numbers(1.0, noise=noise)}, {ERROR: numbers(1.0)}).differences == (), "Control: it went"


@pytest.mark.parametrize("noise", [1.0, 1e9, math.inf, math.nan, -1.0])
def test_noise_bounds_nothing_that_is_not_plausible(noise: float) -> None:
    sides = numbers(1.0, noise=noise), numbers(1.3, noise=noise)
    assert one(*sides, ERROR).rule.severity is BREAKS
    key = "training/TE/loss"
    assert compared({key: curves(1, noise=noise)}, {key: curves(1.3, noise=noise)}).differences


def test_noise_may_vary_as_noise_does() -> None:
    assert compared({ERROR: numbers(1.0, noise=0.01)}, {ERROR: numbers(1.0, noise=0.03)}).differences == ()
    assert one(numbers(1.0, noise=0.01), numbers(1.0, noise=0.05), ERROR).rule.id == "noise-grew"


def test_worst_number_stands_for_all() -> None:
    entry = one(numbers(1.0, 1.0, 1.0), numbers(1.0, 1.01, 0.5), ERROR).entries[0]
    assert values.sides(entry) == ("step 2: 1", "step 2: 0.5")
    assert "2 of 3 numbers" in values.size(entry)


def test_number_that_becomes_nan_or_infinite_differs_and_is_the_worst() -> None:
    for value in (math.nan, math.inf):
        assert one(numbers(1.0, 2.0, noise=9.0), numbers(1.0, value, noise=9.0), ERROR).rule.severity is BREAKS
    assert compared({ERROR: numbers(math.nan)}, {ERROR: numbers(math.nan)}).differences == (), "Control: NaN before"


def test_series_that_is_shifted_says_so() -> None:
    key = "metadata/max/x scale stored"
    assert values.size(one(numbers(1, 2, 3), numbers(2, 3, 4), key).entries[0]) == "the same values, one step earlier"
    assert values.size(one(numbers(2, 3, 4), numbers(1, 2, 3), key).entries[0]) == "the same values, one step later"


def test_curves_within_noise_do_not_differ() -> None:
    key = "training/TE/loss"
    assert compared({key: curves(1, noise=0.04)}, {key: curves(1.15, noise=0.04)}).differences == ()
    assert compared({key: curves(1, noise=0.04)}, {key: curves(1.17, noise=0.04)}).differences


def test_distance_of_curves_is_given_in_standard_errors() -> None:
    entry = one(curves(1.0, 1.1, 0.9), curves(1.2, 1.3, 1.1), "training/TE/loss").entries[0]
    expected = 0.2 / math.sqrt(2 * 0.01 / 3)
    assert values.size(entry) == f"{expected:+.1f} standard errors of the 3 seeds, from step 2 on"
    assert values.sides(entry) == ("ends at 1", "ends at 1.2")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "not there"),
        (Text("words"), "words"),
        (Failure("E", "x"), "fails: E: x"),
        (numbers(1.0, 2.5), "step 0: 1, step 1: 2.5"),
        (curves(1.0, 2.0), "seed 0: 1, seed 1: 2"),
        (Cost((1.0, 3.0, 2.0), "s"), "2 s"),
        (Signature("attribute"), "attribute"),
    ],
)
def test_value_is_shown_in_one_line(value: Value | None, expected: str) -> None:
    assert values.text(value) == expected
