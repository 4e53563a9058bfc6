"""``TransformerLayer``: attention and an MLP, each with a residual; a decoder's asks an encoder in between."""

from collections.abc import Mapping
from typing import Any

import jax

from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.oracle import layers
from mnist_fp8.oracle.arithmetic import Arithmetic, Params, Reference
from mnist_fp8.subjects import layernorm_mlp, multi_head_attention
from mnist_fp8.subjects.layernorm import normalised, scale_and_bias
from mnist_fp8.subjects.making import flax_layer, name_of_te
from mnist_fp8.subjects.multi_head_attention import (
    ENCODED,
    FSDP,
    HEADS,
    JOINED,
    NO_SHARD,
    ROTARY,
    SIZE,
    TP,
    Called,
    X,
    admitted,
    attended,
    padding,
)
from mnist_fp8.subjects.subject import Case, InnerProduct, Parameter, Subject


def _case(name: str, *, decoder: bool = False, arguments: Mapping[str, Any] | None = None, **fields: Any) -> Case:  # noqa: ANN401
    plain = {
        "hidden_size": HEADS * SIZE,
        "mlp_hidden_size": 2 * HEADS * SIZE,
        "num_attention_heads": HEADS,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "intermediate_dropout": 0.0,
        "mlp_activations": ("gelu",),
        "self_attn_mask_type": "causal",
        "enable_relative_embedding": False,
        "scale_attn_logits": True,
    }
    inputs = {"x": X}
    if decoder:
        inputs = {"x": X, "encoded": ENCODED}
        arguments = {"encoder_decoder_mask": padding(12, 5, keys=ENCODED[1]), **(arguments or {})}
        fields = {"layer_type": "DECODER", **fields}
    return Case(name, {**plain, **fields}, inputs, arguments or {})


CASES = (
    _case("encoder"),
    _case(
        "grouped heads, rotary, gated",
        layernorm_type="rmsnorm",
        num_gqa_groups=2,
        mlp_activations=("silu", "linear"),
        **ROTARY,
    ),
    _case(
        "padded, layer norm of the output",
        self_attn_mask_type="padding",
        arguments={"attention_mask": padding(16, 9, keys=X[1])},
        fuse_qkv_params=False,
        output_layernorm=True,
        layernorm_epsilon=1e-2,
        zero_centered_gamma=True,
    ),
    _case(
        "relative embedding, residuals after the layer norm",
        enable_relative_embedding=True,
        self_attn_mask_type="no_mask",
        apply_residual_connection_post_layernorm=True,
        use_bias=True,
    ),
    _case("decoder, relative embedding", decoder=True, enable_relative_embedding=True),
)


def _make(case: Case, _recipe: RecipeConfig | None) -> Any:  # noqa: ANN401
    fields = dict(case.fields)
    if "layer_type" in fields:
        fields["layer_type"] = getattr(name_of_te("flax", "TransformerLayerType"), fields["layer_type"])
    return Called(flax_layer("TransformerLayer", **fields))


def _decodes(case: Case) -> bool:
    return "encoded" in case.inputs


_SHARED = (
    "num_attention_heads",
    "num_gqa_groups",
    "layernorm_type",
    "layernorm_epsilon",
    "zero_centered_gamma",
    "use_bias",
    "fuse_qkv_params",
    "scale_attn_logits",
    "softmax_type",
    "rotary_pos_emb_windows",
    *ROTARY,
)
"""Fields that the layer hands to its attention."""
_RENAMED = {"float32_attention_logits": "float32_logits", "self_attn_bias_type": "attn_bias_type"}
"""Those that it calls otherwise."""


def _attention(case: Case) -> Case:
    fields = {_RENAMED.get(name, name): case.fields[name] for name in (*_SHARED, *_RENAMED) if name in case.fields}
    normalises = not case.fields.get("output_layernorm", False)
    size = case.fields["hidden_size"] // case.fields["num_attention_heads"]
    own = {"head_dim": size, "input_layernorm": normalises, "return_layernorm_output": _post(case)}
    return Case("attention", {**fields, **own}, {})


def _crossing(case: Case) -> Case:
    own = _attention(case)
    return Case("crossing", {**own.fields, "input_layernorm": True}, {})


