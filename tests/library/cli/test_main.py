"""The command: its arguments, its answers, its exit codes, and what it leaves behind."""

import argparse
import contextlib
import dataclasses
import datetime as dt
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mnist_fp8 import __version__, te
from mnist_fp8.cli import main, output, verify
from mnist_fp8.cli import train as train_command
from mnist_fp8.cli.train import QUICK
from mnist_fp8.core import errors as core_errors
from mnist_fp8.core import model
from mnist_fp8.core.capability import VARIABLE as CAPABILITY
from mnist_fp8.core.errors import ConfigError, EnvError, Float8MissingError
from mnist_fp8.core.modes import Precision, RecipeConfig
from mnist_fp8.core.subjects import DEFAULT, SUBJECTS, VARIABLE
from mnist_fp8.gate.names import reading
from mnist_fp8.gate.releases import environments, processes
from mnist_fp8.gate.releases.editions import Edition
from mnist_fp8.gate.releases.environments import Environment
from mnist_fp8.gate.runner import checkpoints, measuring, suite, suite_tests
from mnist_fp8.gate.runner.store import Attempt, unexamined
from mnist_fp8.record import record
from mnist_fp8.record.claims import ClaimResult, SuiteResult, TestResult
from mnist_fp8.record.claims import Outcome as Ending
from mnist_fp8.record.entries import Contents, Special, Text, Value
from mnist_fp8.record.keys import covered
from mnist_fp8.record.names import Names
from mnist_fp8.training import curves, data, feasible, runs
from mnist_fp8.training.config import TrainConfig
from support import bad_input, comparing
from support.bad_input import ROWS, BadInput, Outcome, exit_code
from support.comparing import WHOLE
from support.subprocesses import ROOT, TIMEOUT_S, broken_package, run_python

SMALL = ["--batch-size", "16", "--test-batch-size", "16", "--train-size", "32", "--test-size", "32"]

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- wrong command lines -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=row.command, marks=[pytest.mark.host] if row.host else []) for row in ROWS]
)
def test_wrong_command_line_is_one_line_and_exit_code_2(row: BadInput, tmp_path: Path) -> None:
    outcome = bad_input.run(row.command, tmp_path)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.count("\n") == 1
    assert re.match(r"mnist-fp8( \w+)?: error: ", outcome.err)
    assert row.says in outcome.err
    assert outcome.written == set()


