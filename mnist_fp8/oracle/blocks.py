"""What block-scaled quantization must give, from the definitions, in NumPy. Nothing here comes from Transformer Engine.

MXFP8 is the OCP Microscaling Formats specification 1.0 (blocks of 32 numbers under a power of two), with the scale
rounded up, as NVIDIA's "Recipes for Pre-training LLMs with MXFP8" (2025) has it, so that nothing saturates. NVFP4 is
described in NVIDIA's "Pretraining Large Language Models with NVFP4" (2025): blocks of 16 numbers of E2M1 under an E4M3
scale, all of them under one float32 scale of the tensor; kernels in blocks of 16 x 16; what the gradient of the kernel
is computed from is rotated by a Hadamard transform before; gradients are rounded stochastically.

``axis`` is the one over which a product sums: blocks lie along it.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.oracle.dense import FP4, FP8_MAX, Array, Product, formats_of, product

F32 = np.float32
MX_BLOCK, FP4_BLOCK = 32, 16
"""Numbers that share a scale."""
FP4_MAX = 6.0
GRID = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], F32)
"""The magnitudes of E2M1."""
SIGNS = np.array([1, 1, 1, -1, 1, -1, -1, -1, -1, -1, -1, 1, -1, 1, -1, -1], F32)
"""The signs of the Hadamard transform; they are fixed (``transformer_engine.pytorch`` has the same)."""
_LARGEST = np.finfo(F32).max


class Quantized(NamedTuple):
    """A quantized matrix.

    Attributes:
        codes: as numbers, not yet multiplied by their scales; of the matrix's shape, float64.
        scales: one for each block along the axis; E8M0 as the biased exponent (uint8), E4M3 as numbers (float32).
        values: what codes and scales stand for, float64.
    """

    codes: Array
    scales: Array
    values: Array

    @property
    def scale_values(self) -> Array:
        """The scales as numbers, float64."""
        is_exponent = self.scales.dtype == np.uint8
        return np.exp2(self.scales.astype(np.float64) - 127) if is_exponent else self.scales.astype(np.float64)


def quantized(recipe: RecipeConfig, tensor: str, values: Array, axis: int, dtype: str = "bfloat16") -> Quantized:
    """Quantize a matrix as a block-scaled recipe does, all of it rounded to the nearest.

    Args:
        recipe: ``MXFP8BlockScaling`` or ``NVFP4BlockScaling``.
        tensor: ``x`` (rows, inner), ``kernel`` (inner, columns) or ``grad`` (rows, columns).
        values: the matrix.
        axis: 0 or 1, over which it is summed.
        dtype: of what comes to the quantizer, which is what is rotated is rounded to.
    """
    if recipe.name == "MXFP8BlockScaling":
        return mxfp8(values, axis, formats_of(recipe)[tensor])
    if is_rotated(recipe, tensor, axis):
        values = rotated(values, axis, dtype)
    return nvfp4(values, axis, square=tensor == "kernel" and not recipe.disable_2d_quantization)


def dequantized(recipe: RecipeConfig, tensor: str, values: jax.Array, axis: int, dtype: str) -> jax.Array:
    """What `quantized` stands for, float64, as a part of a program of JAX with float64."""

    def halves(values: Any) -> Array:  # noqa: ANN401
        # Float64 as pairs of integers: the thread that calls this back has a JAX of its own, without float64.
        numbers = quantized(recipe, tensor, np.asarray(values), axis, dtype).values
        return np.ascontiguousarray(numbers)[..., None].view(np.int32)

    pairs = jax.pure_callback(halves, jax.ShapeDtypeStruct((*values.shape, 2), jnp.int32), values)
    return jax.lax.bitcast_convert_type(pairs, jnp.float64)


@dataclasses.dataclass(frozen=True)
class BlockDense:
    """A dense layer in a block-scaled recipe, as `dense.DensePasses`: each product has operands of its own.

    Attributes:
        recipe: the recipe, which rounds to the nearest.
        x: input, (M, K).
        kernel: (K, N).
        grad: gradient of the output, (M, N).
        dtype: of ``x`` and ``grad``; kernels come in float32.
    """

    recipe: RecipeConfig
    x: Array
    kernel: Array
    grad: Array
    dtype: str = "bfloat16"

    @functools.cached_property
    def y(self) -> Product:
        """Output, (M, N)."""
        return product(self._operand("x", 1), self._operand("kernel", 0))

    @functools.cached_property
    def dx(self) -> Product:
        """Gradient of the input, (M, K)."""
        return product(self._operand("grad", 1), self._operand("kernel", 1).T)

    @functools.cached_property
    def dkernel(self) -> Product:
        """Gradient of the kernel, (K, N)."""
        return product(self._operand("x", 0).T, self._operand("grad", 0))

    def _operand(self, tensor: str, axis: int) -> Array:
        dtype = "float32" if tensor == "kernel" else self.dtype
        return quantized(self.recipe, tensor, getattr(self, tensor), axis, dtype).values


def rotates(recipe: RecipeConfig) -> bool:
    """Whether a recipe has a Hadamard transform."""
    return recipe.name == "NVFP4BlockScaling" and not recipe.disable_rht


def is_rotated(recipe: RecipeConfig, tensor: str, axis: int) -> bool:
    """Whether a tensor is rotated: those of the kernel's gradient are, which are summed over their rows."""
    return rotates(recipe) and tensor != "kernel" and axis == 0


