"""Claim: MXFP8 quantizes in blocks of 32 numbers along each product's sum, under powers of two that saturate nothing.

Promised by the docstring of ``MXFP8BlockScaling`` (blocks of 32 consecutive values under an E8M0 scale; each direction
is quantized from the numbers themselves; ``fp8_format``), by the OCP Microscaling Formats specification 1.0, and for
the rounding of scales by NVIDIA's "Recipes for Pre-training LLMs with MXFP8" (2025). The expected codes and scales are
those of a NumPy oracle. Where special numbers go another way in kernels than in TE's JAX path, each has a test.

A host run pretends the GPU that the recipe needs (``mnist_fp8.te.pretended``); no kernel is seen there.

What a failure means for an upgrade: what trains in MXFP8 is quantized in another way than it was, or not at all.
"""

import inspect
from collections import Counter
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_fp8 import te
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.oracle import blocks
from mnist_fp8.oracle.dense import FORMATS, Array, Product
from mnist_fp8.oracle.tolerances import product_tolerance
from mnist_fp8.programs import jaxprs
from mnist_fp8.te.dense_step import BF16, Step, dense_layer, dense_step, init, on_device, variables_of
from support.assertions import assert_close, assert_equal, assert_trees_equal
from support.blocks import PRODUCTS, assert_mxfp8, expected_passes, operands_in

RECIPE = "MXFP8BlockScaling"
pytestmark = pytest.mark.recipe(RECIPE)

SHAPES = {"x": (64, 96), "kernel": (96, 128), "grad": (64, 128)}
E4M3, E5M2 = "float8_e4m3fn", "float8_e5m2"
MX, HYBRID = (RecipeConfig(RECIPE, fp8_format=fp8_format) for fp8_format in ("E4M3", "HYBRID"))
both_formats = pytest.mark.parametrize("recipe", [MX, HYBRID], ids=["E4M3", "HYBRID"])


def tensors(seed: int, dtype: str = "float32", spread: int = 6) -> dict[str, Array]:
    """Tensors of which each row and each column has a size of its own, so that no two blocks share a scale for long.

    Args:
        seed: of the numbers.
        dtype: that x and grad are rounded to.
        spread: rows and columns are multiplied by up to two to the power of it.
    """
    drawn = np.random.default_rng(seed)
    values = {}
    for name, (rows, columns) in SHAPES.items():
        sizes = drawn.integers(-spread, spread + 1, (rows, 1)) + drawn.integers(-spread, spread + 1, (1, columns))
        numbers = on_device(drawn.normal(0, 1, (rows, columns)) * 2.0**sizes, "float32" if name == "kernel" else dtype)
        values[name] = np.array(numbers, np.float32)
    return values


def arguments(values: Mapping[str, Array], dtype: str = "float32") -> tuple[dict[str, Any], jax.Array, jax.Array]:
    """Variables, input and gradient of `dense_step`."""
    return variables_of(values["kernel"], {}), on_device(values["x"], dtype), on_device(values["grad"], dtype)


def sized(values: Mapping[str, Array], exponents: tuple[int, ...]) -> dict[str, Array]:
    """Each tensor multiplied by a power of two."""
    return {name: values[name] * np.float32(2.0**exponent) for name, exponent in zip(SHAPES, exponents, strict=True)}


def run(recipe: RecipeConfig, values: Mapping[str, Array], dtype: str = "float32", **fields: Any) -> Step:
    """Forward and backward pass of a layer, without bias unless it is asked for."""
    layer = dense_layer(**({"features": SHAPES["kernel"][1], "use_bias": False} | fields))
    return dense_step(layer, te.Autocast(recipe), *arguments(values, dtype))


def passes(step: Step) -> dict[str, Array]:
    """Output and gradients as matrices, by the names of `expected_passes`."""
    found = {"output": step.y, "input gradient": step.dx, "kernel gradient": step.grads["params"]["kernel"]}
    return {name: np.asarray(array).astype(np.float64) for name, array in found.items()}


def assert_passes(found: Mapping[str, Array], expected: Mapping[str, Product], dtype: str, *, where: str) -> None:
    """Compare output and gradients with the oracle: each is rounded once, when all of it is added up."""
    __tracebackhide__ = True
    for name, wanted in expected.items():
        tolerance = product_tolerance(wanted, dtype, te.engine().kind, fp8=True)
        shape = wanted.value.shape
        actual = found[name].reshape(shape)
        assert_close(where=f"{where}: {name}", actual=actual, expected=wanted.value, tolerance=tolerance)


# --- codes and scales -------------------------------------------------------------------------------------------------


