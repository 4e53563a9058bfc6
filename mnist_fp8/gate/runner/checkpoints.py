"""A checkpoint that the old installation wrote, restored by the new one, as it is or after ``mnist-fp8 migrate``.

What the old one wrote lies beside its record, under the digest of its files: a result counts for these alone.
"""

import dataclasses
import functools
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from mnist_fp8.core.files import digest_of
from mnist_fp8.gate.releases import contents, processes, staging
from mnist_fp8.gate.releases.environments import Environment
from mnist_fp8.gate.runner import execution, measuring, suite
from mnist_fp8.gate.runner.at_once import all_of
from mnist_fp8.gate.runner.store import Attempt, keep_record, kept, record_file, unexamined
from mnist_fp8.record.checkpoints import AS_RESTORED, CHECKPOINT_FILES, CHECKPOINTS, FURTHER, MIGRATED, Unrestored
from mnist_fp8.record.entries import Failure, Numbers, Text, Value
from mnist_fp8.record.keys import covered
from mnist_fp8.record.record import Record

_MODULE = "mnist_fp8.measure.checkpoints"
_MIGRATION_S = 120.0
"""Many times what it takes to migrate a small checkpoint."""


def with_restored(
    pair: Sequence[Environment], records: Sequence[Record], keys: Sequence[str], *, rerun: bool
) -> tuple[Record, Record]:
    """Both records, with how checkpoints of the old installation train on there, and under the new one.

    Args:
        pair: old and new.
        records: of both; where one could not be measured, nothing is tried.
        keys: of what is asked for, or patterns.
        rerun: do again what was done before.

    Raises:
        EnvError: an environment failed, not Transformer Engine.
    """
    old, new = records
    if old.problem or new.problem:
        return old, new
    folder, written = _written(pair[0], rerun=rerun)
    if written.problem:
        before = after = _failed(written)
    else:
        restored = _restored(pair[1], folder, (old.version, new.version), rerun=rerun)
        before, after = _paired(written.entries, _failed(restored) if restored.problem else restored.entries)
    return _with(old, covered(before, keys)), _with(new, covered(after, keys))


def _with(record: Record, entries: Mapping[str, Value]) -> Record:
    return dataclasses.replace(record, entries={**record.entries, **entries})


def _failed(record: Record) -> dict[str, Value]:
    return {f"{CHECKPOINTS}/all": Failure("Run", record.problem)}


def _paired(written: Mapping[str, Value], restored: Mapping[str, Value]) -> tuple[dict[str, Value], dict[str, Value]]:
    """What both sides say.

    Nothing is known of what could not be written. What failed has but one entry, and what was migrated is to become
    what an uninterrupted run of the old one does.
    """
    unwritten = {key: value for key, value in written.items() if isinstance(value, Failure)}
    after = {CHECKPOINT_FILES: written[CHECKPOINT_FILES], **restored, **unwritten}
    before = {key: value for key, value in written.items() if key in after}
    migrated = [key for key in after if key.endswith(MIGRATED)]
    return before | {key: written[_beside(key, FURTHER)] for key in migrated}, after


def _written(environment: Environment, *, rerun: bool) -> tuple[Path, Record]:
    """The folder with what an installation wrote, and what was measured of that."""
    file = record_file(environment, staging.measuring_digest(), CHECKPOINTS, "written")
    home = file.with_suffix("")
    record = None if rerun else kept(file)
    if record and record.problem:
        return home, record
    if record:
        noted = record.entries[CHECKPOINT_FILES]
        folder = home / noted.text if isinstance(noted, Text) else home
        if folder.is_dir() and folder.name == _digest(folder):
            return folder, record
    return _write(environment, file, home)


