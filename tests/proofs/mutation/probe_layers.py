"""What can be seen of the other layers of Transformer Engine from outside; see `probe`."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mnist_fp8 import te
from mnist_fp8.core.modes import RecipeConfig
from proofs.mutation.probe_values import tried

MODES: dict[str, RecipeConfig | None] = {
    "bf16": None,
    "delayed": RecipeConfig(amax_history_len=3),
    "current": RecipeConfig("Float8CurrentScaling"),
}


@dataclasses.dataclass(frozen=True)
class _Look:
    """A layer to look at.

    Attributes:
        layer: its name in ``transformer_engine.jax.flax``.
        fields: of the layer.
        shapes: of the inputs.
        arguments: other arguments of the call.
        modes: in which to look at it.
        dtype: of the inputs.
    """

    layer: str
    fields: Mapping[str, Any]
    shapes: tuple[tuple[int, ...], ...] = ((2, 16, 32),)
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    modes: tuple[str, ...] = tuple(MODES)
    dtype: str = "bfloat16"


_BF16 = ("bf16",)
_QKV = ((2, 8, 4, 16),) * 3
_MASK = np.triu(np.ones((2, 1, 8, 8), np.uint8), 1)
_PADDING = np.zeros((2, 1, 8, 8), np.uint8)
_PADDING[0, ..., 5:] = 1


def _dense(**fields: Any) -> dict[str, Any]:
    return {"features": 16, **fields}


def _mlp(**fields: Any) -> dict[str, Any]:
    return {"intermediate_dim": 32, **fields}


def _attention(**fields: Any) -> dict[str, Any]:
    return {"head_dim": 16, "num_attention_heads": 4, **fields}


def _transformer(**fields: Any) -> dict[str, Any]:
    sizes = {"hidden_size": 32, "mlp_hidden_size": 64, "num_attention_heads": 4}
    still = {"hidden_dropout": 0.0, "attention_dropout": 0.0, "intermediate_dropout": 0.0}
    return {**sizes, **still, "enable_relative_embedding": False, **fields}


_RMS = {"layernorm_type": "rmsnorm"}
_CENTRED = {"zero_centered_gamma": True}
_DETERMINISTIC = {"deterministic": True}
_TWICE = ((2, 8, 32), (2, 8, 32))

LOOKS: dict[str, _Look] = {
    "layer norm": _Look("LayerNorm", {}, modes=_BF16),
    "layer norm around one": _Look("LayerNorm", _CENTRED, modes=_BF16),
    "rms norm": _Look("LayerNorm", {**_RMS, "epsilon": 0.01}, modes=_BF16),
    "rms norm, float32": _Look("LayerNorm", _RMS, modes=_BF16, dtype="float32"),
    "norm and dense": _Look("LayerNormDenseGeneral", _dense()),
    "norm and dense, bias": _Look("LayerNormDenseGeneral", _dense(use_bias=True, **_CENTRED)),
    "norm and dense, rms": _Look("LayerNormDenseGeneral", _dense(features=(2, 8), **_RMS)),
    "norm and dense, both": _Look("LayerNormDenseGeneral", _dense(return_layernorm_output=True)),
    "norm and dense, no norm": _Look("LayerNormDenseGeneral", _dense(enable_layernorm=False)),
    "norm and dense, depth": _Look("LayerNormDenseGeneral", _dense(depth_scaling=3.0)),
    "norm and dense, low rank": _Look(
        "LayerNormDenseGeneral",
        _dense(enable_low_rank_adaptation=True, low_rank_adaptation_dim=4, low_rank_adaptation_alpha=8.0),
    ),
    "norm and dense, defaults": _Look("LayerNormDenseGeneral", {"features": 16}),
    "mlp": _Look("LayerNormMLP", _mlp()),
    "mlp, swiglu": _Look("LayerNormMLP", _mlp(activations=("silu", "linear"), use_bias=True)),
    "mlp, turned": _Look("LayerNormMLP", _mlp(activations=("linear", "gelu"), **_RMS)),
    "mlp, composed": _Look("LayerNormMLP", _mlp(activations=("sigmoid", "linear"))),
    "mlp, both": _Look("LayerNormMLP", _mlp(return_layernorm_output=True, use_bias=True, **_CENTRED)),
    "mlp, no norm": _Look("LayerNormMLP", _mlp(enable_layernorm=False, activations=("relu",))),
    "mlp, clamped": _Look(
        "LayerNormMLP",
        _mlp(
            activations=("clamped_silu", "clamped_linear"),
            activation_params={"limit": 0.75, "alpha": 1.5},
        ),
    ),
    "mlp, dropout": _Look("LayerNormMLP", _mlp(intermediate_dropout_rate=0.5)),
    "mlp, low rank": _Look("LayerNormMLP", _mlp(enable_low_rank_adaptation=True)),
    **{
        f"mlp, {name}": _Look("LayerNormMLP", _mlp(activations=names), modes=("bf16", "current"))
        for name, names in {
            "silu": ("silu",),
            "quick": ("quick_gelu",),
            "squared": ("squared_relu",),
            "reglu": ("relu", "linear"),
        }.items()
    },
    **{
        f"attention, {mask}": _Look(
            "DotProductAttention",
            _attention(attn_mask_type=mask),
            _QKV,
            {**_DETERMINISTIC, **({"sequence_descriptor": _PADDING} if "padding" in mask else {})},
            modes=_BF16,
        )
        for mask in ("no_mask", "causal", "padding", "padding_causal")
    },
    "attention, masked": _Look(
        "DotProductAttention",
        _attention(attn_mask_type="padding"),
        _QKV,
        {**_DETERMINISTIC, "sequence_descriptor": _MASK},
        modes=_BF16,
    ),
    "attention, window": _Look(
        "DotProductAttention",
        _attention(window_size=(2, 0)),
        _QKV,
        {**_DETERMINISTIC, "sequence_descriptor": _MASK},
        modes=_BF16,
    ),
    "attention, groups": _Look(
        "DotProductAttention",
        _attention(num_gqa_groups=2, attn_mask_type="no_mask"),
        (_QKV[0], (2, 8, 2, 16), (2, 8, 2, 16)),
        _DETERMINISTIC,
        modes=_BF16,
    ),
    **{
        f"attention, {bias}": _Look(
            "DotProductAttention",
            _attention(attn_bias_type=bias),
            _QKV,
            {**_DETERMINISTIC, "bias": np.linspace(-1, 1, 256, dtype=np.float32).reshape(1, 4, 8, 8)},
            modes=_BF16,
        )
        for bias in ("pre_scale_bias", "post_scale_bias")
    },
    **{
        f"attention, {kind}": _Look(
            "DotProductAttention", _attention(softmax_type=kind), _QKV, _DETERMINISTIC, modes=_BF16
        )
        for kind in ("off_by_one", "learnable")
    },
    "attention, dropout": _Look("DotProductAttention", _attention(attention_dropout=0.5), _QKV, modes=_BF16),
    "attention, sequence first": _Look(
        "DotProductAttention", _attention(transpose_batch_sequence=True), _QKV, _DETERMINISTIC, modes=_BF16
    ),
    "attention, float32 logits": _Look(
        "DotProductAttention", _attention(float32_logits=True, scale_factor=0.5), _QKV, _DETERMINISTIC, modes=_BF16
    ),
    "attention, packed": _Look(
        "DotProductAttention",
        _attention(qkv_layout="bs3hd"),
        ((2, 8, 3, 4, 16),),
        {"key": None, "value": None, **_DETERMINISTIC},
        modes=_BF16,
    ),
    "multi-head": _Look("MultiHeadAttention", _attention(head_dim=8), _TWICE, _DETERMINISTIC),
    "multi-head, rotary": _Look(
        "MultiHeadAttention",
        _attention(head_dim=8, enable_rotary_pos_emb=True, num_gqa_groups=2, use_bias=True, **_RMS),
        _TWICE,
        _DETERMINISTIC,
        modes=_BF16,
    ),
    "multi-head, alternate": _Look(
        "MultiHeadAttention",
        _attention(
            head_dim=8, enable_rotary_pos_emb=True, rotary_pos_emb_group_method="alternate", fuse_qkv_params=False
        ),
        _TWICE,
        _DETERMINISTIC,
        modes=("bf16", "current"),
    ),
    "multi-head, plain": _Look(
        "MultiHeadAttention",
        _attention(head_dim=8, input_layernorm=False, scale_attn_logits=True, scaled_query_init=False),
        _TWICE,
        _DETERMINISTIC,
        modes=_BF16,
    ),
    "multi-head, normalised as well": _Look(
        "MultiHeadAttention",
        _attention(head_dim=8, return_layernorm_output=True, low_rank_adaptation_scope="all"),
        _TWICE,
        _DETERMINISTIC,
        modes=_BF16,
    ),
    "transformer": _Look("TransformerLayer", _transformer(), ((2, 8, 32),), _DETERMINISTIC),
    "transformer, post": _Look(
        "TransformerLayer",
        _transformer(apply_residual_connection_post_layernorm=True, output_layernorm=True, use_bias=True, **_RMS),
        ((2, 8, 32),),
        _DETERMINISTIC,
        modes=_BF16,
    ),
    "transformer, relative": _Look(
        "TransformerLayer", _transformer(enable_relative_embedding=True), ((2, 8, 32),), _DETERMINISTIC, modes=_BF16
    ),
    "transformer, dropout": _Look(
        "TransformerLayer",
        _transformer(hidden_dropout=0.25, attention_dropout=0.25, drop_path=0.5, mlp_activations=("silu", "linear")),
        ((2, 8, 32),),
        modes=_BF16,
    ),
    "transformer, defaults": _Look(
        "TransformerLayer",
        {"hidden_size": 32, "mlp_hidden_size": 32, "num_attention_heads": 4},
        ((2, 8, 32),),
        modes=_BF16,
    ),
}


def scenarios() -> Iterator[tuple[str, Callable[[], Any]]]:
    """What to look at, by name."""
    for name, look in LOOKS.items():
        for mode in look.modes:
            yield f"{name}, {mode}", partial(_steps, look, mode)
    yield "decoder", _decoder
    yield "relative biases", _relative
    yield "sequences", _sequences
    yield "functions", _functions
    for axis in ("dp", "fsdp", "tp", "tpsp"):
        yield f"mlp over two devices, {axis}", partial(_two_devices, axis)
    yield "fields", _fields


def _values(shape: tuple[int, ...], dtype: str, seed: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(0, 1, shape), dtype)


def _rngs() -> dict[str, jax.Array]:
    return {name: jax.random.key(number) for number, name in enumerate(("params", "dropout", "droppath"))}


def _steps(look: _Look, mode: str) -> Any:
    """Initial variables with their boxes, and two steps in which the metadata move on."""
    module = getattr(te.engine().module.flax, look.layer)(**look.fields)
    arguments = {k: jnp.asarray(v) if isinstance(v, np.ndarray) else v for k, v in look.arguments.items()}
    name = te.metadata_collection()
    seen: list[Any] = []
    with te.Autocast(MODES[mode])():
        inputs = [_values(shape, look.dtype, number) for number, shape in enumerate(look.shapes)]
        boxed = jax.jit(partial(module.init, **_static(arguments)))(_rngs(), *inputs, **_arrays(arguments))
        variables = te.unbox(boxed)
        seen += [str(jax.tree_util.tree_structure(boxed)), variables]
        variables = {**variables, "params": jax.tree.map(lambda p: p + 0.125, variables.get("params", {}))}
        step = jax.jit(partial(_step, module, _static(arguments)))
        for number in range(2 if mode != "bf16" else 1):
            inputs = [_values(shape, look.dtype, 7 * number + place) for place, shape in enumerate(look.shapes)]
            seen.append(step(variables, inputs, _arrays(arguments)))
            grads = seen[-1][1]
            variables = variables | ({name: grads[name]} if name in grads else {})
    return seen


def _arrays(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if hasattr(value, "dtype")}


def _static(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if not hasattr(value, "dtype")}


def _step(module: Any, static: Any, variables: Any, inputs: Any, arrays: Any) -> Any:
    def run(variables: Any, inputs: Any) -> Any:
        return module.apply(variables, *inputs, rngs=_rngs(), **static, **arrays)

    y, pull_back = jax.vjp(run, variables, inputs)
    grads, dx = pull_back(jax.tree.map(_waves, y))
    return y, grads, dx


def _waves(leaf: jax.Array) -> jax.Array:
    return jnp.cos(jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape)


def _decoder() -> Any:
    flax = te.engine().module.flax
    module = flax.TransformerLayer(**_transformer(layer_type=flax.TransformerLayerType.DECODER, num_gqa_groups=2))
    x, encoded = _values((2, 8, 32), "bfloat16", 0), _values((2, 4, 32), "bfloat16", 1)
    mask = jnp.asarray(np.triu(np.ones((2, 1, 8, 8), np.uint8), 1))
    cross = jnp.zeros((2, 1, 8, 4), jnp.uint8).at[0, :, :, 3].set(1)

    def run(variables: Any, x: jax.Array) -> Any:
        return module.apply(variables, x, encoded, attention_mask=mask, encoder_decoder_mask=cross, deterministic=True)

    variables = te.unbox(module.init(_rngs(), x, encoded, attention_mask=mask, encoder_decoder_mask=cross))
    y, pull_back = jax.jit(partial(jax.vjp, run))(variables, x)
    return y, pull_back(y), variables


def _relative() -> Any:
    biases = te.engine().module.flax.RelativePositionBiases
    seen = []
    for both_ways in (True, False):
        module = biases(num_buckets=8, max_distance=12, num_attention_heads=2)
        variables = module.init(jax.random.key(0), 16, 20, both_ways)
        seen.append((te.unbox(variables), module.apply(variables, 16, 20, both_ways)))
    return seen


def _sequences() -> Any:
    attention = te.engine().module.attention
    descriptor = attention.SequenceDescriptor
    lengths = jnp.array([5, 8], jnp.int32)
    ids = jnp.array([[1, 1, 1, 2, 2, 0, 0, 0], [1, 2, 2, 3, 3, 3, 3, 0]], jnp.int32)
    positions = jnp.array([[0, 1, 2, 0, 1, 0, 0, 0], [0, 0, 1, 0, 1, 2, 3, 0]], jnp.int32)
    made = {
        "lengths": lambda: descriptor.from_seqlens(lengths),
        "two lengths": lambda: descriptor.from_seqlens((lengths, lengths - 1)),
        "offsets": lambda: descriptor.from_seqlens_and_offsets(
            jnp.array([[3, 2], [4, 3]]), jnp.array([[0, 3, 5], [0, 4, 7]])
        ),
        "ids and positions": lambda: descriptor.from_segment_ids_and_pos(ids, positions),
        "pairs": lambda: descriptor.from_segment_ids_and_pos((ids, ids), (positions, positions)),
    }
    masks, layouts = attention.AttnMaskType, attention.QKVLayout
    seen: list[Any] = []
    for make in made.values():
        one = tried(make)
        seen.append(jax.tree.leaves(one))
        seen += [
            tried(partial(one.get_seqlens_and_offsets, mask, layout, window, 3))
            for mask in (masks.PADDING_MASK, masks.PADDING_CAUSAL_MASK, masks.PADDING_CAUSAL_BOTTOM_RIGHT_MASK)
            for layout in (layouts.BSHD_BSHD_BSHD, layouts.THD_THD_THD)
            for window in ((-1, -1), (2, 0))
            if not isinstance(one, str)
        ]
    windows = ((1, 0), (2, 1), (-1, -1), (3, -1))
    seen += [attention.make_swa_mask(positions, positions, window, jnp.float32) for window in windows]
    tensor = jnp.arange(64.0).reshape(2, 16, 2)
    functions = attention.reorder_causal_load_balancing, attention.inverse_reorder_causal_load_balancing
    seen += [tried(partial(f, tensor, strategy, 2, 1)) for strategy in attention.ReorderStrategy for f in functions]
    seen.append([[getattr(mask, name)() for name in ("is_causal", "is_padding", "is_bottom_right")] for mask in masks])
    names = ("is_qkvpacked", "is_kvpacked", "is_separate", "is_thd", "to_qkvpacked", "to_kvpacked", "to_separate")
    seen.append([[str(tried(getattr(layout, name))) for name in names] for layout in layouts])
    return seen


def _functions() -> Any:
    module = te.engine().module
    x = _values((2, 8, 32), "bfloat16", 3)
    gamma, beta = _values((32,), "bfloat16", 4), _values((32,), "bfloat16", 5)
    seen: list[Any] = []
    for kind, shift, centred in (("layernorm", beta, False), ("layernorm", beta, True), ("rmsnorm", None, False)):
        norm = partial(module.layernorm.layernorm, norm_type=kind, zero_centered_gamma=centred, epsilon=0.1)
        y, pull_back = jax.vjp(lambda x, g, n=norm, s=shift: n(x, g, s), x, gamma)
        seen.append((y, pull_back(y)))
    refused = partial(module.layernorm.layernorm, x, gamma, None, "rmsnorm", zero_centered_gamma=True)
    seen.append(tried(refused))
    logits = _values((2, 2, 8, 8), "bfloat16", 6)
    mask = jnp.asarray(np.triu(np.ones((2, 1, 8, 8), np.uint8), 1))
    for fusion in module.softmax.SoftmaxFusionType:
        for scale in (1.0, 0.25):
            soft = module.flax.module.Softmax(scale_factor=scale, softmax_fusion_type=fusion)
            y, pull_back = jax.vjp(lambda z, s=soft: s.apply({}, z, mask), logits)
            seen.append((y, pull_back(logits)))
    return seen


def _two_devices(axis: str) -> Any:
    mesh = Mesh(np.asarray(jax.devices()[:2]), (axis,))
    axes = {
        "kernel_axes_1": ("in", None, "out"),
        "kernel_axes_2": ("out", "in"),
        "layernorm_input_axes": ("rows", "seq", None),
        "dot_1_input_axes": ("rows", None, None),
        "dot_2_input_axes": ("rows", None, "out"),
    }
    module = te.engine().module.flax.LayerNormMLP(**_mlp(activations=("silu", "linear"), use_bias=True), **axes)
    over = {"rows": "dp", "in": "fsdp", "out": "tp", "seq": "tpsp"}
    rules = [(name, kind if kind == axis else None) for name, kind in over.items()]
    with jax.set_mesh(mesh), te.Autocast(MODES["delayed"], (axis,))(), nn.logical_axis_rules(rules):
        x = jax.device_put(_values((2, 16, 32), "bfloat16", 1), NamedSharding(mesh, PartitionSpec(axis)))
        variables = te.unbox(module.init(_rngs(), x))

        def both(variables: Any, x: jax.Array) -> Any:
            y, pull_back = jax.vjp(lambda v, x: module.apply(v, x)[0], variables, x)
            return y, pull_back(y)

        found = jax.jit(both)(variables, x)
    return found, [str(getattr(leaf, "sharding", "")) for leaf in jax.tree.leaves(found)]


def _fields() -> Any:
    flax = te.engine().module.flax
    return [
        f"{name}.{field.name}={field.default!r}".split(" at 0x")[0]
        for name in sorted({look.layer for look in LOOKS.values()})
        for field in dataclasses.fields(getattr(flax, name))
        if "init" not in field.name
    ]
