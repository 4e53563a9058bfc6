"""What is done for a pair of installations."""

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mnist_fp8.gate.releases import environments, stacks
from mnist_fp8.gate.releases.editions import Edition, EditionKind
from mnist_fp8.gate.releases.environments import Environment
from mnist_fp8.gate.runner import checkpoints, suite, upgrade
from mnist_fp8.gate.runner.installation import Installation
from mnist_fp8.gate.runner.steps import _SEEN_S
from mnist_fp8.gate.runner.store import Attempt, unexamined
from mnist_fp8.record.claims import ClaimResult, Outcome, SuiteResult, TestResult
from mnist_fp8.record.entries import Text, Value
from mnist_fp8.record.record import Record
from support.arranged import RELEASE, arrange_measurements, environment

NEWER = Edition(EditionKind.RELEASE, "2.4.0", "2.4.0")


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What a measurement ends with, and the arguments of each that was made."""
    return arrange_measurements(monkeypatch, tmp_path)


def test_both_sides_get_the_same_jax_where_there_is_one_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "common_jax", lambda one, other: f"common of {one} and {other}")
    pair = upgrade.sides(RELEASE, NEWER, (None, None), (None, None))
    assert [side.jax for side in pair] == ["common of 2.3.0 and 2.4.0"] * 2
    pair = upgrade.sides(RELEASE, NEWER, ("1", "2"), (None, "3"))
    assert [(side.jax, side.flax) for side in pair] == [("1", None), ("2", "3")], "what is asked for"
    interpreter = Edition(EditionKind.INTERPRETER, "/python", "2.3.0")
    pair = upgrade.sides(interpreter, NEWER, (None, None), (None, None))
    assert [side.jax for side in pair] == [None, None], "an interpreter has its own"


class Watcher:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.left: list[float] = []

    def started(self, what: str, left: float) -> None:
        self.told.append(what)
        self.left.append(left)

    def finished(self, what: str) -> None:
        assert what in self.told


@pytest.fixture
def judged(printed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[str, ...]]]:
    """The claims of each run of the suite, which is spared no test but of the old side."""
    made: list[tuple[str, tuple[str, ...]]] = []

    def judge(
        where: Environment, _stage: Path, claims: Sequence[str], passed: Sequence[str], **_options: Any
    ) -> Attempt:
        broken = printed.get("problem", "")
        assert list(passed) == ([] if where.edition == NEWER or not made or broken else ["t"] * len(claims))
        made.append((where.edition.version, tuple(claims)))
        tests = (TestResult("t", Outcome.PASSED), TestResult("u", Outcome.SKIPPED))
        found = SuiteResult(tuple(ClaimResult(name, tests) for name in claims), problem=broken)
        return Attempt(dataclasses.replace(unexamined(where), suite=found))

    def prepare(edition: Edition, **_options: Any) -> Environment:
        return environment(edition, digest=edition.version)

    assert printed["made"] == []
    monkeypatch.setattr(suite, "default_jobs", lambda: 1)
    monkeypatch.setattr(suite, "judge", judge)
    monkeypatch.setattr(suite, "known_claims", lambda: ("bf16_parity", "fp8_numerics"))
    monkeypatch.setattr(environments, "prepare", prepare)
    monkeypatch.setattr(checkpoints, "with_restored", with_restored)
    return made


def with_restored(_pair: Any, records: Sequence[Record], keys: Sequence[str], *, rerun: bool) -> tuple[Record, Record]:
    """Both records, with what was asked for."""
    said: dict[str, Value] = {"checkpoints/R/asked": Text(f"{', '.join(keys)}{', anew' if rerun else ''}")}
    old, new = (dataclasses.replace(record, entries={**record.entries, **said}) for record in records)
    return old, new


def both(*only: str, old: Edition = RELEASE, new: Edition = NEWER) -> tuple[tuple[Record, Record], Watcher]:
    watcher = Watcher()
    return upgrade.measure_both(
        (Installation(old), Installation(new)), only=only, rerun=False, watcher=watcher
    ), watcher


def test_both_sides_are_measured_and_held_to_all_claims(judged: list[Any], printed: dict[str, Any]) -> None:
    (old, new), watcher = both()
    assert [record.te for record in (old, new)] == ["2.3.0", "2.4.0"]
    assert all(record.suite and record.entries for record in (old, new))
    assert judged == [("2.4.0", ("bf16_parity", "fp8_numerics")), ("2.3.0", ("bf16_parity", "fp8_numerics"))]
    assert len(printed["made"]) == 2
    assert [what.partition(" ")[0] for what in watcher.told] == [
        *("environment", "environment", "measuring", "measuring", "checkpoints", "claims", "claims")
    ]
    assert watcher.left == sorted(watcher.left, reverse=True)


@pytest.mark.parametrize(
    ("only", "asked"),
    [((), "*"), (("checkpoints/R",), "checkpoints/R, anew"), (("bits",), None), (("claims/fp8_numerics",), None)],
)
def test_checkpoints_are_tried_where_they_are_asked_for(
    judged: list[Any], only: Sequence[str], asked: str | None
) -> None:
    records, watcher = both(*only)
    said = asked and Text(asked)
    assert [record.entries.get("checkpoints/R/asked") for record in records] == [said, said]
    assert ("checkpoints of 2.3.0 under 2.4.0" in watcher.told) is bool(asked)
    assert bool(judged) is (not only or only[0].startswith("claims"))


def test_run_with_a_problem_spares_the_old_side_nothing(judged: list[Any], printed: dict[str, Any]) -> None:
    printed["problem"] = "it hung"
    both()
    assert len(judged) == 2


def test_same_installation_on_both_sides_is_measured_twice(judged: list[Any], printed: dict[str, Any]) -> None:
    """Else a comparison with itself would show nothing of the noise."""
    both(new=RELEASE)
    both(new=RELEASE)
    assert len(printed["made"]) == 3, "the first from the cache, the second anew"
    assert judged


INTERPRETER = Edition(EditionKind.INTERPRETER, "/python", "2.4.0")


@pytest.mark.parametrize(
    ("new", "cores", "at_once"),
    [(NEWER, 2, True), (NEWER, 1, False), (RELEASE, 2, False), (INTERPRETER, 2, False)],
    ids=["two cores", "one core", "the same on both sides", "an interpreter may have a GPU"],
)
def test_sides_are_measured_at_the_same_time_where_they_share_cores_alone(
    judged: list[Any], monkeypatch: pytest.MonkeyPatch, new: Edition, cores: int, *, at_once: bool
) -> None:
    running, most = [0], [0]

    def examined(where: Environment, known: Record | None = None, **asked: Any) -> Record:
        if asked:
            running[0] += 1
            time.sleep(0.05)
            most[0] = max(most[0], running[0])
            running[0] -= 1
        return known or unexamined(where)

    monkeypatch.setattr(suite, "default_jobs", lambda: cores)
    monkeypatch.setattr(upgrade, "examine", examined)
    both("bits", new=new)
    assert most == [2 if at_once else 1]
    assert judged == []


def test_key_of_a_measurement_asks_for_no_claims(judged: list[Any], printed: dict[str, Any]) -> None:
    (old, _), _ = both("bits")
    assert printed["made"] == [["bits"], ["bits"]]
    assert judged == []
    assert old.suite is None


def test_key_of_a_claim_asks_for_that_claim_alone(judged: list[Any], printed: dict[str, Any]) -> None:
    (old, _), _ = both("claims/fp8_numerics")
    assert printed["made"] == []
    assert judged == [("2.4.0", ("fp8_numerics",)), ("2.3.0", ("fp8_numerics",))]
    assert (old.te, old.environment["jax"], old.entries) == ("2.3.0", "0.10.2", {})
    both("claims")
    assert judged[-1] == ("2.3.0", ("bf16_parity", "fp8_numerics"))


def test_time_left_follows_what_steps_took_here(
    judged: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = iter(range(0, 10_000, 50))
    monkeypatch.setattr("mnist_fp8.gate.runner.steps.time.monotonic", lambda: float(next(clock)))
    _, watcher = both()
    assert watcher.left[0] == _of_both(_SEEN_S), "Control: nothing is known of this machine"
    known = json.loads((tmp_path / "mnist_fp8" / "durations.json").read_text())
    assert set(known) == {"environment", "measure", "checkpoints", "claims", "rest"}
    _, watcher = both()
    assert watcher.left[0] == pytest.approx(_of_both(known))
    assert judged


def _of_both(seconds: Mapping[str, float]) -> float:
    return 2 * (seconds["environment"] + seconds["measure"]) + sum(
        seconds[each] for each in ("checkpoints", "claims", "rest")
    )


def test_time_of_a_part_is_not_taken_for_that_of_the_whole(
    judged: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = iter(range(0, 10_000, 50))
    monkeypatch.setattr("mnist_fp8.gate.runner.steps.time.monotonic", lambda: float(next(clock)))
    both("bits")
    assert not (tmp_path / "mnist_fp8" / "durations.json").exists()
    assert judged == []


def test_sides_are_called_by_what_they_differ_in() -> None:
    assert upgrade._labels((Installation(RELEASE, "0.9"), Installation(NEWER, "0.9"))) == ["2.3.0", "2.4.0"]
    sides = (Installation(RELEASE, "0.9", "1"), Installation(RELEASE, "0.10"))
    assert upgrade._labels(sides) == ["2.3.0, JAX 0.9, Flax 1", "2.3.0, JAX 0.10"]


def test_unreadable_times_are_no_error(judged: list[Any], tmp_path: Path) -> None:
    file = tmp_path / "mnist_fp8" / "durations.json"
    file.parent.mkdir()
    for content in ("{", "[]", '{"measure": "x"}'):
        file.write_text(content)
        _, watcher = both()
        assert watcher.left[0] > 0
    assert judged
