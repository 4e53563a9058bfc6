"""Render what was found: for the terminal, as Markdown, HTML, JUnit XML and JSON. Nothing here judges or measures."""

import dataclasses
import itertools
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any
from xml.etree import ElementTree as ET

import jinja2
import rich.box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from mnist_fp8 import __version__
from mnist_fp8.records import ClaimResult, Judged, Outcome, Verdict, Verification, claim_names

SCHEMA_VERSION = 1
"""Of ``matrix.json``; raised when a field changes its meaning."""

SYMBOLS = {Verdict.HOLDS: "✓", Verdict.KNOWN: "~", Verdict.BROKEN: "✗", Verdict.NOT_VERIFIED: "?"}
STYLES = {Verdict.HOLDS: "green", Verdict.KNOWN: "yellow", Verdict.BROKEN: "bold red", Verdict.NOT_VERIFIED: "dim"}
WORDS = {Outcome.FAILED: "broken", Outcome.KNOWN: "known defect", Outcome.SKIPPED: "not verified"}
NAMES_SHOWN = 5
"""Tests that are named under one reason; the others are counted."""
NO_FACT = "not there"


# --- why a claim does not plainly hold ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Reason:
    """Tests that ended alike for one reason."""

    outcome: Outcome
    text: str
    names: tuple[str, ...]

    @property
    def word(self) -> str:
        """What it did to the claim."""
        return WORDS[self.outcome]

    @property
    def shown(self) -> tuple[str, ...]:
        """The names to print, and how many more there are."""
        more = len(self.names) - NAMES_SHOWN
        return (*self.names[:NAMES_SHOWN], f"and {more} more") if more > 0 else self.names


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The same reasons in neighbouring releases, for one or more claims."""

    anchor: str
    claims: tuple[str, ...]
    labels: tuple[str, ...]
    verdict: Verdict
    reasons: tuple[Reason, ...]

    @property
    def title(self) -> str:
        """Claims, releases and verdict."""
        found = "not verified in part" if self.verdict is Verdict.HOLDS else self.verdict.value
        return f"{', '.join(self.claims)}, {span(self.labels)}: {found}"

    @property
    def command(self) -> str:
        """What shows it again."""
        return shown_again(self.labels[0], self.claims)


def shown_again(label: str, claims: Sequence[str]) -> str:
    """The command that judges those claims again."""
    te, _, jax = label.partition(" with JAX ")
    kind, _, rest = te.partition(" ")
    subject = {"folder": shlex.quote(rest), "python": f"--python {shlex.quote(rest)}"}.get(kind, te)
    return f"mnist-fp8 verify {subject}{jax and f' --jax {jax}'} --claim {' '.join(claims)}"


def span(labels: Sequence[str]) -> str:
    """One label, or the first and the last."""
    return labels[0] if len(labels) == 1 else f"{labels[0]} to {labels[-1]}"


def reasons(claim: ClaimResult, version: str = "") -> tuple[Reason, ...]:
    """Why a claim does not plainly hold: what broke, what is known, what was not verified; equal reasons together.

    Args:
        claim: the claim.
        version: named as "this release" in the reasons, so that those of neighbours can be equal.
    """
    grouped: dict[tuple[Outcome, str], list[str]] = {}
    for outcome in WORDS:
        for test in claim.of(outcome):
            text = _of_any_release(test.headline, version)
            grouped.setdefault((outcome, text), []).append(test.name)
    return tuple(Reason(outcome, text, tuple(names)) for (outcome, text), names in grouped.items())


def _of_any_release(text: str, version: str) -> str:
    """A text without the release's own version, so that neighbours that say the same are told together."""
    own = rf"(?<![\w.]){re.escape(version)}(?!\w|\.\d)"
    return re.sub(own, "this release", text) if version else text


def evidence(verifications: Sequence[Verification]) -> list[Evidence]:
    """What there is to explain, equal evidence of neighbours once."""
    merged: dict[object, Evidence] = {}
    for name in claim_names(verifications):
        for found in _of_claim(name, verifications):
            texts = tuple((reason.outcome, reason.text) for reason in found.reasons)
            other = merged.get((found.labels, texts))
            merged[found.labels, texts] = _together(other, found) if other else found
    return [dataclasses.replace(found, anchor=f"e{number}") for number, found in enumerate(merged.values(), 1)]


def _of_claim(name: str, verifications: Sequence[Verification]) -> Iterator[Evidence]:
    def key(verification: Verification) -> tuple[Reason, ...]:
        found = [claim for claim in verification.claims if claim.name == name]
        return reasons(found[0], verification.version) if found else ()

    for found, group in itertools.groupby(verifications, key):
        members = list(group)
        if found:
            labels = tuple(member.te for member in members)
            yield Evidence("", (name,), labels, members[0].claim(name).verdict, found)


