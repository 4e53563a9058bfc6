"""Render the verdict on an upgrade: terminal, Markdown, HTML, JUnit XML and JSON. Nothing here judges or measures."""

import dataclasses
import itertools
import json
import math
import re
import shlex
import statistics
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from mnist_fp8 import __version__, changes
from mnist_fp8.changes import Detail
from mnist_fp8.compare import Comparison, CostChange, UpgradeVerdict
from mnist_fp8.config import RunKind
from mnist_fp8.judgement import Difference
from mnist_fp8.meaning import Severity
from mnist_fp8.measurements import AREAS, Curves, Record, Value
from mnist_fp8.records import Verdict
from mnist_fp8.report import counted, literal, row, template

SCHEMA_VERSION = 1
"""Of the JSON; raised when a field changes its meaning."""
MARKER = "<!-- mnist-fp8 upgrade -->"
"""First line of the Markdown, by which a program finds the comment again to replace it."""
MARKDOWN_LIMIT = 60_000
"""Characters. GitHub takes no comment of more than 65,536."""
SCREEN = 44
"""Lines of a terminal."""
TITLES = 6
"""Lines of them for differences of which there is no room for more than the title."""
ENTRIES_SHOWN = 100
"""Entries of a difference on the page; the others are counted."""
COMMANDS_SHOWN = 5
"""Commands under one heading; the others are counted."""
_UPGRADED = {"jax": "JAX", "flax": "Flax"}
NO_VERDICT_RESTS_ON = "No verdict rests on costs: they come from a few repetitions on one machine."
CANNOT_SEE = {
    RunKind.HOST: "CUDA kernels, cuBLAS, the FFI and recipes of Blackwell are not seen: a GPU has to verify those",
    RunKind.KERNEL: "other kinds of GPU are not seen",
}
_SYMBOLS = {Severity.BREAKS: "✗", Severity.CHANGES: "~", Severity.NOTE: "·"}
_WORDS = {Severity.BREAKS: "breaking", Severity.CHANGES: "changed", Severity.NOTE: "noted"}
_STYLES = {
    UpgradeVerdict.SAFE: "bold white on green",
    UpgradeVerdict.CHANGED: "bold black on yellow",
    UpgradeVerdict.BROKEN: "bold white on red",
    UpgradeVerdict.UNVERIFIED: "bold black on white",
    Severity.BREAKS: "bold red",
    Severity.CHANGES: "yellow",
    Severity.NOTE: "dim",
}
COLUMNS = {"breaking": "bold red", "changed": "yellow", "noted": "dim", "accepted": "dim"}
"""What differences are counted as."""
_EMOJI = {
    UpgradeVerdict.SAFE: "✅",
    UpgradeVerdict.CHANGED: "⚠️",
    UpgradeVerdict.BROKEN: "❌",
    UpgradeVerdict.UNVERIFIED: "❔",
    Severity.BREAKS: "❌",
    Severity.CHANGES: "⚠️",
}
_SIZE = {"api": "parameter", "claims": "test"}
"""What the size of a difference is in areas where it is no size."""
_STACK = {"jax": "JAX", "flax": "Flax", "python": "Python", "device": "on"}


# --- what is said in every form --------------------------------------------------------------------------------------


def clean(text: str) -> str:
    """One line without characters that do something to a terminal, or that XML has no way to write."""
    return "".join(each if each.isprintable() else "�" for each in " ".join(text.split()))


def _cleaned(comparison: Comparison) -> Comparison:
    """The same with `clean` words, so that no form has to think of it."""
    return dataclasses.replace(
        comparison,
        old=_clean_record(comparison.old),
        new=_clean_record(comparison.new),
        differences=tuple(map(_clean_difference, comparison.differences)),
        limits=tuple(map(clean, comparison.limits)),
        unverified=tuple(map(clean, comparison.unverified)),
        stale=tuple(map(clean, comparison.stale)),
    )


def _clean_record(record: Record) -> Record:
    environment = {clean(name): clean(value) for name, value in record.environment.items()}
    return dataclasses.replace(record, te=clean(record.te), environment=environment)


def _clean_difference(difference: Difference) -> Difference:
    return Difference(
        difference.area,
        clean(difference.title),
        difference.severity,
        tuple(map(_clean_detail, difference.details)),
        clean(difference.means),
        clean(difference.do),
        clean(difference.accepted),
    )


