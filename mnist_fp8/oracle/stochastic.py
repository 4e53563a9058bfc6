"""Whether draws of stochastic rounding to E2M1 are right, by statistics with a stated rate of false alarms.

A number between two codes becomes the upper one with the chance that makes the number its mean (Gupta et al., "Deep
Learning with Limited Numerical Precision", 2015), on its own for each element and key. So its variance is known, too:
``gap**2 * chance * (1 - chance)``. The statistics are sums of many small terms, in units of their standard deviation. A
Gaussian one exceeds ``sqrt(2 * ln(2 / rate))`` in size with at most half of the rate (Chernoff's bound), and with an
eighth of it where that is six or more, which leaves room for the skewness of sums of thousands of terms. Where terms
are rare, the sum of their squares stands in for a variance that is smaller, so that a few of them do not raise an
alarm.
"""

import functools
import math
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from mnist_fp8.oracle.blocks import GRID, Neighbours, neighbours
from mnist_fp8.oracle.dense import Array

RATE = 1e-7
"""Largest probability that any statistic of right draws is beyond its bound: ten sets of draws stay below 1e-6."""
_PARTS = 8
_BINS = (len(GRID) - 1) * _PARTS
_COUNTED = 5
"""Statistics that can be beyond their bounds by chance; each has an equal part of the rate."""


class Statistic(NamedTuple):
    """One property of draws.

    Attributes:
        name: one of `NAMES`.
        value: how far off they are.
        bound: how far right draws may be.
        shown: what was found, in words.
    """

    name: str
    value: float
    bound: float
    shown: str

    @property
    def holds(self) -> bool:
        """Whether the draws have the property; not if that is not a number."""
        return self.value <= self.bound


class _Draws:
    """Draws beside what they are drawn from; all of it in magnitudes.

    Attributes:
        codes: (keys, elements).
        inverted: which have another sign than their number.
        right: neighbours of the numbers, (elements,).
    """

    def __init__(self, codes: Array, numbers: Array) -> None:
        self.codes = np.abs(codes).reshape(len(codes), -1).astype(np.float64)
        self.inverted = (np.sign(codes) * np.sign(numbers) < 0).reshape(self.codes.shape)
        self.right = magnitudes(numbers)

    @functools.cached_property
    def gaps(self) -> Array:
        """Distances of the neighbours; one where there is but one code."""
        return self.right.gaps

    @functools.cached_property
    def variances(self) -> Array:
        """Of a draw, in units of the squared gap."""
        return self.right.chance * (1 - self.right.chance)

    @functools.cached_property
    def deviations(self) -> Array:
        """From the numbers, in units of the gap."""
        return (self.codes - self.right.lower) / self.gaps - self.right.chance

    @functools.cached_property
    def bins(self) -> Array:
        """Numbers between the same two codes, in the same eighth of the gap, have the same bin; (elements,).

        What has but one code is in the last one.
        """
        parts = np.minimum(self.right.chance * _PARTS, _PARTS - 1).astype(int)
        bins = np.searchsorted(GRID, self.right.lower) * _PARTS + parts
        return np.where(self.right.lower < self.right.upper, bins, _BINS)

    @functools.cached_property
    def residuals(self) -> Array:
        """Deviations without what is common to a bin: a bias does not make draws look alike."""
        counts = np.maximum(np.bincount(self.bins), 1) * len(self.codes)
        return self.deviations - (np.bincount(self.bins, self.deviations.sum(0)) / counts)[self.bins]

    @functools.cached_property
    def strays(self) -> Array:
        """Which draws are neither of the two codes."""
        return (self.codes != self.right.lower) & (self.codes != self.right.upper)


def magnitudes(numbers: Array) -> Neighbours:
    """The codes around the magnitudes of numbers, in a row."""
    return neighbours(np.abs(numbers).ravel())


def statistics(codes: Array, numbers: Array) -> dict[str, Statistic]:
    """All statistics of draws, by name.

    Args:
        codes: what was drawn, as numbers: (keys, ...).
        numbers: what was rounded: (...).
    """
    draws = _Draws(codes, numbers)
    properties = (_signs, _neighbours, _fixed, _drawn, _keys, _elements, _mean, _variance)
    return {found.name: found for found in (look(draws) for look in properties)}


NAMES = ("signs", "neighbours", "fixed codes", "codes drawn", "keys", "elements", "mean", "variance")
"""A cause before what follows from it: draws that are alike have means that are off."""


def bound(comparisons: int) -> float:
    """How many standard deviations the largest of some numbers may be off."""
    return math.sqrt(2 * math.log(2 * comparisons * _COUNTED / RATE))


def _signs(draws: _Draws) -> Statistic:
    count = int(draws.inverted.sum())
    return Statistic("signs", count, 0, f"{count} draws have another sign than their number")


def _neighbours(draws: _Draws) -> Statistic:
    count = int(draws.strays.sum())
    shown = f"{count} of {draws.strays.size} draws are neither of the two codes around their number"
    if count:
        key, element = np.argwhere(draws.strays)[0]
        low, high = float(draws.right.lower[element]), float(draws.right.upper[element])
        shown += f"; the first is {float(draws.codes[key, element])}, but should be {low} or {high}"
    return Statistic("neighbours", count, 0, shown)


