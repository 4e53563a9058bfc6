"""Claims as Markdown, HTML, JUnit XML and JSON."""

import json
from collections.abc import Sequence

from mnist_fp8 import __version__
from mnist_fp8.gate.reports.claims.history import History, histories
from mnist_fp8.gate.reports.claims.view import Examined, Reason, anchors, by_layer, evidence, examined, names_of, runs
from mnist_fp8.gate.reports.junit import Case, Mark, Suite, document
from mnist_fp8.gate.reports.markup import counted, cut, generated_by, literal, row, template
from mnist_fp8.gate.runner.matrix import MatrixCell
from mnist_fp8.record.claims import ClaimResult, ClaimStatus, Outcome, TestResult

SCHEMA_VERSION = 2
"""Of ``matrix.json``; raised when a field changes its meaning."""
ROOM = 200
"""Characters of a value that a page shows."""


def markdown(cells: Sequence[MatrixCell], command: str) -> str:
    """The whole page as Markdown.

    Args:
        cells: what was examined.
        command: what generated the page.
    """
    found = examined(cells)
    layers = by_layer(found)
    proof, of_layers = evidence(found), evidence(layers, "l")
    lines = ["# Transformer Engine releases and the claims", "", generated_by(command), ""]
    lines += [*(f"{run}." for run in runs(found)), ""]
    lines += [*_markdown_table(found, anchors(proof)), "", "“n?”: that many tests of the claim were not verified.", ""]
    lines += [f"- **Not judged:** TE {literal(each.label)}: {literal(each.error)}" for each in cells if each.error]
    if names_of(layers):
        lines += ["", "## Layers", "", *_markdown_table(layers, anchors(of_layers))]
    lines += _markdown_histories(histories(found))
    lines += ["", "## Evidence"]
    for each in (*proof, *of_layers):
        lines += ["", f'<a id="{each.anchor}"></a>', f"### {each.title}", "", f"`{each.command}`", ""]
        lines += [_markdown_reason(reason) for reason in each.reasons]
    return "\n".join(lines) + "\n"


def _markdown_table(columns: Sequence[Examined], links: dict[tuple[str, str], str]) -> list[str]:
    names = names_of(columns)
    heading = ["TE", "JAX", "Flax", *(name.replace("_", " ") for name in names)]
    rows = [
        [
            literal(each.label),
            each.jax,
            each.flax,
            *(_markdown_cell(each.suite.find(name), links.get((name, each.label))) for name in names),
        ]
        for each in columns
    ]
    return [row(heading), row(["---"] * len(heading)), *map(row, rows)]


def _markdown_cell(claim: ClaimResult | None, anchor: str | None) -> str:
    if claim is None:
        return ""
    text = f"**{short(claim)}**" if claim.status is ClaimStatus.BROKEN else short(claim)
    return f"[{text}](#{anchor})" if anchor else text


def short(claim: ClaimResult) -> str:
    """The verdict in as little room as a wide table has."""
    skipped = len(claim.of(Outcome.SKIPPED))
    unsure = f" {skipped}?" if skipped and claim.status is not ClaimStatus.NOT_VERIFIED else ""
    broken = f" {len(claim.of(Outcome.FAILED))}" if claim.status is ClaimStatus.BROKEN else ""
    return f"{claim.status.value}{broken}{unsure}"


def _markdown_reason(reason: Reason) -> str:
    names = "".join(f"\n  - `{name}`" for name in reason.shown) if reason.outcome is not Outcome.SKIPPED else ""
    return f"- {reason.word}, {counted(len(reason.names), 'test')}: {literal(reason.text)}{names}"


def _markdown_histories(found: Sequence[History]) -> list[str]:
    if not found:
        return []
    lines = ["", "## What changes", "", "| entry | from the oldest to the newest |", "|---|---|"]
    for history in found:
        shown = " <br> ".join(f"{releases}: {literal(cut(value, ROOM))}" for value, releases in history.values)
        lines.append(f"| {literal(history.key)} | {shown} |")
    return lines


def html(cells: Sequence[MatrixCell]) -> str:
    """The whole page as one HTML file that needs nothing else."""
    found = examined(cells)
    layers = by_layer(found)
    proof, of_layers = evidence(found), evidence(layers, "l")
    return template("matrix.html").render(
        tables=[
            ("Claims", found, names_of(found), anchors(proof)),
            ("Layers", layers, names_of(layers), anchors(of_layers)),
        ],
        runs=runs(found),
        failed=[each for each in cells if each.error],
        proof=[*proof, *of_layers],
        histories=histories(found),
        Outcome=Outcome,
        ClaimStatus=ClaimStatus,
        counted=counted,
        cut=cut,
        room=ROOM,
        version=__version__,
    )


def junit(cells: Sequence[MatrixCell]) -> str:
    """JUnit XML: a suite for each installation, a case for each test."""
    suites = [_suite(each) for each in examined(cells)]
    failed = [
        Suite(f"TE {each.label}", [Case("environment", "prepare", Mark.ERROR, each.error)])
        for each in cells
        if each.error
    ]
    return document("mnist-fp8", suites + failed)


_MARKS = {
    Outcome.PASSED: Mark.PASSED,
    Outcome.FAILED: Mark.FAILURE,
    Outcome.SKIPPED: Mark.SKIPPED,
    Outcome.KNOWN: Mark.SKIPPED,
    Outcome.SPARED: Mark.SKIPPED,
}


def _suite(each: Examined) -> Suite:
    cases = [_case(claim.name, test) for claim in each.suite.claims for test in claim.tests]
    return Suite(each.record.title, cases, each.suite.seconds)


def _case(claim: str, test: TestResult) -> Case:
    prefix = "known defect: " if test.outcome is Outcome.KNOWN else ""
    text = test.reason if test.outcome is Outcome.FAILED else ""
    return Case(claim, test.name, _MARKS[test.outcome], prefix + test.headline, text)


def as_json(cells: Sequence[MatrixCell]) -> str:
    """Everything, for programs."""
    whole = {
        "schema_version": SCHEMA_VERSION,
        "mnist_fp8": __version__,
        "records": [each.record.to_json() | {"te": each.label} for each in examined(cells)],
        "not_judged": [{"te": each.label, "error": each.error} for each in cells if each.error],
    }
    return json.dumps(whole, indent=1, allow_nan=False) + "\n"
