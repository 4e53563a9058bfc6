"""Mistakes that a train step can hide, and correct models that look like mistakes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest

from mnist_fp8 import te
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.model import Case, require_none
from mnist_fp8.model.agreement import error_problems, rest_problems
from mnist_fp8.model.carrying import carrying_problems
from mnist_fp8.model.numerics import metadata_problems
from mnist_fp8.model.run import CURRENT, DELAYED
from models.small import METADATA, Deep, factory


def said(problems: Any) -> str:
    """All of them."""
    return "\n".join(map(str, problems))


def test_another_recipe_in_the_same_formats_is_named() -> None:
    assert "keeps no FP8 metadata, which DelayedScaling does" in said(
        metadata_problems(factory(Deep(), instead=CURRENT), DELAYED)
    )
    assert "keeps FP8 metadata, which Float8CurrentScaling does not" in said(
        metadata_problems(factory(Deep(), instead=DELAYED), CURRENT)
    )


@pytest.mark.parametrize("option", [{"margin": 3}, {"amax_compute_algo": "most_recent"}], ids=str)
def test_another_option_in_the_train_step_is_named(option: Mapping[str, Any]) -> None:
    other = RecipeConfig("DelayedScaling", amax_history_len=8, **option)
    assert "scale of kernel is" in said(carrying_problems(factory(Deep(), in_step=other), DELAYED))


@pytest.mark.parametrize("recipe", [CURRENT, DELAYED], ids=lambda recipe: recipe.name)
def test_step_that_trains_no_parameter_is_named(recipe: RecipeConfig) -> None:
    assert "has the same parameters after the step" in said(carrying_problems(factory(Deep(), trains=False), recipe))


def test_step_that_begins_with_the_first_parameters_again_is_named() -> None:
    made = factory(Deep())

    def case(recipe: Any) -> Case:
        right = made(recipe)

        def step(state: Any, x: jax.Array) -> Any:
            variables = {**state["variables"], "params": right.variables["params"]}
            return right.train_step({**state, "variables": variables}, x)

        return dataclasses.replace(right, train_step=step)

    problems = said(carrying_problems(case, DELAYED))
    assert "computes with variables/params/d0/kernel of before the last step" in problems


def test_moments_of_metadata_beside_them_are_nobody_s() -> None:
    require_none(carrying_problems(factory(Deep(), over_all=True), DELAYED))


def test_many_layers_in_a_row_come_to_rest() -> None:
    require_none(rest_problems(factory(Deep(layers=16)), DELAYED))


@pytest.mark.parametrize("recipe", [CURRENT, DELAYED], ids=lambda recipe: recipe.name)
def test_layer_that_begins_with_zeros_is_no_alarm(recipe: RecipeConfig) -> None:
    require_none(error_problems(factory(Deep(zeros=True)), recipe))


@pytest.mark.parametrize("axis", [0, 1])
def test_stacks_may_have_their_layers_in_any_axis(axis: int) -> None:
    class Stack(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            def body(layer: Any, x: jax.Array, _: None) -> tuple[jax.Array, None]:
                return layer(x), None

            stack = {"metadata_params": {nn.PARTITION_NAME: "layers"}, "split_rngs": {"params": True}, "length": 3}
            scan = nn.scan(body, {"params": 0, METADATA: axis}, **stack)
            return scan(te.dense_general(features=32, name="stacked"), x, None)[0]

    require_none(carrying_problems(factory(Stack()), DELAYED))


def test_history_of_another_shape_is_named() -> None:
    made = factory(Deep())

    def case(recipe: Any) -> Case:
        right = made(recipe)

        def cut(state: Any, x: jax.Array) -> Any:
            new = right.train_step(state, x)
            metas = new["variables"][METADATA]
            metas["d0"] = {name: leaf[:4] if leaf.shape == (8,) else leaf for name, leaf in metas["d0"].items()}
            return new

        return dataclasses.replace(right, train_step=cut)

    assert "has the shape (4,) after the step; expected (8,)" in said(carrying_problems(case, DELAYED))


def test_state_may_be_a_tuple() -> None:
    made = factory(Deep())

    def case(recipe: Any) -> Case:
        right = made(recipe)

        def step(state: Any, x: jax.Array) -> Any:
            new = right.train_step({"variables": state[0], "opt": state[1]}, x)
            return new["variables"], new["opt"], state[2] + 1

        state = (right.state["variables"], right.state["opt"], np.zeros((), np.int32))
        return dataclasses.replace(right, train_step=step, state=state)

    require_none(carrying_problems(case, DELAYED))
