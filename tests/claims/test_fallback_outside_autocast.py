"""Claim: outside autocast a model with FP8 metadata in its variables computes exactly as the BF16 model.

Promised by the README of TE's MNIST example (no ``autocast``, no FP8, metadata or not); TE's own tests check only that
its global recipe is unset. It is what evaluation in BF16, export and debugging of an FP8 checkpoint rely on.

What a failure means for an upgrade: a model that should run in BF16 quantizes with stale scales, raises, or loses its
metadata.
"""

import threading
from collections.abc import Callable
from typing import Any

import flax.errors
import jax
import numpy as np
import pytest

from mnist_fp8 import te
from mnist_fp8.core.modes import Precision, RecipeConfig
from mnist_fp8.programs import jaxprs
from mnist_fp8.te.dense_step import fp8, init, on_device
from mnist_fp8.training import train
from mnist_fp8.training.config import TrainConfig
from support.assertions import assert_equal, assert_trees_equal


def x() -> jax.Array:
    """An input of 16 rows."""
    return on_device(np.random.default_rng(5).normal(0, 3, (16, 32)), "bfloat16")


def output_gradient() -> jax.Array:
    """The gradient of the output for it."""
    return on_device(np.random.default_rng(6).normal(0, 1, (16, 16)), "bfloat16")


@pytest.fixture(scope="module")
def layer() -> Any:
    """A dense layer with a bias."""
    return te.dense_general(features=16)


@pytest.fixture(scope="module")
def variables(layer: Any) -> dict[str, Any]:
    """Variables from an initialisation under autocast, with metadata that would change any result they touch."""
    made = init(layer, fp8(amax_history_len=4), x())
    name = te.metadata_collection()
    assert name in made, f"Control: initialisation under autocast made only {sorted(made)}"
    made[name] = {leaf: on_device(np.full(value.shape, 3.25)) for leaf, value in made[name].items()}
    made["params"]["bias"] = on_device(np.linspace(-1, 1, 16))
    return made


def passes(layer: Any, variables: Any) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
    """Output, input gradient and gradients of the variables, in whatever mode surrounds the call.

    It is traced at every call, since ``jax.jit`` would not see that the mode has changed.
    """

    def fresh(variables: Any, x: jax.Array, grad: jax.Array) -> Any:
        y, pull_back = jax.vjp(layer.apply, variables, x)
        grads, dx = pull_back(grad)
        return y, dx, grads

    return jax.jit(fresh)(variables, x(), output_gradient())


@pytest.fixture(scope="module")
def bf16(layer: Any, variables: dict[str, Any]) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
    """The reference: the same parameters alone, never near an autocast."""
    return passes(layer, {"params": variables["params"]})


def assert_bf16(found: Any, bf16: Any, *, where: str) -> None:
    """Output and gradients of the parameters equal the reference bit for bit."""
    __tracebackhide__ = True
    assert_equal(where=f"{where}: output", actual=found[0], expected=bf16[0])
    assert_equal(where=f"{where}: input gradient", actual=found[1], expected=bf16[1])
    assert_trees_equal(where=f"{where}: gradient", actual=found[2]["params"], expected=bf16[2]["params"])


def assert_not_bf16(found: Any, bf16: Any, *, where: str) -> None:
    """Control: FP8 differs."""
    __tracebackhide__ = True
    assert not np.array_equal(found[0], bf16[0]), f"Control: {where}: FP8 should not equal BF16"


def test_metadata_without_autocast_leave_output_and_gradients_in_bf16(
    layer: Any,
    variables: dict[str, Any],
    bf16: Any,
) -> None:
    assert_bf16(passes(layer, variables), bf16, where="metadata present, no autocast")
    with fp8(amax_history_len=4)():
        assert_not_bf16(passes(layer, variables), bf16, where="the same call under autocast")


def test_disabled_autocast_falls_back_as_well(layer: Any, variables: dict[str, Any], bf16: Any) -> None:
    for recipe in (None, te.make_recipe(RecipeConfig(amax_history_len=4))):
        with te.autocast(enabled=False, recipe=recipe):
            assert_bf16(passes(layer, variables), bf16, where=f"autocast disabled, recipe {recipe}")


