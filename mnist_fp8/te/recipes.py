"""The recipes of the installed TE, built by name."""

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.te import loading


def recipe_names() -> tuple[str, ...]:
    """Names of the recipes that the installed TE has and that its options can build, supported here or not."""
    return tuple(name for name, arguments in needed_arguments().items() if not arguments)


def needed_arguments() -> dict[str, tuple[str, ...]]:
    """The recipes that the installed TE has, by name, with the arguments that each has to be given."""
    delayed = loading.engine().recipes.DelayedScaling
    base = getattr(loading.engine().recipes, "Recipe", delayed)  # before 2.0 there is but one recipe, and no base class
    classes = (value for value in vars(loading.engine().recipes).values() if inspect.isclass(value))
    recipes = [cls for cls in classes if issubclass(cls, base) and (cls is not base or cls is delayed)]
    return {cls.__name__: _needed(cls) for cls in sorted(recipes, key=lambda cls: cls.__name__)}


def _needed(cls: type) -> tuple[str, ...]:
    parameters = inspect.signature(cls).parameters.values()
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return tuple(p.name for p in parameters if p.default is p.empty and p.kind not in variadic)


def make_recipe(config: RecipeConfig) -> object:
    """Build TE's recipe object.

    Raises:
        ConfigError: TE has no such recipe, the recipe has no such option, or refuses its value.
    """
    names = recipe_names()
    if config.name not in names:
        message = f"recipe {config.name!r} is not in Transformer Engine {loading.version()}; it has {', '.join(names)}"
        raise ConfigError(message)
    cls: Callable[..., object] = getattr(loading.engine().recipes, config.name)
    fields = inspect.signature(cls).parameters
    for option in config.options:
        if option not in fields:
            owners = [n for n in names if option in inspect.signature(getattr(loading.engine().recipes, n)).parameters]
            raise ConfigError(f"recipe {config.name} has no option {option}; it is one of {' and '.join(owners)}")
    arguments = dict(config.options)
    if config.fp8_format is not None:
        arguments["fp8_format"] = _fp8_format(config.fp8_format)
    try:
        return cls(**arguments)
    except (AssertionError, ValueError) as error:
        refused = _shown(config.options) or "its defaults"
        raise ConfigError(f"recipe {config.name} refuses {refused}: {_words_of(error)}") from error


def _fp8_format(name: str) -> object:
    formats = loading.engine().recipes.Format.__members__
    if name not in formats or name == "E2M1":  # a format of four bits
        raise ConfigError(f"FP8 format is {name!r}; expected E4M3 or HYBRID")
    return formats[name]


def _words_of(error: Exception) -> str:
    """TE's own words, without what pydantic puts around an assertion in a recipe."""
    assertion = re.search(r"Assertion failed, (.*?)(?: \[type=|$)", str(error), re.MULTILINE)
    return assertion[1] if assertion else str(error)


def _shown(options: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())


def recipe_config(recipe: object) -> RecipeConfig:
    """The name and the options of a recipe object, as far as they are `RecipeConfig`'s."""
    known = {field.name for field in dataclasses.fields(RecipeConfig)} - {"name", "fp8_format"}
    options = {name: getattr(recipe, name) for name in known if hasattr(recipe, name)}
    fp8_format = getattr(getattr(recipe, "fp8_format", None), "name", None)
    return RecipeConfig(type(recipe).__name__, fp8_format=fp8_format, **options)


def keeps_metadata(config: RecipeConfig) -> bool:
    """Whether a recipe keeps metadata from step to step: it does if it has an amax history."""
    return "amax_history_len" in inspect.signature(getattr(loading.engine().recipes, config.name)).parameters


def size_multiple(config: RecipeConfig) -> int:
    """What the sizes of an FP8 GEMM must be multiples of: 16 for cuBLAS, 32 for a block-scaled recipe's blocks."""
    return 32 if "BlockScaling" in config.name else 16
