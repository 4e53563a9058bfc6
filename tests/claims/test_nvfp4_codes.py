"""Claim: NVFP4 quantizes to the codes and scales of its definition, bit for bit, in both directions.

Promised by TE's recipe (``NVFP4BlockScaling``) and the paper that it cites, NVIDIA's "Pretraining Large Language Models
with NVFP4" (2025): blocks of 16 numbers of E2M1 under an E4M3 scale, kernels in blocks of 16 x 16, all of it under one
scale of the tensor; inputs and gradients rotated by a Hadamard transform of 16 x 16 in the direction that the kernel's
gradient sums over. What the quantizers of a dense layer return is compared with an oracle in NumPy. Rounding is to the
nearest here; ``test_nvfp4_rounding.py`` is about the other one. The claim has not run on a GPU that has NVFP4.

What a failure means for an upgrade: NVFP4 training sees other numbers than it did.
"""

import functools

import jax
import numpy as np
import pytest

from mnist_fp8 import te
from mnist_fp8.oracle import blocks
from mnist_fp8.oracle.dense import Array
from mnist_fp8.te.dense_step import fp8, on_device
from mnist_fp8.te.quantizers import Blocks, quantized
from support.assertions import assert_equal
from support.layers import NVFP4

pytestmark = pytest.mark.recipe("NVFP4BlockScaling")

SHAPE = (64, 96)
NEAREST = {"disable_stochastic_rounding": True}
MODES = {
    "plain": NVFP4,
    "default": fp8("NVFP4BlockScaling", **NEAREST),
}
CASES = [("x", "plain"), ("grad", "plain"), ("kernel", "plain"), ("x", "default"), ("grad", "default")]
DTYPES = ["bfloat16", pytest.param("float32", marks=pytest.mark.host), pytest.param("float16", marks=pytest.mark.host)]
"""Kernels rotate BF16 alone."""

quantize = jax.jit(quantized, static_argnums=(0, 1))


