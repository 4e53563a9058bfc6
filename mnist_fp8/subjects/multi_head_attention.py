"""``MultiHeadAttention``: layer norm, projections to queries, keys and values, attention, and a projection back."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.oracle import layers
from mnist_fp8.oracle.arithmetic import Arithmetic, Params, Reference
from mnist_fp8.oracle.dense import Array
from mnist_fp8.subjects.layernorm import normalised, scale_and_bias
from mnist_fp8.subjects.making import flax_layer
from mnist_fp8.subjects.subject import Case, InnerProduct, Parameter, Subject

HEADS, SIZE = 4, 16
X, ENCODED = (2, 32, HEADS * SIZE), (2, 64, HEADS * SIZE)
"""Shapes of what asks, and of what another layer has encoded."""


def padding(*lengths: int, keys: int) -> Array:
    """Transformer Engine's mask, (batch, 1, queries, keys): one where a key is padding."""
    queries = (X[1],) * len(lengths)
    return (~layers.admitted(queries, lengths, (X[1], keys))).astype(np.uint8)


def admitted(kind: str, mask: Array | None, window: tuple[int, int] | None = None) -> Array | None:
    """Which keys a query of `X` sees, by the kind of a mask, Transformer Engine's mask and a window; all if none."""
    shape = (X[1], X[1]) if mask is None else mask.shape[-2:]
    near = layers.admitted(shape[:1], shape[1:], shape, causal=kind == "causal", window=window)
    if mask is not None and kind != "causal":
        return near & (mask == 0)
    return None if near.all() else near


def _case(name: str, arguments: Mapping[str, Any] | None = None, *, encoded: bool = False, **fields: Any) -> Case:  # noqa: ANN401
    plain = {"head_dim": SIZE, "num_attention_heads": HEADS, "attn_mask_type": "causal", "scale_attn_logits": True}
    inputs = {"x": X, "encoded": ENCODED} if encoded else {"x": X}
    return Case(name, {**plain, **fields}, inputs, arguments or {})


ROTARY: dict[str, Any] = {"enable_rotary_pos_emb": True, "rotary_pos_emb_group_method": "consecutive"}
CASES = (
    _case("asks itself"),
    _case("normalised as well", use_bias=True, return_layernorm_output=True, zero_centered_gamma=True),
    _case(
        "separate parameters",
        fuse_qkv_params=False,
        use_bias=True,
        num_gqa_groups=2,
        attn_mask_type="no_mask",
        **ROTARY,
    ),
    _case(
        "rotary by halves",
        layernorm_type="rmsnorm",
        layernorm_epsilon=1e-2,
        scale_attn_logits=False,
        enable_rotary_pos_emb=True,
        rotary_pos_emb_group_method="alternate",
    ),
    _case("one group, no layer norm", input_layernorm=False, num_gqa_groups=1, head_dim=2 * SIZE),
    _case(
        "cross attention, padded",
        {"mask": padding(12, 5, keys=ENCODED[1])},
        encoded=True,
        attn_mask_type="padding",
        num_gqa_groups=2,
        rotary_pos_emb_windows=(2, 100),
        **ROTARY,
    ),
)


