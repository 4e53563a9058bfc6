"""What a user's model is and computes in each mode, from its passes and some train steps.

Its entries are those of a layer: ``layers/ours.model:case/model/DelayedScaling/numerics/…``. Where numbers are listed
layer by layer or step by step, the first that differs between two releases says where they part.
"""

import functools
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from flax.core import meta

from mnist_fp8.core.model import VARIABLE
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.measure.common import modes, repeated
from mnist_fp8.measure.layer_calls import layer_calls
from mnist_fp8.measure.programs import counted
from mnist_fp8.measure.variables import leaves
from mnist_fp8.model import load
from mnist_fp8.model.agreement import relative_error
from mnist_fp8.model.carrying import following
from mnist_fp8.model.case import Case, Factory
from mnist_fp8.model.loading import make
from mnist_fp8.model.metadata import by_path
from mnist_fp8.model.numerics import errors_in_tolerances
from mnist_fp8.model.run import (
    CURRENT,
    DELAYED,
    MODES,
    Passes,
    case_of,
    compute,
    own_copy,
    passes,
    traced,
    why_no_case,
)
from mnist_fp8.record.calls import CALLS
from mnist_fp8.record.entries import Quantity, Support, Text, Value
from mnist_fp8.record.keys import BF16, LAYERS
from mnist_fp8.te.calls import Call, Site

CASE = "model"
"""The case of all entries: a model has but one."""
STEPS = 3
_RECIPES = {name: MODES[name] for name in (BF16, CURRENT.name, DELAYED.name, "MXFP8BlockScaling")}


def probes() -> Mapping[str, Callable[[], Mapping[str, Value]]]:
    """Measurements by the beginning of their keys; none where no model is named."""
    name = os.environ.get(VARIABLE)
    if not name:
        return {}
    key, factory = f"{LAYERS}/{name}/{CASE}", functools.cache(load)
    found = {f"{key}/{mode}": functools.partial(_mode, factory, mode, key) for mode in _RECIPES if mode in modes()}
    return {f"{key}/support": functools.partial(_support, factory, key), **found}


def _support(factory: Callable[[], Factory], key: str) -> dict[str, Value]:
    """That the model is there; what its package raises where it cannot be loaded."""
    factory()
    return {f"{key}/support": Support(ok=True)}


def _mode(factory: Callable[[], Factory], mode: str, key: str) -> dict[str, Value]:
    """All of a model in a mode; nothing where its factory has no case for it."""
    recipe = _RECIPES[mode]
    if why_no_case(factory(), recipe):
        return {}
    entries = _of_program(factory(), recipe) | _of_passes(factory(), recipe) | _of_training(factory(), recipe)
    return {f"{key}/{mode}/{rest}": value for rest, value in entries.items()}


def _of_program(factory: Factory, recipe: RecipeConfig | None) -> dict[str, Value]:
    entries: dict[str, Value] = {}
    for name, sites in _by_name(traced(factory, recipe)[1]).items():
        for way, backward in (("forward", False), ("backward", True)):
            products = [each for site in sites for each in site.products if each.backward is backward]
            entries[f"float8/{name} {way}: products"] = counted(products)
    boxed = make(factory, recipe).variables
    return entries | {f"variables/{path}": Text(leaf) for path, leaf in leaves(boxed).items()}


def _of_passes(factory: Factory, recipe: RecipeConfig | None) -> dict[str, Value]:
    """How right each layer is, how far the output is from BF16, where two releases part, and what calls were given."""
    found = passes(factory, recipe)
    again = _again(factory, recipe)
    entries: dict[str, Value] = {
        "numerics/values layer by layer": repeated(Quantity.NORM, *map(_layer_by_layer, (found, again))),
        CALLS: layer_calls(found),
    }
    if right := errors_in_tolerances(found.calls, recipe):
        again_right = errors_in_tolerances(again.calls, recipe)
        entries["numerics/errors of layers in tolerances"] = repeated(Quantity.IN_TOLERANCES, right, again_right)
    if recipe:
        plain, own = compute(factory, None), compute(factory, recipe)
        error = {"output": relative_error(own.output, plain.output)}
        entries["numerics/error against BF16"] = repeated(Quantity.ERROR, error, error)
    return entries


def _again(factory: Factory, recipe: RecipeConfig | None) -> Passes:
    """The passes, computed once more: what differs is noise."""
    return passes.__wrapped__(factory, recipe)


def _layer_by_layer(found: Passes) -> dict[str, float]:
    """Norms of what each layer computes: outputs in the order of the program, gradients the other way round."""
    names = list(_by_name(found.sites))
    calls = {name: [call for call in found.calls if str(call.site) == name] for name in names}
    norms = {f"{name} output": _norm(_each(calls[name], "outputs")) for name in names}
    gradients = {f"{name} gradients": _norm(_each(calls[name], "d_inputs")) for name in reversed(names)}
    return norms | gradients | {f"gradient of {path}": _norm([value]) for path, value in found.grads.items()}


def _by_name(sites: Iterable[Site]) -> dict[str, list[Site]]:
    """Different places by their name, in the order of the program: one module may call several layers in one line."""
    named: dict[str, list[Site]] = {}
    for site in dict.fromkeys(sites):
        named.setdefault(str(site), []).append(site)
    return named


def _each(calls: Iterable[Call], what: str) -> list[Any]:
    """Outputs or gradients of some calls, but for metadata and what else is no matrix."""
    return [array for call in calls for array in getattr(call, what) if array.ndim > 1]


def _norm(arrays: Iterable[Any]) -> float:
    squares = [float(np.sum(np.square(np.asarray(array, np.float64)))) for array in arrays]
    return float(np.sqrt(sum(sorted(squares))))  # calls come in no particular order


def _of_training(factory: Factory, recipe: RecipeConfig | None) -> dict[str, Value]:
    """Norms of all numbers of the state after each of some steps."""
    case = case_of(factory, recipe)
    if case.train_step is None:
        return {}
    runs = [trained(case, recipe, own_copy(case.state), STEPS) for _ in range(2)]
    return {"numerics/state step by step": repeated(Quantity.NORM, *runs)}


def state_norms(state: Any) -> dict[str, float]:  # noqa: ANN401
    """Norms of the floating-point leaves of a state, by path; boxes do not count."""
    leaves = by_path(meta.unbox(state))
    return {path: _norm([value]) for path, value in leaves.items() if _is_floating(value)}


def _is_floating(value: Any) -> bool:  # noqa: ANN401
    return bool(jax.numpy.issubdtype(jax.numpy.result_type(value), np.floating))


def trained(
    case: Case,
    recipe: RecipeConfig | None,
    state: Any,  # noqa: ANN401
    steps: int,
    norms_of: Callable[[Any], Mapping[str, float]] = state_norms,
) -> dict[str, float]:
    """Norms of the state's leaves after each of some steps, which may donate it."""
    norms = dict[str, float]()
    for number in range(steps):
        state = following(case, recipe, state)
        norms |= {f"step {number + 1} {path}": norm for path, norm in norms_of(state).items()}
    return norms
