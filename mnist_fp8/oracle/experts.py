"""What the parts of a mixture of experts must compute beside their dense layers, in plain JAX, run in float64.

Sources: Shazeer et al., "Outrageously Large Neural Networks" (2017), for the routing to the best experts; Fedus et al.,
"Switch Transformers" (2021), for the loss that balances them; DeepSeek-V3's technical report (2024), for scores by
sigmoid, the bias that counts for the choice alone, and the choice among groups of experts.
"""

import dataclasses
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy.typing as npt

Array: TypeAlias = jax.Array | npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Routing:
    """How tokens are given to experts.

    Attributes:
        topk: experts of a token.
        score: ``softmax``, ``sigmoid`` or ``sqrtsoftplus``.
        softmax_first: whether the softmax is over all experts; else over those that are chosen.
        scaling: what the probabilities are multiplied by.
        groups: groups of consecutive experts; one if all are candidates.
        group_topk: groups whose experts are candidates.
    """

    topk: int
    score: str = "softmax"
    softmax_first: bool = False
    scaling: float = 1.0
    groups: int = 1
    group_topk: int = 1


def scores(routing: Routing, logits: Array) -> jax.Array:
    """Scores of all experts, (tokens, experts), of logits of that shape."""
    if routing.score == "softmax":
        return jax.nn.softmax(logits, axis=-1)
    return jax.nn.sigmoid(logits) if routing.score == "sigmoid" else jnp.sqrt(jax.nn.softplus(logits))


def chosen(routing: Routing, logits: Array, bias: Array | None = None) -> jax.Array:
    """Which experts a token goes to, (tokens, experts), of logits of that shape and a bias (experts,)."""
    values = logits if routing.score == "softmax" else scores(routing, logits)
    values = values if bias is None else values + bias
    if routing.groups > 1:
        values = jnp.where(_candidates(routing, values), values, -jnp.inf)
    return _largest(values, routing.topk)


def _candidates(routing: Routing, values: Array) -> jax.Array:
    """Experts of the best groups; a group counts as much as its best experts, of which there are so many to choose."""
    tokens, experts = values.shape
    grouped = values.reshape(tokens, routing.groups, experts // routing.groups)
    best = jnp.sort(grouped, axis=-1)[..., -(routing.topk // routing.group_topk) :].sum(axis=-1)
    return jnp.repeat(_largest(best, routing.group_topk), experts // routing.groups, axis=-1)


def _largest(values: Array, count: int) -> jax.Array:
    ranks = jnp.argsort(jnp.argsort(-values, axis=-1), axis=-1)
    return ranks < count


def probabilities(routing: Routing, logits: Array, bias: Array | None = None) -> jax.Array:
    """What the outputs of a token's experts are weighted with, (tokens, experts); zero for the others."""
    mask = chosen(routing, jax.lax.stop_gradient(logits), bias)
    if routing.score == "softmax" and not routing.softmax_first:
        weights = jax.nn.softmax(jnp.where(mask, logits, -jnp.inf), axis=-1)
    else:
        weights = jnp.where(mask, scores(routing, logits), 0)
        if routing.score != "softmax" and routing.topk > 1:
            weights = weights / weights.sum(axis=-1, keepdims=True)
    return weights * routing.scaling


def auxiliary_loss(probs: Array, tokens_per_expert: Array, topk: int, coefficient: float) -> jax.Array:
    """The loss that grows where the experts that are chosen often are also those of high probability.

    Args:
        probs: (tokens, experts).
        tokens_per_expert: (experts,).
        topk: experts of a token.
        coefficient: of the loss.
    """
    tokens, experts = probs.shape
    return coefficient * experts / (topk * tokens**2) * jnp.sum(probs.sum(axis=0) * tokens_per_expert)
