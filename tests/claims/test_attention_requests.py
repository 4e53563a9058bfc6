"""Claim: attention asks its kernel for what its caller asked for, and hands on what the kernel gives.

Between ``DotProductAttention`` and a fused kernel, TE's Python asks for a backend, turns axes, makes lengths of masks,
passes on a dozen options and puts each gradient in its place. Here, a kernel computes its definition, in JAX on a CPU,
so that the layer has to compute its own; a few options are seen by what the kernel is told.

What a failure means for an upgrade: with a fused kernel, an option of attention is accepted and has no effect.
"""

import enum
import inspect
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_fp8.oracle import arithmetic, layers
from mnist_fp8.subjects import attention
from mnist_fp8.subjects.attention import ONE, from_segments, segment_positions
from mnist_fp8.subjects.layer import Layer, step
from mnist_fp8.subjects.making import flax_layer, name_of_te
from mnist_fp8.subjects.subject import Case, Subject
from mnist_fp8.te.dense_step import BF16
from support.assertions import assert_close_norm, assert_equal
from support.attention import FLOAT32, assert_sees, draw
from support.fused import REPLACED, Asked, put_in_place
from support.layers import assert_step, cases
from support.programs import equations

pytestmark = [
    pytest.mark.host,
    *REPLACED,
    pytest.mark.filterwarnings("ignore:Pass mask to fused_attn is deprecated"),
]


