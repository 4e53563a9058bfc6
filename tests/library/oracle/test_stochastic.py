"""Tests of the statistics of stochastic rounding, on draws by NumPy that are right, or wrong in one way."""

from collections.abc import Callable

import numpy as np
import pytest

from mnist_fp8.oracle import stochastic
from mnist_fp8.oracle.blocks import GRID, neighbours
from mnist_fp8.oracle.dense import Array

KEYS, SHAPE = 64, (64, 96)


def numbers(seed: int = 0) -> Array:
    """Numbers of which some are codes and some are beyond the largest."""
    drawn = np.random.default_rng(seed).normal(0, 2.5, SHAPE)
    drawn[0, :8], drawn[1, :8] = GRID, -GRID
    return drawn.astype(np.float32)


def draw(drawn: np.random.Generator, chance: Callable[[Array], Array] = lambda c: c, **shapes: int) -> Array:
    """Rounded numbers; random numbers are shared along an axis whose number of them is given."""
    values = numbers()
    right = neighbours(values)
    shape = (shapes.get("keys", KEYS), SHAPE[0], shapes.get("columns", SHAPE[1]))
    uniform = np.repeat(drawn.random(shape), SHAPE[1] // shape[2], axis=2)
    codes = np.where(uniform < chance(right.chance), right.upper, right.lower)
    return np.broadcast_to(codes, (KEYS, *SHAPE))


def without(code: float, values: Array, drawn: np.random.Generator) -> Array:
    """Rounded to a grid that lacks a code."""
    grid = GRID[code != GRID]
    size = np.minimum(np.abs(values), 6)
    low = grid[np.searchsorted(grid, size, side="right") - 1]
    high = grid[np.searchsorted(grid, size, side="left")]
    up = drawn.random((KEYS, *SHAPE)) * np.where(high > low, high - low, 1) < size - low
    return np.where(up, high, low) * np.sign(values)


def failing(codes: Array) -> set[str]:
    return {name for name, statistic in stochastic.statistics(codes, numbers()).items() if not statistic.holds}


@pytest.mark.parametrize("seed", range(5))
def test_right_draws_pass(seed: int) -> None:
    found = stochastic.statistics(draw(np.random.default_rng(seed)), numbers())
    assert tuple(found) == stochastic.NAMES
    assert [statistic.shown for statistic in found.values() if not statistic.holds] == []


def test_right_draws_of_few_elements_and_keys_pass() -> None:
    """Where terms are rare, and sums far from Gaussian."""
    drawn = np.random.default_rng(3)
    for _ in range(300):
        values = drawn.normal(0, 3, 40)
        right = neighbours(values)
        codes = np.where(drawn.random((6, 40)) < right.chance, right.upper, right.lower)
        wrong = [found.shown for found in stochastic.statistics(codes, values).values() if not found.holds]
        assert wrong == []


def one_further(codes: Array, share: float, drawn: np.random.Generator) -> Array:
    """A share of all draws is one code further from zero."""
    beyond = GRID[np.minimum(np.searchsorted(GRID, np.abs(codes)) + 1, len(GRID) - 1)]
    return np.where(drawn.random(codes.shape) < share, np.copysign(beyond, codes), codes)


def noisier(factor: float, drawn: np.random.Generator) -> Array:
    """Draws whose mean is right and whose variance is larger by a factor."""
    codes, values = draw(drawn), numbers()
    right = stochastic.magnitudes(values)
    variance = right.chance * (1 - right.chance) * right.gaps**2
    variance *= variance.sum() / variance[right.lower > 0].sum() * (right.lower > 0)  # so that no sign changes
    noise = np.sqrt((factor - 1) * variance).reshape(SHAPE)
    return codes + noise * drawn.choice([-1, 1], codes.shape)


def moved(codes: Array) -> Array:
    """One number that is a code became the next."""
    codes = codes.copy()
    codes[5, 0, 2] = 1.5
    return codes


BIASED, MUCH_BIASED = {"mean"}, {"mean", "variance"}
FAULTS: dict[str, tuple[Callable[[np.random.Generator], Array], set[str]]] = {
    "1% biased": (lambda drawn: draw(drawn, lambda chance: np.where(chance > 0, chance + 0.01, chance)), BIASED),
    "biased towards the nearest": (
        lambda drawn: draw(drawn, lambda chance: chance - 0.05 * np.sin(2 * np.pi * chance)),
        MUCH_BIASED,
    ),
    "nearest": (lambda drawn: draw(drawn, np.round), MUCH_BIASED),
    "always down": (lambda drawn: draw(drawn, np.zeros_like), MUCH_BIASED),
    "10% more variance": (lambda drawn: noisier(1.1, drawn), {"variance", "neighbours"}),
    "one random number for two columns": (lambda drawn: draw(drawn, columns=SHAPE[1] // 2), {"elements"}),
    "one random number for a row": (lambda drawn: draw(drawn, columns=1), {"elements", "keys"}),
    "one key for all": (lambda drawn: draw(drawn, keys=1), {"keys", "elements", "mean"}),
    "without 1.5": (
        lambda drawn: without(1.5, numbers(), drawn),
        {"codes drawn", "neighbours", "fixed codes", "variance"},
    ),
    "a code that moves": (lambda drawn: moved(draw(drawn)), {"fixed codes", "neighbours"}),
    "one code further": (lambda drawn: one_further(draw(drawn), 1e-3, drawn), {"neighbours", "fixed codes"}),
    "without signs": (lambda drawn: np.abs(draw(drawn)), {"signs"}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_named(fault: str) -> None:
    make, expected = FAULTS[fault]
    assert failing(make(np.random.default_rng(7))) == expected


def test_what_is_not_a_number_does_not_pass() -> None:
    codes = np.array(draw(np.random.default_rng(9)))
    codes[0, 3, 3] = np.nan
    assert failing(codes) >= {"neighbours", "mean", "variance"}


def test_power_is_the_share_of_faults_that_are_found() -> None:
    """Few draws, so that about half is found."""
    below = np.repeat(np.arange(len(GRID) - 1), 19)
    values = GRID[below] + np.diff(GRID)[below] * np.random.default_rng(1).uniform(0.05, 0.75, below.size)
    right = neighbours(values)
    drawn, shift = np.random.default_rng(2), 0.05
    power = stochastic.power_of_mean(values, 36, shift)
    assert 0.2 < power < 0.8, f"Control: {power}"
    found = 0
    for _ in range(100):
        codes = np.where(drawn.random((36, values.size)) < right.chance + shift, right.upper, right.lower)
        found += not stochastic.statistics(codes, values)["mean"].holds
    assert abs(found / 100 - power) < 0.2
    assert stochastic.power_of_mean(values, 18, shift) < power < stochastic.power_of_mean(values, 72, shift)


def test_power_grows_with_the_fault_and_the_draws() -> None:
    values = numbers()
    assert stochastic.power_of_variance(values, KEYS, 1.0) < 1e-6
    assert stochastic.power_of_variance(values, KEYS, 1.005) < stochastic.power_of_variance(values, KEYS, 1.02)
    assert stochastic.power_of_variance(values, 1, 1.1) < stochastic.power_of_variance(values, KEYS, 1.1)
