"""Outcomes of tests, from pytest's report log."""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mnist_fp8.gate.runner.execution import fatal
from mnist_fp8.record.claims import Outcome, TestResult

MAX_REASON = 4000
"""Characters of a failure that are kept."""


def read_results(records: Path) -> dict[str, TestResult]:
    """Outcomes by the test's name, from pytest's report log; the end may be missing."""
    results: dict[str, TestResult] = {}
    for report in _reports(records):
        found = _result(report)
        if found and (found.name not in results or found.outcome is not Outcome.PASSED):
            results[found.name] = found
    return results


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


def explain_crashes(results: Mapping[str, TestResult], printed: str) -> dict[str, TestResult]:
    """Say why a test's process died, in place of what the process was called."""
    crashed = {name for name, test in results.items() if re.match(r"worker '\w+' crashed while", test.reason)}
    causes = fatal(printed)
    if len(causes) < len(crashed):
        causes.append("no word why; its time was over, or it was killed")
    reason = f"its process died: {' or '.join(dict.fromkeys(causes))}"
    explained = {name: dataclasses.replace(results[name], reason=reason) for name in crashed}
    return dict(results) | explained
