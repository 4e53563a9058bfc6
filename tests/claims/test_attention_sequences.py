"""Claim: descriptions of sequences say the same, whatever they are made from: lengths, segments, windows, orders.

TE's kernels are told where sequences lie by ``SequenceDescriptor``, made from lengths or from segment ids with
positions, and what a window leaves by ``make_swa_mask``; for context parallelism, tokens are reordered and back.
Kernels take lengths and offsets on trust, so that these are compared with what a plain search of the segments gives.

What a failure means for an upgrade: sequences of a packed batch see each other, or lose their ends.
"""

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_fp8.oracle import layers
from mnist_fp8.oracle.dense import Array
from mnist_fp8.subjects.attention import GAPS, SEGMENTS, Segments, from_segments, segment_positions
from mnist_fp8.subjects.making import name_of_te
from support.assertions import assert_equal

KINDS = ("padding", "padding_causal", "padding_causal_bottom_right")
SELF = {"segments": (SEGMENTS, SEGMENTS), "padding between them": (GAPS, GAPS)}
CROSS = {
    "fewer keys": (SEGMENTS, ((1,) * 15 + (2,) * 9 + (3,) * 5 + (0,) * 3, (1,) * 7 + (2,) * 12 + (0,) * 13)),
    "more keys": (GAPS, ((1,) * 12 + (2,) * 11 + (0,) * 3 + (3,) * 6, (1,) * 28 + (0,) * 4)),
    "a segment without keys": (SEGMENTS, ((1,) * 20 + (3,) * 9 + (0,) * 3, (2,) * 14 + (0,) * 18)),
    "as many": (SEGMENTS, GAPS),
}
EVEN: Segments = ((1,) * 20 + (2,) * 8 + (3,) * 4, (1,) * 10 + (0,) * 2 + (2,) * 14 + (0,) * 6)
WINDOWS = {"no window": None, "no ends": (-1, -1)}
"""No window, in both ways to say so."""


def enum(name: str, member: str) -> Any:
    """A member of one of TE's enums."""
    return name_of_te("attention", name, member)


def mask_type(kind: str) -> Any:
    """TE's kind of mask of a name."""
    return name_of_te("attention", "canonicalize_attn_mask_type")(kind)


def descriptor() -> Any:
    """TE's class."""
    return name_of_te("attention", "SequenceDescriptor")


def described(queries: Segments, keys: Segments, kind: str, most: int = 3, window: Any = None) -> tuple[Any, Any]:
    """Lengths and offsets that TE gets from segments and positions: of queries and keys each."""
    ids = tuple(jnp.asarray(segments, jnp.int32) for segments in (queries, keys))
    places = tuple(jnp.asarray(segment_positions(segments), jnp.int32) for segments in (queries, keys))
    lengths, offsets = lengths_and_offsets(from_segments(ids, places), kind, most, window)
    return lengths, offsets


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def lengths_and_offsets(of: Any, kind: str, most: int, window: tuple[int, int] | None) -> Any:
    """What a descriptor says of packed sequences."""
    return of.get_seqlens_and_offsets(mask_type(kind), enum("QKVLayout", "THD_THD_THD"), window, most)


def searched(queries: Any, keys: Any, kind: str, most: int = 3, at: Any = None) -> tuple[Any, Any]:
    """The same by looking at each pair of tokens: a segment is what of it sees a key, or is seen.

    Args:
        queries: ids of segments, (sequences, positions).
        keys: likewise.
        kind: of the mask.
        most: segments that there may be.
        at: positions in the segments, of queries and of keys; those that follow from the ids if none are given.
    """
    sides = []
    places, other_places = at or (segment_positions(queries), segment_positions(keys))
    for rows, columns, place, other_place in zip(queries, keys, places, other_places, strict=True):
        ids, others = np.asarray(rows), np.asarray(columns)
        seen = (ids[:, None] == others[None, :]) & (ids > 0)[:, None]
        if "bottom_right" in kind:
            seen &= (_run(ids) - place)[:, None] <= (_run(others) - other_place)[None, :]
        elif "causal" in kind:
            seen &= place[:, None] >= other_place[None, :]
        sides.append([np.where(seen.any(axis=1), ids, 0), np.where(seen.any(axis=0), others, 0)])
    active = [np.asarray(side) for side in zip(*sides, strict=True)]
    return tuple(np.asarray([_counts(row, most) for row in side]) for side in active), tuple(
        np.asarray([_starts(row, most) for row in side]) for side in active
    )


