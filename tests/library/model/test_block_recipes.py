"""The claims on a model in block-scaled recipes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from mnist_fp8 import te
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.model import CLAIMS, Case, require_none
from mnist_fp8.model.agreement import error_problems, fallback_problems
from mnist_fp8.model.float8 import float8_problems
from mnist_fp8.model.numerics import layers_without_oracle, numerics_problems
from mnist_fp8.model.run import MODES, why_no_case
from models.functional import functional

pytestmark = pytest.mark.host
MXFP8, NVFP4 = MODES["MXFP8BlockScaling"], MODES["NVFP4BlockScaling"]
ROTATED = RecipeConfig("NVFP4BlockScaling", disable_stochastic_rounding=True)
RECIPES = pytest.mark.parametrize("recipe", [MXFP8, NVFP4, ROTATED], ids=["mxfp8", "nvfp4", "nearest"])


@functools.cache
def model(batch: int = 32, features: int = 64, *, autocast: bool = True) -> Any:
    """The factory of a dense layer that enters autocast by itself, or not at all."""

    def factory(recipe: Any) -> Case:
        layer = te.dense_general(features=features, use_bias=False, dtype=jnp.float32)
        mode = te.Autocast(te.recipe_config(recipe) if recipe and autocast else None)
        x = jax.random.normal(jax.random.key(0), (batch, 96), jnp.bfloat16)
        keys = {"params": jax.random.key(1), "sr_rng": jax.random.key(2)}

        def apply(variables: Any, x: jax.Array) -> jax.Array:
            with mode():
                y: jax.Array = layer.apply(variables, x, rngs={"sr_rng": keys["sr_rng"]})
            return y

        with mode():
            variables = layer.init(keys, x)
        return Case(apply=apply, variables=variables, inputs=(x,), enters_autocast=True)

    return factory


@RECIPES
def test_nothing_is_said_of_a_model_that_is_right(recipe: RecipeConfig) -> None:
    assert not why_no_case(model(), recipe)
    for problems in (float8_problems, fallback_problems, error_problems):
        require_none(problems(model(), recipe))


def test_numbers_are_held_to_the_oracle() -> None:
    assert not layers_without_oracle(model(), MXFP8)
    require_none(numerics_problems(model(), MXFP8))


@pytest.mark.parametrize("claim", CLAIMS)
def test_nothing_is_wrong_with_a_model_of_pure_functions(claim: str) -> None:
    assert MXFP8
    require_none(CLAIMS[claim](functional, MXFP8))


def test_random_numbers_are_not_predicted() -> None:
    assert layers_without_oracle(model(), NVFP4)


@RECIPES
def test_recipe_that_is_not_in_force_is_named(recipe: RecipeConfig) -> None:
    (problem, *_) = float8_problems(model(autocast=False), recipe)
    assert "bfloat16 by bfloat16" in problem.what


@pytest.mark.parametrize(("batch", "features"), [(16, 64), (32, 48)])
def test_model_whose_sizes_do_not_fit_is_not_judged_and_says_why(batch: int, features: int) -> None:
    assert "divisible by block" in why_no_case(model(batch, features), MXFP8)


def test_another_recipe_is_no_reason_to_leave_a_model_out() -> None:
    def factory(_recipe: Any) -> Case:
        raise ValueError("broken")

    assert "broken" in why_no_case(factory, MXFP8)
    with pytest.raises(Exception, match="broken"):
        why_no_case(factory, MODES["Float8CurrentScaling"])
