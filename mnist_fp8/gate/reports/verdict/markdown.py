"""The verdict on an upgrade as Markdown, for a comment on a pull request."""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from mnist_fp8 import __version__
from mnist_fp8.gate.reports.markup import counted, cut, literal, row
from mnist_fp8.gate.reports.verdict.view import (
    COLUMNS,
    NO_VERDICT_RESTS_ON,
    WORDS,
    Block,
    Entry,
    Row,
    Shown,
    View,
    api_changes,
    around,
    cost_cells,
    counts,
    environment,
    headline,
    not_seen,
    rows,
    scope,
    sentence,
    stack,
    word,
)
from mnist_fp8.gate.verdict.comparison import Comparison, UpgradeVerdict
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


def markdown(comparison: Comparison) -> str:
    """A comment for a pull request."""
    view = View.of(comparison)
    verdict = view.verdict
    kind, colon, seen = scope(view).partition(":")
    start = [
        MARKER,
        f"## {_EMOJI[verdict]} {verdict.value}: {_words(headline(view))}",
        f"{_words(sentence(view))} **{kind}**{colon}{_words(seen)}.",
        _bullets(f"**Not verified:** {_words(cut(each, 500))}" for each in at_most(view.unverified, 12)),
        f"<sub>{_words(stack(view))}</sub>",
    ]
    end = [_markdown_areas(rows(view)), *_markdown_end(view), f"<sub>mnist-fp8 {__version__}</sub>"]
    heading_and_count = 200
    room = MARKDOWN_LIMIT - heading_and_count - sum(len(part) + 2 for part in (*start, *end))
    return "\n\n".join(filter(None, [*start, *_markdown_blocks(view, room), *end])) + "\n"


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
        f"**Diverges first:** {_code(first.key)}",
        f"**Old:** {_code(old)}",
        f"**New:** {_code(new)}",
        *([f"**{block.size_name.title()}:** {_words(first.size)}"] if first.size else []),
        *(f"**{(block.effect or 'worst').title()}:** {_words(cut(each, 600))}" for each in block.evidence),
        f"**Means:** {_words(block.rule.meaning)}",
        f"**Do:** {_words(block.rule.action)}",
        f"**Rule:** `{block.rule.id}`",
    ]
    shown_again = "\n".join(map(view.command, block.keys))
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", shown_again) or [""]))
    parts = [
        f"#### {_EMOJI[block.rule.severity]} {_name(block)}",
        _bullets(facts),
        f"{fence}sh\n{shown_again}\n{fence}",
    ]
    if block.number:
        others = _bullets(
            f"{_name(part)}: {_words(part.rule.meaning)} {_words(part.rule.action)} `{part.rule.id}`"
            for part in block.others
        )
        cells = (
            [_code(key), _words(what), *_values(old, new), _words(size)] for key, what, old, new, size in block.rows
        )
        parts.append(_folded(block.number, ["entry", "what", "old", "new", block.size_name], cells, 2_000, others))
    return "\n\n".join(parts)


def _values(old: str, new: str) -> list[str]:
    """Old and new value in a table."""
    return list(map(_code, around(old, new, 200)))


def _words(text: str) -> str:
    """Text that is taken as it is, in the cell of a table, too: it mentions nobody, and no pull request."""
    return re.sub(r"([@#])(?=\w)", r"\1<!-- -->", literal(text))


def _code(text: str) -> str:
    """The same for a value; a span of code cannot hold every text."""
    return f"<code>{literal(text)}</code>" if re.search(r"[`|]", text) else f"`{text}`"


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {each}" for each in lines)


def _folded(title: str, heading: Sequence[str], cells: Iterable[Sequence[str]], room: int, note: str = "") -> str:
    """A table that is opened by a click and says how many rows had no room; nothing without rows."""
    body = [row(each) for each in cells]
    if not body:
        return ""
    kept = list(itertools.takewhile(lambda end: end <= room, itertools.accumulate(len(each) + 1 for each in body)))
    lines = [row(heading), row(["---"] * len(heading)), *body[: len(kept)]]
    more = len(body) - len(kept)
    parts = [f"<details><summary>{title}</summary>", note, "\n".join(lines) if kept else ""]
    parts += [f"And {more:,} more." if more else "", "</details>"]
    return "\n\n".join(filter(None, parts))


def _markdown_end(view: View) -> Iterator[str]:
    said = [*view.limits, *(f"Policy: {each}" for each in view.stale)]
    if said:
        yield "### Limits"
        yield _bullets(_words(cut(each, 500)) for each in at_most(said, 12))
    yield "### What was not looked at"
    yield _bullets(_words(cut(each, 300)) for each in at_most(not_seen(view), 20))
    yield from filter(None, _markdown_folded(view))


def at_most(lines: Sequence[str], number: int) -> list[str]:
    """The first lines, and how many more there are."""
    more = len(lines) - number
    return [*lines[:number], f"and {more:,} more"] if more > 0 else list(lines)


def _markdown_folded(view: View) -> Iterator[str]:
    """Tables that most readers need not open."""
    yield _markdown_api(api_changes(view))
    yield _markdown_noted(view.noted)
    yield _markdown_accepted(view.accepted)
    costs = (list(map(_words, cost_cells(cost))) for cost in view.costs)
    yield _folded("Costs", ["", "old", "new", "change", "repetitions"], costs, 4_000, NO_VERDICT_RESTS_ON)
    versions = (
        [f"**{_words(name)}**" if old != new else _words(name), _code(cut(old, 150)), _code(cut(new, 150))]
        for name, old, new in environment(view)
    )
    yield _folded("Environment, with what differs in bold", ["", "old", "new"], versions, 5_000)


def _markdown_api(changes: Sequence[tuple[Shown, Entry]]) -> str:
    heading = ["", "change", "name", "parameter", "old", "new"]
    cells = (
        [
            word(shown),
            shown.rule.title,
            _code(entry.key.removeprefix("api/")),
            _words(cut(entry.size, 200)),
            *_values(entry.old, entry.new),
        ]
        for shown, entry in changes
    )
    return _folded(f"API changes: {counts(word(shown) for shown, _ in changes)}", heading, cells, 10_000)


def _markdown_noted(noted: Sequence[Block]) -> str:
    heading = ["what", "entry", "old", "new", "means"]
    cells = ([*_cells(each), _words(each.rule.meaning)] for each in noted)
    return _folded(f"{counted(len(noted), 'difference')} noted", heading, cells, 8_000)


def _markdown_accepted(accepted: Sequence[Block]) -> str:
    heading = ["", "what", "entry", "old", "new", "accepted because"]
    cells = ([WORDS[each.rule.severity], *_cells(each), _words(each.accepted)] for each in accepted)
    return _folded(f"{counted(len(accepted), 'difference')} accepted", heading, cells, 6_000)


def _cells(block: Block) -> list[str]:
    """Title, and the first entry."""
    first = block.first
    return [_name(block), _code(first.key), *_values(first.old, first.new)]


def _name(named: Block | Shown) -> str:
    return _words(cut(named.title, 150))
