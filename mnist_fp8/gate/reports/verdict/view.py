"""Render the verdict on an upgrade: terminal, Markdown, HTML, JUnit XML and JSON. Nothing here judges or measures."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from mnist_fp8.core.plain import clean
from mnist_fp8.gate.reports import values
from mnist_fp8.gate.reports.markup import apart, counted, cut
from mnist_fp8.gate.reports.uses.view import CodeView
from mnist_fp8.gate.reports.verdict import gaps
from mnist_fp8.gate.reports.verdict.slices import Slice, slices
from mnist_fp8.gate.verdict.changes import EntryChange
from mnist_fp8.gate.verdict.comparison import Comparison, UpgradeVerdict
from mnist_fp8.gate.verdict.costs import CostChange
from mnist_fp8.gate.verdict.coverage import Effect
from mnist_fp8.gate.verdict.roots import Root
from mnist_fp8.gate.verdict.rules.numbers import FLAX_ALONE
from mnist_fp8.gate.verdict.rules.rule import Difference, Rule, Severity
from mnist_fp8.record.keys import AREAS
from mnist_fp8.record.record import Record

ENTRIES_SHOWN = 100
"""Entries of a difference on the page; the others are counted."""
_UPGRADED = {"jax": "JAX", "flax": "Flax"}
WORDS = {Severity.BREAKS: "breaking", Severity.CHANGES: "changed", Severity.NOTE: "noted"}
COLUMNS = (*WORDS.values(), "accepted")
"""What differences are counted as."""
NAMES_SHOWN = 3
"""Subjects in the title of a root; the others are counted."""
_PACKAGE = "transformer_engine."
"""What all definitions begin with."""
_SIZE = {"api": "parameter", "claims": "test"}
"""What the size of a difference is in areas where it is no size."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """An entry that differs, as text: clean, and in one line each."""

    key: str
    old: str
    new: str
    size: str

    @classmethod
    def of(cls, change: EntryChange) -> "Entry":
        """The texts of a change."""
        old, new = (clean(side) or "none" for side in values.sides(change))
        return cls(clean(change.key), old, new, clean(values.size(change)))

    @property
    def line(self) -> str:
        """All of it in one line."""
        return f"{self.key}: {self.old} → {self.new}{f' ({self.size})' if self.size else ''}"


@dataclasses.dataclass(frozen=True)
class Shown:
    """A difference as text."""

    area: str
    subject: str
    rule: Rule
    entries: tuple[Entry, ...]
    action: str
    accepted: str

    @classmethod
    def of(cls, difference: Difference) -> "Shown":
        """The texts of a difference."""
        entries = tuple(map(Entry.of, difference.entries))
        subject, action, accepted = map(clean, (difference.subject, values.action(difference), difference.accepted))
        return cls(difference.area, subject, difference.rule, entries, action, accepted)

    @property
    def title(self) -> str:
        """Subject and rule in a few words."""
        return f"{self.subject}: {self.rule.title}" if self.subject else self.rule.title


@dataclasses.dataclass(frozen=True)
class Block:
    """A root as text.

    Attributes:
        title: area, effect, what happened, and of what.
        rule: what it means.
        first: the entry that diverges first.
        effect: ``damage``, ``drift`` or ``gain``; empty where no numbers differ.
        evidence: what decides that, the most telling first.
        keys: what to measure again: the first entry, and what decides.
        parts: all differences, in the order of cause.
        action: what to do.
        accepted: why it does not count; empty if it does.
    """

    title: str
    rule: Rule
    first: Entry
    effect: str
    evidence: tuple[str, ...]
    keys: tuple[str, ...]
    parts: tuple[Shown, ...]
    action: str
    accepted: str

    @classmethod
    def of(cls, root: Root) -> "Block":
        """The texts of a root."""
        main, first, parts = Shown.of(root.main), Entry.of(root.first), tuple(map(Shown.of, root.differences))
        effect = root.effect.value if root.effect else ""
        evidence = tuple(clean(values.measured(measure)) for measure in root.measures)
        if not evidence and main.entries[0].key != first.key:
            evidence = (main.entries[0].line,)
        where = ", ".join(filter(None, [main.area, effect]))
        of_what = _some([clean(each).removeprefix(_PACKAGE).removeprefix("jax.") for each in root.subjects])
        title = ": ".join(filter(None, [where, main.rule.title, of_what]))
        decides = root.measures[0].key if root.measures else root.main.entries[0].key
        keys = tuple(dict.fromkeys([first.key, clean(decides)]))
        return cls(title, main.rule, first, effect, evidence, keys, parts, main.action, main.accepted)

    @property
    def size_name(self) -> str:
        """What the size of its entries is."""
        return _SIZE.get(self.parts[0].area, "size")

    @property
    def others(self) -> list[Shown]:
        """Differences that mean something else as well, one for each rule."""
        return list({part.rule: part for part in reversed(self.parts) if part.rule != self.rule}.values())[::-1]

    @property
    def rows(self) -> list[list[str]]:
        """Key, what happened, old and new value, and size of each entry."""
        return [
            [entry.key, part.rule.title, entry.old, entry.new, entry.size]
            for part in self.parts
            for entry in part.entries
        ]

    @property
    def number(self) -> str:
        """How many entries there are, by area, if there are several."""
        areas: Counter[str] = Counter()
        for part in self.parts:
            areas[part.area] += len(part.entries)
        total = entries(areas.total()) if areas.total() > 1 else ""
        of_areas = ", ".join(f"{area} {number:,}" for area, number in areas.items())
        return f"{total}: {of_areas}" if len(areas) > 1 else total


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


@dataclasses.dataclass(frozen=True)
class View:
    """A comparison as all forms of the report show it: texts are made once, and are `clean`."""

    comparison: Comparison
    old: Record
    new: Record
    differences: tuple[Shown, ...]
    blocks: tuple[Block, ...]
    limits: tuple[str, ...]
    unverified: tuple[str, ...]
    partial: tuple[str, ...]
    unseen: tuple[str, ...]
    stale: tuple[str, ...]
    slices: tuple[Slice, ...]
    code: CodeView | None

    @classmethod
    def of(cls, comparison: Comparison) -> "View":
        """The view of a comparison."""
        return cls(
            comparison,
            _clean_record(comparison.old),
            _clean_record(comparison.new),
            tuple(map(Shown.of, comparison.differences)),
            tuple(map(Block.of, comparison.roots)),
            tuple(map(clean, comparison.limits)),
            gaps.texts(comparison.coverage, Effect.UNVERIFIED),
            gaps.texts(comparison.coverage, Effect.PARTIAL),
            gaps.texts(comparison.coverage, Effect.NOTED),
            tuple(map(clean, comparison.stale)),
            slices(comparison),
            CodeView.of(comparison.uses, comparison.of("uses")) if comparison.uses else None,
        )

    @property
    def verdict(self) -> UpgradeVerdict:
        """What the comparison says."""
        return self.comparison.verdict

    @property
    def compared(self) -> Mapping[str, int]:
        """How many entries were compared, by area."""
        return self.comparison.compared

    @property
    def costs(self) -> tuple[CostChange, ...]:
        """Times and memory, on which no verdict rests."""
        return self.comparison.costs

    @property
    def counting(self) -> list[Block]:
        """Those that decide the verdict."""
        return list(filter(_decides, self.blocks))

    @property
    def of_code(self) -> list[Shown]:
        """What decides the verdict in the user's own code."""
        return list(filter(_decides, self.in_area("uses")))

    @property
    def noted(self) -> list[Block]:
        """Those that are told and decide nothing."""
        return [block for block in self.blocks if word(block) == "noted"]

    @property
    def accepted(self) -> list[Block]:
        """Those that the policy accepts."""
        return [block for block in self.blocks if block.accepted]

    def in_area(self, area: str) -> tuple[Shown, ...]:
        """The differences of an area."""
        return tuple(shown for shown in self.differences if shown.area == area)

    def command(self, key: str) -> str:
        """The command that shows an entry again, measured anew on both sides."""
        return clean(self.comparison.command(key))


