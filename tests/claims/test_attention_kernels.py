"""Claim: fused kernels compute attention where they are expected, from any description, on one device and on two.

Whether TE answers with a fused kernel is seen by neither result nor error, only by time and memory. So what is fused is
said here, beside what fused kernels compute: from lengths, segments or masks, and with the sequence divided over
devices, by gathering keys and values or by passing them around.

What a failure means for an upgrade: attention became slow and large without a word, or packed sequences mix.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mnist_fp8 import te
from mnist_fp8.oracle import arithmetic
from mnist_fp8.subjects import attention
from mnist_fp8.subjects.attention import ONE, SEGMENTS, SHORT, Segments, segment_positions
from mnist_fp8.subjects.attention_backends import backends
from mnist_fp8.subjects.layer import Layer, step
from mnist_fp8.subjects.making import flax_layer, name_of_te
from mnist_fp8.subjects.prediction import OFFSETS
from mnist_fp8.subjects.subject import Case, Subject
from support.assertions import assert_close_norm
from support.layers import assert_step, cases
from support.subprocesses import run_code

pytestmark = pytest.mark.gpu

FUSED = 2.0**-7
"""Largest relative norm of a difference from float64, of outputs and of gradients: some roundings to BF16, of the
weights, of the output that the backward pass starts from, and of the result."""

ALWAYS = (
    "no mask",
    "causal",
    "padding",
    "padding, causal",
    "cross, causal",
    "cross, padding",
    "causal window",
    "grouped queries",
    "grouped queries, padding",
    "one group",
    "bias of the batch",
    "packed",
    "keys and values packed",
    "sequence first",
    "scale",
    "realistic",
)
"""Cases that cuDNN computes on every GPU that has FP8."""
ALWAYS_OF_SEGMENTS = ("one segment", "one segment, causal", "segments", "segments, causal", "padding between segments")


def test_attention_that_kernels_have_is_fused() -> None:
    found = backends()
    wanted = [f"DotProductAttention, {name}" for name in ALWAYS]
    wanted += [f"DotProductAttention THD, {name}" for name in ALWAYS_OF_SEGMENTS]
    unfused = [name for name in wanted if found[name] != "fused"]
    assert not unfused, (
        f"not fused: {'; '.join(unfused)}; fused are {[n for n, how in found.items() if how == 'fused']}"
    )


def test_attention_that_kernels_have_not_is_left_to_jax() -> None:
    """A bias before scaling: cuDNN adds it afterwards alone."""
    assert backends()["DotProductAttention, bias before scaling"] == "unfused"


@pytest.mark.parametrize(
    ("subject", "case"), cases(lambda subject, _: subject in (attention.SUBJECT, attention.PACKED), fused=True)
)
def test_fused_attention_computes_its_definition(subject: Subject, case: Case) -> None:
    layer = Layer(subject, case)
    variables, inputs, grads = layer.variables(), layer.inputs(), layer.grads()
    program = str(step.trace(layer, variables, inputs, grads).jaxpr)
    assert "te_fused_attn_forward" in program, "the program has no fused attention, although there is a kernel for it"
    found = step(layer, variables, inputs, grads)
    wanted = arithmetic.exact(layer.reference, variables["params"], inputs, grads)
    where = f"{subject.name} {case.name}"
    assert_step(found, wanted, where=where, tolerance_of=lambda name: OFFSETS if "offset" in name else FUSED)


def draw(*shapes: tuple[int, ...]) -> tuple[jax.Array, ...]:
    """Normally distributed tensors, BF16."""
    drawn = np.random.default_rng(0)
    return tuple(jnp.asarray(drawn.normal(0, 1, shape), jnp.bfloat16) for shape in shapes)


def passes(sequences: Any, tensors: tuple[jax.Array, ...], real: Any, **fields: Any) -> Any:
    """Output and gradients of attention; what padding computes is set to zero.

    Args:
        sequences: a description, a mask or nothing.
        tensors: queries, keys, values and the gradient of the output.
        real: which positions are no padding.
        fields: of the layer.
    """
    layer = flax_layer("DotProductAttention", head_dim=64, num_attention_heads=4, **{"num_gqa_groups": 4, **fields})

    @jax.jit
    def both(*tensors: jax.Array, grad: jax.Array) -> Any:
        def apply(*tensors: jax.Array) -> jax.Array:
            return jnp.where(real, layer.apply({}, *tensors, sequences, None, deterministic=True), 0)

        y, pull_back = jax.vjp(apply, *tensors)
        return y, *pull_back(grad)

    return both(*tensors[:3], grad=tensors[3])


def assert_alike(where: str, found: Any, wanted: Any) -> None:
    """Compare outputs and gradients."""
    __tracebackhide__ = True
    for name, actual, expected in zip(("output", "dq", "dk", "dv"), found, wanted, strict=True):
        assert_close_norm(where=f"{where}: {name}", actual=actual, expected=expected, tolerance=FUSED)


def descriptor() -> Any:
    """TE's class."""
    return name_of_te("attention", "SequenceDescriptor")


