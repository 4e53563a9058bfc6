"""Claims as Markdown, HTML, JUnit XML and JSON."""

import json
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree as ET

from mnist_fp8 import __version__
from mnist_fp8.gate.reports.claims.view import Fact, Reason, anchors, evidence, facts, runs
from mnist_fp8.gate.reports.markup import counted, literal, row, template, xml
from mnist_fp8.record.claims import ClaimResult, ClaimStatus, MatrixCell, Outcome, SuiteResult, claim_names

SCHEMA_VERSION = 1
"""Of ``matrix.json``; raised when a field changes its meaning."""


def markdown(judged: Sequence[MatrixCell]) -> str:
    """The whole page as Markdown."""
    found = [each.verification for each in judged if each.verification]
    proof = evidence(found)
    lines = ["# Transformer Engine releases and the claims", "", *(f"{run}." for run in runs(found)), ""]
    lines += [*_markdown_table(found, anchors(proof)), "", "“n?”: that many tests of the claim were not verified.", ""]
    lines += [f"- **Not judged:** TE {each.te}: {literal(each.error)}" for each in judged if each.error]
    lines += _markdown_facts(facts(found))
    lines += ["", "## Evidence"]
    for each in proof:
        lines += ["", f'<a id="{each.anchor}"></a>', f"### {each.title}", "", f"`{each.command}`", ""]
        lines += [_markdown_reason(reason) for reason in each.reasons]
    return "\n".join(lines) + "\n"


def _markdown_table(verifications: Sequence[SuiteResult], links: dict[tuple[str, str], str]) -> list[str]:
    names = claim_names(verifications)
    heading = ["TE", "JAX", "Flax", *(name.replace("_", " ") for name in names)]
    rows = [
        [
            literal(each.te),
            each.jax,
            each.flax,
            *(_markdown_cell(each.claim(name), links.get((name, each.te))) for name in names),
        ]
        for each in verifications
    ]
    return [row(heading), row(["---"] * len(heading)), *map(row, rows)]


def _markdown_cell(claim: ClaimResult, anchor: str | None) -> str:
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


def _markdown_facts(found: Sequence[Fact]) -> list[str]:
    if not found:
        return []
    lines = ["", "## What each release does", "", "| fact | from the oldest to the newest |", "|---|---|"]
    for fact in found:
        name = f"**{fact.name}**" if fact.changes else fact.name
        shown = " <br> ".join(f"{releases}: {literal(value)}" for value, releases in fact.values)
        lines.append(f"| {name} | {shown} |")
    return lines


def html(judged: Sequence[MatrixCell]) -> str:
    """The whole page as one HTML file that needs nothing else."""
    found = [each.verification for each in judged if each.verification]
    proof = evidence(found)
    return template("matrix.html").render(
        verifications=found,
        names=claim_names(found),
        runs=runs(found),
        failed=[each for each in judged if each.error],
        proof=proof,
        links=anchors(proof),
        facts=facts(found),
        Outcome=Outcome,
        ClaimStatus=ClaimStatus,
        counted=counted,
        version=__version__,
    )


def junit(judged: Sequence[MatrixCell]) -> str:
    """JUnit XML: a suite for each Transformer Engine, a case for each test."""
    root = ET.Element("testsuites", name="mnist-fp8")
    for each in judged:
        if each.verification:
            _add_suite(root, each.verification)
        else:
            suite = ET.SubElement(root, "testsuite", name=f"TE {each.te}", tests="1", errors="1")
            case = ET.SubElement(suite, "testcase", classname="environment", name="prepare")
            ET.SubElement(case, "error", message=xml(each.error))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _add_suite(root: ET.Element, verification: SuiteResult) -> None:
    tests = [(claim.name, test) for claim in verification.claims for test in claim.tests]
    outcomes = [test.outcome for _, test in tests]
    suite = ET.SubElement(
        root,
        "testsuite",
        name=verification.title,
        time=f"{verification.seconds:.1f}",
        tests=str(len(tests)),
        failures=str(outcomes.count(Outcome.FAILED)),
        skipped=str(outcomes.count(Outcome.SKIPPED) + outcomes.count(Outcome.KNOWN)),
    )
    for claim, test in tests:
        case = ET.SubElement(suite, "testcase", classname=claim, name=xml(test.name))
        if test.outcome is Outcome.FAILED:
            ET.SubElement(case, "failure", message=xml(test.headline)).text = xml(test.reason)
        elif test.outcome is not Outcome.PASSED:
            prefix = "known defect: " if test.outcome is Outcome.KNOWN else ""
            ET.SubElement(case, "skipped", message=xml(prefix + test.headline))


def as_json(judged: Sequence[MatrixCell]) -> str:
    """Everything, for programs."""
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "mnist_fp8": __version__,
        "verifications": [each.verification.to_json() for each in judged if each.verification],
        "not_judged": [{"te": each.te, "error": each.error} for each in judged if each.error],
    }
    return json.dumps(document, indent=1) + "\n"
