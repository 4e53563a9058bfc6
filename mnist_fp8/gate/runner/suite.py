"""Hold an installation to the claims: run the suite in its environment and read what it found."""

import dataclasses
import json
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mnist_fp8.core import limits
from mnist_fp8.core.errors import ConfigError, EnvError
from mnist_fp8.gate.releases import processes
from mnist_fp8.gate.releases.environments import Environment
from mnist_fp8.gate.runner import execution
from mnist_fp8.gate.runner.execution import problem_of
from mnist_fp8.gate.runner.pytest_log import complete, contradiction, explain_crashes, read_results
from mnist_fp8.gate.runner.store import Attempt, unexamined
from mnist_fp8.gate.runner.suite_tests import claim_files
from mnist_fp8.record.claims import ClaimResult, Outcome, SuiteResult, TestResult
from mnist_fp8.record.record import Record

TIMEOUT_S = 45 * 60.0
"""For all claims of one Transformer Engine. Two cores take seven minutes for all layers, with nothing kept."""
TEST_TIMEOUT_S = 150
"""For one test. The slowest, a training run, takes half a minute."""
_FINISHED = (0, 1, 5)
"""Exit codes of pytest: all passed, some failed, none was verified."""
COLLECT_TIMEOUT_S = 60.0
_PYTEST = (
    *("-p", "no:cacheprovider", "-p", "xdist.plugin", "-p", "pytest_timeout", "-p", "pytest_reportlog.plugin"),
    *("-p", "_hypothesis_pytestplugin"),
)
"""Of pytest: the plugins that the suite needs, since no others are loaded."""
MAX_RESTARTS = 50
"""Test processes that may die before the run gives up on a Transformer Engine."""
WORKER_BYTES = 3 * 10**9
"""Memory that a process takes which trains and compiles."""


