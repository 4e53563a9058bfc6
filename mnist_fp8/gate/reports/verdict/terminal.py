"""The verdict on an upgrade in the terminal."""

import dataclasses
import shlex
import textwrap
from collections.abc import Iterator, Sequence

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from mnist_fp8.gate.reports.markup import at_most
from mnist_fp8.gate.reports.uses.terminal import one_line, section
from mnist_fp8.gate.reports.verdict.conditions import scope, stack
from mnist_fp8.gate.reports.verdict.costs import cost_cells
from mnist_fp8.gate.reports.verdict.view import Block, Row, View, around, headline, rows, sentence
from mnist_fp8.gate.verdict.comparison import UpgradeVerdict
from mnist_fp8.gate.verdict.costs import CostChange
from mnist_fp8.gate.verdict.rules.rule import Severity

SCREEN = 44
"""Lines of a terminal."""
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


@dataclasses.dataclass(frozen=True)
class Screen:
    """The verdict on one screen: as many differences as fit, the worst first."""

    view: View

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render for a terminal of that width."""

        def height(part: RenderableType) -> int:
            return len(console.render_lines(part, options, pad=False))

        found = self.view.counting
        head = [*_head(self.view, options.max_width), *(_how_to_see(self.view) if found else ())]
        end = list(_end(self.view, options.max_width))
        room = SCREEN - sum(map(height, [*head, *end]))
        blocks = [list(_lines(block, options.max_width)) for block in found[:SCREEN]]
        numbers = _fitting([list(map(height, block)) for block in blocks], room, len(found))
        yield from head
        for block, number in zip(blocks, numbers, strict=False):
            yield from block[:number]
        if more := len(found) - len(numbers):
            yield Text(f"  and {more:,} more: see the page", "bold")
        yield from end


def _fitting(blocks: Sequence[Sequence[int]], room: int, total: int) -> list[int]:
    """How many lines to show of each block: all of the first, the title of as many as fit, and more of those in front.

    Args:
        blocks: the heights of their lines.
        room: for all of them.
        total: how many there are; a line says so where not all are shown.
    """
    room -= sum(sum(block) for block in blocks[:1])
    titles = min(len(blocks) - 1, room) if total - 1 <= room else room - 1
    shown = [len(block) for block in blocks[:1]] + [1] * titles
    room -= titles + (len(shown) < total)
    for wanted in (SCREEN, 4, 2):  # all lines, or what diverges first and how, or what
        for index, heights in enumerate(blocks[: len(shown)]):
            needed = sum(heights[shown[index] : wanted])
            if needed > room:
                break
            room -= needed
            shown[index] = max(shown[index], wanted)
    return shown


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
        yield from _areas(found, width)


def _areas(found: Sequence[Row], width: int) -> Iterator[Text]:
    """Areas with differences, and the others."""
    differing = [f"{each.area} {each.differing:,} of {each.compared:,}" for each in found if each.differing]
    same = [f"{each.area} {each.compared:,}" for each in found if not each.differing]
    for areas, style, first in ((differing, "", "different in "), (same, "green", "no difference in ")):
        if areas:
            yield _indented(", ".join(areas), width, style, first)


def _how_to_see(view: View) -> Iterator[RenderableType]:
    yield Text()
    yield Text.assemble(("Differences by their root, the worst first.", "bold"), " To measure where one begins:")
    yield Text(f"    {view.command('KEY')}")


def _lines(block: Block, width: int) -> Iterator[Text]:
    """Title, what diverges first and how, what decides, how many entries, what it means and what to do."""
    severity, first = block.rule.severity, block.first
    yield one_line((f"{_SYMBOLS[severity]} {severity.value} ", _STYLES[severity]), (block.title, "bold"))
    yield Text(f"    --only {shlex.quote(first.key)}", "dim", overflow="fold")
    size = f" ({first.size})" if first.size else ""
    old, new = around(first.old, first.new, max(40, width - len(size) - 7))
    yield one_line(f"    {old} → {new}", (size, "dim"))
    for line in block.evidence[:1]:
        yield _indented(f"{block.effect or 'worst'}: {line}", width)
    if block.number:
        yield one_line((f"    {block.number}", "dim"))
    yield _indented(f"{block.rule.meaning} {block.action} [{block.rule.id}]", width)


def _indented(text: str, width: int, style: str = "", first: str = "    ") -> Text:
    lines = textwrap.wrap(text, width, initial_indent=first, subsequent_indent=4 * " ", break_on_hyphens=False)
    return Text("\n".join(lines), style)


def _end(view: View, width: int) -> Iterator[Text]:
    """What was not compared, which accepted differences are of no use, and costs."""
    yield Text()
    yield from (_indented(each, width, "dim", "limit: ") for each in at_most(view.limits, 5))
    yield from (one_line((f"not seen: {each}", "dim")) for each in at_most(view.unseen, 5))
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
