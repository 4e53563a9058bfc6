"""Judge one Transformer Engine: run the suite in its environment and read what it found."""

import dataclasses
import hashlib
import json
import os
import re
import shlex
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mnist_fp8.config import ConfigError, cache_dir
from mnist_fp8.envs import Ended, EnvError, Environment, stage, suite_source
from mnist_fp8.records import ClaimResult, Outcome, RecordError, TestResult, Verification

TIMEOUT_S = 15 * 60.0
"""For all claims of one Transformer Engine. Two cores take two minutes."""
TEST_TIMEOUT_S = 150
"""For one test. The slowest, a training run, takes half a minute."""
MEASURE_TIMEOUT_S = 2 * 60.0
COLLECT_TIMEOUT_S = 60.0
MAX_RESTARTS = 50
"""Test processes that may die before the run gives up on a Transformer Engine."""
MAX_REASON = 4000
"""Characters of a failure that are kept."""
WORKER_BYTES = 3 * 10**9
"""Memory that a process takes which trains and compiles."""

PREFIXES = ("NVTE_", "XLA_", "JAX_", "MNIST_FP8_", "CUDA_VISIBLE_DEVICES")
"""Environment variables that change what a run sees."""

# What the suite's environment lacks, as opposed to what Transformer Engine does.
_OURS = re.compile(
    r"No space left on device|Disk quota exceeded|No module named '?(?:pytest|xdist|execnet|hypothesis|mnist_fp8)\b"
    r"|error: unrecognized arguments|ERROR: .*(?:file or directory not found|minversion|requires pytest-)"
)
_FINISHED = (0, 1, 5)
_USAGE = 4


def default_jobs() -> int:
    """Processes that this machine has cores and memory for."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(os.cpu_count() or 1, memory // WORKER_BYTES))


# --- claims --------------------------------------------------------------------------------------------------------


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


# --- cached --------------------------------------------------------------------------------------------------------


def verify(
    environment: Environment,
    claims: Sequence[str],
    *,
    workers: int = 1,
    rerun: bool = False,
    with_facts: bool = True,
) -> Verification:
    """Judge a Transformer Engine, or take what was found before with the same environment, suite and claims.

    Args:
        environment: where it is installed.
        claims: names of the claims; with none of them only the facts are measured.
        workers: processes that run tests at the same time.
        rerun: judge again what was judged before.
        with_facts: whether the facts are measured, too.

    Raises:
        EnvError: the environment failed, not Transformer Engine; nothing is stored.
    """
    suite = stage()
    parts = (suite.name, *sorted(claims), *([] if with_facts else ["without facts"]))
    file = cache_dir() / "verifications" / f"{result_key(environment, *parts)}.json"
    stored = None if rerun else load(file, Verification.from_json)
    if stored is None:
        facts, facts_problem = measure(environment, suite) if with_facts else ({}, "")
        stored = judge(environment, suite, claims, workers=workers, log=file.with_suffix(".txt"))
        stored = dataclasses.replace(stored, facts=facts, facts_problem=facts_problem)
        store(file, stored.to_json())
    return dataclasses.replace(stored, te=environment.subject.label)


def result_key(environment: Environment, *parts: str) -> str:
    """Name under which a result is kept: digest of the environment, the variables that change a run, and some words."""
    variables = {name: value for name, value in os.environ.items() if name.startswith(PREFIXES)}
    # What lies in the stage is named by the parts, as far as the result depends on it.
    own = {name: value.replace(str(stage()), "") for name, value in environment.variables.items()}
    whole = (environment.digest, parts, sorted((variables | own).items()))
    return hashlib.sha256(repr(whole).encode()).hexdigest()[:16]


_Kept = TypeVar("_Kept")


def load(file: Path, parse: Callable[[Any], _Kept]) -> _Kept | None:
    """What is stored; nothing if it is of another version, or was damaged."""
    try:
        return parse(json.loads(file.read_text()))
    except (OSError, RecordError, ValueError, KeyError, TypeError):
        return None


def store(file: Path, document: Mapping[str, Any]) -> None:
    """Keep a result, so that it is never seen half-written.

    Raises:
        EnvError: it cannot be written.
    """
    partial = file.with_suffix(f".partial-{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(document, indent=1))
        partial.replace(file)
    except OSError as error:
        raise EnvError(
            f"the result cannot be kept in {file.parent}: {error.strerror}; make room or set XDG_CACHE_HOME"
        ) from error


# --- the run -------------------------------------------------------------------------------------------------------


def judge(
    environment: Environment,
    suite: Path,
    claims: Sequence[str],
    *,
    workers: int = 1,
    timeout: float = TIMEOUT_S,
    log: Path | None = None,
) -> Verification:
    """Run the claims in an environment.

    Args:
        environment: where Transformer Engine is installed.
        suite: folder with the suite.
        claims: names of the claims.
        workers: processes that run tests at the same time.
        timeout: seconds for all of them.
        log: where to keep what pytest printed.

    Raises:
        EnvError: the environment failed, not Transformer Engine.
    """
    environment = dataclasses.replace(environment, variables={**environment.variables, "HYPOTHESIS_PROFILE": "ci"})
    pytest = [str(environment.python), "-m", "pytest"]
    if not claims:
        return _verification(environment, suite, (), "", Ended(0, "", "", 0.0, timed_out=False), "")
    with tempfile.TemporaryDirectory() as scratch:
        records = Path(scratch) / "records.jsonl"
        ended, printed = run(environment, [*pytest, *_arguments(records, claims, workers)], suite, timeout, log)
        problem = problem_of(ended, printed, timeout, started=records.exists())
        results = _explain_crashes(read_results(records), printed)
        if problem:
            results = _with_missing(results, _collect(environment, suite, claims), problem)
    return _verification(environment, suite, _by_claim(results, claims, problem), printed, ended, problem)


def _arguments(records: Path, claims: Sequence[str], workers: int) -> list[str]:
    """Of pytest. A test's process that dies is one failed test; a test that hangs in native code is made to die."""
    return [
        *("-p", "no:cacheprovider", "--tb=short", f"--report-log={records}"),
        *("-n", str(max(1, workers)), f"--max-worker-restart={MAX_RESTARTS}", "--timeout-method=thread"),
        f"--timeout={TEST_TIMEOUT_S}",
        *(_file(claim) for claim in claims),
    ]


