"""How near a difference of numbers comes to damage: the numbers by which it is told from drift."""

import dataclasses
import enum
import itertools
import math
from collections.abc import Iterable, Iterator

from mnist_fp8.gate.verdict.changes import CurvesApart, EntryChange
from mnist_fp8.gate.verdict.rules.numbers import SPREADS, most_error, worse_by
from mnist_fp8.record.entries import (
    Codes,
    Curves,
    Numbers,
    Quantity,
    Special,
)


class Gauge(enum.Enum):
    """What is measured of a difference."""

    ERROR = "error against float64"
    IN_TOLERANCES = "error in tolerances"
    CODES = "codes unlike the oracle's"
    NOT_FINITE = "numbers not finite"
    TRAINING = "training end in standard errors"


_OF_QUANTITY = {Quantity.ERROR: Gauge.ERROR, Quantity.IN_TOLERANCES: Gauge.IN_TOLERANCES}


@dataclasses.dataclass(frozen=True)
class Measure:
    """A number of an entry, and how large it may be.

    Attributes:
        gauge: what it is.
        key: of the entry.
        label: which number of the entry; empty where it has one.
        old: what it was; 0 for the end of a training.
        new: what it is; of a training's end by how many standard errors it is worse.
        limit: the largest that is no damage.
    """

    gauge: Gauge
    key: str
    label: str
    old: float
    new: float
    limit: float

    @property
    def is_damage(self) -> bool:
        """Whether it is beyond its limit, or no number."""
        return not self.new <= self.limit

    @property
    def share(self) -> float:
        """How much of the way to damage it went: infinite where it went beyond, less than 0 where it fell."""
        if self.is_damage:
            return math.inf
        return (self.new - self.old) / (self.limit - self.old or abs(self.old) or 1.0)


def telling(changes: Iterable[EntryChange], *, gain: bool) -> tuple[Measure, ...]:
    """Of each gauge the number that comes nearest to damage, or the one that gained most; the most telling first."""
    sign = 1 if gain else -1
    ordered = sorted(itertools.chain(*map(_measures, changes)), key=lambda measure: sign * measure.share)
    return tuple({measure.gauge: measure for measure in reversed(ordered)}.values())[::-1]


def _measures(change: EntryChange) -> Iterator[Measure]:
    match change.old, change.new:
        case Numbers() as old, Numbers() as new if old.quantity in _OF_QUANTITY:
            after = new.by_label
            for label, error in old.by_label.items():
                if label in after and math.isfinite(error):
                    limit = most_error(old.quantity, error)
                    yield Measure(_OF_QUANTITY[old.quantity], change.key, label, error, after[label], limit)
        case Codes(wrong=int(before)), Codes(wrong=int(now)):
            yield Measure(Gauge.CODES, change.key, "", before, now, before)
        case Special() as old, Special() as new:
            bad = {each.tensor: each.not_finite for each in old.contents}
            for each in new.contents:
                before, now = bad.get(each.tensor, 0), each.not_finite
                if before != now:
                    yield Measure(Gauge.NOT_FINITE, change.key, each.tensor, before, now, before)
        case _, Curves() as new if isinstance(change.apart, CurvesApart):
            yield Measure(Gauge.TRAINING, change.key, "", 0.0, worse_by(change.apart, new), SPREADS)
