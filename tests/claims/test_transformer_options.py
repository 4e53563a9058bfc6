"""Claim: options of MultiHeadAttention and TransformerLayer reach the layers inside that they are documented for.

Both have options for attention, its projections and the MLP, and hand them on: to each attention of a decoder as well.
What an option does is the matter of other claims; here is that it is done.

What a failure means for an upgrade: an option is accepted, and the model computes what it does without it.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mnist_fp8 import te
from mnist_fp8.oracle import layers
from mnist_fp8.subjects import find_subject
from mnist_fp8.subjects.layer import Layer
from mnist_fp8.subjects.making import name_of_te
from mnist_fp8.subjects.multi_head_attention import HEADS
from mnist_fp8.te.dense_step import BF16
from support.assertions import assert_close_norm, assert_equal
from support.layers import DELAYED, defined, paths, short_variables
from support.programs import equations

ENCODER, DECODER = "encoder", "decoder, relative embedding"
LAYERS = {
    "encoder": ("TransformerLayer", ENCODER),
    "decoder": ("TransformerLayer", DECODER),
    "normalised output": ("TransformerLayer", "padded, layer norm of the output"),
    "attention": ("MultiHeadAttention", "asks itself"),
    "cross attention": ("MultiHeadAttention", "cross attention, padded"),
    "separate": ("MultiHeadAttention", "separate parameters"),
}
TOLERANCE = 2.0**-9
"""Largest relative norm of a difference in float32, products in TF32; without an option it is 0.05 and more."""


def layer_of(name: str, arguments: Any = None, mode: te.Autocast = BF16, **fields: Any) -> Layer:
    """A layer with some options more, and arguments of its call."""
    subject_name, case_name = LAYERS[name]
    subject = find_subject(subject_name)
    case = subject.case(case_name)
    given = {**case.arguments, **(arguments or {})}
    return Layer(subject, dataclasses.replace(case, fields={**case.fields, **fields}, arguments=given), mode)


def needs(*names: str) -> Any:
    """Parameter ``name`` of a test."""
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=pytest.mark.subject(*LAYERS[name]), id=name) for name in names]
    )


def computed(layer: Layer, variables: Any, inputs: Any) -> Any:
    """Outputs."""
    with layer.entered(), jax.default_matmul_precision("highest"):
        return jax.jit(layer.apply)(variables, inputs)


def assert_computes(layer: Layer, *, where: str, tolerance: float = TOLERANCE, first: str = "batch") -> None:
    """Compare the output of an input in float32 with that of the definition, which takes the batch first."""
    __tracebackhide__ = True
    variables, inputs = short_variables(layer), layer.inputs(dtype="float32")
    found = _batch_first(computed(layer, variables, inputs)[0], first)
    expected = defined(layer, variables, {name: _batch_first(x, first) for name, x in inputs.items()})
    assert_close_norm(where=where, actual=found, expected=expected, tolerance=tolerance)


def _batch_first(x: jax.Array, first: str) -> jax.Array:
    return jnp.swapaxes(x, 0, 1) if first == "sequence" else x


OPTIONS: dict[str, dict[str, Any]] = {
    "window": {"window_size": (4, 0)},
    "rotary": {
        "enable_rotary_pos_emb": True,
        "rotary_pos_emb_group_method": "alternate",
        "rotary_pos_emb_windows": (3, 30),
    },
    "bias before scaling": {"enable_relative_embedding": True, "self_attn_bias_type": "pre_scale_bias"},
    "softmax": {"softmax_type": "off_by_one"},
}


NORMS: dict[str, dict[str, Any]] = {
    "epsilon and kind": {"layernorm_type": "rmsnorm", "layernorm_epsilon": 0.75},
    "residual after the norm": {"apply_residual_connection_post_layernorm": True},
}


FUTURE = {"attention_mask": np.triu(np.ones((2, 1, 32, 32), np.uint8), 1)}
"""What a causal layer hides. Without a mask, a window is not looked at, nor is causality before 2.3."""


@needs("encoder", "decoder")
@pytest.mark.parametrize("option", OPTIONS)
def test_option_of_a_transformer_layer_reaches_its_attention(name: str, option: str) -> None:
    assert_computes(layer_of(name, FUTURE, **OPTIONS[option]), where=f"{name}, {option}")


@pytest.mark.host  # Not tried on kernels yet.
@pytest.mark.parametrize(
    ("option", "name"),
    [
        pytest.param(option, name, id=f"{option}-{name}", marks=pytest.mark.subject(*LAYERS[name]))
        for option in NORMS
        for name in ("encoder", "decoder", "normalised output")
        # The attention of the last normalises nothing that could be added.
        if "residual" not in option or name != "normalised output"
    ],
)
def test_option_of_a_transformer_layer_reaches_all_of_its_norms(name: str, option: str) -> None:
    layer = layer_of(name, **{"zero_centered_gamma": False, **NORMS[option]})
    biased = [path for path in paths(layer.shapes["params"]) if path.endswith("ln_bias")]
    assert not biased or "kind" not in option, f"{name}: {biased} are not of an RMS norm"
    assert_computes(layer, where=f"{name}, {option}")


@pytest.mark.filterwarnings("ignore:transpose_batch_sequence is not well tested")
@pytest.mark.filterwarnings("ignore:.*does not officially support sequence-first inputs")  # 2.6
@needs("encoder", "decoder", "separate")
def test_inputs_may_come_sequence_first(name: str) -> None:
    """Rotary embeddings, masks and relative positions count tokens then, and not examples."""
    fields = {**OPTIONS["rotary"], "transpose_batch_sequence": True}
    layer = layer_of(name, None if name == "separate" else FUTURE, **fields)
    turned = dataclasses.replace(layer.case, inputs={key: _turned(shape) for key, shape in layer.case.inputs.items()})
    assert_computes(dataclasses.replace(layer, case=turned), where=f"{name}, sequence first", first="sequence")


def _turned(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[1], shape[0], *shape[2:])


@pytest.mark.host
@needs("encoder", "decoder", "attention")
def test_logits_in_float32_reach_the_attention(name: str) -> None:
    """On JAX's path: the exponentials of each softmax are in float32 then, and in BF16 else."""
    field = "float32_logits" if name == "attention" else "float32_attention_logits"
    for wide, wanted in ((True, "float32"), (False, "bfloat16")):
        fields: dict[str, Any] = {field: wide}
        layer = layer_of(name, **fields)
        with layer.entered():
            program = jax.make_jaxpr(layer.apply)(layer.variables(), layer.inputs())
        found = {str(e.invars[0].aval.dtype) for e in equations(program, "exp")}
        assert found == {wanted}, f"{field}={wide}: exponentials in {found}, but should be in {wanted}"


