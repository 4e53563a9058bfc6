"""Claim: attention weighs exactly the values that its mask admits, each by the softmax of its logit.

TE documents ``DotProductAttention`` by its formula, and masks, windows, biases, softmax types and layouts by what they
do to it. In float32 a result is known to a few units in the last place, so that a single key too many or too few in a
single row stands out, as does the gradient of one. BF16 and fused kernels are the matter of the claims on layers.

What a failure means for an upgrade: a model attends to the future, to padding or past its window, or learns from it.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_fp8.oracle import arithmetic, layers
from mnist_fp8.subjects import attention
from mnist_fp8.subjects.attention import allowed, case
from mnist_fp8.subjects.layer import Layer, step
from mnist_fp8.subjects.making import demand_parameters, flax_layer, name_of_te
from mnist_fp8.subjects.subject import Case, Subject
from mnist_fp8.te.dense_step import BF16
from support.assertions import assert_close, assert_equal
from support.attention import FLOAT32, assert_sees, attend, draw, hidden
from support.fused import know_formats, put_in_place
from support.layers import assert_step, cases


def unfused(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Variables by the names that they have where no kernel is fused, as in float32."""
    return {
        name.replace("_Fused", "_Unfused"): unfused(each) if isinstance(each, Mapping) else each
        for name, each in variables.items()
    }


@pytest.mark.parametrize(
    ("subject", "case"), cases(lambda subject, _: subject.name in ("DotProductAttention", "RelativePositionBiases"))
)
def test_attention_computes_its_definition_in_float32(subject: Subject, case: Case) -> None:
    layer = Layer(subject, case)
    variables, inputs = unfused(layer.variables()), layer.inputs(dtype="float32")
    grads = tuple(grad.astype(jnp.float32) for grad in layer.grads())
    with jax.default_matmul_precision("highest"):
        found = step(layer, variables, inputs, grads)
    wanted = arithmetic.exact(layer.reference, variables["params"], inputs, grads)
    assert_step(found, wanted, where=f"{subject.name} {case.name}", tolerance_of=lambda _: FLOAT32)


LONG = (
    case("causal", "causal", batch=1, positions=(1056, 1056), heads=(1, 1)),
    case("window", "causal", batch=1, positions=(1056, 1056), heads=(1, 1), window_size=(1000, 0)),
    case("padding", "padding", batch=2, positions=(40, 1056), heads=(1, 1), lengths=((40, 9), (1056, 1025))),
    case("bottom right", "causal_bottom_right", batch=1, positions=(1040, 1056), heads=(1, 1)),
)


@pytest.mark.parametrize("long", LONG, ids=lambda long: long.name)
def test_row_sees_its_keys_of_a_thousand(long: Case) -> None:
    """All logits are equal and values are rows of a unit matrix: the output is the mask, divided by how many it has."""
    seen = allowed(long)
    batch, _, queries, keys = seen.shape
    query, key = jnp.zeros((batch, queries, 1, 8)), jnp.ones((batch, keys, 1, 8))
    value = jnp.broadcast_to(jnp.eye(keys)[None, :, None], (batch, keys, 1, keys))
    mask = attention.mask(long)
    window = {"window_size": long.fields["window_size"]} if "window_size" in long.fields else {}
    y = attend(mask, query, key, value, attn_mask_type=long.fields["attn_mask_type"], **window)
    wanted = seen[:, 0] / np.maximum(seen[:, 0].sum(axis=-1, keepdims=True), 1)
    real = seen[:, 0].any(axis=-1)
    assert_close(where=long.name, actual=y[:, :, 0][real], expected=wanted[real], tolerance=2.0**-22 * wanted[real])


def test_row_that_sees_nothing_is_zero_and_so_are_its_gradients() -> None:
    tensors = draw(*[(2, 16, 4, 16)] * 3)
    seen = layers.admitted((16, 16), (16, 16), (16, 16))
    seen[:, :, 5] = False
    assert_sees(attend(hidden(seen), *tensors, attn_mask_type="padding"), seen, *tensors, where="output")

    def row(*tensors: jax.Array) -> jax.Array:
        return attend(hidden(seen), *tensors, attn_mask_type="padding")[:, 5].sum()

    for name, grad in zip("qkv", jax.jit(jax.grad(row, (0, 1, 2)))(*tensors), strict=True):
        assert_equal(
            where=f"gradient of {name} from a row that sees nothing", actual=grad, expected=np.zeros(grad.shape)
        )


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32"])
def test_mask_of_one_sequence_holds_for_all_whatever_its_dtype(dtype: str) -> None:
    tensors = draw(*[(3, 16, 2, 16)] * 3)
    seen = layers.admitted((16,), (13,), (16, 16), causal=True)
    y = attend(hidden(seen, dtype), *tensors, attn_mask_type="padding_causal")
    assert_sees(y, seen, *tensors, where=f"mask of {dtype}")


