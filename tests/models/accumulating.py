"""Two dense layers of TE, trained on gradients that are averaged over microbatches.

All microbatches are given the same metadata, and each returns its own: the largest amax counts, and the scale that
follows from it, which is the smallest. The model enters autocast itself.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from mnist_fp8 import te
from mnist_fp8.model import Case
from models import faults, seeds

METADATA = "fp8_metas"
Combine = Callable[[str, jax.Array], jax.Array]
"""``combine(name, stacked)`` makes one array of metadata of those of all microbatches."""


class Layers(nn.Module):
    """An MLP."""

    recipe: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """From (rows, width) to (rows, 32)."""
        with te.autocast(enabled=self.recipe is not None, recipe=self.recipe):
            hidden = nn.gelu(te.dense_general(features=64, name="inner")(x))
            y: jax.Array = te.dense_general(features=32, name="outer")(hidden)
        return y


def of_largest_amax(name: str, stacked: jax.Array) -> jax.Array:
    """The right rule."""
    return stacked.min(0) if "scale" in name else stacked.max(0)


def accumulating(
    recipe: Any, carry: faults.Carry = faults.taken, combine: Combine = of_largest_amax, seed: int = 0
) -> Case:
    """The case for a recipe."""
    x, target = jax.random.normal(seeds.key(0, seed), (2, 3, 32, 32), jnp.bfloat16)
    model, optimizer = Layers(recipe), optax.sgd(0.1)
    variables = model.init(seeds.key(1, seed), x[0])

    @jax.jit
    def train_step(state: Any, x: jax.Array, target: jax.Array) -> Any:
        def loss(variables: Any, x: jax.Array, target: jax.Array) -> jax.Array:
            return jnp.mean(jnp.square((model.apply(variables, x) - target).astype(jnp.float32)))

        def microbatch(_: None, batch: Any) -> tuple[None, Any]:
            return None, jax.grad(loss)(state["variables"], *batch)

        _, grads = jax.lax.scan(microbatch, None, (x, target))
        following = {}
        if METADATA in grads:
            combined = jax.tree_util.tree_map_with_path(lambda path, leaf: combine(path[-1].key, leaf), grads[METADATA])
            following[METADATA] = carry(state["variables"][METADATA], combined, grads["params"])
        mean = jax.tree.map(lambda leaf: leaf.mean(0), grads["params"])
        updates, optimizer_state = optimizer.update(mean, state["optimizer"])
        following["params"] = optax.apply_updates(state["variables"]["params"], updates)
        return {"variables": following, "optimizer": optimizer_state}

    state = {"variables": variables, "optimizer": optimizer.init(variables["params"])}
    return Case(
        apply=model.apply,
        variables=variables,
        inputs=(x[0],),
        train_step=train_step,
        state=state,
        batch=(x, target),
        enters_autocast=True,
    )