def run(
    environment: Environment, command: Sequence[str], suite: Path, timeout: float, log: Path | None
) -> tuple[Ended, str]:
    """Run a command in an environment, and keep what it printed.

    Returns:
        How it ended, and all that it printed.

    Raises:
        EnvError: it cannot be run.
    """
    try:
        ended = environment.run(command, cwd=suite, timeout=timeout)
        printed = f"{ended.out}\n{ended.err}"
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(printed)
    except OSError as error:
        where = environment.subject.label
        raise EnvError(
            f"the claims cannot be run for {where}: {error}; run it again to make its environment anew"
        ) from error
    return ended, printed


def problem_of(ended: Ended, printed: str, timeout: float, *, started: bool) -> str:
    """Why the run ended before its end, in one line; empty if it did not.

    Raises:
        EnvError: the reason is not Transformer Engine.
    """
    if ended.timed_out:
        return f"it hung: not done after {timeout:.0f} s"
    if ended.code == -signal.SIGKILL:
        raise EnvError("the run was killed from outside; perhaps memory ran out: try fewer --jobs")
    if ended.code < 0:
        return f"it crashed: {' or '.join(_fatal(printed)) or signal.Signals(-ended.code).name}"
    if ended.code in _FINISHED and started:
        return ""
    ours = _OURS.search(printed)
    if ours:
        raise EnvError(f"the suite cannot run: {_line_of(printed, ours.start())}")
    if ended.code == _USAGE:
        said = re.search(r"^ERROR: (.+)$", ended.err, re.MULTILINE)
        return said[1] if said else last_line(ended.err)
    return f"it did not come to its end (exit code {ended.code}): {last_line(printed)}"


def _line_of(text: str, position: int) -> str:
    return text[text.rfind("\n", 0, position) + 1 :].partition("\n")[0].strip()


def last_line(text: str) -> str:
    """The last line of a program's output that is not empty."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it printed nothing")


def _fatal(printed: str) -> list[str]:
    """What Python's fault handler said of each process that it saw crash."""
    return re.findall(r"^Fatal Python error: (.+)$", printed, re.MULTILINE)


# --- what it found -------------------------------------------------------------------------------------------------