def test_mask_of_any_form_is_taken_as_it_is() -> None:
    """Holes and all: on JAX's path, TE takes a mask of ``padding`` for what it is."""
    tensors = draw(*[(2, 16, 4, 16)] * 3)
    seen = np.random.default_rng(1).random((2, 1, 16, 16)) < 0.5
    seen[..., 0] = True
    assert_sees(attend(hidden(seen), *tensors, attn_mask_type="padding"), seen, *tensors, where="holes")


@pytest.mark.parametrize("kind", ["no_mask", "causal"])
def test_mask_is_ignored_where_none_is_asked_for(kind: str) -> None:
    """As documented for ``no_mask`` and ``causal``."""
    tensors = draw(*[(2, 16, 4, 16)] * 3)
    seen = layers.admitted((16, 16), (16, 16), (16, 16), causal=kind == "causal")
    y = attend(jnp.ones((2, 1, 16, 16), jnp.uint8), *tensors, attn_mask_type=kind)
    assert_sees(y, seen, *tensors, where=kind)


def test_every_head_has_keys_of_its_own_where_nobody_says_otherwise() -> None:
    """As documented for ``num_gqa_groups``."""
    tensors = draw(*[(2, 16, 4, 16)] * 3)
    y = attend(None, *tensors, attn_mask_type="no_mask", num_gqa_groups=None)
    assert_sees(y, np.ones((1, 1, 16, 16), bool), *tensors, where="no number of groups")


def test_mask_by_its_former_name_warns_and_counts() -> None:
    tensors, seen = draw(*[(2, 16, 4, 16)] * 3), layers.admitted((16, 16), (16, 9), (16, 16))
    mask, layer = hidden(seen), _layer(attn_mask_type="padding")
    with BF16(), jax.default_matmul_precision("highest"), pytest.warns(UserWarning, match="mask is deprecated"):
        y = layer.apply({}, *tensors, mask=mask, deterministic=True)
    assert_sees(y, seen, *tensors, where="mask by its former name")
    with BF16(), pytest.raises(ValueError, match="cannot be provided at the same time"):
        layer.apply({}, *tensors, mask, mask=mask, deterministic=True)


def test_strategy_of_context_parallelism_that_there_is_not_is_refused() -> None:
    tensors = draw(*[(2, 16, 4, 16)] * 3)
    for strategy in ("default", "ALL_GATHER", "AllGather", "ring"):
        with BF16():
            _layer(context_parallel_strategy=strategy).apply({}, *tensors, deterministic=True)
    with BF16(), pytest.raises(ValueError, match="Invalid context parallel strategy: striped"):
        _layer(context_parallel_strategy="striped").apply({}, *tensors, deterministic=True)


def _layer(**fields: Any) -> Any:
    """Attention of four heads of 16."""
    return flax_layer("DotProductAttention", head_dim=16, num_attention_heads=4, num_gqa_groups=4, **fields)