def _together(one: Evidence, other: Evidence) -> Evidence:
    pairs = zip(one.reasons, other.reasons, strict=True)
    together = tuple(dataclasses.replace(a, names=a.names + b.names) for a, b in pairs)
    return dataclasses.replace(one, claims=one.claims + other.claims, reasons=together)


def anchors(found: Sequence[Evidence]) -> dict[tuple[str, str], str]:
    """The anchor of the evidence for a claim and a label."""
    return {(claim, label): each.anchor for each in found for claim in each.claims for label in each.labels}


# --- facts ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Fact:
    """A measured fact: its values from the first release to the last, each with the releases that share it."""

    name: str
    values: tuple[tuple[str, str], ...]

    @property
    def changes(self) -> bool:
        """Whether two neighbours differ."""
        return len(self.values) > 1


def facts(verifications: Sequence[Verification]) -> list[Fact]:
    """What each release does; those that change first."""
    measured = [each for each in verifications if each.facts]
    names = dict.fromkeys(name for each in measured for name in each.facts)
    found = [Fact(name, _values(name, measured)) for name in names]
    return sorted(found, key=lambda fact: not fact.changes)


def _values(name: str, verifications: Sequence[Verification]) -> tuple[tuple[str, str], ...]:
    groups = itertools.groupby(
        verifications, lambda each: _of_any_release(each.facts.get(name, NO_FACT), f"Transformer Engine {each.version}")
    )
    return tuple((value, span([each.te for each in group])) for value, group in groups)


# --- terminal -------------------------------------------------------------------------------------------------------


def cell(claim: ClaimResult) -> str:
    """The verdict in words, with how many tests it rests on."""
    failed, known, skipped = (len(claim.of(outcome)) for outcome in WORDS)
    match claim.verdict:
        case Verdict.BROKEN:
            text = f"broken ({failed} of {len(claim.tests)})"
        case Verdict.KNOWN:
            text = f"known defect ({known} of {len(claim.tests)})"
        case verdict:
            return (
                f"{verdict.value} ({skipped} not verified)" if skipped and verdict is Verdict.HOLDS else verdict.value
            )
    return f"{text}, {skipped} not verified" if skipped else text


def claim_table(verifications: Sequence[Verification]) -> Table:
    """Claims as rows, Transformer Engines as columns."""
    table = Table(title_justify="left", header_style="bold")
    table.add_column("claim", no_wrap=True)
    for each in verifications:
        table.add_column(f"TE {each.te}\nJAX {each.jax}, Flax {each.flax}", overflow="fold")
    for name in claim_names(verifications):
        found = [each.claim(name) for each in verifications]
        table.add_row(name, *(Text(cell(claim), STYLES[claim.verdict]) for claim in found))
    return table


@dataclasses.dataclass(frozen=True)
class ReleaseTable:
    """Transformer Engines as rows, claims as columns: by name where the terminal is wide enough, else by number."""

    verifications: Sequence[Verification]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render for a terminal of that width."""
        names = claim_names(self.verifications)
        table = self._table([name.replace("_", "\n") for name in names], box=rich.box.HEAVY_HEAD, with_jax=True)
        fits = console.measure(table, options=options.update(max_width=10_000)).maximum <= options.max_width
        numbers = [str(number) for number, _ in enumerate(names, 1)]
        yield table if fits else self._table(numbers, box=rich.box.SIMPLE_HEAD, with_jax=False)
        legend = " ".join(f"{SYMBOLS[verdict]} {verdict.value}  " for verdict in Verdict)
        yield Text(legend + ("n? tests not verified" if fits else "✓? some tests not verified"))
        if not fits:
            yield Text("\n".join(f"{number:>2}  {name}" for number, name in enumerate(names, 1)))

    def _table(self, headings: Sequence[str], box: rich.box.Box, *, with_jax: bool) -> Table:
        table = Table(header_style="bold", box=box, collapse_padding=not with_jax, pad_edge=with_jax)
        table.add_column("TE", no_wrap=True)
        if with_jax:
            table.add_column("JAX", no_wrap=True)
        for heading in headings:
            table.add_column(heading, justify="center", no_wrap=True)
        for each in self.verifications:
            marks = (_mark(claim, counted=with_jax) for claim in each.claims)
            table.add_row(each.te, *([each.jax] if with_jax else []), *marks)
        return table


def _mark(claim: ClaimResult, *, counted: bool) -> Text:
    """The verdict's symbol, and how many tests failed and were not verified; or, in little room, that some were not."""
    skipped = len(claim.of(Outcome.SKIPPED)) if claim.verdict is not Verdict.NOT_VERIFIED else 0
    failed = len(claim.of(Outcome.FAILED))
    text = Text(SYMBOLS[claim.verdict], STYLES[claim.verdict])
    if counted and failed:
        text.append(f" {failed}")
    return text.append(f" {skipped}?" if counted else "?", "dim") if skipped else text


