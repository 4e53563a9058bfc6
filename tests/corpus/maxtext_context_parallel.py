"""Context-parallel attention in the style of MaxText's first attempt. Written for Transformer Engine 1.13."""

import contextlib

from transformer_engine.jax.flax.transformer import DotProductAttention
from transformer_engine.jax.sharding import MeshResource, global_shard_guard


def attention(config, head_dim, dtype, dropout_rate, window=None):
    """Fused attention with sliding windows, over sequences that lie on several devices."""
    return DotProductAttention(
        head_dim=head_dim,
        num_attention_heads=config.num_query_heads,
        num_gqa_groups=config.num_kv_heads,
        attn_mask_type="causal",
        attn_bias_type="NO_BIAS",
        attention_dropout=dropout_rate,
        dropout_rng_name="aqt",
        dtype=dtype,
        float32_logits=config.float32_logits,
        qkv_layout="BSHD_BSHD_BSHD",
        scale_factor=1.0 / config.scale,
        transpose_batch_sequence=False,
        window_size=window,
        context_parallel_causal_load_balanced=config.load_balance,
        context_parallel_axis="context",
    )


@contextlib.contextmanager
def mesh_axes():
    """Tells Transformer Engine what the axes of the mesh are for."""
    resource = MeshResource(dp_resource=None, tp_resource="tensor", fsdp_resource="fsdp", cp_resource="context")
    with global_shard_guard(resource):
        yield resource
