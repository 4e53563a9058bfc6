"""Claim: the options of layer norm, LayerNormDenseGeneral and LayerNormMLP do what is documented; others are refused.

Promised by the docstrings of ``transformer_engine.jax.flax``: initializers, names of axes, dtype of the parameters,
epsilon, low rank adaptation, parameters of the activation, dropout, and names of what is checkpointed.

What a failure means for an upgrade: a model that sets more than sizes starts elsewhere, computes something else, or
computes it in BF16 and in FP8 unlike each other.
"""

import dataclasses
import functools
import inspect
import warnings
from collections import Counter
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.core import meta

from mnist_fp8 import te
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.oracle import layers
from mnist_fp8.oracle.arithmetic import Arithmetic, Params, Reference
from mnist_fp8.programs import jaxprs
from mnist_fp8.subjects import find_subject
from mnist_fp8.subjects.layer import Layer, step
from mnist_fp8.subjects.layernorm import normalised
from mnist_fp8.subjects.making import name_of_te
from mnist_fp8.subjects.subject import Case
from mnist_fp8.te.dense_step import BF16, on_device
from support.assertions import assert_equal, assert_trees_equal
from support.layers import (
    CURRENT,
    DELAYED,
    MXFP8,
    NVFP4,
    assert_step,
    expected,
    paths,
    scales_of,
    tolerance_of,
    unless_by_chance,
)
from support.programs import equations

LAYERS: dict[str, dict[str, Any]] = {
    "LayerNorm": {},
    "LayerNormDenseGeneral": {"features": 32, "return_layernorm_output": False},
    "LayerNormMLP": {
        "intermediate_dim": 64,
        "activations": ("silu", "linear"),
        "return_layernorm_output": False,
        "intermediate_dropout_rate": 0.0,
    },
}
"""What each layer needs; until 2.9, an MLP drops out a tenth by default."""
FUSED = [name for name in LAYERS if name != "LayerNorm"]
DENSE, MLP = "LayerNormDenseGeneral", "LayerNormMLP"

modes = pytest.mark.parametrize(
    "mode", [BF16, pytest.param(DELAYED, marks=pytest.mark.recipe("DelayedScaling"))], ids=["bf16", "delayed"]
)


def layer_of(name: str, mode: te.Autocast = BF16, reference: Reference | None = None, **fields: Any) -> Layer:
    """A layer with some options, and with a reference of its own if the subject's does not know them."""
    subject = find_subject(name)
    if reference is not None:
        subject = dataclasses.replace(subject, reference=lambda _: reference)
    return Layer(subject, Case("with options", {**LAYERS[name], **fields}, {"x": (4, 16, 48)}), mode)


def needs(name: str) -> Any:
    """Parameter ``name`` of a test."""
    return pytest.param(name, marks=pytest.mark.subject(name, find_subject(name).cases[0].name), id=name)


def with_bias(name: str) -> dict[str, Any]:
    """The field that gives a layer biases, if it can have them."""
    return {} if name == "LayerNorm" else {"use_bias": True}


every_layer = pytest.mark.parametrize("name", [needs(name) for name in LAYERS])
fused_layers = pytest.mark.parametrize("name", [needs(name) for name in FUSED])
mlp_only = pytest.mark.subject(MLP, "gelu")
ADDED = 2.0
"""Tolerances that a layer with an option may be off: the products of low rank adaptation are rounded to BF16 as well.
Seen: 1.3, and 1.7 in 2.1.0."""


def assert_computes(layer: Layer, *, where: str, variables: Any = None) -> None:
    """A step is what the reference predicts, forward and backward."""
    __tracebackhide__ = True
    variables = layer.variables() if variables is None else variables
    unless_by_chance(functools.partial(_assert_predicted, layer, variables, where))


def _assert_predicted(layer: Layer, variables: Any, where: str, draw: int, times: float) -> None:
    __tracebackhide__ = True
    given = layer.inputs(2 * draw), layer.grads(2 * draw + 1)
    found = step(layer, variables, *given)
    scales = scales_of(layer, variables, variables) if layer.quantizes else None
    wanted = expected(layer, variables, *given, found, scales)
    assert_step(found, wanted, where=where, tolerance_of=lambda path: times * ADDED * tolerance_of(layer, path))


