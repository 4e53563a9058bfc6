"""Claim: after each train step, the state of a model holds exactly the metadata that TE's layers returned.

The model is the one that ``--model`` names, or the network of this project. Whatever carries the metadata, they are not
those of before, nor clipped, averaged, decayed or cast. A state that was saved and restored trains on to the bit.

What a failure means for an upgrade: scales do not follow the tensors any more, and training degrades without an error.
"""

import pytest

from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.model import require_none
from mnist_fp8.model.carrying import carrying_problems
from mnist_fp8.model.checkpoints import checkpoint_problems
from support.models import factory, in_modes

pytestmark = pytest.mark.filterwarnings("default")  # what a user's code warns of is no failure


@in_modes(need="train_step")
def test_state_holds_what_te_returned(recipe: RecipeConfig | None) -> None:
    require_none(carrying_problems(factory(), recipe))


@in_modes(need="train_step")
@pytest.mark.parametrize("store", ["msgpack", pytest.param("Orbax", marks=pytest.mark.orbax)])
def test_restored_state_trains_on(recipe: RecipeConfig | None, store: str) -> None:
    require_none(checkpoint_problems(factory(), recipe, store))