def _fixed(draws: _Draws) -> Statistic:
    moved = int(draws.strays[:, draws.right.lower == draws.right.upper].sum())
    return Statistic("fixed codes", moved, 0, f"{moved} draws moved a number that is a code, or is beyond the largest")


def _drawn(draws: _Draws) -> Statistic:
    """A code that is to be expected and is never drawn."""
    log_rate = math.log(RATE / _COUNTED / len(GRID))
    missing = []
    for code in GRID.tolist():
        chances = np.where(draws.right.upper == code, draws.right.chance, 0)
        chances = np.where(draws.right.lower == code, 1 - draws.right.chance, chances)
        with np.errstate(divide="ignore"):
            expected = len(draws.codes) * np.log1p(-chances).sum() < log_rate
        if expected and not (draws.codes == code).any():
            missing.append(code)
    return Statistic("codes drawn", len(missing), 0, f"never drawn: {missing or 'none'}")


def _mean(draws: _Draws) -> Statistic:
    """Of all draws, and of those between two codes whose chances are alike."""
    absolute = draws.deviations * draws.gaps
    variances = draws.variances * draws.gaps**2 * len(draws.codes)
    groups = {"all draws": np.ones(draws.bins.shape, bool)}
    for number in np.unique(draws.bins[draws.bins < _BINS]):
        low, part = GRID[number // _PARTS], number % _PARTS
        groups[f"numbers above {low:g} in eighth {part + 1} of the gap"] = draws.bins == number
    off = {
        name: _in_deviations(absolute[:, group].sum(), (absolute[:, group] ** 2).sum(), variances[group].sum())
        for name, group in groups.items()
    }
    worst = max(off, key=lambda name: abs(off[name]))
    shown = f"the mean of {worst} is off by {off[worst]:.3g} standard deviations"
    return Statistic("mean", float(abs(off[worst])), bound(_BINS + 1), shown)


def _variance(draws: _Draws) -> Statistic:
    expected, deviation = _squares(draws.right, len(draws.codes))
    found = float(((draws.deviations * draws.gaps) ** 2).sum())
    ratio = found / expected if expected else math.inf
    off = abs(found - expected) / deviation if deviation else math.inf
    shown = f"the variance is {ratio:.4g} times that of the codes around the numbers"
    return Statistic("variance", off, bound(1), shown)


def _squares(right: Neighbours, keys: int) -> tuple[float, float]:
    """Mean and standard deviation of the sum of squared deviations over all draws."""
    variances, squares = right.chance * (1 - right.chance), right.gaps**2
    spread = (squares**2 * variances * (1 - 2 * right.chance) ** 2).sum()
    return keys * float((squares * variances).sum()), math.sqrt(keys * float(spread))


def _keys(draws: _Draws) -> Statistic:
    """Whether the draws of two keys are alike."""
    squares = draws.residuals**2
    sums, spreads = draws.residuals @ draws.residuals.T, squares @ squares.T
    off = np.abs(np.triu(_in_deviations(sums, spreads, (draws.variances**2).sum()), 1))
    one, other = np.unravel_index(np.argmax(off), off.shape)
    shown = f"draws of the keys {one} and {other} go together by {off[one, other]:.3g} standard deviations"
    return Statistic("keys", float(off.max()), bound(off.size), shown)


def _elements(draws: _Draws) -> Statistic:
    """Whether draws of elements at a distance, in the order in which they lie, are alike."""
    sums = _at_distances(draws.residuals).sum(0)
    spreads = _at_distances(draws.residuals**2).sum(0)
    expected = _at_distances(draws.variances[None])[0] * len(draws.codes)
    off = np.abs(_in_deviations(sums, spreads, expected))
    worst = int(np.argmax(off))
    shown = f"draws of elements {worst + 1} apart go together by {off[worst]:.3g} standard deviations"
    return Statistic("elements", float(off[worst]), bound(off.size), shown)


def _at_distances(rows: Array) -> Array:
    """Sums of the products of elements at a distance, from one to half of a row, of each row, by Fourier's transform.

    Further apart there are few of them.
    """
    length = rows.shape[1]
    products = np.abs(np.fft.rfft(rows, 2 * length)) ** 2
    return np.fft.irfft(products, 2 * length)[:, 1 : length // 2 + 1]


def _in_deviations(total: Any, squares: Any, variance: Any) -> Any:  # noqa: ANN401 - numbers or arrays
    """Sums of terms whose mean is zero in units of their standard deviation; zero where there are none."""
    larger = np.maximum(np.maximum(squares, variance), 1e-9)  # what the transform leaves of a zero
    return total / np.sqrt(larger)


def power_of_mean(numbers: Array, keys: int, shift: float) -> float:
    """Probability of finding draws whose chance of the upper code is larger by a shift."""
    right = magnitudes(numbers)
    distances = np.where(right.upper > right.lower, right.gaps, 0)
    expected, _ = _squares(right, keys)
    return NormalDist().cdf(keys * shift * float(distances.sum()) / math.sqrt(expected) - bound(_BINS + 1))


def power_of_variance(numbers: Array, keys: int, factor: float) -> float:
    """Probability of finding draws whose variance is so many times the right one, all else being right."""
    expected, deviation = _squares(magnitudes(numbers), keys)
    return NormalDist().cdf(abs(factor - 1) * expected / deviation - bound(1))