# --- defaults -------------------------------------------------------------------------------------------------------

_NORM = {"layernorm_type": "layernorm", "zero_centered_gamma": False}
_FUSED = {
    **_NORM,
    "enable_layernorm": True,
    "epsilon": 1e-6,
    "use_bias": False,
    "axis": -1,
    "dtype": jnp.float32,
    "enable_low_rank_adaptation": False,
    "low_rank_adaptation_dim": 32,
    "low_rank_adaptation_alpha": None,
}
_ATTENTION = {
    "num_gqa_groups": None,
    "dropout_rng_name": "dropout",
    "dtype": jnp.float32,
    "use_bias": False,
    "zero_centered_gamma": False,
    "layernorm_type": "layernorm",
    "layernorm_epsilon": 1e-6,
    "enable_rotary_pos_emb": False,
    "rotary_pos_emb_windows": (1, 10000),
    "rotary_pos_emb_group_method": "consecutive",
    "low_rank_adaptation_scope": "none",
    "low_rank_adaptation_dim": 32,
    "low_rank_adaptation_alpha": None,
    "fuse_qkv_params": True,
    "enable_sequence_parallel": False,
    "scale_attn_logits": False,
    "scaled_query_init": True,
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "LayerNorm": {**_NORM, "epsilon": 1e-6, "dtype": jnp.float32},
    DENSE: {**_FUSED, "depth_scaling": None},
    MLP: {
        **_FUSED,
        "intermediate_dim": 2048,
        "intermediate_hidden_dropout_dims": (),
        "intermediate_dropout_rng_name": "dropout",
    },
    "DotProductAttention": {
        "num_gqa_groups": None,
        "attention_dropout": 0.0,
        "dropout_rng_name": "dropout",
        "float32_logits": False,
        "attn_mask_type": "causal",
        "attn_bias_type": None,
        "qkv_layout": "bshd_bshd_bshd",
        "scale_factor": None,
    },
    "RelativePositionBiases": {"embedding_axes": ("heads", "relpos_buckets"), "dtype": jnp.float32},
    "MultiHeadAttention": {
        **_ATTENTION,
        "attention_dropout": 0.0,
        "input_layernorm": True,
        "return_layernorm_output": False,
        "attn_mask_type": "causal",
        "attn_bias_type": None,
        "float32_logits": False,
    },
    "TransformerLayer": {
        **_ATTENTION,
        "hidden_size": 512,
        "mlp_hidden_size": 2048,
        "num_attention_heads": 8,
        "float32_attention_logits": False,
        "hidden_dropout": 0.1,
        "hidden_dropout_dims": (),
        "attention_dropout": 0.1,
        "intermediate_dropout_dims": (),
        "self_attn_mask_type": "causal",
        "self_attn_bias_type": None,
        "drop_path": 0.0,
        "output_layernorm": False,
        "apply_residual_connection_post_layernorm": False,
        "enable_relative_embedding": True,
        "relative_embedding": None,
        "transpose_batch_sequence": False,
    },
}
"""What the docstrings of TE's layers say of options that nobody gives."""
NEW_DEFAULTS: dict[str, dict[str, Any]] = {
    DENSE: {"return_layernorm_output": False, "transpose_batch_sequence": False},
    MLP: {
        "return_layernorm_output": False,
        "transpose_batch_sequence": False,
        "activations": ("gelu",),
        "intermediate_dropout_rate": 0.0,
    },
    "DotProductAttention": {
        "softmax_type": "vanilla",
        "context_checkpoint_name": "context",
        "max_segments_per_seq": 1,
    },
    "MultiHeadAttention": {"softmax_type": "vanilla"},
    "TransformerLayer": {"softmax_type": "vanilla", "mlp_activations": ("gelu",), "intermediate_dropout": 0.0},
}
"""Those that changed in 2.10, or came until then."""
_WITH_WINDOWS = ("DotProductAttention", "MultiHeadAttention", "TransformerLayer")
WINDOW_DEFAULTS: dict[str, dict[str, Any]] = {name: {"window_size": None} for name in _WITH_WINDOWS}
"""Those that came with windows, in 1.12."""
PARALLEL_DEFAULTS = {
    "DotProductAttention": {"context_parallel_causal_load_balanced": False, "context_parallel_axis": ""}
}
"""Those that came with context parallelism, in 1.13."""


