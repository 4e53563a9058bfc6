"""Records that are made and kept, and what is done for a pair of installations."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mnist_fp8.core.errors import ConfigError, EnvError
from mnist_fp8.gate.releases import environments, stacks, staging
from mnist_fp8.gate.releases.environments import Environment
from mnist_fp8.gate.releases.processes import Ended
from mnist_fp8.gate.releases.subjects import Subject, SubjectKind
from mnist_fp8.gate.runner import execution, measuring, public_api, upgrade, verification
from mnist_fp8.gate.runner.steps import _SEEN_S
from mnist_fp8.gate.runner.upgrade import Side
from mnist_fp8.record.claims import ClaimResult, Outcome, SuiteResult, TestResult
from mnist_fp8.record.entries import Failure, Signature, Text
from mnist_fp8.record.record import Record

RELEASE = Subject(SubjectKind.RELEASE, "2.3.0", "2.3.0")
NEWER = Subject(SubjectKind.RELEASE, "2.4.0", "2.4.0")
MEASURED = {
    "run": "host",
    "environment": {"jax": "0.10.2"},
    "entries": {"bits/R/t": {"kind": "text", "text": "1"}},
    "seconds": 1.0,
}


def environment(subject: Subject = RELEASE, digest: str = "d") -> Environment:
    return Environment(subject, Path("/python"), "0.10.2", "0.12.8", digest, {"PYTHONPATH": "/stage"}, Path("/te"))


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What a measurement ends with, and the arguments of each that was made."""
    arranged: dict[str, Any] = {"ended": Ended(0, json.dumps(MEASURED), "", 1.0, timed_out=False), "made": []}

    def run(_where: Environment, command: Sequence[str], *_: Any) -> tuple[Ended, str]:
        arranged["made"].append(list(command[3:]))
        ended = arranged["ended"]
        return ended, f"{ended.out}\n{ended.err}"

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(execution, "run", run)
    monkeypatch.setattr(staging, "stage", lambda: Path("/stage"))
    monkeypatch.setattr(verification, "stage", lambda: Path("/stage"))
    monkeypatch.setattr(staging, "measuring_digest", lambda: "m")
    monkeypatch.setattr(
        public_api, "public_api", lambda _package: {"te.f": Signature("function"), "te.g": Signature("class")}
    )
    return arranged


def fails(printed: dict[str, Any], code: int, err: str, *, timed_out: bool = False) -> Record:
    printed["ended"] = Ended(code, "", err, 1.0, timed_out=timed_out)
    return measuring.record(environment())


# --- one -----------------------------------------------------------------------------------------------------------


def test_record_has_what_was_measured_and_the_names(printed: dict[str, Any]) -> None:
    found = measuring.record(environment())
    assert printed["made"] == [[]]
    assert found.entries == {
        "bits/R/t": Text("1"),
        "api/te.f": Signature("function"),
        "api/te.g": Signature("class"),
    }
    assert (found.te, found.version, found.run, found.arguments) == ("2.3.0", "2.3.0", "host", ("2.3.0",))
    assert (found.problem, found.settings, found.environment["jax"]) == ("", "m", "0.10.2")