@dataclasses.dataclass(frozen=True)
class Called:
    """A module as it is called: with masks of JAX, which releases before 2.3 demand, and with itself as what it asks.

    Attributes:
        module: attention, or a layer that has one.
        twice: whether it is given its input twice: it asks itself where both are one array.
    """

    module: Any
    twice: bool = False

    def init(self, rngs: Any, *inputs: Any, **masks: Any) -> Any:  # noqa: ANN401
        """Its variables."""
        return self.module.init(rngs, *self._all(inputs), **jax.tree.map(jnp.asarray, masks))

    def apply(self, variables: Any, *inputs: Any, rngs: Any = None, mutable: Any = False, **masks: Any) -> Any:  # noqa: ANN401
        """Its outputs, and the collections that are mutable if there are any."""
        masks = jax.tree.map(jnp.asarray, masks)
        return self.module.apply(variables, *self._all(inputs), rngs=rngs, mutable=mutable, **masks)

    def _all(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return inputs * 2 if self.twice else inputs


def _make(case: Case, _recipe: RecipeConfig | None) -> Any:  # noqa: ANN401
    return Called(flax_layer("MultiHeadAttention", **case.fields), twice="encoded" not in case.inputs)


def _fused(case: Case) -> bool:
    return bool(case.fields.get("fuse_qkv_params", True))


def _packed(case: Case, *, asks_itself: bool) -> bool:
    """Whether queries, keys and values are one product."""
    heads = case.fields["num_attention_heads"]
    return _fused(case) and asks_itself and case.fields.get("num_gqa_groups", heads) == heads


def _returns_normal(case: Case, *, asks_itself: bool) -> bool:
    """Whether what is normalised comes back, asked for or not: it does where the layer needs it for another product."""
    needed = not _fused(case) or (asks_itself and not _packed(case, asks_itself=asks_itself))
    return needed or case.fields.get("return_layernorm_output", False)


def projections(case: Case, *, asks_itself: bool) -> tuple[str, ...]:
    """The modules of the products before the attention, in the order of the program."""
    if _packed(case, asks_itself=asks_itself):
        return ("qkv",)
    return ("query", "kv") if _fused(case) else ("query", "key", "value")


def products(case: Case, module: tuple[str, ...] = (), *, asks_itself: bool = True) -> tuple[InnerProduct, ...]:
    """All that a recipe quantizes; ``module`` is the attention's path in the layer."""
    names = (*projections(case, asks_itself=asks_itself), "out")
    return tuple(InnerProduct("/".join((*module, name)), (*module, name)) for name in names)


NO_SHARD, FSDP, TP, JOINED = "nvte_w_no_shard", "nvte_w_fsdp", "nvte_w_tp", "nvte_w_joined"
"""Names of axes of parameters by Transformer Engine."""


def parameters(case: Case, *, asks_itself: bool, width: int = HEADS * SIZE) -> dict[str, Parameter]:
    """The parameters of the attention of a case, whose inputs have ``width`` features."""
    heads, size = case.fields["num_attention_heads"], case.fields["head_dim"]
    keys = case.fields.get("num_gqa_groups", heads) * size
    names, query = projections(case, asks_itself=asks_itself), heads * size
    features = {"qkv": (3, query), "query": (query,), "kv": (2, keys), "key": (keys,), "value": (keys,)}
    narrow = {"query": size, "qkv": 3 / (2 + 1 / size)}
    layers_of: dict[str, tuple[Any, ...]] = {"out": ((query,), (width,), (TP,), (FSDP,), (NO_SHARD,), 1.0)}
    for name in names:
        axes = (JOINED, TP)[-len(features[name]) :]
        layers_of[name] = ((width,), features[name], (FSDP,), axes, axes, narrow.get(name, 1.0))
    found = {}
    for name, (inner, outer, inner_axes, outer_axes, bias_axes, factor) in layers_of.items():
        deviation = (inner[0] * factor) ** -0.5
        found[f"{name}/kernel"] = Parameter((*inner, *outer), (*inner_axes, *outer_axes), deviation=deviation)
        if case.fields.get("use_bias", False):
            found[f"{name}/bias"] = Parameter(outer, bias_axes)
    if case.fields.get("input_layernorm", True):
        norm = scale_and_bias(case.fields, width, NO_SHARD)
        found |= {f"{names[0]}/{name}": parameter for name, parameter in norm.items()}
    return found


def attended(
    case: Case,
    arithmetic: Arithmetic,
    params: Params,
    x: jax.Array,
    encoded: jax.Array | None = None,
    *,
    allowed: Array | None,
    bias: jax.Array | None = None,
    prefix: str = "",
) -> tuple[jax.Array, jax.Array]:
    """What the attention of a case makes of its inputs: output, and what was normalised.

    Args:
        case: its fields say which.
        arithmetic: what computes the products.
        params: of the attention.
        x: what asks, (batch, queries, features).
        encoded: what is asked, (batch, keys, features); ``x`` if there is none.
        allowed: which keys a query sees, all if there is none; broadcastable to (batch, heads, queries, keys).
        bias: of the logits; broadcastable likewise.
        prefix: of the products' names.
    """
    names = projections(case, asks_itself=encoded is None)
    normal = _normal(case, arithmetic, params[names[0]], x)
    if _returns_normal(case, asks_itself=encoded is None):
        normal = arithmetic.stored(normal)
    fused = case.fields.get("input_layernorm", True) and not _returns_normal(case, asks_itself=encoded is None)
    projected = [_projected(arithmetic, f"{prefix}{names[0]}", params[names[0]], normal, fused=fused)]
    for name in names[1:]:
        # Gradients of what several products have in common are added one by one, each sum rounded.
        normal, source = (arithmetic.stored(normal),) * 2 if encoded is None else (normal, encoded)
        projected.append(_projected(arithmetic, f"{prefix}{name}", params[name], source))
    query, key, value = _by_head(case, projected)
    if case.fields.get("enable_rotary_pos_emb", False):
        query, key = (_turned(case, arithmetic, tensor) for tensor in (query, key))
    tensors = (query, key, value) if bias is None else (query, key, value, bias)
    y = arithmetic.by_operations(functools.partial(_attend, allowed=allowed, **_softmax(case)), *tensors)
    return _projected(arithmetic, f"{prefix}out", params["out"], y.reshape(*y.shape[:2], -1)), normal


def _softmax(case: Case) -> dict[str, Any]:
    """The options of the attention that a case's fields stand for."""
    fields = case.fields
    return {
        "scale": None if fields["scale_attn_logits"] else 1.0,
        "bias_before_scale": fields.get("attn_bias_type") == "pre_scale_bias",
        "offset": jnp.zeros(fields["num_attention_heads"]) if fields.get("softmax_type") == "off_by_one" else None,
        "wide_logits": fields.get("float32_logits", False),
    }


def _attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: jax.Array | None = None,
    **options: Any,  # noqa: ANN401
) -> jax.Array:
    return layers.attention(query, key, value, bias=bias, **options)


