"""Delayed scaling, step by step: amaxes that are given, and the scales and histories that follow."""

import functools
from collections.abc import Callable, Mapping

import numpy as np

from mnist_fp8 import te
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.oracle import dense
from mnist_fp8.oracle.dense import FORMATS, FP8_MAX, TENSORS, Meta
from mnist_fp8.record.entries import Agreement, Numbers, Quantity, Value
from mnist_fp8.te.dense_step import dense_layer, dense_step, init, on_device, read_meta, with_amax

AMAXES = (1, 2, 4, 0.5, 0.5, 0.25, 8, 0, 0, 3, 3.75, 2**-10, 100, 7, 6, 5, 0, 0, 2**-5, 1.5)
"""Of the input, a step each; the kernel's and the output gradient's are the same in another order. BF16 has them."""
LENGTH = 4
RECIPES = {
    "amax max": RecipeConfig(amax_history_len=LENGTH),
    "amax most recent": RecipeConfig(amax_history_len=LENGTH, amax_compute_algo="most_recent"),
    "margin 2": RecipeConfig(amax_history_len=LENGTH, margin=2),
}
_SHAPES = {"x": (16, 32), "kernel": (32, 16), "grad": (16, 16)}


def probes() -> Mapping[str, Callable[[], Mapping[str, Value]]]:
    """Measurements by the beginning of their keys."""
    return {f"metadata/{name}": functools.partial(_trajectory, name) for name in RECIPES}


def _amaxes(step: int) -> dict[str, float]:
    return {which: AMAXES[(step + 7 * position) % len(AMAXES)] for position, which in enumerate(TENSORS)}


def _trajectory(name: str) -> dict[str, Value]:
    """Scales used and stored, and the newest amax stored, by step."""
    stored = _steps(RECIPES[name])
    labels = tuple(f"step {step}" for step in range(len(AMAXES)))
    next_scale = te.metadata_dialect().stores_next_scale
    entries: dict[str, Value] = {}
    for which in TENSORS:
        scales = [float(metas[which].scale) for metas in stored]
        used = [1.0, *scales[:-1]] if next_scale else scales
        newest = [float(metas[which].history[-1 if next_scale else 0]) for metas in stored]
        history = stored[-1][which].history
        ages = tuple(f"entry {index}" for index in range(len(history)))
        key = f"metadata/{name}/{which}"
        entries[f"{key} scale used"] = Numbers(tuple(used), labels, quantity=Quantity.SCALE_USED)
        entries[f"{key} scale stored"] = Numbers(tuple(scales), labels, quantity=Quantity.STORED)
        entries[f"{key} newest amax stored"] = Numbers(tuple(newest), labels, quantity=Quantity.STORED)
        entries[f"{key} history at the end"] = Numbers(tuple(map(float, history)), ages, quantity=Quantity.STORED)
        entries[f"{key} used scales against the oracle"] = _against_oracle(name, which, used)
    return entries


def _steps(recipe: RecipeConfig) -> list[dict[str, Meta]]:
    """Metadata after each step, by tensor."""
    mode = te.Autocast(recipe)
    layer = dense_layer(features=_SHAPES["kernel"][1], use_bias=False)
    variables = init(layer, mode, on_device(np.zeros(_SHAPES["x"]), "bfloat16"))
    stored = []
    for step in range(len(AMAXES)):
        tensors = {which: with_amax(amax, _SHAPES[which], step) for which, amax in _amaxes(step).items()}
        x, grad = (on_device(tensors[which], "bfloat16") for which in ("x", "grad"))
        variables["params"] = {"kernel": on_device(tensors["kernel"])}
        found = dense_step(layer, mode, variables, x, grad)
        variables = {**variables, te.metadata_collection(): found.metadata}
        stored.append({which: read_meta(found.metadata, which) for which in TENSORS})
    return stored


def _against_oracle(name: str, which: str, used: list[float]) -> Agreement:
    """Whether the oracle expects the same scales for the same amaxes; it keeps metadata as TE does since 2.3."""
    recipe = RECIPES[name]
    algo, margin = recipe.amax_compute_algo or "max", recipe.margin or 0
    meta, expected = dense.initial_meta(LENGTH), []
    for step in range(len(AMAXES)):
        expected.append(float(meta.scale))
        fp8_max = FP8_MAX[FORMATS["HYBRID"][which]]
        meta = dense.next_meta(meta, _amaxes(step)[which], fp8_max=fp8_max, margin=margin, algo=algo)
    # A GPU may divide with an error of some units in the last place.
    wrong = [
        step for step, pair in enumerate(zip(used, expected, strict=True)) if not np.isclose(*pair, rtol=2**-20, atol=0)
    ]
    return Agreement(wrong[0], used[wrong[0]], expected[wrong[0]]) if wrong else Agreement()
