"""What a person sees of work that takes minutes."""

import io

import pytest

from mnist_fp8.cli.progress import _TimeLeft, watching

Captured = pytest.CaptureFixture[str]


class Terminal(io.StringIO):
    """Says that it is a terminal."""

    def isatty(self) -> bool:
        """It is."""
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that a test can set."""
    now = [0.0]
    monkeypatch.setattr("mnist_fp8.cli.progress.time.monotonic", lambda: now[0])
    return now


def test_each_piece_is_one_line_on_standard_error(capsys: Captured, clock: list[float]) -> None:
    with watching() as watcher:
        watcher.started("environment of [2.19.0]", 60.0)
        clock[0] = 15.0
        watcher.finished("environment of [2.19.0]")
    assert capsys.readouterr() == ("", "environment of [2.19.0]  (15 s)\n")


def test_pieces_of_a_kind_are_counted_and_say_what_came_of_them(capsys: Captured, clock: list[float]) -> None:
    with watching(2, jobs=2) as watcher:
        watcher.started("TE 1")
        watcher.started("TE 2")
        clock[0] = 5.0
        watcher.finished("TE 2", "TE 2: 1 holds")
        clock[0] = 9.0
        watcher.finished("TE 1")
    assert capsys.readouterr().err.splitlines() == ["1/2  TE 2: 1 holds  (5 s)", "2/2  TE 1  (9 s)"]


def test_time_left_is_that_of_those_that_are_done(clock: list[float]) -> None:
    with watching(5, jobs=2) as watcher:
        for number, end in ((1, 10.0), (2, 30.0)):
            watcher.started(f"TE {number}")
            clock[0] = end
            watcher.finished(f"TE {number}")
        assert watcher._mean_left() == 3 * 15 / 2


@pytest.mark.parametrize(
    ("left", "passed", "says"),
    [(300.0, 0.0, "about 5 min left"), (80.0, 20.0, "about 60 s left"), (10.0, 11.0, "longer than usual"), (0, 0, "")],
)
def test_estimate_runs_down(clock: list[float], left: float, passed: float, says: str) -> None:
    with watching() as watcher:
        watcher.started("it", left)
        clock[0] = passed
        (task,) = watcher._progress.tasks
        assert _TimeLeft().render(task).plain == says


def test_bar_is_shown_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with watching() as watcher:
        watcher.started("measuring 2.19.0", 60.0)
    assert "measuring 2.19.0" in terminal.getvalue()
    assert "left" in terminal.getvalue()
    assert capsys.readouterr().out == ""
