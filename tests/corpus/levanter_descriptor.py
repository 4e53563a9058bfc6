"""Attention with named axes in the style of Levanter, with a descriptor. Written for Transformer Engine 2.1 to 2.9."""

import jax.numpy as jnp
from transformer_engine.jax.attention import AttnBiasType, AttnMaskType, QKVLayout, SequenceDescriptor, fused_attn


def descriptor(segment_ids, batch, length):
    """Which tokens see each other: by segment, or all of them."""
    if segment_ids is None:
        lengths = jnp.full((batch,), length, dtype=jnp.int32)
        return AttnMaskType.CAUSAL_MASK, SequenceDescriptor.from_seqlens((lengths, lengths))
    return AttnMaskType.PADDING_CAUSAL_MASK, SequenceDescriptor.from_segment_ids_and_pos(segment_ids, None)


def flash_attention(query, key, value, segment_ids, *, prng, dropout, inference, scaling_factor):
    """Attention by Transformer Engine."""
    mask_type, sequences = descriptor(segment_ids, query.shape[0], query.shape[1])
    return fused_attn(
        qkv=(query, key, value),
        bias=None,
        sequence_descriptor=sequences,
        seed=prng,
        attn_bias_type=AttnBiasType.NO_BIAS,
        attn_mask_type=mask_type,
        qkv_layout=QKVLayout.BSHD_BSHD_BSHD,
        scaling_factor=scaling_factor,
        dropout_probability=dropout,
        is_training=not inference,
    )
