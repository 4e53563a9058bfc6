"""Claim: dropout of attention drops weights at its rate, scales the others up, and does nothing when deterministic.

With equal logits and rows of a unit matrix for values, the output of attention is its weights: each is either dropped
or ``1 / (keys * (1 - rate))``. Counts are compared with the binomial distribution: five of its standard deviations are
left by one run in two millions.

What a failure means for an upgrade: models are trained with another dropout than was asked for, or evaluated with one.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_fp8 import te
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.oracle.dense import Array
from support.assertions import assert_close, assert_close_norm, assert_equal
from support.attention import FLOAT32, attend, draw

BATCH, HEADS, QUERIES, KEYS = 4, 4, 64, 64
SIGMAS = 5.0


def dtype() -> str:
    """The one in which the run has its attention: fused kernels take no float32."""
    return "bfloat16" if te.engine().kind is RunKind.KERNEL else "float32"


def weights(rate: float, key: int | None = 0, heads: tuple[int, int] = (HEADS, HEADS)) -> Array:
    """Weights of attention to keys that are all alike, (batch, heads, queries, keys), in float64."""
    query = jnp.zeros((BATCH, QUERIES, heads[0], KEYS), dtype())
    tensor = jnp.ones((BATCH, KEYS, heads[1], KEYS), dtype())
    value = jnp.broadcast_to(jnp.eye(KEYS, dtype=dtype())[None, :, None], tensor.shape)
    y = attend(
        None,
        query,
        tensor,
        value,
        key=None if key is None else jax.random.PRNGKey(key),
        attn_mask_type="no_mask",
        num_gqa_groups=heads[1],
        attention_dropout=rate,
    )
    return np.asarray(y, np.float64).swapaxes(1, 2)


def assert_share(where: str, happened: Array, chance: float) -> None:
    """Compare how often something happened with its chance."""
    __tracebackhide__ = True
    tolerance = SIGMAS * math.sqrt(chance * (1 - chance) / happened.size)
    assert_close(where=where, actual=happened.mean(), expected=chance, tolerance=tolerance)


@pytest.mark.parametrize("rate", [0.1, 0.5])
@pytest.mark.parametrize("groups", [HEADS, 2])
def test_weights_are_dropped_at_the_rate_and_the_others_scaled_up(rate: float, groups: int) -> None:
    found = weights(rate, heads=(HEADS, groups))
    kept = found != 0
    assert_share("kept", kept, 1 - rate)
    rounding = 2.0**-22 if dtype() == "float32" else 2.0**-7
    wanted = 1 / (KEYS * (1 - rate))
    assert_close(
        where="those kept", actual=found[kept], expected=np.full(kept.sum(), wanted), tolerance=rounding * wanted
    )


def test_each_sequence_head_query_and_key_has_its_own_mask() -> None:
    """Two of them are alike where both are kept or both dropped."""
    rate = 0.25
    kept = weights(rate) != 0
    for axis, name in enumerate(("sequences", "heads", "queries", "keys")):
        ahead = np.roll(kept, 1, axis)
        assert_share(f"neighbouring {name} are alike", kept == ahead, rate**2 + (1 - rate) ** 2)
        assert_share_of_each(name, kept, axis, rate)


def assert_share_of_each(name: str, kept: Array, axis: int, rate: float) -> None:
    """No sequence, head, query or key is spared or hit more than the others."""
    __tracebackhide__ = True
    shares = kept.mean(axis=tuple(other for other in range(4) if other != axis))
    tolerance = SIGMAS * math.sqrt(rate * (1 - rate) / (kept.size / len(shares)))
    assert_close(where=f"kept of {name}", actual=shares, expected=np.full(len(shares), 1 - rate), tolerance=tolerance)


def test_key_decides_what_is_dropped() -> None:
    rate = 0.25
    one, again, other = (weights(rate, key) != 0 for key in (0, 0, 1))
    assert_equal(where="the same key", actual=one, expected=again)
    assert_share("another key is alike", one == other, rate**2 + (1 - rate) ** 2)


@pytest.mark.parametrize(("rate", "key"), [(0.25, None), (0.0, 0)], ids=["deterministic", "rate of zero"])
def test_nothing_is_dropped(rate: float, key: int | None) -> None:
    found = weights(rate, key)
    assert_equal(where="weights", actual=found, expected=np.full(found.shape, 1 / KEYS))


@pytest.mark.host
def test_backward_pass_drops_what_the_forward_pass_dropped() -> None:
    """Of equal logits with weights ``w``: the gradient of values is ``w^T g``; that of logits follows from ``w``."""
    shape = (BATCH, KEYS, HEADS, KEYS)
    key, grad = draw(shape, shape)
    value = jnp.broadcast_to(jnp.eye(KEYS)[None, :, None], shape)

    def apply(query: jax.Array, value: jax.Array) -> jax.Array:
        fields = {"attn_mask_type": "no_mask", "attention_dropout": 0.25}
        return attend(None, query, key, value, key=jax.random.PRNGKey(0), **fields)

    y, pull_back = jax.vjp(apply, jnp.zeros(shape), value)
    dquery, dvalue = pull_back(grad)
    kept = np.asarray(y, np.float64)
    wanted = np.einsum("bqhk,bqhd->bkhd", kept, grad)
    assert_close_norm(where="gradient of values", actual=dvalue, expected=wanted, tolerance=FLOAT32)
    logits = kept * grad - (kept * grad).sum(axis=-1, keepdims=True) / KEYS
    wanted = np.einsum("bqhk,bkhd->bqhd", logits, key) / math.sqrt(KEYS)
    assert_close_norm(where="gradient of queries", actual=dquery, expected=wanted, tolerance=FLOAT32)
