"""A fused attention kernel on a host run: it notes what it is asked for, and computes it by its definition in JAX."""

import dataclasses
import inspect
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from mnist_fp8.subjects.making import name_of_te

_BOTH = (
    *("qkv", "bias", "softmax_offset", "sequence_descriptor", "attn_bias_type", "attn_mask_type", "softmax_type"),
    *("qkv_layout", "scaling_factor", "dropout_probability", "is_training", "max_segments_per_seq", "window_size"),
    *("context_parallel_strategy", "context_parallel_causal_load_balanced", "context_parallel_axis", "stripe_size"),
)
PARAMETERS = {
    "fused_attn_fwd": (*_BOTH, "seed", "return_max_logit"),
    "fused_attn_bwd": (*_BOTH, "softmax_aux", "rng_state", "output", "doutput"),
}
"""What the functions that are replaced take in all known releases: with others, they may give something else."""
REPLACED = [pytest.mark.te_parameters(("cpp_extensions.attention", name), known) for name, known in PARAMETERS.items()]


@dataclasses.dataclass
class Asked:
    """What was asked for last, each by its name.

    Attributes:
        backend: of the one who says whether there is a kernel.
        kernel: of the forward pass.
        backward: of the backward pass.
    """

    backend: dict[str, Any] = dataclasses.field(default_factory=dict)
    kernel: dict[str, Any] = dataclasses.field(default_factory=dict)
    backward: dict[str, Any] = dataclasses.field(default_factory=dict)


