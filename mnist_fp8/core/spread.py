"""Repeated measurements of one quantity."""

import dataclasses
import statistics


@dataclasses.dataclass(frozen=True)
class Spread:
    """Numbers of the repeats of one thing: times, or ratios of times that were taken one right after the other."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    @property
    def lowest(self) -> float:
        """The lowest one."""
        return min(self.values)

    @property
    def highest(self) -> float:
        """The highest one."""
        return max(self.values)

    def over(self, other: "Spread") -> "Spread":
        """Ratios to another one, repeat by repeat.

        Raises:
            ValueError: the other one has another number of repeats.
        """
        return Spread(tuple(a / b for a, b in zip(self.values, other.values, strict=True)))
