"""Examine installations and show what the suite says of them: what ``verify`` and ``matrix`` share."""

# ruff: noqa: T201 - a command prints

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from rich.console import Console

from mnist_fp8.cli.options import judged
from mnist_fp8.cli.output import (
    INTERRUPTED,
    RUNS,
    check_output,
    exit_code,
    new_folder,
    report_errors,
    say_written,
    write_reports,
)
from mnist_fp8.cli.progress import Watcher, say_left_out, watching
from mnist_fp8.gate.releases.editions import Edition
from mnist_fp8.gate.reports.claims import terminal, view
from mnist_fp8.gate.runner import matrix, suite
from mnist_fp8.gate.runner.at_once import InterruptedWorkError
from mnist_fp8.gate.runner.installation import Installation, examine
from mnist_fp8.gate.runner.matrix import MatrixCell
from mnist_fp8.record.record import Record


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked of installations.

    Attributes:
        claims: names of the claims.
        entries: keys of what to measure.
        jobs: how many installations at a time; ``None`` goes by cores and memory.
        rerun: do again what was done before.
    """

    claims: Sequence[str]
    entries: Sequence[str]
    jobs: int | None
    rerun: bool

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of all that is asked for."""
        return (*(f"claims/{name}" for name in self.claims), *self.entries)


def examine_and_show(
    args: argparse.Namespace,
    editions: Sequence[Edition],
    jax: Sequence[str | None],
    entries: Sequence[str],
    *,
    name: str,
    kept: bool,
    explained: bool,
) -> int:
    """Examine installations, print the table and write the reports; returns the exit code.

    Args:
        args: with the options of `add_examining`.
        editions: what to examine.
        jax: versions of JAX to examine each with; ``None`` is the newest that it works with.
        entries: keys of what to measure.
        name: of the report's files.
        kept: whether there are files at all.
        explained: whether the terminal also says why claims do not plainly hold.

    Raises:
        ConfigError: what is asked for cannot be done.
    """
    request = Request(suite.select_claims(args.claim), entries, args.jobs, args.rerun)
    if kept:
        check_output(args.output or RUNS)
    asked = judged(args, editions, request.keys)
    installations = [Installation(each, version, None, *asked) for each in editions for version in jax]
    try:
        cells = _examine_all(installations, request)
    except InterruptedWorkError as interrupted:
        done = f"{len(interrupted.done)} of {len(installations)} judged and kept"
        print(f"mnist-fp8: interrupted; {done}: run it again to go on", file=sys.stderr)
        return INTERRUPTED
    written = write_reports(args.output or new_folder(name), name, cells) if kept else []
    _print(cells, explained=explained)
    say_written(written)
    report_errors(cells)
    return exit_code(cells)


def _examine_all(installations: Sequence[Installation], request: Request) -> list[MatrixCell]:
    jobs = min(request.jobs or suite.default_jobs(), len(installations))
    workers = max(1, suite.default_jobs() // jobs)

    def work(installation: Installation) -> Record:
        environment = installation.prepare()
        return examine(
            environment, entries=request.entries, claims=request.claims, workers=workers, rerun=request.rerun
        )

    say_left_out()
    with watching(len(installations), jobs) as watcher:
        return matrix.examine_all(installations, work, jobs=jobs, watcher=_CellWatcher(watcher))


class _CellWatcher:
    """Says what came of each in one line."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def started(self, cell: MatrixCell) -> None:
        self._watcher.started(f"TE {cell.label}")

    def finished(self, cell: MatrixCell) -> None:
        results = [terminal.summary(each) for each in view.examined([cell])]
        self._watcher.finished(f"TE {cell.label}", *results)


def _print(cells: Sequence[MatrixCell], *, explained: bool) -> None:
    columns = view.examined(cells)
    console = Console(highlight=False, markup=False, emoji=False)
    if columns:
        console.print(terminal.ClaimTable(columns))
    for each in columns if explained else ():
        console.print()
        for line in terminal.explain(each):
            console.print(line, soft_wrap=True)
