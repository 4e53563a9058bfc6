"""What layers must compute beside matrix products, from their definitions, in plain JAX. Nothing here comes from TE.

All of it is run in float64. Sources: Ba et al., "Layer Normalization" (2016); Zhang and Sennrich, "Root Mean Square
Layer Normalization" (2019); Shazeer, "GLU Variants Improve Transformer" (2020); Hendrycks and Gimpel, "Gaussian Error
Linear Units" (2016), in the form with tanh; So et al., "Primer" (2021), for the squared ReLU; the model card of GPT-OSS
for the clamped SwiGLU.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from mnist_fp8.oracle.dense import Array

EPSILON = 1e-6
"""What a layer norm adds to the variance, by default."""

LIMIT, ALPHA, OFFSET = 7.0, 1.702, 1.0
"""Of the clamped SwiGLU: where it clamps, the sigmoid's slope, what is added to the linear part."""


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array | None, *, epsilon: float = EPSILON) -> jax.Array:
    """Normalise over the last axis: by mean and variance if there is a bias, else by the root mean square.

    Args:
        x: (..., features).
        scale: (features,).
        bias: (features,), or ``None`` for a root mean square norm.
        epsilon: added to the variance.
    """
    centred = x - x.mean(axis=-1, keepdims=True) if bias is not None else x
    normal = centred / jnp.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon)
    return normal * scale if bias is None else normal * scale + bias


# In BF16 the order of the operations counts: what JAX has is taken from it.
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=True),
    "silu": jax.nn.silu,
    "relu": jax.nn.relu,
    "quick_gelu": lambda x: jax.nn.sigmoid(1.702 * x) * x,
    "squared_relu": lambda x: jax.nn.relu(x) * jax.nn.relu(x),
    "sigmoid": jax.nn.sigmoid,
    "linear": lambda x: x,
    "clamped_silu": lambda x: jax.nn.sigmoid(ALPHA * jnp.minimum(x, LIMIT)) * jnp.minimum(x, LIMIT),
    "clamped_linear": lambda x: jnp.clip(x, -LIMIT, LIMIT) + OFFSET,
}
"""By Transformer Engine's names."""


