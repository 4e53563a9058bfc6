"""Measure an installation in its own environment."""

import contextlib
import dataclasses
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.gate.names import reading
from mnist_fp8.gate.names.public_api import public_api
from mnist_fp8.gate.releases import processes, staging
from mnist_fp8.gate.releases.environments import Environment
from mnist_fp8.gate.releases.processes import Ended
from mnist_fp8.gate.runner import execution
from mnist_fp8.gate.runner.store import Attempt, unexamined
from mnist_fp8.record.entries import Failure, Value, covered
from mnist_fp8.record.entries_json import entries_from_json
from mnist_fp8.record.record import Record

TIMEOUT_S = 10 * 60.0
"""For one measurement. Two cores take a minute and a half."""
EVERYTHING = ("*",)
"""The keys of all entries."""


def measure(environment: Environment, keys: Sequence[str], log: Path) -> Attempt:
    """Measure a Transformer Engine. If that takes too long, it is measured once more alone.

    Args:
        environment: where it is installed.
        keys: keys of what to measure, or patterns; `EVERYTHING` is all.
        log: where to keep what was printed.

    Raises:
        EnvError: the environment failed, not Transformer Engine.
    """
    attempt = _measure(environment, keys, log)
    if attempt.lasting:
        return attempt
    with processes.alone():
        return _measure(environment, keys, log)


def _measure(environment: Environment, keys: Sequence[str], log: Path) -> Attempt:
    begin = time.monotonic()
    only = [] if tuple(keys) == EVERYTHING else keys
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "measured.json"
        command = [str(environment.python), "-m", "mnist_fp8.measure", str(file), *only]
        ended, printed = execution.run(environment, command, staging.stage(), TIMEOUT_S, log)
        document: Mapping[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            document = json.loads(file.read_text())
    record = unexamined(environment)
    record = dataclasses.replace(record, settings=staging.measuring_digest(), seconds=time.monotonic() - begin)
    if problem := _problem(document, ended, printed):
        execution.refuse_for_want_of_room([problem])
        return Attempt(dataclasses.replace(record, problem=problem), lasting=not ended.timed_out)
    execution.check_imports(environment, staging.stage(), document["imported"])
    entries = entries_from_json(document["entries"])
    execution.refuse_for_want_of_room(str(value) for value in entries.values() if isinstance(value, Failure))
    record = dataclasses.replace(record, run=document["run"], environment=document["environment"], entries=entries)
    return Attempt(_with_names(record, environment, keys) if asks_for_names(keys) else record)


def _problem(document: Mapping[str, Any], ended: Ended, printed: str) -> str:
    """Why nothing was measured, in Transformer Engine's words where it has some; empty if all was.

    A process that fails after it has written its results would fail a user's program, too.
    """
    if "problem" in document:
        return str(document["problem"])
    if document and ended.code > 0:
        return f"its process ends with exit code {ended.code} after its last result"
    return execution.problem_of(ended, printed, TIMEOUT_S, finished=bool(document) and not ended.code)


def asks_for_names(keys: Sequence[str]) -> bool:
    """Whether some keys are those of names, or of what a user's code uses of them."""
    return any(key.partition("/")[0].partition("*")[0] in ("", "api", "uses") for key in keys)


def _with_names(record: Record, environment: Environment, keys: Sequence[str]) -> Record:
    """A record with all names and the entries of the public ones, from the source; no process is needed for that."""
    try:
        names = reading.read_names(environment.package)
    except ConfigError as error:
        return _with_failure(record, error)
    record = dataclasses.replace(record, names=names)
    try:
        public = public_api(names)
    except ConfigError as error:
        return _with_failure(record, error)
    entries: dict[str, Value] = {f"api/{name}": signature for name, signature in public.items()}
    return dataclasses.replace(record, entries={**record.entries, **covered(entries, keys)})


def _with_failure(record: Record, error: ConfigError) -> Record:
    failure = Failure(type(error).__name__, str(error))
    return dataclasses.replace(record, entries={**record.entries, "api/source": failure})