def test_program_outside_autocast_holds_no_float8(layer: Any, variables: dict[str, Any]) -> None:
    jaxpr = jax.make_jaxpr(lambda v: passes(layer, v))(variables)
    found = jaxprs.quantized_dtypes(jaxpr)
    assert not found, f"quantized dtypes={sorted(found)}, but should be none"
    with fp8(amax_history_len=4)():
        assert jaxprs.quantized_dtypes(jax.make_jaxpr(lambda v: passes(layer, v))(variables)), "Control: under autocast"


def test_metadata_stay_untouched_outside_autocast(layer: Any, variables: dict[str, Any], bf16: Any) -> None:
    name = te.metadata_collection()
    before = jax.tree.map(np.array, variables[name])
    y, updated = layer.apply(variables, x(), mutable=[name])
    assert_equal(where="output with mutable metadata", actual=y, expected=bf16[0])
    assert name in updated, f"collections returned by apply={sorted(updated)}, but should hold {name}"
    assert_trees_equal(where="metadata returned by apply", actual=updated[name], expected=before)


def test_gradient_of_unused_metadata_is_zero(layer: Any, variables: dict[str, Any]) -> None:
    """They do not take part; written back as metadata, these zeros would destroy them (see the next test)."""
    grads = passes(layer, variables)[2][te.metadata_collection()]
    assert_trees_equal(where="gradient of metadata", actual=grads, expected=jax.tree.map(np.zeros_like, grads))


def test_training_outside_autocast_keeps_metadata_for_later() -> None:
    """The training loop with metadata in hand and BF16 as its mode, and then FP8 again."""
    state, metadata = train.create_train_state(TrainConfig(precision=Precision.TE_FP8, batch_size=16, pooling=3))
    bf16_state, _ = train.create_train_state(TrainConfig(precision=Precision.TE_BF16, batch_size=16, pooling=3))
    batch = np.ones((16, 9, 9, 1), np.float32), np.arange(16, dtype=np.int32) % 10
    rngs = {"dropout": jax.random.key(0)}
    grads, loss, _ = train.apply_model(bf16_state, *batch, metadata, rngs)
    plain_grads, plain_loss, _ = train.apply_model(bf16_state, *batch, {}, rngs)
    assert_equal(where="loss of a BF16 step with metadata", actual=loss, expected=plain_loss)
    assert_trees_equal(where="gradient", actual=grads["params"], expected=plain_grads["params"])
    _, kept = train.update_model(bf16_state, grads, metadata)
    assert_trees_equal(where="metadata after a BF16 step", actual=kept, expected=metadata)
    _, fp8_loss, _ = train.apply_model(state, *batch, kept, rngs)
    assert np.isfinite(fp8_loss), f"loss of the FP8 step after it={fp8_loss}"


def test_initialisation_under_autocast_changes_no_parameter(layer: Any) -> None:
    inside = init(layer, fp8(), x())["params"]
    outside = te.unbox(layer.init(jax.random.key(0), x()))
    assert set(outside) == {"params"}, f"collections outside autocast={sorted(outside)}, but should be params only"
    assert_trees_equal(where="parameters", actual=inside, expected=outside["params"])


def test_nested_and_reentered_autocasts_restore_the_mode_around_them(
    layer: Any,
    variables: dict[str, Any],
    bf16: Any,
) -> None:
    delayed, current = fp8(amax_history_len=4), fp8("Float8CurrentScaling")
    with delayed():
        in_delayed = passes(layer, variables)
        with te.autocast(enabled=False):
            assert_bf16(passes(layer, variables), bf16, where="disabled inside enabled")
            with current():
                in_current = passes(layer, variables)
            assert_bf16(passes(layer, variables), bf16, where="after enabled inside disabled")
        again = passes(layer, variables)
    assert_bf16(passes(layer, variables), bf16, where="after all of them")
    assert_trees_equal(where="delayed scaling after a nested autocast", actual=again, expected=in_delayed)
    assert_not_bf16(in_delayed, bf16, where="delayed scaling")
    assert_not_bf16(in_current, bf16, where="current scaling")
    assert not np.array_equal(in_delayed[0], in_current[0]), "Control: the recipes should differ"
    for _ in range(2):
        with delayed():
            assert_trees_equal(where="re-entered", actual=passes(layer, variables), expected=in_delayed)
        assert_bf16(passes(layer, variables), bf16, where="after re-entering")