def explain(verification: Verification) -> Iterator[Text]:
    """Lines for the terminal: why claims do not plainly hold, and the command that shows a failure."""
    yield Text(verification.title, "bold")
    yield Text(f"  {verification.run or 'the kind of run is not known: it did not start'}")
    if verification.problem:
        yield Text(f"  {verification.problem}", "bold red")
    if verification.facts_problem:
        yield Text(f"  not measured: {verification.facts_problem}", "dim")
    for claim in verification.claims:
        if not claim.is_plain:
            yield Text.assemble(f"\n  {claim.name}: ", (cell(claim), STYLES[claim.verdict]))
            for reason in reasons(claim):
                yield from _explain(reason)
    failed = [test.name for claim in verification.claims for test in claim.of(Outcome.FAILED)]
    if failed:
        yield Text(f"\n  to see the first failure:\n  {verification.command} '{failed[0]}'")


def _explain(reason: Reason) -> Iterator[Text]:
    if reason.outcome is Outcome.SKIPPED:
        yield Text(f"    not verified, {counted(len(reason.names), 'test')}: {reason.text}", "dim")
        return
    yield Text(f"    {reason.text}")
    for name in reason.shown:
        yield Text(f"      {name.rpartition('/')[2]}", "dim")


def counted(number: int, noun: str) -> str:
    """``1 test``, ``2 tests``."""
    return f"{number} {noun}" if number == 1 else f"{number:,} {noun}s"


def summary(verification: Verification) -> str:
    """One line for a finished verification."""
    counts = [(verdict.value, verification.count(verdict)) for verdict in Verdict]
    said = ", ".join(f"{count} {word}" for word, count in counts if count)
    return f"TE {verification.te}, JAX {verification.jax}: {said or 'measured'}"


# --- files ----------------------------------------------------------------------------------------------------------


def markdown(judged: Sequence[Judged]) -> str:
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


def runs(verifications: Sequence[Verification]) -> list[str]:
    """The kinds of run that there were."""
    return list(dict.fromkeys(each.run for each in verifications if each.run))


def _markdown_table(verifications: Sequence[Verification], links: dict[tuple[str, str], str]) -> list[str]:
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


def row(cells: Sequence[str]) -> str:
    """A row of a Markdown table; what the cells say is `literal` already."""
    return f"| {' | '.join(cells)} |"


def _markdown_cell(claim: ClaimResult, anchor: str | None) -> str:
    text = f"**{short(claim)}**" if claim.verdict is Verdict.BROKEN else short(claim)
    return f"[{text}](#{anchor})" if anchor else text


def short(claim: ClaimResult) -> str:
    """The verdict in as little room as a wide table has."""
    skipped = len(claim.of(Outcome.SKIPPED))
    unsure = f" {skipped}?" if skipped and claim.verdict is not Verdict.NOT_VERIFIED else ""
    broken = f" {len(claim.of(Outcome.FAILED))}" if claim.verdict is Verdict.BROKEN else ""
    return f"{claim.verdict.value}{broken}{unsure}"


def _markdown_reason(reason: Reason) -> str:
    names = "".join(f"\n  - `{name}`" for name in reason.shown) if reason.outcome is not Outcome.SKIPPED else ""
    return f"- {reason.word}, {counted(len(reason.names), 'test')}: {literal(reason.text)}{names}"


def literal(text: str) -> str:
    """Text that Markdown leaves alone, in the cell of a table, too."""
    return re.sub(r"([\\`*_{}\[\]<>#|&~])", r"\\\1", text)


def _markdown_facts(found: Sequence[Fact]) -> list[str]:
    if not found:
        return []
    lines = ["", "## What each release does", "", "| fact | from the oldest to the newest |", "|---|---|"]
    for fact in found:
        name = f"**{fact.name}**" if fact.changes else fact.name
        shown = " <br> ".join(f"{releases}: {literal(value)}" for value, releases in fact.values)
        lines.append(f"| {name} | {shown} |")
    return lines


def html(judged: Sequence[Judged]) -> str:
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
        Verdict=Verdict,
        counted=counted,
        version=__version__,
    )


def template(name: str) -> jinja2.Template:
    """A template of the package; what is put into it is escaped."""
    loader = jinja2.PackageLoader("mnist_fp8")
    return jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    ).get_template(name)


def junit(judged: Sequence[Judged]) -> str:
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


def _add_suite(root: ET.Element, verification: Verification) -> None:
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


def xml(text: str) -> str:
    """Without the control characters that XML has no way to write."""
    return re.sub(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]", "�", text)


def as_json(judged: Sequence[Judged]) -> str:
    """Everything, for programs."""
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "mnist_fp8": __version__,
        "verifications": [each.verification.to_json() for each in judged if each.verification],
        "not_judged": [{"te": each.te, "error": each.error} for each in judged if each.error],
    }
    return json.dumps(document, indent=1) + "\n"
