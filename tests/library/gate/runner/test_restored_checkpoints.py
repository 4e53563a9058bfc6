"""A checkpoint of the old installation under the new one: what is run for it, what is kept, and what is taken."""

import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mnist_fp8.gate.releases import processes, staging
from mnist_fp8.gate.releases.editions import Edition, EditionKind
from mnist_fp8.gate.releases.environments import Environment
from mnist_fp8.gate.releases.processes import Ended
from mnist_fp8.gate.runner import checkpoints, execution
from mnist_fp8.gate.runner.measuring import EVERYTHING
from mnist_fp8.gate.runner.store import unexamined
from mnist_fp8.record.checkpoints import CHECKPOINT_FILES, Unrestored
from mnist_fp8.record.entries import Failure, Numbers, Text, Value
from mnist_fp8.record.entries_json import entries_to_json
from support.arranged import MEASURED, RELEASE, environment

NEWER = Edition(EditionKind.RELEASE, "2.4.0", "2.4.0")
KIND = "checkpoints/R/Orbax"
FIRST, FURTHER, MIGRATED = (f"{KIND}/{what}" for what in ("as restored", "in further steps", "after migration"))
RELEASES = ("--from", "2.3.0", "--to", "2.4.0")
COMMAND = ("mnist-fp8", "migrate", "CHECKPOINT", "-o", "NEW", *RELEASES, "--like", "SHAPES")


def of(*values: float) -> Numbers:
    return Numbers(values, tuple(map(str, range(len(values)))))


SAME: dict[str, Value] = {FIRST: of(1), FURTHER: of(1, 2)}


class Arranged:
    """What processes end with, and which there were."""

    def __init__(self) -> None:
        self.written: dict[str, Value] = dict(SAME)
        self.restored: dict[str, Value] = dict(SAME)
        self.migrated: dict[str, Value] = dict(SAME)
        self.problem = ""
        self.migration = Ended(0, "", "", 1.0, timed_out=False)
        self.made: list[str] = []

    def run(self, where: Environment, command: Sequence[str], *_: Any) -> tuple[Ended, str]:
        file, what, folder, *shapes = map(Path, command[3:])
        version = where.edition.version
        entries = self.written
        if what.name == "write":
            (folder / "R").mkdir()
            (folder / "R" / "Orbax").write_text(version)
        else:
            is_migrated = (folder / "R" / "Orbax").read_text().endswith("migrated")
            entries = self.migrated if is_migrated else self.restored
            (shapes[0] / "R").mkdir(parents=True)
            (shapes[0] / "R" / "Orbax").write_text("shapes")
        self.made.append(f"{what.name} {version}")
        if self.problem != what.name:
            file.write_text(json.dumps(MEASURED | {"entries": entries_to_json(entries)}))
        ended = Ended(int(self.problem == what.name), "", "it broke", 1.0, timed_out=False)
        return ended, ended.err

    def execute(self, command: Sequence[str], **_: Any) -> Ended:
        old, new = Path(command[4]), Path(command[6])
        assert Path(command[command.index("--like") + 1]).read_text() == "shapes"
        if not self.migration.code:
            new.write_text(f"{old.read_text()}, migrated")
        self.made.append("migrate")
        return self.migration


@pytest.fixture
def arranged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Arranged:
    made = Arranged()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(execution, "run", made.run)
    monkeypatch.setattr(processes, "execute", made.execute)
    monkeypatch.setattr(staging, "stage", lambda: Path("/stage"))
    monkeypatch.setattr(staging, "measuring_digest", lambda: "m")
    return made


def tried(
    old: str = "d", new: str = "n", keys: Sequence[str] = EVERYTHING, *, rerun: bool = False, **fields: Any
) -> tuple[dict[str, Value], dict[str, Value]]:
    """What both records say of checkpoints."""
    pair = environment(RELEASE, digest=old), environment(NEWER, digest=new)
    records = [dataclasses.replace(unexamined(each), **fields) for each in pair]
    found = checkpoints.with_restored(pair, records, keys, rerun=rerun)
    return dict(found[0].entries), dict(found[1].entries)


def test_old_one_writes_and_new_one_restores(arranged: Arranged) -> None:
    old, new = tried()
    assert arranged.made == ["write 2.3.0", "restore 2.4.0"]
    assert old == new
    assert old.keys() == {FIRST, FURTHER, CHECKPOINT_FILES}


def test_what_differs_is_on_both_sides(arranged: Arranged) -> None:
    arranged.restored[FURTHER] = of(1, 2.5)
    old, new = tried()
    assert (old[FURTHER], new[FURTHER]) == (of(1, 2), of(1, 2.5))


