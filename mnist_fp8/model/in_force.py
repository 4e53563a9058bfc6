"""By which options of delayed scaling a call's metadata follow from what it saw."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from mnist_fp8 import te
from mnist_fp8.core.modes import MAX_MARGIN, RecipeConfig
from mnist_fp8.model.delayed import following, newest
from mnist_fp8.model.judgement import Amax
from mnist_fp8.model.metadata import positions
from mnist_fp8.model.problems import Problem
from mnist_fp8.oracle.dense import FP8_MAX, Array, Meta, formats_of
from mnist_fp8.oracle.tolerances import scale_tolerance
from mnist_fp8.te.calls import Call

_DEFAULTS = {"margin": 0, "amax_compute_algo": "max", "fp8_format": "HYBRID"}
"""Of the options that decide a scale."""


def length_problems(call: Call, recipe: RecipeConfig) -> Iterator[Problem]:
    """Histories of another length than the recipe asks for."""
    wanted = recipe.amax_history_len
    lengths = {call.inputs[history].size for _, history in positions(call.inputs)}
    for length in sorted(lengths - {wanted}) if wanted else ():
        amaxes = "amax" if length == 1 else "amaxes"
        yield Problem(str(call.site), f"keeps {length} {amaxes}; expected {wanted}, from amax_history_len")


def kept_problems(where: str, amaxes: Sequence[Amax], recipe: RecipeConfig) -> Iterator[Problem]:
    """Metadata of a call that do not follow from its amaxes by the options of a recipe."""
    for amax in amaxes:
        found, wanted = amax.kept.returned.history, _wanted(amax, recipe).history
        if not np.array_equal(found, wanted):
            yield Problem(where, f"amax history of {amax.tensor} is [{_shown(found)}]; expected [{_shown(wanted)}]")
    wrong = [amax for amax in amaxes if not _has_scale_of(amax, recipe)]
    if wrong and (other := _followed_by_all(amaxes, recipe)):
        names = _differing(other, recipe)
        due = f"expected {_written(recipe, names)}, as the recipe says"
        yield Problem(where, f"scales follow from {_written(other, names)}; {due}")
        return
    for amax in wrong:
        largest = FP8_MAX[formats_of(recipe)[amax.kept.tensor]]
        counting = "newest" if recipe.amax_compute_algo == "most_recent" else "largest"
        due = f"expected {_wanted(amax, recipe).scale:.6g}, from {largest:.0f} and the {counting} amax"
        yield Problem(where, f"scale of {amax.tensor} is {amax.kept.returned.scale:.6g}; {due}")


def _shown(numbers: Array) -> str:
    return ", ".join(f"{number:.6g}" for number in numbers)


def _wanted(amax: Amax, recipe: RecipeConfig) -> Meta:
    """What a tensor's metadata have to be, from the amax that they note if that is right."""
    noted, right = newest(amax.kept.returned), float(amax.value)
    is_close = abs(noted - right) <= amax.tolerance * right
    return following(amax.kept.given, noted if is_close else right, amax.kept.tensor, recipe)


def _has_scale_of(amax: Amax, recipe: RecipeConfig) -> bool:
    wanted = float(_wanted(amax, recipe).scale)
    difference = abs(float(amax.kept.returned.scale) - wanted)
    return difference <= scale_tolerance(wanted, te.engine().kind)


def _followed_by_all(amaxes: Sequence[Amax], recipe: RecipeConfig) -> RecipeConfig | None:
    """The recipe with other options, as few as possible, that all scales of a call follow from; if there is one.

    All of them: E5M2 in the place of E4M3 alone changes a gradient's scale as a margin of 7 does.
    """
    return next((other for other in _others(recipe) if all(_has_scale_of(amax, other) for amax in amaxes)), None)


def _others(recipe: RecipeConfig) -> list[RecipeConfig]:
    """A recipe with each combination of the options that decide a scale, those first that differ in few."""
    values = itertools.product(("max", "most_recent"), ("HYBRID", "E4M3"), range(-MAX_MARGIN, MAX_MARGIN + 1))
    others = [
        dataclasses.replace(recipe, amax_compute_algo=algo, fp8_format=fp8_format, margin=margin)
        for algo, fp8_format, margin in values
    ]
    return sorted(others, key=lambda other: len(_differing(other, recipe)))


def _differing(other: RecipeConfig, recipe: RecipeConfig) -> list[str]:
    return [name for name in _DEFAULTS if _value(other, name) != _value(recipe, name)]


def _written(recipe: RecipeConfig, names: Sequence[str]) -> str:
    return ", ".join(f"{name}={_value(recipe, name)}" for name in names)


def _value(recipe: RecipeConfig, name: str) -> object:
    asked = getattr(recipe, name)
    return _DEFAULTS[name] if asked is None else asked
