"""Attention in the style of Levanter as it first was. Written for Transformer Engine before 1.10, where it had a module."""

import warnings


def te_attention(qkv, bias, mask, seed, *, scaling_factor, dropout, is_training):
    """Attention by Transformer Engine, and `None` where it has no such module."""
    try:
        from transformer_engine.jax.fused_attn import AttnBiasType, AttnMaskType, QKVLayout, fused_attn
    except ImportError:
        warnings.warn("transformer_engine is not installed. Falling back to the reference.")
        return None
    return fused_attn(
        qkv,
        bias,
        mask,
        seed,
        attn_bias_type=AttnBiasType.NO_BIAS,
        attn_mask_type=AttnMaskType.CAUSAL_MASK,
        qkv_layout=QKVLayout.BSHD_BSHD_BSHD,
        scaling_factor=scaling_factor,
        dropout_probability=dropout,
        is_training=is_training,
    )
