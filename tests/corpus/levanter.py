"""Attention with named axes in the style of Levanter, with a mask. Written for Transformer Engine 1.10 to 1.13."""

import warnings

import jax.numpy as jnp


def flash_attention(query, key, value, mask, *, prng, dropout=0.0, inference=False, scaling_factor, force_te=False):
    """Attention by Transformer Engine if it can, and `None` if it cannot."""
    try:
        return _te_flash_attention(
            query, key, value, mask, prng=prng, dropout=dropout, inference=inference, scaling_factor=scaling_factor
        )
    except ImportError as error:
        if "transformer_engine" not in str(error) or force_te:
            raise
        warnings.warn("transformer_engine is not installed. Falling back to the reference.")
        return None
    except ValueError as error:
        if not str(error).startswith("Unsupported backend="):
            raise
        warnings.warn("transformer_engine takes no such arguments. Falling back to the reference.")
        return None


def _te_flash_attention(query, key, value, mask, *, prng, dropout, inference, scaling_factor):
    from transformer_engine.jax.attention import (  # noqa: F401
        AttnBiasType,
        AttnMaskType,
        QKVLayout,
        fused_attn,
    )

    mask_type, mask = _materialize(mask, query.shape[1], key.shape[1], query.shape[0])
    return fused_attn(
        qkv=(query, key, value),
        bias=None,
        mask=mask,
        seed=prng,
        attn_bias_type=AttnBiasType.NO_BIAS,
        attn_mask_type=mask_type,
        qkv_layout=QKVLayout.BSHD_BSHD_BSHD,
        scaling_factor=scaling_factor,
        dropout_probability=dropout,
        is_training=not inference,
    )


def _materialize(mask, q_length, kv_length, batch):
    from transformer_engine.jax.attention import AttnMaskType

    if mask is None:
        return AttnMaskType.NO_MASK, jnp.zeros((batch, q_length, kv_length))
    if mask.is_causal:
        return AttnMaskType.CAUSAL_MASK, jnp.dstack([mask.materialize(q_length, kv_length)] * batch)
    raise NotImplementedError("only causal masks, or none")