def _clean_record(record: Record) -> Record:
    environment = {clean(name): clean(value) for name, value in record.environment.items()}
    return dataclasses.replace(record, te=clean(record.te), version=clean(record.version), environment=environment)


def headline(view: View) -> str:
    """What was compared."""
    old, new = view.old, view.new
    pairs = [(title, old.environment.get(name, ""), new.environment.get(name, "")) for name, title in _UPGRADED.items()]
    others = ", ".join(f"{title} {before} → {after}" for title, before, after in pairs if before != after)
    if old.name == new.name and others:  # another JAX or Flax for the same one
        return f"{others} with Transformer Engine {old.name}"
    if old.name == new.name:
        return f"Transformer Engine {old.name} against itself"
    return f"Transformer Engine {old.name} → {new.name}"


def sentence(view: View) -> str:
    """What the verdict means."""
    deciding: list[Block | Shown] = [*view.counting, *view.of_code]
    breaking, changed = (
        sum(one.rule.severity is severity for one in deciding) for severity in (Severity.BREAKS, Severity.CHANGES)
    )
    match view.verdict:
        case UpgradeVerdict.SAFE:
            said = f"Nothing that a user can see differs beyond noise, in {_compared(view)}."
        case UpgradeVerdict.PARTIAL:
            said = f"Only a part was looked at. Nothing in it differs beyond noise: {_compared(view)}. This is no pass."
        case UpgradeVerdict.CHANGED:
            part = " in the part that was looked at" if view.comparison.is_partial else ""
            seen = counted(changed, "difference")
            said = f"Nothing breaks{part}, but {seen} can be seen: look at each before you upgrade."
        case UpgradeVerdict.BROKEN:
            also = f" {changed:,} more can be seen." if changed else ""
            said = f"{counted(breaking, 'difference')} can break what works today: resolve before you upgrade.{also}"
        case UpgradeVerdict.UNVERIFIED:
            said = "Too little is known for a verdict; this is not a pass."
    if any(block.rule is FLAX_ALONE for block in view.counting):
        said = f"{FLAX_ALONE.title}, with the same JAX and Flax: all else may follow from that. {said}"
    words = [word(block) for block in (*view.noted, *view.accepted)]
    return f"{said} Not counted: {counts(words)}." if words else said


