"""Times and memory of two records, on which no verdict rests."""

import dataclasses
import math
import statistics
from collections.abc import Iterator

from mnist_fp8.record.entries import Cost
from mnist_fp8.record.record import Record


@dataclasses.dataclass(frozen=True)
class CostChange:
    """A time or an amount of memory, old and new.

    Attributes:
        name: what it is.
        old: median of the repetitions.
        new: the same of the new record.
        unit: ``s`` or ``bytes``.
        repetitions: how often it was measured, on the side where it was less often.
        spread: largest deviation of a repetition from its median, relative.
    """

    name: str
    old: float
    new: float
    unit: str
    repetitions: int
    spread: float

    @property
    def ratio(self) -> float:
        """New over old."""
        return self.new / self.old if self.old else math.nan


def costs(old: Record, new: Record) -> Iterator[CostChange]:
    """Costs that both records hold, old and new."""
    for key, value in old.entries.items():
        other = new.entries.get(key)
        if isinstance(value, Cost) and isinstance(other, Cost) and value.values and other.values:
            medians = [statistics.median(each.values) for each in (value, other)]
            deviations = [
                abs(each / median - 1)
                for cost, median in zip((value, other), medians, strict=True)
                for each in cost.values
                if median
            ]
            repetitions = min(len(value.values), len(other.values))
            spread = max(deviations, default=0.0)
            yield CostChange(key.partition("/")[2], medians[0], medians[1], value.unit, repetitions, spread)
