"""What a model computes in one recipe, held to what it computes in another, or without one."""

import functools
import math
from typing import Any

import jax
import numpy as np

from mnist_fp8 import te
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.model import metadata
from mnist_fp8.model.case import Factory
from mnist_fp8.model.fused_calls import is_fused
from mnist_fp8.model.metadata import by_path
from mnist_fp8.model.problems import Problem
from mnist_fp8.model.run import (
    CURRENT,
    Passes,
    case_of,
    compute,
    others,
    passes,
    same,
    traced,
    varied,
)
from mnist_fp8.te.quantizers import inverts_current_scales

AT_REST = RecipeConfig("DelayedScaling", amax_history_len=1)
"""Delayed scaling that looks back on one step only."""
UPDATES = 8
"""Steps in which scales come to rest, where parameters and inputs stay: two for each layer in a row, and these."""
OF_TIES = 2.0**-7
"""Relative norm of what comes of ties that are rounded the other way: a third of what another scale comes to."""
LARGEST_ERROR = 1.0
"""Of an output in FP8, against BF16, relative norm: at 1, nothing of the output is left."""


def parameter_problems(factory: Factory, recipe: RecipeConfig | None) -> list[Problem]:
    """First parameters that depend on the recipe."""
    plain, own = (by_path(case_of(factory, mode).variables.get("params", {})) for mode in (None, recipe))
    if plain.keys() != own.keys():
        different = min(plain.keys() ^ own.keys())
        return [Problem(f"parameter {different}", f"is there with {'no ' * (different in plain)}recipe only")]
    return [
        Problem(f"parameter {path}", f"is initialised otherwise with {recipe.name if recipe else 'no recipe'}")
        for path, value in own.items()
        if not same(value, plain[path])
    ]


def fallback_problems(factory: Factory, recipe: RecipeConfig) -> list[Problem]:
    """Differences to BF16 where metadata are in the variables, and no recipe is asked for."""
    case, variables = case_of(factory, None), metadata.tagged(case_of(factory, recipe).variables)
    plain = compute(factory, None)
    beside = compute(factory, None, {**variables, **case.variables})
    problems = []
    if not same(plain.output, beside.output):
        problems.append(Problem("the output without a recipe", "depends on FP8 metadata in the variables"))
    problems += [
        Problem(f"gradient of {path} without a recipe", "depends on FP8 metadata in the variables")
        for path, value in plain.grads.items()
        if not same(value, beside.grads.get(path, np.nan))
    ]
    problems += [
        Problem(path, "has a gradient without a recipe, which a train step would store")
        for path, value in beside.metadata.items()
        if np.any(value)
    ]
    return problems


def staleness_problems(factory: Factory, recipe: RecipeConfig) -> list[Problem]:
    """Whether a program that was compiled for one recipe answers for another."""
    alone = _outputs(factory, (recipe,))[recipe]
    after = _outputs(factory, (*others(factory, recipe), recipe))[recipe]
    if same(alone, after):
        return []
    return [Problem("the output", f"is another one where it was computed with other recipes than {recipe.name} before")]


def _outputs(factory: Factory, recipes: tuple[RecipeConfig | None, ...]) -> dict[RecipeConfig | None, Any]:
    """Outputs in recipes one after the other, in a process that has compiled nothing before."""
    jax.clear_caches()
    return {recipe: compute(factory, recipe).output for recipe in recipes}


def rest_problems(factory: Factory, recipe: RecipeConfig) -> list[Problem]:
    """Whether delayed scaling comes to compute what current scaling does, where nothing changes any more.

    With a history of one step, each scale is that of the last step's tensor, which is this step's where parameters and
    inputs stay. So output and gradients are equal to the bit, whatever the layers are; but for ties, where a release
    inverts the scales of current scaling otherwise (`inverts_current_scales`). Nothing is asked of other recipes, nor
    where that need not be so (`why_never_at_rest`).
    """
    if recipe.name != AT_REST.name or why_never_at_rest(factory):
        return []
    if (error := _error_at_rest(factory)) is None:
        return []
    off = f"the output is {error:.3g} off, relative norm"
    return [Problem("delayed scaling at rest", f"does not come to what current scaling computes: {off}")]