def test_no_command_line_is_tried_twice() -> None:
    assert len({row.command for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("flag", ["--output", "--data-dir"])
def test_name_that_is_too_long_is_one_line(flag: str, tmp_path: Path) -> None:
    outcome = bad_input.run(f"mnist-fp8 train {flag} {'x' * 300}", tmp_path)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert "File name too long" in outcome.err


def test_line_that_quotes_a_file_is_short_and_leaves_the_terminal_alone(tmp_path: Path) -> None:
    (tmp_path / "needs.txt").write_text("\0\x1b[31m" * 100_000)
    outcome = bad_input.run("mnist-fp8 verify 2.20.2 --model a:b --model-requirements needs.txt", tmp_path)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert outcome.err.startswith("mnist-fp8: error: requirements file needs.txt has \ufffd\ufffd[31m")
    assert len(outcome.err) < 2100


@pytest.mark.parametrize("arguments", ["a-file", "--python missing"])
def test_interpreter_that_is_none_is_one_line(arguments: str, tmp_path: Path) -> None:
    outcome = bad_input.run(f"mnist-fp8 verify {arguments}", tmp_path)
    assert (outcome.code, outcome.out, outcome.err.count("\n"), outcome.written) == (2, "", 1, set())
    assert f"{arguments.rpartition(' ')[2]} cannot be run: expected a Python executable" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "--frobnicate"], "mnist-fp8: error: unrecognized arguments: --frobnicate"),
        (["train", "--lr", "0"], "mnist-fp8: error: learning rate is 0.0"),
        (["train", "--mesh", "tp=2"], "mnist-fp8: error: mesh axis 'tp' divides the model"),
    ],
    ids=["by argparse", "by the configuration", "by the trainer"],
)
def test_process_refuses_as_the_function_does(arguments: list[str], says: str) -> None:
    done = subprocess.run(  # noqa: S603 - our own interpreter and command
        [sys.executable, "-m", "mnist_fp8", *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(says)


def test_defect_of_ours_is_not_dressed_up_as_an_answer(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """Python itself would end with 1, which means BROKEN."""

    def fail(_config: TrainConfig) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(feasible, "check_feasible", fail)
    assert main.main(["train"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_every_exit_code_means_one_thing(capsys: Captured) -> None:
    """The one table of them is what ``--help`` prints."""
    codes = [output.OK, output.DID_NOT_HOLD, output.COULD_NOT_RUN, output.NOTHING_VERIFIED, output.CHANGED]
    codes += [output.PARTIAL, output.INTERRUPTED, output.UNREAD]
    assert set(output.EXIT_CODES) == set(codes)
    assert len(set(codes)) == len(codes)
    assert len(set(output.EXIT_CODES.values())) == len(codes)
    assert exit_code(["--help"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert [code for code, meaning in output.EXIT_CODES.items() if f"{code} {meaning}" not in printed] == []
    errors = [each for each in vars(core_errors).values() if isinstance(each, type)]
    assert {each.exit_code for each in errors if issubclass(each, core_errors.AnswerError)} <= set(codes)


def process(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "mnist_fp8", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)  # noqa: S603 - our own command


@pytest.mark.parametrize("arguments", [["--help"], ["compare", "a.json", "a.json"]], ids=["print", "rich"])
def test_closed_pipe_is_no_verdict(arguments: list[str], tmp_path: Path) -> None:
    """As in ``mnist-fp8 compare old.json new.json | head -1``."""
    (tmp_path / "a.json").write_text(json.dumps(comparing.record(entries=WHOLE).to_json()))
    reader, writer = os.pipe()
    os.close(reader)
    environ = os.environ | {"PYTHONUNBUFFERED": "", "PYTHONPATH": str(ROOT)}
    with process(*arguments, stdout=writer, cwd=tmp_path, env=environ) as run:
        os.close(writer)
        assert run.communicate(timeout=TIMEOUT_S)[1] == ""
    assert run.returncode == output.UNREAD


def test_full_disk_under_standard_output_is_one_line() -> None:
    buffered = os.environ | {"PYTHONUNBUFFERED": ""}
    with Path("/dev/full").open("w") as full, process("--help", stdout=full, env=buffered) as run:
        said = run.communicate(timeout=TIMEOUT_S)[1]
    assert (run.returncode, said) == (2, "mnist-fp8: error: it cannot print or write: No space left on device\n")


def test_terminal_that_lacks_characters_is_no_reason_to_end() -> None:
    code = "from mnist_fp8.cli import main, stacks; stacks.run = lambda _: print('\\u2014'); "
    code += "main.main(['stacks', '--search=x'])"
    assert run_python("-c", code, variables={"PYTHONIOENCODING": "ascii"}) == "?\n"


def test_ctrl_c_while_the_command_is_imported_is_one_line(tmp_path: Path) -> None:
    """The first part of a second. What Python does before is not ours."""
    (tmp_path / "argparse.py").write_text("raise KeyboardInterrupt\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")])
    with process("--help", stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path}) as run:
        said = run.communicate(timeout=TIMEOUT_S)
    assert (run.returncode, said) == (130, ("", "mnist-fp8: interrupted before anything was done\n"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["end of a job", "closed terminal"])
def test_what_ends_a_job_or_a_terminal_interrupts(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    monkeypatch.setattr(feasible, "check_feasible", lambda _config: os.kill(os.getpid(), number))
    before = signal.signal(number, signal.SIG_DFL)  # the tests may run under nohup
    try:
        assert main.main(["train", "--dry-run"]) == 130
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_hang_up_that_is_ignored_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under ``nohup``."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    monkeypatch.setattr(feasible, "check_feasible", lambda _config: os.kill(os.getpid(), signal.SIGHUP))
    monkeypatch.setattr(runs, "train_and_evaluate", lambda *_: runs.TrainResult([], "complete", None, {}))  # type: ignore[arg-type]
    try:
        assert main.main(["train", "--dry-run"]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("command", ["train", "benchmark"])
def test_broken_jax_is_one_line(command: str, tmp_path: Path) -> None:
    """Such as one beside an ml_dtypes that is too old for it."""
    path = os.pathsep.join([str(broken_package(tmp_path, "jax")), str(ROOT), os.environ.get("PYTHONPATH", "")])
    with process(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path}) as run:
        out, err = run.communicate(timeout=TIMEOUT_S)
    assert (run.returncode, out) == (2, "")
    assert err == ("mnist-fp8: error: jax cannot be imported: ImportError: a broken jax; mnist-fp8 doctor says more\n")


def test_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setitem(sys.modules, "mnist_fp8.cli.training_progress", None)
    assert main.main(["train"]) == 2
    assert "Traceback" in capsys.readouterr().err, "Control: a module of ours is a defect"
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.delitem(sys.modules, "mnist_fp8.cli.training_progress", raising=False)
    assert main.main(["train"]) == 2
    assert (
        capsys.readouterr().err == "mnist-fp8: error: Python package rich.console is missing: install mnist-fp8 again\n"
    )


# --- arguments -----------------------------------------------------------------------------------------------------


def parsed(*arguments: str) -> TrainConfig:
    """The configuration that those arguments mean."""
    return train_command.build_config(vars(main._parser().parse_args(["train", *arguments])))


def test_no_argument_means_the_defaults() -> None:
    assert parsed() == TrainConfig()


@pytest.mark.parametrize(
    ("arguments", "precision"),
    [
        ([], Precision.FLAX_BF16),
        (["--use-te"], Precision.TE_BF16),
        (["--use-fp8"], Precision.TE_FP8),
        (["--use-te", "--use-fp8"], Precision.TE_FP8),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, list) else value.value,
)
def test_precision_follows_the_flags(arguments: list[str], precision: Precision) -> None:
    assert parsed(*arguments).precision is precision


def test_every_argument_arrives_in_the_configuration() -> None:
    given = """--use-fp8 --fp8-recipe R --fp8-margin 2 --fp8-format F --amax-history-len 3 --amax-compute-algo max
        --fp8-update-interval 4 --batch-size 6 --test-batch-size 8 --epochs 9 --lr 0.5 --momentum 0.25 --seed 11
        --mesh dp=2,fsdp=1 --train-size 12 --test-size 14 --data-dir somewhere"""
    assert parsed(*given.split()) == TrainConfig(
        precision=Precision.TE_FP8,
        recipe=RecipeConfig("R", margin=2, fp8_format="F", amax_history_len=3, amax_compute_algo="max"),
        fp8_update_interval=4,
        mesh=(("dp", 2), ("fsdp", 1)),
        batch_size=6,
        test_batch_size=8,
        epochs=9,
        learning_rate=0.5,
        momentum=0.25,
        seed=11,
        train_size=12,
        test_size=14,
        data_dir=Path("somewhere"),
    )


def test_quick_gives_way_to_what_is_asked_for() -> None:
    sizes = {"batch_size": 16, "test_batch_size": 400, "epochs": 2, "train_size": 6400, "test_size": 2000}
    assert parsed("--quick") == TrainConfig(**sizes)  # type: ignore[arg-type]
    for arguments in (["--quick", "--epochs", "3"], ["--epochs", "3", "--quick"]):
        assert parsed(*arguments) == TrainConfig(**sizes | {"epochs": 3})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "mesh"),
    [("dp=2", (("dp", 2),)), ("dp=2,fsdp=4", (("dp", 2), ("fsdp", 4))), ("fsdp=1", (("fsdp", 1),))],
)
def test_mesh_is_read_in_order(text: str, mesh: object) -> None:
    assert train_command.parse_mesh(text) == mesh


@pytest.mark.parametrize("text", ["", "dp", "dp=", "=2", "dp=-1", "dp=1.5", "dp=2,", "dp=2;fsdp=2", "dp==2", "2=dp"])
def test_mesh_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not of the form AXIS=N"):
        train_command.parse_mesh(text)


def test_version_is_printed(capsys: Captured) -> None:
    assert exit_code(["--version"]) == 0
    assert capsys.readouterr() == (f"mnist-fp8 {__version__}\n", "")


def test_help_states_the_real_defaults(capsys: Captured) -> None:
    assert exit_code(["train", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    config, quick = TrainConfig(), TrainConfig(**QUICK)
    for flag, name in (("batch-size", "batch_size"), ("test-batch-size", "test_batch_size"), ("epochs", "epochs")):
        assert re.search(rf"--{flag} N [^-]*\b{getattr(config, name)} \[{getattr(quick, name)}\]", text), flag
    assert re.search(rf"--lr X [^-]*\b{config.learning_rate}", text)
    assert re.search(rf"--momentum X [^-]*\b{config.momentum}", text)
    assert re.search(rf"--seed N [^-]*\b{config.seed}", text)
    assert re.search(rf"--train-size N [^-]*\b60000 \[{quick.train_size}\]", text)
    assert re.search(rf"--test-size N [^-]*\b10000 \[{quick.test_size}\]", text)


# --- runs that train -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    """A run of two epochs in Flax BF16, and its folder, whose name has brackets."""
    folder = tmp_path_factory.mktemp("complete") / "runs" / "[first]"
    with contextlib.chdir(folder.parents[1]):
        return trained(*SMALL, "--epochs", "2", "--output", str(folder)), folder


@pytest.fixture(scope="module")
def dry_fp8(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A dry run in FP8 that shows its variables."""
    with contextlib.chdir(tmp_path_factory.mktemp("dry")):
        return trained("--use-fp8", *SMALL, "--epochs", "3", "--dry-run", "--show-variables", "--output", "nothing")


def trained(*arguments: str) -> Outcome:
    """Train in this process, in the working directory."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = exit_code(["train", *arguments])
        except KeyboardInterrupt:  # it would end this test run
            pytest.fail("Ctrl-C was not caught")
    return Outcome(code, out.getvalue(), err.getvalue(), {str(path) for path in Path().rglob("*")})


def strict_json(path: Path) -> Any:
    """A JSON file; ``NaN`` and ``Infinity`` are no JSON."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    return json.loads(path.read_text(), parse_constant=refuse)


def summary_of(out: str) -> dict[str, str]:
    """The facts under the epochs, by name."""
    return dict(re.split(r" {2,}", line, maxsplit=1) for line in out.rsplit("\n\n", maxsplit=1)[-1].splitlines())


def test_complete_run_prints_epochs_and_what_it_wrote(complete: tuple[Outcome, Path]) -> None:
    outcome, folder = complete
    assert (outcome.code, outcome.err) == (0, "")
    epochs = [line for line in outcome.out.splitlines() if line.startswith("epoch ")]
    assert [line.split("  ")[0] for line in epochs] == ["epoch 1/2", "epoch 2/2"]
    written = [line.split()[-1] for line in outcome.out.splitlines() if line.startswith("written ")]
    assert written == [str(folder / name) for name in ("metrics.json", "curves.png")]
    assert {path for path in outcome.written if Path(path).suffix} == {
        f"runs/[first]/{name}" for name in ("metrics.json", "curves.png")
    }
    assert "parameters" not in outcome.out, "variables were not asked for"


def test_metrics_file_says_what_ran_with_what(complete: tuple[Outcome, Path]) -> None:
    outcome, folder = complete
    found = strict_json(folder / "metrics.json")
    assert (found["schema_version"], found["status"]) == (1, "complete")
    shown = summary_of(outcome.out)
    assert shown.pop("mode") == "flax-bf16"
    shown.pop("written")
    assert found["environment"] == shown
    assert found["environment"]["run"] == "Flax only: Transformer Engine is not involved"
    config = found["config"]
    assert (config["precision"], config["recipe"]["name"], config["mesh"]) == ("flax-bf16", "DelayedScaling", [])
    assert (config["batch_size"], config["train_size"], config["data_dir"]) == (16, 32, None)
    assert set(config) == {field.name for field in dataclasses.fields(TrainConfig)}


def test_metrics_file_has_the_epochs_that_were_printed(complete: tuple[Outcome, Path]) -> None:
    outcome, folder = complete
    epochs = strict_json(folder / "metrics.json")["epochs"]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]
    for epoch in epochs:
        assert 0 < epoch["train_loss"] < 10
        assert 0 <= epoch["test_accuracy"] <= 1
        line = f"train loss {epoch['train_loss']:.4f}  accuracy {epoch['train_accuracy']:.4f}"
        assert f"{line}  |  test loss {epoch['test_loss']:.4f}  accuracy {epoch['test_accuracy']:.4f}" in outcome.out


def test_curves_are_a_picture(complete: tuple[Outcome, Path]) -> None:
    content = (complete[1] / "curves.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert content[-8:-4] == b"IEND"


def test_dry_run_writes_nothing_and_takes_one_step(dry_fp8: Outcome) -> None:
    assert (dry_fp8.code, dry_fp8.err, dry_fp8.written) == (0, "", set())
    assert [line[:9] for line in dry_fp8.out.splitlines() if line.startswith("epoch")] == ["epoch 1/1"]
    assert "written" not in dry_fp8.out


def test_shown_variables_are_parameters_and_metadata(dry_fp8: Outcome) -> None:
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in dry_fp8.out.splitlines() if "│" in line]
    assert ["dense1/kernel", "(12544, 128)", "float32"] in rows
    metadata = [name for name, *_ in rows if name.endswith(("scale", "amax_history"))]
    assert len(metadata) == 18, "three layers, three tensors, two variables"
    assert dry_fp8.out.index("parameters (params)") < dry_fp8.out.index("FP8 metadata (")


def test_fp8_run_says_its_recipe_and_kind(dry_fp8: Outcome) -> None:
    facts = summary_of(dry_fp8.out)
    assert facts["mode"] == "te-fp8: DelayedScaling"
    assert facts["run"] == te.engine().description


def test_diverging_run_is_one_line_and_exit_code_1(working_directory: Path) -> None:
    outcome = trained(*SMALL, "--epochs", "3", "--lr", "1e6", "--output", "out")
    assert outcome.code == 1
    assert re.fullmatch(r"mnist-fp8: error: the loss of epoch \d is not finite\n", outcome.err)
    for file in working_directory.rglob("metrics.json"):
        assert strict_json(file)["status"] == "diverged"


def test_ctrl_c_in_the_terminal_keeps_finished_epochs(working_directory: Path) -> None:
    """The real signal, sent to a real process."""
    arguments = ["train", *SMALL, "--epochs", "100000", "--output", "out"]
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and command
        [sys.executable, "-u", "-m", "mnist_fp8", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=TIMEOUT_S)
    found = strict_json(working_directory / "out" / "metrics.json")
    done = len(found["epochs"])
    assert process.returncode == 130
    assert err == f"mnist-fp8: interrupted; {done} of 100000 epochs finished and kept\n"
    assert found["status"] == "interrupted"
    assert (first + out).count("train loss") == done >= 1


def test_killed_run_goes_on_after_the_last_whole_epoch(working_directory: Path) -> None:
    """The real signal, which no process can catch."""
    arguments = ["train", *SMALL, "--output", "out", "--checkpoint", "kept"]
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and command
        [sys.executable, "-u", "-m", "mnist_fp8", *arguments, "--epochs", "100000"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    told = 1 + process.communicate(timeout=TIMEOUT_S)[0].count("train loss")
    done = len(strict_json(working_directory / "kept" / "run.json")["epochs"])
    assert done in (told, told + 1), "what was told is kept"
    outcome = trained(*arguments[1:], "--epochs", str(done + 1))
    assert (outcome.code, outcome.err) == (0, "")
    assert f"goes on after epoch {done}/{done + 1}" in outcome.out
    assert len(strict_json(working_directory / "out" / "metrics.json")["epochs"]) == done + 1
    refused = trained(*arguments[1:], "--epochs", str(done + 1), "--lr", "0.5")
    assert refused.code == 2
    assert re.fullmatch(r"mnist-fp8: error: checkpoint kept is of a run with learning rate .*\n", refused.err)


# --- the same without computing ------------------------------------------------------------------------------------


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let epochs take no time; call it with what each does: give a loss, or raise an error."""

    def arrange(*epochs: float | BaseException) -> None:
        results: Iterator[float | BaseException] = iter(epochs)

        def train_epoch(state: Any, *_args: Any) -> Any:
            result = next(results)
            if isinstance(result, BaseException):
                raise result
            return state, {}, result, 0.5

        monkeypatch.setattr(runs, "train_epoch", train_epoch)

    images = {"image": np.zeros((64, 28, 28, 1), np.float32), "label": np.zeros(64, np.int32)}
    monkeypatch.setattr(data, "get_datasets", lambda *_args: (images, images))
    monkeypatch.setattr(runs, "create_train_state", lambda _config: (SimpleNamespace(params={}), {}))
    monkeypatch.setattr(runs, "eval_model", lambda *_args: (1.5, 0.75))
    return arrange


def test_interrupted_run_keeps_finished_epochs(instant: Callable[..., None]) -> None:
    instant(2.0, 1.0, KeyboardInterrupt())
    outcome = trained("--epochs", "5", "--output", "out")
    assert outcome.code == 130
    assert outcome.err == "mnist-fp8: interrupted; 2 of 5 epochs finished and kept\n"
    assert outcome.written == {"out", "out/metrics.json", "out/curves.png"}
    found = strict_json(Path("out/metrics.json"))
    assert (found["status"], [epoch["train_loss"] for epoch in found["epochs"]]) == ("interrupted", [2.0, 1.0])


def test_run_interrupted_in_its_first_epoch_writes_nothing(instant: Callable[..., None]) -> None:
    instant(KeyboardInterrupt())
    outcome = trained("--output", "out")
    assert (outcome.code, outcome.written) == (130, set())
    assert outcome.err == "mnist-fp8: interrupted; no epoch was finished\n"


@pytest.mark.parametrize("target", [(feasible, "check_feasible"), (curves, "picture")], ids=["before", "after"])
def test_ctrl_c_outside_of_training_is_one_line(
    instant: Callable[..., None], monkeypatch: pytest.MonkeyPatch, target: tuple[object, str]
) -> None:
    def interrupt(*_args: object) -> None:
        raise KeyboardInterrupt

    instant(2.0)
    monkeypatch.setattr(*target, interrupt)
    outcome = trained("--epochs", "1", "--output", "out")
    assert (outcome.code, outcome.err) == (130, "mnist-fp8: interrupted before all results were written\n")


def test_run_that_diverges_later_keeps_what_it_has(instant: Callable[..., None]) -> None:
    instant(2.0, math.nan)
    outcome = trained("--epochs", "5", "--output", "out")
    assert (outcome.code, outcome.err) == (1, "mnist-fp8: error: the loss of epoch 2 is not finite\n")
    found = strict_json(Path("out/metrics.json"))
    assert (found["status"], len(found["epochs"])) == ("diverged", 1)


def test_fp8_that_is_not_computed_in_fp8_is_exit_code_1(
    instant: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_args: object) -> None:
        raise Float8MissingError("training should compute in FP8,\nbut does not")

    instant(2.0)
    monkeypatch.setattr(runs, "check_fp8", missing)
    outcome = trained("--use-fp8", "--test-batch-size", "16", "--output", "out")
    assert (outcome.code, outcome.out, outcome.written) == (1, "", set())
    assert outcome.err == "mnist-fp8: error: training should compute in FP8, but does not\n"


def test_results_go_to_a_new_folder_unless_one_is_named(instant: Callable[..., None]) -> None:
    instant(2.0)
    outcome = trained("--epochs", "1")
    (folder,) = Path("runs").iterdir()
    assert outcome.code == 0
    assert re.fullmatch(r"\d{8}-\d{6}-flax-bf16", folder.name)
    assert sorted(path.name for path in folder.iterdir()) == ["curves.png", "metrics.json"]


def test_runs_that_end_in_the_same_second_do_not_share_a_folder(
    instant: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "strftime", lambda _form: "20300101-000000")
    for _ in range(3):
        instant(2.0)
        assert trained("--epochs", "1").code == 0
    folders = sorted(Path("runs").iterdir())
    assert [folder.name for folder in folders] == [f"20300101-000000-flax-bf16{end}" for end in ("", "-2", "-3")]
    assert all(sorted(file.name for file in each.iterdir()) == ["curves.png", "metrics.json"] for each in folders)


def test_older_results_are_replaced(instant: Callable[..., None]) -> None:
    Path("out").mkdir()
    for name in ("metrics.json", "curves.png", "other"):
        Path("out", name).write_text("older")
    instant(2.0)
    assert trained("--epochs", "1", "--output", "out").code == 0
    assert strict_json(Path("out/metrics.json"))["status"] == "complete"
    assert Path("out/other").read_text() == "older"
    assert not list(Path().rglob("*.partial*"))


def test_results_that_cannot_be_written_are_one_line(instant: Callable[..., None]) -> None:
    Path("out/metrics.json").mkdir(parents=True)
    instant(2.0)
    outcome = trained("--epochs", "1", "--output", "out")
    assert outcome.code == 2
    assert outcome.err.startswith("mnist-fp8: error: results cannot be written to out: ")
    assert outcome.err.count("\n") == 1


def test_output_is_refused_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feasible, "check_feasible", lambda _config: pytest.fail("it went on"))
    Path("a-file").touch()
    assert exit_code(["train", "--output", "a-file"]) == 2


@pytest.mark.parametrize("existing", ["folder", "."])
def test_output_that_can_be_made_is_accepted(existing: str) -> None:
    Path(existing).mkdir(exist_ok=True)
    output.check_output(Path(existing) / "new" / "newer")
    output.check_output(Path(existing))


def test_output_without_permission_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda _path, _mode: False)
    with pytest.raises(ConfigError, match=r"^output new cannot be written: no permission in \.$"):
        output.check_output(Path("new"))


def test_installed_command_is_the_same_function() -> None:
    code = "from importlib.metadata import entry_points as e; print(e(group='console_scripts')['mnist-fp8'].value)"
    assert run_python("-c", code).strip() == "mnist_fp8.__main__:main"


# --- measure, compare and upgrade, with environments and runs replaced ----------------------------------------------

PASSED, FAILED, SKIPPED, KNOWN = Ending.PASSED, Ending.FAILED, Ending.SKIPPED, Ending.KNOWN
RECORDED: dict[str, Value] = WHOLE | {
    "bits/R/t": Text("1"),
    "special/R/t": Special((Contents("output", 0, 0, 1.0),)),
}


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, dict[str, Any]]:
    """What is found of each release: entries, `RECORDED` if it is not named; how the one test of each claim ends.

    An outcome may be an error to raise; a test passes if its release is not named.
    """
    arranged: dict[str, dict[str, Any]] = {"entries": {}, "outcomes": {}}

    def measure(where: Environment, keys: Any, _log: Path) -> Attempt:
        found = arranged["entries"].get(where.edition.version, RECORDED)
        facts = {"run": "host run: x", "jax": where.jax, "flax": where.flax}
        asked = covered(found, keys)
        whole: dict[str, Any] = {"run": "host", "environment": facts, "settings": "s", "entries": asked, "seconds": 1.0}
        return Attempt(dataclasses.replace(unexamined(where), problem="" if found else "no libfoo", **whole))

    def judge(where: Environment, _stage: Path, claims: Any, **_options: Any) -> Attempt:
        outcome = arranged["outcomes"].get(where.edition.version, PASSED)
        if not isinstance(outcome, Ending):
            raise outcome
        tests = (ClaimResult(name, (TestResult(f"{name}::t", outcome, "the reason"),)) for name in claims)
        return Attempt(dataclasses.replace(unexamined(where), suite=SuiteResult(tuple(tests), "host run: x")))

    def prepare(edition: Edition, *, jax: str | None = None, flax: str | None = None, **_options: Any) -> Environment:
        versions = jax or "0.5.0", flax or "0.10"
        return Environment(edition, Path("/python"), *versions, f"{edition} {versions}", {}, Path("/te"))

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(measuring, "measure", measure)
    monkeypatch.setattr(reading, "read_names", lambda _package: Names({}, {}, frozenset(), {}))
    monkeypatch.setattr(suite, "judge", judge)
    monkeypatch.setattr(suite_tests, "suite_tests", lambda: dict.fromkeys(suite.known_claims(), ("t",)))
    monkeypatch.setattr(environments, "prepare", prepare)
    monkeypatch.setattr(checkpoints, "with_restored", lambda _made, records, _keys, **_options: records)
    monkeypatch.setattr(processes, "stop_all", lambda: None)
    return arranged


@pytest.fixture
def entries_of(examined: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return examined["entries"]


@pytest.fixture
def outcomes_of(examined: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return examined["outcomes"]


ALTERED = {**RECORDED, "bits/R/t": Text("2")}
FAILING = {**RECORDED, "special/R/t": Special((Contents("output", 3, 0, 1.0),))}


@pytest.mark.parametrize(
    ("old", "new", "code", "verdict"),
    [
        (RECORDED, RECORDED, 0, "SAFE"),
        (RECORDED, FAILING, 1, "BROKEN"),
        (RECORDED, {}, 1, "BROKEN"),
        ({}, RECORDED, 3, "UNVERIFIED"),
        (RECORDED, ALTERED, 4, "CHANGED"),
    ],
    ids=["safe", "broken", "does not start", "unverified", "changed"],
)
def test_verdict_is_the_exit_code_of_upgrade_and_compare(
    entries_of: dict[str, Any], capsys: Captured, old: Any, new: Any, code: int, verdict: str
) -> None:
    entries_of.update({"2.18.0": old, "2.19.0": new})
    assert exit_code(["upgrade", "2.18.0", "2.19.0", "-o", "out"]) == code
    printed = capsys.readouterr().out
    assert verdict in printed.splitlines()[0]
    assert strict_json(Path("out/upgrade.json"))["verdict"] == verdict
    names = ["junit.xml", "new.json", "old.json", "upgrade.html", "upgrade.json", "upgrade.md"]
    assert sorted(path.name for path in Path("out").iterdir()) == names
    assert [line.split()[-1] for line in printed.splitlines() if line.startswith("written")] == [
        f"out/{name}" for name in ("upgrade.md", "upgrade.html", "upgrade.json", "junit.xml", "old.json", "new.json")
    ]
    # The records that it left say the same again.
    assert exit_code(["compare", "out/old.json", "out/new.json"]) == code
    assert verdict in capsys.readouterr().out.splitlines()[0]


def test_upgrade_goes_to_a_new_folder_unless_one_is_named(entries_of: dict[str, Any]) -> None:
    assert entries_of == {}
    assert exit_code(["upgrade", "2.18.0", "2.19.0"]) == 0
    (folder,) = Path("runs").iterdir()
    assert re.fullmatch(r"\d{8}-\d{6}-upgrade", folder.name)
    exit_code(["upgrade", "2.18.0", "2.19.0", "--only", "bits/R/t"])
    assert len(list(Path("runs").iterdir())) == 1, "a part is shown only"


def test_accepted_difference_does_not_fail_the_upgrade(entries_of: dict[str, Any], capsys: Captured) -> None:
    entries_of["2.19.0"] = FAILING
    until = dt.datetime.now(tz=dt.UTC).date()
    Path("policy.toml").write_text(f'[[accept]]\ndifference = "special/R/t"\nreason = "none"\nexpires = {until}\n')
    assert exit_code(["upgrade", "2.18.0", "2.19.0", "--policy", "policy.toml", "-o", "out"]) == 0
    assert exit_code(["compare", "out/old.json", "out/new.json"]) == 1, "Control: not accepted"
    assert "accepted" in capsys.readouterr().out


def test_upgrade_of_jax_alone_takes_the_same_transformer_engine(entries_of: dict[str, Any], capsys: Captured) -> None:
    assert entries_of == {}
    assert exit_code(["upgrade", "2.19.0", "--jax", "0.9.2:0.10.2", "-o", "out"]) == 0
    sides = [strict_json(Path("out") / name)["environment"]["jax"] for name in ("old.json", "new.json")]
    assert sides == ["0.9.2", "0.10.2"]
    assert "0.9.2" in capsys.readouterr().out


def test_key_of_nothing_is_one_line(entries_of: dict[str, Any], capsys: Captured) -> None:
    assert entries_of == {}
    for key, hint in (
        ("numerixx/R", "a key begins with one of claims, uses, api,"),
        ("numerics/none", "mnist-fp8 measure -o"),
    ):
        for command in (["upgrade", "2.18.0", "2.19.0"], ["measure", "2.19.0"]):
            assert exit_code([*command, "--only", "api", key]) == 2
            err = capsys.readouterr().err
            assert f"mnist-fp8: error: nothing is measured under '{key}'; {hint}" in err


@pytest.mark.parametrize("keys", [["bits/R/t"], ["api", "claims/kernels"], ["claims"], ["numerics", "*R*"]])
def test_part_of_an_upgrade_is_never_safe(entries_of: dict[str, Any], capsys: Captured, keys: list[str]) -> None:
    assert entries_of == {}
    assert exit_code(["upgrade", "2.18.0", "2.19.0", "-o", "out", "--only", *keys]) == 5
    assert "only this was asked for: " in capsys.readouterr().out
    assert strict_json(Path("out/upgrade.json"))["verdict"] == "PARTIAL"
    assert exit_code(["compare", "out/old.json", "out/new.json"]) == 5, "the records that it left are parts, too"
    assert exit_code(["upgrade", "2.18.0", "2.19.0", "-o", "out"]) == 0, "Control: all of it"


@pytest.mark.parametrize(
    ("arguments", "text", "layers"),
    [
        ([], "", DEFAULT),
        (["--subjects", "LayerNorm"], 'subjects = ["LayerNormMLP"]', ("DenseGeneral", "LayerNorm")),
        (["--subjects", "all"], "", tuple(SUBJECTS)),
        ([], 'subjects = ["LayerNormMLP"]', ("DenseGeneral", "LayerNormMLP")),
        (["--only", "bits/R/t"], 'subjects = ["LayerNormMLP"]', tuple(SUBJECTS)),
    ],
)
@pytest.mark.parametrize("command", ["upgrade 2.18.0 2.19.0", "measure 2.19.0"])
def test_layers_are_those_asked_for_on_the_command_line_or_in_the_file(
    entries_of: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    arguments: list[str],
    text: str,
    layers: tuple[str, ...],
) -> None:
    assert entries_of == {}
    asked: set[str | None] = set()
    measured = measuring.measure

    def measure(where: Environment, keys: Any, log: Path) -> Attempt:
        asked.add(where.environ.get(VARIABLE))
        return measured(where, keys, log)

    monkeypatch.setattr(measuring, "measure", measure)
    Path("pyproject.toml").write_text(f"[tool.mnist-fp8]\n{text}")
    assert exit_code([*command.split(), *arguments]) in (0, 5)
    assert asked == {",".join(layers)}


@pytest.mark.parametrize("command", ["upgrade 2.18.0 2.19.0", "measure 2.19.0", "verify 2.19.0", "matrix --te 2.19.0"])
def test_subject_that_there_is_not_is_one_line(entries_of: dict[str, Any], capsys: Captured, command: str) -> None:
    assert entries_of == {}
    assert exit_code([*command.split(), "--subjects", "LayerNormMPL"]) == 2
    assert "error: there is no subject 'LayerNormMPL'; there are DenseGeneral, " in capsys.readouterr().err


CLAIM = "model_float8"


@pytest.fixture
def told(outcomes_of: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """What each run of the claims is told of a model; the package ``ours`` lies in ``src``."""
    assert outcomes_of == {}
    Path("src/ours").mkdir(parents=True)
    found: list[dict[str, str]] = []
    judge = suite.judge

    def note(where: Environment, *arguments: Any, **options: Any) -> Attempt:
        found.append({name: where.environ[name] for name in model.VARIABLES if name in where.environ})
        return judge(where, *arguments, **options)

    monkeypatch.setattr(suite, "judge", note)
    return found


@pytest.mark.parametrize(
    "command",
    [
        f"upgrade 2.18.0 2.19.0 --only claims/{CLAIM}",
        "upgrade 2.18.0 2.19.0",
        f"verify 2.19.0 --claim {CLAIM} kernels",
        "matrix --te 2.18..2.19",
        f"bisect --good 2.18.0 --bad 2.19.0 --claim {CLAIM}",
        "measure 2.19.0 --claims",
    ],
)
@pytest.mark.parametrize("place", ["command line", "file"])
def test_model_reaches_the_runs_that_hold_it_to_claims(
    told: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch, capsys: Captured, command: str, place: str
) -> None:
    named = {"model": "ours.net:case", "model-path": "src"}
    options = (
        [word for name, value in named.items() for word in (f"--{name}", value)] if place == "command line" else []
    )
    lines = [f'{name} = "{"other:case" if options else value}"' for name, value in named.items()]
    Path("pyproject.toml").write_text("\n".join(["[tool.mnist-fp8]", *lines[: 1 if options else 2]]))
    monkeypatch.setenv(model.VARIABLE, "of.the.shell:case")
    main.main([*command.split(), *options])
    assert "left out of the runs, for which --model names the model: MNIST_FP8_MODEL=of.the" in capsys.readouterr().err
    of_model = [each for each in told if each]  # other claims run apart, and are told nothing
    contents = {each.pop(model.CONTENTS) for each in of_model}
    assert len(contents) == 1
    place_told = {model.VARIABLE: "ours.net:case", model.FOLDER: str(Path("src").absolute())}
    assert all(each == place_told for each in of_model)


@pytest.mark.parametrize("command", ["verify 2.19.0 --claim kernels", f"verify 2.19.0 --claim {CLAIM}"])
def test_model_of_the_file_has_no_part_in_other_claims(told: list[dict[str, str]], command: str) -> None:
    Path("pyproject.toml").write_text('[tool.mnist-fp8]\nmodel = "ours.net:case"\nmodel-path = "src"')
    assert exit_code(command.split()) == 0
    assert [bool(each) for each in told] == [CLAIM in command]


def test_claims_run_again_when_the_code_of_the_model_changes(told: list[dict[str, str]]) -> None:
    command = ["verify", "2.19.0", "--claim", CLAIM, "--model", "ours.net:case", "--model-path", "src"]
    for edit in ("a = 1", "a = 1", "a = 2"):
        Path("src/ours/net.py").write_text(edit)
        assert exit_code(command) == 0
    assert len(told) == 2
    assert exit_code(command[:4]) == 0
    assert told[2:] == [{}], "Control: our own"


@pytest.mark.parametrize("key", ["", "layers/ours.net:case", "layers"])
@pytest.mark.parametrize("command", ["upgrade 2.18.0 2.19.0 --only", "measure 2.19.0 --only", "bisect"])
def test_model_reaches_the_runs_that_measure_it(
    told: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch, command: str, key: str
) -> None:
    measured: list[str | None] = []
    measure = measuring.measure

    def note(where: Environment, *arguments: Any) -> Attempt:
        measured.append(where.environ.get(model.VARIABLE))
        return measure(where, *arguments)

    monkeypatch.setattr(measuring, "measure", note)
    words = [*command.split(), key] if key else [word for word in command.split() if word != "--only"]
    if command == "bisect":
        words = ["bisect", "--good", "2.18.0", "--bad", "2.19.0", "--entry", key or "layers/ours.net:case/model"]
    exit_code([*words, "--model", "ours.net:case", "--model-path", "src"])
    assert "ours.net:case" in measured
    assert {None, "ours.net:case"}.issuperset(measured), "what is not of the model is measured apart"
    assert {each.get(model.VARIABLE) for each in told} <= {None, "ours.net:case"}


@pytest.mark.parametrize(
    "command",
    [
        "upgrade 2.18.0 2.19.0",
        "verify 2.19.0 --claim kernels",
        "matrix --te 2.18..2.19",
        "bisect --good 2.18.0 --bad 2.19.0 --entry bits/R/t",
        "bisect --good 2.18.0 --bad 2.19.0 --claim kernels",
        "measure 2.19.0 --claims",
    ],
)
@pytest.mark.parametrize(
    ("option", "variable", "asked"), [("", "", None), ("10.0", "", "10.0"), ("", "9.0", "9.0"), ("10.0", "9.0", "10.0")]
)
def test_capability_reaches_every_run(
    examined: dict[str, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    option: str,
    variable: str,
    asked: str | None,
) -> None:
    assert set(examined) == {"entries", "outcomes"}
    found: set[str | None] = set()

    def noting(work: Callable[..., Attempt]) -> Callable[..., Attempt]:
        def note(where: Environment, *arguments: Any, **options: Any) -> Attempt:
            found.add(where.variables.get(CAPABILITY))
            return work(where, *arguments, **options)

        return note

    monkeypatch.setattr(measuring, "measure", noting(measuring.measure))
    monkeypatch.setattr(suite, "judge", noting(suite.judge))
    monkeypatch.setenv(CAPABILITY, variable)
    exit_code([*command.split(), *(["--capability", option] if option else [])])
    assert found == {asked}


def test_training_pretends_the_capability_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, instant: Callable[..., None]
) -> None:
    monkeypatch.setenv(CAPABILITY, "")
    instant()
    seen: list[str] = []
    monkeypatch.setattr(feasible, "check_feasible", lambda _config: seen.append(os.environ[CAPABILITY]))
    exit_code(["train", "--use-fp8", *SMALL, "--capability", "10.0"])
    assert seen == ["10.0"]


def test_packages_for_an_interpreter_are_refused(told: list[dict[str, str]], capsys: Captured) -> None:
    Path("needs.txt").write_text("einops\n")
    options = ["--model", "ours.net:case", "--model-path", "src", "--model-requirements", "needs.txt"]
    assert exit_code(["verify", "--python", sys.executable, *options]) == 2
    assert "is judged with the packages that it has: install those of needs.txt there" in capsys.readouterr().err
    assert told == []


def cut(document: dict[str, Any], how: str) -> dict[str, Any]:
    """A record cut down."""
    claims = document["suite"]["claims"]
    match how:
        case "one test a claim":
            claims = [claim | {"tests": claim["tests"][:1]} for claim in claims]
        case "one claim":
            claims = claims[:1]
        case "only api":
            document["entries"] = {key: each for key, each in document["entries"].items() if key.startswith("api/")}
        case "failures":
            failure = {"kind": "failure", "type": "ValueError", "message": "no"}
            document["entries"] = {key: each if key.startswith("recipes/") else failure
                                   for key, each in document["entries"].items()}  # fmt: skip
    if how == "no claims":
        return document | {"suite": None}
    return document | {"suite": document["suite"] | {"claims": claims}}


@pytest.mark.parametrize("sides", [("new.json",), ("old.json", "new.json")], ids=["the new one", "both"])
@pytest.mark.parametrize("how", ["one test a claim", "one claim", "only api", "failures", "no claims"])
def test_records_that_were_cut_down_are_never_safe(
    entries_of: dict[str, Any], monkeypatch: pytest.MonkeyPatch, how: str, sides: tuple[str, ...]
) -> None:
    """Entries, claims and tests that are not there were not verified, on one side or on both."""
    assert entries_of == {}
    monkeypatch.setattr(suite_tests, "suite_tests", lambda: dict.fromkeys(suite.known_claims(), ("t", "u")))
    assert exit_code(["upgrade", "2.18.0", "2.19.0", "-o", "out"]) == 5, "Control: one test of two"
    for name in ("old.json", "new.json"):
        whole = strict_json(Path("out", name))
        for claim in whole["suite"]["claims"]:
            claim["tests"].append(claim["tests"][0] | {"name": f"{claim['name']}::u"})
        Path("out", name).write_text(json.dumps(whole))
    assert exit_code(["compare", "out/old.json", "out/new.json"]) == 0, "Control: all of it"
    for name in sides:
        Path("out", name).write_text(json.dumps(cut(strict_json(Path("out", name)), how)))
    assert exit_code(["compare", "out/old.json", "out/new.json"]) in (1, 3, 5)


def test_records_of_other_runs_are_one_line(entries_of: dict[str, Any], capsys: Captured) -> None:
    assert entries_of == {}
    exit_code(["measure", "2.19.0", "-o", "host.json"])
    document = strict_json(Path("host.json")) | {"run": "kernel"}
    Path("kernel.json").write_text(json.dumps(document))
    capsys.readouterr()
    assert exit_code(["compare", "host.json", "kernel.json", "-o", "out"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "measure both in the same kind of run" in printed.err
    assert not Path("out").exists()


def test_measure_writes_a_record_and_says_how_much_is_in_it(entries_of: dict[str, Any], capsys: Captured) -> None:
    assert entries_of == {}
    assert exit_code(["measure", "2.19.0", "--claims", "-o", "new/record.json"]) == 0
    printed = capsys.readouterr().out
    assert printed.endswith("written  new/record.json\n")
    assert "quantized tensors, to the bit" in printed
    found = record.read_record(Path("new/record.json"))
    assert found.entries == RECORDED
    assert found.suite is not None
    exit_code(["measure", "2.19.0", "--only", "bits/R/t"])
    assert "bits/R/t: 1\n" in capsys.readouterr().out


def test_transformer_engine_that_cannot_be_measured_fails_the_command(
    entries_of: dict[str, Any], capsys: Captured
) -> None:
    entries_of["2.19.0"] = {}
    assert exit_code(["measure", "2.19.0"]) == 1
    assert capsys.readouterr().err.endswith("mnist-fp8: error: no libfoo\n")


# --- verify, matrix and bisect, with environments and runs replaced ------------------------------------------------


@pytest.mark.parametrize(
    "command", ["verify 2.18.0 2.19.0", "verify 2.18.0..2.19.0 --jobs 2", "matrix --te 2.18.0,2.19.0 --jobs 1"]
)
@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        (PASSED, KNOWN, 0),
        (PASSED, SKIPPED, 0),
        (FAILED, PASSED, 1),
        (PASSED, EnvError("no network"), 2),
        (FAILED, EnvError("no network"), 2),
        (SKIPPED, SKIPPED, 3),
        (PASSED, KeyboardInterrupt(), 130),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else type(value).__name__,
)
def test_exit_code_says_what_was_found(
    outcomes_of: dict[str, Any], capsys: Captured, command: str, first: Any, second: Any, code: int
) -> None:
    outcomes_of.update({"2.18.0": first, "2.19.0": second})
    assert exit_code([*command.split(), "--claim", "kernels"]) == code
    err = capsys.readouterr().err
    assert ("mnist-fp8: error: TE 2.19.0: no network\n" in err) == (code == 2)
    assert ("mnist-fp8: interrupted" in err) == (code == 130)


def test_matrix_writes_all_forms_and_says_where(outcomes_of: dict[str, Any], capsys: Captured) -> None:
    outcomes_of.update({"2.19.0": FAILED, "2.18.0": EnvError("no network")})
    exit_code(["matrix", "--te", "2.18..", "--claim", "kernels", "bf16_parity", "--output", "out"])
    printed = capsys.readouterr()
    names = ["junit.xml", "matrix.html", "matrix.json", "matrix.md"]
    assert sorted(path.name for path in Path("out").iterdir()) == names
    assert [line.split()[-1] for line in printed.out.splitlines() if line.startswith("written")] == [
        f"out/{name}" for name in ("matrix.md", "matrix.html", "matrix.json", "junit.xml")
    ]
    document = strict_json(Path("out/matrix.json"))
    assert [each["te"] for each in document["records"]] == ["2.19.0", "2.20.2"]
    assert document["not_judged"] == [{"te": "2.18.0", "error": "no network"}]
    assert re.search(r"^\d/3  TE 2\.19\.0, JAX 0\.5\.0: 2 broken  \(\d+ s\)$", printed.err, re.MULTILINE)


def test_matrix_goes_to_a_new_folder_unless_one_is_named(outcomes_of: dict[str, Any]) -> None:
    assert outcomes_of == {}
    assert exit_code(["matrix", "--te", "2.20.2"]) == 0
    (folder,) = Path("runs").iterdir()
    assert re.fullmatch(r"\d{8}-\d{6}-matrix", folder.name)


def test_each_release_is_judged_with_each_jax(outcomes_of: dict[str, Any]) -> None:
    assert outcomes_of == {}
    exit_code(["matrix", "--te", "2.20.2", "--jax", "0.9.2", "0.10.2", "--output", "out"])
    found = strict_json(Path("out/matrix.json"))["records"]
    assert [each["te"] for each in found] == ["2.20.2 with JAX 0.9.2", "2.20.2 with JAX 0.10.2"]


def test_interrupted_matrix_says_what_is_kept(outcomes_of: dict[str, Any], capsys: Captured) -> None:
    outcomes_of["2.19.0"] = KeyboardInterrupt()
    assert exit_code(["matrix", "--te", "2.18..", "--jobs", "1", "--output", "out"]) == 130
    assert not Path("out").exists()
    assert re.search(
        r"^mnist-fp8: interrupted; [12] of 3 judged and kept: run it again to go on$",
        capsys.readouterr().err,
        re.MULTILINE,
    )


def test_verify_prints_table_reasons_and_the_command(outcomes_of: dict[str, Any], capsys: Captured) -> None:
    outcomes_of["2.19.0"] = FAILED
    exit_code(["verify", "2.19.0", "--claim", "kernels"])
    out = capsys.readouterr().out
    assert "│ kernels │ broken (1 of 1)" in out
    assert "    the reason\n" in out
    assert "to see the first failure:" in out
    assert not Path("runs").exists()


def test_verify_without_a_name_judges_the_interpreter_that_runs(outcomes_of: dict[str, Any], capsys: Captured) -> None:
    assert outcomes_of == {}
    assert exit_code(["verify", "--claim", "kernels"]) == 0
    assert f"TE python {sys.executable}, JAX 0.5.0: 1 holds" in capsys.readouterr().err


def test_releases_can_be_named_by_a_range_and_paths_are_none(tmp_path: Path) -> None:
    package = tmp_path / "a..b" / "transformer_engine"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    assert [edition.where for edition in verify._named("2.18.0..2.19.0")] == ["2.18.0", "2.19.0"]
    assert [edition.where for edition in verify._named("a..b")] == [str(tmp_path / "a..b")]
    with pytest.raises(ConfigError, match=r"'\.\./missing' is no Transformer Engine"):
        verify._named("../missing")


def test_bisect_prints_each_step_and_the_answer(outcomes_of: dict[str, Any], capsys: Captured) -> None:
    outcomes_of.update(dict.fromkeys(("2.17.1", "2.18.0", "2.19.0", "2.20.2"), FAILED))
    assert exit_code(["bisect", "--good", "2.14.0", "--bad", "2.20.2", "--claim", "kernels"]) == 0
    out = capsys.readouterr().out
    assert "  2.14.0: holds (1 passed)\n  2.20.2: broken (1 failed)\n" in out
    assert "first with the change: 2.17.1\nlast without:          2.17.0\n" in out
    assert out.endswith("2.17.0: holds (1 passed)\n2.17.1: broken (1 failed)\n  kernels::t: passed -> failed\n")


def test_bisect_names_all_releases_that_may_be_it(outcomes_of: dict[str, Any], capsys: Captured) -> None:
    outcomes_of.update({"2.20.2": FAILED, "2.19.0": EnvError("no network")})
    assert exit_code(["bisect", "--good", "2.18.0", "--bad", "2.20.2", "--claim", "kernels"]) == 0
    assert "one of 2.19.0, 2.20.2; those between cannot be judged" in capsys.readouterr().out


def test_bisect_goes_backwards_for_a_repair(entries_of: dict[str, Any], capsys: Captured) -> None:
    entries_of.update({version: {"bits/R/t": Text("2")} for version in ("1.11.0", "1.12.0", "1.13.0")})
    assert exit_code(["bisect", "--good", "2.3.0", "--bad", "1.11.0", "--entry", "bits/R/t"]) == 0
    out = capsys.readouterr().out
    assert "first with the change: 1.13.0\nlast without:          2.1.0\n" in out
    assert out.endswith("  bits/R/t: 1 -> 2\n")


def test_bisect_between_releases_that_do_not_differ_is_one_line(outcomes_of: dict[str, Any], capsys: Captured) -> None:
    assert outcomes_of == {}
    assert exit_code(["bisect", "--good", "2.3.0", "--bad", "2.20.2", "--claim", "kernels"]) == 2
    assert capsys.readouterr().err == "mnist-fp8: error: 2.3.0 and 2.20.2 do not differ: holds (1 passed)\n"


def test_sigterm_ends_like_ctrl_c(outcomes_of: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Continuous integration ends a job so; a child that hangs may not stay behind."""
    stopped: list[bool] = []
    monkeypatch.setattr(processes, "stop_all", lambda: stopped.append(True))

    def judge(*_arguments: Any, **_options: Any) -> None:
        time.sleep(0.2)  # until the main thread waits
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)

    monkeypatch.setattr(suite, "judge", judge)
    before = signal.getsignal(signal.SIGTERM)
    assert exit_code(["matrix", "--te", "2.19.0", "--jobs", "1"]) == 130
    assert stopped
    assert signal.getsignal(signal.SIGTERM) is before
    assert not outcomes_of


@pytest.mark.usefixtures("examined")
@pytest.mark.parametrize(
    ("arguments", "is_said"),
    [
        ("upgrade 2.18.0 2.19.0 -o out", True),
        ("measure 2.19.0", True),
        ("verify 2.19.0 --claim kernels", True),
        ("matrix --te 2.19.0 --claim kernels -o out", True),
        ("bisect --good 2.18.0 --bad 2.19.0 --claim kernels", True),
        ("bisect --good 2.18.0 --bad 2.19.0 --command true", False),
        ("compare record.json record.json", False),
        ("uses mine.py", False),
    ],
)
def test_options_that_reach_no_run_are_named_where_there_are_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured, arguments: str, *, is_said: bool
) -> None:
    exit_code(["measure", "2.19.0", "-o", "record.json"])
    Path("mine.py").write_text("import transformer_engine.jax\n")
    assert "left out" not in capsys.readouterr().err, "Control: nothing is set"
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    exit_code(arguments.split())
    said = "left out of the runs, which take the defaults of JAX, Flax and XLA: JAX_ENABLE_X64=1 XLA_FLAGS=--xla_cpu"
    assert capsys.readouterr().err.count(said) == is_said


# --- run -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment of the running Python."""

    def prepare(edition: Edition, *, jax: str | None = None, **_: object) -> Environment:
        return Environment(edition, Path(sys.executable), jax or "", "", "d", {"OF_THE": "environment"}, Path("/te"))

    monkeypatch.setattr(environments, "prepare", prepare)


@pytest.mark.usefixtures("own_environment")
def test_run_runs_a_command_in_the_environment_and_returns_its_exit_code(tmp_path: Path) -> None:
    write = f"pathlib.Path({str(tmp_path / 'x')!r}).write_text(os.environ['OF_THE'])"
    code = f"import os, pathlib; {write}; raise SystemExit(7)"
    assert exit_code(["run", "2.19.0", "--", "python", "-c", code]) == 7
    assert (tmp_path / "x").read_text() == "environment"


@pytest.mark.usefixtures("own_environment")
def test_run_tells_the_command_which_capability_to_pretend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CAPABILITY, "9.0")
    code = f"import os, pathlib; pathlib.Path({str(tmp_path / 'x')!r}).write_text(os.environ[{CAPABILITY!r}])"
    assert exit_code(["run", "--capability", "10.0", "2.19.0", "--", "python", "-c", code]) == 0
    assert (tmp_path / "x").read_text() == "10.0"


@pytest.mark.usefixtures("own_environment")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "there is no command to run; put it after --"),
        (["--", "no-such-program"], "cannot be run: no-such-program"),
        (["--jax", "0.9.2", "--", "python"], "--jax stands behind 2.19.0; expected options of run in front of it"),
    ],
    ids=["nothing", "no such program", "an option"],
)
def test_run_without_a_command_is_one_line(words: list[str], message: str, capsys: Captured) -> None:
    assert exit_code(["run", "2.19.0", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
