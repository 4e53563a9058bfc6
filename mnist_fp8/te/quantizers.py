"""The quantizers of a dense layer without the layer: what they make of a tensor, and the metadata that lie in them."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.te import loading
from mnist_fp8.te.autocasts import Autocast
from mnist_fp8.te.metadata import history_leaf, scale_leaf

_QUANTIZERS = {"x": "x", "kernel": "kernel", "grad": "dgrad"}
"""What TE calls the quantizer of a tensor."""


def is_quantizers(value: object) -> bool:
    """Whether something is TE's set of quantizers of a layer: a tree of arrays, which may be a part of a state."""
    return isinstance(value, _types())


@functools.cache
def _types() -> tuple[type, ...]:
    try:
        return (loading.find_name("quantize", "QuantizerSet"),)
    except AttributeError:  # before 2.3
        return ()


def named_leaves(quantizers: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - a QuantizerSet
    """The leaves of a set of quantizers in JAX's order, each with the name that a layer of Flax would keep it under.

    What is no metadata is named by its number.
    """
    for tensor, attribute in _QUANTIZERS.items():
        quantizer = getattr(quantizers, attribute)
        kept = {"scale": scale_leaf(tensor), "amax_history": history_leaf(tensor)}
        names = {id(getattr(quantizer, field, None)): name for field, name in kept.items()}
        for number, leaf in enumerate(jax.tree.leaves(quantizer)):
            yield names.get(id(leaf), f"{tensor}_{number}"), leaf


class Blocks(NamedTuple):
    """A matrix in blocks along one of its axes.

    Attributes:
        codes: as numbers, not yet multiplied by their scales; of the matrix's shape, float32.
        scales: as numbers, one for each block along the axis, float32.
        amax: of the whole matrix, after a rotation of it; (1,), float32.
    """

    codes: jax.Array
    scales: jax.Array
    amax: jax.Array


def quantized(mode: Autocast, tensor: str, matrix: jax.Array, key: jax.Array | None = None) -> dict[int, Blocks]:
    """Quantize a matrix as a dense layer does in a mode, with kernels where there are some. To be traced by a caller.

    Args:
        mode: of a block-scaled recipe.
        tensor: what the matrix is to the layer: ``x``, ``kernel`` or ``grad``.
        matrix: (rows, columns).
        key: of random numbers, for the stream ``sr_rng`` of the layer.

    Returns:
        The matrix in blocks along each axis, by the axis.
    """
    with mode():
        layer = loading.find_name("flax", "module", "TransformerEngineBase")()
        rngs = {} if key is None else {"sr_rng": key}
        quantizers = layer.apply({}, method="generate_quantizer_set", rngs=rngs)
        quantize = loading.find_name("cpp_extensions", "quantize")
        found = quantize(matrix, flatten_axis=-1, quantizer=getattr(quantizers, _QUANTIZERS[tensor]))
    return {0: _transposed(_blocks(found.colwise_tensor)), 1: _blocks(found.rowwise_tensor)}


@functools.cache
def inverts_current_scales() -> bool:
    """Whether what codes are multiplied by in current scaling is the inverse of their scale, to the bit.

    Until 2.9, XLA on a CPU makes ``amax * (1 / 448)`` of ``1 / (448 / amax)`` where a program computes both, which is
    another number by a unit in the last place. In delayed scaling, the scale is given to the program.
    """
    with Autocast(RecipeConfig("Float8CurrentScaling"))():
        quantizer = loading.quantization().QuantizerFactory.create_set().x
        quantize = loading.find_name("cpp_extensions", "quantize")

        def inverse(tensor: jax.Array) -> jax.Array:
            found = quantize(tensor, flatten_axis=-1, quantizer=quantizer)
            whole: jax.Array = getattr(found, "rowwise_tensor", found).scale_inv
            return whole

        found = jax.jit(inverse)(jnp.full((_ROWS, _ROWS), _AMAX, jnp.bfloat16))
    return bool(found[0] == np.float32(1) / (np.float32(448) / np.float32(_AMAX)))


_ROWS, _AMAX = 16, 3.34375
"""Of a tensor whose inverse scale shows how it is computed."""


def _blocks(tensor: Any) -> Blocks:  # noqa: ANN401 - a ScaledTensor1x
    return Blocks(tensor.data.astype(jnp.float32), tensor.scale_inv.astype(jnp.float32), tensor.amax)


def _transposed(blocks: Blocks) -> Blocks:
    """Blocks along the rows: TE stores the matrix transposed, so that they lie along the last axis."""
    return blocks._replace(codes=blocks.codes.T, scales=blocks.scales.T)