def why_never_at_rest(factory: Factory) -> str:
    """Why delayed scaling need not come to compute what current scaling does; empty if it does, or has to.

    It never updates the scales of layers without a backward pass, as frozen ones. And a layer that quantizes what it
    has normalised may take it as float32 where it knows the scale beforehand, and as BF16 where it does not.
    """
    returned = compute(factory, AT_REST).metadata
    scales = [leaf for leaf in metadata.leaves(case_of(factory, AT_REST).variables).values() if leaf.is_scale]
    if kept := [leaf.path for leaf in scales if not np.all(returned.get(leaf.path, 0))]:
        return f"layers that do not run backward: {', '.join(kept)}"
    fused = {str(call.site) for call in passes(factory, CURRENT).calls if is_fused(call)}
    found = fused and _error_at_rest(factory) is not None
    return f"layers that quantize what they have normalised: {', '.join(sorted(fused))}" if found else ""


@functools.cache
def _error_at_rest(factory: Factory) -> float | None:
    """How far the output stays from that of current scaling; ``None`` if all comes to be equal, ties left aside."""
    current = compute(factory, CURRENT)
    variables, error = dict(case_of(factory, AT_REST).variables), math.inf
    layers = len(traced(factory, AT_REST)[1])
    for _ in range(2 * layers + UPDATES):
        found = compute(factory, AT_REST, variables)
        if same(found.output, current.output) and same(found.grads, current.grads):
            return None
        error = relative_error(found.output, current.output)
        variables = _carried(variables, found.metadata)
    is_tied = max(error, relative_error(found.grads, current.grads)) < OF_TIES and not inverts_current_scales()
    return None if is_tied else error


def _carried(variables: Any, returned: Any) -> Any:  # noqa: ANN401
    """Variables with the metadata of the next step in the place of the last one's.

    A layer that was left out has returned nothing: JAX gives zeros for it, which are no scales.
    """

    def carried(path: str, value: Any) -> Any:  # noqa: ANN401
        found = returned.get(path)
        return value if found is None else np.where(found == 0, value, found)

    return metadata.replaced(variables, carried)


def error_problems(factory: Factory, recipe: RecipeConfig) -> list[Problem]:
    """Outputs of which quantization leaves nothing, or that it does not change at all."""
    # The first scales that a recipe keeps are 1, whatever the tensors are.
    own = _after_updates(factory, recipe) if te.keeps_metadata(recipe) else passes(factory, recipe)
    error = relative_error(own.output, passes(factory, None).output)
    if not error < LARGEST_ERROR:
        return [Problem("the output", f"is {error:.3g} off the one in BF16, relative norm, with {recipe.name}")]
    return [] if error else [Problem("the output", f"is the same with {recipe.name} and in BF16: nothing is quantized")]


def _after_updates(factory: Factory, recipe: RecipeConfig) -> Passes:
    """What a model computes when its scales are those of its tensors."""
    variables = varied(case_of(factory, recipe).variables)
    for _ in range(2 * len(traced(factory, recipe)[1]) + 1):
        found = compute(factory, recipe, variables)
        variables = _carried(variables, found.metadata)
    return found


def relative_error(found: Any, wanted: Any) -> float:  # noqa: ANN401
    """Relative norm of a difference; NaN is infinitely far off."""
    pairs = [
        (np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel())
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
    ]
    numbers, due = (np.concatenate(side) for side in zip(*pairs, strict=True))
    size, off = float(np.linalg.norm(due)), float(np.linalg.norm(numbers - due))
    error = off / size if size else (math.inf if off else 0.0)
    return error if math.isfinite(error) else math.inf
