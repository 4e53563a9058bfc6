"""Judge many Transformer Engines at the same time, each in its environment and with one process for its tests."""

import concurrent.futures
import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

from mnist_fp8.core.errors import ConfigError, EnvError
from mnist_fp8.gate.releases import environments, processes
from mnist_fp8.gate.releases.subjects import Subject
from mnist_fp8.gate.runner.verification import verify
from mnist_fp8.record.claims import MatrixCell, SuiteResult


class Watcher(Protocol):
    """Sees how it goes; called from several threads."""

    def started(self, label: str) -> None:
        """A Transformer Engine is being judged."""

    def finished(self, judged: MatrixCell) -> None:
        """It was judged, or could not be."""


Work = Callable[["Cell"], SuiteResult]
Cell = tuple[Subject, str | None]
"""A Transformer Engine, and the JAX asked for; ``None`` is the newest that it works with."""


class InterruptedMatrixError(KeyboardInterrupt):
    """Ctrl-C; what was done until then is kept."""

    def __init__(self, done: list[MatrixCell]) -> None:
        super().__init__()
        self.done = done


def judge_all(cells: Sequence[Cell], work: Work, *, jobs: int, watcher: Watcher) -> list[MatrixCell]:
    """Judge them, several at a time. What cannot be judged is one line, and the others go on.

    Args:
        cells: what to judge, in the order of the answer.
        work: judges one, such as `judge_one` does.
        jobs: how many at a time.
        watcher: sees how it goes.

    Raises:
        InterruptedMatrixError: Ctrl-C; all processes have ended.
    """
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        futures: list[concurrent.futures.Future[MatrixCell]] = []
        try:
            for cell in cells:  # Ctrl-C may come while these are started
                futures.append(pool.submit(_judge, cell, work, watcher))  # noqa: PERF401
            return [future.result() for future in futures]
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            processes.stop_all()
            pool.shutdown()
            ended = [future for future in futures if not future.cancelled() and future.exception() is None]
            raise InterruptedMatrixError([future.result() for future in ended]) from None


def _judge(cell: Cell, work: Work, watcher: Watcher) -> MatrixCell:
    watcher.started(cell_label(cell))
    try:
        found = work(cell)
        judged = MatrixCell(cell_label(cell), found)
    except (EnvError, ConfigError) as error:
        judged = MatrixCell(cell_label(cell), None, " ".join(str(error).split()))
    watcher.finished(judged)
    return judged


def cell_label(cell: Cell) -> str:
    """How reports name it; the JAX only if it was asked for."""
    subject, jax = cell
    return f"{subject.label} with JAX {jax}" if jax else subject.label


def judge_one(cell: Cell, claims: Sequence[str], *, workers: int, rerun: bool) -> SuiteResult:
    """Make the environment and run the claims in it; see `verify`."""
    subject, jax = cell
    found = verify(environments.prepare(subject, jax=jax), claims, workers=workers, rerun=rerun)
    return dataclasses.replace(found, te=cell_label(cell))