def _clean_detail(detail: Detail) -> Detail:
    old, new = (clean(each) or "none" for each in (detail.old, detail.new))
    return Detail(clean(detail.key), old, new, clean(detail.size), detail.weight)


def headline(comparison: Comparison) -> str:
    """What was compared."""
    old, new = comparison.old, comparison.new
    pairs = [(title, old.environment.get(name, ""), new.environment.get(name, "")) for name, title in _UPGRADED.items()]
    others = ", ".join(f"{title} {before} → {after}" for title, before, after in pairs if before != after)
    if old.name == new.name and others:  # another JAX or Flax for the same one
        return f"{others} with Transformer Engine {old.name}"
    return f"Transformer Engine {old.name} → {new.name}"


def sentence(comparison: Comparison) -> str:
    """What the verdict means."""
    breaking, changed = (
        sum(each.severity is severity for each in comparison.differences if each.counts)
        for severity in (Severity.BREAKS, Severity.CHANGES)
    )
    match comparison.verdict:
        case UpgradeVerdict.SAFE:
            said = f"Nothing that a user can see differs beyond noise, in {_compared(comparison)}."
        case UpgradeVerdict.CHANGED:
            said = f"Nothing breaks, but {counted(changed, 'difference')} can be seen: look at each before you upgrade."
        case UpgradeVerdict.BROKEN:
            also = f" {changed:,} more can be seen." if changed else ""
            said = f"{counted(breaking, 'difference')} can break what works today: resolve before you upgrade.{also}"
        case UpgradeVerdict.UNVERIFIED:
            said = "Too little is known for a verdict; this is not a pass."
    words = [word(each) for each in comparison.differences if not each.counts]
    return f"{said} Not counted: {counts(words)}." if words else said


def _compared(comparison: Comparison) -> str:
    areas = [area for area in comparison.compared if area != "costs"]
    number = sum(comparison.compared[area] for area in areas)
    return f"{number:,} entries of {counted(len(areas), 'area')}"


def scope(comparison: Comparison) -> str:
    """The kind of run, and what that cannot see."""
    run = comparison.old.run or comparison.new.run
    if not run:
        return "The kind of run is not known: neither of the two came that far"
    kind = RunKind(run)
    # The sentence goes on with what is not seen: the description's own words about it would say it twice.
    said = kind.description.partition(";")[0]
    return f"{said[0].upper()}{said[1:]}; {CANNOT_SEE[kind]}"


def stack(comparison: Comparison) -> str:
    """What both ran with, and where they differ."""
    return ", ".join(
        f"{_STACK[name]} {old}" if old == new else f"{_STACK[name]} {old or 'unknown'} → {new or 'unknown'}"
        for name, old, new in environment(comparison)
        if name in _STACK
    )


