"""Examine many installations at the same time, each in its environment."""

import dataclasses
import functools
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from mnist_fp8.core.errors import ConfigError, EnvError
from mnist_fp8.core.plain import clean
from mnist_fp8.gate.runner.at_once import all_of
from mnist_fp8.gate.runner.installation import Installation
from mnist_fp8.record.record import Record


@dataclasses.dataclass(frozen=True)
class MatrixCell:
    """One of many: its record, or why there is none.

    Attributes:
        te: the Transformer Engine, as a person reads it.
        jax: version of JAX that was asked for; ``None`` is the newest that it works with.
        record: what is known of it.
        error: why it could not be examined, in one line.
    """

    te: str
    jax: str | None = None
    record: Record | None = None
    error: str = ""

    @property
    def label(self) -> str:
        """What tells it from the others: the JAX only if it was asked for."""
        return f"{self.te} with JAX {self.jax}" if self.jax else self.te


class Watcher(Protocol):
    """Sees how it goes; called from several threads."""

    def started(self, cell: MatrixCell) -> None:
        """One is being examined."""

    def finished(self, cell: MatrixCell) -> None:
        """It was, or could not be."""


Work = Callable[[Installation], Record]


def examine_all(installations: Sequence[Installation], work: Work, *, jobs: int, watcher: Watcher) -> list[MatrixCell]:
    """Examine them, several at a time. What cannot be examined is one line, and the others go on.

    Args:
        installations: in the order of the answer.
        work: examines one.
        jobs: how many at a time.
        watcher: sees how it goes.

    Raises:
        InterruptedWorkError: Ctrl-C; all processes have ended.
    """
    return all_of([functools.partial(_examine, each, work, watcher) for each in installations], jobs)


def _examine(installation: Installation, work: Work, watcher: Watcher) -> MatrixCell:
    cell = MatrixCell(installation.edition.label, installation.jax)
    watcher.started(cell)
    try:
        cell = dataclasses.replace(cell, record=work(installation))
    except (EnvError, ConfigError) as error:
        cell = dataclasses.replace(cell, error=clean(str(error)))
    except Exception as error:  # noqa: BLE001 - the others go on, and the exit code says that this one could not be done
        cell = dataclasses.replace(cell, error=_defect(error))
    watcher.finished(cell)
    return cell


def _defect(error: Exception) -> str:
    """What was raised by a defect of ours, and where, in one line."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    said = clean(f"{type(error).__name__} {error}")
    return f"a defect of mnist-fp8, please report it: {said} ({Path(where.filename).name}:{where.lineno})"
