"""A model of pure functions, as in Haiku: parameters in a dictionary of its own, and TE's function of a dense layer.

What TE keeps from step to step lies in the quantizers of each layer, which are trees of arrays: the state holds these,
and their gradient is what the next step uses. The gradients are averaged over microbatches.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mnist_fp8 import te
from mnist_fp8.model import Case
from models import faults, seeds

WIDTHS = {"inner": (32, 64), "outer": (64, 32)}
"""Of the layers: from and to."""
RATE = 0.1
Combine = Callable[[Any], Any]
"""``combine(stacked)`` makes one quantizer of those of all microbatches, whose arrays are stacked."""


def of_largest_amax(stacked: Any) -> Any:
    """The right rule."""
    return dataclasses.replace(stacked, scale=stacked.scale.min(0), amax_history=stacked.amax_history.max(0))


def last(stacked: Any) -> Any:
    """That of the last microbatch alone."""
    return jax.tree.map(lambda leaf: leaf[-1], stacked)


def quantizers(recipe: Any) -> Any:
    """The quantizers of a layer, for the recipe of the autocast around."""
    quantize = te.quantization()
    if not hasattr(recipe, "amax_history_len") or not hasattr(quantize, "QuantizeMetaSet"):
        return quantize.QuantizerFactory.create_set()  # before 2.9, it takes the length of the history from the recipe
    first: dict[str, Any] = {"scale": jnp.ones(1), "amax_history": jnp.zeros(recipe.amax_history_len)}
    if hasattr(quantize, "get_global_quantize_recipe"):  # since 2.10, these options are a quantizer's own
        config = quantize.get_quantize_config_with_recipe(recipe)
        first |= {"margin": config.MARGIN, "amax_compute_algo": config.AMAX_COMPUTE_ALGO}
    metadata = quantize.QuantizeMetaSet(*(quantize.QuantizeMeta(**first) for _ in range(3)))
    return quantize.QuantizerFactory.create_set(quantize_meta_set=metadata)


def first_params(name: str, seed: int) -> dict[str, jax.Array]:
    """The first parameters of a layer."""
    shape, key = WIDTHS[name], seeds.key(len(name) + WIDTHS[name][0], seed)
    return {"w": jax.random.normal(key, shape) / shape[0] ** 0.5, "b": jnp.zeros(shape[1])}


def forward(params: Mapping[str, Any], quantizers: Mapping[str, Any], x: jax.Array) -> jax.Array:
    """An MLP, from (rows, 32) to (rows, 32)."""

    def linear(name: str, x: jax.Array) -> jax.Array:
        own = jax.tree.map(lambda leaf: leaf.astype(x.dtype), params[name])
        y: jax.Array = te.find_name("dense", "dense")(x, own["w"], own["b"], quantizer_set=quantizers[name])
        return y

    return linear("outer", jax.nn.gelu(linear("inner", x)))


def functional(
    recipe: Any, carry: faults.Carry = faults.taken, combine: Combine = of_largest_amax, seed: int = 0
) -> Case:
    """The case for a recipe, in whose autocast this is called."""
    if type(recipe).__name__ == "NVFP4BlockScaling":
        raise NotImplementedError("its quantizers need random numbers, which the state does not hold")
    x, target = jax.random.normal(seeds.key(0, seed), (2, 3, 32, 32), jnp.bfloat16)
    state = {
        "params": {name: first_params(name, seed) for name in WIDTHS},
        "quantizers": {name: quantizers(recipe) for name in WIDTHS},
    }

    def loss(params: Any, quantizers: Any, x: jax.Array, target: jax.Array) -> jax.Array:
        return jnp.mean(jnp.square((forward(params, quantizers, x) - target).astype(jnp.float32)))

    @jax.jit
    def train_step(state: Any, x: jax.Array, target: jax.Array) -> Any:
        def microbatch(_: None, batch: Any) -> tuple[None, Any]:
            return None, jax.grad(loss, argnums=(0, 1))(state["params"], state["quantizers"], *batch)

        _, (grads, returned) = jax.lax.scan(microbatch, None, (x, target))
        returned = jax.tree.map(combine, returned, is_leaf=lambda node: hasattr(node, "amax_history"))
        return {
            "params": jax.tree.map(lambda leaf, grad: leaf - RATE * grad.mean(0), state["params"], grads),
            "quantizers": carry(state["quantizers"], returned, grads),
        }

    return Case(
        apply=lambda variables, x: forward(variables["params"], variables["quantizers"], x),
        variables=state,
        inputs=(x[0],),
        train_step=train_step,
        state=state,
        batch=(x, target),
    )
