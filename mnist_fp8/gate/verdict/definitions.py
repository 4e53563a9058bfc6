"""Which definition a changed name of the API belongs to: one can be imported and inherited in many places."""

from collections.abc import Iterable, Mapping

from mnist_fp8.record.entries import Signature, Value

_AREA = "api/"
_PACKAGES = 2
"""Parts of a path that names of one definition have in common, such as ``transformer_engine.jax``."""


def definitions(keys: Iterable[str], old: Mapping[str, Value], new: Mapping[str, Value]) -> dict[str, str]:
    """The dotted path of the definition that each changed name belongs to, by the name's key.

    What a module or class that came or went holds belongs to it, and so do the members of a class. Names that are
    called alike and changed alike in one package are one definition, the shortest of them: re-exports and what classes
    inherit.

    Args:
        keys: of the entries that differ.
        old: entries of the old record.
        new: entries of the new one.
    """
    outermost = {key: _outermost(key, old, new) for key in keys}
    alike: dict[tuple[object, ...], str] = {}
    for key in sorted(outermost.values(), key=lambda key: (key.count("."), key)):
        alike.setdefault(_alike(key, old, new), key)
    return {key: _owner(alike[_alike(top, old, new)], old, new).removeprefix(_AREA) for key, top in outermost.items()}


def _parents(key: str) -> list[str]:
    """The modules and classes that a name lies in, the outermost first."""
    parts = key.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _outermost(key: str, old: Mapping[str, Value], new: Mapping[str, Value]) -> str:
    """The outermost of what came or went together with a name, or the name itself."""
    came_or_went = key in old, key in new
    if all(came_or_went):
        return key
    return next((each for each in _parents(key) if (each in old, each in new) == came_or_went), key)


def _alike(key: str, old: Mapping[str, Value], new: Mapping[str, Value]) -> tuple[object, ...]:
    """What names of one definition have in common."""
    parts = key.split(".")
    return (*parts[:_PACKAGES], parts[-1], old.get(key), new.get(key))


def _owner(key: str, old: Mapping[str, Value], new: Mapping[str, Value]) -> str:
    """The class that a name is a member of, or the name itself."""
    parent = key.rpartition(".")[0]
    sides = (side.get(parent) for side in (old, new))
    return parent if any(isinstance(side, Signature) and side.what == "class" for side in sides) else key
