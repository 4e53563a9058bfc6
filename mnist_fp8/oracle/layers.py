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

EPSILON = 1e-6
"""What a layer norm adds to the variance, by default."""

LIMIT, ALPHA, OFFSET = 7.0, 1.702, 1.0
"""Of the clamped SwiGLU: where it clamps, the sigmoid's slope, what is added to the linear part."""


def layer_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array | None, *, zero_centered: bool = False, epsilon: float = EPSILON
) -> jax.Array:
    """Normalise over the last axis: by mean and variance if there is a bias, else by the root mean square.

    Args:
        x: (..., features).
        scale: (features,); added to one if ``zero_centered``.
        bias: (features,), or ``None`` for a root mean square norm.
        zero_centered: whether the scale is that around one.
        epsilon: added to the variance.
    """
    centred = x - x.mean(axis=-1, keepdims=True) if bias is not None else x
    normal = centred / jnp.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon)
    scaled = normal * (scale + 1 if zero_centered else scale)
    return scaled if bias is None else scaled + bias


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
    allowed: jax.Array,
    bias: jax.Array | None = None,
    scale: float | None = None,
    offset: jax.Array | None = None,
) -> jax.Array:
    """Scaled dot-product attention (Vaswani et al., 2017), where heads may share keys and values.

    A row that may see nothing is zero.

    Args:
        query: (batch, queries, heads, size).
        key: (batch, keys, groups, size); ``heads`` is a multiple of ``groups``, and consecutive heads share a group.
        value: (batch, keys, groups, size of values).
        allowed: which keys a query sees; broadcastable to (batch, heads, queries, keys).
        bias: added to the scaled logits; broadcastable likewise.
        scale: of the logits; one over the root of the size if there is none.
        offset: logit of a key that has no value, (heads,): 0 for "off by one", learned for an attention sink.

    Returns:
        (batch, queries, heads, size of values).
    """
    heads, groups = query.shape[2], key.shape[2]
    key, value = (jnp.repeat(tensor, heads // groups, axis=2) for tensor in (key, value))
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if bias is not None:
        logits = logits + bias
    logits = jnp.where(allowed, logits, -jnp.inf)
    top = jnp.max(logits, axis=-1, keepdims=True)
    if offset is not None:
        top = jnp.maximum(top, offset[:, None, None])
    top = jax.lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0))
    weights = jnp.where(allowed, jnp.exp(jnp.where(allowed, logits, 0) - top), 0)
    total = weights.sum(axis=-1, keepdims=True)
    if offset is not None:
        total = total + jnp.exp(offset[:, None, None] - top)
    weights = weights / jnp.where(total > 0, total, 1)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value)


def causal(queries: int, keys: int, *, bottom_right: bool = False) -> jax.Array:
    """Which keys a query sees: those up to itself, (queries, keys); from the end of both if ``bottom_right``."""
    shift = keys - queries if bottom_right else 0
    return jnp.arange(keys)[None, :] <= jnp.arange(queries)[:, None] + shift


def window(queries: int, keys: int, left: int, right: int, *, bottom_right: bool = False) -> jax.Array:
    """Which keys a query sees: so many before and after it, (queries, keys); all on a side whose number is -1."""
    shift = keys - queries if bottom_right else 0
    distance = jnp.arange(keys)[None, :] - (jnp.arange(queries)[:, None] + shift)
    before = distance >= -left if left >= 0 else True
    after = distance <= right if right >= 0 else True
    return jnp.logical_and(before, after)
