"""Dense layers of TE of which a train step leaves some out: one is frozen, one conditional, and one not used at all.

The metadata of these have zeros for a gradient, and are to stay as they are. The recipe is that of the autocast around.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mnist_fp8 import te
from mnist_fp8.model import Case
from models import faults, seeds

METADATA = "fp8_metas"
LAYERS = ("always", "frozen", "sometimes", "never")
Keep = Callable[[Any, Any], Any]
"""``keep(old, new)`` gives a layer's metadata for the next step."""


def where_unused(old: Any, new: Any) -> Any:
    """The right rule: a layer that the step leaves out has zeros for a gradient, and a scale is never zero."""
    used = functools.reduce(jnp.logical_or, [jnp.any(leaf != 0) for leaf in jax.tree.leaves(new)])
    return jax.tree.map(functools.partial(jnp.where, used), new, old)


def apply(variables: Mapping[str, Any], x: jax.Array, is_deep: jax.Array) -> jax.Array:
    """A layer, the output of a frozen one, and another layer if it is wanted."""

    def dense(name: str, x: jax.Array) -> jax.Array:
        of_layer = {collection: layers[name] for collection, layers in variables.items()}
        # In FP8, TE gives the gradient of a kernel in the input's dtype, and `cond` wants it in the kernel's.
        of_layer["params"] = jax.tree.map(lambda leaf: leaf.astype(x.dtype), of_layer["params"])
        y: jax.Array = te.dense_general(features=32).apply(of_layer, x)
        return y

    y = dense("always", x) + jax.lax.stop_gradient(dense("frozen", x))
    return jax.lax.cond(is_deep, lambda y: y + dense("sometimes", y), lambda y: y, y)


def branches(_recipe: Any, carry: faults.Carry = faults.taken, keep: Keep = where_unused, seed: int = 0) -> Case:
    """The case for the recipe of the autocast around. The batch leaves the conditional layer out."""
    x, target = jax.random.normal(seeds.key(0, seed), (2, 32, 32), jnp.bfloat16)
    variables: dict[str, dict[str, Any]] = {}
    for number, name in enumerate(LAYERS):
        of_layer = te.dense_general(features=32).init(seeds.key(number, seed), x)
        for collection in of_layer:
            variables.setdefault(collection, {})[name] = of_layer[collection]
    optimizer = optax.sgd(0.1)

    @jax.jit
    def train_step(state: Any, x: jax.Array, is_deep: jax.Array, target: jax.Array) -> Any:
        def loss(variables: Any) -> jax.Array:
            return jnp.mean(jnp.square((apply(variables, x, is_deep) - target).astype(jnp.float32)))

        grads = jax.grad(loss)(state)
        updates, _ = optimizer.update(grads["params"], optimizer.init(state["params"]))
        following = {"params": optax.apply_updates(state["params"], updates)}
        if METADATA in grads:
            returned = carry(state[METADATA], grads[METADATA], grads["params"])
            following[METADATA] = {name: keep(state[METADATA][name], returned[name]) for name in returned}
        return following

    return Case(
        apply=apply,
        variables=variables,
        inputs=(x, jnp.ones((), bool)),
        train_step=train_step,
        state=variables,
        batch=(x, jnp.zeros((), bool), target),
    )
