"""Measure an installation in its own environment."""

import contextlib
import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mnist_fp8.gate.releases import processes, staging
from mnist_fp8.gate.releases.environments import Environment
from mnist_fp8.gate.releases.processes import Ended
from mnist_fp8.gate.runner import execution
from mnist_fp8.gate.runner.store import Attempt, unexamined
from mnist_fp8.record.entries import Failure
from mnist_fp8.record.entries_json import entries_from_json

TIMEOUT_S = 10 * 60.0
"""For one measurement: many times what it takes."""
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
    only = [] if tuple(keys) == EVERYTHING else keys
    attempt = run("mnist_fp8.measure", only, environment, log)
    if attempt.lasting:
        return attempt
    with processes.alone():
        return run("mnist_fp8.measure", only, environment, log)


def run(module: str, arguments: Sequence[str], environment: Environment, log: Path) -> Attempt:
    """Run a module that measures.

    Args:
        module: its name; it writes a document to the file that its first argument names.
        arguments: the others.
        environment: where it runs.
        log: where to keep what was printed.

    Raises:
        EnvError: the environment failed, not Transformer Engine.
    """
    begin = time.monotonic()
    with execution.scratch_folder() as scratch:
        file = scratch / "measured.json"
        command = [str(environment.python), "-m", module, str(file), *arguments]
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
    return Attempt(
        dataclasses.replace(record, run=document["run"], environment=document["environment"], entries=entries)
    )


def _problem(document: Mapping[str, Any], ended: Ended, printed: str) -> str:
    """Why nothing was measured, in Transformer Engine's words where it has some; empty if all was.

    A process that fails after it has written its results would fail a user's program, too.
    """
    if "problem" in document:
        return str(document["problem"])
    if document and ended.code > 0:
        return f"its process ends with exit code {ended.code} after its last result"
    return execution.problem_of(ended, printed, TIMEOUT_S, finished=bool(document) and not ended.code)
