"""Mistakes that a train step can hide, and correct models that look like mistakes."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mnist_fp8 import te
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.model import Case, Factory, agreement, require_none
from mnist_fp8.model.agreement import error_problems, rest_problems
from mnist_fp8.model.carrying import carrying_problems
from mnist_fp8.model.float8 import float8_problems
from mnist_fp8.model.numerics import metadata_problems
from mnist_fp8.model.run import CURRENT, DELAYED
from models.functional import functional
from models.small import ADAMW, METADATA, Deep, factory


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
    ((name, value),) = option.items()
    assert f"scales follow from {name}={value}; expected {name}=" in said(
        carrying_problems(factory(Deep(), in_step=other), DELAYED)
    )


@pytest.mark.parametrize("recipe", [CURRENT, DELAYED], ids=lambda recipe: recipe.name)
def test_step_that_trains_no_parameter_is_named(recipe: RecipeConfig) -> None:
    assert "has the same parameters after 16 steps" in said(carrying_problems(factory(Deep(), trains=False), recipe))


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


def test_average_of_quantizers_beside_them_is_nobody_s() -> None:
    def case(recipe: Any) -> Case:
        right = functional(recipe)

        def step(state: Any, *batch: Any) -> Any:
            assert right.train_step
            new = right.train_step(state["own"], *batch)
            return {"own": new, "ema": jax.tree.map(lambda old, new: (old + new) / 2, state["ema"], new)}

        return dataclasses.replace(right, train_step=step, state={"own": right.state, "ema": right.state})

    require_none(carrying_problems(case, DELAYED))


def test_many_layers_in_a_row_come_to_rest() -> None:
    require_none(rest_problems(factory(Deep(layers=16)), DELAYED))


@pytest.mark.parametrize(("off", "is_named"), [(0.0, False), (2.0**-8, False), (2.0**-6, True)])
def test_ties_explain_little_where_current_scales_are_inverted_otherwise(
    monkeypatch: pytest.MonkeyPatch, off: float, *, is_named: bool
) -> None:
    made = factory(Deep())

    def case(recipe: Any) -> Case:
        right = made(recipe)
        by = off * (getattr(recipe, "amax_history_len", 0) == 1)

        def apply(*given: Any) -> jax.Array:
            y = right.apply(*given).astype(jnp.float32)
            return y + jax.lax.stop_gradient(by * y)

        return dataclasses.replace(right, apply=apply)

    assert bool(rest_problems(case, DELAYED)) is bool(off), "Control: to the bit"
    agreement._error_at_rest.cache_clear()
    monkeypatch.setattr(agreement, "inverts_current_scales", lambda: False)
    assert bool(rest_problems(case, DELAYED)) is is_named


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


@pytest.mark.parametrize("more", [(), (0.5,)], ids=["alone", "with a loss"])
def test_state_may_be_a_tuple_that_loses_a_collection(more: tuple[Any, ...]) -> None:
    """The other variables still have the parameters at first: what a step returns of them has none."""
    made = factory(Deep())

    def case(recipe: Any) -> Case:
        right = made(recipe)

        def step(state: Any, x: jax.Array) -> Any:
            (parameters, opt), others = state
            new = right.train_step({"variables": {**others, "params": parameters}, "opt": opt}, x)
            variables = dict(new["variables"])
            return (variables.pop("params"), new["opt"]), variables, *more

        variables = right.state["variables"]
        return dataclasses.replace(right, train_step=step, state=((variables["params"], right.state["opt"]), variables))

    require_none(carrying_problems(case, DELAYED))


# --- layers that are not Transformer Engine's any more -----------------------------------------------------------


class Swapped(nn.Module):
    """Two layers, of which the second is Transformer Engine's or not."""

    own: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply them."""
        x = te.dense_general(features=32, name="first")(x)
        second = nn.Dense(32, dtype=x.dtype) if self.own else te.dense_general(features=32)
        y: jax.Array = second.copy(name="second")(x)
        return y


def with_step_of(model: Factory, step: Factory, **fields: Any) -> Factory:
    """The first model with the train step and state of the second."""

    def case(recipe: Any) -> Case:
        other = step(recipe)
        return dataclasses.replace(model(recipe), train_step=other.train_step, state=other.state, **fields)

    return case


ALL, FEWER = factory(Swapped(own=False)), factory(Swapped(own=True))


def test_layer_that_only_the_train_step_replaces_is_named() -> None:
    problems = said(carrying_problems(with_step_of(ALL, FEWER), DELAYED))
    assert re.search(r"step 1, second at .*: is a layer of .* in the model, and none in its train step", problems)


def test_layer_that_the_train_step_leaves_out_may_be_named_by_the_case() -> None:
    require_none(carrying_problems(with_step_of(ALL, FEWER, left_out=("second",)), DELAYED))


def test_layer_that_the_train_step_has_besides_is_no_alarm() -> None:
    require_none(carrying_problems(with_step_of(FEWER, ALL), DELAYED))


@pytest.mark.parametrize("replaced", [CURRENT, DELAYED], ids=lambda recipe: recipe.name)
def test_layer_that_one_recipe_replaces_is_named(replaced: RecipeConfig) -> None:
    def case(recipe: Any) -> Case:
        made: Case = (FEWER if recipe and te.recipe_config(recipe).name == replaced.name else ALL)(recipe)
        return made

    problems = said(float8_problems(case, replaced))
    assert re.search(rf"second at .*: is a layer of .* with no recipe, and none with {replaced.name}", problems)
    (other,) = {CURRENT, DELAYED} - {replaced}
    require_none(float8_problems(case, other))


def test_layer_that_is_replaced_everywhere_is_named_if_the_case_says_that_it_is_there() -> None:
    """By a pattern that is of no module any more; nothing else can know."""

    def expecting(made: Factory) -> Factory:
        return lambda recipe: dataclasses.replace(made(recipe), layers=("first", "second"))

    assert "second: calls no layer of Transformer Engine" in said(float8_problems(expecting(FEWER), DELAYED))
    require_none(float8_problems(expecting(ALL), DELAYED))


# --- steps that are not like the first ---------------------------------------------------------------------------


def counted(change: Any, *, every: int = 1, first: int = 0) -> Factory:
    """A train step that does something else with the metadata now and then: ``change(old, new)``."""
    made = factory(Deep())

    def case(recipe: Any) -> Case:
        right = made(recipe)

        @jax.jit
        def step(state: Any, x: jax.Array) -> Any:
            new = right.train_step(state["own"], x)
            number = state["number"] + 1
            is_wrong = (number > first) & (number % every == 0)
            changed = jax.tree.map(change, state["own"]["variables"][METADATA], new["variables"][METADATA])
            metadata = jax.tree.map(
                lambda right, wrong: jnp.where(is_wrong, wrong, right), new["variables"][METADATA], changed
            )
            return {"own": {**new, "variables": {**new["variables"], METADATA: metadata}}, "number": number}

        return dataclasses.replace(right, train_step=step, state={"own": right.state, "number": jnp.zeros((), int)})

    return case


@pytest.mark.parametrize(
    ("made", "step"),
    [(counted(lambda old, _: old, first=5), 6), (counted(lambda _, new: new / 2, every=10), 10)],
    ids=["from the sixth step on", "every tenth step"],
)
def test_mistake_of_a_later_step_is_named(made: Factory, step: int) -> None:
    assert f"step {step}, own/variables/{METADATA}/" in said(carrying_problems(made, DELAYED))


def scaled(keep: Any) -> Factory:
    """A train step whose loss is scaled so much that its gradients are not finite; by less after each such batch.

    ``keep(is_finite, old, new)`` makes the next state, without the scale.
    """
    made = factory(Deep())

    def case(recipe: Any) -> Case:
        right = made(recipe)

        @jax.jit
        def step(state: Any, x: jax.Array) -> Any:
            def loss(variables: Any) -> jax.Array:
                return jnp.mean(jnp.square(right.apply(variables, x).astype(jnp.float32) - 1)) * state["scale"] ** 2

            own = state["own"]
            grads = jax.grad(loss)(own["variables"])
            unscaled = jax.tree.map(lambda leaf: leaf / state["scale"] ** 2, grads["params"])
            is_finite = jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(unscaled)]))
            updates, opt = ADAMW.update(unscaled, own["opt"], own["variables"]["params"])
            params = optax.apply_updates(own["variables"]["params"], updates)
            new = {"variables": {"params": params, METADATA: grads[METADATA]}, "opt": opt}
            return {"own": keep(is_finite, own, new), "scale": state["scale"] / jnp.where(is_finite, 1, 2.0**30)}

        return dataclasses.replace(right, train_step=step, state={"own": right.state, "scale": jnp.float32(2.0**100)})

    return case


def kept(is_finite: jax.Array, old: Any, new: Any) -> Any:
    """All of the state, where a number is not finite."""
    return jax.tree.map(lambda old, new: jnp.where(is_finite, new, old), old, new)


def test_step_that_skips_a_batch_and_keeps_all_of_its_state_is_no_alarm() -> None:
    require_none(carrying_problems(scaled(kept), DELAYED))


def test_step_that_skips_a_batch_but_not_its_metadata_is_named() -> None:
    def parameters_alone(is_finite: jax.Array, old: Any, new: Any) -> Any:
        whole = kept(is_finite, old, new)
        return {**whole, "variables": {**whole["variables"], METADATA: new["variables"][METADATA]}}

    assert "is not finite after the step" in said(carrying_problems(scaled(parameters_alone), DELAYED))


def test_step_that_keeps_its_metadata_but_not_its_parameters_is_named() -> None:
    def metadata_alone(is_finite: jax.Array, old: Any, new: Any) -> Any:
        whole = kept(is_finite, old, new)
        return {**new, "variables": {**new["variables"], METADATA: whole["variables"][METADATA]}}

    assert "not finite after the step" in said(carrying_problems(scaled(metadata_alone), DELAYED))


def test_step_that_skips_each_batch_is_not_taken_for_a_right_one() -> None:
    def never(_: jax.Array, old: Any, __: Any) -> Any:
        return old

    def case(recipe: Any) -> Case:
        right = scaled(never)(recipe)

        def step(state: Any, x: jax.Array) -> Any:
            assert right.train_step
            return {**right.train_step(state, x), "scale": state["scale"]}

        return dataclasses.replace(right, train_step=step)

    assert "skips each of 16 batches as not finite" in said(carrying_problems(case, DELAYED))


def test_optimizer_that_collects_gradients_first_is_no_alarm() -> None:
    require_none(carrying_problems(factory(Deep(), optimizer=optax.MultiSteps(optax.sgd(1e-2), 4)), DELAYED))
