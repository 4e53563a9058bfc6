"""Claim: a model in BF16 takes no notice of FP8 metadata, and no recipe leaves traces in another.

The model is the one that ``--model`` names, or the network of this project. Its first parameters are the same numbers
in every recipe, and a program that was compiled for one recipe does not answer for another.

What a failure means for an upgrade: a model that was trained in FP8 computes something else in BF16, or goes on in the
recipe of before.
"""

import pytest

from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.model import require_none
from mnist_fp8.model.agreement import fallback_problems, parameter_problems, staleness_problems
from support.models import QUANTIZED, factory, in_modes

pytestmark = pytest.mark.filterwarnings("default")  # what a user's code warns of is no failure


@in_modes(*QUANTIZED)
def test_bf16_takes_no_notice_of_metadata(recipe: RecipeConfig) -> None:
    require_none(fallback_problems(factory(), recipe))


@in_modes(*QUANTIZED)
def test_first_parameters_are_those_of_bf16(recipe: RecipeConfig) -> None:
    require_none(parameter_problems(factory(), recipe))


@in_modes(*QUANTIZED)
def test_no_program_of_another_recipe_answers(recipe: RecipeConfig) -> None:
    require_none(staleness_problems(factory(), recipe))
