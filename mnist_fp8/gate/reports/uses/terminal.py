"""What becomes of a user's code in the terminal."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from rich.text import Text

from mnist_fp8.gate.reports.markup import at_most, counted
from mnist_fp8.gate.reports.uses.view import Block, CodeView
from mnist_fp8.gate.reports.uses.words import ORDER, TITLES, Status, joined
from mnist_fp8.gate.uses.judgement import Outcome

BLOCKS = 4
"""Names that break, with all that there is to say; of the others only what happens."""
PLACES = 3
"""Other places of one name where the same happens."""
LINES = 5
"""Names for each other outcome."""
_MARKS: Mapping[Status, tuple[str, str]] = {
    Outcome.BREAKS: ("✗", "bold red"),
    Outcome.BROKEN_ALREADY: ("✗", "red"),
    Outcome.CHANGES: ("~", "yellow"),
    Outcome.UNKNOWN: ("?", "yellow"),
}
"""Symbol and style of what decides something."""


def section(view: CodeView, width: int) -> Iterator[Text]:
    """What becomes of the code: what breaks first, and what was looked at last."""
    yield Text.assemble((view.headline, "bold"), f" {joined(view.range)}")
    breaking = view.of_status(Outcome.BREAKS)
    for block in breaking[:BLOCKS]:
        yield from whole(block, width)
    for status in ORDER:
        blocks = view.of_status(status)[BLOCKS:] if status is Outcome.BREAKS else view.of_status(status)
        if blocks and status in _MARKS:
            yield from _in_short(status, blocks, width)
    yield Text()
    for status in ORDER:
        if status not in _MARKS and status is not Outcome.SAME and (blocks := view.of_status(status)):
            yield _named(status, blocks, width)
    yield indented(view.looked_at, width, "dim", "")


def whole(block: Block, width: int) -> Iterator[Text]:
    """Where it is, the user's own line, what happens, and what to write."""
    fate = block.first
    yield Text()
    symbol, style = _MARKS[fate.outcome]
    yield one_line((f"{symbol} {fate.line.where}", style))
    yield one_line((f"      {fate.line.source}", "cyan"))
    yield indented(joined(fate.happens), width)
    yield indented(joined(fate.write), width, "bold", "  → ")
    if others := block.others(PLACES):
        yield indented(f"also at {others}", width, "dim")


def _in_short(status: Status, blocks: Sequence[Block], width: int) -> Iterator[Text]:
    yield Text()
    yield Text(TITLES[status], _MARKS[status][1])
    for block in blocks[:LINES]:
        more = len(block.fates) - 1
        others = f" The same at {counted(more, 'more place')}." if more else ""
        yield indented(f"{block.first.line.where}: {joined(block.first.happens)}{others}", width)
    if len(blocks) > LINES:
        yield Text(f"    and {counted(len(blocks) - LINES, 'more name')}: see the page", "dim")


def _named(status: Status, blocks: Sequence[Block], width: int) -> Text:
    """What decides nothing: the names."""
    names = dict.fromkeys(block.first.name for block in blocks)
    return indented(f"{TITLES[status]}: {', '.join(at_most([*names], LINES))}", width, "dim", "")


def one_line(*parts: str | tuple[str, str]) -> Text:
    """Text that is cut where the line ends."""
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")


def indented(text: str, width: int, style: str = "", first: str = "    ") -> Text:
    """Text whose first line begins so."""
    return Text(textwrap.fill(text, width, initial_indent=first, subsequent_indent=4 * " "), style)
