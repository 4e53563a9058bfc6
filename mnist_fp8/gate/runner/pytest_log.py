"""Outcomes of tests, from pytest's report log."""

import dataclasses
import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from mnist_fp8.gate.runner.execution import fatal
from mnist_fp8.record.claims import Outcome, TestResult

MAX_REASON = 4000
"""Characters of a failure that are kept."""


def read_results(records: Path) -> dict[str, TestResult]:
    """Outcomes by the test's name, from pytest's report log; the end may be missing. What ran twice has failed."""
    results: dict[str, TestResult] = {}
    called: set[str] = set()
    for report in _reports(records):
        found = _result(report)
        if found and (found.name not in results or found.outcome is not Outcome.PASSED):
            results[found.name] = found
        if report.get("when") == "call":
            name = report["nodeid"]
            if name in called:
                results[name] = TestResult(name, Outcome.FAILED, "it ran twice")
            called.add(name)
    return results


def complete(results: Mapping[str, TestResult], collected: Collection[str], problem: str) -> dict[str, TestResult]:
    """Results of all tests. One that was collected has failed if it did not come to its end.

    Args:
        results: those that there are; that of a file is of its collection.
        collected: names of the tests that there should be.
        problem: why the run broke off; empty if it did not, and may have run nothing else.
    """
    reasons = {
        name: problem or "it was collected, but did not run" for name in sorted(collected) if name not in results
    }
    if not problem:
        strange = (name for name in results if "::" in name and name not in collected)
        reasons |= dict.fromkeys(strange, "it ran, but was not collected")
    return {**results, **{name: TestResult(name, Outcome.FAILED, reason) for name, reason in reasons.items()}}


def contradiction(code: int, results: Mapping[str, TestResult]) -> str:
    """How pytest's exit code and its results disagree, in one line; empty if they agree.

    Args:
        code: 0, 1 or 5.
        results: those of all tests.
    """
    outcomes = [test.outcome for test in results.values()]
    failed, passed = outcomes.count(Outcome.FAILED), outcomes.count(Outcome.PASSED)
    agree = (code == 1) == bool(failed) and not (code and passed and not failed)
    return "" if agree else f"its processes end with exit code {code}, but {passed} tests passed and {failed} failed"


def _reports(records: Path) -> Iterator[Mapping[str, Any]]:
    for line in records.read_text(encoding="utf-8").splitlines() if records.exists() else ():
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


def explain_crashes(results: Mapping[str, TestResult], printed: str) -> tuple[dict[str, TestResult], list[str]]:
    """Say why a test's process died, in place of what the process was called.

    Returns:
        The results; and the names of those of which one died without a word: its time was over, or it was killed.
    """
    crashed = [name for name, test in results.items() if re.match(r"worker '\w+' crashed while", test.reason)]
    causes = fatal(printed)
    without_word = len(causes) < len(crashed)
    if without_word:
        causes.append("no word why; its time was over, or it was killed")
    reason = f"its process died: {' or '.join(dict.fromkeys(causes))}"
    explained = {name: dataclasses.replace(results[name], reason=reason) for name in crashed}
    return dict(results) | explained, crashed if without_word else []