def _nearest(numbers: Array, dtype: str, largest: float) -> Array:
    """Saturate and round to the nearest code, ties to even; float32."""
    saturated = np.clip(numbers, -largest, largest)
    if dtype == FP4 and _rounds_twice():
        saturated = saturated.astype(np.float16)
    return saturated.astype(getattr(ml_dtypes, dtype)).astype(F32)


@functools.cache
def _rounds_twice() -> bool:
    """Whether XLA casts float32 to E2M1 by way of float16: on a CPU its former emitters do (`core.xla_flags`)."""
    below_a_tie = np.nextafter(F32(3.5), F32(0))
    return float(jnp.asarray(below_a_tie).astype(FP4)) > 3  # noqa: PLR2004


@dataclasses.dataclass(frozen=True)
class _Blocks:
    """A matrix as blocks along an axis: (..., blocks, size), float32."""

    values: Array
    axis: int

    @classmethod
    def of(cls, matrix: Array, axis: int, size: int) -> "_Blocks":
        moved = np.moveaxis(np.asarray(matrix).astype(F32), axis, -1)
        return cls(moved.reshape(*moved.shape[:-1], -1, size), axis)

    @property
    def amaxes(self) -> Array:
        return np.abs(self.values).max(-1)

    def joined(self, blocks: Array) -> Array:
        """Blocks as a matrix again."""
        return np.moveaxis(blocks.reshape(*blocks.shape[:-2], -1), -1, self.axis)


# --- MXFP8 ------------------------------------------------------------------------------------------------------------


def mxfp8(matrix: Array, axis: int, dtype: str = "float8_e4m3fn") -> Quantized:
    """Quantize to a float8 format; the length of the axis is a multiple of 32."""
    blocks = _Blocks.of(matrix, axis, MX_BLOCK)
    exponents = e8m0(blocks.amaxes, FP8_MAX[dtype])
    powers = np.exp2(exponents.astype(np.float64) - 127)[..., None]
    codes = _nearest((blocks.values / powers).astype(F32), dtype, FP8_MAX[dtype]).astype(np.float64)
    return Quantized(blocks.joined(codes), np.moveaxis(exponents, -1, axis), blocks.joined(codes * powers))


def e8m0(amaxes: Array, largest: float) -> Array:
    """Biased exponents of the smallest powers of two that are at least ``amax / largest``; 0 for a block of zeros."""
    quotients = amaxes.astype(F32) / F32(largest)
    mantissas, exponents = np.frexp(quotients)  # of [0.5, 1)
    above = np.where(mantissas > 0.5, exponents, exponents - 1)  # noqa: PLR2004
    return np.where(quotients == 0, 0, np.clip(above, -127, 127) + 127).astype(np.uint8)


# --- NVFP4 ------------------------------------------------------------------------------------------------------------


