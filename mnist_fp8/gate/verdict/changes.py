"""How an entry differs between two records, and by how much against the noise."""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Iterator, Sequence

from mnist_fp8.gate.verdict.signatures import shown
from mnist_fp8.record.entries import DISTRIBUTION, Cost, Curves, Failure, Numbers, Signature, Text, Value

NOISES = 4
"""A number differs if it does so by more than this many times the noise that was measured."""
MISSING = "not there"


@dataclasses.dataclass(frozen=True)
class Detail:
    """One entry that differs.

    Attributes:
        key: of the entry, such as ``numerics/DelayedScaling/output against float64``.
        old: its old value, as a person reads it.
        new: its new value.
        size: how much that is, against the noise; empty where a text differs.
        weight: the same as a number, to find the worst.
    """

    key: str
    old: str
    new: str
    size: str = ""
    weight: float = 0.0


@dataclasses.dataclass(frozen=True)
class Change:
    """An entry that differs.

    Attributes:
        key: of the entry, ``area/subject/name``.
        old: its old value; ``None`` where it is not there.
        new: its new value.
        size: how much that is, against the noise.
        weight: the same as a number.
        worst: what stands for old and new values of many numbers.
    """

    key: str
    old: Value | None
    new: Value | None
    size: str = ""
    weight: float = 0.0
    worst: tuple[str, str] = ("", "")

    @property
    def area(self) -> str:
        """The first part of the key."""
        return self.key.partition("/")[0]

    @property
    def subject(self) -> str:
        """The second part of the key: a recipe, a mode, a kind."""
        return self.key.split("/")[1]

    @property
    def name(self) -> str:
        """The rest of the key."""
        return self.key.partition("/")[2].partition("/")[2]

    @property
    def detail(self) -> Detail:
        """The change as a person reads it."""
        old, new = self.worst if any(self.worst) else (self._named(self.old), self._named(self.new))
        return Detail(self.key, old, new, self.size, self.weight)

    def _named(self, value: Value | None) -> str:
        """A value; what is there on one side only with its name, which says more than that it is there."""
        one_sided = value is not None and None in (self.old, self.new)
        return f"{self.key.rpartition('/')[2]}: {text(value)}" if one_sided else text(value)


def changes_of(key: str, old: Value | None, new: Value | None, floor: float) -> Iterator[Change]:
    """How an entry differs: once, or not at all beyond noise. Costs never do.

    Args:
        key: of the entry.
        old: its old value.
        new: its new value, another one.
        floor: relative difference of numbers that is taken for none, whatever their noise is.
    """
    match old, new:
        case Cost(), _:
            return
        case _, Cost():
            return
        case Numbers(), Numbers():
            yield from _number_change(key, old, new, floor)
        case Curves(), Curves():
            yield from _curve_change(key, old, new, floor)
        case _:
            yield Change(key, old, new)


def _number_change(key: str, old: Numbers, new: Numbers, floor: float) -> Iterator[Change]:
    """The number that differs most, if one does so by more than noise."""
    noise = max(old.noise, new.noise)
    least = max(floor, NOISES * noise)
    before, after = (dict(zip(each.labels, each.values, strict=True)) for each in (old, new))
    found = {
        label: _relative(before.get(label, math.nan), after.get(label, math.nan))
        for label in dict.fromkeys([*before, *after])
    }
    beyond = {label: size for label, size in found.items() if size > least}
    if beyond:
        worst = max(beyond, key=lambda label: beyond[label])
        a, b = before.get(worst, math.nan), after.get(worst, math.nan)
        of_all = f"{len(beyond)} of {len(found)} numbers" if len(found) > 1 else ""
        shown_as = (f"{worst}: {number(a)}".removeprefix(": "), f"{worst}: {number(b)}".removeprefix(": "))
        size = ", ".join(filter(None, [_signed(a, b), of_all, _noise(noise, beyond[worst])]))
        # Shares of a distribution may be tiny, and grow manyfold.
        weight = 0.0 if DISTRIBUTION in key else beyond[worst]
        yield Change(key, old, new, _shifted(old, new) or size, weight, shown_as)