def read_results(records: Path) -> dict[str, TestResult]:
    """Outcomes by the test's name, from pytest's report log; the end may be missing."""
    results: dict[str, TestResult] = {}
    for report in _reports(records):
        found = _result(report)
        if found and (found.name not in results or found.outcome is not Outcome.PASSED):
            results[found.name] = found
    return results


def _reports(records: Path) -> Iterator[Mapping[str, Any]]:
    for line in records.read_text().splitlines() if records.exists() else ():
        try:
            yield json.loads(line)
        except ValueError:  # the last line of a run that was killed while it wrote
            return


def _result(report: Mapping[str, Any]) -> TestResult | None:
    """What one report says of its test; only its call can pass it."""
    outcome, name = report.get("outcome"), report.get("nodeid", "")
    if outcome == "failed":
        return TestResult(name, Outcome.FAILED, _reason(report["longrepr"]))
    if outcome == "skipped" and "wasxfail" in report:
        return TestResult(name, Outcome.KNOWN, report["wasxfail"].removeprefix("reason: "))
    if outcome == "skipped":
        return TestResult(name, Outcome.SKIPPED, _reason(report["longrepr"]).removeprefix("Skipped: "))
    return TestResult(name, Outcome.PASSED) if report.get("when") == "call" else None


def _reason(longrepr: Any) -> str:  # noqa: ANN401 - pytest's representations differ by kind of failure
    match longrepr:
        case {"reprcrash": {"message": str(message)}}:
            return message[:MAX_REASON]
        case [_, _, message]:
            return str(message)
        case str(text):
            # An error of collection is a whole traceback; pytest marks the lines that name the error.
            marked = [line.removeprefix("E").strip() for line in text.splitlines() if line.startswith("E  ")]
            return "\n".join(marked or [text])[:MAX_REASON]
    return "pytest does not say why"


def _explain_crashes(results: Mapping[str, TestResult], printed: str) -> dict[str, TestResult]:
    """Say why a test's process died, in place of what the process was called."""
    crashed = {name for name, test in results.items() if re.match(r"worker '\w+' crashed while", test.reason)}
    causes = _fatal(printed)
    if len(causes) < len(crashed):
        causes.append("no word why; its time was over, or it was killed")
    reason = f"its process died: {' or '.join(dict.fromkeys(causes))}"
    explained = {name: dataclasses.replace(results[name], reason=reason) for name in crashed}
    return dict(results) | explained


def _collect(environment: Environment, suite: Path, claims: Sequence[str]) -> set[str]:
    """The names of all tests; as far as they can be collected."""
    options = ["-p", "no:cacheprovider", "--collect-only", "-q"]
    command = [str(environment.python), "-m", "pytest", *options, *map(_file, claims)]
    ended = environment.run(command, cwd=suite, timeout=COLLECT_TIMEOUT_S)
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


def _verification(
    environment: Environment, suite: Path, claims: tuple[ClaimResult, ...], printed: str, ended: Ended, problem: str
) -> Verification:
    header = dict(re.findall(r"^(run|jax|flax|python): (.+)$", printed, re.MULTILINE))
    set_ = [f"{name}={value}" for name, value in environment.variables.items() if name != "PATH"]
    python = ["env", *set_, str(environment.python), "-m", "pytest", "-p", "no:cacheprovider"]
    return Verification(
        te=environment.subject.label,
        version=environment.subject.version,
        jax=header.get("jax", environment.jax),
        flax=header.get("flax", environment.flax),
        python=header.get("python", ""),
        run=header.get("run", ""),
        claims=claims,
        seconds=ended.seconds,
        problem=problem,
        command=f"cd {shlex.quote(str(suite))} && {shlex.join(python)}",
    )


# --- facts ---------------------------------------------------------------------------------------------------------


def measure(environment: Environment, suite: Path) -> tuple[dict[str, str], str]:
    """What this Transformer Engine does, by the fact's name; or none, and why."""
    command = [str(environment.python), "-m", "mnist_fp8.facts"]
    ended, _ = run(environment, command, suite, MEASURE_TIMEOUT_S, None)
    if ended.timed_out:
        return {}, f"measuring took more than {MEASURE_TIMEOUT_S:.0f} s"
    if ended.code:
        return {}, last_line(ended.err)
    try:
        found = json.loads(ended.out)
    except ValueError:
        return {}, f"what was measured is no JSON: {last_line(ended.out)}"
    return {name: str(value) for name, value in found.items()}, ""
