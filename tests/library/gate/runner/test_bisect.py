"""The search, against a linear one; and what it looks at in a release."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_fp8.core.errors import ConfigError, EnvError
from mnist_fp8.core.model import VARIABLE
from mnist_fp8.gate.releases import environments
from mnist_fp8.gate.releases.editions import Edition, EditionKind
from mnist_fp8.gate.releases.environments import Environment
from mnist_fp8.gate.releases.processes import Ended
from mnist_fp8.gate.runner import bisect
from mnist_fp8.gate.runner.bisect import Change, Finding, State
from mnist_fp8.gate.runner.model import Model
from mnist_fp8.gate.runner.suite import TIMEOUT_S
from mnist_fp8.gate.verdict.changes import differ
from mnist_fp8.record.claims import ClaimResult, Outcome, SuiteResult, TestResult
from mnist_fp8.record.entries import Text, Value
from mnist_fp8.record.record import Record
from support.comparing import numbers, record

SAME, CHANGED, UNKNOWN = Finding.SAME, Finding.CHANGED, Finding.UNKNOWN


@st.composite
def histories(draw: st.DrawFn) -> list[Finding]:
    """Findings of a change that came once, some of them hidden; the ends are known."""
    same, changed = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    truth = [SAME] * same + [CHANGED] * changed
    hidden = draw(st.sets(st.integers(1, max(1, len(truth) - 2))))
    return [UNKNOWN if i in hidden and 0 < i < len(truth) - 1 else each for i, each in enumerate(truth)]


@given(histories())
def test_search_finds_what_a_linear_search_finds(history: list[Finding]) -> None:
    asked: list[int] = []

    def probe(index: int) -> Finding:
        asked.append(index)
        return history[index]

    answer = bisect.search(len(history), probe)
    assert answer.last_same == max(i for i, each in enumerate(history) if each is SAME)
    assert answer.first_changed == min(i for i, each in enumerate(history) if each is CHANGED)
    assert len(set(asked)) == len(asked) == answer.probed, "none is looked at twice"
    assert not {0, len(history) - 1} & set(asked), "the ends are known"
    assert len(asked) <= math.ceil(math.log2(len(history))) + history.count(UNKNOWN)


@given(st.lists(st.sampled_from(Finding), max_size=20))
def test_change_lies_between_neighbours_whatever_the_history(middle: list[Finding]) -> None:
    """A change that comes and goes: one of its edges is found."""
    history = [SAME, *middle, CHANGED]
    answer = bisect.search(len(history), history.__getitem__)
    assert (history[answer.last_same], history[answer.first_changed]) == (SAME, CHANGED)
    assert all(history[i] is UNKNOWN for i in range(answer.last_same + 1, answer.first_changed))
    assert list(answer.suspects) == list(range(answer.last_same + 1, answer.first_changed + 1))


# --- over releases -------------------------------------------------------------------------------------------------


def found(states: Mapping[str, State]) -> tuple[Change, list[str]]:
    told: list[str] = []
    return bisect.find_change(list(states), states.__getitem__, told.append, differ), told


def state(value: str | None) -> State:
    return State(value or "does not build", None if value is None else {"value": Text(value)})


def test_every_step_is_told_and_the_ends_come_first() -> None:
    change, told = found({"1": state("a"), "2": state("a"), "3": state("b"), "4": state("b")})
    assert told == ["1: a", "4: b", "2: a", "3: b"]
    assert (change.suspects, change.before.text, change.after.text) == (("3",), "a", "b")
    assert change.differences == [("value", Text("a"), Text("b"))]


def test_release_that_cannot_be_judged_stays_under_suspicion() -> None:
    change, told = found({"1": state("a"), "2": state(None), "3": state("b")})
    assert change.suspects == ("2", "3")
    assert "2: does not build" in told


def test_third_state_counts_as_changed() -> None:
    change, _ = found({"1": state("a"), "2": state("c"), "3": state("b")})
    assert (change.suspects, change.after.text) == (("2",), "c")


@pytest.mark.parametrize(
    ("first", "last", "says"),
    [
        (None, "b", "^1 cannot be judged: does not build$"),
        ("a", None, "^3 cannot be judged: does not build$"),
        ("a", "a", "^1 and 3 do not differ: a$"),
    ],
)
def test_ends_that_say_nothing_are_refused_before_the_search(first: str, last: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        found({"1": state(first), "2": state("x"), "3": state(last)})


def test_differences_name_what_came_and_went() -> None:
    sides = {"kept": "1", "gone": "1", "other": "1"}, {"kept": "1", "other": "2", "new": "1"}
    before, after = (State("x", {name: Text(value) for name, value in side.items()}) for side in sides)
    change, _ = found({"1": before, "2": after})
    one, two = Text("1"), Text("2")
    assert change.differences == [("gone", one, None), ("other", one, two), ("new", None, one)]


def test_values_are_compared_and_not_their_digits() -> None:
    """The noise counts, and every bit where there is none."""
    exact = [State("x", {"numerics/R/x": numbers(value)}) for value in (1.0, 1.0 + 2**-40, 2.0)]
    change, _ = found(dict(zip("123", exact, strict=True)))
    assert change.suspects == ("2",)
    noisy = [State("x", {"numerics/R/x": numbers(value, noise=0.01)}) for value in (1.0, 1.02, 2.0)]
    change, _ = found(dict(zip("123", noisy, strict=True)))
    assert change.suspects == ("3",)
    with pytest.raises(ConfigError, match="do not differ"):
        found({"1": noisy[0], "2": noisy[1]})


# --- probes --------------------------------------------------------------------------------------------------------


SUBJECT = Edition(EditionKind.RELEASE, "2.3.0", "2.3.0")
ENVIRONMENT = Environment(SUBJECT, Path("/python"), "0.5.0", "0.10.4", "d", {}, Path("/te"))


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Let `examine` find those tests and entries; returns what it was asked for."""

    def arrange(*tests: TestResult, entries: dict[str, Value] | None = None, problem: str = "") -> list[Any]:
        asked: list[Any] = []

        def examine(_where: Environment, **options: Any) -> Record:
            asked.append(options)
            results = tuple(ClaimResult(name, tests) for name in options.get("claims", ()))
            return record("2.3.0", entries, problem=problem, suite=SuiteResult(results))

        monkeypatch.setattr(bisect, "examine", examine)
        return asked

    return arrange


