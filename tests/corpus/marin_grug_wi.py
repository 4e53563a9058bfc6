"""Mixture of experts in the style of marin's experiments, at the fused block as it is now. Written for Transformer Engine 2.19."""

import threading

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

try:
    from transformer_engine.jax.ep import ep_bootstrap
    from transformer_engine.jax.moe import (
        moe as te_moe,
    )
    from transformer_engine.jax.moe import (
        record_ep_bootstrap_signature_for_moe,
    )
    from transformer_engine.jax.sharding import MeshResource, global_shard_guard

    IMPORT_ERROR = None
except ImportError as error:
    ep_bootstrap = te_moe = record_ep_bootstrap_signature_for_moe = None
    MeshResource = global_shard_guard = None
    IMPORT_ERROR = error

_LOCK = threading.Lock()
_SIZES = {}


def bootstrap(mesh, *, num_experts, tokens_per_rank, capacity, hidden_dim):
    """Start the communicators once for the process."""
    if IMPORT_ERROR is not None:
        raise RuntimeError("the fused block needs a Transformer Engine with expert parallelism") from IMPORT_ERROR
    ep_size = mesh.shape["expert"]
    resource = MeshResource(fsdp_resource="data", ep_resource="expert")
    with _LOCK, mesh, global_shard_guard(resource):
        if _SIZES:
            return
        ep_bootstrap(
            world_size=jax.process_count(),
            rank=jax.process_index(),
            num_experts=num_experts,
            max_tokens_per_rank=tokens_per_rank,
            recv_capacity_per_rank=capacity,
            hidden_dim=hidden_dim,
        )
        record_ep_bootstrap_signature_for_moe(num_experts, tokens_per_rank, capacity, hidden_dim, ep_size)
        _SIZES["capacity"] = capacity


def block(x, gate, w_gate, w_up, w_down, bias, *, num_experts, topk, scale, mesh, data_axes):
    """One block of experts."""

    def body(x, gate, w_gate, w_up, w_down, bias):
        out, aux_loss, _ = te_moe(
            x,
            gate,
            jnp.stack([w_gate, w_up], axis=-2),
            w_down,
            expert_bias=bias,
            num_experts=num_experts,
            num_experts_per_tok=topk,
            activation_type="silu",
            score_function="sigmoid",
            scaling_factor=float(scale),
            aux_loss_coeff=0.0,
            ep_axis="expert",
            data_parallelism_axes=data_axes,
            input_axes=(),
            gate_kernel_axes=(),
            wi_kernel_axes=(),
            wo_kernel_axes=(),
            dtype=x.dtype,
        )
        assert aux_loss is None
        return out

    out_spec = P((*data_axes, "expert"), None, None)
    mapped = jax.sharding.auto_axes(body, axes=tuple(mesh.axis_names), out_sharding=out_spec)
    return mapped(x, gate, w_gate, w_up, w_down, bias.astype(jnp.float32))