def assert_operands(recipe: RecipeConfig, values: Mapping[str, Array]) -> None:
    """All operands of a step have the oracle's codes and scales."""
    __tracebackhide__ = True
    fp8_format = str(recipe.fp8_format)
    for where, operand in operands_in(recipe, *arguments(values)).items():
        dtype = FORMATS[fp8_format][where.tensor]
        assert_mxfp8(operand, values[where.tensor], where.axis, dtype, where=f"{fp8_format}: {where.name}")


@pytest.mark.host
@both_formats
def test_codes_and_scales_are_those_of_blocks_along_each_sum(recipe: RecipeConfig) -> None:
    for seed in range(8):
        assert_operands(recipe, tensors(seed))


@pytest.mark.host
@both_formats
@given(exponents=st.tuples(*[st.integers(-90, 100)] * 3), seed=st.integers(0, 2**16), spread=st.integers(0, 12))
def test_codes_and_scales_are_those_of_numbers_of_any_size(
    recipe: RecipeConfig, exponents: tuple[int, int, int], seed: int, spread: int
) -> None:
    """As far as float32's normal numbers go: below them, XLA on a CPU has zeros."""
    values = tensors(seed, spread=spread)
    assert_operands(recipe, sized(values, exponents))


@both_formats
def test_identity_shows_what_codes_stand_for(recipe: RecipeConfig) -> None:
    """In float32, whose 24 bits hold a code times its scale; and of an identity, no block is rounded."""
    drawn = np.random.default_rng(1)
    sizes = 2.0 ** (drawn.integers(-6, 7, (3, 64, 1)) + drawn.integers(-6, 7, (3, 1, 64)))
    data = dict(zip(SHAPES, (drawn.normal(0, 1, sizes.shape) * sizes).astype(np.float32), strict=True))
    for name, (lhs, rhs) in zip(("output", "input gradient", "kernel gradient"), PRODUCTS, strict=True):
        for seen, other in ((lhs, rhs), (rhs, lhs)):
            found = passes(run(recipe, data | {other.tensor: np.eye(64, dtype=np.float32)}, features=64))[name]
            expected = blocks.quantized(recipe, seen.tensor, data[seen.tensor], seen.axis).values
            turned = seen.axis == (0 if seen is lhs else 1)
            assert_equal(where=seen.name, actual=found, expected=expected.T if turned else expected)


WRITTEN = [
    # numbers of a block, and what they become
    ((448, 17, 2.0**-9), (448, 16, 2.0**-9)),  # a scale of 1
    ((449, 17, 2.0**-9), (448, 16, 0)),  # 2: as 224.5 and 8.5 are, and half of the smallest
    ((500, 34, 0.75 * 2.0**-8), (512, 32, 2.0**-8)),  # 2: under 1, 500 would saturate
    ((-0.875, 0.0625, 1.1 * 2.0**-18), (-0.875, 0.0625, 2.0**-18)),  # 2**-9
]


@pytest.mark.parametrize(("numbers", "expected"), WRITTEN, ids=[str(numbers[0]) for numbers, _ in WRITTEN])
def test_scale_is_the_power_of_two_at_which_nothing_saturates(
    numbers: tuple[float, ...], expected: tuple[float, ...]
) -> None:
    values = {name: np.zeros((64, 64), np.float32) for name in SHAPES} | {"kernel": np.eye(64, dtype=np.float32)}
    values["x"][5, 32 : 32 + len(numbers)] = numbers
    found = run(MX, values, features=64).y[5, 32 : 32 + len(numbers)]
    assert_equal(where=f"codes times scale of {numbers}", actual=found, expected=expected)


# --- products ---------------------------------------------------------------------------------------------------------


@both_formats
@given(seed=st.integers(0, 2**16), exponents=st.tuples(*[st.integers(-12, 12)] * 3))
def test_output_and_gradients_are_products_of_the_oracles_operands(
    recipe: RecipeConfig, seed: int, exponents: tuple[int, int, int]
) -> None:
    values = sized(tensors(seed, spread=3), exponents)
    where = str(recipe.fp8_format)
    assert_passes(passes(run(recipe, values)), expected_passes(recipe, values), "float32", where=where)


def integers(seed: int) -> dict[str, Array]:
    """Integers up to 56 that MXFP8 rounds, of any format; float32 holds all sums of their products."""
    drawn = np.random.default_rng(seed)
    return {
        name: (drawn.integers(-28, 29, shape) * drawn.integers(1, 3, (shape[0], 1))).astype(np.float32)
        for name, shape in SHAPES.items()
    }


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@both_formats
def test_output_and_gradients_are_rounded_once(recipe: RecipeConfig, dtype: str) -> None:
    """To the bit on a host run, where float32 adds them up without an error."""
    where, values = f"{recipe.fp8_format}, {dtype}", integers(2)
    step, expected = run(recipe, values, dtype), expected_passes(recipe, values)
    if te.engine().kind is RunKind.KERNEL:
        assert_passes(passes(step), expected, dtype, where=where)
        return
    for name, found in passes(step).items():
        dtype_of = "float32" if name == "kernel gradient" else dtype
        rounded = on_device(on_device(expected[name].value, dtype), dtype_of)
        assert_equal(where=f"{where}: {name}", actual=found, expected=rounded)


