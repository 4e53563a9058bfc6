"""Each assertion accepts the good and rejects the bad, with a message from which a reader can tell the fault."""

import numpy as np
import pytest

from support.assertions import (
    assert_close,
    assert_close_norm,
    assert_equal,
    assert_same_structure,
    assert_trees_close_norm,
    assert_trees_equal,
)

EXPECTED = np.linspace(-3, 3, 24).reshape(4, 6)


def test_close_accepts_what_is_within_its_tolerance() -> None:
    assert_close(where="y", actual=EXPECTED + 0.01, expected=EXPECTED, tolerance=0.011)
    assert_close(where="y", actual=EXPECTED, expected=EXPECTED, tolerance=0)


@pytest.mark.parametrize(
    ("actual", "message"),
    [
        (EXPECTED * 0, r"y: 24 of 24 elements are wrong; .*all that was found is zero"),
        (EXPECTED * 2, r"as a whole it is 2 times what was expected"),
        (EXPECTED / 448, r"as a whole it is 0.002232 times"),
        (EXPECTED[:, ::-1], r"elements are wrong; worst \["),
        (np.where(EXPECTED > 2.9, np.nan, EXPECTED), r"y: 1 of 24 elements are wrong; worst \[3, 5\]=nan.*not finite"),
        (np.where(EXPECTED > 2.9, np.inf, EXPECTED), r"worst \[3, 5\]=inf"),
        (
            np.where(EXPECTED > 2.9, 2.9, EXPECTED),
            r"y: 1 of 24 .* worst \[3, 5\]=2.9, but should be 3 \(tolerance 0.01\)",
        ),
        (EXPECTED.T, r"y: shape=\(6, 4\), but should be \(4, 6\)"),
    ],
    ids=["zeros", "twice", "unscaled", "mirrored", "one nan", "one inf", "one element", "transposed"],
)
def test_close_rejects(actual: np.ndarray, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        assert_close(where="y", actual=actual, expected=EXPECTED, tolerance=0.01)


def test_close_uses_the_tolerance_of_each_element() -> None:
    tolerance = np.full_like(EXPECTED, 0.1)
    tolerance[2, 3] = 0.001
    with pytest.raises(AssertionError, match=r"1 of 24 elements are wrong; worst \[2, 3\]"):
        assert_close(where="y", actual=EXPECTED + 0.01, expected=EXPECTED, tolerance=tolerance)


def test_equal_accepts_the_same_and_allowed_nan() -> None:
    assert_equal(where="y", actual=EXPECTED, expected=EXPECTED.copy())
    assert_equal(where="y", actual=[1, np.nan], expected=[1, np.nan], nan=True)


@pytest.mark.parametrize(
    ("actual", "expected", "message"),
    [
        ([1.0, 2.0], [1.0, 3.0], r"h: 1 of 2 elements differ; first \[1\]=2.0, but should be 3.0"),
        ([1.0, np.nan], [1.0, 3.0], r"first \[1\]=nan"),
        ([1.0], [1.0, 3.0], r"h: shape=\(1,\), but should be \(2,\)"),
        ([0.0, 0.0], [1.0, 3.0], r"all that was found is zero"),
    ],
    ids=["value", "nan", "shape", "zeros"],
)
def test_equal_rejects(actual: list[float], expected: list[float], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        assert_equal(where="h", actual=actual, expected=expected)


def test_equal_rejects_nan_in_another_place() -> None:
    with pytest.raises(AssertionError, match="2 of 2 elements differ"):
        assert_equal(where="h", actual=[np.nan, 1], expected=[1, np.nan], nan=True)


def test_nan_in_an_expected_value_is_misuse_unless_it_is_meant() -> None:
    with pytest.raises(ValueError, match="nan=True"):
        assert_equal(where="h", actual=[np.nan], expected=[np.nan])


def test_close_norm_accepts_and_rejects() -> None:
    assert_close_norm(where="g", actual=EXPECTED * 1.001, expected=EXPECTED, tolerance=0.002)
    for actual, message in (
        (EXPECTED * 1.01, r"g: relative difference=0.01, but should be at most 0.002"),
        (EXPECTED * 0, "all that was found is zero"),
        (EXPECTED * np.nan, "relative difference=nan"),
        (EXPECTED * 2, "2 times what was expected"),
    ):
        with pytest.raises(AssertionError, match=message):
            assert_close_norm(where="g", actual=actual, expected=EXPECTED, tolerance=0.002)
    with pytest.raises(ValueError, match="the expected tensor is zero"):
        assert_close_norm(where="g", actual=EXPECTED, expected=EXPECTED * 0, tolerance=0.002)


TREE = {"dense": {"kernel": EXPECTED, "bias": EXPECTED[0]}}


def test_trees_accept_the_same() -> None:
    assert_trees_equal(where="t", actual=TREE, expected=TREE)
    assert_trees_close_norm(where="t", actual=TREE, expected=TREE, tolerance=0)


def test_trees_name_every_leaf_that_differs() -> None:
    actual = {"dense": {"kernel": EXPECTED * 2, "bias": EXPECTED[0] + 1}}
    with pytest.raises(AssertionError, match=r"(?s)\['dense'\]\['bias'\].*\['dense'\]\['kernel'\]"):
        assert_trees_equal(where="t", actual=actual, expected=TREE)
    with pytest.raises(AssertionError, match=r"(?s)\['bias'\]: relative.*\['kernel'\]: relative"):
        assert_trees_close_norm(where="t", actual=actual, expected=TREE, tolerance=0.1)


def test_trees_name_missing_and_unexpected_leaves() -> None:
    with pytest.raises(
        AssertionError, match=r"(?s)\['dense'\]\['bias'\] is missing.*\['dense'\]\['scale'\] is unexpected"
    ):
        assert_trees_equal(where="t", actual={"dense": {"kernel": EXPECTED, "scale": 1}}, expected=TREE)


def test_structure_lists_all_offenders() -> None:
    expected = {"a": ((2,), "float32"), "b": ((3,), "float32"), "c": ((1,), "float32")}
    good = {name: np.zeros(shape, dtype) for name, (shape, dtype) in expected.items()}
    assert_same_structure(where="s", actual=good, expected=expected)
    bad = {"a": np.zeros(2, np.float64), "b": np.zeros((3, 1), np.float32), "d": np.zeros(1)}
    with pytest.raises(AssertionError) as caught:
        assert_same_structure(where="s", actual=bad, expected=expected)
    message = str(caught.value)
    for part in ("c is missing", "d is unexpected", "a=((2,), 'float64'), but should be", "b=((3, 1), 'float32')"):
        assert part in message, f"{part!r} is not in {message!r}"
