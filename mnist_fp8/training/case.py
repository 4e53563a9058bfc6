"""The network of this project, and its train step, as a case of the contract for users' models."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mnist_fp8 import te
from mnist_fp8.core.modes import Precision, RecipeConfig
from mnist_fp8.model import Case
from mnist_fp8.training import train
from mnist_fp8.training.config import TrainConfig

BATCH = 32
"""Images. Block-scaled recipes take no fewer."""
POOLING = 4
"""Pixels of a block's side: small images train the same dense layers on fewer pixels."""


def mnist(recipe: Any, *, boxed: bool = False) -> Case:  # noqa: ANN401 - of the installed Transformer Engine
    """The network with random images, trained with SGD and dropout.

    Args:
        recipe: of Transformer Engine; ``None`` computes in BF16.
        boxed: leave the parameters in the boxes in which Transformer Engine may put them.
    """
    precision = Precision.TE_FP8 if recipe else Precision.TE_BF16
    options = te.recipe_config(recipe) if recipe else RecipeConfig()
    config = TrainConfig(precision=precision, recipe=options, batch_size=BATCH, pooling=POOLING)
    state, metadata = train.create_train_state(config, boxed=boxed)
    images, labels = _batch(BATCH, 28 // POOLING)

    def apply(variables: Mapping[str, Any], images: jax.Array) -> jax.Array:
        with state.mode():
            rngs = {"sr_rng": jax.random.key(0)}  # for a recipe that rounds stochastically
            logits: jax.Array = state.apply_fn(variables, images, rngs=rngs)
        return logits

    return Case(
        apply=apply,
        variables={"params": state.params, **metadata},
        inputs=(images,),
        train_step=_train_step,
        state={"train_state": state, "metadata": metadata},
        batch=(images, labels),
        enters_autocast=True,
    )


def _train_step(state: Mapping[str, Any], images: jax.Array, labels: jax.Array) -> dict[str, Any]:
    """`train.train_step` with a key from the number of the step."""
    key = jax.random.fold_in(jax.random.key(0), state["train_state"].step)
    following, metadata, _, _ = train.train_step(state["train_state"], state["metadata"], images, labels, key)
    return {"train_state": following, "metadata": metadata}


@functools.cache
def _batch(count: int, side: int) -> tuple[jax.Array, jax.Array]:
    image_key, label_key = jax.random.split(jax.random.key(0))
    images = jax.random.uniform(image_key, (count, side, side, 1))
    return images, jax.random.randint(label_key, (count,), 0, 10, jnp.int32)
