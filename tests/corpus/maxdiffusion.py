"""A diffusion trainer in the style of MaxDiffusion. Written for Transformer Engine 2.1."""

import contextlib
import functools

import jax
import jax.numpy as jnp


class FlashAttention:
    """Attention by Transformer Engine, which keeps no variables."""

    def __init__(self, heads, dim_head, scale, dtype=jnp.bfloat16, kernel="cudnn_flash_te"):
        self.dpa_layer = None
        if kernel == "cudnn_flash_te":
            from transformer_engine.jax.flax.transformer import DotProductAttention

            jax.config.update("jax_use_shardy_partitioner", False)
            layer = DotProductAttention(
                head_dim=dim_head,
                num_attention_heads=heads,
                num_gqa_groups=heads,
                attn_mask_type="no_mask",
                attn_bias_type="NO_BIAS",
                dropout_rng_name="aqt",
                dtype=dtype,
                qkv_layout="BSHD_BSHD_BSHD",
                scale_factor=scale,
                transpose_batch_sequence=False,
            )
            self.dpa_layer = functools.partial(layer.apply, {})

    def __call__(self, query, key, value):
        if self.dpa_layer is None:
            return jax.nn.dot_product_attention(query, key, value)
        return self.dpa_layer(query, key, value, mask=None)


@contextlib.contextmanager
def transformer_engine_context():
    """Tells Transformer Engine what the axes of the mesh are for, where it is installed."""
    try:
        from transformer_engine.jax.sharding import MeshResource, global_shard_guard

        resource = MeshResource(
            dp_resource=None,
            tp_resource="tensor",
            fsdp_resource="fsdp",
            pp_resource=None,
            cp_resource="context",
        )
        with global_shard_guard(resource):
            yield
    except ImportError:
        yield


def train(config, steps):
    """Train within the context."""
    with transformer_engine_context():
        return [config.step(index) for index in range(steps)]
