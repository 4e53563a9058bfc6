"""Claim: a short training run learns MNIST in every mode, and FP8 keeps up with BF16.

Promised by TE's MNIST example, which its own tests train in BF16 and FP8. This is a smoke test with measured margins:
parity, structure and metadata are verified elsewhere, far more sharply.

What a failure means for an upgrade: FP8 training does not converge as it did.
"""

import dataclasses
import functools
import math

import pytest

from mnist_fp8.train import train_and_evaluate
from support.short_run import MODES, THRESHOLDS, Trained, short_run, trained


@functools.cache
def result_of(mode: str) -> Trained:
    """The short run of a mode, done once."""
    return trained(short_run(mode))


@pytest.mark.parametrize("mode", MODES)
def test_mode_reaches_its_threshold(mode: str) -> None:
    result = result_of(mode)
    assert result.status == "complete", f"{mode}: the run ended as {result.status}"
    threshold = THRESHOLDS[mode]
    assert result.test_accuracy >= threshold, (
        f"{mode}: test accuracy={result.test_accuracy:.4f}, but should be at least {threshold}"
        " (mean minus five standard deviations over seeds: docs/accuracy.md)"
    )
    assert math.isfinite(result.test_loss), f"{mode}: test loss={result.test_loss}"


@pytest.mark.parametrize("mode", [mode for mode in MODES if "fp8" in mode])
def test_fp8_keeps_up_with_bf16(mode: str) -> None:
    bf16, fp8 = (result_of(name).test_accuracy for name in ("te-bf16", mode))
    margin = THRESHOLDS[f"te-bf16 minus {mode}"]
    assert bf16 - fp8 <= margin, (
        f"{mode}: test accuracy={fp8:.4f} is {bf16 - fp8:.4f} below BF16's {bf16:.4f}, but should be at most {margin}"
        " (mean plus five standard deviations over seeds: docs/accuracy.md)"
    )


def test_same_seed_gives_the_same_numbers() -> None:
    """On one machine; the seed decides parameters, order and dropout."""
    config = dataclasses.replace(short_run("te-fp8-delayed", seed=7), train_size=160, test_size=400)
    first, second = (train_and_evaluate(config).epochs[-1] for _ in range(2))
    other = train_and_evaluate(dataclasses.replace(config, seed=8)).epochs[-1]
    figures = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
    for figure in figures:
        found, wanted = getattr(second, figure), getattr(first, figure)
        assert found == wanted, f"{figure} of the second run={found!r}, but should be {wanted!r} as in the first"
    assert other.train_loss != first.train_loss, "Control: another seed should give other numbers"
