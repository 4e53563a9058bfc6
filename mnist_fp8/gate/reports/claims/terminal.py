"""Claims in the terminal: a table, and why not where not."""

import dataclasses
from collections.abc import Iterator, Sequence

import rich.box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from mnist_fp8.core.plain import clean
from mnist_fp8.gate.reports.claims.view import WORDS, Examined, Reason, names_of, reasons
from mnist_fp8.gate.reports.markup import counted
from mnist_fp8.record.claims import ClaimResult, ClaimStatus, Outcome

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


@dataclasses.dataclass(frozen=True)
class ClaimTable:
    """Claims and installations, as the terminal has room.

    Claims are rows if all installations fit beside each other, and for one alone. Else they are columns: by name where
    they fit, or by number.
    """

    columns: Sequence[Examined]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render for a terminal of that width."""
        names = names_of(self.columns)
        with_names = self._turned([name.replace("_", "\n") for name in names], box=rich.box.HEAVY_HEAD, with_jax=True)
        upright = self._upright(names)
        if len(self.columns) == 1 or _fits(upright, console, options):
            yield upright
        elif _fits(with_names, console, options):
            yield with_names
            yield Text(f"{_LEGEND}n? tests not verified")
        else:
            numbers = [str(number) for number, _ in enumerate(names, 1)]
            yield self._turned(numbers, box=rich.box.SIMPLE_HEAD, with_jax=False)
            yield Text(f"{_LEGEND}✓? some tests not verified")
            yield Text("\n".join(f"{number:>2}  {name}" for number, name in enumerate(names, 1)))

    def _upright(self, names: Sequence[str]) -> Table:
        """Claims as rows."""
        table = Table(header_style="bold")
        table.add_column("claim", no_wrap=True)
        for each in self.columns:
            table.add_column(f"TE {each.label}\nJAX {each.jax}, Flax {each.flax}", overflow="fold")
        for name in names:
            found = [each.suite.claim(name) for each in self.columns]
            table.add_row(name, *(Text(cell(claim), STYLES[claim.status]) for claim in found))
        return table

    def _turned(self, headings: Sequence[str], box: rich.box.Box, *, with_jax: bool) -> Table:
        """Claims as columns."""
        table = Table(header_style="bold", box=box, collapse_padding=not with_jax, pad_edge=with_jax)
        table.add_column("TE", overflow="fold", no_wrap=with_jax)
        if with_jax:
            table.add_column("JAX", no_wrap=True)
        for heading in headings:
            table.add_column(heading, justify="center", no_wrap=True)
        for each in self.columns:
            marks = (_mark(claim, counted=with_jax) for claim in each.suite.claims)
            table.add_row(each.label, *([each.jax] if with_jax else []), *marks)
        return table


_LEGEND = " ".join(f"{SYMBOLS[status]} {status.value}  " for status in ClaimStatus)


def _fits(table: Table, console: Console, options: ConsoleOptions) -> bool:
    unbounded = options.update(max_width=10_000)
    return console.measure(table, options=unbounded).maximum <= options.max_width


def _mark(claim: ClaimResult, *, counted: bool) -> Text:
    """The status's symbol, and how many tests failed and were not verified; or, in little room, that some were not."""
    skipped = len(claim.of(Outcome.SKIPPED)) if claim.status is not ClaimStatus.NOT_VERIFIED else 0
    failed = len(claim.of(Outcome.FAILED))
    text = Text(SYMBOLS[claim.status], STYLES[claim.status])
    if counted and failed:
        text.append(f" {failed}")
    return text.append(f" {skipped}?" if counted else "?", "dim") if skipped else text


def explain(each: Examined) -> Iterator[Text]:
    """Lines for the terminal: why claims do not plainly hold, and the command that shows a failure."""
    suite = each.suite
    yield Text(clean(each.record.title), "bold")
    yield Text(f"  {clean(suite.run) or 'the kind of run is not known: it did not start'}")
    if suite.problem:
        yield Text(f"  {clean(suite.problem)}", "bold red")
    for claim in suite.claims:
        if not claim.is_plain:
            yield Text.assemble(f"\n  {claim.name}: ", (cell(claim), STYLES[claim.status]))
            for reason in reasons(claim):
                yield from _explain(reason)
    failed = [test.name for claim in suite.claims for test in claim.of(Outcome.FAILED)]
    if failed:
        yield Text(f"\n  to see the first failure:\n  {suite.command} '{failed[0]}'")


def _explain(reason: Reason) -> Iterator[Text]:
    if reason.outcome is Outcome.SKIPPED:
        yield Text(f"    not verified, {counted(len(reason.names), 'test')}: {reason.text}", "dim")
        return
    yield Text(f"    {reason.text}")
    for name in reason.shown:
        yield Text(f"      {name.rpartition('/')[2]}", "dim")


def summary(each: Examined) -> str:
    """One line for an installation that was examined."""
    counts = [(status.value, each.suite.count(status)) for status in ClaimStatus]
    said = ", ".join(f"{count} {word}" for word, count in counts if count)
    problem = each.record.problem and f"; not measured: {clean(each.record.problem)}"
    return f"TE {each.label}, JAX {each.jax}: {said or 'no claims'}{problem}"
