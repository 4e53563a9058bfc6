"""Tests of the GPU that a host run pretends to have."""

import importlib
from typing import Any

import pytest

from mnist_fp8 import te
from mnist_fp8.core.modes import BLOCK_SCALED, RecipeConfig
from mnist_fp8.te import host, pretended

pytestmark = pytest.mark.host


def what_transformer_engine_sees() -> int:
    """The compute capability, as TE's own function has it, which keeps its answer."""
    utilities: Any = importlib.import_module("transformer_engine.jax.quantize.device_utils")
    capability: int = utilities.get_device_compute_capability(0)
    return capability


def test_capability_is_asked_for_again_and_then_as_before() -> None:
    found = [what_transformer_engine_sees()]
    with pretended.pretending(host.BLACKWELL):
        found.append(what_transformer_engine_sees())
        with pretended.pretending(host.HOPPER):
            found.append(what_transformer_engine_sees())
        found.append(what_transformer_engine_sees())
    found.append(what_transformer_engine_sees())
    assert found == [90, 100, 90, 100, 90]


def test_capability_is_as_before_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), pretended.pretending(host.BLACKWELL):
        raise ZeroDivisionError
    assert what_transformer_engine_sees() == host.HOPPER


@pytest.mark.parametrize("name", BLOCK_SCALED)
def test_block_scaled_recipe_sees_a_blackwell(name: str) -> None:
    with te.autocast(enabled=True, recipe=te.make_recipe(RecipeConfig(name))):
        assert what_transformer_engine_sees() == host.BLACKWELL
    assert what_transformer_engine_sees() == host.HOPPER


def test_other_recipes_and_none_see_a_hopper() -> None:
    for recipe in (RecipeConfig(), RecipeConfig("Float8CurrentScaling"), None):
        with te.Autocast(recipe)():
            assert what_transformer_engine_sees() == host.HOPPER


def test_recipe_that_is_not_in_force_changes_nothing() -> None:
    with te.autocast(enabled=False, recipe=te.make_recipe(RecipeConfig("MXFP8BlockScaling"))):
        assert what_transformer_engine_sees() == host.HOPPER