def test_record_is_kept_for_the_same_environment_and_code(
    printed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = measuring.record(environment())
    assert measuring.record(environment()) == first
    assert len(printed["made"]) == 1
    measuring.record(environment(digest="other"))
    assert len(printed["made"]) == 2, "another Transformer Engine"
    monkeypatch.setattr(staging, "measuring_digest", lambda: "n")
    measuring.record(environment())
    assert len(printed["made"]) == 3, "other code that measures"
    monkeypatch.setenv("NVTE_FP8_DPA_BWD", "1")
    measuring.record(environment())
    assert len(printed["made"]) == 4, "a variable that changes a run"
    measuring.record(environment(), rerun=True)
    assert len(printed["made"]) == 5, "asked for"


def test_kept_record_is_named_as_it_is_asked_for(printed: dict[str, Any]) -> None:
    measuring.record(environment())
    folder = Subject(SubjectKind.FOLDER, "/mine", "2.3.0")
    found = measuring.record(environment(folder))
    assert (found.te, found.arguments) == ("folder /mine", ("/mine",))
    assert len(printed["made"]) == 1


def test_damaged_record_is_made_again(printed: dict[str, Any], tmp_path: Path) -> None:
    measuring.record(environment())
    (file,) = (tmp_path / "mnist_fp8" / "records").glob("*.json")
    file.write_text("{")
    measuring.record(environment())
    assert len(printed["made"]) == 2
    assert json.loads(file.read_text())["te"] == "2.3.0"


def test_part_of_a_record_is_measured_anew_and_not_kept(printed: dict[str, Any]) -> None:
    measuring.record(environment())
    found = measuring.record(environment(), only=["bits/R/t", "api/te.g*"])
    assert printed["made"] == [[], ["bits/R/t", "api/te.g*"]]
    assert list(found.entries) == ["bits/R/t", "api/te.g"]
    assert "api/te.f" in measuring.record(environment()).entries, "Control: the whole one is still there"


@pytest.mark.parametrize(
    ("code", "err", "timed_out", "says"),
    [
        (1, "x\nnothing can be measured: Transformer Engine does not import: no libfoo\n", False, "no libfoo"),
        (1, "Traceback\nKeyError: 'x'\n", False, "it did not come to its end (exit code 1): KeyError: 'x'"),
        (-11, "Fatal Python error: Segmentation fault\n", False, "it crashed: Segmentation fault"),
        (-15, "", True, "it hung: not done after 600 s"),
    ],
    ids=["does not import", "raises", "crashes", "hangs"],
)
def test_transformer_engine_that_cannot_be_measured_says_why(
    printed: dict[str, Any], code: int, err: str, *, timed_out: bool, says: str
) -> None:
    found = fails(printed, code, err, timed_out=timed_out)
    assert says in found.problem
    assert "\n" not in found.problem
    assert found.entries == {}
    assert found.environment == {"jax": "0.10.2", "flax": "0.12.8"}


def test_environment_that_fails_is_not_blamed_on_transformer_engine(printed: dict[str, Any]) -> None:
    with pytest.raises(EnvError, match="No module named mnist_fp8"):
        fails(printed, 1, "python: No module named mnist_fp8.measure\n")


def test_source_that_cannot_be_read_is_an_entry(printed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(_package: Path) -> dict[str, Signature]:
        raise ConfigError("x.py cannot be read")

    assert printed["made"] == []
    monkeypatch.setattr(public_api, "public_api", unreadable)
    assert measuring.record(environment()).entries["api/source"] == Failure("x.py cannot be read")


# --- two -----------------------------------------------------------------------------------------------------------


def test_both_sides_get_the_same_jax_where_there_is_one_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "common_jax", lambda one, other: f"common of {one} and {other}")
    pair = upgrade.sides(RELEASE, NEWER, (None, None), (None, None))
    assert [side.jax for side in pair] == ["common of 2.3.0 and 2.4.0"] * 2
    pair = upgrade.sides(RELEASE, NEWER, ("1", "2"), (None, "3"))
    assert [(side.jax, side.flax) for side in pair] == [("1", None), ("2", "3")], "what is asked for"
    interpreter = Subject(SubjectKind.INTERPRETER, "/python", "2.3.0")
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

    def finished(self, what: str, _seconds: float) -> None:
        assert what == self.told[-1]


@pytest.fixture
def judged(printed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[str, ...]]]:
    """The claims of each verification."""
    made: list[tuple[str, tuple[str, ...]]] = []

    def verify_(where: Environment, claims: Sequence[str], **options: Any) -> SuiteResult:
        assert options["with_facts"] is False
        made.append((where.subject.version, tuple(claims)))
        tests = (TestResult("t", Outcome.PASSED),)
        results = tuple(ClaimResult(name, tests) for name in claims)
        return SuiteResult(where.subject.version, "", "", "", "", "host", results, 1.0)

    def prepare(subject: Subject, **_options: Any) -> Environment:
        return environment(subject, digest=subject.version)

    assert printed["made"] == []
    monkeypatch.setattr(verification, "verify", verify_)
    monkeypatch.setattr(verification, "known_claims", lambda: ("bf16_parity", "fp8_numerics"))
    monkeypatch.setattr(environments, "prepare", prepare)
    return made


