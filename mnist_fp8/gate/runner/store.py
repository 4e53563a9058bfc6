"""Where records are kept, under which name, and what a record is before anything is asked of an installation."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from mnist_fp8.core import variables
from mnist_fp8.core.errors import RecordError
from mnist_fp8.core.files import cache_dir, digest_of, keep
from mnist_fp8.gate.releases import staging
from mnist_fp8.gate.releases.environments import Environment
from mnist_fp8.record.record import DAMAGE, Record


@dataclasses.dataclass(frozen=True)
class Attempt:
    """What some work came to.

    Attributes:
        record: the result.
        lasting: whether the same work would come to the same; what a time-out cut short may not.
    """

    record: Record
    lasting: bool = True


def record_file(environment: Environment, *parts: str) -> Path:
    """The file of a kept record: its name is a digest of the environment, what changes a run, and some words."""
    # What lies in the stage is named by the parts, as far as the result depends on it.
    found = variables.that_change_results(environment.environ).items()
    own = {name: value.replace(str(staging.stage()), "") for name, value in found}
    return cache_dir() / "records" / f"{digest_of([environment.digest, parts, own])[:16]}.json"


def kept(file: Path) -> Record | None:
    """The record in a file; nothing if there is none, it is of another version, or was damaged or edited."""
    with contextlib.suppress(RecordError, OSError, *DAMAGE):
        document = json.loads(file.read_text())
        if document["digest"] == digest_of([file.name, document["record"]]):
            return Record.from_json(document["record"])
    return None


def keep_record(file: Path, record: Record) -> None:
    """Keep a record, for `kept` to find.

    Raises:
        EnvError: it cannot be written.
    """
    document = json.loads(json.dumps(record.to_json()))  # as it is read: without tuples
    keep(file, {"digest": digest_of([file.name, document]), "record": document})


def kept_part(
    environment: Environment,
    digest: str,
    asked: Sequence[str],
    everything: Sequence[str],
    *,
    cut: Callable[[Record], Record | None],
    work: Callable[[Path], Attempt],
    rerun: bool,
) -> Record:
    """What is kept, be it as a part of the whole; else what some work comes to, which is kept if it lasts.

    Args:
        environment: where the installation is.
        digest: of the code on which the result rests.
        asked: names of what is asked for.
        everything: names of all that could be asked for.
        cut: takes what is asked for out of the whole; ``None`` if it is not in it.
        work: does it; it is given the file for the log.
        rerun: do again what was done before.

    Raises:
        EnvError: it cannot be kept.
    """
    file = record_file(environment, digest, *sorted(asked))
    found = None
    if not rerun:
        whole = kept(record_file(environment, digest, *sorted(everything)))
        found = (whole and cut(whole)) or kept(file)
    if found is not None:
        return found
    attempt = work(file.with_suffix(".txt"))
    if attempt.lasting:
        keep_record(file, attempt.record)
    return attempt.record


def unexamined(environment: Environment) -> Record:
    """The record of an installation of which nothing is known yet."""
    versions = {"jax": environment.jax, "flax": environment.flax}
    return Record(environment.edition.label, environment.edition.version, "", versions, "", (), {}, 0.0)
