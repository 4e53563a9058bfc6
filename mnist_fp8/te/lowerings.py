"""What XLA on a CPU lacks of the block-scaled recipes, given to JAX as lowerings: the program stays as it is.

==========================================  =======  ===================================================================
``jax.nn.scaled_matmul``                    2.3 on   JAX before 0.11 lowers it for GPUs only; here by its definition:
                                                     operands multiplied by their scales, then by each other in float32
``jax.lax.reduce_precision`` of E4M3 to     2.9 on   XLA on a CPU treats the format as one of IEEE: what is above 240
4 exponent and 3 mantissa bits                       becomes NaN, what is below 2**-6 zero. It has no bits to lose
==========================================  =======  ===================================================================
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import primitives
from jax.interpreters import mlir
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import stablehlo

from mnist_fp8.programs.jaxprs import equations

_BLOCK = 32


@functools.cache
def provide() -> None:
    """Have programs with these operations compile for a CPU, from now on."""
    mlir.register_lowering(primitives.reduce_precision_p, _reduce_precision, platform="cpu")
    operands = (jax.ShapeDtypeStruct((1, _BLOCK, _BLOCK), jnp.float8_e4m3fn),) * 2
    scales = (jax.ShapeDtypeStruct((1, _BLOCK, 1), jnp.float8_e8m0fnu),) * 2
    whole = _product_of(jax.make_jaxpr(jax.nn.scaled_matmul)(*operands, *scales))
    # What divides it over devices is JAX's, on every platform; what it does on one device is what a CPU may lack.
    alone = jax.jit(functools.partial(whole.impl, preferred_element_type=jnp.float32)).trace(*operands, *scales)
    try:
        alone.lower(lowering_platforms=("cpu",))
    except NotImplementedError:  # a JAX that has one of its own is left alone
        rule = mlir.lower_fun(_scaled_product, multiple_results=True)
        mlir.register_lowering(_product_of(alone.jaxpr), rule, platform="cpu")


def _product_of(jaxpr: Any) -> Any:  # noqa: ANN401
    """The primitive of the block-scaled product in a program that is nothing else."""
    return next(equation.primitive for equation in equations(jaxpr) if "scaled_matmul" in equation.primitive.name)


def _scaled_product(
    lhs: jax.Array, rhs: jax.Array, lhs_scales: jax.Array, rhs_scales: jax.Array, *, preferred_element_type: jnp.dtype
) -> list[jax.Array]:
    """Codes (batch, rows, inner) by codes (batch, columns, inner), each with a scale for every block along the last."""
    operands = (_dequantized(lhs, lhs_scales), _dequantized(rhs, rhs_scales))
    product = jnp.einsum("bmk,bnk->bmn", *operands, precision=jax.lax.Precision.HIGHEST)
    return [product.astype(preferred_element_type)]


def _dequantized(codes: jax.Array, scales: jax.Array) -> jax.Array:
    block = codes.shape[-1] // scales.shape[-1]
    return codes.astype(jnp.float32) * jnp.repeat(scales.astype(jnp.float32), block, axis=-1)


def _reduce_precision(context: Any, operand: Any, *, exponent_bits: int, mantissa_bits: int) -> list[Any]:  # noqa: ANN401
    if context.avals_in[0].dtype == jnp.float8_e4m3fn and (exponent_bits, mantissa_bits) == (4, 3):
        return [operand]
    bits = (ir.IntegerAttr.get(ir.IntegerType.get_signless(32), count) for count in (exponent_bits, mantissa_bits))
    return [stablehlo.reduce_precision(operand, *bits)]