def both(*only: str, old: Subject = RELEASE, new: Subject = NEWER) -> tuple[tuple[Record, Record], Watcher]:
    watcher = Watcher()
    return upgrade.measure_both((Side(old), Side(new)), only=only, rerun=False, watcher=watcher), watcher


def test_both_sides_are_measured_and_held_to_all_claims(judged: list[Any], printed: dict[str, Any]) -> None:
    (old, new), watcher = both()
    assert [record.te for record in (old, new)] == ["2.3.0", "2.4.0"]
    assert all(record.suite and record.entries for record in (old, new))
    assert judged == [("2.3.0", ("bf16_parity", "fp8_numerics")), ("2.4.0", ("bf16_parity", "fp8_numerics"))]
    assert len(printed["made"]) == 2
    assert [what.partition(" ")[0] for what in watcher.told] == ["environment"] * 2 + ["measuring"] * 2 + ["claims"] * 2
    assert watcher.left == sorted(watcher.left, reverse=True)


def test_same_installation_on_both_sides_is_measured_twice(judged: list[Any], printed: dict[str, Any]) -> None:
    """Else a comparison with itself would show nothing of the noise."""
    both(new=RELEASE)
    both(new=RELEASE)
    assert len(printed["made"]) == 3, "the first from the cache, the second anew"
    assert judged


def test_key_of_a_measurement_asks_for_no_claims(judged: list[Any], printed: dict[str, Any]) -> None:
    (old, _), _ = both("bits")
    assert printed["made"] == [["bits"], ["bits"]]
    assert judged == []
    assert old.suite is None


def test_key_of_a_claim_asks_for_that_claim_alone(judged: list[Any], printed: dict[str, Any]) -> None:
    (old, _), _ = both("claims/fp8_numerics")
    assert printed["made"] == []
    assert judged == [("2.3.0", ("fp8_numerics",)), ("2.4.0", ("fp8_numerics",))]
    assert (old.te, old.environment["jax"], old.entries) == ("2.3.0", "0.10.2", {})
    both("claims")
    assert judged[-1] == ("2.4.0", ("bf16_parity", "fp8_numerics"))


def test_time_left_follows_what_steps_took_here(
    judged: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = iter(range(0, 10_000, 50))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    _, watcher = both()
    assert watcher.left[0] == 2 * sum(_SEEN_S.values()), "Control: nothing is known of this machine"
    known = json.loads((tmp_path / "mnist_fp8" / "durations.json").read_text())
    assert set(known) == {"environment", "measure", "claims"}
    _, watcher = both()
    assert watcher.left[0] == pytest.approx(2 * sum(known.values()))
    assert judged


def test_time_of_a_part_is_not_taken_for_that_of_the_whole(
    judged: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = iter(range(0, 10_000, 50))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    both("bits")
    assert not (tmp_path / "mnist_fp8" / "durations.json").exists()
    assert judged == []


def test_sides_are_called_by_what_they_differ_in() -> None:
    assert upgrade._labels((Side(RELEASE, "0.9"), Side(NEWER, "0.9"))) == ["2.3.0", "2.4.0"]
    sides = (Side(RELEASE, "0.9", "1"), Side(RELEASE, "0.10"))
    assert upgrade._labels(sides) == ["2.3.0, JAX 0.9, Flax 1", "2.3.0, JAX 0.10"]


def test_unreadable_times_are_no_error(judged: list[Any], tmp_path: Path) -> None:
    file = tmp_path / "mnist_fp8" / "durations.json"
    file.parent.mkdir()
    for content in ("{", "[]", '{"measure": "x"}'):
        file.write_text(content)
        _, watcher = both()
        assert watcher.left[0] > 0
    assert judged
