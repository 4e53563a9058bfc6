"""The references of layers against plain loops and numbers worked out by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from mnist_fp8.oracle import layers
from mnist_fp8.oracle.dense import Array

DRAWN = np.random.default_rng(0)
QUERY, KEY, VALUE = (DRAWN.normal(0, 1, shape) for shape in ((2, 3, 4, 8), (2, 5, 2, 8), (2, 5, 2, 6)))
SEEN = DRAWN.random((2, 1, 3, 5)) < 0.6
SEEN[1, 0, 2] = False
BIAS, OFFSET = DRAWN.normal(0, 1, (1, 4, 3, 5)), DRAWN.normal(0, 1, 4)


def by_loops(*, bias: Array, before: bool, offset: Array | None, scale: float) -> Array:
    """Attention to the keys that `SEEN` admits, element by element."""
    y = np.zeros((2, 3, 4, 6))
    for b, q, h in np.ndindex(2, 3, 4):
        group = h // 2
        powers = {}
        for k in range(5):
            if SEEN[b, 0, q, k]:
                product = sum(QUERY[b, q, h, d] * KEY[b, k, group, d] for d in range(8))
                extra = bias[0, h, q, k]
                powers[k] = np.exp((product + extra) * scale if before else product * scale + extra)
        total = sum(powers.values()) + (0 if offset is None else np.exp(offset[h]))
        for k, power in powers.items():
            y[b, q, h] += power / total * VALUE[b, k, group]
    return y


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("offset", [None, OFFSET])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention_is_that_of_plain_loops(before: bool, offset: Array | None, scale: float | None) -> None:  # noqa: FBT001
    y = layers.attention(
        *map(jnp.asarray, (QUERY, KEY, VALUE)),
        allowed=SEEN,
        bias=jnp.asarray(BIAS),
        bias_before_scale=before,
        scale=scale,
        offset=None if offset is None else jnp.asarray(offset),
    )
    wanted = by_loops(bias=BIAS, before=before, offset=offset, scale=scale or 1 / np.sqrt(8))
    assert np.abs(y - wanted).max() < 2e-6  # of float32


def test_row_that_sees_nothing_is_zero() -> None:
    y = layers.attention(*map(jnp.asarray, (QUERY, KEY, VALUE)), allowed=SEEN)
    assert not np.asarray(y[1, 2]).any()


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({}, ["111", "111"]),
        ({"causal": True}, ["100", "110"]),
        ({"causal": True, "bottom_right": True}, ["110", "111"]),
        ({"window": (0, 1)}, ["110", "011"]),
        ({"window": (-1, 0)}, ["100", "110"]),
        ({"window": (0, -1)}, ["111", "011"]),
        ({"window": (0, 5), "causal": True}, ["100", "010"]),
        ({"window": (0, 0), "bottom_right": True}, ["010", "001"]),
    ],
)
def test_query_sees_what_is_drawn(options: dict[str, bool], rows: list[str]) -> None:
    """Two queries and three keys that are no padding, of three and four."""
    seen = layers.admitted((2,), (3,), (3, 4), **options)  # type: ignore[arg-type]
    wanted = [[character == "1" for character in f"{row}0"] for row in (*rows, "000")]
    assert np.array_equal(seen, np.asarray(wanted)[None, None])


def test_distances_have_the_buckets_of_t5() -> None:
    """Of 8 buckets: four on each side, two for one distance each, then up to 4 and beyond."""
    buckets = layers.relative_buckets(1, 8, buckets=8, furthest=8, both_sides=True)
    assert buckets[0].tolist() == [0, 5, 6, 6, 7, 7, 7, 7]
    behind = layers.relative_buckets(9, 1, buckets=4, furthest=8, both_sides=False)
    assert behind[:, 0].tolist() == [0, 1, 2, 2, 3, 3, 3, 3, 3]
