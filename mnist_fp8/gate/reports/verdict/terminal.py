"""The verdict on an upgrade in the terminal."""

import dataclasses
import itertools
import shlex
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from mnist_fp8.gate.reports.markup import at_most
from mnist_fp8.gate.reports.uses.terminal import section
from mnist_fp8.gate.reports.verdict.view import (
    COLUMNS,
    Finding,
    Row,
    View,
    around,
    cost_cells,
    counting,
    headline,
    rows,
    scope,
    sentence,
    stack,
)
from mnist_fp8.gate.verdict.comparison import Comparison, UpgradeVerdict
from mnist_fp8.gate.verdict.costs import CostChange
from mnist_fp8.gate.verdict.rules.rule import Severity
from mnist_fp8.record.entries import AREAS

SCREEN = 44
"""Lines of a terminal."""
TITLES = 6
"""Lines of them for differences of which there is no room for more than the title."""
_SYMBOLS = {Severity.BREAKS: "✗", Severity.CHANGES: "~", Severity.NOTE: "·"}
_STYLES = {
    UpgradeVerdict.SAFE: "bold white on green",
    UpgradeVerdict.CHANGED: "bold black on yellow",
    UpgradeVerdict.BROKEN: "bold white on red",
    UpgradeVerdict.UNVERIFIED: "bold black on white",
    UpgradeVerdict.PARTIAL: "bold black on cyan",
    Severity.BREAKS: "bold red",
    Severity.CHANGES: "yellow",
    Severity.NOTE: "dim",
}


def terminal(comparison: Comparison) -> Iterator[RenderableType]:
    """The verdict on one screen."""
    yield _Screen(View.of(comparison))


@dataclasses.dataclass(frozen=True)
class _Screen:
    """As many differences as fit on a screen, the worst first."""

    view: View

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render for a terminal of that width."""

        def height(parts: Iterable[RenderableType]) -> int:
            return sum(len(console.render_lines(part, options, pad=False)) for part in parts)

        found = counting(self.view)
        head = [*_head(self.view, options.max_width), *(_how_to_see(self.view) if found else ())]
        end = list(_end(self.view, options.max_width))
        room = SCREEN - height([*head, *end])
        blocks = [list(_lines(finding, options.max_width)) for finding in found[:SCREEN]]
        heights = [height(block) for block in blocks]
        whole = _fitting(heights, room)
        if whole < len(found):
            whole = _fitting(heights, room - TITLES)
        titles = blocks[whole : whole + TITLES - 1]
        yield from head
        yield from itertools.chain.from_iterable(blocks[:whole])
        yield from (block[0] for block in titles)
        more = sum(len(each.differences) for each in found[whole + len(titles) :])
        if more:
            yield Text(f"  and {more:,} more: see the page", "bold")
        yield from end


def _fitting(heights: Sequence[int], room: int) -> int:
    """How many of them fit, one at least."""
    return max(1, sum(end <= room for end in itertools.accumulate(heights)))


def _head(view: View, width: int) -> Iterator[RenderableType]:
    verdict = view.verdict
    yield Text.assemble((f" {verdict.value} ", _STYLES[verdict]), " ", (headline(view), "bold"))
    if view.code:
        yield from section(view.code, width)
        yield Text()
    yield Text(sentence(view))
    yield from (_indented(each, width, "bold", "not verified: ") for each in at_most(view.unverified, 5))
    yield from (_indented(each, width, "bold", "in part: ") for each in at_most(view.partial, 5))
    kind, colon, seen = scope(view).partition(":")
    yield Text.assemble((kind, "bold"), f"{colon}{seen}.")
    yield Text(stack(view), "dim")
    if found := rows(view):
        yield Text()
        yield from _area_table(found, width)


def _area_table(found: Sequence[Row], width: int) -> Iterator[RenderableType]:
    """Areas with differences as rows, and the others in one line."""
    differing = [each for each in found if any(each.numbers)]
    if differing:
        columns = [
            (index, name, style)
            for index, (name, style) in enumerate(COLUMNS.items())
            if any(each.numbers[index] for each in differing)
        ]
        area_width = max(map(len, AREAS))
        headings = ["compared", *(name for _, name, _ in columns)]
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("area", width=area_width)
        room = width - area_width - sum(len(name) + 1 for name in headings) - 2
        table.add_column("what it is", style="dim", max_width=room, no_wrap=True)
        for name in headings:
            table.add_column(name, justify="right", min_width=len(name))
        for each in differing:
            marks = (_mark(each.numbers[index], style) for index, _, style in columns)
            table.add_row(each.area, each.what, f"{each.compared:,}", *marks)
        yield table
    same = [f"{each.area} {each.compared:,}" for each in found if not any(each.numbers)]
    if same:
        yield _indented(", ".join(same), width, "green", "no difference in ")


def _mark(number: int, style: str) -> Text:
    return Text(str(number), style) if number else Text("-", "dim")


def _how_to_see(view: View) -> Iterator[RenderableType]:
    yield Text()
    yield Text.assemble(("Differences, the worst first.", "bold"), " To measure one again:")
    yield Text(f"    {view.command('KEY')}")


def _lines(finding: Finding, width: int) -> Iterator[Text]:
    """Title, the worst entry, what it means and what to do, and its key."""
    severity, worst = finding.rule.severity, finding.worst
    yield _one_line(
        (f"{_SYMBOLS[severity]} {severity.value} ", _STYLES[severity]),
        (finding.title, "bold"),
        (f", {finding.number}" if finding.number else "", "dim"),
        (f"  [{finding.rule.id}]", "dim"),
    )
    size = f" ({worst.size})" if worst.size else ""
    old, new = around(worst.old, worst.new, max(40, width - len(size) - 7))
    yield _one_line(f"    {old} → {new}", (size, "dim"))
    yield _indented(f"{finding.rule.meaning} {finding.rule.action}", width)
    yield Text(f"    --only {shlex.quote(worst.key)}", "dim", overflow="fold")


def _one_line(*parts: str | tuple[str, str]) -> Text:
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")


def _indented(text: str, width: int, style: str = "", first: str = "    ") -> Text:
    return Text(textwrap.fill(text, width, initial_indent=first, subsequent_indent=4 * " "), style)


def _end(view: View, width: int) -> Iterator[Text]:
    """What was not compared, which accepted differences are of no use, and costs."""
    yield Text()
    yield from (_indented(each, width, "dim", "limit: ") for each in at_most(view.limits, 5))
    yield from (_one_line((f"not seen: {each}", "dim")) for each in at_most(view.unseen, 5))
    yield from (_indented(each, width, "yellow", "policy: ") for each in at_most(view.stale, 5))
    if view.costs:
        yield _indented(_cost_line(view.costs), width, "dim", "costs ")


def _cost_line(costs: Sequence[CostChange]) -> str:
    """The largest change among those that repetitions do not explain."""
    start = "(no verdict rests on them):"
    beyond = [cost for cost in costs if cost.repetitions > 1 and abs(cost.ratio - 1) > cost.spread]
    if not beyond:
        return f"{start} none of {len(costs)} changed by more than repetitions do"
    told = "{} {} → {}, {}, repetitions {}".format(*cost_cells(max(beyond, key=lambda cost: abs(cost.ratio - 1))))
    return f"{start} {told}{f'; the largest change of {len(costs)}' if len(costs) > 1 else ''}"