@pytest.mark.parametrize("name", [needs(name) for name in DEFAULTS])
def test_options_that_nobody_gives_have_their_defaults(name: str) -> None:
    assert_defaults(name, DEFAULTS[name])


@pytest.mark.parametrize("name", [needs(name) for name in NEW_DEFAULTS])
def test_options_that_nobody_gives_have_the_defaults_of_today(name: str) -> None:
    assert_defaults(name, NEW_DEFAULTS[name])


@pytest.mark.parametrize("name", [needs(name) for name in WINDOW_DEFAULTS])
def test_windows_that_nobody_gives_are_none(name: str) -> None:
    assert_defaults(name, WINDOW_DEFAULTS[name])


@pytest.mark.parametrize("name", [needs(name) for name in PARALLEL_DEFAULTS])
def test_context_parallelism_that_nobody_gives_has_its_defaults(name: str) -> None:
    assert_defaults(name, PARALLEL_DEFAULTS[name])


@pytest.mark.filterwarnings("ignore:transpose_batch_sequence defaults to False")
@pytest.mark.parametrize("name", [needs(name) for name in ("DotProductAttention", "MultiHeadAttention")])
def test_inputs_of_attention_are_batch_first_where_nobody_says(name: str) -> None:
    subject = find_subject(name)
    layer = Layer(subject, subject.cases[0])  # which says that they are
    silent = dataclasses.replace(layer.case, fields={**layer.case.fields, "transpose_batch_sequence": None})
    given = layer.variables(), layer.inputs(), layer.grads()
    actual = step(Layer(subject, silent), *given)
    assert_trees_equal(where=name, actual=actual, expected=step(layer, *given))


def assert_defaults(name: str, expected: dict[str, Any]) -> None:
    """The fields of a layer have some defaults."""
    __tracebackhide__ = True
    fields = inspect.signature(name_of_te("flax", name)).parameters
    found = {field: fields[field].default if field in fields else "no such option" for field in expected}
    wrong = {field: default for field, default in found.items() if repr(default) != repr(expected[field])}
    assert not wrong, f"{name}: defaults={wrong}, but should be { {field: expected[field] for field in wrong} }"


# --- initializers, axes, dtypes ------------------------------------------------------------------------------------

FIRST = {"scale": 0.25, "ln_bias": 0.5, "kernel": 0.75, "bias": -0.5}
"""What each initializer gives, by the kind of parameter."""


def kind_of(path: str) -> str:
    """``wi_kernel`` is a kernel."""
    return path if path in FIRST else path.rpartition("_")[2]


def initializers(name: str) -> dict[str, Any]:
    """Fields that give every parameter a first value of its own."""
    given = {kind: nn.initializers.constant(value) for kind, value in FIRST.items()}
    if name == "LayerNorm":
        return {"scale_init": given["scale"], "bias_init": given["ln_bias"]}
    return {f"{kind}_init": init for kind, init in given.items()}


@every_layer
def test_initializers_give_the_first_values(name: str) -> None:
    layer = layer_of(name, **initializers(name), **with_bias(name))
    found = paths(te.unbox(jax.jit(layer.init)(layer.inputs()))["params"])
    assert set(map(kind_of, found)) >= {"scale", "ln_bias"}, f"{name}: parameters={list(found)}"
    for path, values in found.items():
        assert_equal(where=f"{name} {path}", actual=values, expected=np.full(values.shape, FIRST[kind_of(path)]))