def put_in_place(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Have Transformer Engine find a kernel for all attention, and run the one of this module.

    Raises:
        NotInReleaseError: the release describes sequences otherwise.
    """
    name_of_te("attention", "SequenceDescriptor")
    asked = Asked()
    know_formats(monkeypatch)
    monkeypatch.setenv("NVTE_FUSED_ATTN", "1")  # before 2.10, it is off by default
    flax, kernels = name_of_te("flax", "transformer"), name_of_te("cpp_extensions")
    question = "FusedAttnHelper" if hasattr(flax, "FusedAttnHelper") else "is_fused_attn_kernel_available"
    helper = getattr(flax, question)
    monkeypatch.setattr(flax, question, _noting(helper, asked.backend, helper))
    native: Any = sys.modules["transformer_engine_jax"]
    found = native.NVTE_Fused_Attn_Backend.NVTE_F16_arbitrary_seqlen
    monkeypatch.setattr(native, "get_fused_attn_backend", lambda *given: (found, "") if len(given) == 1 else found)
    for name, noted, kernel in (("fwd", asked.kernel, _forward), ("bwd", asked.backward, _backward)):
        replaced = getattr(kernels, f"fused_attn_{name}")
        answer = kernel(noted, inspect.signature(replaced).parameters)
        monkeypatch.setattr(kernels, f"fused_attn_{name}", _noting(replaced, noted, answer))
    return asked


def know_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have layouts of TE know their format, which they ask the extension for."""
    layouts, formats = name_of_te("attention", "QKVLayout"), name_of_te("attention", "QKVFormat")
    monkeypatch.setattr(layouts, "get_qkv_format", lambda self: formats.THD if self.is_thd() else formats.BSHD)


def _noting(function: Any, noted: dict[str, Any], answer: Callable[..., Any]) -> Any:
    """A function with the signature of another, that notes its arguments before it answers."""
    signature = inspect.signature(function)

    def note(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        noted.update({name: _member(name, value) for name, value in bound.arguments.items()})
        return answer(*args, **kwargs)

    return note


ENUMS = {"attn_mask_type": "AttnMaskType", "qkv_layout": "QKVLayout", "attn_bias_type": "AttnBiasType"}


def _member(name: str, value: Any) -> Any:
    """A member of TE's enum, in place of its number, which kernels got before 2.4."""
    return name_of_te("attention", ENUMS[name])(value) if name in ENUMS else value


def _forward(asked: dict[str, Any], parameters: Any) -> Callable[..., Any]:
    def answer(*_args: Any, **_kwargs: Any) -> Any:
        """Output, what the backward pass would need, the state of the dropout and, since 2.20, the largest logit."""
        y = attention(asked, asked["qkv"], asked["bias"], asked.get("softmax_offset"))
        rest = (jnp.zeros((*y.shape[:3], 1), jnp.float32), jnp.zeros((1, 4), jnp.uint32))
        return (y, *rest, jnp.zeros(y.shape[2], jnp.float32)) if "return_max_logit" in parameters else (y, *rest)

    return answer


def _backward(asked: dict[str, Any], parameters: Any) -> Callable[..., Any]:
    def answer(*_args: Any, **_kwargs: Any) -> Any:
        """Gradients of queries, keys and values as they came, of the bias and, since 2.10, of the sink."""
        tensors = (asked["qkv"], asked["bias"], asked.get("softmax_offset"))
        grads = jax.vjp(lambda *tensors: attention(asked, *tensors), *tensors)[1](asked["doutput"])
        return grads if "softmax_offset" in parameters else grads[:2]

    return answer


def attention(
    asked: dict[str, Any], qkv: tuple[jax.Array, ...], bias: jax.Array | None, sink: jax.Array | None
) -> jax.Array:
    """Attention as it is asked for, (batch, queries, heads, size); a query that sees nothing gives zeros."""
    query, key, value = separate(qkv)
    key, value = (jnp.repeat(each, query.shape[2] // each.shape[2], axis=2) for each in (key, value))
    logits, kind = jnp.einsum("bqhd,bkhd->bhqk", query, key), asked["attn_bias_type"].name
    added = jnp.zeros((), query.dtype) if bias is None else bias
    logits = (logits + added if kind == "PRE_SCALE_BIAS" else logits) * asked["scaling_factor"]
    logits = logits + added if kind == "POST_SCALE_BIAS" else logits
    powers = jnp.where(seen(asked, *logits.shape[-2:])[:, None], jnp.exp(logits), 0)
    total = powers.sum(axis=-1, keepdims=True)
    softmax = getattr(asked.get("softmax_type"), "name", "VANILLA_SOFTMAX")
    if softmax != "VANILLA_SOFTMAX":
        total += 1 if softmax == "OFF_BY_ONE_SOFTMAX" or sink is None else jnp.exp(sink)
    weights = powers / jnp.where(total == 0, 1, total)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value).astype(query.dtype)


def separate(qkv: tuple[jax.Array, ...]) -> list[jax.Array]:
    """Queries, keys and values of (batch, positions, heads, size) each; the last tensor of a few holds several."""
    *alone, last = qkv
    return [*alone, last] if len(qkv) == 3 else [*alone, *jnp.moveaxis(last, 2, 0)]


def seen(asked: dict[str, Any], queries: int, keys: int) -> jax.Array:
    """Which keys a query sees, (batch, queries, keys)."""
    kind, sequences = asked["attn_mask_type"], asked["sequence_descriptor"]
    if asked["qkv_layout"].is_thd():
        (of_query, of_key), (query, key) = sequences.segment_ids, sequences.segment_pos
        of_query, query, of_key, key = of_query[:, :, None], query[:, :, None], of_key[:, None], key[:, None]
        admitted, ahead = (of_query == of_key) & (of_query > 0), 0  # of itself, so that both end together
    else:
        (of_queries, of_keys), _ = sequences.get_seqlens_and_offsets(kind, asked["qkv_layout"], None, 1)
        of_queries, of_keys = of_queries.reshape(-1, 1, 1), of_keys.reshape(-1, 1, 1)
        query, key = jnp.arange(queries)[None, :, None], jnp.arange(keys)[None, None]
        admitted, ahead = (query < of_queries) & (key < of_keys), of_keys - of_queries if kind.is_bottom_right() else 0
    left, right = asked["window_size"] or (-1, -1)
    admitted &= (key <= query + ahead) if kind.is_causal() else True
    admitted &= (key >= query + ahead - left) if left >= 0 else True
    return admitted & ((key <= query + ahead + right) if right >= 0 else True)
