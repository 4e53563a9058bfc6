"""Render the verdict on an upgrade: terminal, Markdown, HTML, JUnit XML and JSON. Nothing here judges or measures."""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from mnist_fp8.core.plain import clean
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.gate.reports import values
from mnist_fp8.gate.reports.markup import counted, cut
from mnist_fp8.gate.reports.uses.view import CodeView
from mnist_fp8.gate.reports.verdict import gaps
from mnist_fp8.gate.verdict.changes import EntryChange
from mnist_fp8.gate.verdict.comparison import Comparison, UpgradeVerdict
from mnist_fp8.gate.verdict.costs import CostChange
from mnist_fp8.gate.verdict.coverage import Effect
from mnist_fp8.gate.verdict.rules.numbers import FLAX_ALONE
from mnist_fp8.gate.verdict.rules.rule import Difference, Rule, Severity
from mnist_fp8.record.entries import AREAS
from mnist_fp8.record.record import Record

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
WORDS = {Severity.BREAKS: "breaking", Severity.CHANGES: "changed", Severity.NOTE: "noted"}
COLUMNS = {"breaking": "bold red", "changed": "yellow", "noted": "dim", "accepted": "dim"}
"""What differences are counted as."""
_SIZE = {"api": "parameter", "claims": "test"}
"""What the size of a difference is in areas where it is no size."""
_STACK = {"jax": "JAX", "flax": "Flax", "python": "Python", "device": "on"}


@dataclasses.dataclass(frozen=True)
class Entry:
    """An entry that differs, as text: clean, and in one line each."""

    key: str
    old: str
    new: str
    size: str
    weight: float

    @classmethod
    def of(cls, change: EntryChange) -> "Entry":
        """The texts of a change."""
        old, new = (clean(side) or "none" for side in values.sides(change))
        return cls(clean(change.key), old, new, clean(values.size(change)), change.weight)


@dataclasses.dataclass(frozen=True)
class Shown:
    """A difference as text."""

    area: str
    subject: str
    rule: Rule
    entries: tuple[Entry, ...]
    accepted: str
    counts: bool

    @classmethod
    def of(cls, difference: Difference) -> "Shown":
        """The texts of a difference."""
        entries = tuple(map(Entry.of, difference.entries))
        subject, accepted = clean(difference.subject), clean(difference.accepted)
        return cls(difference.area, subject, difference.rule, entries, accepted, difference.counts)

    @property
    def title(self) -> str:
        """Subject and rule in a few words."""
        return f"{self.subject}: {self.rule.title}" if self.subject else self.rule.title