def default_jobs() -> int:
    """Processes that there are cores and memory for."""
    return max(1, min(limits.cores(), limits.memory() // WORKER_BYTES))


def known_claims() -> tuple[str, ...]:
    """The names of all claims, by their files."""
    return tuple(claim_files())


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


@dataclasses.dataclass(frozen=True)
class _Run:
    """What one run of pytest came to.

    Attributes:
        results: how each test ended, by its name.
        header: what the suite's plugin says that it ran with; empty where it did not come that far.
        seconds: how long it took.
        problem: why it ended before its end, or contradicts itself, in one line; empty if it does neither.
        cut_short: names of what its time limit or somebody else may have ended; it can end otherwise the next time.
    """

    results: Mapping[str, TestResult]
    header: Mapping[str, str]
    seconds: float
    problem: str
    cut_short: Sequence[str]


def judge(
    environment: Environment,
    stage: Path,
    claims: Sequence[str],
    *,
    passed: Collection[str] = (),
    workers: int = 1,
    timeout: float = TIMEOUT_S,
    log: Path | None = None,
) -> Attempt:
    """Run the claims in an environment.

    What took too long, or died without a word, is run once more alone.

    Args:
        environment: where Transformer Engine is installed.
        stage: folder with the suite.
        claims: names of the claims.
        passed: names of tests that another installation passes; of them, only those run that have to fail in this one.
        workers: processes that run tests at the same time.
        timeout: seconds for all of them.
        log: where to keep what pytest printed.

    Raises:
        EnvError: the environment failed, not Transformer Engine.
    """
    environment = dataclasses.replace(environment, variables={**environment.variables, "HYPOTHESIS_PROFILE": "ci"})
    run = _run(environment, stage, [_file(claim) for claim in claims], workers, timeout, log, passed)
    if run.cut_short:
        kills = limits.kills_for_memory()
        with processes.alone():
            again = _run(environment, stage, run.cut_short, 1, timeout, log and log.with_suffix(".again.txt"))
        if again.cut_short:
            execution.refuse_death_under_limits()
            if limits.kills_for_memory() > kills:
                raise EnvError(
                    "memory ran out, and Linux killed a process of the run: make room, and run the same again"
                )
        run = dataclasses.replace(again, results={**run.results, **again.results}, header=run.header or again.header)
    return Attempt(_record(environment, stage, claims, run), lasting=not run.cut_short)


def _run(
    environment: Environment,
    stage: Path,
    tests: Sequence[str],
    workers: int,
    timeout: float,
    log: Path | None,
    passed: Collection[str] = (),
) -> _Run:
    """Run tests, and see that each that was collected came to an end, or was spared."""
    python = [str(environment.python), "-m", "pytest", *_PYTEST]
    with execution.scratch_folder() as scratch:
        records, header = scratch / "records.jsonl", scratch / "header.json"
        spare = scratch / "spare.json"
        spare.write_text(json.dumps(sorted(passed)))
        command = [*python, *_arguments(records, header, workers), f"--mnist-fp8-spare={spare}"]
        command += [f"--basetemp={scratch / 'tests'}", *tests]  # pytest's own would be shared with other users
        ended, printed = execution.run(environment, command, stage, timeout, log)
        finished = records.exists() and ended.code in _FINISHED
        problem = problem_of(ended, printed, timeout, finished=finished)
        if execution.fatal(printed):
            execution.refuse_crash_for_want_of_room(printed)
        results, cut_short = explain_crashes(read_results(records), printed)
        accounts = [_read(file) for file in sorted(scratch.glob(f"{header.stem}-*.json"))]
        ran = _read(header)
    execution.refuse_for_want_of_room([problem, *(test.reason for test in results.values())])
    collected = {name for account in accounts for name in account["tests"]}
    spared = {name for account in accounts for name in account["spared"]}.intersection(passed)
    results = {name: TestResult(name, Outcome.SPARED) for name in sorted(spared)} | results
    if finished:
        for account in (ran, *accounts):
            execution.check_imports(environment, stage, account.get("imported", {}))
        if not collected and any("::" in name for name in results):
            raise EnvError(
                f"the suite does not say which tests there are for {environment.edition.label}: run it again"
            )
        problem = contradiction(ended.code, results)
    elif not collected:
        collected = _collect(environment, stage, tests)
    subjects = {name: subject for account in accounts for name, subject in account.get("subjects", {}).items()}
    results = {
        name: dataclasses.replace(test, subject=subjects.get(name, ""))
        for name, test in complete(results, collected, problem).items()
    }
    said = {"run": ran["run"], **ran["environment"]} if ran else {}
    return _Run(results, said, ended.seconds, problem, tests if ended.timed_out else cut_short)


def _read(file: Path) -> Mapping[str, Any]:
    """What the suite's plugin writes; nothing where it did not come that far."""
    try:
        document: Mapping[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return document


def _arguments(records: Path, header: Path, workers: int) -> list[str]:
    """Of pytest. A test's process that dies is one failed test; a test that hangs in native code is made to die.

    What native code prints is not captured: it would be gone with a process that dies, and may say why that died.
    """
    return [
        *("--tb=short", "--capture=sys", f"--report-log={records}", f"--mnist-fp8-json={header}"),
        *("-n", str(max(1, workers)), f"--max-worker-restart={MAX_RESTARTS}", "--timeout-method=thread"),
        f"--timeout={TEST_TIMEOUT_S}",
    ]


def _collect(environment: Environment, stage: Path, tests: Sequence[str]) -> set[str]:
    """The names of all tests; as far as they can be collected."""
    command = [str(environment.python), "-m", "pytest", *_PYTEST, "--collect-only", "-q", *tests]
    ended = environment.run(command, cwd=stage, timeout=COLLECT_TIMEOUT_S)
    return set(re.findall(r"^tests/claims/\w+\.py::.+$", ended.out, re.MULTILINE))


def _by_claim(results: Mapping[str, TestResult], claims: Sequence[str], problem: str) -> tuple[ClaimResult, ...]:
    """The tests of each claim. If no test explains the problem of a run, it is that of each claim."""
    unexplained = problem and not any(test.outcome is Outcome.FAILED for test in results.values())

    def tests(claim: str) -> tuple[TestResult, ...]:
        file = _file(claim)
        found = [test for name, test in results.items() if name.partition("::")[0] == file]
        if unexplained or not found:
            found.append(TestResult(file, Outcome.FAILED, problem or "none of its tests was collected"))
        return tuple(found)

    return tuple(ClaimResult(claim, tests(claim)) for claim in claims)


def _record(environment: Environment, stage: Path, claims: Sequence[str], run: _Run) -> Record:
    own = dict.fromkeys((*processes.OF_EVERY_RUN, "PYTHONPYCACHEPREFIX", *environment.variables))
    set_ = [f"{name}={environment.environ[name]}" for name in own if name != "PATH"]
    python = ["env", *set_, str(environment.python), "-m", "pytest", *_PYTEST]
    command = f"cd {shlex.quote(str(stage))} && {shlex.join(python)}"
    by_claim = _by_claim(run.results, claims, run.problem)
    result = SuiteResult(by_claim, run.header.get("run", ""), run.seconds, run.problem, command)
    record = unexamined(environment)
    return dataclasses.replace(record, environment={**record.environment, **run.header}, suite=result)
