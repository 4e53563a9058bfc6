"""Many judged at the same time: failures, order, and what Ctrl-C keeps."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from mnist_fp8.core.errors import ConfigError, EnvError
from mnist_fp8.gate.releases import environments, processes
from mnist_fp8.gate.releases.environments import Environment
from mnist_fp8.gate.releases.subjects import Subject, SubjectKind
from mnist_fp8.gate.runner import matrix
from mnist_fp8.gate.runner.matrix import Cell, InterruptedMatrixError
from mnist_fp8.record.claims import MatrixCell, SuiteResult


def cell(version: str, jax: str | None = None) -> Cell:
    return Subject(SubjectKind.RELEASE, version, version), jax


def verification(te: str) -> SuiteResult:
    return SuiteResult(te, te, "0.5.0", "0.10.4", "3.11", "host run: x", (), 1.0)


class Seen:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def started(self, label: str) -> None:
        self.events.append(("started", label))

    def finished(self, judged: MatrixCell) -> None:
        self.events.append(("finished", judged.te))


@pytest.fixture
def not_stopped(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """`envs.stop_all` would stop the runs of all later tests, too."""
    stopped = threading.Event()
    monkeypatch.setattr(processes, "stop_all", stopped.set)
    return stopped


def test_answer_keeps_the_order_whoever_is_done_first() -> None:
    first_may_end = threading.Event()

    def work(cell: Cell) -> SuiteResult:
        if cell[0].version == "1":
            assert first_may_end.wait(10), "the second was not judged at the same time"
        first_may_end.set()
        return verification(cell[0].version)

    judged = matrix.judge_all([cell("1"), cell("2")], work, jobs=2, watcher=Seen())
    assert [each.te for each in judged] == ["1", "2"]
    assert judged[1] == MatrixCell("2", verification("2"))


def test_no_more_than_jobs_run_at_the_same_time() -> None:
    running: list[str] = []
    most: list[int] = []

    def work(cell: Cell) -> SuiteResult:
        running.append(cell[0].version)
        most.append(len(running))
        time.sleep(0.01)
        running.remove(cell[0].version)
        return verification(cell[0].version)

    matrix.judge_all([cell(str(number)) for number in range(8)], work, jobs=2, watcher=Seen())
    assert max(most) <= 2


@pytest.mark.parametrize("error", [EnvError, ConfigError])
def test_one_that_cannot_be_judged_is_a_line_and_the_others_go_on(error: type[Exception]) -> None:
    def work(cell: Cell) -> SuiteResult:
        if cell[0].version == "1":
            raise error("no\n network")
        return verification(cell[0].version)

    seen = Seen()
    judged = matrix.judge_all([cell("1", "0.9"), cell("2")], work, jobs=1, watcher=seen)
    assert judged == [MatrixCell("1 with JAX 0.9", None, "no network"), MatrixCell("2", verification("2"))]
    labels = ["1 with JAX 0.9", "2"]
    assert seen.events == [(what, label) for label in labels for what in ("started", "finished")]


def test_defect_of_ours_is_not_dressed_up_as_a_result() -> None:
    def work(_cell: Cell) -> SuiteResult:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        matrix.judge_all([cell("1")], work, jobs=1, watcher=Seen())


def test_ctrl_c_keeps_what_is_done_stops_what_runs_and_begins_nothing_more(not_stopped: threading.Event) -> None:
    begun: list[str] = []

    def work(cell: Cell) -> SuiteResult:
        begun.append(cell[0].version)
        if cell[0].version == "1":
            return verification("1")
        time.sleep(0.2)  # until the main thread waits for results
        os.kill(os.getpid(), signal.SIGINT)
        assert not_stopped.wait(60), "the run in progress was not stopped"
        raise KeyboardInterrupt  # as `Environment.run` does then

    cells = [cell(str(number)) for number in range(1, 6)]
    with pytest.raises(InterruptedMatrixError) as interrupted:
        matrix.judge_all(cells, work, jobs=1, watcher=Seen())
    assert interrupted.value.done == [MatrixCell("1", verification("1"))]
    assert begun == ["1", "2"]
    assert not_stopped.is_set()


def test_each_is_judged_in_its_environment_and_named_with_the_jax_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def prepare(subject: Subject, *, jax: str | None) -> Environment:
        return Environment(subject, Path("/python"), jax or "newest", "0.10.4", "d", {}, Path("/te"))

    def verify(where: Environment, claims: Any, **options: Any) -> SuiteResult:
        asked.append((where.jax, claims, options))
        return verification(where.subject.label)

    monkeypatch.setattr(environments, "prepare", prepare)
    monkeypatch.setattr(matrix, "verify", verify)
    labels = [matrix.judge_one(each, ["a"], workers=3, rerun=True).te for each in (cell("2"), cell("2", "0.9"))]
    assert labels == ["2", "2 with JAX 0.9"]
    assert asked == [(jax, ["a"], {"workers": 3, "rerun": True}) for jax in ("newest", "0.9")]
