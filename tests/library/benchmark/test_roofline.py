"""What a dense layer costs at least: bytes and operations counted by hand."""

import pytest

from mnist_fp8.benchmark.roofline import Kernel, Peaks, intensity, kernels, least_seconds, operations, peaks_of
from mnist_fp8.core.modes import Mode, Precision, RecipeConfig

SHAPE = (16, 32, 64)
X, KERNEL, Y = 16 * 32, 32 * 64, 16 * 64
"""Elements of each tensor."""
PRODUCT = 2 * 16 * 32 * 64
PEAKS = Peaks(bf16=100.0, fp8=200.0, bandwidth=10.0, source="made up")


def counted(mode: Mode, *, backward: bool) -> dict[str, tuple[int, int]]:
    """Bytes and operations by kernel."""
    return {each.name: (each.bytes, each.operations) for each in kernels(mode, SHAPE, backward=backward)}


@pytest.mark.parametrize("mode", [Mode.FLAX_BF16, Mode.TE_BF16])
def test_bf16_casts_its_kernel_and_multiplies(mode: Mode) -> None:
    forward = {
        "cast: kernel": (KERNEL * (4 + 2), 0),
        "product: y": (2 * (X + KERNEL + Y), PRODUCT),
    }
    assert counted(mode, backward=False) == forward
    assert counted(mode, backward=True) == forward | {
        "product: gradient of x": (2 * (Y + KERNEL + X), PRODUCT),
        "product: gradient of the kernel": (2 * (X + Y) + 4 * KERNEL, PRODUCT),
    }


def test_delayed_scaling_reads_a_tensor_once_and_writes_its_codes() -> None:
    assert counted(Mode.TE_FP8_DELAYED, backward=False) == {
        "quantize: x": (X * (2 + 1), 0),
        "quantize: kernel": (KERNEL * (4 + 1), 0),
        "product: y": (X + KERNEL + 2 * Y, PRODUCT),
    }


def test_backward_pass_needs_every_tensor_transposed_as_well() -> None:
    assert counted(Mode.TE_FP8_DELAYED, backward=True) == {
        "quantize: x": (X * (2 + 2), 0),
        "quantize: kernel": (KERNEL * (4 + 2), 0),
        "product: y": (X + KERNEL + 2 * Y, PRODUCT),
        "quantize: gradient": (Y * (2 + 2), 0),
        "product: gradient of x": (Y + KERNEL + 2 * X, PRODUCT),
        "product: gradient of the kernel": (X + Y + 4 * KERNEL, PRODUCT),
    }


@pytest.mark.parametrize("backward", [False, True])
def test_current_scaling_reads_every_tensor_once_more(*, backward: bool) -> None:
    delayed, current = (counted(mode, backward=backward) for mode in (Mode.TE_FP8_DELAYED, Mode.TE_FP8_CURRENT))
    more = {"amax: x": (X * 2, 0), "amax: kernel": (KERNEL * 4, 0), "amax: gradient": (Y * 2, 0)}
    assert current == delayed | {name: cost for name, cost in more.items() if backward or name != "amax: gradient"}


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("backward", [False, True])
def test_operations_are_those_of_the_products(mode: Mode, *, backward: bool) -> None:
    work = kernels(mode, SHAPE, backward=backward)
    assert operations(SHAPE, backward=backward) == sum(each.operations for each in work) == PRODUCT * (1 + 2 * backward)
    assert intensity(work) == sum(each.operations for each in work) / sum(each.bytes for each in work)


def test_least_time_is_the_longer_of_computing_and_moving_and_kernels_add_up() -> None:
    computing, moving = Kernel("product", bytes=10, operations=400), Kernel("quantize", bytes=30)
    assert computing.seconds(Mode.TE_BF16, PEAKS) == 4.0
    assert computing.seconds(Mode.TE_FP8_DELAYED, PEAKS) == 2.0
    assert moving.seconds(Mode.TE_FP8_DELAYED, PEAKS) == 3.0
    assert least_seconds(Mode.TE_FP8_DELAYED, [computing, moving], PEAKS) == 5.0


@pytest.mark.parametrize(("device", "bandwidth"), [("NVIDIA H100 80GB HBM3", 3.35e12), ("NVIDIA H200", 4.8e12)])
def test_peaks_are_the_dense_ones(device: str, bandwidth: float) -> None:
    peaks = peaks_of(device)
    assert peaks
    assert (peaks.bf16, peaks.fp8, peaks.bandwidth) == (989.4e12, 1978.9e12, bandwidth)
    assert peaks.bf16 == pytest.approx(1979e12 / 2, rel=1e-3), "half of the data sheet's, which is with sparsity"
    assert peaks.fp8 == pytest.approx(3958e12 / 2, rel=1e-3)
    assert "NVIDIA" in peaks.source
    assert (peaks.of(Mode.TE_BF16), peaks.of(Mode.TE_FP8_CURRENT)) == (peaks.bf16, peaks.fp8)


@pytest.mark.parametrize("device", ["cpu", "NVIDIA H100 PCIe", "NVIDIA A100-SXM4-80GB"])
def test_peaks_of_other_devices_are_not_known(device: str) -> None:
    assert peaks_of(device) is None


def test_modes_say_what_to_train_in() -> None:
    assert {mode: (mode.precision, mode.recipe, mode.is_fp8) for mode in Mode} == {
        Mode.FLAX_BF16: (Precision.FLAX_BF16, None, False),
        Mode.TE_BF16: (Precision.TE_BF16, None, False),
        Mode.TE_FP8_DELAYED: (Precision.TE_FP8, RecipeConfig("DelayedScaling"), True),
        Mode.TE_FP8_CURRENT: (Precision.TE_FP8, RecipeConfig("Float8CurrentScaling"), True),
    }