def _run(ids: Array) -> Array:
    """How many tokens each token's segment has."""
    return np.asarray([(ids == one).sum() for one in ids])


def _counts(ids: Array, most: int) -> list[int]:
    return [int((ids == segment).sum()) for segment in range(1, most + 1)]


def _starts(ids: Array, most: int) -> list[int]:
    starts = [at for at in range(len(ids)) if ids[at] and (at == 0 or ids[at] != ids[at - 1])]
    return starts + [-1] * (most + 1 - len(starts))


def assert_described(found: tuple[Any, Any], wanted: tuple[Any, Any], *, where: str) -> None:
    """Compare lengths and offsets, of queries and of keys."""
    __tracebackhide__ = True
    for what, pair, right in zip(("lengths", "offsets"), found, wanted, strict=True):
        for side, actual, expected in zip(("queries", "keys"), pair, right, strict=True):
            assert_equal(where=f"{where}: {what} of {side}", actual=actual, expected=expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("segments", SELF)
def test_segments_of_self_attention_have_their_lengths_and_offsets(segments: str, kind: str) -> None:
    queries, keys = SELF[segments]
    assert_described(described(queries, keys, kind), searched(queries, keys, kind), where=f"{segments}, {kind}")


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("segments", CROSS)
def test_segments_of_cross_attention_have_their_lengths_and_offsets(segments: str, kind: str, window: Any) -> None:
    """Also where no window is written as one without ends, as ``fused_attn`` hands it on."""
    queries, keys = CROSS[segments]
    found = described(queries, keys, kind, window=window)
    assert_described(found, searched(queries, keys, kind), where=f"{segments}, {kind}, window {window}")


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
@pytest.mark.parametrize(("of_queries", "of_keys"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_stripes_of_segments_have_their_lengths_and_offsets(of_queries: int, of_keys: int, window: Any) -> None:
    """As two devices have them that pass their keys around: of the same ids, every other position."""
    ids, places = np.asarray(EVEN), segment_positions(EVEN)
    sides = ids[:, of_queries::2], ids[:, of_keys::2]
    at = places[:, of_queries::2], places[:, of_keys::2]
    of = from_segments(*(tuple(jnp.asarray(side, jnp.int32) for side in pair) for pair in (sides, at)))
    found = lengths_and_offsets(of, "padding_causal", 3, window)
    where = f"queries of device {of_queries}, keys of device {of_keys}, window {window}"
    assert_described(found, searched(*sides, "padding_causal", at=at), where=where)


@pytest.mark.parametrize("kind", KINDS)
def test_ids_without_positions_are_refused_or_counted_in_each_segment(kind: str) -> None:
    """Releases that derive positions have to derive those of segments, not those of the whole sequence."""
    queries, keys = CROSS["more keys"]
    ids = tuple(jnp.asarray(segments, jnp.int32) for segments in (queries, keys))
    try:
        of = from_segments(ids, None)
    except ValueError as refusal:
        assert "segment_pos" in str(refusal), f"refused with {refusal}"  # noqa: PT017 - both are right
    else:
        assert_described(lengths_and_offsets(of, kind, 3, None), searched(queries, keys, kind), where=kind)


@pytest.mark.parametrize("window", [(-1, -1), (4, 0)])
def test_window_leaves_lengths_and_offsets_as_they_are(window: tuple[int, int]) -> None:
    found = described(GAPS, GAPS, "padding_causal", window=window)
    assert_described(found, searched(GAPS, GAPS, "padding_causal"), where=f"window {window}")


def test_room_for_more_segments_stays_empty() -> None:
    assert_described(described(GAPS, GAPS, "padding", 5), searched(GAPS, GAPS, "padding", 5), where="room for 5")


def test_segments_of_a_mapped_axis_are_those_of_each_of_its_parts() -> None:
    """Positions may be the same for all of them, without the axis."""
    ids = jnp.asarray([SEGMENTS, tuple(reversed(SEGMENTS))], jnp.int32)
    places = jnp.asarray(segment_positions(SEGMENTS), jnp.int32)
    found = lengths_and_offsets(from_segments(ids, places), "padding", 3, None)
    for part, segments in enumerate((SEGMENTS, tuple(reversed(SEGMENTS)))):
        one = jax.tree.map(lambda array, part=part: array[part], found)
        assert_described(one, searched(segments, segments, "padding"), where=f"part {part}")


@pytest.mark.parametrize("kind", ["padding", "no_mask", "causal"])
def test_ids_of_one_sequence_have_its_length(kind: str) -> None:
    """Without a mask of padding, all positions count."""
    ids = tuple(jnp.asarray([[1] * n + [0] * (16 - n) for n in lengths]) for lengths in ((16, 11), (9, 13)))
    of = from_segments(ids, tuple(jnp.arange(16)[None] + 0 * array for array in ids), packed=False)
    layout = enum("QKVLayout", "BSHD_BSHD_BSHD")
    lengths, offsets = of.get_seqlens_and_offsets(mask_type(kind), layout, None, 1)
    wanted = ((16, 11), (9, 13)) if kind == "padding" else ((16, 16), (16, 16))
    for side, actual, expected in zip(("queries", "keys"), lengths, wanted, strict=True):
        assert_equal(where=f"lengths of {side}", actual=np.broadcast_to(actual, 2), expected=expected)
    assert all(offset.size == 0 for offset in offsets)


def test_lengths_and_offsets_are_kept_as_they_are_given() -> None:
    """For queries and keys at once, or one of each; into a compiled program and out of it."""
    lengths, starts, other = jnp.asarray([[2, 1, 1]]), jnp.asarray([[0, 2, 3, -1]]), jnp.asarray([[3, 2, 1]])
    thd = enum("QKVLayout", "THD_THD_THD")

    def kept(of: Any) -> Any:
        return jax.jit(lambda of: of.get_seqlens_and_offsets(mask_type("padding"), thd, None, 3))(of)

    both = descriptor().from_seqlens_and_offsets(lengths, starts)
    assert_described(kept(both), ((lengths, lengths), (starts, starts)), where="one for both")
    pair = descriptor().from_seqlens_and_offsets((lengths, other), (starts, starts))
    assert_described(kept(pair), ((lengths, other), (starts, starts)), where="a pair")
    (found, offsets) = kept(descriptor().from_seqlens((lengths[0], other[0])))
    assert_equal(where="lengths of queries", actual=found[0], expected=lengths[0])
    assert_equal(where="lengths of keys", actual=found[1], expected=other[0])
    assert all(offset.size == 0 for offset in offsets)


@pytest.mark.parametrize(
    ("given", "error"), [((np.ones(2),) * 3, ValueError), ([2, 3], TypeError)], ids=["three of them", "a list"]
)
def test_lengths_that_are_no_pair_are_refused(given: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        descriptor().from_seqlens(given)


@pytest.mark.parametrize(
    ("kind", "causal", "padding", "bottom_right"),
    [
        ("no_mask", False, False, False),
        ("causal", True, False, False),
        ("padding", False, True, False),
        ("padding_causal", True, True, False),
        ("causal_padding", True, True, False),
        ("causal_bottom_right", True, False, True),
        ("padding_causal_bottom_right", True, True, True),
    ],
)
def test_kind_of_mask_is_what_its_name_says(kind: str, *, causal: bool, padding: bool, bottom_right: bool) -> None:
    found = mask_type(kind)
    assert (found.is_causal(), found.is_padding(), found.is_bottom_right()) == (causal, padding, bottom_right)


@pytest.mark.parametrize("layout", ["BS3HD", "BSHD_BS2HD", "BSHD_BSHD_BSHD", "T3HD", "THD_T2HD", "THD_THD_THD"])
def test_layout_is_what_its_name_says(layout: str) -> None:
    found = enum("QKVLayout", layout)
    flags = (found.is_qkvpacked(), found.is_kvpacked(), found.is_separate(), found.is_thd())
    assert flags == ("3HD" in layout, "2HD" in layout, not {"2", "3"} & {*layout}, layout.startswith("T"))


@pytest.mark.parametrize("window", [None, (3, 2), (0, 0), (-1, 4), (5, -1), (-1, -1), (2, 0)])
def test_mask_of_a_window_admits_what_is_near(window: tuple[int, int] | None) -> None:
    """Of positions that start anew with each segment, and of keys that queries do not have."""
    query, key = segment_positions(SEGMENTS), segment_positions(GAPS)[:, :24]
    found = name_of_te("attention", "make_swa_mask")(jnp.asarray(query), jnp.asarray(key), window, jnp.uint8)
    left, right = window or (-1, -1)
    distance = key[:, None, None, :] - query[:, None, :, None]
    wanted = ((distance >= -left) | (left < 0)) & ((distance <= right) | (right < 0))
    assert found.dtype == jnp.uint8
    assert_equal(where=f"window {window}", actual=found, expected=wanted)


def test_mask_of_a_window_from_the_bottom_right_counts_from_the_ends() -> None:
    """Where it is given segments, the last query of one stands at its last key."""
    queries, keys = CROSS["more keys"]
    sides = [(np.asarray(ids), segment_positions(ids)) for ids in (queries, keys)]
    (ids, place), (others, other_place) = sides
    found = name_of_te("attention", "make_swa_mask")(
        jnp.asarray(place), jnp.asarray(other_place), (3, 0), jnp.uint8, jnp.asarray(ids), jnp.asarray(others)
    )
    for sequence in range(2):
        left = _run(ids[sequence]) - place[sequence], _run(others[sequence]) - other_place[sequence]
        wanted = left[0][:, None] + 3 >= left[1][None, :]
        real = (ids[sequence] > 0)[:, None] & (others[sequence] > 0)[None, :]
        assert_equal(where=f"sequence {sequence}", actual=found[sequence, 0] * real, expected=wanted & real)


def reorder(tensor: Any, strategy: str, devices: int, axis: int, *stripe: int, back: bool = False) -> Any:
    """TE's order of tokens for context parallelism, or back."""
    function = name_of_te("attention", f"{'inverse_' * back}reorder_causal_load_balancing")
    if "tensor_format" in inspect.signature(function).parameters:
        return function(tensor, devices, enum("QKVFormat", "BSHD" if axis else "SBHD"))
    return function(tensor, enum("ReorderStrategy", strategy), devices, axis, *stripe)


def swapped(devices: int, length: int) -> Array:
    """Each device has a chunk from the start, and its mirror image from the end."""
    chunks = np.arange(length).reshape(2 * devices, -1)
    return np.concatenate([chunks[[device, 2 * devices - 1 - device]].reshape(-1) for device in range(devices)])


def striped(devices: int, length: int, stripe: int = 1) -> Array:
    """Each device has one stripe of each round."""
    return np.arange(length).reshape(-1, devices, stripe).swapaxes(0, 1).reshape(-1)


ORDERS = [
    pytest.param("DualChunkSwap", devices, (), swapped(devices, 48), id=f"swap-{devices}") for devices in (2, 4, 6)
] + [
    pytest.param("Striped", devices, stripe, striped(devices, 48, *stripe), id=f"stripes-{devices}-{stripe}")
    for devices, stripe in ((2, ()), (4, ()), (3, (1,)), (2, (4,)), (4, (3,)))
]


@pytest.mark.parametrize(("strategy", "devices", "stripe", "order"), ORDERS)
@pytest.mark.parametrize("axis", [0, 1])
def test_tokens_are_reordered_as_documented_and_back(
    strategy: str, devices: int, stripe: tuple[int, ...], order: Array, axis: int
) -> None:
    shape = (48, 2, 3) if axis == 0 else (2, 48, 3)
    tensor = jnp.arange(np.prod(shape)).reshape(shape)
    found = reorder(tensor, strategy, devices, axis, *stripe)
    assert_equal(where="reordered", actual=found, expected=np.take(np.asarray(tensor), order, axis))
    back = reorder(found, strategy, devices, axis, *stripe, back=True)
    assert_equal(where="and back", actual=back, expected=tensor)


@pytest.mark.parametrize(
    ("strategy", "devices", "stripe"), [("DualChunkSwap", 5, ()), ("DualChunkSwap", 32, ()), ("Striped", 5, ())]
)
def test_tokens_that_cannot_be_divided_are_refused(strategy: str, devices: int, stripe: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="multiple"):
        reorder(jnp.zeros((2, 48, 3)), strategy, devices, 1, *stripe)


def test_control_a_window_without_positions_of_segments_is_that_of_the_reference() -> None:
    places = jnp.arange(16)[None]
    found = name_of_te("attention", "make_swa_mask")(places, places, (3, 2))
    wanted = layers.admitted((16,), (16,), (16, 16), window=(3, 2))
    assert_equal(where="window", actual=found, expected=wanted)
