"""Find a user's factory by its name, and have it make a case."""

import dis
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
from mnist_fp8.core.plain import clean
from mnist_fp8.model.case import Case, Factory

OWN = "mnist_fp8.training.case:mnist"
"""The model where nobody names one: the network of this project."""
_LIBRARIES = ("jax", "jaxlib", "flax", "transformer_engine")


class NoCaseError(NotImplementedError):
    """A factory says that it has no case for a recipe."""


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
    except (Exception, SystemExit) as error:
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
        NoCaseError: the factory has no case for this recipe.
    """
    with te.Autocast(recipe)():
        try:
            case = factory(te.make_recipe(recipe) if recipe else None)
        except (Exception, SystemExit) as error:
            if isinstance(error, NotImplementedError) and _is_own(error):
                raise NoCaseError(*error.args) from error
            shown = recipe.name if recipe else "None"
            raise ConfigError(f"the model's factory raises for recipe {shown}: {_said(error)}") from error
    if not isinstance(case, Case):
        raise ConfigError(f"the model's factory gives {type(case).__name__}; expected mnist_fp8.model.Case")
    return case


def _is_own(error: NotImplementedError) -> bool:
    """Whether the user's code raises it: JAX and Transformer Engine raise the same where they lack what it calls.

    JAX takes its own frames out of a traceback; the last one that is left is a call then, and raises nothing itself.
    """
    last = error.__traceback__
    assert last is not None  # noqa: S101 - it was raised
    while last.tb_next:
        last = last.tb_next
    code = last.tb_frame.f_code.co_code
    package = str(last.tb_frame.f_globals.get("__name__")).partition(".")[0]
    return code[last.tb_lasti] == dis.opmap["RAISE_VARARGS"] and package not in _LIBRARIES


def _said(error: BaseException) -> str:
    """What was raised, in one line, with the last line of code that is not this project's."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {clean(str(error))[:300]}{where}"
