"""Where a name that is gone lives now."""

from mnist_fp8.record.names import Definition, Found, Names

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
        path: that leads somewhere in the old names and nowhere in the new ones.
        old: the names in which it was.
        new: those in which it is gone.
    """
    found = old.find(path)
    if found is None:
        return ""
    if found.definition is None:  # it was imported from elsewhere, and still is there
        return found.path
    owner, _, name = path.rpartition(".")
    if found.definition.signature.what not in _OF_CLASSES:
        ends = [each for each in (*new.definitions, *new.aliases) if each.endswith(f".{name}")]
        places = {each: there.path for each in ends if (there := new.find(each)) and _alike(found.definition, there)}
        if places:
            nearest = min(places, key=lambda each: (each not in new.public, each.count("."), each))
            return nearest if len({*places.values()}) == 1 else ""
    return _renamed(found.definition, owner, old, new)


def _alike(before: Definition, found: Found) -> bool:
    return found.definition is not None and found.definition.signature.what == before.signature.what


def _renamed(before: Definition, owner: str, old: Names, new: Names) -> str:
    """What came in the same module or class and takes the same parameters."""
    home, old_home = new.find(owner), old.find(owner)
    if home is None or old_home is None or not before.signature.parameters:
        return ""
    came = [
        path
        for path, definition in new.definitions.items()
        if definition.signature == before.signature
        and path.rpartition(".")[0] == home.path
        and f"{old_home.path}.{path.rpartition('.')[2]}" not in old.definitions
    ]
    return f"{owner}.{came[0].rpartition('.')[2]}" if len(came) == 1 else ""
