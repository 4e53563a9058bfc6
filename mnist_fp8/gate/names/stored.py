"""The names of all known releases, which come with the package: one compressed file, in which releases share.

`mnist_fp8.gate.names.noting` writes it.
"""

import functools
import json
import lzma
from collections.abc import Mapping
from pathlib import Path

import msgspec

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.files import replace_file
from mnist_fp8.record.names import Definition, Names
from mnist_fp8.record.names_json import definition_to_json, definitions_from_json, names_to_json

NAMES_FILE = Path(__file__).with_name("names.json.xz")


class _Release(msgspec.Struct):
    """The names of a release; definitions by their place in the list of all that there are."""

    definitions: dict[str, int]
    aliases: dict[str, str]
    public: frozenset[str]
    unread: dict[str, str]


@functools.cache
def stored_names(release: str) -> Names:
    """The names of a known release.

    Raises:
        ConfigError: it is none that is known.
    """
    definitions, releases = _read(NAMES_FILE)
    if release not in releases:
        raise ConfigError(f"the names of {release} are not known; known are those of {', '.join(releases)}")
    stored = releases[release]
    of_release = {path: definitions[place] for path, place in stored.definitions.items()}
    return Names(of_release, stored.aliases, stored.public, stored.unread)


def all_names() -> dict[str, Names]:
    """The names of all known releases by version, the oldest first."""
    return {release: stored_names(release) for release in stored_releases()}


def stored_releases() -> tuple[str, ...]:
    """The releases whose names are known, the oldest first."""
    return tuple(_read(NAMES_FILE)[1])


@functools.cache
def _read(file: Path) -> tuple[list[Definition], dict[str, _Release]]:
    document = msgspec.json.decode(lzma.decompress(file.read_bytes()))
    return definitions_from_json(document["definitions"]), msgspec.convert(document["releases"], dict[str, _Release])


def store_names(file: Path, names: Mapping[str, Names]) -> None:
    """Write the names of releases, in their order."""
    places: dict[str, int] = {}

    def place(definition: Definition) -> int:
        return places.setdefault(json.dumps(definition_to_json(definition)), len(places))

    releases = {
        release: names_to_json(every)
        | {"definitions": {path: place(definition) for path, definition in every.definitions.items()}}
        for release, every in names.items()
    }
    document = {"definitions": [json.loads(definition) for definition in places], "releases": releases}
    replace_file(file, lzma.compress(json.dumps(document, separators=(",", ":")).encode(), preset=9))
