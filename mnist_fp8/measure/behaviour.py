"""What layers and contexts do, in words: the facts that no other measurement covers."""

import functools
from collections.abc import Callable, Mapping

from mnist_fp8 import facts, te
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.record.entries import Text, Value

_COVERED = (
    *("public names", "autocast", "fp8_autocast", "DenseGeneral", "MeshResource", "recipes", "recipes that run here"),
    *("options of DelayedScaling", "FP8 metadata", "products under DelayedScaling", "loss after 60 steps, BF16"),
    *("stored scales after amaxes 1, 2, 4, 0.5", "stored history after amaxes 1, 2, 4, 0.5"),
    *("errors, BF16", "errors, DelayedScaling", "errors, Float8CurrentScaling", "Float8CurrentScaling of zeros"),
    *("loss after 60 steps, DelayedScaling", "loss after 60 steps, Float8CurrentScaling"),
)
"""Facts that other areas measure in more detail."""


def probes() -> Mapping[str, Callable[[], Mapping[str, Value]]]:
    """Measurements by the beginning of their keys."""
    names = [name for name in facts.names() if name not in _COVERED]
    found: dict[str, Callable[[], Mapping[str, Value]]]
    found = {f"behaviour/layers/{name}": functools.partial(_fact, name) for name in names}
    return {**found, "behaviour/contexts": _former_autocast}


def _fact(name: str) -> dict[str, Value]:
    return {f"behaviour/layers/{name}": facts.fact(name)}


def _former_autocast() -> dict[str, Value]:
    """Whether ``fp8_autocast`` is still there; if it is to go, it raises a warning."""
    key = "behaviour/contexts/fp8_autocast"
    if not te.has_name("fp8_autocast"):
        return {key: Text("none")}
    with te.former_autocast(te.make_recipe(RecipeConfig())):
        return {key: Text("can be entered")}