def activate(x: jax.Array, names: Sequence[str]) -> jax.Array:
    """Apply one activation to each part and multiply the results.

    Args:
        x: (..., parts, features).
        names: one for each part.

    Returns:
        (..., features).
    """
    result = ACTIVATIONS[names[0]](x[..., 0, :])
    for part, name in enumerate(names[1:], 1):
        result = result * ACTIVATIONS[name](x[..., part, :])
    return result


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    allowed: npt.ArrayLike | None = None,
    bias: jax.Array | None = None,
    bias_before_scale: bool = False,
    scale: float | None = None,
    offset: jax.Array | None = None,
    wide_logits: bool = False,
) -> jax.Array:
    """Scaled dot-product attention (Vaswani et al., 2017), where heads may share keys and values.

    A row that may see nothing is zero.

    Args:
        query: (batch, queries, heads, size).
        key: (batch, keys, groups, size); ``heads`` is a multiple of ``groups``, and consecutive heads share a group.
        value: (batch, keys, groups, size of values).
        allowed: which keys a query sees, all if there is none; broadcastable to (batch, heads, queries, keys).
        bias: added to the logits; broadcastable likewise.
        bias_before_scale: whether it is added before they are scaled.
        scale: of the logits; one over the root of the size if there is none.
        offset: logit of a key that has no value, (heads,): 0 for "off by one", learned for an attention sink.
        wide_logits: whether logits and softmax are computed in float32 at least.

    Returns:
        (batch, queries, heads, size of values).
    """
    if wide_logits:
        query, key = (tensor.astype(jnp.promote_types(tensor.dtype, jnp.float32)) for tensor in (query, key))
    batch, queries, heads, size = query.shape
    keys, groups = key.shape[1:3]
    grouped = query.reshape(batch, queries, groups, heads // groups, size)
    logits = jnp.einsum("bqgnd,bkgd->bgnqk", grouped, key).reshape(batch, heads, queries, keys)
    if bias is not None and bias_before_scale:
        logits = logits + bias
    logits = logits * (1 / math.sqrt(size) if scale is None else scale)
    if bias is not None and not bias_before_scale:
        logits = logits + bias
    weights = _weights(logits, None if allowed is None else jnp.asarray(allowed), offset)
    weights = weights.astype(value.dtype).reshape(batch, groups, heads // groups, queries, keys)
    return jnp.einsum("bgnqk,bkgd->bqgnd", weights, value).reshape(batch, queries, heads, value.shape[-1])


def _weights(logits: jax.Array, allowed: jax.Array | None, offset: jax.Array | None) -> jax.Array:
    """The softmax of logits, (batch, heads, queries, keys), over the keys that are allowed."""
    if offset is None:
        return jax.nn.softmax(logits, where=allowed)
    sink = offset[:, None, None].astype(logits.dtype)
    seen = logits if allowed is None else jnp.where(allowed, logits, -jnp.inf)
    top = jnp.maximum(jnp.max(seen, axis=-1, keepdims=True), sink)
    powers = jnp.exp(seen - top)
    return powers / (powers.sum(axis=-1, keepdims=True) + jnp.exp(sink - top))


def admitted(
    queries: Sequence[int],
    keys: Sequence[int],
    shape: tuple[int, int],
    *,
    causal: bool = False,
    window: tuple[int, int] | None = None,
    bottom_right: bool = False,
) -> Array:
    """Which keys a query sees in sequences of which only so many positions are no padding.

    Args:
        queries: how many queries of each sequence are no padding.
        keys: how many keys.
        shape: positions of queries and of keys, padding included.
        causal: whether a query sees no key behind its own position.
        window: how many positions before and after its own it sees; all on a side whose number is negative.
        bottom_right: whether the last query stands at the last key, instead of the first at the first.

    Returns:
        (batch, 1, queries, keys), boolean.
    """
    seen = np.zeros((len(queries), 1, *shape), bool)
    for sequence, (rows, columns) in enumerate(zip(queries, keys, strict=True)):
        shift = columns - rows if bottom_right else 0
        distance = np.arange(columns)[None, :] - (np.arange(rows)[:, None] + shift)
        left, right = window or (-1, -1)
        inside = ((distance >= -left) | (left < 0)) & ((distance <= right) | (right < 0))
        seen[sequence, 0, :rows, :columns] = inside & ((distance <= 0) | (not causal))
    return seen


def relative_buckets(queries: int, keys: int, *, buckets: int, furthest: int, both_sides: bool) -> Array:
    """The bucket of the distance of each key from each query (Raffel et al., 2020, as in T5), (queries, keys).

    Half of the buckets are for one distance each, the others for distances that grow by the same factor up to
    ``furthest``; the last is for all beyond. With ``both_sides``, keys behind a query have the upper half of the
    buckets, else they count as distance zero.
    """
    each = buckets // 2 if both_sides else buckets
    single = each // 2
    wide = each - single

    def bucket(query: int, key: int) -> int:
        distance = abs(query - key) if both_sides else max(query - key, 0)
        upper = each if both_sides and key > query else 0
        if distance < single:
            return upper + distance
        # (distance / single) ** wide >= (furthest / single) ** step, in whole numbers
        steps = [s for s in range(wide) if distance**wide * single**s >= furthest**s * single**wide]
        return upper + single + max(steps)

    return np.asarray([[bucket(query, key) for key in range(keys)] for query in range(queries)])


def rotary_angles(length: int, size: int, windows: tuple[float, float] = (1, 10000)) -> jax.Array:
    """What rotary embeddings turn each pair of a head by (Su et al., "RoFormer", 2021), (length, size / 2)."""
    slowest = windows[1] / windows[0]
    periods = windows[0] * slowest ** (2 * jnp.arange(size // 2) / size)
    return jnp.arange(length)[:, None] / periods


def paired(x: jax.Array, *, consecutive: bool) -> tuple[jax.Array, jax.Array]:
    """Both members of the pairs that rotary embeddings turn: neighbours in the last axis, or its halves."""
    if consecutive:
        return x[..., 0::2], x[..., 1::2]
    first, second = jnp.split(x, 2, axis=-1)
    return first, second


def unpaired(first: jax.Array, second: jax.Array, *, consecutive: bool) -> jax.Array:
    """Undo `paired`."""
    if consecutive:
        return jnp.stack([first, second], axis=-1).reshape(*first.shape[:-1], -1)
    return jnp.concatenate([first, second], axis=-1)
