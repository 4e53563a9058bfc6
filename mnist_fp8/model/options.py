"""The options of the recipe that was asked for are in force, in each layer of TE and in the train step."""

from collections.abc import Mapping

from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.model.carrying import carrying_problems
from mnist_fp8.model.case import Factory
from mnist_fp8.model.float8 import float8_problems
from mnist_fp8.model.numerics import metadata_problems
from mnist_fp8.model.problems import Problem
from mnist_fp8.model.run import CURRENT, DELAYED, HISTORY, why_no_case

WITH_OPTIONS: Mapping[str, RecipeConfig] = {
    CURRENT.name: RecipeConfig(CURRENT.name, fp8_format="E4M3"),
    DELAYED.name: RecipeConfig(
        DELAYED.name,
        margin=2,
        fp8_format="E4M3",
        amax_history_len=HISTORY // 2,
        amax_compute_algo="most_recent",
    ),
}
"""Recipes by name with no option at its default: a model that leaves one out computes something else."""


def options_problems(factory: Factory, recipe: RecipeConfig) -> list[Problem]:
    """What a model does otherwise than a recipe's options say.

    Nothing is asked of recipes that are not in `WITH_OPTIONS`, nor where the factory has no case with these options.
    """
    asked = WITH_OPTIONS.get(recipe.name)
    if asked is None or why_no_case(factory, asked):
        return []
    # The train step repeats what is wrong with the model, which needs to be said once.
    return [*float8_problems(factory, asked), *metadata_problems(factory, asked)] or carrying_problems(factory, asked)
