"""Two of TE's transformer layers in Flax Linen, and a ``TrainState`` of Flax with a field for the metadata.

The recipe is that of the autocast around: the model does not know it. The train step donates its state.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training import train_state

from mnist_fp8 import te
from mnist_fp8.model import Case
from models import faults, seeds

METADATA = "fp8_metas"


class Layers(nn.Module):
    """Two encoder layers."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """From (batch, length, hidden) to the same."""
        for number in range(2):
            layer = te.engine().module.flax.TransformerLayer(
                hidden_size=64,
                mlp_hidden_size=128,
                num_attention_heads=4,
                hidden_dropout=0.0,
                attention_dropout=0.0,
                intermediate_dropout=0.0,
                self_attn_mask_type="causal",
                enable_relative_embedding=False,
                transpose_batch_sequence=False,
                name=f"layer_{number}",
            )
            x = layer(x, deterministic=True)
        return x


class TrainState(train_state.TrainState):
    """Flax's, with metadata."""

    fp8_metas: Any


def transformer(_recipe: Any, carry: faults.Carry = faults.taken, seed: int = 0) -> Case:
    """The case for the recipe of the autocast around."""
    x, target = jax.random.normal(seeds.key(0, seed), (2, 4, 32, 64), jnp.bfloat16)
    model = Layers()
    variables = model.init(seeds.key(1, seed), x)
    own = jax.tree.map(jnp.copy, variables)  # the step donates them
    state = TrainState.create(
        apply_fn=model.apply, params=own["params"], tx=optax.adamw(1e-3), fp8_metas=own.get(METADATA, {})
    )
    train_step = jax.jit(functools.partial(_train_step, carry), donate_argnums=0)
    return Case(
        apply=model.apply,
        variables=variables,
        inputs=(x,),
        train_step=train_step,
        state=state,
        batch=(x, target),
    )


def _train_step(carry: faults.Carry, state: TrainState, x: jax.Array, target: jax.Array) -> TrainState:
    def loss(params: Any, metadata: Any) -> jax.Array:
        y = state.apply_fn({"params": params, METADATA: metadata}, x)
        return jnp.mean(jnp.square((y - target).astype(jnp.float32)))

    grads, metadata = jax.grad(loss, argnums=(0, 1))(state.params, state.fp8_metas)
    return state.apply_gradients(grads=grads, fp8_metas=carry(state.fp8_metas, metadata, grads))
