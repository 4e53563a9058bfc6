"""What files contain, by digests. A file that has not changed since it was read is not read again."""

import contextlib
import hashlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.files import cache_dir, digest_of, replace_file
from mnist_fp8.core.processor import usable_cores

_FRESH_NS = 2 * 10**9
"""A file that changed so short ago may change again within one tick of the clock: it is read the next time, too."""
MODULES = (".py", ".so", ".pth", ".pyc")
"""Ends of the names of what Python could import."""
_OF_ENVIRONMENTS = ("pyvenv.cfg", "conda-meta")


def digests(folder: Path, *, endings: tuple[str, ...] = (), most_folders: float = math.inf) -> dict[str, str]:
    """Digest of each file in a folder, by its name in it. Bytecode beside sources is left out: no run reads it.

    Args:
        folder: with all folders in it, and what links lead to.
        endings: leave out all files whose names end otherwise, hidden folders, and environments in it; none if there
            are none.
        most_folders: how many may be looked into.

    Raises:
        ConfigError: there are more folders.
        OSError: one of them, or a file, cannot be read.
    """
    cache = cache_dir() / "contents" / f"{digest_of([str(folder), endings])[:16]}.json"
    known = _known(cache)
    files = dict(_files(f"{folder}{os.sep}", "", _Visited(most_folders), endings))
    unknown = [name for name, seen in files.items() if known.get(name, [])[:-1] != seen]
    with ThreadPoolExecutor(usable_cores()) as pool:
        read = dict(zip(unknown, pool.map(lambda name: _digest(folder / name), unknown), strict=True))
    found = {name: read[name] if name in read else str(known[name][-1]) for name in sorted(files)}
    if unknown or len(known) > len(files):
        before = time.time_ns() - _FRESH_NS
        lasting = {name: [*seen, found[name]] for name, seen in files.items() if seen[-1] < before}
        with contextlib.suppress(OSError):  # then they are read again
            replace_file(cache, json.dumps(lasting).encode())
    return found


def _known(cache: Path) -> Mapping[str, list[Any]]:
    try:
        known = json.loads(cache.read_text())
        return {name: seen for name, seen in known.items() if isinstance(seen, list)}
    except (OSError, ValueError, AttributeError):
        return {}


class _Visited:
    """The folders that were looked into: each once, however many links lead to it, and no more than so many."""

    def __init__(self, most: float) -> None:
        self._most = most
        self._known: set[tuple[int, int]] = set()

    def add(self, folder: str) -> bool:
        """Note a folder; whether it is a new one."""
        status = os.stat(folder)  # noqa: PTH116 - a tenth of a second for all of an environment
        if (status.st_dev, status.st_ino) in self._known:
            return False
        if len(self._known) >= self._most:
            raise ConfigError(f"there are more than {self._most:,} folders to look into")
        self._known.add((status.st_dev, status.st_ino))
        return True


def _files(root: str, below: str, visited: _Visited, endings: tuple[str, ...]) -> Iterator[tuple[str, list[int]]]:
    """All files with what tells each from what it was."""
    if not visited.add(root + below):
        return
    with os.scandir(root + below) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            name = below + entry.name
            if entry.is_dir():
                if entry.name != "__pycache__" and not (endings and _has_no_modules(entry)):
                    yield from _files(root, f"{name}{os.sep}", visited, endings)
            elif not endings or entry.name.endswith(endings):
                yield name, seen(entry)


def _has_no_modules(folder: os.DirEntry[str]) -> bool:
    """Whether nothing in it is imported by the name of its folders: it is hidden, or an environment."""
    return folder.name.startswith(".") or any(os.path.lexists(f"{folder.path}/{mark}") for mark in _OF_ENVIRONMENTS)


def seen(file: os.DirEntry[str] | Path) -> list[int]:
    """What tells a file from what it was, and from one that takes its place, without reading it."""
    try:
        status = file.stat()
    except OSError:  # there is none, or it is the end of a dangling link
        return [0]
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _digest(file: Path) -> str:
    if not file.is_file():  # else opening it could wait for ever
        return "no file"
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
