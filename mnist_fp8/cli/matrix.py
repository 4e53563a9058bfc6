"""``mnist-fp8 matrix``."""

# ruff: noqa: T201 - a command prints

import argparse
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_fp8.cli.options import Commands, add_claims, add_output, add_rerun, parse_count
from mnist_fp8.cli.output import INTERRUPTED, check_output, exit_code, report_errors, write_reports

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.progress import Progress, TaskID

    from mnist_fp8.gate.runner.matrix import Cell
    from mnist_fp8.record.claims import MatrixCell, SuiteResult


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "matrix",
        help="hold many releases of Transformer Engine to the claims, and compare them",
        description="Run the claims against many releases of Transformer Engine at the same time. What was judged "
        "before is taken from the cache, so that an interrupted matrix goes on.",
    )
    parser.add_argument(
        "--te", default="all", metavar="EXPR", help="releases: all, 2.10.., ..2.3, 2.3..2.8, 2.19.0; with commas (all)"
    )
    parser.add_argument(
        "--jax", nargs="+", default=[None], metavar="V", help="versions of JAX (default: each release's newest)"
    )
    add_claims(parser)
    add_output(parser, "for matrix.md, .html, .json and junit.xml (default: a new one in runs)")
    parser.add_argument("--jobs", type=parse_count, metavar="N", help="releases at a time (by cores and memory)")
    add_rerun(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Judge the releases that the arguments name; returns the exit code."""
    from mnist_fp8.gate.releases import catalogue, subjects  # noqa: PLC0415 - `--help` needs none of these
    from mnist_fp8.gate.runner import matrix, verification  # noqa: PLC0415 - `--help` needs none of these
    from mnist_fp8.gate.runner.matrix import InterruptedMatrixError  # noqa: PLC0415 - `--help` needs none of these

    claims = verification.select_claims(args.claim)
    releases = [subjects.parse_subject(version) for version in catalogue.select_releases(args.te)]
    cells: list[Cell] = [(subject, jax) for subject in releases for jax in args.jax]
    output = args.output or Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-matrix"
    check_output(output)
    jobs = min(args.jobs or verification.default_jobs(), len(cells))

    def work(cell: "Cell") -> "SuiteResult":
        return matrix.judge_one(cell, claims, workers=1, rerun=args.rerun)

    try:
        with _watching(len(cells), jobs) as watcher:
            judged = matrix.judge_all(cells, work, jobs=jobs, watcher=watcher)
    except InterruptedMatrixError as interrupted:
        done = len(interrupted.done)
        print(f"mnist-fp8: interrupted; {done} of {len(cells)} judged and kept: run it again to go on", file=sys.stderr)
        return INTERRUPTED
    _print(judged)
    write_reports(output, "matrix", judged)
    report_errors(judged)
    return exit_code(judged)


def _print(judged: "Sequence[MatrixCell]") -> None:
    from rich.console import Console  # noqa: PLC0415

    from mnist_fp8.gate.reports.claims.terminal import ReleaseTable  # noqa: PLC0415

    found = [each.verification for each in judged if each.verification]
    if found:
        Console(highlight=False).print(ReleaseTable(found))


# --- progress ------------------------------------------------------------------------------------------------------


@contextmanager
def _watching(total: int, jobs: int) -> "Iterator[_Watcher]":
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    console = Console(stderr=True, highlight=False)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        yield _Watcher(progress, progress.add_task("", total=total), total, jobs)


class _Watcher:
    """A line for each that is done; if standard error is a terminal, also a bar, what runs and the time left."""

    def __init__(self, progress: "Progress", task: "TaskID", total: int, jobs: int) -> None:
        self._progress, self._task, self._total, self._jobs = progress, task, total, jobs
        self._running: dict[str, float] = {}
        self._seconds: list[float] = []
        self._lock = threading.Lock()

    def started(self, label: str) -> None:
        """Show it as running."""
        with self._lock:
            self._running[label] = time.monotonic()
            self._describe()

    def finished(self, judged: "MatrixCell") -> None:
        """Print its line."""
        from mnist_fp8.gate.reports.claims import terminal  # noqa: PLC0415

        with self._lock:
            label = judged.verification.te if judged.verification else judged.te
            seconds = time.monotonic() - self._running.pop(label)
            self._seconds.append(seconds)
            said = terminal.summary(judged.verification) if judged.verification else f"TE {label}: {judged.error}"
            self._progress.advance(self._task)
            self._describe()
            line = f"{len(self._seconds)}/{self._total}  {said}  ({seconds:.0f} s)"
            self._progress.console.print(line, markup=False, soft_wrap=True)

    def _describe(self) -> None:
        left = self._total - len(self._seconds)
        mean = sum(self._seconds) / len(self._seconds) if self._seconds else 0.0
        about = f"  about {mean * left / self._jobs / 60:.0f} min left" if mean and left else ""
        running = f"TE {', '.join(self._running)}" if self._running else ""
        self._progress.update(self._task, description=running + about)