def environment(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Name, old and new value of everything that a record says of its environment."""
    old, new = comparison.old.environment, comparison.new.environment
    return [(name, old.get(name, ""), new.get(name, "")) for name in dict.fromkeys([*old, *new])]


@dataclasses.dataclass(frozen=True)
class Row:
    """An area: what it is, how many entries were compared, and how many differences there are, by `COLUMNS`."""

    area: str
    what: str
    compared: int
    numbers: tuple[int, ...]


def rows(comparison: Comparison) -> list[Row]:
    """All areas that were compared or have a difference."""
    found = []
    for area, what in AREAS.items():
        words = [word(difference) for difference in comparison.of(area)]
        if area != "costs" and (words or area in comparison.compared):
            numbers = tuple(words.count(name) for name in COLUMNS)
            found.append(Row(area, what, comparison.compared.get(area, 0), numbers))
    return found


def word(difference: Difference) -> str:
    """What a difference is counted as: one of `COLUMNS`."""
    return "accepted" if difference.accepted else _WORDS[difference.severity]


@dataclasses.dataclass(frozen=True)
class Finding:
    """Differences of one area that mean the same."""

    differences: tuple[Difference, ...]

    @property
    def first(self) -> Difference:
        """The one that stands for all."""
        return self.differences[0]

    @property
    def title(self) -> str:
        """Area and title, and how many more there are."""
        more = len(self.differences) - 1
        return f"{self.first.area}: {self.first.title}{f', and {more:,} more like it' if more else ''}"

    @property
    def worst(self) -> Detail:
        """The entry to show."""
        return self.first.details[0]

    @property
    def entries(self) -> list[Detail]:
        """All entries."""
        return [detail for each in self.differences for detail in each.details]

    @property
    def number(self) -> str:
        """How many entries there are, if that is not said yet."""
        said = len(self.entries) == 1 or self.title.startswith(f"{self.first.area}: {len(self.entries)} ")
        return "" if said else entries(len(self.entries))

    @property
    def size_name(self) -> str:
        """What the size of its entries is."""
        return _SIZE.get(self.first.area, "size")


def findings(differences: Iterable[Difference]) -> list[Finding]:
    """Differences of an area with the same meaning together, the worst of them first."""
    groups: dict[tuple[object, ...], list[Difference]] = {}
    for each in differences:
        groups.setdefault((each.area, each.severity, each.means, each.do, each.accepted), []).append(each)
    return [Finding(tuple(sorted(group, key=lambda each: -abs(each.details[0].weight)))) for group in groups.values()]


def _counting(comparison: Comparison) -> list[Finding]:
    return findings(each for each in comparison.differences if each.counts)


def _noted(comparison: Comparison) -> list[Finding]:
    return findings(each for each in comparison.differences if each.severity is Severity.NOTE and not each.accepted)


def _accepted(comparison: Comparison) -> list[Finding]:
    return findings(each for each in comparison.differences if each.accepted)


def cut(text: str, room: int) -> str:
    """A text in that many characters."""
    return text if len(text) <= room else text[: room - 1] + "…"


def apart(old: str, new: str) -> tuple[str, str, str, str]:
    """Where two texts differ: their common start, the rest of the old and of the new one, their common end."""
    one, other = (re.findall(r"[\w.+-]+|\s+|.", each) for each in (old, new))
    start = _alike(one, other)
    end = _alike(one[start:][::-1], other[start:][::-1])
    old_rest, new_rest = ("".join(each[start : len(each) - end]) for each in (one, other))
    return "".join(one[:start]), old_rest, new_rest, "".join(one[len(one) - end :])


def _alike(one: Sequence[str], other: Sequence[str]) -> int:
    """How many words two texts have in common at their start."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(one), len(other)))


def around(old: str, new: str, room: int) -> tuple[str, str]:
    """Two texts in that many characters together, so that where they differ is seen."""
    if len(old) + len(new) <= room:
        return old, new
    start, old_rest, new_rest, end = apart(old, new)
    if len(start) > room // 6:
        start = "…" + start[len(start) - room // 6 + 1 :]
    one, other = (start + rest + end for rest in (old_rest, new_rest))
    half = room // 2
    return cut(one, max(half, room - len(other))), cut(other, max(half, room - len(one)))


def amount(value: float, unit: str) -> str:
    """A time or an amount of memory, as a person reads it."""
    if unit == "bytes":
        return f"{value / 2**20:,.1f} MiB"
    for least, factor, name in ((1.0, 1.0, "s"), (1e-3, 1e3, "ms"), (0.0, 1e6, "µs")):
        if unit == "s" and value >= least:
            return f"{value * factor:.3g} {name}"
    return f"{changes.number(value)} {unit}"


def cost_cells(cost: CostChange) -> list[str]:
    """Name, old and new amount, the change, and how far repetitions lie apart."""
    amounts = (amount(each, cost.unit) for each in (cost.old, cost.new))
    changed = f"{round(100 * (cost.ratio - 1)):+,}%" if math.isfinite(cost.ratio) else "unknown"
    apart = f"± {cost.spread:.0%}" if cost.repetitions > 1 else "measured once"
    return [clean(cost.name), *amounts, changed, apart]


def entries(number: int, more: str = "") -> str:
    """``1 entry``, ``2 more entries``."""
    return f"{number:,} {more}{'entry' if number == 1 else 'entries'}"


@dataclasses.dataclass(frozen=True)
class ApiChange:
    """A public name that differs."""

    difference: Difference
    detail: Detail

    @property
    def word(self) -> str:
        """What it is counted as."""
        return word(self.difference)

    @property
    def title(self) -> str:
        """What happened to the name, without how often that happened."""
        return re.sub(r"^\d+ \S ", "", self.difference.title)

    @property
    def name(self) -> str:
        """The public name."""
        return self.detail.key.removeprefix("api/")


def api_changes(comparison: Comparison) -> list[ApiChange]:
    """All names that differ, those that break first."""
    return [ApiChange(each, detail) for each in comparison.of("api") for detail in each.details]


def counts(words: Iterable[str]) -> str:
    """How often each word is there, such as ``3 breaking, 20 noted``."""
    return ", ".join(f"{number:,} {word}" for word, number in Counter(words).items())


# --- terminal --------------------------------------------------------------------------------------------------------


def terminal(comparison: Comparison) -> Iterator[RenderableType]:
    """The verdict on one screen."""
    yield _Screen(_cleaned(comparison))


@dataclasses.dataclass(frozen=True)
class _Screen:
    """As many differences as fit on a screen, the worst first."""

    comparison: Comparison

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render for a terminal of that width."""

        def height(parts: Iterable[RenderableType]) -> int:
            return sum(len(console.render_lines(part, options, pad=False)) for part in parts)

        found = _counting(self.comparison)
        head = [*_head(self.comparison, options.max_width), *(_how_to_see(self.comparison) if found else ())]
        end = list(_end(self.comparison, options.max_width))
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


def _head(comparison: Comparison, width: int) -> Iterator[RenderableType]:
    verdict = comparison.verdict
    yield Text.assemble((f" {verdict.value} ", _STYLES[verdict]), " ", (headline(comparison), "bold"))
    yield Text(sentence(comparison))
    yield from (_indented(each, width, "bold", "not verified: ") for each in _at_most(comparison.unverified, 5))
    kind, colon, seen = scope(comparison).partition(":")
    yield Text.assemble((kind, "bold"), f"{colon}{seen}.")
    yield Text(stack(comparison), "dim")
    if found := rows(comparison):
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


def _how_to_see(comparison: Comparison) -> Iterator[RenderableType]:
    yield Text()
    yield Text.assemble(("Differences, the worst first.", "bold"), " To measure one again:")
    yield Text(f"    {comparison.command('KEY')}")


def _lines(finding: Finding, width: int) -> Iterator[Text]:
    """Title, the worst entry, what it means and what to do, and its key."""
    severity, worst = finding.first.severity, finding.worst
    yield _one_line(
        (f"{_SYMBOLS[severity]} {severity.value} ", _STYLES[severity]),
        (finding.title, "bold"),
        (f", {finding.number}" if finding.number else "", "dim"),
    )
    size = f" ({worst.size})" if worst.size else ""
    old, new = around(worst.old, worst.new, max(40, width - len(size) - 7))
    yield _one_line(f"    {old} → {new}", (size, "dim"))
    yield _indented(f"{finding.first.means} {finding.first.do}", width)
    yield Text(f"    --only {shlex.quote(worst.key)}", "dim", overflow="fold")


def _one_line(*parts: str | tuple[str, str]) -> Text:
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")


def _indented(text: str, width: int, style: str = "", first: str = "    ") -> Text:
    return Text(textwrap.fill(text, width, initial_indent=first, subsequent_indent=4 * " "), style)


def _end(comparison: Comparison, width: int) -> Iterator[Text]:
    """What was not compared, which accepted differences are of no use, and costs."""
    yield Text()
    yield from (_indented(each, width, "dim", "limit: ") for each in _at_most(comparison.limits, 5))
    yield from (_indented(each, width, "yellow", "policy: ") for each in _at_most(comparison.stale, 5))
    if comparison.costs:
        yield _indented(_cost_line(comparison.costs), width, "dim", "costs ")


def _cost_line(costs: Sequence[CostChange]) -> str:
    """The largest change among those that repetitions do not explain."""
    start = "(no verdict rests on them):"
    beyond = [cost for cost in costs if cost.repetitions > 1 and abs(cost.ratio - 1) > cost.spread]
    if not beyond:
        return f"{start} none of {len(costs)} changed by more than repetitions do"
    told = "{} {} → {}, {}, repetitions {}".format(*cost_cells(max(beyond, key=lambda cost: abs(cost.ratio - 1))))
    return f"{start} {told}{f'; the largest change of {len(costs)}' if len(costs) > 1 else ''}"


# --- Markdown --------------------------------------------------------------------------------------------------------


def markdown(comparison: Comparison) -> str:
    """A comment for a pull request."""
    comparison = _cleaned(comparison)
    verdict = comparison.verdict
    kind, colon, seen = scope(comparison).partition(":")
    start = [
        MARKER,
        f"## {_EMOJI[verdict]} {verdict.value}: {_words(headline(comparison))}",
        f"{_words(sentence(comparison))} **{kind}**{colon}{_words(seen)}.",
        _bullets(f"**Not verified:** {_words(cut(each, 500))}" for each in comparison.unverified),
        f"<sub>{_words(stack(comparison))}</sub>",
        _markdown_areas(rows(comparison)),
    ]
    end = [*_markdown_end(comparison), f"<sub>mnist-fp8 {__version__}</sub>"]
    heading_and_count = 200
    room = MARKDOWN_LIMIT - heading_and_count - sum(len(part) + 2 for part in (*start, *end))
    return "\n\n".join(filter(None, [*start, *_markdown_findings(comparison, room), *end])) + "\n"


def _markdown_areas(found: Sequence[Row]) -> str:
    heading = ["area", "what it is", "compared", *COLUMNS]
    body = [
        [each.area, each.what, f"{each.compared:,}", *(f"**{n}**" if n else "" for n in each.numbers)] for each in found
    ]
    return "\n".join([row(heading), row(["---", "---", *["---:"] * (len(heading) - 2)]), *map(row, body)])


def _markdown_findings(comparison: Comparison, room: int) -> Iterator[str]:
    found = _counting(comparison)
    if found:
        yield "### Differences"
    for shown, finding in enumerate(found):
        block = _markdown_finding(comparison, finding)
        room -= len(block) + 2
        if room < 0:
            more = sum(len(each.differences) for each in found[shown:])
            yield f"**And {counted(more, 'more difference')}:** see the page; there is no room for them in a comment."
            return
        yield block


def _markdown_finding(comparison: Comparison, finding: Finding) -> str:
    first, worst = finding.first, finding.worst
    old, new = around(worst.old, worst.new, 600)
    facts = [
        f"**Entry:** {_code(worst.key)}",
        f"**Old:** {_code(old)}",
        f"**New:** {_code(new)}",
        *([f"**{finding.size_name.title()}:** {_words(worst.size)}"] if worst.size else []),
        f"**Means:** {_words(first.means)}",
        f"**Do:** {_words(first.do)}",
    ]
    commands = _commands(comparison, finding)
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", commands) or [""]))
    parts = [
        f"#### {_EMOJI[first.severity]} {_words(cut(finding.title, 150))}",
        _bullets(facts),
        f"{fence}sh\n{commands}\n{fence}",
    ]
    others = finding.entries[1:]
    if others:
        heading = ["entry", "old", "new", finding.size_name]
        cells = ([_code(each.key), *_values(each), _words(each.size)] for each in others)
        parts.append(_folded(entries(len(others), "more "), heading, cells, 2_000))
    return "\n\n".join(parts)


def _commands(comparison: Comparison, finding: Finding) -> str:
    """One for each difference, up to a few."""
    keys = dict.fromkeys(each.details[0].key for each in finding.differences)
    shown = [comparison.command(key) for key in itertools.islice(keys, COMMANDS_SHOWN)]
    more = len(keys) - len(shown)
    return "\n".join([*shown, *([f"# and {more:,} more: any key of the table after --only"] if more else [])])


def _values(detail: Detail) -> list[str]:
    """Old and new value in a table."""
    return list(map(_code, around(detail.old, detail.new, 200)))


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


def _markdown_end(comparison: Comparison) -> Iterator[str]:
    said = [*comparison.limits, *(f"Policy: {each}" for each in comparison.stale)]
    if said:
        yield "### Limits"
        yield _bullets(_words(cut(each, 500)) for each in _at_most(said, 12))
    yield from filter(None, _markdown_folded(comparison))


def _at_most(lines: Sequence[str], number: int) -> list[str]:
    more = len(lines) - number
    return [*lines[:number], f"and {more:,} more"] if more > 0 else list(lines)


def _markdown_folded(comparison: Comparison) -> Iterator[str]:
    """Tables that most readers need not open."""
    yield _markdown_api(api_changes(comparison))
    yield _markdown_noted(_noted(comparison))
    yield _markdown_accepted(_accepted(comparison))
    costs = (list(map(_words, cost_cells(cost))) for cost in comparison.costs)
    yield _folded("Costs", ["", "old", "new", "change", "repetitions"], costs, 4_000, NO_VERDICT_RESTS_ON)
    versions = (
        [f"**{_words(name)}**" if old != new else _words(name), _code(cut(old, 150)), _code(cut(new, 150))]
        for name, old, new in environment(comparison)
    )
    yield _folded("Environment, with what differs in bold", ["", "old", "new"], versions, 5_000)


def _markdown_api(changes: Sequence[ApiChange]) -> str:
    heading = ["", "change", "name", "parameter", "old", "new"]
    cells = (
        [each.word, _words(each.title), _code(each.name), _words(cut(each.detail.size, 200)), *_values(each.detail)]
        for each in changes
    )
    return _folded(f"API changes: {counts(each.word for each in changes)}", heading, cells, 10_000)


def _markdown_noted(noted: Sequence[Finding]) -> str:
    heading = ["what", "entry", "old", "new", "means"]
    cells = ([_name(each), _code(each.worst.key), *_values(each.worst), _words(each.first.means)] for each in noted)
    return _folded(f"{_number(noted)} noted", heading, cells, 8_000)


def _markdown_accepted(accepted: Sequence[Finding]) -> str:
    heading = ["", "what", "entry", "old", "new", "accepted because"]
    cells = (
        [
            _WORDS[each.first.severity],
            _name(each),
            _code(each.worst.key),
            *_values(each.worst),
            _words(each.first.accepted),
        ]
        for each in accepted
    )
    return _folded(f"{_number(accepted)} accepted", heading, cells, 6_000)


def _name(finding: Finding) -> str:
    return _words(cut(finding.title, 150))


def _number(found: Sequence[Finding]) -> str:
    return counted(sum(len(each.differences) for each in found), "difference")


# --- HTML ------------------------------------------------------------------------------------------------------------


def html(comparison: Comparison) -> str:
    """The whole page as one HTML file that needs nothing else."""
    from mnist_fp8 import plots  # noqa: PLC0415 - needed for the page only

    comparison = _cleaned(comparison)
    old, new = comparison.old, comparison.new
    pictures = {
        "Training": plots.training_curves,
        "Scales and amax, step by step": plots.trajectories,
        "Errors by shape and range of values": plots.errors_by_case,
        "How large errors are": plots.error_distributions,
    }
    return template("verdict.html").render(
        comparison=comparison,
        verdict=comparison.verdict.value,
        headline=headline(comparison),
        sentence=sentence(comparison),
        scope=scope(comparison),
        stack=stack(comparison),
        limits=comparison.limits,
        columns=list(COLUMNS),
        rows=rows(comparison),
        counting=_counting(comparison),
        noted=_noted(comparison),
        accepted=_accepted(comparison),
        pictures={title: panels for title, draw in pictures.items() if (panels := draw(old, new))},
        differing={detail.key for each in comparison.differences for detail in each.details},
        noted_number=_number(_noted(comparison)),
        accepted_number=_number(_accepted(comparison)),
        training=_training_ends(old, new),
        api=api_changes(comparison),
        costs=[cost_cells(cost) for cost in comparison.costs],
        no_verdict=NO_VERDICT_RESTS_ON,
        environment=environment(comparison),
        entries_shown=ENTRIES_SHOWN,
        commands=_commands,
        apart=apart,
        entries=entries,
        counted=counted,
        counts=counts,
        version=__version__,
    )


def _training_ends(old: Record, new: Record) -> list[list[str]]:
    """Where the training curves end: name, old and new."""
    keys = [key for key in dict.fromkeys([*old.entries, *new.entries]) if key.startswith("training/")]
    return [[key.partition("/")[2], *(_end_of(record.entries.get(key)) for record in (old, new))] for key in keys]


def _end_of(value: Value | None) -> str:
    if not isinstance(value, Curves):
        return changes.text(value)
    ends = [seed[-1] for seed in value.seeds]
    mean, lowest, highest = map(changes.number, (statistics.fmean(ends), min(ends), max(ends)))
    return f"{mean} ({lowest} to {highest})"


# --- for programs ----------------------------------------------------------------------------------------------------


def junit(comparison: Comparison) -> str:
    """JUnit XML: a suite for each area, a case for each difference, and one for what does not differ.

    What breaks is a failure. What changes is skipped, since a viewer shows neither a failure nor a silent pass: so are
    accepted differences. What is only noted has passed, and says what it is. Too little known is an error.
    """
    comparison = _cleaned(comparison)
    root = ET.Element("testsuites", name="mnist-fp8 upgrade")
    _add_suite(root, "upgrade", _verdict_cases(comparison), _properties(comparison))
    compared = {each.area: each.compared for each in rows(comparison)}
    for area in AREAS:
        cases = [_difference_case(comparison, difference) for difference in comparison.of(area)]
        if area == "claims":
            cases += _claim_cases(comparison)
        elif area in compared and not cases:
            cases.append(_case(area, f"{entries(compared[area])} without a difference"))
        if cases:
            _add_suite(root, area, cases)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(area: str, name: str, outcome: str = "", message: str = "", text: str = "") -> ET.Element:
    """A test case, with an outcome (``failure``, ``error``, ``skipped``) or none: passed."""
    case = ET.Element("testcase", classname=area, name=name)
    if outcome:
        ET.SubElement(case, outcome, message=message).text = text
    elif text:
        ET.SubElement(case, "system-out").text = text
    return case


def _add_suite(
    root: ET.Element, name: str, cases: Sequence[ET.Element], properties: Mapping[str, str] | None = None
) -> None:
    def number(outcome: str) -> str:
        return str(sum(case.find(outcome) is not None for case in cases))

    suite = ET.SubElement(
        root,
        "testsuite",
        name=name,
        tests=str(len(cases)),
        failures=number("failure"),
        errors=number("error"),
        skipped=number("skipped"),
    )
    if properties:
        parent = ET.SubElement(suite, "properties")
        for key, value in properties.items():
            ET.SubElement(parent, "property", name=key, value=value)
    suite.extend(cases)


def _properties(comparison: Comparison) -> dict[str, str]:
    return {
        "verdict": comparison.verdict.value,
        "means": sentence(comparison),
        "old": comparison.old.title,
        "new": comparison.new.title,
        "run": scope(comparison),
        **{f"limit {number}": each for number, each in enumerate(comparison.limits, 1)},
    }


def _verdict_cases(comparison: Comparison) -> list[ET.Element]:
    name = "enough is known for a verdict"
    return [_case("upgrade", name, "error", each) for each in comparison.unverified] or [_case("upgrade", name)]


def _difference_case(comparison: Comparison, difference: Difference) -> ET.Element:
    outcome = {Severity.BREAKS: "failure", Severity.CHANGES: "skipped", Severity.NOTE: ""}[difference.severity]
    message = f"{difference.severity.value}: {difference.means} {difference.do}"
    if difference.accepted:
        outcome, message = "skipped", f"accepted: {difference.accepted}; {message}"
    lines = [
        f"{each.key}: {each.old} → {each.new}{f' ({each.size})' if each.size else ''}" for each in difference.details
    ]
    shown = _at_most(lines, ENTRIES_SHOWN)
    text = "\n".join([message, "", *shown, "", comparison.command(difference.details[0].key)])
    return _case(difference.area, difference.title, outcome, message, text)


def _claim_cases(comparison: Comparison) -> Iterator[ET.Element]:
    """The claims of the new record that no difference speaks of already."""
    told = {difference.title for difference in comparison.of("claims")}
    for claim in comparison.new.claims.claims if comparison.new.claims else ():
        if claim.name not in told:
            holds = claim.verdict is Verdict.HOLDS
            yield _case("claims", claim.name, "" if holds else "skipped", "" if holds else claim.verdict.value)


def as_json(comparison: Comparison) -> str:
    """Everything that was found, for programs."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "mnist_fp8": __version__,
        "verdict": comparison.verdict.value,
        "means": sentence(comparison),
        "run": comparison.old.run or comparison.new.run,
        "scope": scope(comparison),
        "old": _side(comparison.old),
        "new": _side(comparison.new),
        "differences": [_plain_difference(comparison, each) for each in comparison.differences],
        "compared": dict(comparison.compared),
        "limits": comparison.limits,
        "unverified": comparison.unverified,
        "stale": comparison.stale,
        "costs": [_plain(dataclasses.asdict(cost) | {"ratio": cost.ratio}) for cost in comparison.costs],
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _side(record: Record) -> dict[str, Any]:
    names = ("te", "version", "title", "problem")
    return {name: getattr(record, name) for name in names} | {"environment": dict(record.environment)}


def _plain_difference(comparison: Comparison, difference: Difference) -> dict[str, Any]:
    details = [
        _plain(dataclasses.asdict(each)) | {"command": comparison.command(each.key)} for each in difference.details
    ]
    words = {"severity": difference.severity.value, "counts": difference.counts, "details": details}
    return dataclasses.asdict(difference) | words


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers that JSON does not know are words."""
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in fields.items()
    }
