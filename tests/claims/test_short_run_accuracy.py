"""Claim: a short training run learns MNIST in every mode, and FP8 keeps up with BF16.

Promised by TE's MNIST example, which its own tests train in BF16 and FP8. The whole model is trained, on images of 9 by
9 pixels (docs/explanation/accuracy.md). This is a smoke test with measured margins: parity, structure and metadata
are verified elsewhere, far more sharply.

What a failure means for an upgrade: FP8 training does not converge as it did.
"""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import pytest

from mnist_fp8.training.runs import train_and_evaluate
from support.short_run import FP8_MODES, MODES, THRESHOLDS, Trained, assert_keeps_up, assert_trained, short_run, trained

pytestmark = pytest.mark.training_run


def modes(names: Iterable[str]) -> list[Any]:
    """Parameters ``mode`` of a test, each with what it needs."""
    recipes = {name: MODES[name][1].name for name in names if name in FP8_MODES}
    return [
        pytest.param(name, marks=[pytest.mark.recipe(recipes[name])] if name in recipes else [], id=name)
        for name in names
    ]


@functools.cache
def result_of(mode: str) -> Trained:
    """The short run of a mode, done once."""
    return trained(short_run(mode))


@pytest.mark.parametrize("mode", modes(MODES))
def test_mode_reaches_its_threshold(mode: str) -> None:
    assert_trained(result_of(mode), mode, THRESHOLDS)


@pytest.mark.parametrize("mode", modes(FP8_MODES))
def test_fp8_keeps_up_with_bf16(mode: str) -> None:
    assert_keeps_up(result_of("te-bf16"), result_of(mode), mode, THRESHOLDS)


def test_same_seed_gives_the_same_numbers() -> None:
    """On one machine; the seed decides parameters, order and dropout."""
    config = dataclasses.replace(short_run("te-fp8-delayed", seed=7), train_size=320, test_size=480)
    first, second = (train_and_evaluate(config).epochs[-1] for _ in range(2))
    other = train_and_evaluate(dataclasses.replace(config, seed=8)).epochs[-1]
    figures = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
    for figure in figures:
        found, wanted = getattr(second, figure), getattr(first, figure)
        assert found == wanted, f"{figure} of the second run={found!r}, but should be {wanted!r} as in the first"
    assert other.train_loss != first.train_loss, "Control: another seed should give other numbers"
