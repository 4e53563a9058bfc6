"""What a person sees of training: progress, a line for each epoch, the variables and a summary."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from mnist_fp8.training.config import TrainConfig
from mnist_fp8.training.runs import EpochMetrics, Watcher


class ConsoleWatcher(Watcher):
    """Shows how training goes: results on standard output, a progress bar on standard error if that is a terminal."""

    def __init__(self, config: TrainConfig, *, show_variables: bool = False) -> None:
        self._epochs = config.epochs
        self._show_variables = show_variables
        self._console = Console(highlight=False, soft_wrap=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._progress.add_task("reading data, compiling", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def on_variables(self, variables: Mapping[str, Any]) -> None:
        """Print the variable tree, if asked to."""
        if self._show_variables:
            for table in variable_tables(variables):
                self._console.print(table)

    def on_steps(self, epoch: int, done: int, total: int) -> None:
        """Move the bar."""
        self._progress.update(self._task, description=f"epoch {epoch}/{self._epochs}", completed=done, total=total)

    def on_resumed(self, epochs: Sequence[EpochMetrics]) -> None:
        """Print what a checkpoint has already."""
        self._console.print(f"goes on after epoch {len(epochs)}/{self._epochs}, which the checkpoint has")

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """Print the epoch's line."""
        self._console.print(
            f"epoch {metrics.epoch}/{self._epochs}"
            f"  train loss {metrics.train_loss:.4f}  accuracy {metrics.train_accuracy:.4f}"
            f"  |  test loss {metrics.test_loss:.4f}  accuracy {metrics.test_accuracy:.4f}"
            f"  |  {metrics.seconds:.1f} s"
        )


def variable_tables(variables: Mapping[str, Any]) -> list[Table]:
    """One table for each collection: path, shape and dtype of every variable; parameters first."""
    names = sorted(variables, key=lambda name: (name != "params", name))
    return [_variable_table(name, variables[name]) for name in names]


def _variable_table(collection: str, tree: Any) -> Table:  # noqa: ANN401 - a Flax variable tree
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    total = sum(leaf.size for _, leaf in leaves)
    title = "parameters" if collection == "params" else "FP8 metadata"
    table = Table(title=f"{title} ({collection}): {total:,} numbers", title_justify="left")
    for column in ("variable", "shape", "dtype"):
        table.add_column(column)
    for path, leaf in leaves:
        table.add_row("/".join(entry.key for entry in path), str(leaf.shape), str(leaf.dtype))
    return table


def print_summary(
    config: TrainConfig, facts: Mapping[str, str], status: str, epochs: int, written: Sequence[Path]
) -> None:
    """Print what ran, with what, and where the results are."""
    rows = [("mode", config.mode), *facts.items(), *(("written", str(path)) for path in written)]
    width = max(len(name) for name, _ in rows)
    # Lines as they are: a path keeps its brackets and is never broken.
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    console.print()
    for name, value in rows:
        console.print(f"{name:<{width}}  {value}")
    if status == "interrupted":
        kept = f"{epochs} of {config.epochs} epochs finished and kept" if epochs else "no epoch was finished"
        print(f"mnist-fp8: interrupted; {kept}", file=sys.stderr)  # noqa: T201
    elif status == "diverged":
        print(f"mnist-fp8: error: the loss of epoch {epochs + 1} is not finite", file=sys.stderr)  # noqa: T201
