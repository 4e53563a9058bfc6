"""The verdict on an upgrade as JUnit XML and JSON."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

from mnist_fp8 import __version__
from mnist_fp8.core.plain import plain
from mnist_fp8.gate.reports.verdict.markdown import at_most
from mnist_fp8.gate.reports.verdict.view import ENTRIES_SHOWN, cleaned, entries, rows, scope, sentence
from mnist_fp8.gate.verdict.comparison import Comparison
from mnist_fp8.gate.verdict.rules.rule import Difference, Severity
from mnist_fp8.record.claims import Verdict
from mnist_fp8.record.entries import AREAS
from mnist_fp8.record.record import Record

SCHEMA_VERSION = 1
"""Of the JSON; raised when a field changes its meaning."""


def junit(comparison: Comparison) -> str:
    """JUnit XML: a suite for each area, a case for each difference, and one for what does not differ.

    What breaks is a failure. What changes is skipped, since a viewer shows neither a failure nor a silent pass: so are
    accepted differences. What is only noted has passed, and says what it is. Too little known is an error.
    """
    comparison = cleaned(comparison)
    root = ET.Element("testsuites", name="mnist-fp8 upgrade")
    _add_suite(root, "upgrade", _verdict_cases(comparison), _properties(comparison))
    compared = {each.area: each.compared for each in rows(comparison)}
    for area in AREAS:
        cases = [_difference_case(comparison, difference) for difference in comparison.of(area)]
        if area == "claims":
            cases += _claim_cases(comparison)
        elif area in compared and not cases:
            cases.append(_case(area, f"{entries(compared[area])} without a difference"))
        if cases:
            _add_suite(root, area, cases)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(area: str, name: str, outcome: str = "", message: str = "", text: str = "") -> ET.Element:
    """A test case, with an outcome (``failure``, ``error``, ``skipped``) or none: passed."""
    case = ET.Element("testcase", classname=area, name=name)
    if outcome:
        ET.SubElement(case, outcome, message=message).text = text
    elif text:
        ET.SubElement(case, "system-out").text = text
    return case


def _add_suite(
    root: ET.Element, name: str, cases: Sequence[ET.Element], properties: Mapping[str, str] | None = None
) -> None:
    def number(outcome: str) -> str:
        return str(sum(case.find(outcome) is not None for case in cases))

    suite = ET.SubElement(
        root,
        "testsuite",
        name=name,
        tests=str(len(cases)),
        failures=number("failure"),
        errors=number("error"),
        skipped=number("skipped"),
    )
    if properties:
        parent = ET.SubElement(suite, "properties")
        for key, value in properties.items():
            ET.SubElement(parent, "property", name=key, value=value)
    suite.extend(cases)


def _properties(comparison: Comparison) -> dict[str, str]:
    return {
        "verdict": comparison.verdict.value,
        "means": sentence(comparison),
        "old": comparison.old.title,
        "new": comparison.new.title,
        "run": scope(comparison),
        **{f"limit {number}": each for number, each in enumerate(comparison.limits, 1)},
    }


def _verdict_cases(comparison: Comparison) -> list[ET.Element]:
    name = "enough is known for a verdict"
    return [_case("upgrade", name, "error", each) for each in comparison.unverified] or [_case("upgrade", name)]


def _difference_case(comparison: Comparison, difference: Difference) -> ET.Element:
    outcome = {Severity.BREAKS: "failure", Severity.CHANGES: "skipped", Severity.NOTE: ""}[difference.severity]
    message = f"{difference.severity.value}: {difference.means} {difference.do}"
    if difference.accepted:
        outcome, message = "skipped", f"accepted: {difference.accepted}; {message}"
    lines = [
        f"{each.key}: {each.old} → {each.new}{f' ({each.size})' if each.size else ''}" for each in difference.details
    ]
    shown = at_most(lines, ENTRIES_SHOWN)
    text = "\n".join([message, "", *shown, "", comparison.command(difference.details[0].key)])
    return _case(difference.area, difference.title, outcome, message, text)


def _claim_cases(comparison: Comparison) -> Iterator[ET.Element]:
    """The claims of the new record that no difference speaks of already."""
    told = {difference.title for difference in comparison.of("claims")}
    for claim in comparison.new.claims.claims if comparison.new.claims else ():
        if claim.name not in told:
            holds = claim.verdict is Verdict.HOLDS
            yield _case("claims", claim.name, "" if holds else "skipped", "" if holds else claim.verdict.value)


def as_json(comparison: Comparison) -> str:
    """Everything that was found, for programs."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "mnist_fp8": __version__,
        "verdict": comparison.verdict.value,
        "means": sentence(comparison),
        "run": comparison.old.run or comparison.new.run,
        "scope": scope(comparison),
        "old": _side(comparison.old),
        "new": _side(comparison.new),
        "differences": [_plain_difference(comparison, each) for each in comparison.differences],
        "compared": dict(comparison.compared),
        "limits": comparison.limits,
        "unverified": comparison.unverified,
        "stale": comparison.stale,
        "costs": [plain(dataclasses.asdict(cost) | {"ratio": cost.ratio}) for cost in comparison.costs],
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _side(record: Record) -> dict[str, Any]:
    names = ("te", "version", "title", "problem")
    return {name: getattr(record, name) for name in names} | {"environment": dict(record.environment)}


def _plain_difference(comparison: Comparison, difference: Difference) -> dict[str, Any]:
    details = [
        plain(dataclasses.asdict(each)) | {"command": comparison.command(each.key)} for each in difference.details
    ]
    words = {"severity": difference.severity.value, "counts": difference.counts, "details": details}
    return dataclasses.asdict(difference) | words
