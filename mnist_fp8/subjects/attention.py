"""``DotProductAttention``: attention alone. It computes in the dtype of its input, whatever the recipe.

What padding computes means nothing: it is set to zero, in the layer and in the reference.
"""

import dataclasses
import functools
from collections.abc import Mapping
from inspect import signature
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mnist_fp8 import te
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.oracle import layers
from mnist_fp8.oracle.arithmetic import Arithmetic, Params, Reference
from mnist_fp8.oracle.dense import Array
from mnist_fp8.subjects.making import flax_layer, name_of_te
from mnist_fp8.subjects.subject import Case, Parameter, RecipeFrom, Subject

Lengths = tuple[tuple[int, ...], tuple[int, ...]]
"""How many queries and keys of each sequence are no padding."""

Segments = tuple[tuple[int, ...], ...]
"""For each position of each sequence, the number of the segment that it belongs to; 0 for padding."""

SHORT: Lengths = ((16, 13), (16, 11))
CROSS: Lengths = ((16, 9), (24, 17))


def case(
    name: str,
    attn_mask_type: str = "no_mask",
    *,
    batch: int = 2,
    positions: tuple[int, int] = (16, 16),
    heads: tuple[int, int] = (4, 4),
    sizes: tuple[int, int] = (16, 16),
    bias: tuple[int, int] | None = None,
    lengths: Lengths | None = None,
    segments: Segments | None = None,
    layout: str = "bshd_bshd_bshd",
    **fields: Any,  # noqa: ANN401
) -> Case:
    """An attention.

    Args:
        name: of the case.
        attn_mask_type: by Transformer Engine's name.
        batch: how many sequences.
        positions: of queries and of keys.
        heads: of queries, and of keys and values.
        sizes: of a head of queries and keys, and of values.
        bias: its batch and heads, if there is one.
        lengths: how many positions are no padding; all if there are none.
        segments: what is packed into the sequences, of queries as of keys; it stands for positions and lengths.
        layout: whether queries, keys and values come apart, by Transformer Engine's name.
        fields: others of the layer.
    """
    if segments is not None:
        batch, positions = len(segments), (len(segments[0]),) * 2
        fields = {"max_segments_per_seq": max(map(max, segments)), **fields}
    query = (batch, positions[0], heads[0], sizes[0])
    key, value = ((batch, positions[1], heads[1], size) for size in sizes)
    inputs: dict[str, tuple[int, ...]] = {"query": query, "key": key, "value": value}
    if layout in ("bs3hd", "t3hd"):
        inputs = {"qkv": (*query[:2], 3, *query[2:])}
    elif layout in ("bshd_bs2hd", "thd_t2hd"):
        inputs = {"query": query, "kv": (*key[:2], 2, *key[2:])}
    if fields.get("transpose_batch_sequence"):
        inputs = {name: (shape[1], shape[0], *shape[2:]) for name, shape in inputs.items()}
    if bias is not None:
        inputs["bias"] = (*bias, *positions)
    plain = {"head_dim": sizes[0], "num_attention_heads": heads[0], "num_gqa_groups": heads[1]}
    return Case(
        name,
        {**plain, "attn_mask_type": attn_mask_type, "qkv_layout": layout, **fields},
        inputs,
        {"segments": segments} if segments else {"lengths": lengths or tuple((n,) * batch for n in positions)},
    )


CASES = (
    case("no mask"),
    case("causal", "causal"),
    case("padding", "padding", lengths=SHORT),
    case("padding, causal", "padding_causal", lengths=SHORT),
    case("cross, causal", "causal", positions=(16, 24)),
    case("cross, padding", "padding", positions=(16, 24), lengths=CROSS),
    case("cross, bottom right", "causal_bottom_right", positions=(16, 24)),
    case("cross, padding, bottom right", "padding_causal_bottom_right", positions=(16, 24), lengths=CROSS),
    case("causal window", "causal", window_size=(5, 0)),
    case("window to both sides", "padding", lengths=SHORT, window_size=(3, 2)),
    case("padding, causal window", "padding_causal", lengths=SHORT, window_size=(5, 0)),
    case("grouped queries", "causal", heads=(4, 2)),
    case("grouped queries, padding", "padding", heads=(4, 2), lengths=SHORT),
    case("one group", heads=(4, 1)),
    case("bias", bias=(2, 4), attn_bias_type="post_scale_bias"),
    case("bias of all heads", "causal", bias=(1, 1), attn_bias_type="post_scale_bias"),
    case("bias of the batch", bias=(1, 4)),
    case("bias before scaling", bias=(1, 4), attn_bias_type="pre_scale_bias", scale_factor=0.5),
    case("off by one", "causal", softmax_type="off_by_one"),
    case("off by one, padding", "padding", softmax_type="off_by_one", lengths=SHORT),
    case("sink", "causal", softmax_type="learnable"),
    case("sink, no mask", softmax_type="learnable", heads=(4, 2)),
    case("sink, padding", "padding", softmax_type="learnable", lengths=SHORT),
    case("larger values", "causal", sizes=(16, 32)),
    case("sequence first", "causal", heads=(4, 2), transpose_batch_sequence=True),
    case("packed", "padding_causal", layout="bs3hd", lengths=((16, 11), (16, 11))),
    case("keys and values packed", "padding", layout="bshd_bs2hd", heads=(4, 2), lengths=SHORT),
    case("scale", "causal", scale_factor=0.5),
    case("logits in float32", "causal", float32_logits=True),
    case("realistic", "causal", positions=(128, 128), heads=(8, 2), sizes=(64, 64)),
)
SEGMENTS: Segments = ((1,) * 20 + (2,) * 9 + (3,) * 3, (1,) * 7 + (2,) * 14 + (0,) * 11)
GAPS: Segments = ((1,) * 10 + (0,) * 2 + (2,) * 9 + (0,) * 1 + (3,) * 8 + (0,) * 2, (1,) * 30 + (0,) * 2)
ONE: Segments = ((1,) * 32, (1,) * 21 + (0,) * 11)


