"""The code that judges, and whether what is judged has replaced some of it: a user's model runs in its process."""

import sys
import types
from collections.abc import Iterator, Mapping

JUDGES = ("mnist_fp8", "pytest", "_pytest", "pluggy")
"""The packages that decide how a test ends."""


def functions() -> dict[str, object]:
    """Their functions and methods, by name, as far as they are imported."""
    modules = [(name, module) for name, module in sys.modules.items() if name.partition(".")[0] in JUDGES]
    return {name: function for place, module in modules for name, function in _functions(place, vars(module))}


def _functions(place: str, members: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for name, value in list(members.items()):
        if isinstance(value, types.FunctionType):
            yield f"{place}.{name}", value.__code__
        elif isinstance(value, (classmethod, staticmethod, property)):
            yield f"{place}.{name}", value
        elif isinstance(value, type) and value.__module__ == place:
            yield from _functions(f"{place}.{name}", vars(value))


def replaced(before: Mapping[str, object]) -> list[str]:
    """The names of those that are others now, or gone.

    Args:
        before: what `functions` gave.
    """
    now = functions()
    return [name for name, function in before.items() if now.get(name) is not function]