def test_step_outside_of_jit_is_the_same() -> None:
    values, layer = integers(6), dense_layer(features=128, use_bias=False)
    step = inspect.unwrap(dense_step)(layer, te.Autocast(HYBRID), *arguments(values))
    assert_trees_equal(where="outside of jit", actual=step, expected=run(HYBRID, values))


@pytest.mark.parametrize(
    ("batch", "contracted", "features"),
    [((2, 32), (96,), (4, 32)), ((64,), (3, 32), (128,)), ((1, 2, 32), (96,), (2, 2, 32))],
)
def test_axes_are_those_of_one_matrix(
    batch: tuple[int, ...], contracted: tuple[int, ...], features: tuple[int, ...]
) -> None:
    """Of several axes of a batch, of inputs or of features, each tensor is the matrix that they are in memory."""
    values = tensors(3, spread=3)
    given = {"x": batch + contracted, "kernel": contracted + features, "grad": batch + features}
    axis = tuple(range(-len(contracted), 0))
    reshaped = {name: values[name].reshape(shape) for name, shape in given.items()}
    step, where = run(HYBRID, reshaped, features=features, axis=axis), f"{batch} {contracted} {features}"
    assert_passes(passes(step), expected_passes(HYBRID, values), "float32", where=where)


def test_bias_and_its_gradient_are_not_quantized() -> None:
    values = integers(4)
    bias = np.random.default_rng(5).normal(0, 100, SHAPES["kernel"][1]).astype(np.float32)
    layer = dense_layer(features=len(bias))
    variables, x, grad = arguments(values)
    with_bias = {"params": variables["params"] | {"bias": on_device(bias)}}
    step, without = dense_step(layer, te.Autocast(HYBRID), with_bias, x, grad), run(HYBRID, values).y
    assert_equal(where="output with a bias", actual=step.y, expected=np.asarray(without) + bias)
    assert_equal(where="gradient of the bias", actual=step.grads["params"]["bias"], expected=values["grad"].sum(0))


@pytest.mark.parametrize(("fp8_format", "grad"), [(None, E4M3), ("E4M3", E4M3), ("HYBRID", E5M2)])
def test_gradients_are_e5m2_in_the_hybrid_format_alone(fp8_format: str | None, grad: str) -> None:
    mode, layer = te.Autocast(RecipeConfig(RECIPE, fp8_format=fp8_format)), dense_layer(features=128, use_bias=False)
    step = jax.make_jaxpr(lambda *given: dense_step(layer, mode, *given))(*arguments(integers(0)))
    found = Counter((gemm.backward, *sorted((gemm.lhs, gemm.rhs))) for gemm in jaxprs.gemms(step))
    expected = Counter({(False, E4M3, E4M3): 1, (True, E4M3, grad): 2})
    assert found == expected, f"{fp8_format}: products={dict(found)}, but should be {dict(expected)}"


# --- special numbers --------------------------------------------------------------------------------------------------


def with_block(*numbers: float, rest: float = 1.0) -> dict[str, Array]:
    """Tensors of ones; the second block of row 5 of x begins with other numbers, and goes on with the rest."""
    values = {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}
    values["x"][5, 32:64] = [*numbers, *[rest] * (32 - len(numbers))]
    return values


def block_of_x(values: Mapping[str, Array]) -> tuple[int, Array]:
    """Exponent, biased, and codes of the second block of row 5 of x, in the product that gives the output."""
    x = operands_in(MX, *arguments(values))[PRODUCTS[0][0]]
    scale = np.asarray(x.scales)[0].view(np.uint8)[5, 1]
    return int(scale), np.asarray(x.codes)[0, 5, 32:64].astype(np.float64)


def test_block_of_zeros_is_zeros_and_leaves_the_others_alone() -> None:
    values = with_block(rest=0)
    expected = np.full(SHAPES["grad"], 96.0)
    expected[5] = 64
    assert_equal(where="output", actual=run(MX, values).y, expected=expected)
    zeros = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
    for name, found in passes(run(MX, zeros)).items():
        assert_equal(where=f"{name} of zeros", actual=found, expected=np.zeros_like(found))


