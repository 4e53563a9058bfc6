"""The user's own modules: which file an import leads to, and which names in it lead on to Transformer Engine.

A file in which the package is not named is parsed only if it takes such a name from another file.
"""

import dataclasses
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from mnist_fp8.gate.uses.sources import Source
from mnist_fp8.gate.uses.values import OwnModule, Reached, Value, Values, leads_to_te
from mnist_fp8.record.names import PACKAGE

Exports: TypeAlias = dict[str, Values]
"""The names of a module. Those of ``from transformer_engine.x import *`` stand under ``*``."""

_BEFORE = re.compile(rb'(?:^|[;:"]|\\n)[ \t]*(?:from[ \t]+(\.*[ \t]*[\w.]*)[ \t]*)?$', re.MULTILINE)
"""What stands before the word ``import`` on its line; in a notebook, lines are strings of JSON."""
_AFTER = re.compile(rb'(?!\w)[ \t]*(?:\([^)]*|(?:\\\r?\n|[^\n;\\"])*)')
_BY_NAME = re.compile(rb"_module\(\s*[\"']([\w.]+)[\"']")
_NEARBY, _LONGEST = 300, 5000
"""Bytes before and after the word that are looked at."""
_MOST = 10_000
"""Imports of a file."""
_COMMENT = re.compile(r"#.*|[()\\]")
_DEEPEST = 6
"""Folders above a package that an import may name, as it does where there is no ``__init__.py``."""


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """What a glance at a file tells.

    Attributes:
        names_package: whether its text names Transformer Engine.
        imports: module, with leading dots, and the names that are taken from it, if any.
        lines: how many lines it has.
    """

    names_package: bool
    imports: tuple[tuple[str, tuple[str, ...]], ...]
    lines: int

    @classmethod
    def of(cls, content: bytes) -> "Facts":
        """What a glance at the content of a file tells."""
        lines = content.count(b"\n") + (not content.endswith(b"\n") and content != b"")
        return cls(PACKAGE.encode() in content, tuple(_imports(content)), lines)


def _imports(content: bytes) -> Iterator[tuple[str, tuple[str, ...]]]:
    """All imports, wherever they stand, without parsing: some strings and comments are taken for such, too."""
    end = 0
    for _ in range(_MOST):
        if (start := content.find(b"import", end)) < 0:
            return
        end = start + len(b"import")
        nearby = max(start - _NEARBY, 0)  # a line may be endless
        before = _BEFORE.search(content, max(content.rfind(b"\n", nearby, start) + 1, nearby), start)
        if named := _BY_NAME.match(content, end):
            yield named[1].decode(), ()
        elif before and (after := _AFTER.match(content, end, end + _LONGEST)):
            names = _COMMENT.sub(" ", after[0].decode(errors="replace"))
            words = tuple(word[0] for name in names.split(",") if (word := name.split()))
            if before[1] is None:
                yield from ((word, ()) for word in words)
            else:
                is_cut = len(after[0]) == _LONGEST
                yield before[1].decode(errors="replace").replace(" ", ""), ("*",) if is_cut else words


