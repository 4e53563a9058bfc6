"""The claims on a model, by name: each is a function of a factory and a recipe, and gives what does not hold."""

from collections.abc import Callable, Mapping
from functools import partial

from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.model import agreement, carrying, checkpoints, float8, numerics, options
from mnist_fp8.model.case import Factory
from mnist_fp8.model.problems import Problem
from mnist_fp8.model.run import CURRENT, DELAYED

Claim = Callable[[Factory, RecipeConfig], list[Problem]]

RECIPES: tuple[RecipeConfig, ...] = (CURRENT, DELAYED)
"""The recipes that every GPU with FP8 has."""

CLAIMS: Mapping[str, Claim] = {
    "each product has the operands of the recipe": float8.float8_problems,
    "each layer computes what its operands give": numerics.numerics_problems,
    "each layer keeps its metadata as the recipe says": numerics.metadata_problems,
    "the options of the recipe are in force": options.options_problems,
    "delayed scaling at rest is current scaling": agreement.rest_problems,
    "the output stays close to the one in BF16": agreement.error_problems,
    "without a recipe nothing depends on metadata": agreement.fallback_problems,
    "first parameters do not depend on the recipe": agreement.parameter_problems,
    "no program of another recipe answers": agreement.staleness_problems,
    "after a train step the state holds what TE returned": carrying.carrying_problems,
    **{
        f"a state restored by {store} trains on": partial(checkpoints.checkpoint_problems, store=store)
        for store in checkpoints.STORES
    },
}
"""In the order from what is found in a program to what a train step makes of it."""