def _mlp(case: Case) -> Case:
    fields = {
        "activations": case.fields["mlp_activations"],
        "intermediate_dim": case.fields["mlp_hidden_size"],
        "use_bias": case.fields.get("use_bias", False),
        "return_layernorm_output": _post(case),
        "zero_centered_gamma": case.fields.get("zero_centered_gamma", False),
        "epsilon": case.fields.get("layernorm_epsilon", layers.EPSILON),
    }
    return Case("mlp", fields, {})


def _post(case: Case) -> bool:
    return bool(case.fields.get("apply_residual_connection_post_layernorm", False))


def _products(case: Case) -> tuple[InnerProduct, ...]:
    own = "self_attention" if _decodes(case) else "attention"
    crossing = "encoder_decoder_attention"
    return (
        *multi_head_attention.products(_attention(case), (own,)),
        *(multi_head_attention.products(_crossing(case), (crossing,), asks_itself=False) if _decodes(case) else ()),
        *layernorm_mlp.products(_mlp(case), ("mlp",)),
    )


def _parameters(case: Case) -> dict[str, Parameter]:
    width = case.fields["hidden_size"]
    norm = scale_and_bias(case.fields, width, NO_SHARD)
    parts_of: dict[str, Mapping[str, Parameter]] = {
        "self_attention" if _decodes(case) else "attention": multi_head_attention.parameters(
            _attention(case), asks_itself=True
        ),
        "mlp": {**norm, **layernorm_mlp.mlp_parameters(_mlp(case), width, (FSDP, JOINED, TP), NO_SHARD)},
    }
    if _decodes(case):
        parts_of["encoder_decoder_attention"] = multi_head_attention.parameters(_crossing(case), asks_itself=False)
    if case.fields.get("output_layernorm", False):
        parts_of["output_layernorm"] = norm
    if case.fields["enable_relative_embedding"]:
        parts_of["relpos_bias"] = {"rel_embedding": Parameter((HEADS, 32), ("heads", "relpos_buckets"))}
    return {f"{part}/{name}": each for part, of in parts_of.items() for name, each in of.items()}


def _reference(case: Case) -> Reference:
    def reference(arithmetic: Arithmetic, params: Params, inputs: Mapping[str, jax.Array]) -> jax.Array:
        x = _own(case, arithmetic, params, inputs["x"])
        if _decodes(case):
            x = _crossed(case, arithmetic, params, x, inputs["encoded"])
        y, normal = layernorm_mlp.mlp(_mlp(case), arithmetic, params["mlp"], arithmetic.stored(x), "mlp/")
        y = arithmetic.stored(arithmetic.stored(y) + (normal if _post(case) else x))
        return normalised(_mlp(case), arithmetic, params["output_layernorm"], y) if "output_layernorm" in params else y

    return reference


def _own(case: Case, arithmetic: Arithmetic, params: Params, x: jax.Array) -> jax.Array:
    name, length = "self_attention" if _decodes(case) else "attention", x.shape[1]
    bias = None
    if "relpos_bias" in params:
        buckets = layers.relative_buckets(length, length, buckets=32, furthest=128, both_sides=not _decodes(case))
        bias = params["relpos_bias"]["rel_embedding"][None, :, buckets]
    window = case.fields.get("window_size")
    allowed = admitted(case.fields["self_attn_mask_type"], case.arguments.get("attention_mask"), window)
    y, normal = attended(_attention(case), arithmetic, params[name], x, allowed=allowed, bias=bias, prefix=f"{name}/")
    return arithmetic.stored(y + (normal if _post(case) else x))


def _crossed(case: Case, arithmetic: Arithmetic, params: Params, x: jax.Array, encoded: jax.Array) -> jax.Array:
    name = "encoder_decoder_attention"
    allowed = admitted("padding", case.arguments["encoder_decoder_mask"], case.fields.get("window_size"))
    y, normal = attended(_crossing(case), arithmetic, params[name], x, encoded, allowed=allowed, prefix=f"{name}/")
    return arithmetic.stored(y + (normal if _post(case) else x))


SUBJECT = Subject(
    name="TransformerLayer",
    cases=CASES,
    make=_make,
    reference=_reference,
    products=_products,
    parameters=_parameters,
    attends=True,
    flips=4.0,  # seen: 1.1
    recorded=("grouped heads, rotary, gated", "decoder, relative embedding"),
    plain=lambda case: 4 if _decodes(case) else 2,
)