CLAMPED = ("clamped_silu", "clamped_linear")


@pytest.mark.recipe("DelayedScaling")
@needs("encoder")
def test_parameters_of_an_activation_reach_the_mlp(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a recipe: in BF16, an MLP itself passes them over. An output in float8 is off by a twentieth."""
    limit, alpha = 0.5, 1.25
    silu = lambda x: jax.nn.sigmoid(alpha * jnp.minimum(x, limit)) * jnp.minimum(x, limit)  # noqa: E731
    linear = lambda x: jnp.clip(x, -limit, limit) + layers.OFFSET  # noqa: E731
    for part, function in zip(CLAMPED, (silu, linear), strict=True):
        monkeypatch.setitem(layers.ACTIVATIONS, part, function)
    fields = {"mlp_activations": CLAMPED, "mlp_activation_params": {"limit": limit, "alpha": alpha}}
    assert_computes(layer_of(name, mode=DELAYED, **fields), where="parameters of the activation", tolerance=0.2)


RANK = 4


@needs("encoder", "decoder", "separate")
def test_alpha_of_low_rank_adaptation_reaches_the_projections(name: str) -> None:
    """Twice alpha is twice the second matrix of each: what is added is alpha / rank * x A B."""
    scope: dict[str, Any] = {"low_rank_adaptation_scope": "exclude_mlp", "low_rank_adaptation_dim": RANK}
    once, twice = (layer_of(name, **scope, low_rank_adaptation_alpha=alpha) for alpha in (RANK, 2 * RANK))
    variables, inputs = once.variables(), once.inputs()
    adapted = [path for path in paths(variables["params"]) if path.endswith("lora_b_kernel")]
    assert adapted, "Control: something is adapted"
    doubled = jax.tree_util.tree_map_with_path(
        lambda path, leaf: 2 * leaf if "lora_b_kernel" in jax.tree_util.keystr(path) else leaf, variables
    )
    found, expected = computed(twice, variables, inputs), computed(once, doubled, inputs)
    assert_equal(where=f"{name}, twice alpha", actual=found[0], expected=expected[0])
    assert (found[0] != computed(once, variables, inputs)[0]).any(), "Control: alpha changes the output"


FIRST = {"mha_kernel_init": 0.25, "mlp_kernel_init": 0.5, "bias_init": 0.75}
"""What each initializer gives."""


def first_value(path: str) -> float | None:
    """The value that a parameter of a transformer layer begins with; none where another initializer decides."""
    if path.endswith("kernel"):
        return FIRST["mlp_kernel_init" if path.startswith("mlp/") else "mha_kernel_init"]
    return FIRST["bias_init"] if path.endswith("bias") and not path.endswith("ln_bias") else None


@needs("encoder", "decoder")
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "separate"])
def test_initializers_of_a_transformer_layer_reach_its_parameters(name: str, fused: bool) -> None:  # noqa: FBT001
    given = {field: nn.initializers.constant(value) for field, value in FIRST.items()}
    layer = layer_of(name, use_bias=True, scaled_query_init=False, fuse_qkv_params=fused, **given)
    found = paths(te.unbox(jax.jit(layer.init)(layer.inputs()))["params"])
    expected = {path: first_value(path) for path in found if not path.startswith("relpos_bias")}
    assert set(FIRST.values()) <= set(expected.values()), f"parameters={list(found)}"
    for path, value in expected.items():
        if value is not None:
            assert_equal(where=path, actual=found[path], expected=np.full(found[path].shape, value))


@needs("encoder", "decoder")
def test_relative_embedding_that_is_given_takes_the_place_of_the_usual_one(name: str) -> None:
    given = name_of_te("flax", "RelativePositionBiases")(num_buckets=8, max_distance=16, num_attention_heads=HEADS)
    found = paths(layer_of(name, enable_relative_embedding=True, relative_embedding=given).shapes["params"])
    shapes = {leaf.shape for path, leaf in found.items() if path.endswith("rel_embedding")}
    assert shapes == {(HEADS, 8)}, f"relative embeddings of {shapes}, but should be of {(HEADS, 8)}"


@needs("decoder", "normalised output", "separate")
def test_dtype_of_a_layer_is_that_of_all_its_parameters(name: str) -> None:
    found = paths(
        layer_of(name, dtype=jnp.bfloat16, use_bias=True, low_rank_adaptation_scope="exclude_mlp").shapes["params"]
    )
    wrong = {path: str(leaf.dtype) for path, leaf in found.items() if leaf.dtype != jnp.bfloat16}
    assert not wrong, f"{name} in BF16 has parameters of {wrong}"


SAVEABLE: dict[str, set[str]] = {
    "encoder": {"combined_qkv_proj", "out_proj", "ffn1", "ffn2"},
    "cross attention": {"combined_kv_proj", "out_proj"},
    "separate": {"query_proj", "key_proj", "value_proj", "out_proj"},
}
"""What policies of users name."""


@pytest.mark.host
@needs(*SAVEABLE)
def test_projections_and_logits_have_their_checkpoint_names(name: str) -> None:
    """On JAX's path also the logits, which a fused kernel does not have."""
    layer = layer_of(name)
    with layer.entered():
        program = jax.make_jaxpr(layer.apply)(layer.variables(), layer.inputs())
    found = {equation.params["name"] for equation in equations(program, "name")}
    assert found == {*SAVEABLE[name], "logits"}, f"{name}: checkpoint names={sorted(found)}"


ALIASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "num_heads": ({"num_heads": 2}, {"num_attention_heads": 2, "num_gqa_groups": 2}),
    "fuse_qkv": ({"fuse_qkv": False}, {"fuse_qkv_params": False}),
    "apply_residual_connection_post_layernorm": (
        {"apply_residual_connection_post_layernorm": True},
        {"return_layernorm_output": True},
    ),
}