def test_exception_inside_autocast_ends_it(layer: Any, variables: dict[str, Any], bf16: Any) -> None:
    with pytest.raises(RuntimeError, match="on purpose"), fp8(amax_history_len=4)():
        raise RuntimeError("on purpose")
    assert_bf16(passes(layer, variables), bf16, where="after an exception inside autocast")
    with te.autocast(enabled=False), pytest.raises(RuntimeError, match="on purpose"), fp8()():
        raise RuntimeError("on purpose")
    assert_bf16(passes(layer, variables), bf16, where="after an exception inside a nested autocast")
    with fp8(amax_history_len=4)():
        before = passes(layer, variables)
        with pytest.raises(RuntimeError, match="on purpose"), fp8("Float8CurrentScaling")():
            raise RuntimeError("on purpose")
        assert_trees_equal(where="around an exception", actual=passes(layer, variables), expected=before)
    assert_not_bf16(before, bf16, where="delayed scaling around an exception")


def test_autocast_decorates_functions_as_a_context_of_python_does(
    layer: Any, variables: dict[str, Any], bf16: Any
) -> None:
    """It begins and ends with each call of the function: of one inside another as well, and of one that fails."""
    name = "autocast" if te.has_name("autocast") else "fp8_autocast"
    recipe = te.make_recipe(RecipeConfig(amax_history_len=4))

    decorator: Any = te.raw_autocast(name, True, recipe, te.mesh_resource())  # noqa: FBT003

    @decorator
    def decorated(first: Callable[[], Any]) -> Any:
        first()
        return passes(layer, variables)

    with fp8(amax_history_len=4)():
        expected = passes(layer, variables)
    assert_not_bf16(expected, bf16, where="delayed scaling")
    nothing: Callable[[], Any] = dict
    for where, first in {"first call": nothing, "second": nothing, "nested": lambda: decorated(nothing)}.items():
        assert_trees_equal(where=f"decorated, {where}", actual=decorated(first), expected=expected)
        assert_bf16(passes(layer, variables), bf16, where=f"after a decorated function, {where}")
    with pytest.raises(ZeroDivisionError):
        decorated(lambda: 1 // 0)
    assert_bf16(passes(layer, variables), bf16, where="after a decorated function that failed")


def test_unsupported_recipe_leaves_no_trace(layer: Any, variables: dict[str, Any], bf16: Any) -> None:
    """Entering fails, for a recipe that no release supports in JAX; what follows is in BF16."""
    recipe = te.make_recipe(RecipeConfig("Float8BlockScaling"))
    with pytest.raises((ValueError, AssertionError)), te.autocast(enabled=True, recipe=recipe):
        pass
    assert_bf16(passes(layer, variables), bf16, where="after an autocast that could not be entered")


def test_autocast_of_another_thread_ends_with_it(layer: Any, variables: dict[str, Any], bf16: Any) -> None:
    found: list[Any] = []

    def work() -> None:
        with fp8(amax_history_len=4)():
            found.append(passes(layer, variables))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found, "the thread computed nothing"
    assert_not_bf16(found[0], bf16, where="in the thread")
    assert_bf16(passes(layer, variables), bf16, where="after the thread")


def test_autocast_of_one_thread_is_not_that_of_another(layer: Any, variables: dict[str, Any], bf16: Any) -> None:
    """As with JAX's own contexts: evaluation in BF16 can run beside training in FP8."""
    found: list[Any] = []
    with fp8(amax_history_len=4)():
        thread = threading.Thread(target=lambda: found.append(passes(layer, variables)))
        thread.start()
        thread.join()
    assert found, "the thread computed nothing"
    assert_bf16(found[0], bf16, where="in a thread without autocast")


def test_missing_metadata_under_autocast_is_an_error_not_a_fallback(layer: Any, variables: dict[str, Any]) -> None:
    # Control: the opposite case. The error names the collection.
    with fp8()(), pytest.raises(flax.errors.FlaxError, match=te.metadata_collection()):
        layer.apply({"params": variables["params"]}, x())


def test_stale_metadata_do_not_disturb_a_recipe_that_keeps_none(layer: Any, variables: dict[str, Any]) -> None:
    with fp8("Float8CurrentScaling")():
        with_stale = passes(layer, variables)
        without = passes(layer, {"params": variables["params"]})
    assert_equal(where="output under current scaling", actual=with_stale[0], expected=without[0])
    stale_grads = with_stale[2][te.metadata_collection()]
    zeros = jax.tree.map(np.zeros_like, stale_grads)
    assert_trees_equal(where="gradient of stale metadata", actual=stale_grads, expected=zeros)
