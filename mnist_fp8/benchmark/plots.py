"""The picture of a benchmark. Nothing here measures."""

import io
from collections.abc import Sequence

from mnist_fp8.benchmark.report import size_of
from mnist_fp8.benchmark.results import Benchmark, Way
from mnist_fp8.core.modes import Mode
from mnist_fp8.core.spread import Spread


def picture(benchmark: Benchmark) -> bytes:
    """Draw seconds of an epoch by mode and loop, and speed-ups of dense layers by size, as a PNG.

    Points are medians; whiskers reach from the lowest repeat to the highest.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - half a second, and only where something is drawn

    figure = Figure(figsize=(12, 4.5), layout="constrained")
    epochs, layers = figure.subplots(1, 2)
    for offset, way in zip((-0.25, 0, 0.25), Way, strict=True):
        seconds = [benchmark.epochs_of(mode, way).seconds for mode in benchmark.modes]
        places = [group + offset for group, _ in enumerate(seconds)]
        epochs.bar(places, [time.median for time in seconds], 0.22, yerr=_whiskers(seconds), label=way.value)
    epochs.set_xticks(range(len(benchmark.modes)), [mode.value for mode in benchmark.modes])
    epochs.set(title="An epoch", ylabel="seconds")
    for mode in benchmark.modes:
        if mode is not Mode.FLAX_BF16:
            ratios = [benchmark.layer_speed_up(mode, shape, backward=True) for shape in benchmark.shapes]
            medians = [ratio.median for ratio in ratios]
            layers.errorbar(range(len(ratios)), medians, _whiskers(ratios), marker="o", capsize=2, label=mode.value)
    layers.axhline(1, color="black", linestyle="--")
    sizes = [size_of(shape) for shape in benchmark.shapes]
    layers.set_xticks(range(len(sizes)), sizes, rotation=35, ha="right")
    layers.set(title="Dense layers, forward and backward", ylabel="times as fast as Flax BF16")
    for axes in (epochs, layers):
        axes.set_ylim(bottom=0)
        axes.legend()
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=120)
    return png.getvalue()


def _whiskers(values: Sequence[Spread]) -> tuple[list[float], list[float]]:
    """How far the lowest and the highest repeat are from the median."""
    return [value.median - value.lowest for value in values], [value.highest - value.median for value in values]
