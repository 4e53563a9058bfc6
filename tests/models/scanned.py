"""Blocks in the style of MaxText: scanned and rematerialised, their products given a recipe at their construction.

Parameters and metadata are one tree of variables. Flax's ``TrainState`` keeps the latter from the optimizer, and takes
their gradient for their next value. The train step donates its state.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState

from mnist_fp8 import te
from mnist_fp8.model import Case
from models import faults, seeds

METADATA = "_overwrite_with_gradient"


class Block(nn.Module):
    """A gated MLP with a residual, whose products are by a recipe; ``None`` is BF16."""

    recipe: Any

    @nn.compact
    def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        """From (batch, length, width) to the same."""
        gate, up = self.dense("gate", 128)(x), self.dense("up", 128)(x)
        return x + self.dense("down", x.shape[-1])(nn.silu(gate) * up), None

    def dense(self, name: str, features: int) -> nn.Dense:
        """Flax's dense layer with TE's product."""
        product = te.find_name("flax", "make_dot_general_cls")(self.recipe)
        return nn.Dense(features, use_bias=False, dtype=jnp.bfloat16, dot_general=product(), name=name)


def scanned(recipe: Any, carry: faults.Carry = faults.taken, seed: int = 0) -> Case:
    """The case for a recipe, in no autocast."""
    x, target = jax.random.normal(seeds.key(0, seed), (2, 4, 32, 64), jnp.bfloat16)
    blocks = nn.scan(
        nn.remat(Block, prevent_cse=False),
        length=3,
        variable_axes={"params": 0, METADATA: 0},
        split_rngs={"params": True},
        metadata_params={nn.PARTITION_NAME: "layers"},
    )
    model = blocks(recipe)
    with te.autocast(enabled=False):
        variables = model.init(seeds.key(1, seed), x, None)
    own = jax.tree.map(jnp.copy, variables)  # the step donates them
    state = TrainState.create(apply_fn=model.apply, params=own, tx=optax.adamw(1e-3))
    train_step = jax.jit(functools.partial(_train_step, carry), donate_argnums=0)

    def apply(variables: Any, x: jax.Array) -> Any:
        return model.apply(variables, x, None)[0]

    return Case(
        apply=apply,
        variables=variables,
        inputs=(x,),
        train_step=train_step,
        state=state,
        batch=(x, target),
        enters_autocast=True,
    )


def _train_step(carry: faults.Carry, state: TrainState, x: jax.Array, target: jax.Array) -> TrainState:
    def loss(variables: Any) -> jax.Array:
        y, _ = state.apply_fn(variables, x, None)
        return jnp.mean(jnp.square((y - target).astype(jnp.float32)))

    grads = jax.grad(loss)(state.params)
    if METADATA in grads:
        kept = carry(state.params[METADATA], grads[METADATA], grads["params"])
        grads = {**grads, METADATA: kept}
    return state.apply_gradients(grads=grads)
