"""One installation, measured in its own environment."""

import contextlib
import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.files import cache_dir, keep, read_kept
from mnist_fp8.gate.releases import staging
from mnist_fp8.gate.releases.environments import Environment
from mnist_fp8.gate.releases.processes import Ended
from mnist_fp8.gate.releases.subjects import Subject, SubjectKind
from mnist_fp8.gate.runner import execution, public_api, results
from mnist_fp8.record.entries import Failure, Value, covers, entries_from_json
from mnist_fp8.record.record import Record

TIMEOUT_S = 10 * 60.0
"""For one measurement. Two cores take a minute and a half."""


def record(environment: Environment, *, only: Sequence[str] = (), rerun: bool = False) -> Record:
    """Measure a Transformer Engine, or take what was measured before by the same code in the same environment.

    Args:
        environment: where it is installed.
        only: keys of what to measure, or patterns; all if there is none. What was measured in part is not kept.
        rerun: measure again what was measured before.

    Raises:
        EnvError: the environment failed, not Transformer Engine; nothing is stored.
    """
    file = cache_dir() / "records" / f"{results.result_key(environment, staging.measuring_digest())}.json"
    stored = None if rerun or only else read_kept(file, Record.from_json)
    if stored is None:
        stored = _measured(environment, only, file.with_suffix(".txt"))
        if not only:
            keep(file, stored.to_json())
    return dataclasses.replace(stored, te=environment.subject.label, arguments=words(environment.subject))


def words(subject: Subject) -> tuple[str, ...]:
    """What names it on a command line."""
    return (subject.version if subject.kind is SubjectKind.RELEASE else subject.where,)


def _measured(environment: Environment, only: Sequence[str], log: Path) -> Record:
    begin = time.monotonic()
    command = [str(environment.python), "-m", "mnist_fp8.measure", *only]
    ended, printed = execution.run(environment, command, staging.stage(), TIMEOUT_S, log)
    document: Mapping[str, Any] = {}
    with contextlib.suppress(ValueError):
        document = json.loads(ended.out)
    problem = "" if document else _problem(ended, printed)
    entries = entries_from_json(document.get("entries", {}))
    if not problem:
        entries |= _api(environment, only)
    return Record(
        te=environment.subject.label,
        version=environment.subject.version,
        run=document.get("run", ""),
        environment=document.get("environment", {"jax": environment.jax, "flax": environment.flax}),
        settings=staging.measuring_digest(),
        arguments=(),
        entries=entries,
        seconds=time.monotonic() - begin,
        problem=problem,
    )


def _problem(ended: Ended, printed: str) -> str:
    """Why nothing was measured: Transformer Engine's words, where it was its fault."""
    said = execution.problem_of(ended, printed, TIMEOUT_S, started=False)
    last, start = execution.last_line(ended.err), "nothing can be measured: "
    return last.removeprefix(start) if ended.code == 1 and last.startswith(start) else said


def _api(environment: Environment, only: Sequence[str]) -> dict[str, Value]:
    """The public names, from the source; no process is needed for that."""
    if only and not any(each.partition("/")[0].partition("*")[0] in ("", "api") for each in only):
        return {}
    try:
        names = public_api.public_api(environment.package)
    except ConfigError as error:
        return {"api/source": Failure(type(error).__name__, str(error))}
    entries: dict[str, Value] = {f"api/{name}": signature for name, signature in names.items()}
    return {key: value for key, value in entries.items() if not only or any(covers(each, key) for each in only)}
