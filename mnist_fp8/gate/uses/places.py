"""Where a name that is gone lives now."""

from collections.abc import Iterator

from mnist_fp8.record.names import Definition, Names

_OF_CLASSES = {"method", "property", "field", "member"}


def gone(path: str, names: Names) -> str:
    """The shortest beginning of a dotted path that leads nowhere; empty if all of it leads somewhere."""
    parts = path.split(".")
    beginnings = (".".join(parts[:end]) for end in range(1, len(parts) + 1))
    return next((each for each in beginnings if names.find(each) is None), "")


def was_there(path: str, names: Names) -> bool:
    """Whether a path certainly led somewhere: to a definition, or through an import to something from elsewhere."""
    found = names.find(path)
    if found is None or found.definition:
        return found is not None
    owner, _, name = path.rpartition(".")
    above = names.find(owner) if owner else None
    return above is not None and f"{above.path}.{name}" in names.aliases


def moved_to(path: str, old: Names, new: Names) -> str:
    """The path under which something that is gone is found now; empty if there is none, or more than one.

    Args:
        path: that leads somewhere in the old ones and nowhere in the new ones.
        old: the names in which it was.
        new: those in which it is gone.
    """
    found = old.find(path)
    if found is None:
        return ""
    if found.definition is None:  # it was imported from elsewhere, and still is there
        return found.path
    owner, _, name = path.rpartition(".")
    if found.definition.signature.what in _OF_CLASSES:
        return _only(f"{owner}.{each}" for each in _alike_in(found.path, old, new))
    same_name = [each for each in (*new.definitions, *new.aliases) if each.endswith(f".{name}")]
    there = {each: place.path for each in same_name if (place := new.find(each)) and _is_like(place.definition, found.definition)}
    if len({*there.values()}) == 1:
        return min(there, key=lambda each: (each not in new.public, each.count("."), each))
    home = found.path.rpartition(".")[0]
    return "" if there else _only(f"{home}.{each}" for each in _alike_in(found.path, old, new))


def _alike_in(path: str, old: Names, new: Names) -> Iterator[str]:
    """Names that came in the module or class of a path, and take the same parameters."""
    home = path.rpartition(".")[0]
    before = old.definitions[path]
    for other, definition in new.definitions.items():
        if other.rpartition(".")[0] == home and other not in old.definitions and _is_like(definition, before):
            if definition.signature.parameters == before.signature.parameters != ():
                yield other.rpartition(".")[2]


def _is_like(one: Definition | None, other: Definition) -> bool:
    return one is not None and one.signature.what == other.signature.what


def _only(paths: Iterator[str]) -> str:
    found = list(paths)
    return found[0] if len(found) == 1 else ""