def _packed(name: str, kind: str = "padding_causal", segments: Segments = SEGMENTS, **options: Any) -> Case:  # noqa: ANN401
    return case(name, kind, segments=segments, sizes=(64, 64), **{"layout": "thd_thd_thd", **options})


PACKED_CASES = (
    _packed("one segment", "padding", ONE),
    _packed("one segment, causal", segments=ONE),
    _packed("segments", "padding"),
    _packed("segments, causal"),
    _packed("segments, bottom right", "padding_causal_bottom_right"),
    _packed("padding between segments", segments=GAPS),
    _packed("segments, causal window", window_size=(5, 0)),
    _packed("segments, grouped queries", heads=(4, 2)),
    _packed("segments, packed", layout="t3hd"),
    _packed("segments, keys and values packed", "padding", layout="thd_t2hd", heads=(4, 2)),
    _packed("segments, sink", softmax_type="learnable"),
)
"""Of several sequences in one, which kernels alone compute."""


def allowed(case: Case) -> Array:
    """Which keys each query of a case sees, (batch, 1, queries, keys), boolean."""
    kind, rows = case.fields["attn_mask_type"], positions(case)
    sees = functools.partial(
        layers.admitted,
        shape=rows,
        causal="causal" in kind,
        window=case.fields.get("window_size"),
        bottom_right="bottom_right" in kind,
    )
    if "lengths" in case.arguments:
        queries, keys = case.arguments["lengths"]
        return sees(queries, keys)
    # A segment's queries are its keys, so that a distance inside a segment is one in the sequence.
    ids = np.asarray(case.arguments["segments"])[:, None]
    same = (ids[..., None] == ids[..., None, :]) & (ids > 0)[..., None]
    return same & sees(rows[:1], rows[1:])


def positions(case: Case) -> tuple[int, int]:
    """How many queries and keys a sequence of a case has, padding included."""
    axis = 0 if case.fields.get("transpose_batch_sequence") else 1
    shapes = [shape for name, shape in case.inputs.items() if name != "bias"]
    return shapes[0][axis], shapes[min(1, len(shapes) - 1)][axis]


def without_padding(case: Case, y: jax.Array) -> jax.Array:
    """An output with zeros where queries are padding."""
    if "segments" in case.arguments:
        real = np.asarray(case.arguments["segments"]) > 0
    else:
        real = np.arange(positions(case)[0])[None, :] < np.asarray(case.arguments["lengths"][0])[:, None]
    return jnp.where((real.T if _sequence_first(case) else real)[..., None, None], y, 0)


class _Attention(nn.Module):
    case: Case

    @nn.compact
    def __call__(self, *tensors: jax.Array, **sequences: Any) -> jax.Array:  # noqa: ANN401 - lengths or segments
        layer = flax_layer("DotProductAttention", **self.case.fields)
        *operands, bias = tensors if "bias" in self.case.inputs else (*tensors, None)
        operands += [operands[-1]] * (3 - len(operands))  # of packed layouts, the last are not looked at
        seen = mask(self.case)
        if seen is not None and takes_description(tensors[0]):
            seen = _described(**sequences)
        return without_padding(self.case, layer(*operands, seen, bias, deterministic=True))


def takes_description(tensor: jax.Array) -> bool:
    """Whether Transformer Engine has kernels for all of attention, which take no mask but a description."""
    return te.engine().kind is RunKind.KERNEL and tensor.dtype == jnp.bfloat16


