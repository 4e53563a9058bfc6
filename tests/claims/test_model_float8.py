"""Claim: a model multiplies quantized operands in each layer of TE that it calls, and in none without a recipe.

The model is the one that ``--model`` names, or the network of this project. Its layers are found in the program,
forward and backward, whatever modules, scans or checkpoints are around them. The options of a recipe are in force as
well, in the layers and in the train step, by what the layers were given and returned.

What a failure means for an upgrade: layers of the model are computed in another precision than was asked for.
"""

import pytest

from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.model import require_none
from mnist_fp8.model.agreement import error_problems
from mnist_fp8.model.float8 import float8_problems
from mnist_fp8.model.options import WITH_OPTIONS, options_problems
from support.models import QUANTIZED, factory, in_modes

pytestmark = pytest.mark.filterwarnings("default")  # what a user's code warns of is no failure


@in_modes()
def test_products_have_the_operands_of_the_recipe(recipe: RecipeConfig | None) -> None:
    require_none(float8_problems(factory(), recipe))


@in_modes(*WITH_OPTIONS, need="model_options")
def test_options_of_the_recipe_are_in_force(recipe: RecipeConfig) -> None:
    """The recipe is asked for with all of its options, none of them as it is by default."""
    require_none(options_problems(factory(), recipe))


@in_modes(*QUANTIZED)
def test_output_is_another_one_than_in_bf16_and_close_to_it(recipe: RecipeConfig) -> None:
    require_none(error_problems(factory(), recipe))
