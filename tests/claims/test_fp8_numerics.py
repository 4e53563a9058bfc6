"""Claim: in FP8, TE computes what its scales and formats say: quantize, multiply, undo the scales.

Promised by TE's user guide: a tensor is multiplied by its scale, saturated at the format's largest number, rounded to
FP8, and the matrix product of the codes is divided by both scales. The expected values come from a NumPy oracle that
does just that, so that a tolerance of rounding errors suffices; next to BF16 results it would have to be a few percent
wide, and a wrong scale, format or operand could hide in it.

What a failure means for an upgrade: FP8 training computes something else than it did.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_fp8 import te
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.oracle import dense
from mnist_fp8.oracle.dense import FORMATS, FP8_MAX, TENSORS, Array, DensePasses, Meta
from mnist_fp8.oracle.tolerances import product_tolerance, rounding_tolerance, sum_tolerance
from mnist_fp8.te.dense_step import Step, dense_layer, dense_step, fp8, on_device, variables_of
from support.assertions import assert_close, assert_equal
from support.codes import codes_at_both_ends
from support.metadata import meta_of

ROWS, CONTRACTED, FEATURES = 32, 48, 16
SHAPES = {"x": (ROWS, CONTRACTED), "kernel": (CONTRACTED, FEATURES), "grad": (ROWS, FEATURES)}
SCALES = {"x": np.float32(101.3), "kernel": np.float32(352.7), "grad": np.float32(7013.5)}
"""Unlike each other and no powers of two, so that a swapped, missing or inverted one shows."""


def tensors(seed: int, spread: Mapping[str, float] | None = None, dtype: str = "bfloat16") -> dict[str, Array]:
    """Normally distributed x, kernel and grad, rounded to a dtype."""
    drawn = np.random.default_rng(seed)
    values = {name: drawn.normal(0, (spread or {}).get(name, 1), shape) for name, shape in SHAPES.items()}
    return {name: np.array(on_device(value, dtype), np.float32) for name, value in values.items()}


def run(mode: te.Autocast, values: Mapping[str, Array], dtype: str, metas: Mapping[str, Meta]) -> Step:
    """Forward and backward pass of a layer without bias on the given tensors."""
    layer = dense_layer(features=FEATURES, use_bias=False)
    x, grad = (on_device(values[name], dtype) for name in ("x", "grad"))
    return dense_step(layer, mode, variables_of(values["kernel"], metas), x, grad)


def metas_of(scales: Mapping[str, np.float32]) -> dict[str, Meta]:
    """Metadata with which a step uses the given scales."""
    return {name: meta_of(scale) for name, scale in scales.items()}


def state_of(recipe: str, values: Mapping[str, Array]) -> tuple[dict[str, Meta], dict[str, np.float32]]:
    """Metadata to run a recipe with, and the scales that it must use: the stored ones, or those of the tensors."""
    if recipe == "DelayedScaling":
        return metas_of(SCALES), SCALES
    return {}, dense.current_scales(values, "HYBRID")


def assert_passes(step: Step, expected: DensePasses, dtype: str, *, where: str) -> None:
    """Compare output and gradients with the oracle.

    The result is rounded twice: TE rounds the product of the codes before it divides by the scales. In float32, the
    two reciprocal scales and their product round as well.
    """
    __tracebackhide__ = True
    kind = te.engine().kind
    roundings = {"bfloat16": 2, "float16": 2, "float32": 6}[dtype]
    found = {
        "output": (step.y, expected.y),
        "input gradient": (step.dx, expected.dx),
        "kernel gradient": (step.grads["params"]["kernel"], expected.dkernel),
    }
    for name, (actual, wanted) in found.items():
        tolerance = product_tolerance(wanted, dtype, kind, roundings=roundings, fp8=True)
        assert_close(where=f"{where}: {name}", actual=actual, expected=wanted.value, tolerance=tolerance)
    assert str(step.y.dtype) == dtype, f"{where}: output dtype={step.y.dtype}, but should be the input's, {dtype}"
    assert str(step.dx.dtype) == dtype, f"{where}: input gradient dtype={step.dx.dtype}, but should be {dtype}"


def assert_no_code_hangs_on_the_last_bits(
    values: Mapping[str, Array], scales: Mapping[str, float | np.float32], fmt: str
) -> None:
    """Control: no value is so close to halfway between two codes that a GPU's division decides which one it becomes."""
    for name, low, high in codes_at_both_ends(values, scales, fmt, RunKind.KERNEL):
        assert_equal(where=f"Control: codes of {name} at both ends of the scale's error", actual=low, expected=high)


