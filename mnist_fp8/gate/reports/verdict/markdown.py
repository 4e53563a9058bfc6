"""The verdict on an upgrade as Markdown, for a comment on a pull request."""

import re
from collections.abc import Iterable, Iterator, Sequence

from mnist_fp8 import __version__
from mnist_fp8.gate.reports.markup import at_most, bullets, code, counted, cut, folded, row, words
from mnist_fp8.gate.reports.uses import files as uses
from mnist_fp8.gate.reports.verdict.conditions import environment, not_seen, scope, stack
from mnist_fp8.gate.reports.verdict.costs import NO_VERDICT_RESTS_ON, cost_cells
from mnist_fp8.gate.reports.verdict.slices import Slice
from mnist_fp8.gate.reports.verdict.view import (
    COLUMNS,
    WORDS,
    Block,
    Entry,
    Row,
    Shown,
    View,
    api_changes,
    around,
    counts,
    headline,
    rows,
    sentence,
    word,
)
from mnist_fp8.gate.verdict.comparison import UpgradeVerdict
from mnist_fp8.gate.verdict.rules.rule import Severity

MARKER = "<!-- mnist-fp8 upgrade -->"
"""First line of the Markdown, by which a program finds the comment again to replace it."""
MARKDOWN_LIMIT = 60_000
"""Characters. GitHub takes no comment of more than 65,536."""
_EMOJI = {
    UpgradeVerdict.SAFE: "✅",
    UpgradeVerdict.CHANGED: "⚠️",
    UpgradeVerdict.BROKEN: "❌",
    UpgradeVerdict.UNVERIFIED: "❔",
    UpgradeVerdict.PARTIAL: "◑",
    Severity.BREAKS: "❌",
    Severity.CHANGES: "⚠️",
}