@every_layer
def test_parameters_are_kept_in_the_dtype_that_is_asked_for(name: str) -> None:
    """The layer computes as with float32 parameters of the same numbers."""
    layer = layer_of(name, dtype=jnp.bfloat16, zero_centered_gamma=True)
    variables, given = layer.variables(), (layer.inputs(), layer.grads())
    dtypes = {str(leaf.dtype) for leaf in jax.tree.leaves(variables)}
    assert dtypes == {"bfloat16"}, f"dtypes of {name}'s parameters={dtypes}"
    found = step(layer, variables, *given)
    wide = jax.tree.map(lambda leaf: on_device(leaf, "float32"), variables)
    wanted = step(layer_of(name, zero_centered_gamma=True), wide, *given)
    assert_trees_equal(where=name, actual=[found.y, found.dx], expected=[wanted.y, wanted.dx])


AXES: dict[str, dict[str, Any]] = {
    "LayerNorm": {"scale_axes": ("s",), "bias_axes": ("l",)},
    "LayerNormDenseGeneral": {
        "scale_axes": ("s",),
        "ln_bias_axes": ("l",),
        "kernel_axes": ("i", "o"),
        "bias_axes": ("b",),
    },
    "LayerNormMLP": {
        "scale_axes": ("s",),
        "ln_bias_axes": ("l",),
        "kernel_axes_1": ("i", "a", "h"),
        "kernel_axes_2": ("h2", "o"),
        "bias_axes_1": ("a1", "b1"),
        "bias_axes_2": ("b2",),
    },
}
NAMED = {
    "LayerNorm": {"scale": ("s",), "ln_bias": ("l",)},
    "LayerNormDenseGeneral": {"scale": ("s",), "ln_bias": ("l",), "kernel": ("i", "o"), "bias": ("b",)},
    "LayerNormMLP": {
        "scale": ("s",),
        "ln_bias": ("l",),
        "wi_kernel": ("i", "a", "h"),
        "wo_kernel": ("h2", "o"),
        "wi_bias": ("a1", "b1"),
        "wo_bias": ("b2",),
    },
}
"""Which parameter gets the names of which field."""


@every_layer
def test_axes_have_the_names_that_are_given(name: str) -> None:
    layer = layer_of(name, **AXES[name], **with_bias(name))
    params = jax.eval_shape(layer.init, layer.inputs())["params"]
    boxes = paths(params, is_leaf=lambda leaf: isinstance(leaf, meta.AxisMetadata))
    found = {path: box.names for path, box in boxes.items()}
    assert found == NAMED[name], f"names of axes={found}, but should be {NAMED[name]}"


@mlp_only
def test_parts_of_a_gated_activation_begin_with_kernels_of_their_own() -> None:
    layer = layer_of(MLP)
    kernel = te.unbox(jax.jit(layer.init)(layer.inputs()))["params"]["wi_kernel"]
    assert not np.array_equal(kernel[:, 0], kernel[:, 1]), "both kernels of a gated activation are drawn alike"


# --- layer norm ----------------------------------------------------------------------------------------------------


@every_layer
@pytest.mark.recipe("DelayedScaling")
def test_epsilon_is_added_to_the_variance(name: str) -> None:
    """One as large as the variance, with a scale around one."""
    layer = layer_of(name, DELAYED, epsilon=0.75, zero_centered_gamma=True)
    mode = DELAYED if layer.products else BF16
    assert_computes(dataclasses.replace(layer, mode=mode), where=f"{name} with a large epsilon")


@pytest.mark.host  # Not tried on kernels yet.
@pytest.mark.recipe("DelayedScaling")
@pytest.mark.parametrize("recipe", [False, True], ids=["bf16", "delayed"])
@pytest.mark.subject(DENSE, find_subject(DENSE).cases[0].name)
def test_depth_scaling_divides_what_a_bias_adds_as_well(recipe: bool) -> None:  # noqa: FBT001
    """It scales the layer's output, of which the bias is a part."""
    layer = layer_of(DENSE, DELAYED if recipe else BF16, depth_scaling=4.0, use_bias=True)
    assert_computes(layer, where=f"{DENSE} with a bias, scaled")


RELATIVE_POSITIONS = "RelativePositionBiases"


