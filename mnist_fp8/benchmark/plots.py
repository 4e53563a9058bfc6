"""Pictures of a benchmark, as ``svg`` elements for its page."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mnist_fp8.benchmark.results import LOOPS, Benchmark, Way
from mnist_fp8.benchmark.roofline import Shape
from mnist_fp8.core.modes import Mode
from mnist_fp8.core.spread import Spread
from mnist_fp8.gate.reports import svg
from mnist_fp8.gate.reports.svg import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Told apart by every eye, on light ground and on dark: colours of Okabe and Ito.
_MODES: dict[Mode, dict[str, Any]] = {
    Mode.FLAX_BF16: {"color": "#999999", "marker": "o"},
    Mode.TE_BF16: {"color": "#56b4e9", "marker": "s"},
    Mode.TE_FP8_DELAYED: {"color": "#d55e00", "marker": "^"},
    Mode.TE_FP8_CURRENT: {"color": "#009e73", "marker": "v"},
}
_WAYS = {Way.OURS: "#3b82f6", Way.DEVICE_LOOP: "#d97706", Way.HOST_LOOP: "#b8a58a"}
CROSS = "\N{MULTIPLICATION SIGN}"
_DIRECTIONS = {False: "forward", True: "forward and backward"}
_WIDTH = 8.4
"""Inches: the width of a page on a screen."""
_LINE: dict[str, Any] = {"linewidth": 1.4, "markersize": 5, "capsize": 2, "elinewidth": 0.9}
_BAR = 0.27
"""Width of a bar, of the distance of two groups."""


def epochs(found: Benchmark) -> str:
    """Seconds of an epoch: each mode a group, each way a bar, and how many times faster ours is above the loops."""

    def draw(figure: "Figure") -> None:
        figure.set_figheight(3.4)
        axes = figure.subplots()
        for number, way in enumerate(Way):
            places = [group + (number - 1) * _BAR for group, _ in enumerate(found.modes)]
            times = [found.epochs_of(mode, way).seconds for mode in found.modes]
            heights = [each.median for each in times]
            axes.bar(places, heights, 0.9 * _BAR, color=_WAYS[way], label=way.value)
            axes.errorbar(places, heights, _whiskers(times), fmt="none", ecolor=INK, elinewidth=0.9, capsize=2)
            for place, mode, seconds in zip(places, found.modes, times, strict=True):
                said = f"{three_digits(found.faster_than_loop(mode, way).median)}{CROSS}" if way in LOOPS else ""
                text = f"{said}\n{seconds.median:.2f} s".strip()
                axes.annotate(
                    text, (place, seconds.highest), (0, 3), textcoords="offset points", ha="center", fontsize=8
                )
        axes.set_xticks(range(len(found.modes)), [mode.value for mode in found.modes])
        axes.grid(visible=False, axis="x")
        axes.set_axisbelow(True)
        axes.margins(y=0.16)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("seconds of an epoch")
        figure.legend(loc="outside upper left", ncols=len(Way))

    return svg.svg("benchmark epochs", draw, width=_WIDTH)


def rates(found: Benchmark) -> str:
    """Operations in a second of square layers by their size, under what the tensor cores can do."""
    sizes = [shape for shape in found.shapes if len(set(shape)) == 1]

    def draw_direction(axes: "Axes", *, backward: bool) -> None:
        for mode in found.modes:
            layers = [found.layer(mode, shape, backward=backward) for shape in sizes]
            tera = [Spread(tuple(rate / 1e12 for rate in layer.rate.values)) for layer in layers]
            _line(axes, [shape[0] for shape in sizes], tera, mode)
        if found.peaks:
            for name, peak in (("BF16", found.peaks.bf16), ("FP8", found.peaks.fp8)):
                axes.axhline(peak / 1e12, color=INK, linestyle="--", linewidth=0.9)
                axes.annotate(
                    f"{name} peak {peak / 1e12:,.0f}",
                    (0.01, peak / 1e12),
                    (0, 3),
                    xycoords=("axes fraction", "data"),
                    textcoords="offset points",
                    fontsize=8,
                )
        axes.set_xscale("log", base=2)
        axes.set_xticks([shape[0] for shape in sizes], [f"{shape[0]:,}" for shape in sizes])
        axes.margins(y=0.1)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("M = K = N")

    return _both_directions("benchmark rates", "TFLOP/s", found.modes, draw_direction)


def speed_ups(found: Benchmark) -> str:
    """How many times faster than Flax BF16 a layer is, by its size."""
    modes = [mode for mode in found.modes if mode is not Mode.FLAX_BF16]

    def draw_direction(axes: "Axes", *, backward: bool) -> None:
        places = range(len(found.shapes))
        axes.axhline(1, color=INK, linestyle="--", linewidth=0.9)
        for mode in modes:
            ratios = [found.layer_speed_up(mode, shape, backward=backward) for shape in found.shapes]
            _line(axes, places, ratios, mode)
        axes.set_xticks(places, [size_of(shape) for shape in found.shapes], rotation=35, ha="right")
        axes.set_ylim(bottom=0)
        axes.set_xlabel(f"M {CROSS} K {CROSS} N")

    return _both_directions("benchmark speed-ups", "times as fast as Flax BF16", modes, draw_direction)


def size_of(shape: Shape) -> str:
    """M, K and N, or the one size of a square."""
    return f"{shape[0]:,}³" if len(set(shape)) == 1 else f" {CROSS} ".join(f"{size:,}" for size in shape)


def three_digits(value: float) -> str:
    """A number as it is easily read, without an exponent."""
    places = 2 if value < 10 else 1 if value < 100 else 0  # noqa: PLR2004
    return f"{value:,.{places}f}"


def _both_directions(name: str, quantity: str, modes: Sequence[Mode], draw_direction: Any) -> str:  # noqa: ANN401
    def draw(figure: "Figure") -> None:
        figure.set_figheight(3.4)
        every_axes = figure.subplots(1, 2, sharey=True)
        for axes, (backward, title) in zip(every_axes, _DIRECTIONS.items(), strict=True):
            draw_direction(axes, backward=backward)
            axes.set_title(title)
        every_axes[0].set_ylabel(quantity)
        handles, labels = every_axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=len(modes))

    return svg.svg(name, draw, width=_WIDTH)


def _line(axes: "Axes", places: Sequence[int], values: Sequence[Spread], mode: Mode) -> None:
    """Medians, with whiskers from the lowest repeat to the highest."""
    medians = [value.median for value in values]
    axes.errorbar(places, medians, _whiskers(values), label=mode.value, **_MODES[mode], **_LINE)


def _whiskers(values: Sequence[Spread]) -> tuple[list[float], list[float]]:
    """How far the lowest and the highest repeat are from the median."""
    return [each.median - each.lowest for each in values], [each.highest - each.median for each in values]
