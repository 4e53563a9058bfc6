"""The model that is judged, the one that was named or this project's own, in each recipe."""

import functools
from collections.abc import Callable
from typing import Any

import pytest

from mnist_fp8 import model, te
from mnist_fp8.model import Factory
from mnist_fp8.model.run import MODES

QUANTIZED = tuple(name for name, recipe in MODES.items() if recipe)
"""The recipes."""


def in_modes(*names: str, need: str = "model") -> Callable[[Any], Any]:
    """Run a test in these modes, BF16 and all recipes by default, each where the installation and the model have it.

    Args:
        names: of the modes.
        need: the mark of what else the test needs of the model in a mode.
    """
    return pytest.mark.parametrize("recipe", [_parameter(name, need) for name in names or MODES])


def _parameter(name: str, need: str) -> Any:
    of_recipe = [pytest.mark.recipe(name)] if MODES[name] else []
    return pytest.param(MODES[name], id=name, marks=[*of_recipe, getattr(pytest.mark, need)(name)])


@functools.cache
def factory() -> Factory:
    """The model's factory."""
    te.engine()
    return model.load()
