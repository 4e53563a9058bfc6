"""Attention by NumPy, and TE's on plain tensors, for claims on masks that no case of the subject has."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mnist_fp8 import te
from mnist_fp8.oracle.dense import Array
from mnist_fp8.subjects.making import flax_layer
from support.assertions import assert_close_norm

FLOAT32 = 2.0**-20
"""Largest relative norm of a difference: some float32 roundings one after the other. Seen: 4e-7."""


def numpy_attention(query: Any, key: Any, value: Any, seen: Array, bias: Array | None = None) -> Array:
    """Attention in float64, head by head; a row that sees nothing is zero.

    Args:
        query: (batch, queries, heads, size).
        key: (batch, keys, groups, size).
        value: (batch, keys, groups, size of values).
        seen: which keys a query sees; broadcastable to (batch, heads, queries, keys).
        bias: added to the scaled logits; broadcastable likewise.

    Returns:
        (batch, queries, heads, size of values).
    """
    query, key, value = (np.asarray(tensor, np.float64) for tensor in (query, key, value))
    batch, queries, heads, size = query.shape
    seen, added = (
        np.broadcast_to(part, (batch, heads, queries, key.shape[1])) for part in (seen, 0 if bias is None else bias)
    )
    y = np.zeros((batch, queries, heads, value.shape[-1]))
    for head in range(heads):
        group = head * key.shape[2] // heads
        logits = query[:, :, head] @ key[:, :, group].swapaxes(1, 2) / np.sqrt(size) + added[:, head]
        powers = np.where(seen[:, head], np.exp(logits - logits.max()), 0)
        total = powers.sum(axis=-1, keepdims=True)
        y[:, :, head] = np.divide(powers, total, out=np.zeros_like(powers), where=total > 0) @ value[:, :, group]
    return y


def attend(mask: Any, *tensors: Any, key: Any = None, **fields: Any) -> jax.Array:
    """TE's attention of float32 tensors, (batch, positions, heads, size) each.

    Args:
        mask: one where a query does not see a key.
        tensors: queries, keys and values; ``None`` for those that a layout has not.
        key: of the dropout, or no dropout.
        fields: of the layer.
    """
    heads, size = tensors[0].shape[-2:]
    fields = {"num_gqa_groups": heads, **fields}
    layer = flax_layer("DotProductAttention", head_dim=size, num_attention_heads=heads, **fields)
    rngs = {} if key is None else {"dropout": key}

    @jax.jit
    def apply(mask: Any, *tensors: Any) -> jax.Array:
        y: jax.Array = layer.apply({}, *tensors, mask, None, deterministic=key is None, rngs=rngs)
        return y

    with te.Autocast()(), jax.default_matmul_precision("highest"):
        return apply(mask, *tensors)


def draw(*shapes: tuple[int, ...]) -> list[jax.Array]:
    """Normally distributed tensors."""
    drawn = np.random.default_rng(0)
    return [jnp.asarray(drawn.normal(0, 1, shape), jnp.float32) for shape in shapes]


def hidden(seen: Array, dtype: str = "uint8") -> jax.Array:
    """A mask as TE takes it: one where a query does not see a key."""
    return jnp.asarray(~seen, dtype)


def assert_sees(y: jax.Array, seen: Array, *tensors: jax.Array, where: str) -> None:
    """Compare an output with attention to the keys that are seen."""
    __tracebackhide__ = True
    query, key, value = tensors
    expected = numpy_attention(query, key, value, seen)
    assert_close_norm(where=where, actual=y, expected=expected, tolerance=FLOAT32)


@dataclasses.dataclass(frozen=True)
class NumpyPasses:
    """Output of attention, and gradients of what comes in; each in float64."""

    y: Array
    query: Array
    key: Array
    value: Array
    bias: Array
    sink: Array


def numpy_passes(
    operands: Sequence[Any], seen: Array, grad: Any, *, scale: float, bias: Any = 0, sink: Any = -np.inf
) -> NumpyPasses:
    """Attention forward and backward.

    Args:
        operands: queries, (batch, queries, heads, size), and keys and values, (batch, keys, groups, size).
        seen: which keys a query sees, (batch, queries, keys).
        grad: of the output.
        scale: of the logits.
        bias: added to the scaled logits, (1, heads, queries, keys).
        sink: logit of a key that has no value, (1, heads, 1, 1).
    """
    query, key, value, grad = (np.asarray(tensor, np.float64) for tensor in (*operands, grad))
    repeats, sunk = query.shape[2] // key.shape[2], np.exp(np.asarray(sink, np.float64))
    keys, values = (np.repeat(tensor, repeats, axis=2) for tensor in (key, value))
    logits = np.einsum("bqhd,bkhd->bhqk", query, keys) * scale + np.asarray(bias, np.float64)
    powers = np.where(seen[:, None], np.exp(logits), 0)
    total = powers.sum(axis=-1, keepdims=True) + sunk
    total[total == 0] = 1
    weights = powers / total
    from_weights = np.einsum("bqhd,bkhd->bhqk", grad, values)
    along = (weights * from_weights).sum(axis=-1, keepdims=True)
    of_logits = weights * (from_weights - along)

    def summed(weights: Array, tensor: Array) -> Array:
        of_heads = np.einsum("bhqk,bqhd->bkhd", weights, tensor)
        result: Array = of_heads.reshape(*key.shape[:3], repeats, -1).sum(axis=3)
        return result

    return NumpyPasses(
        y=np.einsum("bhqk,bkhd->bqhd", weights, values),
        query=np.einsum("bhqk,bkhd->bqhd", of_logits * scale, keys),
        key=summed(of_logits * scale, query),
        value=summed(weights, grad),
        bias=of_logits.sum(axis=0, keepdims=True),
        sink=-(sunk * along / total).sum(axis=(0, 2), keepdims=True),
    )
