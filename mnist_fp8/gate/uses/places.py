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


class Moves:
    """Where names that are gone live now."""

    def __init__(self, old: Names, new: Names) -> None:
        """From the names in which they were, to those in which they are looked for."""
        self._old, self._new = old, new
        self._found: dict[str, str] = {}

    def of(self, path: str) -> str:
        """The path under which something is found now that is gone; empty if there is none, or more than one.

        Args:
            path: that leads somewhere in the old names and nowhere in the new ones.
        """
        if path not in self._found:
            self._found[path] = self._moved(path)
        return self._found[path]

    def _moved(self, path: str) -> str:
        found = self._old.find(path)
        if found is None:
            return ""
        if found.definition is None:  # it was imported from elsewhere, and still is there
            return found.path
        owner, _, name = path.rpartition(".")
        if found.definition.signature.what not in _OF_CLASSES:
            places = {
                each: there.path for each in self._new.by_last.get(name, ()) if (there := self._alike(each, found))
            }
            if places:
                nearest = min(places, key=lambda each: (each not in self._new.public, each.count("."), each))
                return nearest if len({*places.values()}) == 1 else ""
        return self._renamed(found.definition, owner)

    def _alike(self, path: str, before: Found) -> Found | None:
        """What a new path leads to, if that is of the same kind."""
        found = self._new.find(path)
        kinds = {each.definition.signature.what for each in (before, found) if each and each.definition}
        return found if found and found.definition and len(kinds) == 1 else None

    def _renamed(self, before: Definition, owner: str) -> str:
        """What came in the same module or class and takes the same parameters."""
        home, old_home = self._new.find(owner), self._old.find(owner)
        if home is None or old_home is None or not before.signature.parameters:
            return ""
        came = [
            name
            for name, definition in self._new.members.get(home.path, {}).items()
            if definition.signature == before.signature and f"{old_home.path}.{name}" not in self._old.definitions
        ]
        return f"{owner}.{came[0]}" if len(came) == 1 else ""
