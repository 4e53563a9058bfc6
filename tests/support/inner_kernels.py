"""A kernel of one device under TE's Python for several: it computes its definition in JAX, on a CPU.

TE's Python divides attention over devices: it gathers keys or sends them round a ring, says where sequences begin and
end on each device, asks a kernel for each part and puts the parts together. Here that kernel is stood in for; what the
Python around it does is TE's own.
"""

import dataclasses
import functools
import inspect
import sys
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from mnist_fp8.subjects.making import name_of_te
from support.fused import know_formats
from support.stand_ins import Kernel

_TENSORS = (
    *("q_aval", "k_aval", "v_aval", "bias_aval", "softmax_offset_aval"),
    *("q_seqlen_or_cu_seqlen_aval", "kv_seqlen_or_cu_seqlen_aval", "_q_seq_offsets", "_k_seq_offsets"),
    *("_q_segment_ids", "_kv_segment_ids", "_q_segment_pos", "_kv_segment_pos", "config"),
)
_SAID = (
    *("attn_bias_type", "attn_mask_type", "softmax_type", "qkv_layout", "scaling_factor", "dropout_probability"),
    *("is_training", "max_segments_per_seq", "window_size", "bottom_right_diagonal", "context_parallel_load_balanced"),
    *("cp_axis", "cp_striped_window_size", "stripe_size", "return_max_logit", "allow_fast_causal_path"),
)
PARAMETERS = {
    "FusedAttnFwdPrimitive.abstract": (*_TENSORS, "seed_aval"),
    "FusedAttnBwdPrimitive.abstract": (*_TENSORS, "softmax_aux_aval", "rng_state_aval", "output_aval", "doutput_aval"),
    "_FusedAttnConfig": _SAID,
}
"""What kernels that are stood in for are given in all known releases: with more, they may compute something else."""
STOOD_IN = [
    pytest.mark.te_name("cpp_extensions", "attention", "FusedAttnFwdPrimitive", "shardy_sharding_rule"),  # since 2.3
    *(
        pytest.mark.te_parameters(("cpp_extensions", "attention", *name.split(".")), known)
        for name, known in PARAMETERS.items()
    ),
]

UNSEEN = -6e29
"""Log-sum-exp of a row that sees nothing: far below all others, and finite, as TE fills it before a packed kernel."""


@dataclasses.dataclass(frozen=True)
class Part:
    """What a kernel is given, whatever the release calls it.

    Attributes:
        given: its tensors by name.
        config: what TE says about them.
    """

    given: dict[str, jax.Array]
    config: Any

    def tensors(self) -> list[jax.Array]:
        """Queries, keys and values of (batch, positions, heads, size) each."""
        tensors, layout = [self.given[name] for name in "qkv"], self.config.qkv_layout
        if layout.is_qkvpacked():
            return list(jnp.moveaxis(tensors[0], 2, 0))
        return [tensors[0], *jnp.moveaxis(tensors[1], 2, 0)] if layout.is_kvpacked() else tensors

    def seen(self, queries: int, keys: int) -> jax.Array:
        """Which keys a query sees, (batch, queries, keys)."""
        kind = self.config.attn_mask_type
        admitted, query, key, ahead = (self._packed if self.config.qkv_layout.is_thd() else self._alone)(queries, keys)
        query = query + (ahead if getattr(self.config, "bottom_right_diagonal", kind.is_bottom_right()) else 0)
        left, right = getattr(self.config, "cp_striped_window_size", None) or self.config.window_size
        admitted &= (key <= query) if kind.is_causal() else True
        admitted &= (key >= query - left) if left >= 0 else True
        return admitted & ((key <= query + right) if right >= 0 else True)

    def _lengths(self, side: str) -> jax.Array:
        return jnp.diff(self.given[f"{side}_seqlen_or_cu_seqlen"])

    def _alone(self, queries: int, keys: int) -> tuple[jax.Array, ...]:
        """Which keys are of a query's sequence, both positions, and by how many keys it is the longer of the two.

        Kernels look at lengths where the mask is one of padding.
        """
        batch, padding = len(self.given["q"]), self.config.attn_mask_type.is_padding()
        of_query = self._lengths("q") if padding else jnp.full(batch, queries)
        of_key = self._lengths("kv") if padding else jnp.full(batch, keys)
        of_query, of_key = of_query.reshape(-1, 1, 1), of_key.reshape(-1, 1, 1)
        query, key = jnp.arange(queries)[None, :, None], jnp.arange(keys)[None, None]
        return (query < of_query) & (key < of_key), query, key, of_key - of_query

    def _packed(self, queries: int, keys: int) -> tuple[jax.Array, ...]:
        """The same of sequences in one row: the keys of two may overlap, their queries do not."""
        batch, lengths, of_keys = len(self.given["q"]), self._lengths("q"), self._lengths("kv")
        starts, of_key = (self.given[f"{side}_seq_offsets"].reshape(-1)[: len(lengths)] for side in "qk")
        place = jnp.arange(batch * queries)[:, None]
        inside = (place >= starts) & (place < starts + lengths)
        sequence = inside.argmax(axis=1)
        query = (place[:, 0] - starts[sequence]).reshape(batch, queries, 1)
        key = jnp.arange(batch * keys).reshape(batch, 1, keys) - of_key[sequence].reshape(batch, queries, 1)
        length = of_keys[sequence].reshape(batch, queries, 1)
        admitted = inside.any(axis=1).reshape(batch, queries, 1) & (key >= 0) & (key < length)
        return admitted, query, key, length - lengths[sequence].reshape(batch, queries, 1)