def _normal(case: Case, arithmetic: Arithmetic, params: Params, x: jax.Array) -> jax.Array:
    if not case.fields.get("input_layernorm", True):
        return x
    renamed = {**case.fields, "epsilon": case.fields.get("layernorm_epsilon", layers.EPSILON)}
    return normalised(dataclasses.replace(case, fields=renamed), arithmetic, params, arithmetic.stored(x))


def _projected(arithmetic: Arithmetic, name: str, params: Params, x: jax.Array, *, fused: bool = False) -> jax.Array:
    y = arithmetic.product(name, x, params["kernel"], fused=fused)
    return arithmetic.stored(y + arithmetic.parameter(params["bias"])) if "bias" in params else y


def _by_head(case: Case, projected: list[jax.Array]) -> list[jax.Array]:
    """Queries, keys and values, each (batch, length, heads, size), out of one, two or three products."""
    parts = [part for tensor in projected for part in (jnp.unstack(tensor, axis=-2) if tensor.ndim > 3 else [tensor])]  # noqa: PLR2004
    return [part.reshape(*part.shape[:2], -1, case.fields["head_dim"]) for part in parts]


def _turned(case: Case, arithmetic: Arithmetic, x: jax.Array) -> jax.Array:
    """Rotary embedding. Both uses of a number in BF16 have a gradient in BF16, and so has their sum."""
    consecutive = case.fields["rotary_pos_emb_group_method"] == "consecutive"
    angles = layers.rotary_angles(x.shape[1], x.shape[-1], case.fields.get("rotary_pos_emb_windows", (1, 10000)))
    cos, sin = jnp.cos(angles)[:, None, :], jnp.sin(angles)[:, None, :]
    stored = arithmetic.stored
    first, second = layers.paired(stored(x), consecutive=consecutive)
    turned = stored(first) * cos - stored(second) * sin, stored(second) * cos + stored(first) * sin
    return stored(layers.unpaired(*turned, consecutive=consecutive))


def _reference(case: Case) -> Reference:
    def reference(arithmetic: Arithmetic, params: Params, inputs: Mapping[str, jax.Array]) -> Any:  # noqa: ANN401
        allowed = admitted(case.fields["attn_mask_type"], case.arguments.get("mask"), case.fields.get("window_size"))
        y, normal = attended(case, arithmetic, params, inputs["x"], inputs.get("encoded"), allowed=allowed)
        return (y, normal) if _returns_normal(case, asks_itself="encoded" not in inputs) else y

    return reference


SUBJECT = Subject(
    name="MultiHeadAttention",
    flips=2.0,
    cases=CASES,
    make=_make,
    reference=_reference,
    products=lambda case: products(case, asks_itself="encoded" not in case.inputs),
    parameters=lambda case: parameters(case, asks_itself="encoded" not in case.inputs),
    attends=True,
    recorded=("cross attention, padded",),
    plain=lambda _case: 2,
)
