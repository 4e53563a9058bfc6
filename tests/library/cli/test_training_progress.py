"""What a person sees while training runs and after it."""

import io
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from rich.console import Console

from mnist_fp8.cli.training_progress import ConsoleWatcher, print_summary, variable_tables
from mnist_fp8.core.modes import Precision, RecipeConfig
from mnist_fp8.training.config import TrainConfig
from mnist_fp8.training.runs import EpochMetrics

FACTS = {"run": "Flax only", "transformer-engine": "2.20"}
METRICS = EpochMetrics(2, train_loss=2.5, train_accuracy=0.25, test_loss=1.75, test_accuracy=0.5, seconds=3.14)
VARIABLES: dict[str, Any] = {
    "fp8_metas": {"dense1": {"scale": np.ones(1, np.float32)}},
    "params": {"dense1": {"kernel": np.ones((30, 40), ml_dtypes.bfloat16)}},
}

Captured = pytest.CaptureFixture[str]


class Terminal(io.StringIO):
    """Says that it is a terminal."""

    def isatty(self) -> bool:
        """It is."""
        return True


def test_epoch_is_one_line_on_standard_output(capsys: Captured) -> None:
    with ConsoleWatcher(TrainConfig(epochs=3)) as watcher:
        watcher.on_steps(2, 10, 20)
        watcher.on_epoch(METRICS)
    line = "epoch 2/3  train loss 2.5000  accuracy 0.2500  |  test loss 1.7500  accuracy 0.5000  |  3.1 s\n"
    assert capsys.readouterr() == (line, "")


def test_bar_is_shown_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with ConsoleWatcher(TrainConfig(epochs=3)) as watcher:
        watcher.on_steps(2, 10, 20)
    assert "epoch 2/3" in terminal.getvalue()
    assert "10/20" in terminal.getvalue()
    assert capsys.readouterr().out == ""


def test_variables_are_printed_only_if_asked_for(capsys: Captured) -> None:
    ConsoleWatcher(TrainConfig()).on_variables(VARIABLES)
    assert capsys.readouterr().out == ""
    ConsoleWatcher(TrainConfig(), show_variables=True).on_variables(VARIABLES)
    assert "dense1/kernel" in capsys.readouterr().out


def test_tables_list_parameters_first_and_every_variable() -> None:
    tables = variable_tables(VARIABLES)
    assert [table.title for table in tables] == [
        "parameters (params): 1,200 numbers",
        "FP8 metadata (fp8_metas): 1 numbers",
    ]
    printed = io.StringIO()
    Console(file=printed, width=80).print(*tables)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.getvalue().splitlines()]
    assert ["dense1/kernel", "(30, 40)", "bfloat16"] in rows
    assert ["dense1/scale", "(1,)", "float32"] in rows


def summary(capsys: Captured, config: TrainConfig, status: str = "complete", epochs: int = 1) -> tuple[str, str]:
    """What is printed after a run on standard output and error."""
    print_summary(config, FACTS, status, epochs, [Path("runs/[x] :smile:") / ("long" * 40) / "metrics.json"])
    printed = capsys.readouterr()
    return printed.out, printed.err


def test_summary_is_lines_that_can_be_copied(capsys: Captured) -> None:
    """A path stays whole, whatever the width of the terminal and the characters in it."""
    out, err = summary(capsys, TrainConfig())
    assert out.splitlines() == [
        "",
        "mode                flax-bf16",
        "run                 Flax only",
        "transformer-engine  2.20",
        f"written             runs/[x] :smile:/{'long' * 40}/metrics.json",
    ]
    assert err == ""


def test_mode_names_recipe_and_options(capsys: Captured) -> None:
    recipe = RecipeConfig("DelayedScaling", margin=2, amax_history_len=4)
    out, _ = summary(capsys, TrainConfig(Precision.TE_FP8, recipe))
    assert "te-fp8: DelayedScaling, margin=2, amax_history_len=4\n" in out


def test_mode_names_no_recipe_where_none_is_used(capsys: Captured) -> None:
    out, _ = summary(capsys, TrainConfig(Precision.TE_BF16, RecipeConfig("Foo")))
    assert "te-bf16\n" in out
    assert "Foo" not in out


@pytest.mark.parametrize(
    ("status", "epochs", "line"),
    [
        ("interrupted", 0, "mnist-fp8: interrupted; no epoch was finished\n"),
        ("interrupted", 2, "mnist-fp8: interrupted; 2 of 10 epochs finished and kept\n"),
        ("diverged", 2, "mnist-fp8: error: the loss of epoch 3 is not finite\n"),
        ("complete", 10, ""),
    ],
)
def test_early_end_is_one_line_on_standard_error(capsys: Captured, status: str, epochs: int, line: str) -> None:
    _, err = summary(capsys, TrainConfig(epochs=10), status, epochs)
    assert err == line
