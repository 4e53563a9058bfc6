"""A difference of chance is one that is small, and that other random numbers do not show."""

import math
from collections.abc import Callable, Sequence

import pytest

from support.layers import CHANCE, unless_by_chance


def check_of(distances: Sequence[float], asked: list[int]) -> Callable[[int, float], int]:
    """A check whose draws are these numbers of tolerances off; it notes which are asked for."""

    def check(draw: int, times: float) -> int:
        asked.append(draw)
        assert distances[draw] <= times, f"draw {draw} is {distances[draw]} tolerances off"
        return draw

    return check


def test_draw_that_agrees_decides_alone() -> None:
    asked: list[int] = []
    assert unless_by_chance(check_of([0.5], asked)) == 0
    assert asked == [0]


@pytest.mark.parametrize("others", [(0, 0, 0), (0, 2, 0), (9, 0, 0)])
def test_small_difference_that_most_other_draws_do_not_show_is_chance(others: tuple[float, ...]) -> None:
    assert unless_by_chance(check_of([CHANCE, *others], [])) == 0


@pytest.mark.parametrize(
    "distances",
    [(2, 2, 2, 0), (2, 2, 2, 2), (2, math.nan, 0, math.nan), (2 * CHANCE, 0, 0, 0), (math.nan, 0, 0, 0)],
    ids=["two others", "each draw", "none at all in others", "large", "none at all"],
)
def test_difference_that_others_show_or_that_is_large_is_a_failure(distances: tuple[float, ...]) -> None:
    with pytest.raises(AssertionError, match="draw 0 is"):
        unless_by_chance(check_of(distances, []))