@pytest.mark.subject(RELATIVE_POSITIONS, find_subject(RELATIVE_POSITIONS).cases[0].name)
def test_relative_positions_have_the_first_values_axes_and_dtype_that_are_given() -> None:
    subject = find_subject(RELATIVE_POSITIONS)
    plain = subject.cases[0]
    given = {"embedding_init": nn.initializers.constant(0.25), "embedding_axes": ("h", "b"), "dtype": jnp.bfloat16}
    layer = Layer(subject, dataclasses.replace(plain, fields={**plain.fields, **given}))
    box = layer.init({})["params"]["rel_embedding"]
    assert box.names == ("h", "b"), f"names of axes={box.names}, but should be ('h', 'b')"
    values = te.unbox({"embedding": box})["embedding"]
    assert values.dtype == jnp.bfloat16, f"dtype={values.dtype}, but should be bfloat16"
    assert_equal(where="first values", actual=values, expected=np.full(values.shape, 0.25))


# --- low rank adaptation -------------------------------------------------------------------------------------------

RANK = 8
LORA = {"enable_low_rank_adaptation": True, "low_rank_adaptation_dim": RANK}


def adapted_dense(alpha: float | None) -> Reference:
    """The layer plus alpha/rank times what is normalised, by A, by B."""
    case = layer_of("LayerNormDenseGeneral").case

    def reference(arithmetic: Arithmetic, params: Params, inputs: Mapping[str, jax.Array]) -> jax.Array:
        normal = arithmetic.stored(normalised(case, arithmetic, params, inputs["x"]))
        y = arithmetic.product("dense", normal, params["kernel"])
        return y + adaptation(arithmetic, params, "", normal, alpha)

    return reference


def adaptation(arithmetic: Arithmetic, params: Params, prefix: str, x: jax.Array, alpha: float | None) -> jax.Array:
    """What low rank adaptation adds to a product of ``x``."""
    a, b = (arithmetic.parameter(params[f"{prefix}lora_{which}_kernel"]) for which in "ab")
    parts = a.ndim == 3  # (features, parts, rank) and (parts, rank, features)
    product = jnp.einsum("...i,ips,pso->...po", x, a, b) if parts else x @ a @ b
    return product * (1.0 if alpha is None else alpha / RANK)


@pytest.mark.parametrize(
    ("mode", "alpha"),
    [
        pytest.param(BF16, None, id="bf16"),
        pytest.param(BF16, 16.0, id="bf16 with alpha"),
        pytest.param(DELAYED, 16.0, id="delayed with alpha", marks=pytest.mark.recipe("DelayedScaling")),
    ],
)
@pytest.mark.subject("LayerNormDenseGeneral", "layernorm")
def test_low_rank_adaptation_adds_its_product_of_what_is_normalised(mode: te.Autocast, alpha: float | None) -> None:
    fields = {**LORA, "low_rank_adaptation_alpha": alpha}
    layer = layer_of("LayerNormDenseGeneral", mode, adapted_dense(alpha), **fields)
    assert_computes(layer, where=f"low rank adaptation with alpha={alpha}")


def adapted_mlp(alpha: float) -> Reference:
    """Both products with what low rank adaptation adds to them."""
    case = layer_of(MLP).case

    def reference(arithmetic: Arithmetic, params: Params, inputs: Mapping[str, jax.Array]) -> jax.Array:
        normal = arithmetic.stored(normalised(case, arithmetic, params, inputs["x"]))
        hidden = arithmetic.product("wi", normal, params["wi_kernel"])
        hidden = arithmetic.stored(hidden + adaptation(arithmetic, params, "wi_", normal, alpha))
        active = arithmetic.activated(hidden, case.fields["activations"])
        return arithmetic.product("wo", active, params["wo_kernel"]) + adaptation(
            arithmetic, params, "wo_", active, alpha
        )

    return reference