def test_state_of_a_claim_is_how_its_tests_end(known: Callable[..., list[Any]]) -> None:
    asked = known(
        TestResult("a", Outcome.PASSED), TestResult("b", Outcome.FAILED, "why"), TestResult("c", Outcome.SKIPPED)
    )
    assert bisect.claim_probe("jaxpr", rerun=True)(ENVIRONMENT) == State(
        "broken (1 passed, 1 failed, 1 skipped)",
        {name: Text(word) for name, word in (("a", "passed"), ("b", "failed"), ("c", "skipped"))},
    )
    assert asked == [{"claims": ("jaxpr",), "rerun": True}]


def look_at(key: str) -> State:
    return bisect.entry_probe(key, repr, rerun=False)(ENVIRONMENT)


def test_state_of_an_entry_is_its_value_and_it_alone_is_measured(known: Callable[..., list[Any]]) -> None:
    asked = known(entries={"bits/R/t": Text("16")})
    assert look_at("bits/R/t") == State("Text(text='16')", {"bits/R/t": Text("16")})
    assert asked == [{"entries": ("bits/R/t",), "rerun": False}]


def test_state_of_many_entries_is_all_their_values(known: Callable[..., list[Any]]) -> None:
    known(entries={"bits/R/t": Text("16"), "bits/R/u": Text("8")})
    assert look_at("bits") == State("2 entries", {"bits/R/t": Text("16"), "bits/R/u": Text("8")})


@pytest.mark.parametrize(
    ("problem", "says"), [("it does not import", "it does not import"), ("", "nothing is measured under bits/R/t")]
)
def test_entry_that_is_not_there_cannot_be_judged(known: Callable[..., list[Any]], problem: str, says: str) -> None:
    known(problem=problem)
    assert look_at("bits/R/t") == State(says, None)


@pytest.mark.parametrize(
    ("code", "details"),
    [(code, {"command": Text(word)}) for code, word in ((0, "good"), (1, "bad"), (127, "bad"))] + [(125, None)],
)
def test_command_is_judged_by_its_exit_code_as_git_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, details: object
) -> None:
    asked: list[Any] = []

    def run(_self: Environment, words: Any, **options: Any) -> Ended:
        asked.append((words, options["cwd"], options["environ"]["OF_THE_USER"]))
        return Ended(code, "printed", "x\nNo module named y\n", 1.0, timed_out=False)

    monkeypatch.setattr(Environment, "run", run)
    monkeypatch.setenv("OF_THE_USER", "passed on")
    found = bisect.command_probe(["my", "test"], tmp_path)(ENVIRONMENT)
    assert found == State(f"exit code {code}: No module named y", details)  # type: ignore[arg-type]
    assert asked == [(["my", "test"], tmp_path, "passed on")]


def test_command_that_takes_too_long_cannot_be_judged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Environment, "run", lambda *_args, **_options: Ended(-9, "", "", 1.0, timed_out=True))
    assert bisect.command_probe(["x"], tmp_path)(ENVIRONMENT) == State(f"not done after {TIMEOUT_S:.0f} s", None)


def test_command_that_is_not_there_is_refused(tmp_path: Path) -> None:
    where = dataclasses.replace(ENVIRONMENT, python=tmp_path / "python")
    with pytest.raises(ConfigError, match=r"^the command no-such-command cannot be run: No such file"):
        bisect.command_probe(["no-such-command"], tmp_path)(where)


@pytest.mark.parametrize("error", [EnvError, ConfigError])
def test_release_whose_environment_cannot_be_made_cannot_be_judged(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(_edition: Edition, **_options: Any) -> Environment:
        raise error("there is\nno network")

    monkeypatch.setattr(environments, "prepare", fail)
    assert bisect.in_environment(lambda _: pytest.fail("went on"))("2.3.0") == State("there is no network", None)


def test_release_is_looked_at_in_its_own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(edition: Edition, **_options: Any) -> Environment:
        return dataclasses.replace(ENVIRONMENT, edition=edition)

    def told(where: Environment) -> State:
        return State(f"{where.edition.version} with {where.variables.get(VARIABLE)}", {})

    monkeypatch.setattr(environments, "prepare", prepare)
    assert bisect.in_environment(told)("2.4.0") == State("2.4.0 with None", {})
    assert bisect.in_environment(told, Model("a:b"))("2.4.0") == State("2.4.0 with a:b", {})


def test_release_whose_environment_fails_cannot_be_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_where: Environment) -> State:
        raise EnvError("the disk is full")

    monkeypatch.setattr(environments, "prepare", lambda _subject, **_options: ENVIRONMENT)
    assert bisect.in_environment(fail)("2.3.0") == State("the disk is full", None)