@pytest.mark.parametrize("alias", ALIASES)
@needs("attention")
def test_former_name_of_an_option_warns_and_does_the_same(name: str, alias: str) -> None:
    former, today = ALIASES[alias]
    with pytest.warns(DeprecationWarning, match=f"{alias} is deprecated"):
        found = _shapes_of_all(layer_of(name, **former))
    assert found == _shapes_of_all(layer_of(name, **today)), f"{alias}: other parameters or outputs"


def _shapes_of_all(layer: Layer) -> Any:
    with layer.entered():
        outputs = jax.eval_shape(layer.apply, layer.variables(), layer.inputs())
    return {path: leaf.shape for path, leaf in paths(layer.shapes["params"]).items()}, [y.shape for y in outputs]


@pytest.mark.devices(2)
@needs("encoder", "decoder")
def test_sequence_is_divided_outside_of_products_where_that_is_asked_for(name: str) -> None:
    """``enable_sequence_parallel``: what norms, dropout and residuals take; nothing is divided so without it."""
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:2]), ("tpsp",))
    attentions = 1 if name == "encoder" else 2
    for asked, wanted in ((True, 5 * attentions + 4), (False, 0)):
        layer = layer_of(name, enable_sequence_parallel=asked)
        variables, inputs = layer.variables(), layer.inputs()
        with (
            te.mesh_context(mesh),
            te.Autocast(axes=("tpsp",))(),
            nn.logical_axis_rules(te.extend_logical_axis_rules()),
        ):
            program = jax.make_jaxpr(layer.apply)(variables, inputs)
        specs = [e.params["sharding"].spec for e in equations(program, "sharding_constraint")]
        found = sum(tuple(spec) == (None, "tpsp", None) for spec in specs)
        assert found == wanted, f"sequence parallelism={asked}: {found} divided tensors, but should be {wanted}"


REFUSED: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "an encoder that generates": ("encoder", {}, {"decode": True}),
    "a size that heads do not share": ("encoder", {"hidden_size": 63}, {}),
    "dropout along an axis that there is not": ("encoder", {"hidden_dropout": 0.5, "hidden_dropout_dims": (3,)}, {}),
    "an unknown scope of low rank adaptation": ("encoder", {"low_rank_adaptation_scope": "attention"}, {}),
    "an unknown group of rotary embeddings": (
        "attention",
        {"enable_rotary_pos_emb": True, "rotary_pos_emb_group_method": "paired"},
        {},
    ),
}
"""The layer, its fields and the arguments of its call, by what is wrong."""


@pytest.mark.parametrize(
    "wrong", [pytest.param(wrong, marks=pytest.mark.subject(*LAYERS[name])) for wrong, (name, _, _) in REFUSED.items()]
)
def test_option_that_means_nothing_is_refused(wrong: str) -> None:
    name, fields, arguments = REFUSED[wrong]
    layer = layer_of(name, arguments, **fields)
    with pytest.raises(AssertionError):
        layer.shapes  # noqa: B018 - made when asked for