def _questions(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, Any]]:
    """What a backend is asked for from now on: arguments by their names."""
    module = name_of_te("flax", "transformer")
    asked: list[Mapping[str, Any]] = []
    name = "FusedAttnHelper" if hasattr(module, "FusedAttnHelper") else "is_fused_attn_kernel_available"
    helper = getattr(module, name)

    def noting(*args: Any, **kwargs: Any) -> Any:
        asked.append(inspect.signature(helper).bind(*args, **kwargs).arguments)
        return helper(*args, **kwargs)

    monkeypatch.setattr(module, name, noting)
    return asked


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_backend_is_asked_for_by_the_dtype_of_the_inputs(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fused kernels take 16-bit tensors alone: who is asked for another dtype says that there is none."""
    asked = _questions(monkeypatch)
    tensors = [tensor.astype(dtype) for tensor in draw(*[(2, 16, 4, 16)] * 3)]
    attend(None, *tensors, attn_mask_type="causal")
    assert asked, "no backend was asked for"
    dtypes = {str(jnp.dtype(question[tensor])) for question in asked for tensor in ("q_dtype", "kv_dtype")}
    assert dtypes == {dtype}, f"asked for a backend of {dtypes}, but should be of {dtype}"


def test_backend_is_asked_for_as_many_groups_as_heads_where_no_number_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the documentation has it; a layer that asks for none at all cannot run on a GPU."""
    asked = _questions(monkeypatch)
    layer = flax_layer("DotProductAttention", head_dim=16, num_attention_heads=4, attn_mask_type="causal")
    with BF16():
        layer.apply({}, *[tensor.astype("bfloat16") for tensor in draw(*[(2, 16, 4, 16)] * 3)], deterministic=True)
    groups = {question["kv_num_heads"] for question in asked}
    assert groups == {4}, f"asked for a backend of {groups} groups, but should be of 4"


@pytest.mark.parametrize("kind", ["pre_scale_bias", "post_scale_bias"])
def test_bias_of_another_dtype_counts_in_that_of_the_inputs(kind: str) -> None:
    """As a bias in float32 beside 16-bit tensors: the output keeps the dtype of these."""
    tensors, bias = [tensor.astype("bfloat16") for tensor in draw(*[(2, 16, 4, 16)] * 3)], draw((1, 4, 16, 16))[0]
    rounded = bias.astype("bfloat16")

    def attended(bias: jax.Array) -> jax.Array:
        with BF16():
            return _layer(attn_mask_type="causal", attn_bias_type=kind).apply({}, *tensors, None, bias)

    found, wanted = attended(bias), attended(rounded)
    assert found.dtype == jnp.bfloat16, f"dtype of the output={found.dtype}, but should be bfloat16"
    assert_equal(where="output", actual=found, expected=wanted)


@pytest.mark.parametrize("which", ["key", "value"])
def test_tensors_of_several_dtypes_are_refused(which: str) -> None:
    tensors = dict(zip(("query", "key", "value"), draw(*[(2, 16, 4, 16)] * 3), strict=True))
    tensors[which] = tensors[which].astype("bfloat16")
    with BF16(), pytest.raises(AssertionError, match=f"{which}.dtype"):
        _layer(attn_mask_type="causal").apply({}, *tensors.values(), deterministic=True)


def test_dtype_of_a_layer_without_parameters_warns_or_is_refused() -> None:
    """One that is that of the inputs changes nothing; any other one cannot count."""
    tensors = draw(*[(2, 16, 4, 16)] * 3)
    plain, same, other = (
        name_of_te("flax", "DotProductAttention")(
            head_dim=16,
            num_attention_heads=4,
            num_gqa_groups=4,
            attn_mask_type="causal",
            transpose_batch_sequence=False,
            **fields,
        )
        for fields in ({}, {"dtype": jnp.float32}, {"dtype": jnp.bfloat16})
    )
    with BF16():
        wanted = plain.apply({}, *tensors, deterministic=True)
        with pytest.warns(UserWarning, match="dtype argument is deprecated"):
            found = same.apply({}, *tensors, deterministic=True)
        with pytest.raises(ValueError, match="does not match dtype of inputs"):
            other.apply({}, *tensors, deterministic=True)
    assert_equal(where="output", actual=found, expected=wanted)


@pytest.mark.host  # Not tried on kernels yet, with a kernel of the suite's own beside them.
@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        pytest.param("return_max_logit", True, "0", id="largest logit, forbidden"),
        pytest.param("return_max_logit", True, "1", id="largest logit, not there"),
        pytest.param("score_mod", lambda _graph, score, _tensors: score, "0", id="own scores, forbidden"),
        pytest.param("score_mod", lambda _graph, score, _tensors: score, "1", id="own scores, not there"),
    ],
)
def test_option_of_kernels_alone_is_refused_without_them(
    option: str, value: Any, allowed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came back without a kernel would be another result, and nobody would be told."""
    tensors, layer = draw(*[(2, 16, 4, 16)] * 3), _layer(attn_mask_type="no_mask", **{option: value})
    know_formats(monkeypatch)
    if allowed == "0":
        put_in_place(monkeypatch)  # there is a kernel that it is forbidden to use
    monkeypatch.setenv("NVTE_FUSED_ATTN", allowed)
    with BF16(), pytest.raises(ValueError, match=f"{option} requires fused attention"):
        layer.apply({}, *tensors, deterministic=True)


SCORES: dict[str, tuple[dict[str, Any], str]] = {
    "largest logit": ({"return_max_logit": True}, "return_max_logit"),
    "bias": ({"bias": np.zeros((1, 4, 16, 16), jnp.bfloat16)}, "bias"),
    "kind of bias": ({"attn_bias_type": ("AttnBiasType", "POST_SCALE_BIAS")}, "bias"),
    "mask": ({"attn_mask_type": ("AttnMaskType", "CAUSAL_MASK")}, "attention masks"),
    "lengths": ({"sequence_descriptor": np.zeros((2, 1, 16, 16), jnp.uint8)}, "sequence descriptors"),
    "key of a dropout": ({"seed": np.zeros(2, jnp.uint32)}, "dropout seed"),
    "dropout": ({"dropout_probability": 0.1}, "dropout"),
    "softmax": ({"softmax_type": ("AttnSoftmaxType", "OFF_BY_ONE_SOFTMAX")}, "vanilla softmax"),
    "sink": ({"softmax_offset": np.zeros((1, 4, 1, 1))}, "vanilla softmax"),
    "segments": ({"max_segments_per_seq": 2}, "packed"),
    "window": ({"window_size": (4, 0)}, "sliding-window"),
    "strategy": ({"context_parallel_strategy": ("CPStrategy", "RING")}, "context parallelism"),
    "axis": ({"context_parallel_axis": "cp"}, "context parallelism"),
    "balance": ({"context_parallel_causal_load_balanced": True}, "context parallelism"),
    "stripes": ({"stripe_size": 4}, "striped"),
    "layout": ({"qkv_layout": ("QKVLayout", "BSHD_BS2HD")}, "BSHD_BSHD_BSHD"),
    "dtype": ({"qkv": (np.zeros((2, 16, 4, 16)),) * 3}, "FP16/BF16"),
    "heads": ({"qkv": tuple(np.zeros((2, 16, n, 16), jnp.bfloat16) for n in (4, 4, 2))}, "head counts"),
    "lengths of keys": ({"qkv": tuple(np.zeros((2, n, 4, 16), jnp.bfloat16) for n in (16, 16, 8))}, "lengths"),
    "batches": ({"qkv": tuple(np.zeros((n, 16, 4, 16), jnp.bfloat16) for n in (2, 1, 2))}, "batch"),
    "sizes": ({"qkv": tuple(np.zeros((2, 16, 4, n), jnp.bfloat16) for n in (16, 8, 16))}, "head dimensions"),
    "tensors without scores": ({"score_mod": None, "score_mod_tensors": {"a": 1.0}}, "require score_mod"),
    "gradient without scores": ({"score_mod": None, "score_mod_bprop": min}, "require score_mod"),
    "tensors of no gradient": ({"score_mod_bprop_tensors": {"a": 1.0}}, "requires score_mod_bprop"),
    "array of rank 0": ({"score_mod_tensors": {"a": np.zeros(())}}, "rank-0"),
}
"""What goes with no scores of one's own, and what it is refused with."""


ENUMS = frozenset({"attn_bias_type", "attn_mask_type", "qkv_layout", "softmax_type", "context_parallel_strategy"})


@pytest.mark.host  # Not tried on kernels yet.
@pytest.mark.te_name("cpp_extensions", "flex_attention")
@pytest.mark.filterwarnings("ignore:Pass mask to fused_attn is deprecated")
@pytest.mark.parametrize("wrong", SCORES)
def test_scores_of_ones_own_refuse_what_they_would_ignore(wrong: str) -> None:
    given, said = SCORES[wrong]
    attention = name_of_te("attention")
    demand_parameters(attention.fused_attn, *given)
    fields: dict[str, Any] = {
        "qkv": (np.zeros((2, 16, 4, 16), jnp.bfloat16),) * 3,
        **dict.fromkeys(("bias", "sequence_descriptor", "seed")),
        "attn_bias_type": ("AttnBiasType", "NO_BIAS"),
        "attn_mask_type": ("AttnMaskType", "NO_MASK"),
        "qkv_layout": ("QKVLayout", "BSHD_BSHD_BSHD"),
        "softmax_type": ("AttnSoftmaxType", "VANILLA_SOFTMAX"),
        "scaling_factor": 1.0,
        "dropout_probability": 0.0,
        "is_training": True,
        "score_mod": lambda _graph, score, _tensors: score,
        **given,
    }
    enums = {name: getattr(attention, value[0])[value[1]] for name, value in fields.items() if name in ENUMS}
    with pytest.raises(ValueError, match=said):
        attention.fused_attn(**fields | enums)


@pytest.mark.parametrize(
    ("other", "kind"),
    [
        ("causal_padding", "padding_causal"),
        ("bottom_right_causal", "causal_bottom_right"),
        ("bottom_right_causal_padding", "padding_causal_bottom_right"),
    ],
)
def test_names_of_masks_mean_the_same(other: str, kind: str) -> None:
    tensors = draw((2, 16, 4, 16), (2, 24, 4, 16), (2, 24, 4, 16))
    seen = layers.admitted((16, 9), (24, 17), (16, 24), causal=True, bottom_right="bottom" in kind)
    outputs = [attend(hidden(seen), *tensors, attn_mask_type=name) for name in (other, kind)]
    assert_equal(where=other, actual=outputs[0], expected=outputs[1])


@pytest.mark.parametrize("kind", ["no_mask", "causal"])
def test_window_applies_without_a_mask(kind: str) -> None:
    tensors = draw(*[(2, 16, 4, 16)] * 3)
    seen = layers.admitted((16, 16), (16, 16), (16, 16), causal=kind == "causal", window=(3, 0))
    y = attend(None, *tensors, attn_mask_type=kind, window_size=(3, 0))
    assert_sees(y, seen, *tensors, where=f"{kind} with a window")


@pytest.mark.parametrize("kind", ["causal_bottom_right", "padding_causal_bottom_right"])
def test_window_ends_where_a_bottom_right_mask_does(kind: str) -> None:
    tensors = draw((2, 16, 4, 16), (2, 24, 4, 16), (2, 24, 4, 16))
    queries, keys = (16, 16), (24, 24)
    mask = hidden(layers.admitted(queries, keys, (16, 24), causal=True, bottom_right=True))
    seen = layers.admitted(queries, keys, (16, 24), causal=True, bottom_right=True, window=(5, 0))
    y = attend(mask, *tensors, attn_mask_type=kind, window_size=(5, 0))
    assert_sees(y, seen, *tensors, where=f"{kind} with a window")


def test_bottom_right_causality_needs_no_mask() -> None:
    """As causality from the top left does not."""
    tensors = draw((2, 16, 4, 16), (2, 24, 4, 16), (2, 24, 4, 16))
    seen = layers.admitted((16, 16), (24, 24), (16, 24), causal=True, bottom_right=True)
    assert_sees(attend(None, *tensors, attn_mask_type="causal_bottom_right"), seen, *tensors, where="bottom right")


def test_causality_holds_beside_a_mask_of_padding() -> None:
    """``padding_causal`` is "a combination of both"; its mask is "to specify the padding positions"."""
    tensors = draw(*[(2, 16, 4, 16)] * 3)
    padding = layers.admitted((16, 16), (16, 13), (16, 16))
    seen = layers.admitted((16, 16), (16, 13), (16, 16), causal=True)
    assert_sees(attend(hidden(padding), *tensors, attn_mask_type="padding_causal"), seen, *tensors, where="causal")


def test_grouped_heads_may_have_values_of_another_size() -> None:
    tensors = draw((2, 16, 4, 16), (2, 16, 2, 16), (2, 16, 2, 32))
    seen = layers.admitted((16, 16), (16, 16), (16, 16), causal=True)
    assert_sees(attend(None, *tensors, attn_mask_type="causal", num_gqa_groups=2), seen, *tensors, where="two groups")


@pytest.mark.parametrize("layout", ["bs3hd", "t3hd"])
def test_packed_layouts_need_no_keys_and_values(layout: str) -> None:
    """As documented: "key and value arguments are ignored"."""
    (packed,) = draw((2, 16, 3, 4, 16))
    seen = layers.admitted((16, 16), (16, 13), (16, 16))
    y = attend(hidden(seen), packed, None, None, attn_mask_type="padding", qkv_layout=layout)
    assert_sees(y, seen, *(packed[:, :, part] for part in range(3)), where=layout)


def test_backward_pass_of_a_window_leaves_the_rest_alone() -> None:
    """A key that a query does not see gets no gradient from it, not even a small one."""
    tensors = draw(*[(1, 32, 1, 16)] * 3)
    seen = layers.admitted((32,), (32,), (32, 32), causal=True, window=(4, 0))
    mask = hidden(layers.admitted((32,), (32,), (32, 32), causal=True))

    def row(*tensors: jax.Array) -> jax.Array:
        return attend(mask, *tensors, attn_mask_type="causal", window_size=(4, 0))[0, 20].sum()

    _, dkey, dvalue = jax.jit(jax.grad(row, (0, 1, 2)))(*tensors)
    for name, grad in (("key", dkey), ("value", dvalue)):
        touched = np.asarray(grad[0, :, 0] != 0).any(axis=-1)
        assert_equal(where=f"keys with a gradient of {name}", actual=touched, expected=seen[0, 0, 20])