def _compared(view: View) -> str:
    areas = [area for area in view.compared if area != "costs"]
    number = sum(view.compared[area] for area in areas)
    found = view.comparison.coverage
    names: dict[tuple[str, ...], list[str]] = {}
    for name, modes in found.layers.items():
        names.setdefault(modes, []).append(f"te.{clean(name)}")
    parts = [f"{', '.join(each)} in {', '.join(map(clean, modes))}" for modes, each in names.items() if modes]
    of_what = f"of {'; '.join(parts)}" if parts else ""
    run = f"{view.old.run} run" if view.old.run else ""
    return ", ".join(filter(None, [f"{number:,} entries of {counted(len(areas), 'area')}", of_what, run]))


@dataclasses.dataclass(frozen=True)
class Row:
    """An area: what it is, how many entries were compared, and how many of them differ: at all, and by `COLUMNS`."""

    area: str
    what: str
    compared: int
    differing: int
    numbers: tuple[int, ...]


def rows(view: View) -> list[Row]:
    """All areas that were compared or have a difference."""
    found = []
    for area, what in AREAS.items():
        keys = {(word(shown), entry.key) for shown in view.in_area(area) for entry in shown.entries}
        words = [name for name, _ in keys]
        if area != "costs" and (words or area in view.compared):
            numbers = tuple(words.count(name) for name in COLUMNS)
            found.append(Row(area, what, view.compared.get(area, 0), len({key for _, key in keys}), numbers))
    return found


def word(difference: Shown | Block) -> str:
    """What it is counted as: one of `COLUMNS`."""
    return "accepted" if difference.accepted else WORDS[difference.rule.severity]


def _decides(difference: Shown | Block) -> bool:
    return not difference.accepted and difference.rule.severity is not Severity.NOTE


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


def entries(number: int) -> str:
    """``1 entry``, ``2 entries``."""
    return f"{number:,} {'entry' if number == 1 else 'entries'}"


def api_changes(view: View) -> list[tuple[Shown, Entry]]:
    """All names that differ, those that break first."""
    return [(shown, entry) for shown in view.in_area("api") for entry in shown.entries]


def counts(words: Iterable[str]) -> str:
    """How often each word is there, such as ``3 breaking, 20 noted``."""
    return ", ".join(f"{number:,} {word}" for word, number in Counter(words).items())