@modes
@mlp_only
def test_low_rank_adaptation_of_the_mlp_adds_to_both_products(mode: te.Autocast) -> None:
    layer = layer_of(MLP, mode, adapted_mlp(16.0), **LORA, low_rank_adaptation_alpha=16.0)
    found = {path for path in paths(layer.shapes["params"]) if "lora" in path}
    expected = {f"{which}_lora_{part}_kernel" for which in ("wi", "wo") for part in "ab"}
    assert found == expected, f"parameters of low rank adaptation={sorted(found)}, but should be {sorted(expected)}"
    assert_computes(layer, where="low rank adaptation of both products")


ADAPTED: dict[str, set[str]] = {
    "none": set(),
    "all": {"qkv", "out"},
    "qkv_proj": {"qkv"},
    "output_proj": {"out"},
    "mlp": set(),
    "exclude_qkv_proj": {"out"},
    "exclude_output_proj": {"qkv"},
    "exclude_mlp": {"qkv", "out"},
}
"""The products of attention that a scope adapts."""
_WITHOUT_MLP = ("none", "qkv_proj", "output_proj", "exclude_mlp")
"""Scopes in which a transformer layer leaves its MLP alone."""


@pytest.mark.subject("MultiHeadAttention", "asks itself")
@pytest.mark.parametrize("scope", ADAPTED)
def test_scope_of_low_rank_adaptation_says_which_products_of_attention_are_adapted(scope: str) -> None:
    assert adapted_products("MultiHeadAttention", scope) == ADAPTED[scope], f"scope {scope}"


@pytest.mark.subject("TransformerLayer", "encoder")
@pytest.mark.parametrize("scope", _WITHOUT_MLP)
def test_scope_of_low_rank_adaptation_reaches_the_attention_of_a_transformer_layer(scope: str) -> None:
    assert adapted_products("TransformerLayer", scope) == ADAPTED[scope], f"scope {scope}"


def adapted_products(name: str, scope: str) -> set[str]:
    """The products of a layer's attention that have matrices of low rank."""
    subject = find_subject(name)
    fields = {**subject.cases[0].fields, "low_rank_adaptation_scope": scope, "low_rank_adaptation_dim": RANK}
    shapes = Layer(subject, dataclasses.replace(subject.cases[0], fields=fields)).shapes["params"]
    return {path.split("/")[-2] for path in paths(shapes) if path.endswith("lora_a_kernel")}


# --- activations ---------------------------------------------------------------------------------------------------

CLAMPED = ("clamped_silu", "clamped_linear")


