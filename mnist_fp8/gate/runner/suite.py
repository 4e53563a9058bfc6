"""Hold an installation to the claims: run the suite in its environment and read what it found."""

import dataclasses
import json
import os
import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.gate.releases.environments import Environment
from mnist_fp8.gate.releases.processes import Ended
from mnist_fp8.gate.releases.staging import suite_source
from mnist_fp8.gate.runner import execution
from mnist_fp8.gate.runner.execution import problem_of
from mnist_fp8.gate.runner.pytest_log import explain_crashes, read_results
from mnist_fp8.gate.runner.store import unexamined
from mnist_fp8.record.claims import ClaimResult, Outcome, SuiteResult, TestResult
from mnist_fp8.record.record import Record

TIMEOUT_S = 15 * 60.0
"""For all claims of one Transformer Engine. Two cores take two minutes."""
TEST_TIMEOUT_S = 150
"""For one test. The slowest, a training run, takes half a minute."""
_FINISHED = (0, 1, 5)
"""Exit codes of pytest: all passed, some failed, none was verified."""
COLLECT_TIMEOUT_S = 60.0
MAX_RESTARTS = 50
"""Test processes that may die before the run gives up on a Transformer Engine."""
WORKER_BYTES = 3 * 10**9
"""Memory that a process takes which trains and compiles."""


def default_jobs() -> int:
    """Processes that this machine has cores and memory for."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(os.cpu_count() or 1, memory // WORKER_BYTES))


def known_claims() -> tuple[str, ...]:
    """The names of all claims, by their files."""
    files = (suite_source() / "tests" / "claims").glob("test_*.py")
    return tuple(sorted(file.stem.removeprefix("test_") for file in files))


def select_claims(names: Sequence[str]) -> tuple[str, ...]:
    """The claims of those names in the suite's order; all if none is named.

    Raises:
        ConfigError: there is no such claim.
    """
    known = known_claims()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(f"claim {unknown[0]!r} is not known; there are {', '.join(known)}")
    return tuple(name for name in known if not names or name in names)


def _file(claim: str) -> str:
    return f"tests/claims/test_{claim}.py"


def judge(
    environment: Environment,
    stage: Path,
    claims: Sequence[str],
    *,
    workers: int = 1,
    timeout: float = TIMEOUT_S,
    log: Path | None = None,
) -> Record:
    """Run the claims in an environment.

    Args:
        environment: where Transformer Engine is installed.
        stage: folder with the suite.
        claims: names of the claims.
        workers: processes that run tests at the same time.
        timeout: seconds for all of them.
        log: where to keep what pytest printed.

    Raises:
        EnvError: the environment failed, not Transformer Engine.
    """
    environment = dataclasses.replace(environment, variables={**environment.variables, "HYPOTHESIS_PROFILE": "ci"})
    pytest = [str(environment.python), "-m", "pytest"]
    with tempfile.TemporaryDirectory() as scratch:
        records, header = Path(scratch) / "records.jsonl", Path(scratch) / "header.json"
        ended, printed = execution.run(
            environment, [*pytest, *_arguments(records, header, claims, workers)], stage, timeout, log
        )
        finished = records.exists() and ended.code in _FINISHED
        problem = problem_of(ended, printed, timeout, finished=finished)
        results = explain_crashes(read_results(records), printed)
        if problem:
            results = _with_missing(results, _collect(environment, stage, claims), problem)
        ran = _read_header(header)
    return _record(environment, stage, _by_claim(results, claims, problem), ran, ended, problem)


def _read_header(file: Path) -> dict[str, str]:
    """What the suite's plugin says that it ran with; nothing where it did not come that far."""
    try:
        header = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return {"run": header["run"], **header["environment"]}


def _arguments(records: Path, header: Path, claims: Sequence[str], workers: int) -> list[str]:
    """Of pytest. A test's process that dies is one failed test; a test that hangs in native code is made to die."""
    return [
        *("-p", "no:cacheprovider", "--tb=short", f"--report-log={records}", f"--mnist-fp8-json={header}"),
        *("-n", str(max(1, workers)), f"--max-worker-restart={MAX_RESTARTS}", "--timeout-method=thread"),
        f"--timeout={TEST_TIMEOUT_S}",
        *(_file(claim) for claim in claims),
    ]


def _collect(environment: Environment, stage: Path, claims: Sequence[str]) -> set[str]:
    """The names of all tests; as far as they can be collected."""
    options = ["-p", "no:cacheprovider", "--collect-only", "-q"]
    command = [str(environment.python), "-m", "pytest", *options, *map(_file, claims)]
    ended = environment.run(command, cwd=stage, timeout=COLLECT_TIMEOUT_S)
    return set(re.findall(r"^tests/claims/\w+\.py::.+$", ended.out, re.MULTILINE))


def _with_missing(results: Mapping[str, TestResult], names: set[str], problem: str) -> dict[str, TestResult]:
    """A run that broke off has not verified what it left: that broke, too."""
    missing = sorted(names - set(results))
    return dict(results) | {name: TestResult(name, Outcome.FAILED, problem) for name in missing}


def _by_claim(results: Mapping[str, TestResult], claims: Sequence[str], problem: str) -> tuple[ClaimResult, ...]:
    def tests(claim: str) -> tuple[TestResult, ...]:
        file = _file(claim)
        found = [results[name] for name in results if name.partition("::")[0] == file]
        return tuple(found) or ((TestResult(file, Outcome.FAILED, problem),) if problem else ())

    return tuple(ClaimResult(claim, tests(claim)) for claim in claims)


def _record(
    environment: Environment,
    stage: Path,
    claims: tuple[ClaimResult, ...],
    header: Mapping[str, str],
    ended: Ended,
    problem: str,
) -> Record:
    set_ = [f"{name}={value}" for name, value in environment.variables.items() if name != "PATH"]
    python = ["env", *set_, str(environment.python), "-m", "pytest", "-p", "no:cacheprovider"]
    command = f"cd {shlex.quote(str(stage))} && {shlex.join(python)}"
    result = SuiteResult(claims, header.get("run", ""), ended.seconds, problem, command)
    record = unexamined(environment)
    return dataclasses.replace(record, environment={**record.environment, **header}, suite=result)
