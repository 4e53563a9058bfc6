"""What train steps do with the metadata that TE returns: the right thing, and what real ones have done instead."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mnist_fp8 import te
from mnist_fp8.model import Case, Factory

Carry = Callable[[Any, Any, Any], Any]
"""``carry(old, new, grads)`` gives the metadata of the next step.

Of those that this step began with, those that TE returned as their gradient, and the gradients of the parameters.
"""


def taken(_old: Any, new: Any, _grads: Any) -> Any:
    """The right thing."""
    return new


def restored(old: Any, _new: Any, _grads: Any) -> Any:
    """The old ones are written over the new ones."""
    return old


def clipped(_old: Any, new: Any, grads: Any) -> Any:
    """Clipped together with the gradients."""
    clip = optax.clip_by_global_norm(1.0)
    together = {"params": grads, "metadata": new}
    return clip.update(together, clip.init(together))[0]["metadata"]


def rounded(_old: Any, new: Any, _grads: Any) -> Any:
    """Cast to BF16 on their way."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(leaf.dtype), new)


def optimized(old: Any, new: Any, _grads: Any) -> Any:
    """Taken for gradients by SGD."""
    return _updated(optax.sgd(0.1), old, new)


def optimized_by_adam(old: Any, new: Any, _grads: Any) -> Any:
    """Taken for gradients by Adam, which makes steps of one size of all."""
    return _updated(optax.adam(1e-3), old, new)


def _updated(optimizer: optax.GradientTransformation, old: Any, new: Any) -> Any:
    return optax.apply_updates(old, optimizer.update(new, optimizer.init(old), old)[0])


CARRIES: Mapping[str, tuple[Carry, str]] = {
    "old names restored": (restored, "before the step"),
    "clipped": (clipped, "multiplied by"),
    "bf16": (rounded, "rounded to bfloat16"),
    "optimized": (optimized, "moved by an optimizer"),
    "optimized by Adam": (optimized_by_adam, "moved by an optimizer|not what TE returned"),
}
"""What goes wrong in any train step, with what a finding says of it."""


def shadowed(factory: Factory) -> Factory:
    """The recipe is lost on its way to a model that would take it from no other place."""

    def make(_recipe: Any) -> Case:
        return factory(None)

    return make


def with_options(factory: Factory, **options: Any) -> Factory:
    """A model that has its own recipe of the same name, with other options; ``None`` is TE's default."""

    def make(recipe: Any) -> Case:
        if recipe is None:
            return factory(None)
        asked = te.recipe_config(recipe)
        own = {name: value for name, value in options.items() if name in asked.options}
        return factory(te.make_recipe(dataclasses.replace(asked, **own)))

    return make


ENTERED: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "default history": ({"amax_history_len": None}, "^keeps 1024 amaxes; expected 8, from amax_history_len$"),
    "margin": ({"margin": 3}, "^scales follow from margin=3; expected margin=0, as"),
    "most recent amax": (
        {"amax_compute_algo": "most_recent"},
        "^scales follow from amax_compute_algo=most_recent; expected amax_compute_algo=max, as",
    ),
    "gradients in E4M3": (
        {"fp8_format": "E4M3"},
        "^scales follow from fp8_format=E4M3; expected fp8_format=HYBRID, as",
    ),
}
"""Options of the recipe that a model enters in the place of the one asked for, with what a finding says of it."""

IGNORED: Mapping[str, str] = {
    "amax_history_len": "^keeps 1024 amaxes; expected 4, from amax_history_len$",
    "margin": "^scales follow from margin=0; expected margin=2, as",
    "amax_compute_algo": "^scales follow from amax_compute_algo=max; expected amax_compute_algo=most_recent, as",
    "fp8_format": "^multiplies .*float8_e5m2.* backward; expected .* with DelayedScaling and fp8_format=E4M3$",
}
"""Options that a model leaves at their defaults, which were asked for, with what a finding says of it."""


def donated(factory: Factory, put_back: Callable[[Any, Any], Any]) -> Factory:
    """What a jitted step was given to overwrite is put back into the state: ``put_back(old, new)``."""

    def make(recipe: Any) -> Case:
        case = factory(recipe)

        def train_step(state: Any, *batch: Any) -> Any:
            assert case.train_step
            return put_back(state, case.train_step(state, *batch))

        return dataclasses.replace(case, train_step=train_step)

    return make