@pytest.mark.parametrize("dtype", [pytest.param("bfloat16", marks=pytest.mark.xla_sums_in_float32), "float32"])
@pytest.mark.parametrize("fp8_format", FORMATS)
def test_delayed_scaling_computes_with_the_stored_scales(fp8_format: str, dtype: str) -> None:
    values = tensors(1, {"x": 1, "kernel": 0.3, "grad": 0.01}, dtype)
    mode = fp8(fp8_format=fp8_format, amax_history_len=4)
    step = run(mode, values, dtype, metas_of(SCALES))
    assert_passes(step, dense.fp8_dense(**values, scales=SCALES, fp8_format=fp8_format), dtype, where=fp8_format)


@pytest.mark.parametrize("dtype", [pytest.param("bfloat16", marks=pytest.mark.xla_sums_in_float32), "float32"])
@pytest.mark.parametrize("fp8_format", FORMATS)
def test_current_scaling_computes_with_each_tensors_own_amax(fp8_format: str, dtype: str) -> None:
    values = tensors(10, {"x": 3, "kernel": 0.1, "grad": 0.001}, dtype)
    scales = dense.current_scales(values, fp8_format)
    assert_no_code_hangs_on_the_last_bits(values, scales, fp8_format)
    step = run(fp8("Float8CurrentScaling", fp8_format=fp8_format), values, dtype, {})
    assert_passes(step, dense.fp8_dense(**values, scales=scales, fp8_format=fp8_format), dtype, where=fp8_format)


@pytest.mark.parametrize("recipe", ["DelayedScaling", "Float8CurrentScaling"])
def test_float16_is_computed_as_exactly_as_its_numbers_are_kept(recipe: str) -> None:
    """The largest product of two codes, 448 * 448, is beyond float16: the scales have to be undone before rounding."""
    values = tensors(1, {"x": 1, "kernel": 0.3, "grad": 0.01}, "float16")
    metas, scales = state_of(recipe, values)
    step = run(fp8(recipe), values, "float16", metas)
    assert_passes(step, dense.fp8_dense(**values, scales=scales, fp8_format="HYBRID"), "float16", where=recipe)


@given(exponents=st.tuples(*[st.integers(-12, 12)] * 3), seed=st.integers(0, 2**16))
def test_output_and_gradients_follow_the_oracle_for_any_scale(exponents: tuple[int, int, int], seed: int) -> None:
    """From scales at which everything is subnormal or zero to scales at which everything saturates."""
    drawn = np.random.default_rng(seed)
    scales = {
        name: np.float32(FP8_MAX[FORMATS["HYBRID"][name]] * 2.0**exponent * drawn.uniform(0.5, 1))
        for name, exponent in zip(TENSORS, exponents, strict=True)
    }
    values = tensors(seed)
    step = run(fp8(amax_history_len=4), values, "float32", metas_of(scales))
    assert_passes(step, dense.fp8_dense(**values, scales=scales, fp8_format="HYBRID"), "float32", where=str(scales))


def test_values_beyond_the_format_saturate() -> None:
    """A scale of 448 and values up to 4: anything above 1 becomes the largest number, none infinite or NaN."""
    values = tensors(3)
    scales = {name: np.float32(FP8_MAX[FORMATS["HYBRID"][name]]) for name in TENSORS}
    assert max(np.abs(values[name]).max() for name in TENSORS) > 2, "the tensors should exceed the format's range"
    step = run(fp8(amax_history_len=4), values, "float32", metas_of(scales))
    assert_passes(step, dense.fp8_dense(**values, scales=scales, fp8_format="HYBRID"), "float32", where="saturated")


@pytest.mark.parametrize("recipe", ["DelayedScaling", "Float8CurrentScaling"])
def test_nan_in_a_row_stays_in_that_row_and_is_not_hidden(recipe: str) -> None:
    values = tensors(9)
    values["x"][5, 7] = np.nan
    metas, _ = state_of(recipe, values)
    step = run(fp8(recipe), values, "float32", metas)
    found = np.isnan(np.asarray(step.y))
    assert found[5].all(), f"row 5 holds {found[5].sum()} NaN of {FEATURES}, but its input is NaN"
    rows = np.flatnonzero(np.isnan(np.asarray(step.grads["params"]["kernel"])).all(axis=1)).tolist()
    assert 7 in rows, f"kernel gradient: rows of NaN={rows}, but should include 7, whose input is NaN"
    if recipe == "DelayedScaling":  # under current scaling, the amax of the whole tensor is touched
        assert found.sum() == FEATURES, (
            f"NaN in rows {sorted(set(np.argwhere(found)[:, 0].tolist()))}, but should be [5]"
        )