def test_results_are_kept_for_what_they_rest_on(arranged: Arranged, monkeypatch: pytest.MonkeyPatch) -> None:
    def makes(**options: Any) -> list[str]:
        arranged.made.clear()
        tried(**options)
        return arranged.made

    assert makes() == ["write 2.3.0", "restore 2.4.0"]
    assert makes() == []
    assert makes(new="other") == ["restore 2.4.0"], "another new Transformer Engine"
    assert makes(old="other") == ["write 2.3.0"], "another old one, which wrote the same"
    assert makes(rerun=True) == ["write 2.3.0", "restore 2.4.0"], "asked for"
    monkeypatch.setattr(staging, "measuring_digest", lambda: "other")
    assert makes() == ["write 2.3.0", "restore 2.4.0"], "other code that measures"


def test_results_of_migration_are_kept_for_the_code_that_migrates(
    arranged: Arranged, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tried()
    arranged.made.clear()
    (tmp_path / "package" / "checkpoints").mkdir(parents=True)
    (tmp_path / "package" / "checkpoints" / "formats.py").write_text("edited")
    monkeypatch.setattr(staging, "PACKAGE_FOLDER", tmp_path / "package")
    tried()
    assert arranged.made == ["restore 2.4.0"]


@pytest.mark.parametrize(
    "edit",
    [
        lambda file: file.write_text("9"),
        lambda file: file.unlink(),
        lambda file: (file.parent / "more").touch(),
        lambda file: file.parents[1].rename(file.parents[2] / "elsewhere"),
    ],
    ids=["edited", "removed", "added", "gone"],
)
def test_checkpoint_that_was_touched_is_written_anew(
    arranged: Arranged, tmp_path: Path, edit: Callable[[Path], object]
) -> None:
    tried()
    arranged.made.clear()
    (file,) = tmp_path.glob("mnist_fp8/records/*/*/R/Orbax")
    edit(file)
    tried()
    assert arranged.made == ["write 2.3.0"]


def test_what_cannot_be_restored_is_migrated_and_tried_again(arranged: Arranged) -> None:
    arranged.restored, arranged.migrated[FURTHER] = {FURTHER: Unrestored("ValueError", "no such name")}, of(1, 2.5)
    old, new = tried()
    assert arranged.made == ["write 2.3.0", "restore 2.4.0", "migrate", "restore 2.4.0"]
    assert new[FURTHER] == Unrestored("ValueError", "no such name", COMMAND)
    assert old.keys() == new.keys() == {FURTHER, MIGRATED, CHECKPOINT_FILES}
    assert (old[MIGRATED], new[MIGRATED]) == (of(1, 2), of(1, 2.5))
    tried()
    assert len(arranged.made) == 4, "kept"


@pytest.mark.parametrize(
    ("migrated", "problem"),
    [
        ({FURTHER: Unrestored("TypeError", "still not")}, "TypeError: still not"),
        ({FIRST: Failure("ValueError", "no step")}, "ValueError: no step"),
    ],
)
def test_what_migration_does_not_mend_says_why(arranged: Arranged, migrated: dict[str, Value], problem: str) -> None:
    arranged.restored, arranged.migrated = {FURTHER: Unrestored("E", "no")}, migrated
    assert tried()[1][FURTHER] == Unrestored("E", "no", COMMAND, problem)


def test_what_migrate_refuses_says_why(arranged: Arranged) -> None:
    arranged.restored = {FURTHER: Unrestored("E", "no")}
    arranged.migration = Ended(2, "", "mnist-fp8: error: nothing is known of it\n", 1.0, timed_out=False)
    value = tried()[1][FURTHER]
    assert isinstance(value, Unrestored)
    assert (value.is_mended, value.problem) == (False, "mnist-fp8: error: nothing is known of it")
    assert arranged.made == ["write 2.3.0", "restore 2.4.0", "migrate"], "there is nothing to restore"


def test_what_could_not_be_written_is_known_on_neither_side(arranged: Arranged) -> None:
    arranged.written = {FIRST: Failure("ImportError", "no orbax")}
    old, new = tried()
    assert old[FIRST] == new[FIRST] == Failure("ImportError", "no orbax")


@pytest.mark.parametrize("what", ["write", "restore"])
def test_process_that_breaks_is_a_failure_of_its_side(arranged: Arranged, what: str) -> None:
    arranged.problem = what
    old, new = tried()
    failure = new["checkpoints/all"]
    assert isinstance(failure, Failure)
    assert re.search("it broke", failure.message)
    assert (old.get("checkpoints/all") == failure) is (what == "write"), "else the old one says what it can"


def test_nothing_is_tried_where_a_side_does_not_start(arranged: Arranged) -> None:
    assert tried(problem="no import") == ({}, {})
    assert arranged.made == []


def test_part_that_is_asked_for_is_all_that_is_said(arranged: Arranged) -> None:
    assert tried(keys=(FIRST,)) == ({FIRST: of(1)}, {FIRST: of(1)})
    assert isinstance(tried()[0][CHECKPOINT_FILES], Text)
    assert arranged.made == ["write 2.3.0", "restore 2.4.0"]
