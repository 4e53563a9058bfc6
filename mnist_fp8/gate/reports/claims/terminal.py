"""Claims in the terminal: a table, and why not where not."""

import dataclasses
from collections.abc import Iterator, Sequence

import rich.box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from mnist_fp8.gate.reports.claims.view import WORDS, Reason, reasons
from mnist_fp8.gate.reports.markup import counted
from mnist_fp8.record.claims import ClaimResult, ClaimStatus, Outcome, SuiteResult, claim_names

SYMBOLS = {ClaimStatus.HOLDS: "✓", ClaimStatus.KNOWN: "~", ClaimStatus.BROKEN: "✗", ClaimStatus.NOT_VERIFIED: "?"}
STYLES = {
    ClaimStatus.HOLDS: "green",
    ClaimStatus.KNOWN: "yellow",
    ClaimStatus.BROKEN: "bold red",
    ClaimStatus.NOT_VERIFIED: "dim",
}


def cell(claim: ClaimResult) -> str:
    """The status in words, with how many tests it rests on."""
    failed, known, skipped = (len(claim.of(outcome)) for outcome in WORDS)
    match claim.status:
        case ClaimStatus.BROKEN:
            text = f"broken ({failed} of {len(claim.tests)})"
        case ClaimStatus.KNOWN:
            text = f"known defect ({known} of {len(claim.tests)})"
        case status:
            return (
                f"{status.value} ({skipped} not verified)" if skipped and status is ClaimStatus.HOLDS else status.value
            )
    return f"{text}, {skipped} not verified" if skipped else text


def claim_table(verifications: Sequence[SuiteResult]) -> Table:
    """Claims as rows, Transformer Engines as columns."""
    table = Table(title_justify="left", header_style="bold")
    table.add_column("claim", no_wrap=True)
    for each in verifications:
        table.add_column(f"TE {each.te}\nJAX {each.jax}, Flax {each.flax}", overflow="fold")
    for name in claim_names(verifications):
        found = [each.claim(name) for each in verifications]
        table.add_row(name, *(Text(cell(claim), STYLES[claim.status]) for claim in found))
    return table


@dataclasses.dataclass(frozen=True)
class ReleaseTable:
    """Transformer Engines as rows, claims as columns: by name where the terminal is wide enough, else by number."""

    verifications: Sequence[SuiteResult]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render for a terminal of that width."""
        names = claim_names(self.verifications)
        table = self._table([name.replace("_", "\n") for name in names], box=rich.box.HEAVY_HEAD, with_jax=True)
        fits = console.measure(table, options=options.update(max_width=10_000)).maximum <= options.max_width
        numbers = [str(number) for number, _ in enumerate(names, 1)]
        yield table if fits else self._table(numbers, box=rich.box.SIMPLE_HEAD, with_jax=False)
        legend = " ".join(f"{SYMBOLS[status]} {status.value}  " for status in ClaimStatus)
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
    """The status's symbol, and how many tests failed and were not verified; or, in little room, that some were not."""
    skipped = len(claim.of(Outcome.SKIPPED)) if claim.status is not ClaimStatus.NOT_VERIFIED else 0
    failed = len(claim.of(Outcome.FAILED))
    text = Text(SYMBOLS[claim.status], STYLES[claim.status])
    if counted and failed:
        text.append(f" {failed}")
    return text.append(f" {skipped}?" if counted else "?", "dim") if skipped else text


def explain(verification: SuiteResult) -> Iterator[Text]:
    """Lines for the terminal: why claims do not plainly hold, and the command that shows a failure."""
    yield Text(verification.title, "bold")
    yield Text(f"  {verification.run or 'the kind of run is not known: it did not start'}")
    if verification.problem:
        yield Text(f"  {verification.problem}", "bold red")
    if verification.facts_problem:
        yield Text(f"  not measured: {verification.facts_problem}", "dim")
    for claim in verification.claims:
        if not claim.is_plain:
            yield Text.assemble(f"\n  {claim.name}: ", (cell(claim), STYLES[claim.status]))
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


def summary(verification: SuiteResult) -> str:
    """One line for a finished verification."""
    counts = [(status.value, verification.count(status)) for status in ClaimStatus]
    said = ", ".join(f"{count} {word}" for word, count in counts if count)
    return f"TE {verification.te}, JAX {verification.jax}: {said or 'measured'}"