@pytest.mark.parametrize("recipe", ["DelayedScaling", "Float8CurrentScaling"])
def test_infinite_input_saturates(recipe: str) -> None:
    """Under current scaling, an infinite amax cannot give a scale: it stays 1."""
    values = tensors(9, dtype="float32")
    values["x"][5, 7], values["grad"][3, 2] = np.inf, -np.inf
    metas, scales = state_of(recipe, values)
    assert_no_code_hangs_on_the_last_bits(values, scales, "HYBRID")
    step = run(fp8(recipe), values, "float32", metas)
    assert_passes(step, dense.fp8_dense(**values, scales=scales, fp8_format="HYBRID"), "float32", where="infinite")


def test_rounding_is_to_the_nearest_code_and_ties_to_even() -> None:
    """One row times the identity shows the codes themselves: written-out halfway cases of E4M3."""
    inputs = [17.0, 19.0, 18.5, -17.0, 1.0625, 1.1875, 449.0, -460.0, 2.0**-10, 3 * 2.0**-10, 2.0**-9, 0.0]
    codes = [16.0, 20.0, 18.0, -16.0, 1.0, 1.25, 448.0, -448.0, 0.0, 2.0**-8, 2.0**-9, 0.0]
    x = np.zeros((16, 16), np.float32)
    x[0, : len(inputs)] = inputs
    ones = {name: np.float32(1) for name in TENSORS}
    layer = dense_layer(features=16, use_bias=False)
    variables = variables_of(np.eye(16, dtype=np.float32), metas_of(ones))
    step = dense_step(layer, fp8(amax_history_len=4), variables, on_device(x), on_device(np.zeros((16, 16))))
    assert_equal(where="codes of E4M3", actual=step.y[0, : len(codes)], expected=codes)


def test_current_scaling_spreads_a_tensor_over_the_whole_format() -> None:
    """The largest value becomes the largest code: what is small beside it is rounded as a subnormal, no earlier.

    A scale that is off by a power of two leaves all other values as they are. The identity as kernel shows the codes
    of input and gradient; 1.75 as their amax makes the scales powers of two, 256 and 32768.
    """
    sizes = {"x": 2.0 ** -np.arange(24), "grad": 2.0 ** -np.arange(40)}
    values = {name: np.zeros((16, 16), np.float32) for name in sizes}
    for name, size in sizes.items():
        steps = np.concatenate([[1.75], 1.3 * size[1:]])
        values[name].flat[: 5 * len(steps) : 5] = steps
    values["kernel"] = np.eye(16, dtype=np.float32)
    scales = {"x": np.float32(256), "kernel": np.float32(448), "grad": np.float32(32768)}
    layer = dense_layer(features=16, use_bias=False)
    x, grad = on_device(values["x"]), on_device(values["grad"])
    step = dense_step(layer, fp8("Float8CurrentScaling"), variables_of(values["kernel"], {}), x, grad)
    expected = dense.fp8_dense(**values, scales=scales, fp8_format="HYBRID")
    assert_equal(where="Control: codes lost to underflow", actual=expected.y.value[values["x"] != 0].min(), expected=0)
    assert_passes(step, expected, "float32", where="current scaling, amax 1.75")


def test_exactly_representable_values_give_the_exact_product() -> None:
    """Small integers are E4M3 and E5M2 numbers, so that quantization may not change them at all."""
    drawn = np.random.default_rng(4)
    values = {name: drawn.integers(-4, 5, shape).astype(np.float32) for name, shape in SHAPES.items()}
    scales = {"x": np.float32(8), "kernel": np.float32(16), "grad": np.float32(1024)}
    step = run(fp8(amax_history_len=4), values, "float32", metas_of(scales))
    exact = dense.dense(**values)
    assert_equal(where="output", actual=step.y, expected=exact.y.value)
    assert_equal(where="input gradient", actual=step.dx, expected=exact.dx.value)
    assert_equal(where="kernel gradient", actual=step.grads["params"]["kernel"], expected=exact.dkernel.value)


def test_several_contracted_axes_and_features_quantize_alike() -> None:
    """A layer over two axes, with a tuple of features, computes what the flattened layer computes."""
    values = tensors(6, {"kernel": 0.3, "grad": 0.01})
    layer = dense_layer(features=(2, 8), axis=(-2, -1), use_bias=False)
    kernel = values["kernel"].reshape(te.kernel_shape((6, 8), (2, 8)))
    x, grad = on_device(values["x"].reshape(4, 8, 6, 8)), on_device(values["grad"].reshape(4, 8, 2, 8))
    step = dense_step(layer, fp8(amax_history_len=4), variables_of(kernel, metas_of(SCALES)), x, grad)
    flat = Step(
        step.y.reshape(ROWS, FEATURES),
        step.dx.reshape(ROWS, CONTRACTED),
        {"params": {"kernel": step.grads["params"]["kernel"].reshape(CONTRACTED, FEATURES)}},
    )
    expected = dense.fp8_dense(**values, scales=SCALES, fp8_format="HYBRID")
    assert_passes(flat, expected, "float32", where="kernel (6, 8, 2, 8)")