def _write(environment: Environment, file: Path, home: Path) -> tuple[Path, Record]:
    with processes.explained(f"the checkpoints of {environment.edition.label}"):
        home.mkdir(parents=True, exist_ok=True)
        staging.forget_unused(home)
        with tempfile.TemporaryDirectory(dir=home.parent, prefix=f".{home.name}-") as scratch:
            made = Path(scratch) / "written"
            made.mkdir()
            attempt = measuring.run(_MODULE, ("write", str(made)), environment, file.with_suffix(".txt"))
            folder = home / _digest(made)
            shutil.rmtree(folder, ignore_errors=True)  # it was edited, then
            made.rename(folder)
    record = _with(attempt.record, {CHECKPOINT_FILES: Text(folder.name)})
    if attempt.lasting:
        keep_record(file, record)
    return folder, record


def _digest(folder: Path) -> str:
    return digest_of(contents.digests(folder))[:16]


def _restored(environment: Environment, folder: Path, versions: tuple[str, str], *, rerun: bool) -> Record:
    """What becomes of the checkpoints in a folder under an installation.

    Args:
        environment: where it is.
        folder: its name is the digest of its files.
        versions: of the Transformer Engine that wrote it, and of the one there.
        rerun: do again what was done before.
    """
    migration = digest_of(contents.digests(staging.PACKAGE_FOLDER / "checkpoints", endings=contents.MODULES))[:16]
    file = record_file(environment, staging.measuring_digest(), CHECKPOINTS, folder.name, migration, *versions)
    record = None if rerun else kept(file)
    if record is not None:
        return record
    with tempfile.TemporaryDirectory() as scratch:
        attempt = _tried(environment, folder, Path(scratch), versions, file.with_suffix(".txt"))
    if attempt.lasting:
        keep_record(file, attempt.record)
    return attempt.record


def _tried(environment: Environment, folder: Path, scratch: Path, versions: tuple[str, str], log: Path) -> Attempt:
    """Restore checkpoints as they are, and those that cannot be once more after they were migrated."""
    shapes, new = scratch / "shapes", scratch / "new"
    attempt = measuring.run(_MODULE, ("restore", str(folder), str(shapes)), environment, log)
    failing = {key: value for key, value in attempt.record.entries.items() if isinstance(value, Unrestored)}
    if not failing:
        return attempt
    releases = ("--from", versions[0], "--to", versions[1])
    kinds = {key: Path(*key.split("/")[1:-1]) for key in failing}
    pieces = [
        functools.partial(_migrate, folder / kind, new / kind, (*releases, "--like", str(shapes / kind)))
        for kind in kinds.values()
    ]
    problems = dict(zip(failing, all_of(pieces, suite.default_jobs()), strict=True))
    again = Attempt(unexamined(environment))
    if not all(problems.values()):
        words = "restore", str(new), str(scratch / "more")
        again = measuring.run(_MODULE, words, environment, log.with_suffix(".again.txt"))
    command = ("mnist-fp8", "migrate", "CHECKPOINT", "-o", "NEW", *releases, "--like", "SHAPES")
    entries: dict[str, Value] = {}
    for key, value in failing.items():
        became = again.record.entries.get(key, again.record.entries.get(_beside(key, AS_RESTORED)))
        problem = problems[key] or again.record.problem
        if isinstance(became, Numbers):
            entries[_beside(key, MIGRATED)] = became
        elif isinstance(became, Unrestored | Failure):
            problem = f"{became.type}: {became.message}"
        entries[key] = dataclasses.replace(value, command=command, problem=problem)
    return Attempt(_with(attempt.record, entries), lasting=attempt.lasting and again.lasting)


def _beside(key: str, what: str) -> str:
    """The key of something else of the same checkpoint."""
    return f"{key.rpartition('/')[0]}/{what}"


def _migrate(checkpoint: Path, new: Path, options: Sequence[str]) -> str:
    """Migrate a checkpoint; returns why that could not be done, in one line."""
    new.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "mnist_fp8", "migrate", str(checkpoint), "-o", str(new), *options]
    where = staging.PACKAGE_FOLDER.parent  # that is where -m looks first
    ended = processes.execute(command, cwd=where, timeout=_MIGRATION_S, environ=processes.inherited())
    return execution.last_line(ended.err) if ended.code else ""