@pytest.mark.parametrize(
    ("mode", "returned", "offset"),
    [
        pytest.param(BF16, False, {}, id="bf16"),
        pytest.param(DELAYED, False, {}, id="delayed", marks=pytest.mark.recipe("DelayedScaling")),
        pytest.param(DELAYED, True, {}, id="delayed in parts", marks=pytest.mark.recipe("DelayedScaling")),
        pytest.param(
            DELAYED,
            False,
            {"glu_linear_offset": 0.5},
            id="delayed with an offset",
            marks=pytest.mark.recipe("DelayedScaling"),
        ),
    ],
)
@pytest.mark.subject(MLP, "clamped_silu x clamped_linear")
def test_parameters_of_the_clamped_activation_are_honoured(
    mode: te.Autocast,
    returned: bool,  # noqa: FBT001
    offset: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit, alpha = 0.75, 1.25
    monkeypatch.setitem(
        layers.ACTIVATIONS,
        CLAMPED[0],
        lambda x: jax.nn.sigmoid(alpha * jnp.minimum(x, limit)) * jnp.minimum(x, limit),
    )
    added = offset.get("glu_linear_offset", layers.OFFSET)
    monkeypatch.setitem(layers.ACTIVATIONS, CLAMPED[1], lambda x: jnp.clip(x, -limit, limit) + added)
    parameters = {"limit": limit, "alpha": alpha, **offset}
    layer = layer_of(MLP, mode, activations=CLAMPED, activation_params=parameters, return_layernorm_output=returned)
    assert_computes(layer, where="clamped activation with parameters")


@modes
@pytest.mark.parametrize("first", ["silu", "sigmoid"])
@mlp_only
def test_order_of_the_names_of_a_gated_activation_does_not_count(first: str, mode: te.Autocast) -> None:
    """In BF16 and under a recipe alike, the first kernel is that of what is activated; in capitals or not.

    TE has a gate of ``silu`` in one function; that of ``sigmoid`` is made of two.
    """
    plain = find_subject(MLP).reference(layer_of(MLP, activations=(first, "linear")).case)
    layer = layer_of(MLP, mode, plain, activations=("Linear", first))
    assert_computes(layer, where=f"linear x {first}")


@mlp_only
def test_function_as_an_activation_is_applied() -> None:
    layer, named = (layer_of(MLP, activations=(which,)) for which in (jax.nn.relu, "relu"))
    variables, given = named.variables(), (named.inputs(), named.grads())
    found, wanted = step(layer, variables, *given), step(named, variables, *given)
    assert_trees_equal(where="function as an activation", actual=found.y, expected=wanted.y)


# --- dropout -------------------------------------------------------------------------------------------------------


def active_of(rate: float, seed: int = 3, **fields: Any) -> Any:
    """What an MLP hands to its second product, whose kernel is the identity here; never zero but where dropped."""
    deterministic = fields.pop("deterministic", False)
    rng_name = fields.get("intermediate_dropout_rng_name", "dropout")
    mode = fields.pop("mode", BF16)
    fields = {"activations": ("sigmoid",), "intermediate_dim": 48, **fields}
    layer = layer_of(MLP, mode, intermediate_dropout_rate=rate, **fields)
    variables = layer.variables()
    variables["params"]["wo_kernel"] = on_device(np.eye(48))

    @jax.jit
    def run(variables: Any, x: jax.Array, key: jax.Array) -> jax.Array:
        with mode():
            y, _ = layer.module.apply(variables, x, deterministic=deterministic, rngs={rng_name: key})
        return y

    return np.asarray(run(variables, layer.inputs()["x"], jax.random.key(seed)), np.float64)


@mlp_only
def test_dropout_leaves_out_its_share_and_scales_the_rest() -> None:
    rate = 0.25
    whole, found = active_of(0.0), active_of(rate)
    kept = found != 0
    share = kept.mean()
    error = 5 * (rate * (1 - rate) / kept.size) ** 0.5
    assert abs(share - (1 - rate)) <= error, f"share that is kept={share:.4f}, but should be {1 - rate} +- {error:.4f}"
    np.testing.assert_allclose(found[kept], whole[kept] / (1 - rate), rtol=2.0**-7)
    assert_equal(where="deterministic", actual=active_of(rate, deterministic=True), expected=whole)
    assert_equal(where="the same key", actual=active_of(rate), expected=found)
    assert not np.array_equal(active_of(rate, seed=4), found), "another key drops the same"


@pytest.mark.recipe("DelayedScaling")
@mlp_only
def test_dropout_leaves_out_the_same_under_a_recipe() -> None:
    """With an activation that is one function with the rest of the layer where nothing is dropped."""
    dropped = active_of(0.25) == 0
    found = active_of(0.25, mode=DELAYED, activations=("gelu",))
    assert_equal(where="what is left out", actual=found[dropped], expected=np.zeros(dropped.sum()))


@mlp_only
def test_dropout_shares_its_mask_over_the_given_axes_and_takes_its_key_by_name() -> None:
    found = active_of(0.5, intermediate_hidden_dropout_dims=(-2,), intermediate_dropout_rng_name="mine") != 0
    assert (found == found[:, :1]).all(), "rows of an example have different masks"
    assert not (found == found[:1]).all(), "Control: examples have masks of their own"


# --- what is checkpointed, and how rows lie ------------------------------------------------------------------------


def named_values(layer: Layer) -> list[tuple[str, str]]:
    """Name and dtype of what a step names for checkpointing."""
    program = jax.make_jaxpr(functools.partial(step, layer))(layer.variables(), layer.inputs(), layer.grads())
    return [(e.params["name"], str(e.invars[0].aval.dtype)) for e in equations(program, "name")]


@pytest.mark.parametrize(
    "mode",
    [
        pytest.param(DELAYED, marks=pytest.mark.recipe("DelayedScaling"), id="delayed"),
        pytest.param(CURRENT, marks=pytest.mark.recipe("Float8CurrentScaling"), id="current"),
        pytest.param(MXFP8, marks=pytest.mark.recipe("MXFP8BlockScaling"), id="mxfp8"),
        pytest.param(NVFP4, marks=pytest.mark.recipe("NVFP4BlockScaling"), id="nvfp4"),
    ],
)
@fused_layers
def test_checkpoint_name_marks_the_quantized_operands(name: str, mode: te.Autocast) -> None:
    silent, layer = (
        dataclasses.replace(made, case=dataclasses.replace(made.case, inputs={"x": (4, 32, 64)}))
        for made in (layer_of(name, mode), layer_of(name, mode, quantization_checkpoint_name="mine"))
    )
    found = Counter(value for value in named_values(layer) if "mine" in value)
    operands = [
        count
        for (_, dtype), count in found.items()
        if jaxprs.is_quantized(dtype) and (mode is not NVFP4 or "float4" in dtype)  # whose scales are float8
    ]
    products = len(layer.products)
    assert sum(operands) == 2 * products, f"named={dict(found)}, but should be both operands of {products} products"
    unnamed = [value for value in named_values(silent) if jaxprs.is_quantized(value[1])]
    assert not unnamed, f"{name}: named={unnamed}, but should be none by default"


@modes
@mlp_only
def test_products_of_the_mlp_have_their_checkpoint_names(mode: te.Autocast) -> None:
    renamed: dict[str, Any] = {"ffn1_ckpt_name": "a", "ffn2_ckpt_name": "b"}
    for fields, names in (({}, {"ffn1", "ffn2"}), (renamed, {"a", "b"})):
        found = set(named_values(layer_of(MLP, mode, **fields)))
        expected = {(which, "bfloat16") for which in names}
        assert found == expected, f"named values={sorted(found)}, but should be {sorted(expected)}"


@modes
@fused_layers
def test_transposed_batch_and_sequence_change_no_result_on_one_device(name: str, mode: te.Autocast) -> None:
    layer, other = (layer_of(name, mode, transpose_batch_sequence=transposed) for transposed in (False, True))
    given = layer.variables(), layer.inputs(), layer.grads()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="transpose_batch_sequence is not well tested")
        warnings.filterwarnings("ignore", message=".*does not officially support sequence-first inputs")  # 2.6
        found = step(other, *given)
    assert_trees_equal(where=name, actual=found._asdict(), expected=step(layer, *given)._asdict())