def _logits(part: Part, query: jax.Array, key: jax.Array, bias: jax.Array) -> jax.Array:
    """What the softmax is taken of, (batch, heads, queries, keys); -inf where a key is not seen."""
    key = jnp.repeat(key, query.shape[2] // key.shape[2], axis=2)
    logits, kind = jnp.einsum("bqhd,bkhd->bhqk", query, key), part.config.attn_bias_type.name
    logits = (logits + bias if kind == "PRE_SCALE_BIAS" else logits) * part.config.scaling_factor
    logits = logits + bias if kind == "POST_SCALE_BIAS" else logits
    return jnp.where(part.seen(*logits.shape[-2:])[:, None], logits, -jnp.inf)


def _log_sum(part: Part, logits: jax.Array, sink: jax.Array) -> jax.Array:
    """(batch, heads, queries, 1)."""
    if getattr(getattr(part.config, "softmax_type", None), "name", "VANILLA_SOFTMAX") != "VANILLA_SOFTMAX":
        logits = jnp.concatenate([logits, jnp.broadcast_to(sink, (*logits.shape[:-1], 1))], axis=-1)
    return jnp.maximum(jax.nn.logsumexp(logits, axis=-1, keepdims=True), UNSEEN)


def _operands(part: Part) -> tuple[jax.Array, ...]:
    given = (*part.tensors(), part.given["bias"], part.given.get("softmax_offset", jnp.zeros(0)))
    return tuple(each.astype(jnp.float32) for each in given)


def _forward(part: Part) -> tuple[jax.Array, ...]:
    """Output, log-sum-exp, since 2.19 the largest logits, the state of the dropout, and room to work in."""
    query, key, value, bias, sink = _operands(part)
    logits = _logits(part, query, key, bias)
    log_sum = _log_sum(part, logits, sink)
    values = jnp.repeat(value, query.shape[2] // value.shape[2], axis=2)
    y = jnp.einsum("bhqk,bkhd->bqhd", jnp.exp(logits - log_sum), values)
    packed = part.config.qkv_layout.is_thd()
    aux, largest = (jnp.swapaxes(each, 1, 2) if packed else each for each in (log_sum, logits.max(-1, keepdims=True)))
    given = part.given
    state = jnp.zeros((given["seed"].shape[0], 4), jnp.uint32)
    more = (largest,) if hasattr(part.config, "return_max_logit") else ()
    return (y.astype(given["q"].dtype), aux, *more, state, jnp.zeros(0))


def _backward(part: Part) -> tuple[jax.Array, ...]:
    """Gradients of all that comes in, from the log-sum-exp of the whole row, not that of the keys that are here."""
    given = part.given
    query, key, value, bias, sink = _operands(part)
    y, grad = (given[name].astype(jnp.float32) for name in ("output", "doutput"))
    aux = given["softmax_aux"]
    log_sum = jnp.swapaxes(aux, 1, 2) if part.config.qkv_layout.is_thd() else aux
    repeats = query.shape[2] // value.shape[2]
    logits, pull_back = jax.vjp(functools.partial(_logits, part), query, key, bias)
    weights = jnp.exp(logits - log_sum)
    from_weights = jnp.einsum("bqhd,bkhd->bhqk", grad, jnp.repeat(value, repeats, axis=2))
    both = jnp.einsum("bqhd,bqhd->bhq", y, grad)[..., None]
    dquery, dkey, dbias = pull_back(weights * (from_weights - both))
    dvalue = jnp.einsum("bhqk,bqhd->bkhd", weights, grad).reshape(*value.shape[:3], repeats, -1).sum(axis=3)
    dsink = -(jnp.exp(sink - log_sum) * both).sum(axis=(0, 2), keepdims=True) if sink.size else sink
    layout, none = part.config.qkv_layout, jnp.zeros(0)
    grads: tuple[jax.Array, ...] = (dquery, dkey, dvalue)
    if layout.is_qkvpacked():
        grads = (jnp.stack(grads, axis=2), none, none)
    elif layout.is_kvpacked():
        grads = (dquery, jnp.stack(grads[1:], axis=2), none)
    grads = tuple(each.astype(given["q"].dtype) for each in (*grads, dbias))
    return (*grads, dsink, none) if "softmax_offset" in given else (*grads, none)


def put_in_place(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have Transformer Engine's Python for several devices ask this module for each part.

    Args:
        monkeypatch: undoes it.

    Returns:
        Which passes were asked for, as they are traced.

    Raises:
        NotInReleaseError: the release has no such kernels.
    """
    asked: list[str] = []
    native: Any = sys.modules["transformer_engine_jax"]
    found = native.NVTE_Fused_Attn_Backend.NVTE_F16_arbitrary_seqlen
    monkeypatch.setattr(native, "get_fused_attn_backend", lambda *given: (found, "") if len(given) == 1 else found)
    know_formats(monkeypatch)
    module = name_of_te("cpp_extensions", "attention")
    monkeypatch.setattr(module, "te_dtype_to_jax_dtype", lambda dtype: dtype)
    for way, kernel in (("Fwd", _forward), ("Bwd", _backward)):
        monkeypatch.setattr(native, f"get_fused_attn_{way.lower()}_workspace_sizes", lambda *_given: ((1,), jnp.uint8))
        primitive = getattr(module, f"FusedAttn{way}Primitive")
        names = [
            name.removeprefix("_").removesuffix("_aval")
            for name, parameter in inspect.signature(primitive.abstract).parameters.items()
            if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
        ]

        def bind(*tensors: jax.Array, config: Any, kernel: Any = kernel, names: Any = names, way: str = way) -> Any:
            asked.append(way)
            return kernel(Part(dict(zip(names, tensors, strict=True)), config))

        monkeypatch.setattr(primitive, "inner_primitive", Kernel(bind))
    return asked
