"""Grouped products and long sequences in the style of marin's experiments. Written for Transformer Engine 2.16."""

import math

import jax
import jax.numpy as jnp
from transformer_engine.common.recipe import MXFP8BlockScaling
from transformer_engine.jax import autocast
from transformer_engine.jax import cpp_extensions as tex
from transformer_engine.jax.attention import (
    AttnBiasType,
    AttnMaskType,
    AttnSoftmaxType,
    CPStrategy,
    QKVLayout,
    SequenceDescriptor,
    fused_attn,
)
from transformer_engine.jax.dense import grouped_dense
from transformer_engine.jax.quantize import QuantizerFactory, noop_quantizer_set
from transformer_engine.jax.sharding import MeshResource


@jax.remat
def experts(tokens, kernels, group_sizes, use_fp8):
    """One product for each expert."""
    quantizers = noop_quantizer_set
    if use_fp8:
        quantizers = QuantizerFactory.create_set(fp8_recipe=MXFP8BlockScaling(), n_groups=kernels.shape[0])
    return grouped_dense(
        tokens,
        kernels,
        group_sizes,
        contracting_dims=((1,), (1,)),
        preferred_element_type=jnp.bfloat16,
        quantizer_set=quantizers,
    )


def long_attention(query, key, value, segment_ids, positions, mesh):
    """Attention over sequences that lie on several devices."""
    sequences = SequenceDescriptor.from_segment_ids_and_pos(segment_ids, segment_pos=positions)
    with mesh, autocast(enabled=False, mesh_resource=MeshResource(cp_resource="context")):
        return fused_attn(
            (query, key, value),
            None,
            sequences,
            None,
            AttnBiasType.NO_BIAS,
            AttnMaskType.PADDING_CAUSAL_MASK,
            QKVLayout.THD_THD_THD,
            AttnSoftmaxType.VANILLA_SOFTMAX,
            1.0 / math.sqrt(query.shape[-1]),
            0.0,
            True,
            max_segments_per_seq=8,
            window_size=None,
            context_parallel_strategy=CPStrategy.RING,
            context_parallel_causal_load_balanced=True,
            context_parallel_axis="context",
            stripe_size=None,
        )


def start_communication(num_experts, capacity):
    """As a private build of Transformer Engine has it."""
    tex.ep_bootstrap(jax.process_count(), jax.process_index(), num_experts, capacity)
