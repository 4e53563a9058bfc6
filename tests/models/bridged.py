"""A model in NNX with a dense layer of TE behind ``nnx.bridge.ToNNX``, and a train step of a tree of arrays.

What ``nnx.grad`` differentiates has to be said: by default it is the parameters alone. The model enters
autocast itself.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from mnist_fp8 import te
from mnist_fp8.model import Case
from models import faults, seeds

Metadata = nnx.variable_type_from_name("fp8_metas", allow_register=True)
"""The type of variable that the bridge makes of TE's collection."""
WITH_METADATA = nnx.Any(nnx.Param, Metadata)
"""What is to be differentiated."""


class Model(nnx.Module):
    """A layer of NNX and one of TE."""

    def __init__(self, recipe: Any, x: jax.Array, rngs: Any) -> None:
        self.recipe = recipe
        self.inner = nnx.Linear(x.shape[-1], 64, dtype=jnp.bfloat16, rngs=rngs)
        self.outer = nnx.bridge.ToNNX(te.dense_general(features=32), rngs=rngs)
        with te.autocast(enabled=recipe is not None, recipe=recipe):
            nnx.bridge.lazy_init(self.outer, self.inner(x))

    def __call__(self, x: jax.Array) -> jax.Array:
        """From (rows, width) to (rows, 32)."""
        with te.autocast(enabled=self.recipe is not None, recipe=self.recipe):
            y: jax.Array = self.outer(nnx.silu(self.inner(x)))
        return y


def bridged(
    recipe: Any, carry: faults.Carry = faults.taken, differentiated: Any = WITH_METADATA, seed: int = 0
) -> Case:
    """The case for a recipe."""
    x, target = jax.random.normal(seeds.key(0, seed), (2, 32, 32), jnp.bfloat16)
    model = Model(recipe, x, nnx.Rngs(seeds.key(1, seed)))
    structure, params, metadata, rest = nnx.split(model, nnx.Param, Metadata, ...)
    trained, state = nnx.split((model, nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)))

    def apply(variables: Any, x: jax.Array) -> Any:
        return nnx.merge(structure, variables["params"], variables["fp8_metas"], rest, copy=True)(x)

    @jax.jit
    def train_step(state: Any, x: jax.Array, target: jax.Array) -> Any:
        model, optimizer = nnx.merge(trained, state)

        def loss(model: Model) -> jax.Array:
            return jnp.mean(jnp.square((model(x) - target).astype(jnp.float32)))

        both = nnx.grad(loss, argnums=nnx.DiffState(0, differentiated))(model)
        grads, new = nnx.split_state(both, nnx.Param, ...)
        kept = carry(nnx.state(model, Metadata), new, grads)
        optimizer.update(model, grads)
        nnx.update(model, kept)
        return nnx.state((model, optimizer))

    return Case(
        apply=apply,
        variables={"params": params, "fp8_metas": metadata},
        inputs=(x,),
        train_step=train_step,
        state=state,
        batch=(x, target),
        enters_autocast=True,
    )