def test_block_of_zeros_is_zeros_outside_of_jit() -> None:
    values = {name: np.ones((32, 32), np.float32) for name in SHAPES} | {"x": np.zeros((32, 32), np.float32)}
    layer = dense_layer(features=32, use_bias=False)
    with te.Autocast(MX)():
        y = layer.apply(*arguments(values)[:2])
    assert_equal(where="output of zeros", actual=y, expected=np.zeros((32, 32)))


@pytest.mark.host
def test_scale_of_zeros_is_zero() -> None:
    scale, codes = block_of_x(with_block(rest=0))
    assert scale == 0, f"exponent={scale}, but should be 0"
    assert_equal(where="codes of zeros", actual=codes, expected=np.zeros(32))


def test_nan_stays_in_its_row() -> None:
    rows = np.isnan(np.asarray(run(MX, with_block(np.nan)).y)).sum(1)
    assert rows.tolist() == [0] * 5 + [128] + [0] * 58, f"NaN by row: {rows}"


@pytest.mark.host
def test_scale_beside_a_nan_is_that_of_the_other_numbers_or_nan() -> None:
    """In kernels it is the former."""
    scale, _ = block_of_x(with_block(np.nan, 448, rest=17))
    assert scale in (127, 255), f"scale=2**{scale - 127}, but should be that of the other numbers, 1, or NaN"


@pytest.mark.host
def test_infinity_makes_its_block_nan_in_the_jax_path() -> None:
    scale, _ = block_of_x(with_block(np.inf))
    assert scale == 255, f"exponent={scale}, but should be 255, which is NaN"
    y = np.asarray(run(MX, with_block(np.inf)).y)
    assert np.isnan(y[5]).all(), f"row of an infinity={y[5]}, but should be NaN"
    assert_equal(where="other rows", actual=np.delete(y, 5, 0), expected=np.full((63, 128), 96.0))


@pytest.mark.gpu
def test_infinity_saturates_in_kernels() -> None:
    """Under the largest scale, 2**127: beside it, ones are zeros. Read in TE's CUDA, and never run."""
    y = np.asarray(run(MX, with_block(np.inf)).y)
    assert np.isposinf(y[5]).all(), f"row of an infinity={y[5]}, but should be infinite"
    assert_equal(where="other rows", actual=np.delete(y, 5, 0), expected=np.full((63, 128), 96.0))


TINY = 2.0**-120
"""Of an amax below 448 * 2**-126, the quotient is subnormal."""


@pytest.mark.host
def test_block_of_tiny_numbers_saturates_where_xla_has_no_subnormal_numbers() -> None:
    scale, codes = block_of_x(with_block(2 * TINY, rest=-TINY))
    assert scale == 0, f"exponent={scale}, but XLA on a CPU should make zero of a subnormal quotient"
    assert_equal(where="codes under the smallest scale", actual=codes, expected=[256.0, *[-128.0] * 31])
    _, codes = block_of_x(with_block(4 * TINY, rest=-TINY))
    assert_equal(where="codes under the smallest scale", actual=codes, expected=[448.0, *[-128.0] * 31])


@pytest.mark.gpu
def test_block_of_tiny_numbers_has_a_scale_of_its_own_in_kernels() -> None:
    """Read in TE's CUDA, and never run."""
    values = {name: np.zeros((64, 64), np.float32) for name in SHAPES} | {"kernel": np.eye(64, dtype=np.float32)}
    values["x"][5, 32:64] = [4 * TINY, *[-TINY] * 31]
    assert_equal(where="tiny numbers", actual=run(MX, values, features=64).y, expected=values["x"])


# --- what stays as it is ----------------------------------------------------------------------------------------------


def test_there_are_no_metadata_and_parameters_are_those_of_bf16() -> None:
    layer, x = dense_layer(features=128), on_device(np.ones((32, 96)), "bfloat16")
    found = init(layer, te.Autocast(MX), x)
    assert set(found) == {"params"}, f"collections={sorted(found)}, but should be params only"
    assert_trees_equal(where="first parameters", actual=found, expected=init(layer, BF16, x))


def test_outside_of_autocast_a_step_is_that_of_bf16() -> None:
    """To the bit, also after steps in MXFP8 in the same process; sizes need no blocks there."""
    layer, values = dense_layer(features=24, use_bias=False), tensors(7, "bfloat16", 2)
    given = {"x": values["x"][:9, :40], "kernel": values["kernel"][:40, :24], "grad": values["grad"][:9, :24]}

    def passes_of(*traced: Any) -> Any:
        y, pull_back = jax.vjp(layer.apply, *traced[:2])
        return y, pull_back(traced[2])

    run(MX, values, "bfloat16")
    outside = jax.jit(passes_of)(*arguments(given, "bfloat16"))
    step = dense_step(layer, BF16, *arguments(given, "bfloat16"))
    assert_trees_equal(where="outside", actual=outside, expected=(step.y, (step.grads, step.dx)))