def fused(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Variables by the names that they have where a kernel is fused."""
    return {
        name.replace("_Unfused", "_Fused"): fused(each) if isinstance(each, Mapping) else each
        for name, each in variables.items()
    }


def assert_computes(subject: Subject, case: Case, asked: Asked) -> None:
    """Compare output and gradients of a case with those of its definition, and see that kernels gave them."""
    __tracebackhide__ = True
    layer = Layer(subject, case)
    variables, inputs = fused(layer.variables()), layer.inputs(dtype="float32")
    grads = tuple(grad.astype(jnp.float32) for grad in layer.grads())
    asked.kernel.clear()
    with jax.default_matmul_precision("highest"):
        # A program of its own: the same layer without a kernel may have been compiled before.
        found = jax.jit(lambda *given: inspect.unwrap(step)(layer, *given))(variables, inputs, grads)
    assert asked.kernel, "the forward pass asked no kernel"
    assert asked.backward, "the backward pass asked no kernel"
    wanted = arithmetic.exact(layer.reference, variables["params"], inputs, grads)
    assert_step(found, wanted, where=f"{subject.name} {case.name}", tolerance_of=lambda _: FLOAT32)


@pytest.mark.parametrize(("subject", "case"), cases(lambda subject, _: subject is attention.SUBJECT))
@pytest.mark.parametrize("described", [True, False], ids=["lengths", "mask"])
def test_attention_by_a_kernel_computes_its_definition(
    subject: Subject,
    case: Case,
    described: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attention, "takes_description", lambda _tensor: described)
    assert_computes(subject, case, put_in_place(monkeypatch))


@pytest.mark.parametrize("case", attention.PACKED_CASES, ids=lambda case: case.name)
def test_attention_of_segments_by_a_kernel_computes_its_definition(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "takes_description", lambda _tensor: True)
    assert_computes(attention.PACKED, case, put_in_place(monkeypatch))


SIZE = 16
LAYOUTS = {"bshd_bshd_bshd": (1, 1, 1), "bshd_bs2hd": (1, 2), "bs3hd": (3,)}
"""How many of queries, keys and values each tensor holds."""


def attention_of(**fields: Any) -> Any:
    return flax_layer("DotProductAttention", head_dim=SIZE, num_attention_heads=2, num_gqa_groups=2, **fields)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_kernel_gets_the_batch_first_whatever_the_layer_does(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put_in_place(monkeypatch)
    tensors = iter(draw(*[(2, 32, 2, SIZE)] * 3))
    given = [[next(tensors) for _ in range(parts)] for parts in LAYOUTS[layout]]
    operands = [jnp.stack(parts, axis=2) if len(parts) > 1 else parts[0] for parts in given]

    def attend(*operands: jax.Array, **fields: Any) -> jax.Array:
        layer = attention_of(attn_mask_type="causal", qkv_layout=layout, **fields)
        missing: list[Any] = [None] * (3 - len(operands))
        y: jax.Array = layer.apply({}, *operands, *missing, deterministic=True)
        return y

    with BF16():
        found = attend(*(tensor.swapaxes(0, 1) for tensor in operands), transpose_batch_sequence=True).swapaxes(0, 1)
        wanted = attend(*operands, transpose_batch_sequence=False)
    seen = layers.admitted((32, 32), (32, 32), (32, 32), causal=True)
    assert_sees(wanted, seen, *(part for parts in given for part in parts), where=f"{layout}, batch first")
    assert_close_norm(where=f"{layout}, sequence first", actual=found, expected=wanted, tolerance=FLOAT32)


OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "scale": ({"scale_factor": 0.75}, {"scaling_factor": 0.75}),
    "window": ({"window_size": (4, 0)}, {"window_size": (4, 0)}),
    "mask": ({"attn_mask_type": "no_mask"}, {"attn_mask_type": "NO_MASK"}),
    "dropout": ({"attention_dropout": 0.25}, {"dropout_probability": 0.25}),
    "axis": ({"context_parallel_axis": "cp"}, {"context_parallel_axis": "cp"}),
    "ring": ({"context_parallel_strategy": "ring"}, {"context_parallel_strategy": "RING"}),
    "gathering": ({"context_parallel_strategy": "AllGather"}, {"context_parallel_strategy": "ALL_GATHER"}),
    "balance": ({"context_parallel_causal_load_balanced": True}, {"context_parallel_causal_load_balanced": True}),
    "softmax": ({"softmax_type": "off_by_one"}, {"softmax_type": "OFF_BY_ONE_SOFTMAX"}),
    "segments": (
        {"qkv_layout": "thd_thd_thd", "attn_mask_type": "padding_causal", "max_segments_per_seq": 3},
        {"qkv_layout": "THD_THD_THD", "attn_mask_type": "PADDING_CAUSAL_MASK", "max_segments_per_seq": 3},
    ),
}
"""Options of attention, and what a kernel is told."""


@pytest.mark.parametrize("training", [True, False], ids=["training", "deterministic"])
@pytest.mark.parametrize("option", OPTIONS)
def test_option_reaches_kernel_and_backend(
    option: str,
    training: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the backend, what it is asked for: that differs by release."""
    asked = put_in_place(monkeypatch)
    fields, told = OPTIONS[option]
    layer, sequences = attention_of(**{"attn_mask_type": "causal", **fields}), None
    if option == "segments":
        sequences = from_segments(jnp.asarray(ONE), jnp.asarray(segment_positions(ONE)))

    def total(tensors: list[jax.Array]) -> jax.Array:
        rngs = {"dropout": jax.random.key(0)}
        return layer.apply({}, *tensors, sequences, deterministic=not training, rngs=rngs).sum()

    with BF16():
        jax.eval_shape(jax.grad(total), draw(*[(2, 32, 2, SIZE)] * 3))
    told = {"is_training": training, **told}
    for where, given in (("backend", asked.backend), ("kernel", asked.kernel), ("backward pass", asked.backward)):
        wanted = {name: value for name, value in told.items() if name in given or where != "backend"}
        found = {name: plain(given.get(name, "no such argument")) for name in wanted}
        assert found == wanted, f"{option}: the {where} is told {found}, but should be told {wanted}"


def plain(value: Any) -> Any:
    """The name of a member of an enum; anything else as it is."""
    return value.name if isinstance(value, enum.Enum) else value


@pytest.mark.te_name("cpp_extensions", "fused_attn_score_mod_fwd")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_scores_of_ones_own_reach_their_kernel(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what they are made of: tensors, and numbers as bytes. Also where the sequence comes first."""
    put_in_place(monkeypatch)
    kernels, said = name_of_te("cpp_extensions"), []

    def forward(qkv: tuple[jax.Array, ...], tensors: tuple[jax.Array, ...], config: Any) -> Any:
        said.append(config)
        (slope,) = (np.frombuffer(scalar.value, scalar.dtype) for scalar in config.score_mod_scalars)
        (added,) = tensors
        return layers.attention(*qkv, bias=added * slope, scale=config.scaling_factor).astype(qkv[0].dtype), added

    def backward(
        qkv: Any, _y: Any, grad: Any, _added: Any, tensors: Any, more: tuple[jax.Array, ...], config: Any
    ) -> Any:
        return jax.vjp(lambda qkv: forward(qkv, tensors, config)[0], qkv)[1]((grad * more[0].max()).astype(grad.dtype))[
            0
        ]

    monkeypatch.setattr(kernels, "fused_attn_score_mod_fwd", forward)
    monkeypatch.setattr(kernels, "fused_attn_score_mod_bwd", backward)
    own, own_gradient = (lambda _graph, score, _tensors: score), (lambda _graph, score, _tensors: score)
    layer = attention_of(
        attn_mask_type="no_mask",
        qkv_layout=layout,
        scale_factor=0.75,
        score_mod=own,
        score_mod_bprop=own_gradient,
        transpose_batch_sequence=True,
    )
    *drawn, added, grad = draw(*[(2, 32, 2, SIZE)] * 3, (1, 2, 32, 32), (2, 32, 2, SIZE))
    tensors = [tensor.astype(jnp.bfloat16) for tensor in drawn]
    given = {
        "score_mod_tensors": {"added": added, "slope": 0.5},
        "score_mod_bprop_tensors": {"times": jnp.full(added.shape, 3.0)},
    }

    def total(tensors: list[jax.Array]) -> jax.Array:
        parts, operands = iter(tensors), []
        for count in LAYOUTS[layout]:
            held = [next(parts).swapaxes(0, 1) for _ in range(count)]
            operands.append(jnp.stack(held, axis=2) if count > 1 else held[0])
        missing: list[Any] = [None] * (3 - len(operands))
        y = layer.apply({}, *operands, *missing, deterministic=True, **given)
        return (y.swapaxes(0, 1) * grad).sum()

    def wanted(tensors: list[jax.Array]) -> jax.Array:
        return (layers.attention(*tensors, bias=added * 0.5, scale=0.75).astype(jnp.bfloat16) * grad).sum()

    with BF16():
        found = jax.grad(total)(tensors)
    for name, actual, expected in zip(("query", "key", "value"), found, jax.grad(wanted)(tensors), strict=True):
        assert_close_norm(where=f"{layout}: {name}", actual=actual, expected=expected * 3, tolerance=2.0**-7)
    assert (said[0].score_mod, said[0].score_mod_bprop) == (own, own_gradient), "other functions reach the kernel"
    assert not said[0].is_training, "a kernel of training is asked for"


@pytest.mark.parametrize("how", ["lengths", "no description"])
def test_checkpoint_name_marks_what_a_kernel_gives(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put_in_place(monkeypatch)
    layer, sequences = attention_of(attn_mask_type="causal", context_checkpoint_name="mine"), None
    if how == "lengths":
        sequences = name_of_te("attention", "SequenceDescriptor").from_seqlens(jnp.full(2, 32, jnp.int32))

    def total(tensors: list[jax.Array]) -> jax.Array:
        return layer.apply({}, *tensors, sequences, deterministic=True).sum()

    with BF16():
        program = jax.make_jaxpr(jax.grad(total))(draw(*[(2, 32, 2, SIZE)] * 3))
    found = {equation.params["name"] for equation in equations(program, "name")}
    assert found == {"mine"}, f"checkpoint names={sorted(found)}, but should be mine alone"


def test_kernel_is_left_alone_where_fused_attention_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """``NVTE_FUSED_ATTN``, each time that attention is traced."""
    asked = put_in_place(monkeypatch)
    for switch in ("0", "1", "0"):
        monkeypatch.setenv("NVTE_FUSED_ATTN", switch)
        asked.kernel.clear()
        with BF16():
            attention_of(attn_mask_type="causal").apply({}, *draw(*[(2, 32, 2, SIZE)] * 3), deterministic=True)
        found = "a kernel" if asked.kernel else "no kernel"
        assert found == ("no kernel" if switch == "0" else "a kernel"), f"NVTE_FUSED_ATTN={switch}: {found} was asked"


@pytest.mark.te_name("cpp_extensions", "attention", "FusedAttnHelper", "is_non_deterministic_allowed")
def test_switch_to_deterministic_kernels_counts_whenever_it_is_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    """``NVTE_ALLOW_NONDETERMINISTIC_ALGO``, which tests of users turn for one of them."""
    allowed = name_of_te("cpp_extensions", "attention", "FusedAttnHelper", "is_non_deterministic_allowed")
    found = []
    for switch in ("1", "0", "1", None):
        if switch is None:
            monkeypatch.delenv("NVTE_ALLOW_NONDETERMINISTIC_ALGO")
        else:
            monkeypatch.setenv("NVTE_ALLOW_NONDETERMINISTIC_ALGO", switch)
        found.append(allowed())
    assert found == [True, False, True, True], f"others allowed={found}, but should be [True, False, True, True]"


@pytest.mark.parametrize("fused", [False, True], ids=["without a kernel", "by a kernel"])
def test_sinks_begin_at_zero_and_have_the_axis_of_their_heads(
    fused: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that a model begins alike on every GPU, and is divided alike."""
    asked = put_in_place(monkeypatch)
    monkeypatch.setenv("NVTE_FUSED_ATTN", str(int(fused)))
    layer, given = attention_of(attn_mask_type="causal", softmax_type="learnable"), draw(*[(2, 32, 2, SIZE)] * 3)
    with BF16():
        variables = layer.init(jax.random.key(0), *given, deterministic=True)
    assert bool(asked.kernel) == fused, "Control: who computes it"
    (sink,) = jax.tree.leaves(variables["params"], is_leaf=lambda leaf: isinstance(leaf, nn.Partitioned))
    assert sink.names == (None, "nvte_head", None, None), f"names of the sinks' axes={sink.names}"
    assert_equal(where="first sinks", actual=sink.unbox(), expected=np.zeros((1, 2, 1, 1), np.float32))
