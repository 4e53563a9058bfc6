"""The page of healthy releases says how rare a false alarm is, as far as its runs can tell."""

import dataclasses
from pathlib import Path

import pytest

from proofs.healthy import Outcome, Run, Series, kept, most_red, page
from proofs.mutation.results import Notes

GREEN, RED = Outcome(0, "9 passed", [], 3.0), Outcome(1, "1 failed, 8 passed", ["test_a"], 4.0)


@pytest.mark.parametrize(("red", "count", "most"), [(0, 1, 0.95), (0, 59, 0.0495), (1, 10, 0.394), (3, 3, 1.0)])
def test_share_of_red_runs_is_bounded(red: int, count: int, most: float) -> None:
    """None of n is red with a chance of 5% where a share of 1 - 0.05**(1/n) is; 1 of 10 is in tables."""
    assert most_red(red, count) == pytest.approx(most, rel=0.01)


def test_page_counts_red_runs_by_release() -> None:
    runs = {Run("2.19.0", 0, 0): GREEN, Run("2.19.0", 1, 2): RED, Run("2.20.2", 0, 0): GREEN}
    written = page([Series("11111111", runs)], ("attention",))
    assert "**1 of 3 runs were red**: with 95% confidence, fewer than 86% of all runs" in written
    assert "| 11111111 | 2.19.0 | 2 | 1 | 3, 4 | 1 failed, 8 passed |" in written
    assert "Only the claims attention." in written


def test_runs_of_earlier_claims_stay_in_the_count(tmp_path: Path) -> None:
    run = Run("2.20.2", 3, 2)
    for stem, outcome in (("00000000", RED), ("11111111", GREEN), ("00000000-22222222", RED)):  # the last: some claims
        Notes(tmp_path / f"{stem}.jsonl").add(run.name, dataclasses.asdict(outcome))
    series = kept(tmp_path, "00000000", "")
    assert series == [Series("11111111", {run: GREEN}), Series("00000000", {run: RED})]
    assert kept(tmp_path, "11111111", "") == series[::-1]
    written = page(series, ("attention",))
    assert "**1 of 2 runs were red**" in written
    assert "1 of the runs are of the claims as they are" in written