class Project:
    """The user's modules by the places where they lie, and what is known of those that were evaluated.

    Attributes:
        facts: by the path of a file.
        files: by their locations: their paths without ``.py`` or ``/__init__.py``.
        pending: locations of modules that are still to be evaluated.
        was_early: whether a module was asked for that is still to be evaluated.
    """

    def __init__(self, sources: Sequence[Source], facts: Mapping[str, Facts]) -> None:
        self.facts = facts
        self.files = {_location(source.path): source for source in sources}
        self.pending: set[str] = set()
        self.was_early = False
        self._exports: dict[str, Exports] = {}
        self._leading: set[str] = set()
        self._folders: set[str] = set()
        self._names: dict[str, list[str]] = {}
        self._modules: dict[tuple[str, str], str | None] = {}
        for location in self.files:
            self._index(location)

    def _index(self, location: str) -> None:
        """Note every dotted name under which a module may be imported, and the folders that it is in."""
        folder, above = _above(location), 0
        while above < _DEEPEST and folder not in ("", "/"):
            self._folders.add(folder)
            if folder not in self.files:  # else the package is what can be imported
                self._names.setdefault(location[len(folder) + 1 :].replace("/", "."), []).append(location)
                above += 1
            folder = _above(folder)

    def module(self, name: str, importer: str) -> str | None:
        """The location of the module that an import leads to; ``None`` if it is none of the user's.

        Args:
            name: dotted, with leading dots if it is relative.
            importer: location of the module that imports it.
        """
        if name.startswith("."):
            return self._relative(name, importer)
        key = name, _above(importer)
        if key not in self._modules:
            first = name.partition(".")[0]
            is_other = first in sys.stdlib_module_names or first == PACKAGE
            candidates = () if is_other else self._names.get(name, ())
            near = max(
                candidates, key=lambda each: (len(os.path.commonpath((each, importer))), -len(each)), default=None
            )
            self._modules[key] = near
        return self._modules[key]

    def _relative(self, name: str, importer: str) -> str | None:
        path = name.lstrip(".")
        is_package = importer in self.files and self.files[importer].path.endswith("/__init__.py")
        folder = importer if is_package else _above(importer)
        for _ in range(len(name) - len(path) - 1):
            folder = _above(folder)
        location = f"{folder}/{path.replace('.', '/')}".rstrip("/")
        return location if location in self.files or location in self._folders else None

    def taken(self, name: str, word: str, importer: str) -> Values | None:
        """What ``from name import word`` gives; ``None`` if the module is none of the user's."""
        module = self.module(name, importer)
        if module is not None:
            return self.member(module, word)
        below = None if name.startswith(".") else self.module(f"{name}.{word}", importer)
        return None if below is None else (OwnModule(below),)

    def member(self, location: str, name: str) -> Values:
        """What a name means in a module or package of the user's."""
        self.was_early |= location in self.pending
        exports = self._exports.get(location, {})
        if exports.get(name):
            return exports[name]
        below = f"{location}/{name}"
        if below in self.files or below in self._folders:
            return (OwnModule(below),)
        stars = (value for value in exports.get("*", ()) if isinstance(value, Reached))
        return tuple(member for star in stars if name not in exports and (member := star.member(name)))

    def names(self, location: str) -> list[str]:
        """What a module of the user's defines."""
        self.was_early |= location in self.pending
        return [*self._exports.get(location, {})]

    def dependencies(self, location: str) -> Iterator[str]:
        """The user's modules that a module takes names from."""
        for name, words in self.facts[self.files[location].path].imports:
            module = self.module(name, location)
            below = (self.taken(name, word, location) or () for word in words)
            found = (value.location for values in below for value in values if isinstance(value, OwnModule))
            yield from (each for each in (module, *found) if each in self.files)

    def names_package(self, location: str) -> bool:
        """Whether the text of a module names Transformer Engine."""
        return self.facts[self.files[location].path].names_package

    def may_use(self, location: str) -> bool:
        """Whether a module names Transformer Engine, or takes what leads to it from a module that was evaluated."""
        imports = self.facts[self.files[location].path].imports
        return self.names_package(location) or any(self._leads(name, words, location) for name, words in imports)

    def _leads(self, name: str, words: Sequence[str], importer: str) -> bool:
        if not words or "*" in words:
            return self.module(name, importer) in self._leading
        return any(self.leads(value) for word in words for value in self.taken(name, word, importer) or ())

    def leads(self, value: Value) -> bool:
        """Whether a value may make a use of Transformer Engine where it is taken."""
        return value.location in self._leading if isinstance(value, OwnModule) else leads_to_te(value)

    def keep(self, location: str, exports: Exports) -> None:
        """Note what a module that was evaluated defines."""
        self._exports[location] = exports
        if any(self.leads(value) for values in exports.values() for value in values):
            while location not in ("", "/") and location not in self._leading:
                self._leading.add(location)
                location = _above(location)


def _location(path: str) -> str:
    if path.endswith("/__init__.py"):
        return _above(path)
    return path.removesuffix(".py") if path.endswith(".py") else f"{path}:"  # beside a module of that name


def _above(location: str) -> str:
    return location.rpartition("/")[0]