@dataclasses.dataclass(frozen=True)
class View:
    """A comparison as all forms of the report show it: texts are made once, and are `clean`."""

    comparison: Comparison
    old: Record
    new: Record
    differences: tuple[Shown, ...]
    limits: tuple[str, ...]
    unverified: tuple[str, ...]
    partial: tuple[str, ...]
    unseen: tuple[str, ...]
    stale: tuple[str, ...]
    code: CodeView | None

    @classmethod
    def of(cls, comparison: Comparison) -> "View":
        """The view of a comparison."""
        return cls(
            comparison,
            _clean_record(comparison.old),
            _clean_record(comparison.new),
            tuple(map(Shown.of, comparison.differences)),
            tuple(map(clean, comparison.limits)),
            gaps.texts(comparison.coverage, Effect.UNVERIFIED),
            gaps.texts(comparison.coverage, Effect.PARTIAL),
            gaps.texts(comparison.coverage, Effect.NOTED),
            tuple(map(clean, comparison.stale)),
            CodeView.of(comparison.uses, comparison.differences) if comparison.uses else None,
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
    def listed(self) -> tuple[Shown, ...]:
        """The differences but for those of the user's code, which has a section of its own."""
        return tuple(shown for shown in self.differences if shown.area != "uses")

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
    breaking, changed = (
        sum(shown.rule.severity is severity for shown in view.differences if shown.counts)
        for severity in (Severity.BREAKS, Severity.CHANGES)
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
    if any(each.rule is FLAX_ALONE and each.counts for each in view.differences):
        said = f"{FLAX_ALONE.title}, with the same JAX and Flax: all else may follow from that. {said}"
    words = [word(each) for each in view.differences if not each.counts]
    return f"{said} Not counted: {counts(words)}." if words else said


def _compared(view: View) -> str:
    areas = [area for area in view.compared if area != "costs"]
    number = sum(view.compared[area] for area in areas)
    found = view.comparison.coverage
    layers = ", ".join(f"te.{name}" for name in found.layers)
    of_what = f"of {layers} in {', '.join(map(clean, found.modes))}" if layers and found.modes else ""
    run = f"{view.old.run} run" if view.old.run else ""
    return ", ".join(filter(None, [f"{number:,} entries of {counted(len(areas), 'area')}", of_what, run]))


def not_seen(view: View) -> list[str]:
    """What was not looked at, a line each: on such a run never, or not this time."""
    run = view.old.run or view.new.run
    return [*([CANNOT_SEE[RunKind(run)]] if run else []), *view.partial, *view.unseen]


def scope(view: View) -> str:
    """The kind of run, and what that cannot see."""
    run = view.old.run or view.new.run
    if not run:
        return "The kind of run is not known: neither of the two came that far"
    kind = RunKind(run)
    # The sentence goes on with what is not seen: the description's own words about it would say it twice.
    said = kind.description.partition(";")[0]
    return f"{said[0].upper()}{said[1:]}; {CANNOT_SEE[kind]}"


def stack(view: View) -> str:
    """What both ran with, and where they differ."""
    return ", ".join(
        f"{_STACK[name]} {old}" if old == new else f"{_STACK[name]} {old or 'unknown'} → {new or 'unknown'}"
        for name, old, new in environment(view)
        if name in _STACK
    )


def environment(view: View) -> list[tuple[str, str, str]]:
    """Name, old and new value of everything that a record says of its environment."""
    old, new = view.old.environment, view.new.environment
    return [(name, old.get(name, ""), new.get(name, "")) for name in dict.fromkeys([*old, *new])]


@dataclasses.dataclass(frozen=True)
class Row:
    """An area: what it is, how many entries were compared, and how many differences there are, by `COLUMNS`."""

    area: str
    what: str
    compared: int
    numbers: tuple[int, ...]


def rows(view: View) -> list[Row]:
    """All areas that were compared or have a difference."""
    found = []
    for area, what in AREAS.items():
        words = [word(difference) for difference in view.in_area(area)]
        if area != "costs" and (words or area in view.compared):
            numbers = tuple(words.count(name) for name in COLUMNS)
            found.append(Row(area, what, view.compared.get(area, 0), numbers))
    return found


def word(difference: Shown) -> str:
    """What a difference is counted as: one of `COLUMNS`."""
    return "accepted" if difference.accepted else WORDS[difference.rule.severity]


@dataclasses.dataclass(frozen=True)
class Finding:
    """Differences of one area under one rule."""

    differences: tuple[Shown, ...]

    @property
    def first(self) -> Shown:
        """The one that stands for all."""
        return self.differences[0]

    @property
    def rule(self) -> Rule:
        """What they mean."""
        return self.first.rule

    @property
    def title(self) -> str:
        """Area and title, and how many more there are."""
        more = len(self.differences) - 1
        return f"{self.first.area}: {self.first.title}{f', and {more:,} more like it' if more else ''}"

    @property
    def worst(self) -> Entry:
        """The entry to show."""
        return self.first.entries[0]

    @property
    def entries(self) -> list[Entry]:
        """All entries."""
        return [entry for shown in self.differences for entry in shown.entries]

    @property
    def number(self) -> str:
        """How many entries there are, if there are several."""
        return entries(len(self.entries)) if len(self.entries) > 1 else ""

    @property
    def size_name(self) -> str:
        """What the size of its entries is."""
        return _SIZE.get(self.first.area, "size")


def findings(differences: Iterable[Shown]) -> list[Finding]:
    """Differences of an area under the same rule together, the worst of them first."""
    groups: dict[tuple[object, ...], list[Shown]] = {}
    for shown in differences:
        groups.setdefault((shown.area, shown.rule, shown.accepted), []).append(shown)
    return [Finding(tuple(sorted(group, key=lambda one: -abs(one.entries[0].weight)))) for group in groups.values()]


def counting(view: View) -> list[Finding]:
    """Groups of differences that decide the verdict."""
    return findings(each for each in view.listed if each.counts)


def noted(view: View) -> list[Finding]:
    """Groups that are told and decide nothing."""
    return findings(each for each in view.listed if each.rule.severity is Severity.NOTE and not each.accepted)


def accepted(view: View) -> list[Finding]:
    """Groups that the policy accepts."""
    return findings(each for each in view.listed if each.accepted)


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
    return f"{values.number(value)} {unit}"


def cost_cells(cost: CostChange) -> list[str]:
    """Name, old and new amount, the change, and how far repetitions lie apart."""
    amounts = (amount(each, cost.unit) for each in (cost.old, cost.new))
    changed = f"{round(100 * (cost.ratio - 1)):+,}%" if math.isfinite(cost.ratio) else "unknown"
    apart = f"± {cost.spread:.0%}" if cost.repetitions > 1 else "measured once"
    return [clean(cost.name), *amounts, changed, apart]


def entries(number: int, more: str = "") -> str:
    """``1 entry``, ``2 more entries``."""
    return f"{number:,} {more}{'entry' if number == 1 else 'entries'}"


def api_changes(view: View) -> list[tuple[Shown, Entry]]:
    """All names that differ, those that break first."""
    return [(shown, entry) for shown in view.in_area("api") for entry in shown.entries]


def counts(words: Iterable[str]) -> str:
    """How often each word is there, such as ``3 breaking, 20 noted``."""
    return ", ".join(f"{number:,} {word}" for word, number in Counter(words).items())


def number(found: Sequence[Finding]) -> str:
    """How many entries some groups hold."""
    return counted(sum(len(each.differences) for each in found), "difference")
