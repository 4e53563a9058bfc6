"""A product of rounded or quantized operands, forward and backward, as a layer computes it: in JAX, in float64."""

import enum
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.oracle import blocks
from mnist_fp8.oracle.dense import FORMATS, FP8_MAX

Scales: TypeAlias = Mapping[str, Any]
"""Scales of ``x``, ``kernel`` and ``grad`` of one product, float32."""


class ProductForm(enum.Enum):
    """How a product of quantized operands is written, which decides where it is rounded to BF16."""

    KERNEL = "kernel"
    """Codes are multiplied and the scales undone before anything is rounded."""
    CODES = "product of codes"
    """The product of the codes is rounded, and again when the scales are undone."""
    DEQUANTIZED = "product of dequantized operands"
    """The operands are rounded when their scales are undone, by factors rounded likewise, and then their product."""
    BF16 = "bf16"
    """Nothing is quantized: the operands are rounded, and their product."""


def rounded_to_bf16(values: jax.Array) -> jax.Array:
    """Numbers rounded to BF16; so is their gradient. XLA may leave out a cast and its inverse, but not this."""
    return jax.lax.reduce_precision(values, exponent_bits=8, mantissa_bits=7)


class Way(NamedTuple):
    """How a product is computed.

    Attributes:
        form: how it is written.
        kept: which tensors come to the quantizer as float32, and are not rounded before; see `arithmetic.Rounded`.
        fp8_format: ``HYBRID`` or ``E4M3``.
        narrow: whether more is computed in BF16; see `arithmetic.Rounded`.
        fused: whether what makes ``x`` quantizes it.
        blocks: the recipe where it is block-scaled.
    """

    form: ProductForm
    kept: frozenset[str]
    fp8_format: str
    narrow: bool
    fused: bool
    blocks: RecipeConfig | None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def quantized_product(way: Way, scales: Scales | None, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The product of a matrix (M, K) and a kernel (K, N), rounded to BF16, with both gradients computed likewise.

    Args:
        way: how it is computed.
        scales: of the operands; ``None`` for those of current scaling, and where there are none.
        x: float64.
        kernel: float64.
    """
    return _forward(way, scales, x, kernel)[0]


def _forward(way: Way, scales: Scales | None, x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, Any]:
    if way.blocks:
        lhs, rhs = _in_blocks(way, x, "x", 1), _in_blocks(way, kernel, "kernel", 0)
        return _multiplied(way.form, lhs, rhs), (scales, x, kernel)
    lhs, rhs = _operand(way, x, scales, "x"), _operand(way, kernel, scales, "kernel")
    return _multiplied(way.form, lhs, rhs), (scales, lhs, rhs)


def _backward(way: Way, kept: Any, grad: jax.Array) -> Any:  # noqa: ANN401
    scales, x, kernel = kept
    if way.blocks:  # quantized anew for each product, along the axis that it sums over
        dy, lhs = _in_blocks(way, grad, "grad", 1), _in_blocks(way, x, "x", 0)
        dx = _multiplied(way.form, dy, _in_blocks(way, kernel, "kernel", 1).transposed)
        return None, dx, _multiplied(way.form, lhs.transposed, _in_blocks(way, grad, "grad", 0))
    dy = _operand(way, grad, scales, "grad")
    none = jax.tree.map(jnp.zeros_like, scales)
    return none, _multiplied(way.form, dy, kernel.transposed), _multiplied(way.form, x.transposed, dy)


quantized_product.defvjp(_forward, _backward)


class _Codes(NamedTuple):
    """A quantized matrix: its codes, and what they are multiplied by to undo their scale."""

    codes: jax.Array
    undo: jax.Array

    @property
    def transposed(self) -> "_Codes":
        return _Codes(self.codes.T, self.undo)


def _in_blocks(way: Way, values: jax.Array, tensor: str, axis: int) -> _Codes:
    """A tensor of a block-scaled recipe: what its codes and scales stand for, which is what is multiplied."""
    assert way.blocks is not None  # noqa: S101 - for the types
    dtype = "float32" if tensor in way.kept else "bfloat16"
    return _Codes(
        blocks.dequantized(way.blocks, tensor, before_quantization(values, tensor, way.kept), axis, dtype),
        jnp.float64(1),
    )


def _operand(way: Way, values: jax.Array, scales: Scales | None, tensor: str) -> _Codes:
    """A tensor as it is multiplied."""
    if way.form is ProductForm.BF16:
        return _Codes(rounded_to_bf16(values), jnp.float64(1))
    operand = before_quantization(values, tensor, way.kept)
    measured = before_quantization(values, tensor, way.kept | {tensor}) if "amax" in way.kept else operand
    codes = _quantize(way, operand, scales, tensor, jnp.max(jnp.abs(measured)))
    if way.form is not ProductForm.DEQUANTIZED:
        return codes
    # A scale is undone in the dtype that the layer computes in; that of a kernel that is not cast, in float32.
    wide = tensor == "kernel" and tensor in way.kept and not way.narrow
    undo = codes.undo if wide else rounded_to_bf16(codes.undo)
    return _Codes(rounded_to_bf16(codes.codes * undo), jnp.float64(1))


def before_quantization(values: jax.Array, tensor: str, kept: frozenset[str]) -> jax.Array:
    """A tensor as it comes to its quantizer: in float32 if it is kept, else in BF16."""
    return values.astype(jnp.float32).astype(jnp.float64) if tensor in kept else rounded_to_bf16(values)


def _quantize(way: Way, values: jax.Array, scales: Scales | None, tensor: str, amax: jax.Array) -> _Codes:
    """`oracle.dense.quantize`, by a given scale or by `oracle.dense.current_scale`, in JAX."""
    dtype = FORMATS[way.fp8_format][tensor]
    amax = amax.astype(jnp.float32)
    current = jnp.where(jnp.isfinite(amax) & (amax > 0), jnp.float32(FP8_MAX[dtype]) / amax, 1)
    scale = current if scales is None else scales[tensor].astype(jnp.float32)
    scaled = values.astype(jnp.float32) * scale
    if tensor == "x" and way.narrow and not way.fused:
        scaled = rounded_to_bf16(values.astype(jnp.float32) * rounded_to_bf16(scale))
    scaled = jnp.clip(scaled, -FP8_MAX[dtype], FP8_MAX[dtype])
    codes = jax.lax.optimization_barrier(scaled.astype(dtype))  # XLA may leave out a cast and its inverse
    return _Codes(codes.astype(jnp.float64), 1 / scale.astype(jnp.float64))


def _multiplied(form: ProductForm, lhs: _Codes, rhs: _Codes) -> jax.Array:
    product = lhs.codes @ rhs.codes
    return rounded_to_bf16((rounded_to_bf16(product) if form is ProductForm.CODES else product) * (lhs.undo * rhs.undo))