def markdown(view: View) -> str:
    """A comment for a pull request."""
    verdict = view.verdict
    kind, colon, seen = scope(view).partition(":")
    start = [
        MARKER,
        f"## {_EMOJI[verdict]} {verdict.value}: {words(headline(view))}",
        f"{words(sentence(view))} **{kind}**{colon}{words(seen)}.",
        bullets(f"**Not verified:** {words(cut(each, 500))}" for each in at_most(view.unverified, 12)),
        f"<sub>{words(stack(view))}</sub>",
    ]
    end = [
        *map(_markdown_slice, view.slices),
        _markdown_areas(rows(view)),
        *_markdown_end(view),
        f"<sub>mnist-fp8 {__version__}</sub>",
    ]
    heading_and_count = 200
    room = MARKDOWN_LIMIT - heading_and_count - sum(len(part) + 2 for part in (*start, *end))
    of_code = list(uses.markdown(view.code, room // 2)) if view.code else []
    room -= sum(len(part) + 2 for part in of_code)
    parts = [*start[:2], *of_code, *start[2:], *_markdown_blocks(view, room), *end]
    return "\n\n".join(filter(None, parts)) + "\n"


def _markdown_areas(found: Sequence[Row]) -> str:
    heading = ["area", "what it is", "compared", *COLUMNS]
    body = [
        [each.area, each.what, f"{each.compared:,}", *(f"**{n}**" if n else "" for n in each.numbers)] for each in found
    ]
    table = [row(heading), row(["---", "---", *["---:"] * (len(heading) - 2)]), *map(row, body)]
    return "\n".join(["### What was compared", "", *table])


def _markdown_blocks(view: View, room: int) -> Iterator[str]:
    found = view.counting
    if found:
        yield "### Differences by their root"
    for index, block in enumerate(found):
        text = _markdown_block(view, block)
        room -= len(text) + 2
        if room < 0:
            more = counted(len(found) - index, "more difference")
            yield f"**And {more}:** see the page; there is no room for them in a comment."
            return
        yield text


def _markdown_block(view: View, block: Block) -> str:
    first = block.first
    old, new = around(first.old, first.new, 600)
    facts = [
        f"**Diverges first:** {code(first.key)}",
        f"**Old:** {code(old)}",
        f"**New:** {code(new)}",
        *([f"**{block.size_name.title()}:** {words(first.size)}"] if first.size else []),
        *(f"**{(block.effect or 'worst').title()}:** {words(cut(each, 600))}" for each in block.evidence),
        f"**Means:** {words(block.rule.meaning)}",
        f"**Do:** {words(block.action)}",
        f"**Rule:** `{block.rule.id}`",
    ]
    parts = [
        f"#### {_EMOJI[block.rule.severity]} {_name(block)}",
        bullets(facts),
        _shell([view.command(key) for key in block.keys]),
    ]
    if block.number:
        others = bullets(
            f"{_name(part)}: {words(part.rule.meaning)} {words(part.action)} `{part.rule.id}`" for part in block.others
        )
        cells = ([code(key), words(what), *_values(old, new), words(size)] for key, what, old, new, size in block.rows)
        parts.append(folded(block.number, ["entry", "what", "old", "new", block.size_name], cells, 2_000, others))
    return "\n\n".join(parts)


def _shell(commands: Iterable[str]) -> str:
    """Commands, whatever is in them."""
    lines = "\n".join(commands)
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", lines) or [""]))
    return f"{fence}sh\n{lines}\n{fence}"


def _values(old: str, new: str) -> list[str]:
    """Old and new value in a table."""
    return list(map(code, around(old, new, 200)))


def _markdown_slice(found: Slice) -> str:
    """The script of the first layer that diverges in a mode, or why there is none."""
    title = f"### The first layer that diverges in {words(found.mode)}: {words(cut(found.layer, 150))}"
    if found.problem:
        return f"{title}\n\nNo script could be made of it: {words(cut(found.problem, 300))}."
    how = f"It alone is in {code(found.file)}, beside the report. Run it under both, and compare what they print:"
    return f"{title}\n\n{how}\n\n{_shell(found.commands)}"


def _markdown_end(view: View) -> Iterator[str]:
    said = [*view.limits, *(f"Policy: {each}" for each in view.stale)]
    if said:
        yield "### Limits"
        yield bullets(words(cut(each, 500)) for each in at_most(said, 12))
    yield "### What was not looked at"
    yield bullets(words(cut(each, 300)) for each in at_most(not_seen(view), 20))
    yield from filter(None, _markdown_folded(view))


def _markdown_folded(view: View) -> Iterator[str]:
    """Tables that most readers need not open."""
    yield _markdown_api(api_changes(view))
    yield _markdown_noted(view.noted)
    yield _markdown_accepted(view.accepted)
    costs = (list(map(words, cost_cells(cost))) for cost in view.costs)
    yield folded("Costs", ["", "old", "new", "change", "repetitions"], costs, 4_000, NO_VERDICT_RESTS_ON)
    versions = (
        [f"**{words(name)}**" if old != new else words(name), code(cut(old, 150)), code(cut(new, 150))]
        for name, old, new in environment(view)
    )
    yield folded("Environment, with what differs in bold", ["", "old", "new"], versions, 5_000)


def _markdown_api(changes: Sequence[tuple[Shown, Entry]]) -> str:
    heading = ["", "change", "name", "parameter", "old", "new"]
    cells = (
        [
            word(shown),
            shown.rule.title,
            code(entry.key.removeprefix("api/")),
            words(cut(entry.size, 200)),
            *_values(entry.old, entry.new),
        ]
        for shown, entry in changes
    )
    return folded(f"API changes: {counts(word(shown) for shown, _ in changes)}", heading, cells, 10_000)


def _markdown_noted(noted: Sequence[Block]) -> str:
    heading = ["what", "entry", "old", "new", "means"]
    cells = ([*_cells(each), words(each.rule.meaning)] for each in noted)
    return folded(f"{counted(len(noted), 'difference')} noted", heading, cells, 8_000)


def _markdown_accepted(accepted: Sequence[Block]) -> str:
    heading = ["", "what", "entry", "old", "new", "accepted because"]
    cells = ([WORDS[each.rule.severity], *_cells(each), words(each.accepted)] for each in accepted)
    return folded(f"{counted(len(accepted), 'difference')} accepted", heading, cells, 6_000)


def _cells(block: Block) -> list[str]:
    """Title, and the first entry."""
    first = block.first
    return [_name(block), code(first.key), *_values(first.old, first.new)]


def _name(named: Block | Shown) -> str:
    return words(cut(named.title, 150))
