"""Claim: on a GPU, two epochs of MNIST train every mode to its accuracy, and FP8 keeps up with BF16.

Promised by TE's MNIST example. Thresholds are those of a measured spread (docs/accuracy.md); one GPU and two.

What a failure means for an upgrade: FP8 training on kernels does not converge as it did.
"""

import dataclasses
import functools
import math

import pytest

from support.short_run import FULL_THRESHOLDS, MODES, Trained, full_run, trained

pytestmark = pytest.mark.gpu

FP8_MODES = [mode for mode in MODES if "fp8" in mode]


@functools.cache
def result_of(mode: str, devices: int = 1) -> Trained:
    """The full run of a mode, done once."""
    mesh = (("dp", devices),) if devices > 1 else ()
    return trained(dataclasses.replace(full_run(mode), mesh=mesh))


def assert_trained(result: Trained, mode: str) -> None:
    """Compare a run with its mode's threshold."""
    __tracebackhide__ = True
    assert result.status == "complete", f"{mode}: the run ended as {result.status}"
    threshold = FULL_THRESHOLDS[mode]
    assert result.test_accuracy >= threshold, (
        f"{mode}: test accuracy={result.test_accuracy:.4f}, but should be at least {threshold}"
        " (mean minus five standard deviations over seeds: docs/accuracy.md)"
    )
    assert math.isfinite(result.test_loss), f"{mode}: test loss={result.test_loss}"


@pytest.mark.parametrize("mode", MODES)
def test_full_mnist_reaches_the_threshold_of_its_mode(mode: str) -> None:
    assert_trained(result_of(mode), mode)


@pytest.mark.parametrize("mode", FP8_MODES)
def test_fp8_keeps_up_with_bf16_on_full_mnist(mode: str) -> None:
    bf16, fp8 = (result_of(name).test_accuracy for name in ("te-bf16", mode))
    margin = FULL_THRESHOLDS[f"te-bf16 minus {mode}"]
    assert bf16 - fp8 <= margin, (
        f"{mode}: test accuracy={fp8:.4f} is {bf16 - fp8:.4f} below BF16's {bf16:.4f}, but should be at most {margin}"
        " (mean plus five standard deviations over seeds: docs/accuracy.md)"
    )


@pytest.mark.devices(2)
@pytest.mark.parametrize("mode", FP8_MODES)
def test_full_mnist_on_two_gpus_reaches_the_same_threshold(mode: str) -> None:
    assert_trained(result_of(mode, devices=2), mode)
