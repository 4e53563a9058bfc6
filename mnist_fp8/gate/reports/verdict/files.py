"""The verdict on an upgrade as JUnit XML and JSON."""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from mnist_fp8 import __version__
from mnist_fp8.core.plain import plain
from mnist_fp8.gate.reports import values
from mnist_fp8.gate.reports.junit import Case, Mark, Suite, document
from mnist_fp8.gate.reports.markup import at_most
from mnist_fp8.gate.reports.uses import files as uses
from mnist_fp8.gate.reports.uses.words import joined
from mnist_fp8.gate.reports.verdict.conditions import not_seen, scope
from mnist_fp8.gate.reports.verdict.view import ENTRIES_SHOWN, Shown, View, entries, rows, sentence
from mnist_fp8.gate.verdict.changes import EntryChange
from mnist_fp8.gate.verdict.comparison import Comparison
from mnist_fp8.gate.verdict.roots import Root
from mnist_fp8.gate.verdict.rules.rule import Difference, Severity
from mnist_fp8.record.claims import ClaimStatus
from mnist_fp8.record.keys import AREAS
from mnist_fp8.record.record import Record

SCHEMA_VERSION = 3
"""Of the JSON; raised when a field changes its meaning."""


def junit(view: View) -> str:
    """JUnit XML: a suite for each area, a case for each difference, and one for what does not differ.

    Of what the user's code uses there is a case for each name.

    What breaks is a failure. What changes is skipped, since a viewer shows neither a failure nor a silent pass: so are
    accepted differences, and what a partial look leaves out. What is only noted has passed, and says what it is. Too
    little known is an error.
    """
    compared = {each.area: each.compared for each in rows(view)}
    suites = [Suite("upgrade", _verdict_cases(view), properties=_properties(view))]
    for area in AREAS:
        if area == "uses":
            cases = list(uses.cases(view.code)) if view.code else []
        else:
            cases = [_difference_case(view, shown) for shown in view.in_area(area)]
        if area == "claims":
            cases += _claim_cases(view)
        elif area in compared and not cases:
            cases.append(Case(area, f"{entries(compared[area])} without a difference"))
        if cases:
            suites.append(Suite(area, cases))
    return document("mnist-fp8 upgrade", suites)


def _properties(view: View) -> dict[str, str]:
    return {
        "verdict": view.verdict.value,
        "means": sentence(view),
        "old": view.old.title,
        "new": view.new.title,
        "run": scope(view),
        **({"code": f"{view.code.headline} {joined(view.code.range)}"} if view.code else {}),
        **{f"limit {number}": each for number, each in enumerate(view.limits, 1)},
        **{f"not looked at {number}": each for number, each in enumerate(not_seen(view), 1)},
    }


def _verdict_cases(view: View) -> list[Case]:
    name = "enough is known for a verdict"
    whole = "everything that can be was looked at"
    return [
        *([Case("upgrade", name, Mark.ERROR, each) for each in view.unverified] or [Case("upgrade", name)]),
        *([Case("upgrade", whole, Mark.SKIPPED, each) for each in view.partial] or [Case("upgrade", whole)]),
    ]


_MARKS = {Severity.BREAKS: Mark.FAILURE, Severity.CHANGES: Mark.SKIPPED, Severity.NOTE: Mark.PASSED}


def _difference_case(view: View, shown: Shown) -> Case:
    rule = shown.rule
    mark = _MARKS[rule.severity]
    message = f"{rule.severity.value}: {rule.meaning} {shown.action}"
    if shown.accepted:
        mark, message = Mark.SKIPPED, f"accepted: {shown.accepted}; {message}"
    lines = [entry.line for entry in shown.entries]
    text = "\n".join([message, "", *at_most(lines, ENTRIES_SHOWN), "", view.command(shown.entries[0].key)])
    return Case(shown.area, shown.title, mark, message, text)


def _claim_cases(view: View) -> Iterator[Case]:
    """The claims of the new record that no difference speaks of already."""
    differing = {shown.subject for shown in view.in_area("claims")}
    for claim in view.new.suite.claims if view.new.suite else ():
        if claim.name in differing:
            continue
        if claim.status is ClaimStatus.HOLDS:
            yield Case("claims", claim.name)
        else:
            yield Case("claims", claim.name, Mark.SKIPPED, claim.status.value)


def as_json(view: View) -> str:
    """Everything that was found, for programs."""
    comparison = view.comparison
    document = {
        "schema_version": SCHEMA_VERSION,
        "mnist_fp8": __version__,
        "verdict": comparison.verdict.value,
        "means": sentence(view),
        "run": comparison.old.run or comparison.new.run,
        "scope": scope(view),
        "uses": uses.as_json(view.code) if view.code else None,
        "old": _side(comparison.old),
        "new": _side(comparison.new),
        "slices": [
            {name: value for name, value in dataclasses.asdict(each).items() if name != "source"}
            for each in view.slices
        ],
        "roots": [_plain_root(root) for root in comparison.roots],
        "differences": [_plain_difference(comparison, difference) for difference in comparison.differences],
        "compared": dict(comparison.compared),
        "limits": comparison.limits,
        "unverified": view.unverified,
        "partial": view.partial,
        "coverage": plain(dataclasses.asdict(comparison.coverage)),
        "stale": comparison.stale,
        "costs": [plain(dataclasses.asdict(cost) | {"ratio": cost.ratio}) for cost in comparison.costs],
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _side(record: Record) -> dict[str, Any]:
    names = ("te", "version", "title", "problem")
    return {name: getattr(record, name) for name in names} | {"environment": dict(record.environment)}


def _plain_root(root: Root) -> dict[str, Any]:
    """A root, with the keys of what it holds: the differences have the rest."""
    old, new = values.sides(root.first)
    return {
        "area": root.main.area,
        "subjects": root.subjects,
        "rule": root.main.rule.id,
        "severity": root.main.rule.severity.value,
        "counts": root.main.counts,
        "first": {"key": root.first.key, "old": old, "new": new, "size": values.size(root.first)},
        "effect": root.effect.value if root.effect else "",
        "measures": [plain(dataclasses.asdict(measure)) for measure in root.measures],
        "differences": [
            {
                "area": one.area,
                "subject": one.subject,
                "rule": one.rule.id,
                "entries": [each.key for each in one.entries],
            }
            for one in root.differences
        ],
    }


def _plain_difference(comparison: Comparison, difference: Difference) -> dict[str, Any]:
    rule = difference.rule
    return {
        "area": difference.area,
        "subject": difference.subject,
        "title": difference.title,
        "rule": rule.id,
        "severity": rule.severity.value,
        "meaning": rule.meaning,
        "action": values.action(difference),
        "counts": difference.counts,
        "accepted": difference.accepted,
        "entries": [_plain_entry(comparison, change) for change in difference.entries],
    }


def _plain_entry(comparison: Comparison, change: EntryChange) -> dict[str, Any]:
    """An entry as it is: programs need no clean text."""
    old, new = values.sides(change)
    fields = {"key": change.key, "old": old, "new": new, "size": values.size(change), "weight": change.weight}
    return plain(fields) | {"command": comparison.command(change.key)}
