"""Mixture of experts in the style of MaxText's branches. Written for Transformer Engine 2.15 and later."""

import jax.numpy as jnp

try:
    from transformer_engine.jax.router import ScoreFunction, fused_moe_aux_loss, fused_topk_with_score_function

    HAS_ROUTER = True
except ImportError:
    HAS_ROUTER = False
    ScoreFunction = fused_moe_aux_loss = fused_topk_with_score_function = None

from transformer_engine.common.recipe import MXFP8BlockScaling
from transformer_engine.jax import flax as te_flax
from transformer_engine.jax.permutation import sort_chunks_by_index, token_combine, token_dispatch
from transformer_engine.jax.quantize import (
    QuantizeMeta,
    QuantizeMetaSet,
    QuantizerFactory,
    QuantizerSet,
    TensorSource,
    get_quantize_config_with_recipe,
)


def route(logits, topk, score, bias=None, groups=-1, group_topk=-1, scaling=1.0):
    """Probabilities of the experts taken, and which these are."""
    if not HAS_ROUTER:
        raise ImportError("routing needs Transformer Engine's router")
    function = ScoreFunction.SIGMOID if score == "sigmoid" else ScoreFunction.SOFTMAX
    probabilities, routing_map = fused_topk_with_score_function(
        logits,
        topk=topk,
        use_pre_softmax=False,
        num_groups=groups,
        group_topk=group_topk,
        scaling_factor=scaling,
        score_function=function,
        expert_bias=bias,
    )
    return probabilities, routing_map


def balance_loss(logits, topk, weight):
    """Loss that keeps experts equally busy."""
    scores, routing_map = fused_topk_with_score_function(logits, topk=topk, compute_aux_scores=True)
    tokens_per_expert = jnp.sum(routing_map.astype(jnp.int32), axis=0)
    return fused_moe_aux_loss(scores, tokens_per_expert, topk, weight)


def dispatch(tokens, routing_map, probabilities, topk, align_size):
    """Tokens in the order of their experts."""
    output, permuted, row_id_map, pad_offsets, tokens_per_expert = token_dispatch(
        tokens,
        routing_map,
        num_out_tokens=tokens.shape[0] * topk,
        probs=probabilities,
        align_size=align_size,
    )
    return output, permuted, row_id_map, pad_offsets, tokens_per_expert


def combine(tokens, row_id_map, probabilities, pad_offsets):
    """Tokens back in their own order."""
    return token_combine(tokens, row_id_map, merging_probs=probabilities, pad_offsets=pad_offsets)


def sort_by_expert(tokens, sizes, indices):
    """Chunks that came from other devices, sorted by expert."""
    ordered, row_id_map = sort_chunks_by_index(tokens, sizes, indices)
    return ordered, row_id_map


def expert_quantizers(n_token_groups, n_experts):
    """Quantizers whose groups differ between tokens and kernels."""
    recipe = MXFP8BlockScaling()
    config = get_quantize_config_with_recipe(recipe)
    meta = QuantizeMetaSet(x=QuantizeMeta(), kernel=QuantizeMeta(), grad=QuantizeMeta())
    tokens = QuantizerFactory.create_set(fp8_recipe=recipe, n_groups=n_token_groups, quantize_meta_set=meta)
    experts = QuantizerFactory.create_set(fp8_recipe=recipe, n_groups=n_experts, quantize_meta_set=meta)
    assert all(config.get_scaling_mode(source).is_mxfp8_scaling for source in TensorSource)
    return QuantizerSet(x=tokens.x, kernel=experts.kernel, dgrad=tokens.dgrad)


def ragged_dot(recipe):
    """The grouped product that Flax layers call."""
    return te_flax.make_grouped_dense_cls(recipe, quantization_checkpoint_name="quantization")
