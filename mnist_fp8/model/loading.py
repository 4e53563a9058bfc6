"""Find a user's factory by its name, and have it make a case."""

import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from mnist_fp8 import te
from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.model import FOLDER, VARIABLE, parse_model
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.model.case import Case, Factory

OWN = "mnist_fp8.training.case:mnist"
"""The model where nobody names one: the network of this project."""


def load() -> Factory:
    """The factory that ``MNIST_FP8_MODEL`` names, found in the folder ``MNIST_FP8_MODEL_PATH`` or installed.

    Raises:
        ConfigError: there is none of that name, or its package does not import; one line.
    """
    name = os.environ.get(VARIABLE) or OWN
    package, path = parse_model(name)
    folder = os.environ.get(FOLDER)
    if folder and folder not in sys.path:
        sys.path.append(folder)  # last: nothing that lies there replaces a library
    try:
        found: Any = importlib.import_module(package)
        for part in path:
            found = getattr(found, part)
    except Exception as error:
        raise ConfigError(f"model {name!r} cannot be loaded: {_said(error)}") from error
    if not callable(found):
        raise ConfigError(
            f"model {name!r} is {type(found).__name__}; expected a function of a recipe that gives a Case"
        )
    factory: Factory = found
    return factory


def make(factory: Factory, recipe: RecipeConfig | None) -> Case:
    """The case for a recipe, made inside its autocast.

    Raises:
        ConfigError: the factory raises, or gives something else.
        NotImplementedError: the factory's own: it has no case for this recipe.
    """
    with te.Autocast(recipe)():
        try:
            case = factory(te.make_recipe(recipe) if recipe else None)
        except NotImplementedError:
            raise
        except Exception as error:
            shown = recipe.name if recipe else "None"
            raise ConfigError(f"the model's factory raises for recipe {shown}: {_said(error)}") from error
    if not isinstance(case, Case):
        raise ConfigError(f"the model's factory gives {type(case).__name__}; expected mnist_fp8.model.Case")
    return case


def _said(error: Exception) -> str:
    """What was raised, in one line, with the last line of code that is not this project's."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}{where}"