# --- what is refused -----------------------------------------------------------------------------------------------

REFUSED: dict[str, dict[str, Any]] = {
    "another kind of norm": {"layernorm_type": "batchnorm"},
    "RMS norm around one": {"layernorm_type": "rmsnorm", "zero_centered_gamma": True},
}


@pytest.mark.parametrize("which", REFUSED)
@every_layer
def test_norms_that_there_are_not_are_refused(name: str, which: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        layer_of(name, **REFUSED[which]).shapes  # noqa: B018 - made when asked for


@fused_layers
def test_contraction_of_other_axes_is_refused(name: str) -> None:
    with pytest.raises(AssertionError, match="Only support axis"):
        layer_of(name, axis=0).shapes  # noqa: B018


@pytest.mark.te_name("flax", "make_dot_general_cls")
def test_axes_of_a_batch_are_refused_by_a_wrapped_dot_general() -> None:
    """They would be contracted with the others, or passed over."""
    module = name_of_te("flax", "make_dot_general_cls")(te.make_recipe(RecipeConfig("Float8CurrentScaling")))()
    pairs = on_device(np.ones((2, 16, 32)), "bfloat16"), on_device(np.ones((2, 32, 16)), "bfloat16")
    with pytest.raises(AssertionError, match="Batch dimensions"):
        module.init(jax.random.key(0), *pairs, (((2,), (1,)), ((0,), (0,))))


@mlp_only
def test_unknown_activation_is_refused() -> None:
    with pytest.raises((AttributeError, ValueError, KeyError)):
        layer_of(MLP, activations=("no such function",)).shapes  # noqa: B018
