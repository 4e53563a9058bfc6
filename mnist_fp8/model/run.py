"""A model's forward and backward pass in a recipe, with all that TE's layers saw in it."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mnist_fp8 import te
from mnist_fp8.core.modes import BLOCK_SCALED, RecipeConfig
from mnist_fp8.model import drawing, metadata
from mnist_fp8.model.case import Case, Factory
from mnist_fp8.model.loading import NoCaseError, make
from mnist_fp8.model.metadata import by_path
from mnist_fp8.te.calls import Call, Site, recorded

HISTORY = 8
"""Steps that the histories keep which the claims look at."""
CURRENT = RecipeConfig("Float8CurrentScaling")
DELAYED = RecipeConfig("DelayedScaling", amax_history_len=HISTORY)
MODES: Mapping[str, RecipeConfig | None] = {
    "BF16": None,
    **{
        recipe.name: recipe
        for recipe in (CURRENT, DELAYED, RecipeConfig("MXFP8BlockScaling"), RecipeConfig("NVFP4BlockScaling"))
    },
}
"""What a model is looked at in, by name."""


@dataclasses.dataclass(frozen=True)
class Passes:
    """What a model computed.

    Attributes:
        output: leaves of its output.
        grads: gradients of the parameters, by path.
        metadata: those of the next step, by path.
        sites: where it calls TE's layers.
        calls: what these saw.
    """

    output: tuple[Any, ...]
    grads: Mapping[str, Any]
    metadata: Mapping[str, Any]
    sites: tuple[Site, ...]
    calls: tuple[Call, ...]


@functools.cache
def case_of(factory: Factory, recipe: RecipeConfig | None) -> Case:
    """The case for a recipe, made once, with its variables as plain arrays, which no step may donate with the state."""
    case = make(factory, recipe)
    return dataclasses.replace(case, variables=te.unbox(case.variables), state=own_copy(case.state))


@functools.cache
def why_no_case(factory: Factory, recipe: RecipeConfig | None) -> str:
    """Why a model is not judged in a recipe; empty where it is.

    Its factory has no case, or the recipe is block-scaled, and the case cannot be traced: not every model has the sizes
    that such a recipe takes, and the random numbers.
    """
    is_in_blocks = recipe is not None and recipe.name in BLOCK_SCALED
    try:
        case_of(factory, recipe)
        if is_in_blocks:
            traced(factory, recipe)
    except NoCaseError as error:
        return f"that its factory has none: {error}"
    except Exception as error:
        if not is_in_blocks:
            raise
        return f"that it cannot be traced: {type(error).__name__}: {' '.join(str(error).split())[:160]}"
    return ""


def others(factory: Factory, recipe: RecipeConfig | None) -> list[RecipeConfig | None]:
    """The other modes, of BF16 and the recipes that every GPU with FP8 has, for which there is a case here."""
    possible = {name for name, support in te.support_by_recipe().items() if support.ok}
    modes = [mode for mode in (None, CURRENT, DELAYED) if mode != recipe and (mode is None or mode.name in possible)]
    return [mode for mode in modes if not why_no_case(factory, mode)]


def context(case: Case, recipe: RecipeConfig | None) -> contextlib.AbstractContextManager[None]:
    """What to compute in: autocast, unless the case enters it by itself, on a device that has the recipe."""
    return te.device_for(recipe.name if recipe else "") if case.enters_autocast else te.Autocast(recipe)()


@functools.cache
def passes(factory: Factory, recipe: RecipeConfig | None) -> Passes:
    """The passes of a model whose metadata can be told apart by their values (`metadata.tagged`), recorded.

    Nor are parameters all alike, as biases are at first, and the scales of norms: what is lost then does not show.
    """
    variables = metadata.tagged(varied(case_of(factory, recipe).variables))
    with recorded() as recording:
        found = compute(factory, recipe, variables)
        calls = recording.calls
    return dataclasses.replace(found, sites=tuple(recording.sites), calls=calls)


def varied(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Variables whose parameters are not all alike."""

    def varied(path: Any, value: Any) -> Any:  # noqa: ANN401
        numbers = np.asarray(value)
        if not jnp.issubdtype(numbers.dtype, jnp.floating) or not numbers.size or (numbers != numbers.flat[0]).any():
            return value
        drawn = drawing.by_name(jax.tree_util.keystr(path)).uniform(-0.25, 0.25, numbers.shape)
        return jnp.asarray(numbers.astype(np.float64) + drawn, numbers.dtype)

    params = jax.tree_util.tree_map_with_path(varied, variables.get("params", {}))
    return {**variables, "params": params}


def compute(factory: Factory, recipe: RecipeConfig | None, variables: Mapping[str, Any] | None = None) -> Passes:
    """Forward and backward on some variables, the case's own by default; nothing is recorded."""
    given = arguments(factory, recipe, variables)
    with context(case_of(factory, recipe), recipe):
        output, grads = jax.device_get(program(factory, recipe)(*given))
    carried = {path: leaf.value for path, leaf in metadata.leaves(grads).items()}
    return Passes(tuple(jax.tree.leaves(output)), by_path(grads.get("params", {})), carried, (), ())


@functools.cache
def traced(factory: Factory, recipe: RecipeConfig | None) -> tuple[Any, tuple[Site, ...]]:
    """The jaxpr of a model's passes, and where it calls TE's layers; nothing is computed for it."""
    case = case_of(factory, recipe)
    given = arguments(factory, recipe)
    with recorded() as recording, context(case, recipe):
        jaxpr = jax.make_jaxpr(program(factory, recipe))(*given)
    return jaxpr, tuple(recording.sites)


def arguments(factory: Factory, recipe: RecipeConfig | None, variables: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401
    """What `program` takes: variables, the case's own by default, and inputs."""
    case = case_of(factory, recipe)
    return dict(variables or case.variables), case.inputs


@functools.cache
def program(factory: Factory, recipe: RecipeConfig | None) -> Callable[..., Any]:
    """Output and gradients of all variables. The output is weighted at random, so that no gradient is special."""
    case = case_of(factory, recipe)

    @jax.jit
    def both(variables: Any, inputs: Any) -> Any:  # noqa: ANN401
        def loss(variables: Any) -> Any:  # noqa: ANN401
            output = case.apply(variables, *inputs)
            return sum(map(_weighted, jax.tree.leaves(output))), output

        (_, output), grads = jax.value_and_grad(loss, has_aux=True, allow_int=True)(variables)
        return output, grads

    return both


def _weighted(output: jax.Array) -> jax.Array:
    numbers = output.astype(jnp.float32)
    return jnp.sum(numbers * jax.random.normal(jax.random.key(7), numbers.shape))


def own_copy(state: Any) -> Any:  # noqa: ANN401
    """A tree with arrays of its own, which a step may donate."""

    def copied(leaf: Any) -> Any:  # noqa: ANN401
        return jnp.array(leaf, copy=True) if isinstance(leaf, jax.Array | np.ndarray) else leaf

    return jax.tree.map(copied, state)


def same(first: Any, second: Any) -> bool:  # noqa: ANN401
    """Whether two trees of arrays are equal to the bit; NaN is equal to nothing."""
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return all(np.shape(a) == np.shape(b) and bool(np.all(np.asarray(a) == np.asarray(b))) for a, b in pairs)
