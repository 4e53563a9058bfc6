"""A benchmark as it could have been measured on an H100, to render pages from; no number in it was measured."""

from mnist_fp8.benchmark.results import Benchmark, Epochs, Layer, Way
from mnist_fp8.benchmark.roofline import Shape, kernels, least_seconds, peaks_of
from mnist_fp8.core.modes import Mode
from mnist_fp8.core.spread import Spread

H100 = "NVIDIA H100 80GB HBM3"
SHAPES: tuple[Shape, ...] = (
    (64, 32, 32),
    (64, 128, 32),
    (64, 12544, 128),
    *((size, size, size) for size in (1024, 2048, 4096, 8192)),
)
_EPOCHS = {
    Mode.FLAX_BF16: (0.22, 1.9, 2.1),
    Mode.TE_BF16: (0.24, 2.2, 2.4),
    Mode.TE_FP8_DELAYED: (0.32, 3.0, 3.2),
    Mode.TE_FP8_CURRENT: (0.29, 2.7, 2.9),
}
"""Seconds of an epoch, in each way."""
_EFFICIENCY = {Mode.FLAX_BF16: 0.67, Mode.TE_BF16: 0.62, Mode.TE_FP8_DELAYED: 0.55, Mode.TE_FP8_CURRENT: 0.52}
_NOISE = (1.0, 0.97, 1.04)
"""Of the repeats."""


def on_h100(*, is_host: bool = False, device: str = H100, left_out: dict[Mode, str] | None = None) -> Benchmark:
    """A benchmark of all modes and ways, with three repeats."""
    left_out = left_out or {}
    modes = [mode for mode in Mode if mode not in left_out]
    return Benchmark(
        environment={
            "run": "kernel run: Transformer Engine with its CUDA extension, on a GPU",
            "transformer-engine": "2.20.2",
            "jax": "0.11.2",
            "flax": "0.12.10",
            "python": "3.12.3",
            "device": f"1 x {device} (compute capability 9.0)",
        },
        is_host=is_host,
        device=device,
        images=60_000,
        batch_size=64,
        left_out=left_out,
        epochs=[_epochs(mode, way) for mode in modes for way in Way],
        call=_spread(9e-6),
        applications=32,
        layers=[
            layer(mode, shape, backward=backward) for shape in SHAPES for backward in (False, True) for mode in modes
        ],
    )


def _epochs(mode: Mode, way: Way) -> Epochs:
    seconds = dict(zip(Way, _EPOCHS[mode], strict=True))[way]
    return Epochs(mode, way, seconds + 9.5, _spread(seconds, 1 if way is Way.OURS else 2), 0.9871)


def layer(mode: Mode, shape: Shape, *, backward: bool) -> Layer:
    """A layer that takes its least time, divided by what such layers reach, and a few microseconds to start."""
    peaks = peaks_of(H100)
    assert peaks
    work = kernels(mode, shape, backward=backward)
    seconds = least_seconds(mode, work, peaks) / _EFFICIENCY[mode] + 3e-6 * len(work)
    return Layer(mode, shape, backward, _spread(seconds, list(Mode).index(mode)))


def _spread(seconds: float, turn: int = 0) -> Spread:
    return Spread(tuple(seconds * _NOISE[(number + turn) % len(_NOISE)] for number in range(len(_NOISE))))
