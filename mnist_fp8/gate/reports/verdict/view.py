"""Render the verdict on an upgrade: terminal, Markdown, HTML, JUnit XML and JSON. Nothing here judges or measures."""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.gate.reports.markup import clean, counted, cut
from mnist_fp8.gate.verdict import changes
from mnist_fp8.gate.verdict.changes import Detail
from mnist_fp8.gate.verdict.comparison import Comparison, UpgradeVerdict
from mnist_fp8.gate.verdict.costs import CostChange
from mnist_fp8.gate.verdict.rules.rule import Difference, Severity
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


def cleaned(comparison: Comparison) -> Comparison:
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
    return "accepted" if difference.accepted else WORDS[difference.severity]


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


def counting(comparison: Comparison) -> list[Finding]:
    """Groups of differences that decide the verdict."""
    return findings(each for each in comparison.differences if each.counts)


def noted(comparison: Comparison) -> list[Finding]:
    """Groups that are told and decide nothing."""
    return findings(each for each in comparison.differences if each.severity is Severity.NOTE and not each.accepted)


def accepted(comparison: Comparison) -> list[Finding]:
    """Groups that the policy accepts."""
    return findings(each for each in comparison.differences if each.accepted)


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


def number(found: Sequence[Finding]) -> str:
    """How many entries some groups hold."""
    return counted(sum(len(each.differences) for each in found), "difference")
