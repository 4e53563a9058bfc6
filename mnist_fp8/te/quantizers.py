"""What the quantizers of a dense layer make of a tensor, without the layer."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mnist_fp8.te import loading
from mnist_fp8.te.autocasts import Autocast

_QUANTIZERS = {"x": "x", "kernel": "kernel", "grad": "dgrad"}
"""What TE calls the quantizer of a tensor."""


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


def _blocks(tensor: Any) -> Blocks:  # noqa: ANN401 - a ScaledTensor1x
    return Blocks(tensor.data.astype(jnp.float32), tensor.scale_inv.astype(jnp.float32), tensor.amax)


def _transposed(blocks: Blocks) -> Blocks:
    """Blocks along the rows: TE stores the matrix transposed, so that they lie along the last axis."""
    return blocks._replace(codes=blocks.codes.T, scales=blocks.scales.T)
