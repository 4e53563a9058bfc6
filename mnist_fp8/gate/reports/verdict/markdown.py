"""The verdict on an upgrade as Markdown, for a comment on a pull request."""

import itertools
import re
from collections.abc import Iterator, Sequence

from mnist_fp8 import __version__
from mnist_fp8.gate.reports.markup import at_most, counted, cut, row
from mnist_fp8.gate.reports.markup import bullets as _bullets
from mnist_fp8.gate.reports.markup import code as _code
from mnist_fp8.gate.reports.markup import folded as _folded
from mnist_fp8.gate.reports.markup import words as _words
from mnist_fp8.gate.reports.uses import files as uses
from mnist_fp8.gate.reports.verdict.view import (
    COLUMNS,
    COMMANDS_SHOWN,
    NO_VERDICT_RESTS_ON,
    WORDS,
    Entry,
    Finding,
    Row,
    Shown,
    View,
    accepted,
    api_changes,
    around,
    cost_cells,
    counting,
    counts,
    entries,
    environment,
    headline,
    not_seen,
    noted,
    number,
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
        _markdown_areas(rows(view)),
    ]
    end = [*_markdown_end(view), f"<sub>mnist-fp8 {__version__}</sub>"]
    heading_and_count = 200
    room = MARKDOWN_LIMIT - heading_and_count - sum(len(part) + 2 for part in (*start, *end))
    code = list(uses.markdown(view.code, room // 2)) if view.code else []
    room -= sum(len(part) + 2 for part in code)
    parts = [*start[:2], *code, *start[2:], *_markdown_findings(view, room), *end]
    return "\n\n".join(filter(None, parts)) + "\n"


def _markdown_areas(found: Sequence[Row]) -> str:
    heading = ["area", "what it is", "compared", *COLUMNS]
    body = [
        [each.area, each.what, f"{each.compared:,}", *(f"**{n}**" if n else "" for n in each.numbers)] for each in found
    ]
    return "\n".join([row(heading), row(["---", "---", *["---:"] * (len(heading) - 2)]), *map(row, body)])


def _markdown_findings(view: View, room: int) -> Iterator[str]:
    found = counting(view)
    if found:
        yield "### Differences"
    for shown, finding in enumerate(found):
        block = _markdown_finding(view, finding)
        room -= len(block) + 2
        if room < 0:
            more = sum(len(each.differences) for each in found[shown:])
            yield f"**And {counted(more, 'more difference')}:** see the page; there is no room for them in a comment."
            return
        yield block


def _markdown_finding(view: View, finding: Finding) -> str:
    worst = finding.worst
    old, new = around(worst.old, worst.new, 600)
    facts = [
        f"**Entry:** {_code(worst.key)}",
        f"**Old:** {_code(old)}",
        f"**New:** {_code(new)}",
        *([f"**{finding.size_name.title()}:** {_words(worst.size)}"] if worst.size else []),
        f"**Means:** {_words(finding.rule.meaning)}",
        f"**Do:** {_words(finding.rule.action)}",
        f"**Rule:** `{finding.rule.id}`",
    ]
    shown_again = commands(view, finding)
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", shown_again) or [""]))
    parts = [
        f"#### {_EMOJI[finding.rule.severity]} {_words(cut(finding.title, 150))}",
        _bullets(facts),
        f"{fence}sh\n{shown_again}\n{fence}",
    ]
    others = finding.entries[1:]
    if others:
        heading = ["entry", "old", "new", finding.size_name]
        cells = ([_code(each.key), *_values(each), _words(each.size)] for each in others)
        parts.append(_folded(entries(len(others), "more "), heading, cells, 2_000))
    return "\n\n".join(parts)


def commands(view: View, finding: Finding) -> str:
    """One for each difference, up to a few."""
    keys = dict.fromkeys(shown.entries[0].key for shown in finding.differences)
    shown = [view.command(key) for key in itertools.islice(keys, COMMANDS_SHOWN)]
    more = len(keys) - len(shown)
    return "\n".join([*shown, *([f"# and {more:,} more: any key of the table after --only"] if more else [])])


def _values(entry: Entry) -> list[str]:
    """Old and new value in a table."""
    return list(map(_code, around(entry.old, entry.new, 200)))


def _markdown_end(view: View) -> Iterator[str]:
    said = [*view.limits, *(f"Policy: {each}" for each in view.stale)]
    if said:
        yield "### Limits"
        yield _bullets(_words(cut(each, 500)) for each in at_most(said, 12))
    yield "### What was not looked at"
    yield _bullets(_words(cut(each, 300)) for each in at_most(not_seen(view), 20))
    yield from filter(None, _markdown_folded(view))


def _markdown_folded(view: View) -> Iterator[str]:
    """Tables that most readers need not open."""
    yield _markdown_api(api_changes(view))
    yield _markdown_noted(noted(view))
    yield _markdown_accepted(accepted(view))
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
            *_values(entry),
        ]
        for shown, entry in changes
    )
    return _folded(f"API changes: {counts(word(shown) for shown, _ in changes)}", heading, cells, 10_000)


def _markdown_noted(noted: Sequence[Finding]) -> str:
    heading = ["what", "entry", "old", "new", "means"]
    cells = ([_name(each), _code(each.worst.key), *_values(each.worst), _words(each.rule.meaning)] for each in noted)
    return _folded(f"{number(noted)} noted", heading, cells, 8_000)


def _markdown_accepted(accepted: Sequence[Finding]) -> str:
    heading = ["", "what", "entry", "old", "new", "accepted because"]
    cells = (
        [
            WORDS[each.rule.severity],
            _name(each),
            _code(each.worst.key),
            *_values(each.worst),
            _words(each.first.accepted),
        ]
        for each in accepted
    )
    return _folded(f"{number(accepted)} accepted", heading, cells, 6_000)


def _name(finding: Finding) -> str:
    return _words(cut(finding.title, 150))