def mask(case: Case) -> Any:  # noqa: ANN401 - an array or nothing
    """One where a query does not see a key, without what the layer knows by itself."""
    kind = case.fields["attn_mask_type"]
    if kind == "no_mask" or (kind == "causal" and "window_size" not in case.fields):
        return None
    fields = {name: value for name, value in case.fields.items() if name != "window_size"}
    return jnp.asarray(~allowed(dataclasses.replace(case, fields=fields)), jnp.uint8)


def _described(lengths: Lengths | None = None, segments: Segments | None = None) -> Any:  # noqa: ANN401
    if segments is None:
        descriptor = name_of_te("attention", "SequenceDescriptor")
        return descriptor.from_seqlens(tuple(jnp.asarray(numbers, jnp.int32) for numbers in lengths or ()))
    return from_segments(jnp.asarray(segments), jnp.asarray(segment_positions(segments)))


def from_segments(ids: Any, positions: Any, *, packed: bool = True) -> Any:  # noqa: ANN401 - arrays, or two of each
    """Transformer Engine's description of sequences by the segment and the position in it of each of their places."""
    make = name_of_te("attention", "SequenceDescriptor").from_segment_ids_and_pos
    said = {"is_thd": packed, "is_segment_ids_reordered": False}  # 2.12 and 2.13 want to be told
    return make(ids, positions, **{name: value for name, value in said.items() if name in signature(make).parameters})


def segment_positions(segments: Segments) -> Array:
    """The position of each token in its segment; of padding, in a run of padding."""
    return np.asarray([[list(ids[: at + 1]).count(ids[at]) - 1 for at in range(len(ids))] for ids in segments])


def mask_type(case: Case) -> Any:  # noqa: ANN401 - Transformer Engine's
    """The kind of mask of a case.

    Raises:
        NotInReleaseError: the installed release has none of its name.
    """
    kind = case.fields["attn_mask_type"].upper()
    return name_of_te("attention", "AttnMaskType", kind if kind == "NO_MASK" else f"{kind}_MASK")


def _make(case: Case, _recipe: RecipeConfig | None) -> Any:  # noqa: ANN401
    mask_type(case)
    return _Attention(case)


def _separate(case: Case, inputs: Mapping[str, jax.Array]) -> tuple[jax.Array, ...]:
    if "qkv" in inputs:
        return tuple(inputs["qkv"][:, :, part] for part in range(3))
    if "kv" in inputs:
        return inputs["query"], *(inputs["kv"][:, :, part] for part in range(2))
    tensors = (inputs["query"], inputs["key"], inputs["value"])
    return tuple(tensor.swapaxes(0, 1) for tensor in tensors) if _sequence_first(case) else tensors


def _sequence_first(case: Case) -> bool:
    return bool(case.fields.get("transpose_batch_sequence"))


def _reference(case: Case) -> Reference:
    seen = allowed(case)

    def attend(query: jax.Array, key: jax.Array, value: jax.Array, *others: jax.Array) -> jax.Array:
        bias = others[0] if "bias" in case.inputs else None
        return layers.attention(
            query,
            key,
            value,
            allowed=None if seen.all() else seen,
            bias=bias,
            bias_before_scale=case.fields.get("attn_bias_type") == "pre_scale_bias",
            scale=case.fields.get("scale_factor"),
            offset=others[-1] if "softmax_type" in case.fields else None,
            wide_logits=case.fields.get("float32_logits", False),
        )

    def reference(arithmetic: Arithmetic, params: Params, inputs: Mapping[str, jax.Array]) -> jax.Array:
        tensors = [*_separate(case, inputs)]
        if "bias" in inputs:
            tensors.append(inputs["bias"])
        if "softmax_type" in case.fields:
            learned = jax.tree.leaves(params)
            tensors.append(learned[0].reshape(-1) if learned else jnp.zeros(case.fields["num_attention_heads"]))
        y = arithmetic.by_operations(attend, *tensors)
        return without_padding(case, y.swapaxes(0, 1) if _sequence_first(case) else y)

    return reference


def _parameters(case: Case) -> dict[str, Parameter]:
    """A sink for each head, below the name of what computes it."""
    if case.fields.get("softmax_type") != "learnable":
        return {}
    backend = "_FusedDotProductAttention_0" if te.engine().kind is RunKind.KERNEL else "_UnfusedDotProductAttention_0"
    sink = Parameter((1, case.fields["num_attention_heads"], 1, 1), (None, "nvte_head", None, None))
    return {f"DotProductAttention_0/{backend}/softmax_offset": sink}


SUBJECT = Subject(
    name="DotProductAttention",
    cases=CASES,
    make=_make,
    reference=_reference,
    parameters=_parameters,
    plain=lambda _case: 2,
    recorded=("causal", "grouped queries, padding", "bias"),
    recipe_from=RecipeFrom.NOWHERE,
    attends=True,
)
PACKED = dataclasses.replace(
    SUBJECT,
    name="DotProductAttention THD",
    cases=PACKED_CASES,
    recorded=("segments, causal",),
    on_kernels_only=True,
)
