"""Steps of a long command, with an estimate of the time that is left."""

import contextlib
import json
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from mnist_fp8.core.files import cache_dir, replace_file

_SEEN_S = {"environment": 5.0, "measure": 40.0, "checkpoints": 12.0, "claims": 250.0, "rest": 40.0}
"""What a step takes on two cores; the first estimate, until this machine's own times are known.

``claims`` is of the new side, ``rest`` of what is left of them for the old one.
"""
T = TypeVar("T")


class Watcher(Protocol):
    """Sees how it goes."""

    def started(self, what: str, left: float) -> None:
        """A step begins; the seconds left are an estimate for it and all that follow."""

    def finished(self, what: str) -> None:
        """A step has ended."""


class Steps:
    """Runs steps, tells the watcher, and remembers how long each kind takes if it is not taken from the cache."""

    def __init__(self, watcher: Watcher, *, measured: bool, claims: bool, whole: bool) -> None:
        self._watcher = watcher
        self._whole = whole
        self._left = {"environment": 2, "measure": 2 * measured, "checkpoints": 1 * measured}
        self._left |= {"claims": 1 * claims, "rest": 1 * claims}
        self._file = cache_dir() / "durations.json"
        self._seconds = _SEEN_S | self._remembered()

    def run(self, kind: str, what: str, work: Callable[[], T]) -> T:
        """Run one step."""
        left = sum(self._seconds[each] * count for each, count in self._left.items())
        self._watcher.started(what, left)
        begin = time.monotonic()
        result = work()
        seconds = time.monotonic() - begin
        self._left[kind] -= 1
        if self._whole and seconds > 2:  # noqa: PLR2004 - less is a result that was kept
            self._seconds[kind] = seconds
            self._remember()
        self._watcher.finished(what)
        return result

    def _remembered(self) -> dict[str, float]:
        try:
            found = json.loads(self._file.read_text())
            return {kind: float(found[kind]) for kind in _SEEN_S if kind in found}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def _remember(self) -> None:
        with contextlib.suppress(OSError):  # an estimate is not worth an error
            replace_file(self._file, json.dumps(self._seconds).encode())