def _relative(old: float, new: float) -> float:
    """Relative difference; infinite between a number and none, or between different infinities."""
    apart = _absolute(old, new)
    return apart / max(abs(old), abs(new)) if 0 < apart < math.inf else apart


def _absolute(old: float, new: float) -> float:
    """Difference; infinite between a number and none, or between different infinities."""
    if old == new or (math.isnan(old) and math.isnan(new)):
        return 0.0
    return abs(new - old) if math.isfinite(old) and math.isfinite(new) else math.inf


def _signed(old: float, new: float) -> str:
    if not (math.isfinite(old) and math.isfinite(new) and old):
        return ""
    change = (new - old) / abs(old)
    return f"{change:+.2%}" if abs(change) >= 1e-4 else f"{change:+.1e}"  # noqa: PLR2004 - what two decimals show


def _noise(noise: float, size: float) -> str:
    return f"{size / noise:.0f} times the noise" if noise else "exact: noise is 0"


def _shifted(old: Numbers, new: Numbers) -> str:
    """Whether a series is the same one, a step earlier or later."""
    if len(old.values) == len(new.values) > 2:  # noqa: PLR2004 - two numbers are no series
        if old.values[1:] == new.values[:-1]:
            return "the same values, one step earlier"
        if old.values[:-1] == new.values[1:]:
            return "the same values, one step later"
    return ""


def _curve_change(key: str, old: Curves, new: Curves, floor: float) -> Iterator[Change]:
    """Curves that are not the same: how far apart their ends are, in standard errors of the seeds."""
    if old.steps != new.steps or len(old.seeds) != len(new.seeds):
        yield Change(key, old, new, "not the same steps or seeds", math.inf)
        return
    ends = [[seed[-1] for seed in curves.seeds] for curves in (old, new)]
    before, after = (statistics.fmean(values) for values in ends)
    pairs = zip(itertools.chain(*old.seeds), itertools.chain(*new.seeds), strict=True)
    apart = max(_absolute(a, b) for a, b in pairs)
    noise = max(old.noise, new.noise)
    if apart <= max(NOISES * noise, floor * abs(before)):
        return
    error = _standard_error(ends)
    distance = (after - before) / error
    errors = f"{distance:+.1f} standard errors of the {len(old.seeds)} seeds"
    size = errors if math.isfinite(distance) else "not finite any more"
    yield Change(key, old, new, size, distance, (f"ends at {number(before)}", f"ends at {number(after)}"))


def _standard_error(ends: Sequence[Sequence[float]]) -> float:
    """Of the difference of two means over the same number of seeds."""
    finite = [[value for value in values if math.isfinite(value)] for values in ends]
    variances = [statistics.variance(values) for values in finite if len(values) > 1]
    pooled = statistics.fmean(variances) if variances else 0.0
    return max(math.sqrt(2 * pooled / len(ends[0])), 1e-6)


def text(value: Value | None) -> str:  # noqa: PLR0911 - one for each kind
    """A value as a person reads it, in one line."""
    match value:
        case None:
            return MISSING
        case Text(text=words):
            return words
        case Failure(error=words):
            return f"fails: {words}"
        case Signature() as signature:
            return shown(signature) or signature.what
        case Numbers(values=values, labels=labels):
            pairs = (f"{label}: {number(each)}".removeprefix(": ") for label, each in zip(labels, values, strict=True))
            return ", ".join(pairs)
        case Curves(seeds=seeds):
            return ", ".join(f"seed {index}: {number(seed[-1])}" for index, seed in enumerate(seeds))
        case Cost(values=values, unit=unit):
            return f"{number(statistics.median(values))} {unit}"


def words(value: Value | None) -> str:
    """The words of a text; empty for anything else."""
    return value.text if isinstance(value, Text) else ""


def number(value: float) -> str:
    """A number to five digits."""
    return f"{value:.5g}"
