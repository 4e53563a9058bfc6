"""How an entry differs between two records, and by how much against the noise; text is left to the reports."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from mnist_fp8.record.calls import LayerCalls
from mnist_fp8.record.entries import Curves, Numbers, Quantity, Value
from mnist_fp8.record.keys import Key
from mnist_fp8.record.packages import Imported

NOISES = 4
"""A number differs if it does so by more than this many times the noise that was measured."""
MOST_NOISE = 0.2
"""Relative difference that no noise explains: that of an error which grew by a quarter, which breaks. Noise that is
larger, negative or not finite is none, and explains nothing."""


@dataclasses.dataclass(frozen=True)
class NumbersApart:
    """How far apart two entries of numbers are.

    Attributes:
        label: of the number that differs most; empty for a single number.
        old: that number in the old record; NaN where it is not there.
        new: the same in the new one.
        beyond: how many numbers differ by more than noise.
        total: how many numbers there are.
        noise: relative noise; 0 where numbers are exact.
        shift: -1 or 1 where the new series is the old one, a step earlier or later; else 0.
        first: label of the first number that differs by more than noise: a step, or a shape and a range of numbers.
    """

    label: str
    old: float
    new: float
    beyond: int
    total: int
    noise: float
    shift: int
    first: str

    @property
    def relative(self) -> float:
        """Relative difference of the number that differs most."""
        return relative(self.old, self.new)


@dataclasses.dataclass(frozen=True)
class CurvesApart:
    """How far apart the ends of two entries of curves are.

    Attributes:
        old: mean of the old ends over the seeds.
        new: mean of the new ones.
        errors: their difference in standard errors of the seeds; NaN where an end is not finite.
        seeds: how many seeds there are.
        first: the first step that differs.
    """

    old: float
    new: float
    errors: float
    seeds: int
    first: int


@dataclasses.dataclass(frozen=True)
class NoiseApart:
    """How far the noise of two entries is apart: repetitions agree less than they did."""

    old: float
    new: float


Apart: TypeAlias = NumbersApart | CurvesApart | NoiseApart


@dataclasses.dataclass(frozen=True)
class EntryChange:
    """An entry that differs.

    Attributes:
        key: of the entry, ``area/subject/name``.
        old: its old value; ``None`` where it is not there.
        new: its new value.
        part: the parameter or test that it is about; empty for the entry as a whole.
        apart: how far apart numbers, curves or their noise are; ``None`` for other values, and for curves that do not
            fit together.
        weight: a number to sort by, the largest first.
    """

    key: str
    old: Value | None
    new: Value | None
    part: str = ""
    apart: Apart | None = None
    weight: float = 0.0

    @functools.cached_property
    def parts(self) -> Key:
        """The parts of the key."""
        return Key.of(self.key)

    @property
    def area(self) -> str:
        """The first part of the key."""
        return self.parts.area

    @property
    def subject(self) -> str:
        """The second part of the key: a recipe, a mode, a kind, a layer."""
        return self.parts.subject

    @property
    def mode(self) -> str:
        """What it was computed in."""
        return self.parts.mode

    @property
    def kind(self) -> str:
        """The area whose rules hold for it."""
        return self.parts.kind

    @property
    def name(self) -> str:
        """The rest of the key."""
        return self.parts.name


def changes_of(key: str, old: Value | None, new: Value | None, floor: float) -> Iterator[EntryChange]:
    """How an entry differs: in its value, as far as that is beyond noise, and in its noise.

    Costs never do, nor does what the calls of a model were given: that follows from what is compared.

    Args:
        key: of the entry.
        old: its old value.
        new: its new value, another one.
        floor: relative tolerance: smaller differences count as equal, whatever the noise is.
    """
    match old, new:
        case _ if key.startswith("costs/"):
            return
        case (LayerCalls(), _) | (_, LayerCalls()):
            return
        case Imported(before), Imported(after) if None in (before, after):  # nobody says whether it is asked for
            return
        case Numbers(), Numbers():
            yield from _number_change(key, old, new, floor)
            yield from _noise_change(key, old, new)
        case Curves(), Curves():
            yield from _curve_change(key, old, new, floor)
            yield from _noise_change(key, old, new)
        case _:
            yield EntryChange(key, old, new)


def differ(key: str, old: Value | None, new: Value | None) -> bool:
    """Whether two values of an entry differ beyond noise. Costs never do."""
    return old != new and any(changes_of(key, old, new, 0.0))


def _noise_change(key: str, old: Numbers | Curves, new: Numbers | Curves) -> Iterator[EntryChange]:
    """That repetitions agree less than they did: by more than the noise of noise, or at all where they were exact."""
    before = old.noise if old.noise >= 0 else 0.0
    if _absolute(old.noise, new.noise) and not 0 <= new.noise <= NOISES * before:
        yield EntryChange(key, old, new, apart=NoiseApart(old.noise, new.noise))


def noise_of(old: Numbers | Curves, new: Numbers | Curves, most: float = MOST_NOISE) -> float:
    """The larger noise of two entries, as far as it is plausible."""
    return max((side.noise for side in (old, new) if 0 <= side.noise <= most), default=0.0)


def _number_change(key: str, old: Numbers, new: Numbers, floor: float) -> Iterator[EntryChange]:
    """The number that differs most, if one does so by more than noise."""
    noise = noise_of(old, new)
    bound = max(floor, min(NOISES * noise, MOST_NOISE))
    before, after = old.by_label, new.by_label
    sizes = {
        label: relative(before.get(label, math.nan), after.get(label, math.nan))
        for label in dict.fromkeys([*before, *after])
    }
    beyond = {label: size for label, size in sizes.items() if size > bound}
    if not beyond:
        return
    worst = max(beyond, key=lambda label: beyond[label])
    apart = NumbersApart(
        worst,
        before.get(worst, math.nan),
        after.get(worst, math.nan),
        len(beyond),
        len(sizes),
        noise,
        _shift(old.values, new.values),
        next(iter(beyond)),
    )
    # Shares of a distribution may be tiny, and grow manyfold.
    weight = 0.0 if new.quantity is Quantity.SHARE else beyond[worst]
    yield EntryChange(key, old, new, apart=apart, weight=weight)


def relative(old: float, new: float) -> float:
    """Relative difference; infinite between a number and none, or between different infinities."""
    apart = _absolute(old, new)
    return apart / max(abs(old), abs(new)) if 0 < apart < math.inf else apart


def _absolute(old: float, new: float) -> float:
    """Difference; infinite between a number and none, or between different infinities."""
    if old == new or (math.isnan(old) and math.isnan(new)):
        return 0.0
    return abs(new - old) if math.isfinite(old) and math.isfinite(new) else math.inf


def _shift(old: Sequence[float], new: Sequence[float]) -> int:
    """Whether a series is the same one, a step earlier (-1) or later (1)."""
    if len(old) == len(new) > 2:  # noqa: PLR2004 - two numbers are no series
        if old[1:] == new[:-1]:
            return -1
        if old[:-1] == new[1:]:
            return 1
    return 0


def _curve_change(key: str, old: Curves, new: Curves, floor: float) -> Iterator[EntryChange]:
    """Curves that are not the same: how far apart their ends are, in standard errors of the seeds."""
    if old.steps != new.steps or len(old.seeds) != len(new.seeds):
        yield EntryChange(key, old, new, weight=math.inf)
        return
    ends = [[seed[-1] for seed in curves.seeds] for curves in (old, new)]
    before, after = map(mean, ends)
    apart = [[_absolute(a, b) for a, b in zip(*pair, strict=True)] for pair in zip(old.seeds, new.seeds, strict=True)]
    distance = max(itertools.chain(*apart))
    most = MOST_NOISE * abs(before)
    if distance <= max(min(NOISES * noise_of(old, new, most), most), floor * abs(before)):
        return
    errors = (after - before) / _standard_error(ends)
    first = next(step for step, distances in zip(old.steps, zip(*apart, strict=True), strict=True) if any(distances))
    yield EntryChange(key, old, new, apart=CurvesApart(before, after, errors, len(old.seeds), first), weight=errors)


def _standard_error(ends: Sequence[Sequence[float]]) -> float:
    """Of the difference of two means over the same number of seeds."""
    finite = [[value for value in values if math.isfinite(value)] for values in ends]
    variances = [_variance(values) for values in finite if len(values) > 1]
    pooled = mean(variances) if variances else 0.0
    return max(math.sqrt(2 * pooled / len(ends[0])), 1e-6)


def mean(values: Sequence[float]) -> float:
    """Mean, which of huge numbers is infinite; `statistics.fmean` raises an error."""
    return sum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    center = mean(values)
    return sum((value - center) * (value - center) for value in values) / (len(values) - 1)
