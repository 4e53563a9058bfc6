"""Many judged at the same time: failures, order, and what Ctrl-C keeps."""

import os
import re
import signal
import threading
import time

import pytest

from mnist_fp8.cli.output import COULD_NOT_RUN, exit_code
from mnist_fp8.core.errors import ConfigError, EnvError
from mnist_fp8.gate.releases import processes
from mnist_fp8.gate.releases.editions import Edition, EditionKind
from mnist_fp8.gate.runner import matrix
from mnist_fp8.gate.runner.at_once import InterruptedWorkError
from mnist_fp8.gate.runner.installation import Installation
from mnist_fp8.gate.runner.matrix import MatrixCell
from mnist_fp8.record.record import Record
from support.comparing import record


def release(version: str, jax: str | None = None) -> Installation:
    return Installation(Edition(EditionKind.RELEASE, version, version), jax)


class Seen:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def started(self, cell: MatrixCell) -> None:
        self.events.append(("started", cell.label))

    def finished(self, cell: MatrixCell) -> None:
        self.events.append(("finished", cell.label))


@pytest.fixture
def not_stopped(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """`processes.stop_all` would stop the runs of all later tests, too."""
    stopped = threading.Event()
    monkeypatch.setattr(processes, "stop_all", stopped.set)
    return stopped


def test_answer_keeps_the_order_whoever_is_done_first() -> None:
    first_may_end = threading.Event()

    def work(installation: Installation) -> Record:
        if installation.edition.version == "1":
            assert first_may_end.wait(10), "the second was not judged at the same time"
        first_may_end.set()
        return record(installation.edition.version)

    judged = matrix.examine_all([release("1"), release("2")], work, jobs=2, watcher=Seen())
    assert [each.te for each in judged] == ["1", "2"]
    assert judged[1] == MatrixCell("2", record=record("2"))


def test_no_more_than_jobs_run_at_the_same_time() -> None:
    running: list[str] = []
    most: list[int] = []

    def work(installation: Installation) -> Record:
        running.append(installation.edition.version)
        most.append(len(running))
        time.sleep(0.01)
        running.remove(installation.edition.version)
        return record(installation.edition.version)

    matrix.examine_all([release(str(number)) for number in range(8)], work, jobs=2, watcher=Seen())
    assert max(most) <= 2


@pytest.mark.parametrize("error", [EnvError, ConfigError])
def test_one_that_cannot_be_judged_is_a_line_and_the_others_go_on(error: type[Exception]) -> None:
    def work(installation: Installation) -> Record:
        if installation.edition.version == "1":
            raise error("no\n network")
        return record(installation.edition.version)

    seen = Seen()
    judged = matrix.examine_all([release("1", "0.9"), release("2")], work, jobs=1, watcher=seen)
    assert judged == [MatrixCell("1", "0.9", error="no network"), MatrixCell("2", record=record("2"))]
    labels = ["1 with JAX 0.9", "2"]
    assert seen.events == [(what, label) for label in labels for what in ("started", "finished")]


def test_defect_of_ours_is_a_line_that_says_so_and_the_others_go_on() -> None:
    def work(installation: Installation) -> Record:
        if installation.edition.version == "1":
            raise ZeroDivisionError("by\nzero")
        return record(installation.edition.version)

    first, second = matrix.examine_all([release("1"), release("2")], work, jobs=1, watcher=Seen())
    assert second == MatrixCell("2", record=record("2"))
    assert first.record is None
    says = r"a defect of mnist-fp8, please report it: ZeroDivisionError by zero \(test_matrix\.py:\d+\)"
    assert re.fullmatch(says, first.error)
    assert exit_code([first, second]) == COULD_NOT_RUN


def test_ctrl_c_keeps_what_is_done_stops_what_runs_and_begins_nothing_more(not_stopped: threading.Event) -> None:
    begun: list[str] = []

    def work(installation: Installation) -> Record:
        begun.append(installation.edition.version)
        if installation.edition.version == "1":
            return record("1")
        time.sleep(0.2)  # until the main thread waits for results
        os.kill(os.getpid(), signal.SIGINT)
        assert not_stopped.wait(60), "the run in progress was not stopped"
        raise KeyboardInterrupt  # as `Environment.run` does then

    cells = [release(str(number)) for number in range(1, 6)]
    with pytest.raises(InterruptedWorkError) as interrupted:
        matrix.examine_all(cells, work, jobs=1, watcher=Seen())
    assert interrupted.value.done == [MatrixCell("1", record=record("1"))]
    assert begun == ["1", "2"]
    assert not_stopped.is_set()
