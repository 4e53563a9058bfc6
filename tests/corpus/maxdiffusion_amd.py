"""A derivative of a diffusion trainer for AMD's devices, with probes. Written for Transformer Engine 2.12 and 2.17."""

import functools
import inspect
import math
import os

import jax.numpy as jnp
from packaging.version import Version


def te_version():
    """The version, without what a vendor adds to it; 0 where there is none."""
    try:
        import transformer_engine as te

        return Version(str(getattr(te, "__version__", "0")).split("+")[0])
    except Exception:
        return Version("0")


def needs_is_thd():
    """Whether the descriptor has to be told of its layout."""
    from transformer_engine.jax.attention import SequenceDescriptor

    return "is_thd" in inspect.signature(SequenceDescriptor.from_segment_ids_and_pos).parameters


def padding_descriptor(segment_ids):
    """Where each sequence ends, by lengths or by ids."""
    from transformer_engine.jax.attention import SequenceDescriptor

    ids = jnp.where(segment_ids > 0, 1, 0).astype(jnp.int32)
    if os.environ.get("DESCRIPTOR", "seqlens") != "ids":
        lengths = jnp.sum(ids, axis=-1)
        return SequenceDescriptor.from_seqlens(seqlens=(lengths, lengths))
    positions = jnp.broadcast_to(jnp.arange(ids.shape[-1])[None, :], ids.shape)
    if "is_thd" in inspect.signature(SequenceDescriptor.from_segment_ids_and_pos).parameters:
        return SequenceDescriptor.from_segment_ids_and_pos(
            segment_ids=ids,
            segment_pos=positions,
            is_thd=False,
            is_segment_ids_reordered=False,
        )
    return SequenceDescriptor.from_segment_ids_and_pos(segment_ids=ids, segment_pos=positions)


def by_helper(ids, positions):
    """The same with the probe in a function of its own."""
    from transformer_engine.jax.attention import SequenceDescriptor

    if needs_is_thd():
        return SequenceDescriptor.from_segment_ids_and_pos(ids, positions, is_thd=False, is_segment_ids_reordered=False)
    return SequenceDescriptor.from_segment_ids_and_pos(ids, positions)


def by_argument(ids, positions, needs_is_thd):
    """The same with an answer that the layer has kept."""
    from transformer_engine.jax.attention import SequenceDescriptor

    if needs_is_thd:
        return SequenceDescriptor.from_segment_ids_and_pos(
            segment_ids=ids,
            segment_pos=positions,
            is_thd=False,
            is_segment_ids_reordered=False,
        )
    return SequenceDescriptor.from_segment_ids_and_pos(segment_ids=ids, segment_pos=positions)


class Attention:
    """Fused attention over padded sequences, which asks once."""

    def __init__(self, heads, head_dim, dtype, kernel="cudnn_flash_te"):
        if kernel == "cudnn_flash_te":
            self.needs_is_thd = needs_is_thd()
            self.attend = attention(heads, head_dim, dtype, is_padded=True)

    def __call__(self, query, key, value, ids, positions):
        descriptor = by_argument(ids, positions, getattr(self, "needs_is_thd", False))
        return self.attend(query, key, value, sequence_descriptor=descriptor)


def attention(heads, head_dim, dtype, is_padded):
    """Fused attention over padded sequences."""
    from transformer_engine.jax.flax.transformer import DotProductAttention

    layer = DotProductAttention(
        head_dim=head_dim,
        num_attention_heads=heads,
        num_gqa_groups=heads,
        attn_mask_type="padding" if is_padded else "no_mask",
        attn_bias_type="NO_BIAS" if is_padded else "POST_SCALE_BIAS",
        dtype=dtype,
        qkv_layout="BSHD_BSHD_BSHD",
        scale_factor=1.0 / math.sqrt(head_dim),
        transpose_batch_sequence=False,
    )
    return functools.partial(layer.apply, {})
