"""Each tolerance has power: it rejects zeros, a factor of two, a swapped operand and a single wrong element."""

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.oracle import dense
from mnist_fp8.oracle.dense import TENSORS, Array
from mnist_fp8.oracle.tolerances import (
    BF16_NET,
    KERNEL_AGAINST_JAX,
    PARTIAL_SUMS,
    fp8_error_band,
    product_norm_tolerance,
    product_tolerance,
    rounding_tolerance,
    scale_tolerance,
    sum_tolerance,
    unit_roundoff,
)
from support.assertions import assert_close, assert_close_norm

DRAWN = np.random.default_rng(0)
X, KERNEL = DRAWN.normal(0, 1, (32, 48)), DRAWN.normal(0, 0.3, (48, 16))
EXPECTED = dense.product(X, KERNEL)


def one_wrong_element(values: Array) -> Array:
    """The largest element as its half: what a wrong exponent makes of it."""
    wrong = values.copy()
    wrong[np.unravel_index(np.argmax(np.abs(values)), values.shape)] /= 2
    return wrong


WRONG: dict[str, Callable[[Array], Array]] = {
    "zeros": np.zeros_like,
    "twice": lambda values: values * 2,
    "half": lambda values: values / 2,
    "negated": lambda values: -values,
    "one wrong element": one_wrong_element,
    "swapped operand": lambda _: dense.product(X[::-1], KERNEL).value,
    "nan": lambda values: values * np.nan,
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("kind", RunKind)
@pytest.mark.parametrize(("dtype", "fp8"), [("bfloat16", False), ("bfloat16", True), ("float32", True)])
def test_product_tolerance_rejects(wrong: str, kind: RunKind, dtype: str, fp8: bool) -> None:  # noqa: FBT001
    tolerance = product_tolerance(EXPECTED, dtype, kind, roundings=2, fp8=fp8)
    with pytest.raises(AssertionError, match="y: "):
        assert_close(where="y", actual=WRONG[wrong](EXPECTED.value), expected=EXPECTED.value, tolerance=tolerance)


@pytest.mark.parametrize("kind", RunKind)
def test_product_tolerance_rejects_bf16_in_place_of_fp8(kind: RunKind) -> None:
    """The exact product instead of that of the codes: a layer that did not quantize."""
    scales = {name: np.float32(100) for name in TENSORS}
    codes = dense.fp8_dense(X, KERNEL, np.ones((32, 16)), scales, "HYBRID").y
    tolerance = product_tolerance(codes, "bfloat16", kind, roundings=2, fp8=True)
    with pytest.raises(AssertionError, match="elements are wrong"):
        assert_close(where="y", actual=EXPECTED.value, expected=codes.value, tolerance=tolerance)


def test_product_tolerance_accepts_a_rounded_product() -> None:
    rounded = (X.astype(np.float32) @ KERNEL.astype(np.float32)).astype("float32")
    exact = dense.product(X.astype(np.float32), KERNEL.astype(np.float32))
    for kind in RunKind:
        tolerance = product_tolerance(exact, "float32", kind)
        assert_close(where="y", actual=rounded, expected=exact.value, tolerance=tolerance)


@pytest.mark.parametrize("wrong", [name for name in WRONG if name != "swapped operand"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_sum_and_rounding_tolerances_reject(wrong: str, dtype: str) -> None:
    total = X.sum(axis=0)
    for tolerance in (sum_tolerance(X, dtype), rounding_tolerance(total, dtype, roundings=2)):
        with pytest.raises(AssertionError, match="b: "):
            assert_close(where="b", actual=WRONG[wrong](total), expected=total, tolerance=tolerance)


@pytest.mark.parametrize("tolerance", [BF16_NET, PARTIAL_SUMS, KERNEL_AGAINST_JAX])
@pytest.mark.parametrize("wrong", WRONG)
def test_norm_tolerances_reject(wrong: str, tolerance: float) -> None:
    with pytest.raises(AssertionError, match="relative difference"):
        assert_close_norm(where="g", actual=WRONG[wrong](EXPECTED.value), expected=EXPECTED.value, tolerance=tolerance)


NORM_TOLERANCES = [
    product_norm_tolerance(EXPECTED, dtype, kind, roundings=roundings, fp8=fp8)
    for kind in RunKind
    for dtype, roundings, fp8 in (("bfloat16", 1, False), ("bfloat16", 2, True), ("float32", 1, False))
]


@pytest.mark.parametrize("tolerance", NORM_TOLERANCES)
@pytest.mark.parametrize("wrong", WRONG)
def test_norm_tolerances_of_products_reject(wrong: str, tolerance: float) -> None:
    with pytest.raises(AssertionError, match="relative difference"):
        assert_close_norm(where="y", actual=WRONG[wrong](EXPECTED.value), expected=EXPECTED.value, tolerance=tolerance)


def test_norm_tolerance_of_a_product_tells_one_rounding_from_fp8s() -> None:
    """It accepts the rounded product, and not the product of operands that were quantized once more."""
    tolerance = product_norm_tolerance(EXPECTED, "bfloat16", RunKind.KERNEL, roundings=2, fp8=True)
    rounded = EXPECTED.value.astype(ml_dtypes.bfloat16)
    assert_close_norm(where="y", actual=rounded, expected=EXPECTED.value, tolerance=tolerance)
    quantized = dense.product(X.astype(ml_dtypes.float8_e4m3fn), KERNEL).value
    with pytest.raises(AssertionError, match="relative difference"):
        assert_close_norm(where="y", actual=quantized, expected=EXPECTED.value, tolerance=tolerance)


def test_norm_tolerance_of_a_product_follows_its_roundings() -> None:
    """By hand: u / sqrt(3) for each rounding, in quadrature, and 4 / sqrt(2 n) more."""
    large = dense.product(np.ones((512, 1)), np.ones((1, 512)))
    one, two = (product_norm_tolerance(large, "bfloat16", RunKind.HOST, roundings=n) for n in (1, 2))
    assert one == pytest.approx(2.0**-8 / 3**0.5 * (1 + 4 / (2 * 512**2) ** 0.5), rel=1e-6)
    assert two == pytest.approx(one * 2**0.5, rel=1e-6)


def test_scale_tolerance_is_exact_on_a_cpu_and_two_ulps_on_a_gpu() -> None:
    assert scale_tolerance(448.0, RunKind.HOST) == 0
    two_ulps = 2 * np.spacing(np.float32(448))
    assert 0 < scale_tolerance(448.0, RunKind.KERNEL) <= 2 * two_ulps
    with pytest.raises(AssertionError, match="scale"):
        assert_close(where="scale", actual=224, expected=448, tolerance=scale_tolerance(448.0, RunKind.KERNEL))


def test_unit_roundoffs_are_those_of_the_formats() -> None:
    assert unit_roundoff("bfloat16") == 2.0**-8
    assert unit_roundoff("float32") == 2.0**-24
    assert unit_roundoff("float8_e4m3fn") == 2.0**-4


@pytest.mark.parametrize("wrong", ["zeros", "twice", "negated", "nan"])
def test_tolerance_of_a_sum_in_bf16_rejects(wrong: str) -> None:
    """It is as wide as an eighth of the absolute values: what is wrong as a whole shows, a single element may not."""
    total, tolerance = X.sum(axis=0), sum_tolerance(X, "bfloat16", accumulator="bfloat16")
    with pytest.raises(AssertionError, match="b: "):
        assert_close(where="b", actual=WRONG[wrong](total), expected=total, tolerance=tolerance)


def test_tolerance_of_a_sum_in_bf16_accepts_rounded_partial_sums() -> None:
    partial = np.zeros(X.shape[1], ml_dtypes.bfloat16)
    terms = X.astype(ml_dtypes.bfloat16)
    for row in terms:
        partial = (partial.astype(np.float32) + row.astype(np.float32)).astype(ml_dtypes.bfloat16)
    expected = terms.astype(np.float64).sum(axis=0)
    tolerance = sum_tolerance(terms, "bfloat16", accumulator="bfloat16")
    assert_close(where="b", actual=partial, expected=expected, tolerance=tolerance)
    with pytest.raises(AssertionError, match="b: "):  # Control: a sum in float32 would be closer
        assert_close(where="b", actual=partial, expected=expected, tolerance=sum_tolerance(terms, "bfloat16"))


E4M3, E5M2 = "float8_e4m3fn", "float8_e5m2"


def relative_error(lhs: str, rhs: str) -> float:
    """Error of a product whose operands are rounded to dtypes, as a norm and relative."""
    scales = [float(np.float32(ml_dtypes.finfo(dtype).max)) / 8 for dtype in (lhs, rhs)]
    a, b = ((a * s).astype(getattr(ml_dtypes, d)) for a, s, d in zip((X, KERNEL), scales, (lhs, rhs), strict=True))
    found = dense.product(a, b, factor=1 / (scales[0] * scales[1])).value
    return float(np.linalg.norm(found - EXPECTED.value) / np.linalg.norm(EXPECTED.value))


BANDS = {(E4M3, E4M3): [(E4M3, E5M2), (E5M2, E5M2)], (E4M3, E5M2): [(E4M3, E4M3)]}
"""The operands of the formats' products, and those that they are told from; two E5M2 are too close to a mixed pair."""


@pytest.mark.parametrize("operands", BANDS, ids=["forward", "backward"])
def test_fp8_error_band_holds_the_error_of_its_own_operands_alone(operands: tuple[str, str]) -> None:
    low, high = fp8_error_band(*operands)
    assert low < relative_error(*operands) < high
    for others in [*BANDS[operands], ("bfloat16", "bfloat16"), ("bfloat16", E4M3)]:
        error = relative_error(*others)
        assert not low < error < high, f"{others} err by {error:.4f}, within the band of {operands}"


@pytest.mark.parametrize("wrong", [name for name in WRONG if name != "one wrong element"])
def test_fp8_error_band_rejects(wrong: str) -> None:
    difference = WRONG[wrong](EXPECTED.value) - EXPECTED.value
    error = float(np.linalg.norm(difference) / np.linalg.norm(EXPECTED.value))
    for operands in BANDS:
        low, high = fp8_error_band(*operands)
        assert not low < error < high, f"{wrong}: {error:.4f} is within the band of {operands}"
