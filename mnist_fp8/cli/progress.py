"""What a person sees of work that takes minutes, on standard error."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from mnist_fp8.core import model, variables


class _TimeLeft(ProgressColumn):
    """Runs down to the end of the estimate."""

    def render(self, task: Task) -> Text:
        if not task.total:
            return Text("")
        left = task.fields["ends"] - time.monotonic()
        if left < 0:
            return Text("longer than usual")
        return Text(f"about {left / 60:.0f} min left" if left > 90 else f"about {left:.0f} s left")  # noqa: PLR2004


def say_left_out() -> None:
    """Say which options of the shell are not in the runs that follow."""
    if options := variables.left_out(os.environ):
        shown = variables.assignments(options)
        print(f"left out of the runs, which take the defaults of JAX, Flax and XLA: {shown}", file=sys.stderr)  # noqa: T201
    if options := variables.that_decide_defaults(os.environ):
        shown = variables.assignments(options)
        print(f"left out of the claims, which hold the defaults of TE's recipes: {shown}", file=sys.stderr)  # noqa: T201
    if options := {name: os.environ[name] for name in model.VARIABLES if name in os.environ}:
        shown = variables.assignments(options)
        print(f"left out of the runs, for which --model names the model: {shown}", file=sys.stderr)  # noqa: T201


@contextmanager
def watching(total: int = 0, jobs: int = 1) -> Iterator["Watcher"]:
    """Watch some work.

    Args:
        total: how many pieces there are, all of a kind; 0 if they are not, and each says how much time is left.
        jobs: how many are done at a time.
    """
    columns = (BarColumn(16), TimeElapsedColumn(), TextColumn("{task.description}"), _TimeLeft())
    console = Console(stderr=True, highlight=False)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        yield Watcher(progress, total, jobs)


class Watcher:
    """A line for each piece that is done; if standard error is a terminal, also a bar, what runs, and the time left."""

    def __init__(self, progress: Progress, total: int, jobs: int) -> None:
        self._progress, self._total, self._jobs = progress, total, jobs
        self._task = progress.add_task("", total=None, ends=0.0)
        self._begin = time.monotonic()
        self._running: dict[str, float] = {}
        self._took: list[float] = []
        self._lock = threading.Lock()

    def started(self, what: str, left: float = 0.0) -> None:
        """Show it as running; the seconds left are an estimate for it and all that follow."""
        with self._lock:
            self._running[what] = time.monotonic()
            self._show(left)

    def finished(self, what: str, result: str = "") -> None:
        """Print its line: what it was, or what came of it."""
        with self._lock:
            seconds = time.monotonic() - self._running.pop(what)
            self._took.append(seconds)
            number = f"{len(self._took)}/{self._total}  " if self._total else ""
            line = f"{number}{result or what}  ({seconds:.0f} s)"
            self._progress.console.print(line, markup=False, soft_wrap=True)
            self._show(self._mean_left())

    def _mean_left(self) -> float:
        """Seconds left if the others take as long as those that are done."""
        left = max(self._total - len(self._took), 0)
        return sum(self._took) / len(self._took) * left / self._jobs

    def _show(self, left: float) -> None:
        self._progress.update(self._task, description=", ".join(self._running))
        if left:
            now = time.monotonic()
            done = now - self._begin
            self._progress.update(self._task, completed=done, total=done + left, ends=now + left)
