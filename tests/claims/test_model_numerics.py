"""Claim: the layers of a model compute what their operands give, forward and backward, and keep their own metadata.

The model is the one that ``--model`` names, or the network of this project. Each call of a layer is held to the oracle
on the tensors that it saw inside the model: products, and those that are fused with a layer norm or are all of an MLP.

What a failure means for an upgrade: layers of the model compute something else, or scale with wrong numbers.
"""

import pytest

from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.model import require_none
from mnist_fp8.model.agreement import rest_problems
from mnist_fp8.model.numerics import metadata_problems, numerics_problems
from mnist_fp8.model.run import CURRENT, DELAYED
from support.models import QUANTIZED, factory, in_modes

pytestmark = pytest.mark.filterwarnings("default")  # what a user's code warns of is no failure


@in_modes()
def test_layers_compute_what_their_operands_give(recipe: RecipeConfig | None) -> None:
    require_none(numerics_problems(factory(), recipe))


@in_modes(need="oracle_of_each_layer")
def test_all_layers_compute_what_their_operands_give(recipe: RecipeConfig | None) -> None:
    """Where the model has layers without an oracle, this says so: the test above does not verify them."""
    require_none(numerics_problems(factory(), recipe))


@in_modes(*QUANTIZED)
def test_layers_keep_metadata_as_the_recipe_says(recipe: RecipeConfig) -> None:
    require_none(metadata_problems(factory(), recipe))


@in_modes(DELAYED.name, need="rest")
@pytest.mark.recipe(CURRENT.name)
def test_delayed_scaling_at_rest_is_current_scaling(recipe: RecipeConfig) -> None:
    require_none(rest_problems(factory(), recipe))