@pytest.mark.parametrize("kind", ["padding", "padding_causal"])
def test_lengths_ids_and_mask_describe_the_same_sequences(kind: str) -> None:
    tensors = draw(*[(2, 16, 4, 64)] * 4)
    ids = tuple(jnp.asarray(np.arange(16)[None] < np.asarray(lengths)[:, None], jnp.int32) for lengths in SHORT)
    places = jnp.broadcast_to(jnp.arange(16), (2, 16))
    case = attention.case(kind, kind, lengths=SHORT, sizes=(64, 64))
    real = np.asarray(ids[0], bool)[..., None, None]
    with te.Autocast()():
        lengths = descriptor().from_seqlens(tuple(jnp.asarray(lengths, jnp.int32) for lengths in SHORT))
        wanted = passes(lengths, tensors, real, attn_mask_type=kind)
        by_ids = attention.from_segments(ids, (places, places), packed=False)
        assert_alike("ids", passes(by_ids, tensors, real, attn_mask_type=kind), wanted)
        assert_alike("mask", passes(attention.mask(case), tensors, real, attn_mask_type=kind), wanted)


@pytest.mark.parametrize("segments", [ONE, SEGMENTS], ids=["one segment", "segments"])
def test_segments_and_their_lengths_and_offsets_describe_the_same(segments: Segments) -> None:
    tensors = draw(*[(2, 32, 4, 64)] * 4)
    ids = np.asarray(segments)
    most = int(ids.max())
    counts, starts = np.full((2, most), -1), np.full((2, most + 1), -1)
    for sequence, segment in np.ndindex(2, most):
        (places,) = np.nonzero(ids[sequence] == segment + 1)
        if places.size:
            counts[sequence, segment], starts[sequence, segment] = places.size, places[0]
    fields = {"attn_mask_type": "padding_causal", "qkv_layout": "thd_thd_thd", "max_segments_per_seq": most}
    real = (ids > 0)[..., None, None]
    with te.Autocast()():
        inside = jnp.asarray(segment_positions(segments), jnp.int32)
        by_ids = attention.from_segments(jnp.asarray(ids, jnp.int32), inside)
        by_offsets = descriptor().from_seqlens_and_offsets(*(jnp.asarray(n, jnp.int32) for n in (counts, starts)))
        assert_alike("offsets", passes(by_offsets, tensors, real, **fields), passes(by_ids, tensors, real, **fields))


@pytest.mark.devices(2)
@pytest.mark.parametrize("strategy", ["ALL_GATHER", "RING"])
@pytest.mark.parametrize("groups", [4, 2])
def test_context_parallel_attention_is_that_of_one_device(strategy: str, groups: int) -> None:
    """Causal, with its tokens reordered so that both devices have as much to do."""
    whole, grouped = (2, 512, 4, 64), (2, 512, groups, 64)
    tensors = draw(whole, grouped, grouped, whole)
    fields = {"attn_mask_type": "causal", "num_gqa_groups": groups}
    with te.Autocast()():
        wanted = passes(None, tensors, real=True, **fields)
    order = name_of_te("attention", "ReorderStrategy", "DualChunkSwap")
    there, back = (name_of_te("attention", f"{way}reorder_causal_load_balancing") for way in ("", "inverse_"))
    mesh = Mesh(np.asarray(jax.devices()[:2]), ("cp",))
    divided = NamedSharding(mesh, PartitionSpec(None, "cp"))
    with te.mesh_context(mesh), te.Autocast(axes=("cp",))():
        parts = tuple(jax.device_put(there(tensor, order, 2, 1), divided) for tensor in tensors)
        y, *grads = passes(
            None,
            parts,
            real=True,
            context_parallel_axis="cp",
            context_parallel_strategy=strategy,
            context_parallel_causal_load_balanced=True,
            **fields,
        )
    assert len(y.sharding.device_set) == 2, "Control: the output should be divided over 2 devices"
    found = [back(jnp.asarray(np.asarray(part)), order, 2, 1) for part in (y, *grads)]
    assert_alike(strategy, found, wanted)


def test_attention_runs_again_as_a_cuda_graph() -> None:
    """As XLA launches a program that runs more than once where nobody forbids it; in a process of its own."""
    code = """
        import jax, jax.numpy as jnp
        from mnist_fp8 import te
        from mnist_fp8.core import xla_flags
        xla_flags.put_first = lambda *flags: None
        from mnist_fp8.subjects import find_subject
        from mnist_fp8.subjects.layer import Layer, step
        te.engine()
        subject = find_subject("MultiHeadAttention")
        layer = Layer(subject, subject.cases[0])
        given = layer.variables(), layer.inputs(), layer.grads()
        for _ in range(8):
            found = jax.block_until_ready(step(layer, *given))
        print(bool(jnp.isfinite(found.y[0]).all()))
    """
    assert run_code(code, variables={"XLA_FLAGS": ""}).strip() == "True"
