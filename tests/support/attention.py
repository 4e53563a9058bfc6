"""Attention by NumPy, and TE's on plain tensors, for claims on masks that no case of the subject has."""

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