@pytest.mark.parametrize("recipe", ["DelayedScaling", "Float8CurrentScaling"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_evaluation_computes_what_the_forward_pass_of_training_does(recipe: str, dtype: str) -> None:
    values = tensors(12, dtype=dtype)
    metas, _ = state_of(recipe, values)
    mode = fp8(recipe)
    variables = variables_of(values["kernel"], metas)
    layer = dense_layer(features=FEATURES, use_bias=False)

    def evaluate(variables: dict[str, Any], x: jax.Array) -> jax.Array:
        with mode():
            return layer.apply(variables, x)

    found = jax.jit(evaluate)(variables, on_device(values["x"], dtype))
    assert_equal(where="output of an evaluation", actual=found, expected=run(mode, values, dtype, metas).y)


@pytest.mark.parametrize("recipe", ["DelayedScaling", "Float8CurrentScaling"])
@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_of_zeros_gives_zeros(name: str, recipe: str) -> None:
    """Its amax is zero: the scale has to stay usable. What the tensor does not touch is as ever."""
    values = tensors(13, dtype="float32")
    values[name][:] = 0
    metas, scales = state_of(recipe, values)
    assert_no_code_hangs_on_the_last_bits(values, scales, "HYBRID")
    step = run(fp8(recipe), values, "float32", metas)
    assert_passes(step, dense.fp8_dense(**values, scales=scales, fp8_format="HYBRID"), "float32", where=f"{name} zero")


def test_gradient_of_tiny_numbers_gives_finite_results_under_current_scaling() -> None:
    """57344 / amax is beyond float32 for an amax below 1.7e-34: the scale has to stop at the largest number."""
    values = tensors(13, {"grad": 1e-38}, "float32")
    step = run(fp8("Float8CurrentScaling"), values, "float32", {})
    for name, found in (("input", step.dx), ("kernel", step.grads["params"]["kernel"])):
        wrong = int((~np.isfinite(np.asarray(found))).sum())
        assert not wrong, f"{name} gradient: {wrong} of {found.size} elements are not finite"


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_bias_and_its_gradient_are_not_quantized(dtype: str) -> None:
    values = tensors(7, {"kernel": 0.3})
    values["grad"] = np.round(values["grad"] * 2).clip(-2, 2) / 2  # sums of which are BF16 numbers
    bias = np.asarray(jnp.linspace(-3.1, 3.1, FEATURES, dtype="bfloat16"), np.float32)
    with_bias, without = dense_layer(features=FEATURES), dense_layer(features=FEATURES, use_bias=False)
    x, grad = on_device(values["x"], dtype), on_device(values["grad"], dtype)
    mode, metas = fp8(amax_history_len=4), metas_of(SCALES)
    biased = dense_step(with_bias, mode, variables_of(values["kernel"], metas, bias), x, grad)
    plain = dense_step(without, mode, variables_of(values["kernel"], metas), x, grad)
    unbiased = np.asarray(plain.y, np.float32)
    # XLA may fuse the last multiplication and the addition, which then round once instead of twice.
    tolerance = rounding_tolerance(np.abs(unbiased) + np.abs(bias), dtype, roundings=2)
    assert_close(where="output with bias", actual=biased.y, expected=unbiased + bias, tolerance=tolerance)
    assert_close(
        where="bias gradient",
        actual=biased.grads["params"]["bias"],
        expected=values["grad"].astype(np.float64).sum(axis=0),
        tolerance=sum_tolerance(values["grad"], dtype),
    )


def test_a_row_of_a_batch_does_not_depend_on_the_others_under_delayed_scaling() -> None:
    values = tensors(8)
    mode, metas = fp8(amax_history_len=4), metas_of(SCALES)
    whole = run(mode, values, "bfloat16", metas)
    order = np.random.default_rng(0).permutation(ROWS)
    shuffled = run(mode, values | {name: values[name][order] for name in ("x", "grad")}, "bfloat16", metas)
    assert_equal(where="output of a shuffled batch", actual=shuffled.y, expected=np.asarray(whole.y)[order])
    assert_equal(where="input gradient of a shuffled batch", actual=shuffled.dx, expected=np.asarray(whole.dx)[order])
