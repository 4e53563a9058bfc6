"""Claim: on a GPU, two epochs of MNIST train every mode to its accuracy, and FP8 keeps up with BF16.

Promised by TE's MNIST example. Thresholds are those of a measured spread (docs/explanation/accuracy.md); one GPU and
two.

What a failure means for an upgrade: FP8 training on kernels does not converge as it did.
"""

import dataclasses
import functools

import pytest

from support.short_run import (
    FP8_MODES,
    FULL_THRESHOLDS,
    HOPPER_MODES,
    Trained,
    assert_keeps_up,
    assert_trained,
    full_run,
    trained,
)

pytestmark = pytest.mark.gpu


@functools.cache
def result_of(mode: str, devices: int = 1) -> Trained:
    """The full run of a mode, done once."""
    mesh = (("dp", devices),) if devices > 1 else ()
    return trained(dataclasses.replace(full_run(mode), mesh=mesh))


@pytest.mark.parametrize("mode", HOPPER_MODES)
def test_full_mnist_reaches_the_threshold_of_its_mode(mode: str) -> None:
    assert_trained(result_of(mode), mode, FULL_THRESHOLDS)


@pytest.mark.parametrize("mode", [mode for mode in HOPPER_MODES if mode in FP8_MODES])
def test_fp8_keeps_up_with_bf16_on_full_mnist(mode: str) -> None:
    assert_keeps_up(result_of("te-bf16"), result_of(mode), mode, FULL_THRESHOLDS)


@pytest.mark.devices(2)
@pytest.mark.parametrize("mode", [mode for mode in HOPPER_MODES if mode in FP8_MODES])
def test_full_mnist_on_two_gpus_reaches_the_same_threshold(mode: str) -> None:
    assert_trained(result_of(mode, devices=2), mode, FULL_THRESHOLDS)
