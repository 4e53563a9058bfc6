"""Small models of one module, with a train step of a tree of arrays; and the same with something unusual or wrong."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from mnist_fp8 import te
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.model import Case

METADATA = "fp8_metas"
ADAMW = optax.adamw(1e-2)


class Deep(nn.Module):
    """Dense layers of TE in a row, the last one beginning with zeros if that is asked for."""

    layers: int = 2
    zeros: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply them."""
        for number in range(self.layers):
            last = self.zeros and number == self.layers - 1
            options = {"kernel_init": nn.initializers.zeros} if last else {}
            x = te.dense_general(features=32, name=f"d{number}", **options)(x)
        return x


def step_of(apply: Any, optimizer: Any, *, trains: bool = True, over_all: bool = False) -> Any:
    """A train step; wrong where it does not train, unusual where the optimizer has moments of the metadata, too."""

    @jax.jit
    def step(state: Mapping[str, Any], x: jax.Array) -> dict[str, Any]:
        def loss(variables: Any) -> jax.Array:
            return jnp.mean(jnp.square(apply(variables, x).astype(jnp.float32) - 1))

        variables = state["variables"]
        grads = jax.grad(loss)(variables)
        own = variables if over_all else variables["params"]
        updates, opt = optimizer.update(grads if over_all else grads["params"], state["opt"], own)
        moved = optax.apply_updates(own, updates)
        params = moved["params"] if over_all else moved
        kept = {METADATA: grads[METADATA]} if METADATA in grads else {}
        return {"variables": {"params": params if trains else variables["params"], **kept}, "opt": opt}

    return step


def factory(
    module: nn.Module,
    *,
    instead: RecipeConfig | None = None,
    in_step: RecipeConfig | None = None,
    optimizer: Any = ADAMW,
    **step: Any,
) -> Any:
    """A factory for a module; with another recipe than is asked for, all the time or in the train step."""

    def case(recipe: Any) -> Case:
        asked = te.recipe_config(recipe) if recipe else None
        mode = te.Autocast(instead if instead and recipe else asked)
        x = jax.random.normal(jax.random.key(0), (32, 32), jnp.bfloat16)
        with mode():
            variables = te.unbox(module.init(jax.random.key(1), x))

        def apply(variables: Any, x: jax.Array, mode: te.Autocast = mode) -> Any:
            with mode():
                return module.apply(variables, x)

        def train_apply(variables: Any, x: jax.Array) -> Any:
            return apply(variables, x, te.Autocast(in_step) if in_step and recipe else mode)

        over = variables if step.get("over_all") else variables["params"]
        return Case(
            apply=apply,
            variables=variables,
            inputs=(x,),
            train_step=step_of(train_apply, optimizer, **step),
            state={"variables": variables, "opt": optimizer.init(over)},
            enters_autocast=True,
        )

    return case