class Scaled(NamedTuple):
    """A matrix before it is rounded to E2M1.

    Attributes:
        numbers: what is rounded, float32, of the matrix's shape.
        scales: E4M3, one for each block, float32.
        amax: of the whole matrix.
    """

    numbers: Array
    scales: Array
    amax: np.float32

    def dequantized(self, codes: Array, axis: int) -> Array:
        """What codes stand for, float64."""
        unit = float(self.amax) / (FP4_MAX * FP8_MAX["float8_e4m3fn"])
        return codes.astype(np.float64) * np.repeat(self.scales.astype(np.float64), FP4_BLOCK, axis=axis) * unit


def nvfp4(matrix: Array, axis: int, *, square: bool = False) -> Quantized:
    """Quantize to E2M1, rounding to the nearest; the length of the axis is a multiple of 16, of both if ``square``."""
    scaled = nvfp4_scaled(matrix, axis, square=square)
    codes = _nearest(scaled.numbers, FP4, FP4_MAX).astype(np.float64)
    return Quantized(codes, scaled.scales, scaled.dequantized(codes, axis))


def nvfp4_scaled(matrix: Array, axis: int, *, square: bool = False) -> Scaled:
    """Multiply a matrix by what makes the largest number of each block the largest of E2M1.

    ``square`` blocks are 16 x 16, and each row of one repeats its scale.
    """
    amax = F32(np.abs(np.asarray(matrix).astype(F32)).max())
    encode = _encoding(amax)
    blocks = _Blocks.of(matrix, axis, FP4_BLOCK)
    amaxes = blocks.amaxes
    if square:
        amaxes = np.repeat(amaxes.reshape(-1, FP4_BLOCK, amaxes.shape[-1]).max(1), FP4_BLOCK, axis=0)
    # In the order in which kernels multiply, and XLA what TE writes: for an amax of few bits it decides many ties.
    scales = _nearest(np.minimum(amaxes * (encode * F32(1 / 6)), _LARGEST), "float8_e4m3fn", FP8_MAX["float8_e4m3fn"])
    with np.errstate(divide="ignore", over="ignore"):
        factors = np.minimum(F32(1) / (scales * (F32(1) / encode)), _LARGEST)
    return Scaled(blocks.joined(blocks.values * factors[..., None]), np.moveaxis(scales, -1, axis), amax)


def _encoding(amax: np.float32) -> np.float32:
    """The scale of a whole tensor: its amax becomes the largest code under the largest scale."""
    if amax == 0 or not np.isfinite(amax):
        return F32(1)
    with np.errstate(over="ignore"):
        return min(F32(FP4_MAX * FP8_MAX["float8_e4m3fn"]) / amax, _LARGEST)


def hadamard() -> Array:
    """The rotation of 16 numbers: Sylvester's matrix with fixed signs, orthogonal; every entry is 1/4 or -1/4."""
    matrix = np.ones((1, 1), F32)
    while len(matrix) < FP4_BLOCK:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return (SIGNS[:, None] * matrix / 4).astype(F32)


def rotated(matrix: Array, axis: int, dtype: str = "bfloat16") -> Array:
    """Rotate each block of 16 numbers by a BF16 matrix; the result is BF16 where the numbers are, else float32."""
    blocks = _Blocks.of(matrix, axis, FP4_BLOCK)
    product = blocks.values @ hadamard()
    return blocks.joined(product.astype(ml_dtypes.bfloat16).astype(F32) if dtype == "bfloat16" else product)


class Neighbours(NamedTuple):
    """The two codes that stochastic rounding chooses from, as numbers, and how probable the upper one is.

    "Upper" is the larger magnitude. Where a number is a code, or beyond the largest, both are the same.
    """

    lower: Array
    upper: Array
    chance: Array

    @property
    def gaps(self) -> Array:
        """Distances between the two; one where both are the same."""
        return _gaps(self.lower, self.upper)


def _gaps(lower: Array, upper: Array) -> Array:
    distances = np.abs(upper - lower)
    return np.where(distances > 0, distances, 1)


def neighbours(numbers: Array) -> Neighbours:
    """The codes of E2M1 around numbers that are to be rounded stochastically."""
    size = np.minimum(np.abs(numbers), FP4_MAX).astype(np.float64)
    low = GRID[np.searchsorted(GRID, size, side="right") - 1].astype(np.float64)
    high = GRID[np.searchsorted(GRID, size, side="left")].astype(np.float64)
    return Neighbours(low * np.sign(numbers), high * np.sign(numbers), (size - low) / _gaps(low, high))