def matrix(seed: int, dtype: str = "bfloat16", *, exact: bool = False) -> Array:
    """Numbers of a dtype in blocks of very different size, one of zeros, and one so small that its scale is zero.

    Args:
        seed: of random numbers.
        dtype: of the numbers.
        exact: whether sums over a block are float32 numbers, so that it does not matter in which order they are made.
    """
    drawn = np.random.default_rng(seed)
    sizes = 2.0 ** drawn.integers(-12, 1, (SHAPE[0] // 16, SHAPE[1] // 16))
    sizes[0, 0], sizes[1, 1], sizes[2, 2] = 1, 0, 2.0**-20
    values = drawn.normal(size=SHAPE)
    if exact:
        values = np.round(values * 2**9) / 2**9
    values *= np.repeat(np.repeat(sizes, 16, axis=0), 16, axis=1)
    return np.array(on_device(values, dtype), np.float32)


@functools.cache
def found_and_expected(
    tensor: str, mode: str, dtype: str, seed: int
) -> dict[int, tuple[Blocks, blocks.Quantized, float]]:
    """What TE makes of a matrix, what it should, and the amax, by axis."""
    values, recipe = matrix(seed, dtype, exact=mode == "default"), MODES[mode].recipe
    assert recipe
    results = {}
    for axis, found in quantize(MODES[mode], tensor, on_device(values, dtype)).items():
        seen = blocks.rotated(values, axis, dtype) if blocks.is_rotated(recipe, tensor, axis) else values
        results[axis] = found, blocks.quantized(recipe, tensor, values, axis, dtype), float(np.abs(seen).max())
    return results


SEEDS = (1, 2, 3)


# --- codes and scales -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("tensor", "mode"), CASES, ids=[f"{tensor}, {mode}" for tensor, mode in CASES])
def test_codes_and_scales_are_those_of_the_definition(tensor: str, mode: str, dtype: str) -> None:
    for seed in SEEDS:
        for axis, (found, expected, amax) in found_and_expected(tensor, mode, dtype, seed).items():
            where = f"{tensor} in blocks along axis {axis}, seed {seed}"
            assert_equal(where=f"{where}: amax", actual=found.amax, expected=[np.float32(amax)])
            assert_equal(where=f"{where}: scales", actual=found.scales, expected=expected.scales)
            assert_equal(where=f"{where}: codes", actual=found.codes, expected=expected.codes)
            assert len(np.unique(expected.scales)) > 20, "Control: there are many scales"
            assert len(np.unique(expected.codes)) == 15, "Control: there are all codes, of both signs"


@pytest.mark.parametrize("dtype", DTYPES)
def test_codes_of_a_kernel_are_those_of_square_blocks(dtype: str) -> None:
    for seed in SEEDS:
        for axis, (found, expected, amax) in found_and_expected("kernel", "default", dtype, seed).items():
            where = f"kernel along axis {axis}, seed {seed}"
            assert_equal(where=f"{where}: amax", actual=found.amax, expected=[np.float32(amax)])
            assert_equal(where=f"{where}: codes", actual=found.codes, expected=expected.codes)


@pytest.mark.parametrize("axis", [0, 1])
def test_each_row_of_a_square_block_repeats_the_scale_of_its_block(axis: int) -> None:
    found, expected, _ = found_and_expected("kernel", "default", "bfloat16", 1)[axis]
    assert_equal(where=f"scales of a kernel along axis {axis}", actual=found.scales, expected=expected.scales)


@pytest.mark.parametrize("axis", [0, 1])
def test_square_blocks_of_one_size_have_one_scale(axis: int) -> None:
    """Control of the test before: which block a scale comes from does not matter here."""
    values = np.array(on_device(np.random.default_rng(4).uniform(-1, 1, SHAPE), "bfloat16"), np.float32)
    values[::16, ::16] = 3
    found = quantize(MODES["default"], "kernel", on_device(values, "bfloat16"))[axis]
    expected = blocks.nvfp4(values, axis, square=True)
    assert_equal(where="scales", actual=found.scales, expected=np.full_like(expected.scales, 448))
    assert_equal(where="codes", actual=found.codes, expected=expected.codes)


def test_rounding_is_to_the_nearest_code_and_ties_to_even() -> None:
    """With an amax of 6 the numbers are their own codes; 5.7 has a scale of 416 instead of 425.6, and saturates."""
    rows: list[tuple[list[float], list[float]]] = [
        ([6, 5, 3.5, 2.5, 1.75, 1.25, 0.75, 0.25, -5.25, -4.75, -0.375], [6, 4, 4, 2, 2, 1, 1, 0, -6, -4, -0.5]),
        ([5.7, -5.6875, 2.875], [6, -6, 3]),
    ]
    values = np.zeros(SHAPE, np.float32)
    for row, (numbers, _) in enumerate(rows):
        values[row, : len(numbers)] = numbers
    found = quantize(MODES["plain"], "x", on_device(values, "bfloat16"))[1]
    assert_equal(where="scales of the first blocks", actual=found.scales[:2, 0], expected=[448, 416])
    for row, (_, codes) in enumerate(rows):
        assert_equal(where=f"codes of row {row}", actual=found.codes[row, : len(codes)], expected=codes)


# --- Hadamard transform -----------------------------------------------------------------------------------------------


def test_matrix_of_the_rotation_is_sylvesters_with_fixed_signs_and_orthogonal() -> None:
    found = np.asarray(te.find_name("quantize", "hadamard", "get_rht_matrix")()).astype(np.float64)
    assert_equal(where="matrix times its transpose", actual=found @ found.T, expected=np.eye(16))
    assert_equal(where="matrix", actual=found, expected=blocks.hadamard())


@pytest.mark.parametrize("tensor", ["x", "grad"])
def test_columns_of_blocks_are_rotated_by_it(tensor: str) -> None:
    """The rows of the identity become rows of the matrix, whose entries are all of one size."""
    values = np.tile(np.eye(16, dtype=np.float32), (1, 6))
    found = quantize(MODES["default"], tensor, on_device(values, "bfloat16"))[0]
    assert_equal(where="amax", actual=found.amax, expected=[0.25])
    assert_equal(where="codes", actual=found.codes, expected=np.tile(24 * blocks.hadamard().T, (1, 6)))


ROTATED = {("x", 0), ("grad", 0)}
"""Tensors and axes along which their blocks lie."""


@pytest.mark.parametrize("disabled", [False, True], ids=["rotated", "disable_rht"])
def test_inputs_and_gradients_alone_are_rotated_in_the_direction_of_the_kernels_gradient(disabled: bool) -> None:  # noqa: FBT001
    """One number of a block is spread over all 16 of them; what is not rotated keeps it."""
    mode = fp8("NVFP4BlockScaling", disable_rht=True, **NEAREST) if disabled else MODES["default"]
    values = np.zeros(SHAPE, np.float32)
    values[20, 40] = 1
    for tensor in ("x", "grad", "kernel"):
        for axis, found in quantize(mode, tensor, on_device(values, "bfloat16")).items():
            expected = 16 if (tensor, axis) in ROTATED and not disabled else 1
            count = int((np.asarray(found.codes) != 0).sum())
            assert count == expected, (
                f"{tensor} along axis {axis}: {count} codes are not zero, but should be {expected}"
            )


# --- special numbers --------------------------------------------------------------------------------------------------


def test_zeros_have_codes_of_zero() -> None:
    for axis, found in quantize(MODES["default"], "x", on_device(np.zeros(SHAPE), "bfloat16")).items():
        assert_equal(where=f"codes along axis {axis}", actual=found.codes, expected=np.zeros(SHAPE))
        assert np.isfinite(np.asarray(found.scales)).all(), f"scales along axis {axis} are not finite"


@pytest.mark.host
def test_infinity_saturates_and_leaves_the_other_blocks_alone() -> None:
    """An infinite amax cannot give a scale of the tensor: it is one, and the other blocks have their own."""
    values = np.array(on_device(np.random.default_rng(5).normal(size=SHAPE), "bfloat16"), np.float32)
    values[3, 5] = np.inf
    found = quantize(MODES["plain"], "x", on_device(values, "bfloat16"))[1]
    expected = blocks.nvfp4(np.where(np.isinf(values), 2688, values), 1)  # 6 * 448, whose scale is one
    others = np.arange(SHAPE[0]) != 3
    assert_equal(where="code of infinity", actual=found.codes[3, 5], expected=6)
    assert_equal(where="scale of its block", actual=found.scales[3, 0], expected=448)
    assert_equal(where="codes of other rows", actual=found.codes[others], expected=expected.codes[others])
    assert_equal(where="scales of other rows", actual=found.scales[others], expected=expected.scales[others])


@pytest.mark.host
def test_nan_is_not_hidden() -> None:
    """It is in the amax of the tensor, and so in the scales of all blocks."""
    values = matrix(6)
    values[3, 5] = np.nan
    for axis, found in quantize(MODES["default"], "x", on_device(values, "bfloat16")).items():
        assert np.isnan(np.asarray(found.scales)).all(), f"scales along axis {axis} are numbers, in spite of a NaN"
