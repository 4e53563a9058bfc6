"""The identity of an installation: all that will be imported and loaded there, by content. It is the key of results."""

import base64
import csv
import hashlib
import os
import sys
import sysconfig
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from mnist_fp8.core.files import digest_of
from mnist_fp8.core.processor import describe_processor
from mnist_fp8.gate.releases.contents import MODULES, digests
from mnist_fp8.gate.releases.interpreters import Facts

_NOTES = ("RECORD", "REQUESTED", "INSTALLER", "direct_url.json", "uv_build.json", "uv_cache.json")
"""What an installer notes beside a package: paths and times, which no run reads."""
_IMPORTABLE = (*MODULES, "METADATA", "PKG-INFO", "entry_points.txt")
"""Ends of the names of what a Python imports from a folder on its path, and is told there of packages."""
_AT_START = Path(sysconfig.get_path("stdlib"), "sitecustomize.py")
"""What a Python imports before all else, in every environment that is made from it."""

_LOADER_CACHE, _DRIVER = Path("/etc/ld.so.cache"), Path("/proc/driver/nvidia/version")


def of_made(files: Mapping[str, str], first: Path | None) -> str:
    """Identity of an environment that was made here.

    Args:
        files: digests of its files.
        first: folder with ``transformer_engine`` that comes first on the path, if there is one. A package in it counts
            with its data, all else as far as it can be imported: a folder needs no ``__init__.py`` for that.
    """
    loaded = {
        name: digest
        for name, digest in files.items()
        if name == "bin/python" or ("/site-packages/" in name and not name.endswith(_NOTES))
    }
    places = sorted(first.glob("*/__init__.py")) if first else []
    before = [_content(first, _IMPORTABLE), *map(_content, places)] if first else []
    return digest_of([loaded, before, _content(_AT_START), sys.version, describe_processor()])


def of_adopted(facts: Facts, sites: Collection[str], package: Path) -> str:
    """Identity of an interpreter as it is.

    Args:
        facts: what it says of itself.
        sites: its folders of installed packages. Of other folders on its path only what can be imported counts.
        package: folder of ``transformer_engine``.
    """
    places = [str(package), *facts.places]
    outside = [place for place in places if not any(Path(place).is_relative_to(folder) for folder in facts.path)]
    inside = [_content(Path(folder), () if folder in sites else _IMPORTABLE) for folder in facts.path]
    others = [_content(Path(place)) for place in outside]
    machine: list[Any] = [facts.python, facts.device, describe_processor()]
    if facts.device:
        machine += [_content(_DRIVER), *_libraries(os.environ.get("LD_LIBRARY_PATH", ""))]
    return digest_of([inside, others, machine])


def _content(place: Path, endings: tuple[str, ...] = ()) -> dict[str, str]:
    """Digests of a folder, of a package by its first file, or of a module of one file."""
    if place.name == "__init__.py":
        place = place.parent
    if place.is_dir():
        return digests(place, endings=endings)
    return {place.name: hashlib.sha256(place.read_bytes()).hexdigest()} if place.is_file() else {}


def _libraries(path: str) -> list[Any]:
    """The libraries of CUDA outside of Python: too large to be read each time, so by size and time."""
    found = [file for folder in path.split(":") if folder for file in sorted(Path(folder).glob("*.so*"))]
    return [
        (str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in (*found, _LOADER_CACHE) if file.exists()
    ]


def damaged(home: Path, files: Mapping[str, str]) -> list[str]:
    """Files of an environment that are not what their packages say that they are, by their ``RECORD``.

    Args:
        home: folder of the environment.
        files: digests of its files.
    """
    wrong = []
    for record in sorted(home.glob("lib/python*/site-packages/*.dist-info/RECORD")):
        site = record.parents[1].relative_to(home)
        for name, digest, *_ in csv.reader(record.read_text().splitlines()):
            kind, _, encoded = digest.partition("=")
            file = os.path.normpath(site / name)
            if kind == "sha256" and files.get(file) != base64.urlsafe_b64decode(f"{encoded}==").hex():
                wrong.append(file)
    return wrong
