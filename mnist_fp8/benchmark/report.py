"""Render a benchmark: tables for the terminal and as Markdown. Nothing here measures."""

import dataclasses
import re
from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from mnist_fp8 import __version__
from mnist_fp8.benchmark.results import ACCURACY_EPOCHS, Benchmark, Epochs, Layer, Way
from mnist_fp8.benchmark.roofline import Peaks, Shape, kernels, least_seconds, operations
from mnist_fp8.core.modes import Mode
from mnist_fp8.core.spread import Spread
from mnist_fp8.gate.reports.markup import counted, generated_by, literal, row

TITLE = "How fast training is"
PICTURE = "benchmark.png"
"""The file beside the Markdown that it shows; `plots.picture` draws it."""
CROSS = "\N{MULTIPLICATION SIGN}"
HOST_WARNING = (
    "Host run on a CPU: everything is small, FP8 is emulated, and our epoch is a loop, too. Times here say nothing"
    " about kernels; they only show that the benchmark runs."
)
_SIZE = f"M {CROSS} K {CROSS} N"
_UNITS = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9))
_SPEED_UPS = ((False, " forward"), (True, " with the backward pass"))
UNKNOWN_PEAKS = "What the device can do at most is not known for this device, so there is no share of it."


@dataclasses.dataclass(frozen=True)
class Grid:
    """A table of texts.

    Attributes:
        title: what it shows.
        words: columns at the left that say what the row is; the others are numbers.
        heading: of each column.
        rows: texts of the cells.
        notes: how to read it.
    """

    title: str
    words: int
    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


# --- numbers in words ------------------------------------------------------------------------------------------------


def size_of(shape: Shape) -> str:
    """M, K and N, or the one size of a square."""
    return f"{shape[0]:,}³" if len(set(shape)) == 1 else f" {CROSS} ".join(f"{size:,}" for size in shape)


def three_digits(value: float) -> str:
    """A number as it is easily read, without an exponent."""
    places = 2 if value < 10 else 1 if value < 100 else 0  # noqa: PLR2004
    return f"{value:,.{places}f}"


def duration(seconds: float) -> str:
    """A time in the unit in which it is easily read."""
    return _in_unit(seconds, seconds)


def spread_of_times(seconds: Spread) -> str:
    """Median, lowest and highest of some times, in the unit of the median."""
    lowest, highest = (_in_unit(value, seconds.median).partition(" ")[0] for value in (seconds.lowest, seconds.highest))
    return f"{duration(seconds.median)} ({lowest}..{highest})"


def times(ratio: Spread) -> str:
    """A ratio with its spread: median, lowest and highest."""
    return f"{three_digits(ratio.median)}{CROSS} ({three_digits(ratio.lowest)}..{three_digits(ratio.highest)})"


def _in_unit(seconds: float, like: float) -> str:
    """A time in the unit that fits another one."""
    unit, size = next((unit for unit in _UNITS if like >= unit[1]), _UNITS[-1])
    return f"{three_digits(seconds / size)} {unit}"


def _share(part: float) -> str:
    return f"{part:.0%}" if part >= 0.01 else "<1%"  # noqa: PLR2004


def _tera(rate: float) -> str:
    return three_digits(rate / 1e12) if rate >= 1e11 else f"{rate / 1e12:.2g}"  # noqa: PLR2004


# --- tables ----------------------------------------------------------------------------------------------------------


def summary(benchmark: Benchmark) -> list[str]:
    """What the numbers come to, in a few sentences; none of a host run."""
    if benchmark.is_host:
        return []
    loops = ", ".join(f"{times(benchmark.faster_than_loops(mode))} in {mode.value}" for mode in benchmark.modes)
    lines = [f"Our epoch is faster than the faster of two step-by-step loops: {loops}."]
    largest = max(benchmark.shapes, key=lambda shape: operations(shape, backward=False))
    for mode in benchmark.modes:
        if mode.is_fp8:
            layer = benchmark.layer(mode, largest, backward=False)
            share = f", {_share(layer.of_peak(benchmark.peaks))} of the peak" if benchmark.peaks else ""
            both = (
                times(benchmark.layer_speed_up(mode, largest, backward=backward)) + name
                for backward, name in _SPEED_UPS
            )
            lines.append(
                f"Dense {size_of(largest)} in {mode.value}: {_tera(layer.rate.median)} TFLOP/s forward{share};"
                f" against Flax BF16 {' and '.join(both)}."
            )
    return lines


def epochs_grid(benchmark: Benchmark) -> Grid:
    """Our epoch against the loops, and the modes against each other."""
    heading = (
        "mode",
        "an epoch by",
        "seconds",
        "ours is faster",
        "ours against Flax BF16",
        "accuracy",
        "first epoch",
    )
    rows = tuple(_epochs_row(benchmark, epochs) for epochs in benchmark.epochs)
    repeats = len(benchmark.epochs[0].seconds.values)
    notes = (
        (
            f"An epoch is {benchmark.images:,} images in batches of {benchmark.batch_size}. Median (lowest..highest) of"
            f" {repeats} epochs; the first epoch, in which the programs are compiled, is not among them. (The loops"
            " share programs, so the second one compiles less.) All take turns, and ratios are taken within a turn."
            f" Accuracy is that on the test images after {ACCURACY_EPOCHS} epochs."
        ),
        (
            "The loops are those of the MNIST examples of Flax, which gathers a batch on the device (device loop), and"
            " of Transformer Engine, which gathers it on the host (host loop). Each step takes its row of the order,"
            " which is on the device, and gathers its batch; one program computes the gradients, another one updates;"
            " losses and accuracies are fetched when the epoch is over. Model, data, batches, keys and optimizer are"
            " the same, so that the training is the same, too."
        ),
    )
    return Grid("An epoch", 2, heading, rows, notes)


def _epochs_row(benchmark: Benchmark, epochs: Epochs) -> tuple[str, ...]:
    ours = epochs.way is Way.OURS
    return (
        epochs.mode.value,
        epochs.way.value,
        spread_of_times(epochs.seconds),
        "" if ours else times(benchmark.faster_than_loop(epochs.mode, epochs.way)),
        times(benchmark.epoch_speed_up(epochs.mode)) if ours and epochs.mode is not Mode.FLAX_BF16 else "",
        f"{epochs.accuracy:.2%}",
        duration(epochs.first),
    )


def speed_up_grid(benchmark: Benchmark) -> Grid:
    """Dense layers by size: how many times as fast as Flax BF16."""
    modes = [mode for mode in benchmark.modes if mode is not Mode.FLAX_BF16]
    rows = tuple(
        (
            *_size_and_direction(shape, backward=backward),
            spread_of_times(benchmark.layer(Mode.FLAX_BF16, shape, backward=backward).seconds),
            *(times(benchmark.layer_speed_up(mode, shape, backward=backward)) for mode in modes),
        )
        for shape in benchmark.shapes
        for backward in (False, True)
    )
    notes = (
        (
            "How many times as fast as Flax BF16. The layers have no bias; input and output are BF16, the kernel is"
            " float32 and is cast or quantized in every step. “Both” is forward and backward."
        ),
    )
    heading = (_SIZE, "", f"time of {Mode.FLAX_BF16.value}", *(mode.value for mode in modes))
    return Grid("Dense layers: speed-up", 2, heading, rows, notes)


def rate_grid(benchmark: Benchmark) -> Grid:
    """Dense layers by size: operations in a second, and their share of the peak."""
    rows = tuple(
        (
            *_size_and_direction(shape, backward=backward),
            *(_rate(benchmark, mode, shape, backward=backward) for mode in benchmark.modes),
        )
        for shape in benchmark.shapes
        for backward in (False, True)
    )
    heading = (_SIZE, "", *(mode.value for mode in benchmark.modes))
    return Grid("Dense layers: TFLOP/s", 2, heading, rows, tuple(_rate_notes(benchmark)))


def _size_and_direction(shape: Shape, *, backward: bool) -> tuple[str, str]:
    return size_of(shape), "both" if backward else "forward"


def _rate(benchmark: Benchmark, mode: Mode, shape: Shape, *, backward: bool) -> str:
    layer = benchmark.layer(mode, shape, backward=backward)
    share = f" ({_share(layer.of_peak(benchmark.peaks))})" if benchmark.peaks else ""
    return f"{_tera(layer.rate.median)}{share}"


def _rate_notes(benchmark: Benchmark) -> Iterator[str]:
    yield (
        "Counted are the operations of the matrix products alone: 2MKN forward, three times that with the backward pass"
        " (the gradients of input and kernel)."
    )
    if benchmark.peaks is None:
        yield UNKNOWN_PEAKS
        return
    yield (
        f"In brackets the share of the dense peak: {benchmark.peaks.bf16 / 1e12:,.1f} TFLOP/s in BF16,"
        f" {benchmark.peaks.fp8 / 1e12:,.1f} in FP8. Source: {benchmark.peaks.source}."
    )


def roofline_grid(benchmark: Benchmark) -> Grid:
    """Dense layers: what each takes, and the least that it could take."""
    heading = (
        _SIZE,
        "",
        "mode",
        "time",
        "bytes to move",
        "operations for a byte",
        "at least",
        "of which no product",
        "share of the roofline",
    )
    rows = tuple(_roofline_row(layer, benchmark.peaks) for layer in benchmark.layers)
    return Grid("Dense layers: times and roofline", 3, heading, rows, tuple(_roofline_notes(benchmark)))


def _roofline_row(layer: Layer, peaks: Peaks | None) -> tuple[str, ...]:
    work = kernels(layer.mode, layer.shape, backward=layer.backward)
    others = [kernel for kernel in work if not kernel.operations]
    return (
        *_size_and_direction(layer.shape, backward=layer.backward),
        layer.mode.value,
        spread_of_times(layer.seconds),
        f"{sum(kernel.bytes for kernel in work) / 1e6:,.2f} MB",
        f"{layer.intensity:,.0f}",
        duration(layer.least(peaks)) if peaks else "not known",
        _share(least_seconds(layer.mode, others, peaks) / layer.least(peaks)) if peaks else "not known",
        _share(layer.of_roofline(peaks)) if peaks else "not known",
    )


def _roofline_notes(benchmark: Benchmark) -> Iterator[str]:
    yield (
        f"A call runs the layer {counted(benchmark.applications, 'time')}, one after the other; calls are made without"
        " waiting, and only the last one of a repeat is waited for. A call of a program that does almost nothing takes"
        f" {duration(benchmark.call.median)} here. A small layer takes the time in which its kernels are started."
    )
    yield (
        "“At least” is the sum over kernels, which run one after another, of the longer of operations / peak and bytes"
        " / bandwidth. The kernels are the matrix products; in BF16 the cast of the float32 kernel; in FP8 the passes"
        " that quantize. Those read 2 bytes for an element of the input or the gradient and 4 for one of the kernel,"
        " which Transformer Engine quantizes from float32 in each step. They write 1 byte for an element, or 2 with the"
        " backward pass, which needs it transposed as well. Current scaling reads everything once more before, for its"
        " amax."
    )
    if benchmark.peaks:
        yield (
            f"Bandwidth is that of the GPU's memory, {benchmark.peaks.bandwidth / 1e12:.2f} TB/s. What stays in its L2"
            " cache is read faster: there a layer can come out above 100%."
        )


def grids(benchmark: Benchmark) -> list[Grid]:
    """All tables, in the order to read them."""
    return [epochs_grid(benchmark), speed_up_grid(benchmark), rate_grid(benchmark), roofline_grid(benchmark)]


def scope(benchmark: Benchmark) -> list[str]:
    """What was measured on what."""
    facts = benchmark.environment
    versions = (
        f"Transformer Engine {facts['transformer-engine']}, JAX {facts['jax']}, Flax {facts['flax']},"
        f" Python {facts['python']}"
    )
    return [f"{facts['device']}; {versions}", facts["run"]]


def warnings(benchmark: Benchmark) -> list[str]:
    """What a reader has to know first."""
    lines = [HOST_WARNING] if benchmark.is_host else []
    return [*lines, *(f"{mode.value} is not measured: {why}" for mode, why in benchmark.left_out.items())]


# --- forms -----------------------------------------------------------------------------------------------------------


def terminal(benchmark: Benchmark, width: int) -> Iterator[RenderableType]:
    """What to print in that many columns: the tables but for the longest."""
    yield Text(TITLE, "bold")
    yield from (Text(line) for line in (*scope(benchmark), *summary(benchmark)))
    yield from (Text(line, "yellow") for line in warnings(benchmark))
    for grid in (epochs_grid(benchmark), speed_up_grid(benchmark), rate_grid(benchmark)):
        yield Text(f"\n{grid.title}", "bold")
        yield _table(grid, width)
        yield from (Text(note, "dim") for note in grid.notes)


def _table(grid: Grid, width: int) -> Table:
    """A table whose numbers are never broken: where there is little room, a spread stands under its median."""
    table = Table(header_style="bold", box=None, padding=(0, 1, 0, 0))
    columns = list(zip(grid.heading, *grid.rows, strict=True))
    narrow = sum(max(map(len, texts)) + 1 for texts in columns) > width
    for number, (name, *texts) in enumerate(columns):
        is_number = number >= grid.words
        # A spread may be broken off from its median, and words from each other.
        parts = [*name.split(), *(part for text in texts for part in re.split(r" (?=\()" if is_number else " ", text))]
        longest = max(map(len, parts))
        table.add_column(
            name,
            justify="right" if is_number else "left",
            min_width=longest,
            max_width=longest if is_number and narrow else None,
        )
    for cells in grid.rows:
        table.add_row(*cells)
    return table


def markdown(benchmark: Benchmark) -> str:
    """The tables as Markdown, under the picture in the file `PICTURE`."""
    facts = [*scope(benchmark), *summary(benchmark), *(f"Note: {line}" for line in warnings(benchmark))]
    parts = [
        f"# {TITLE}",
        generated_by("mnist-fp8 benchmark"),
        "\n".join(f"- {literal(line)}" for line in facts),
        f"![{TITLE}]({PICTURE})",
    ]
    for grid in grids(benchmark):
        lines = [row(grid.heading), row(_alignment(grid)), *map(_markdown_row, grid.rows)]
        parts += [f"## {grid.title}", "\n".join(lines), *map(literal, grid.notes)]
    parts += ["## Environment", _markdown_environment(benchmark), f"<sub>mnist-fp8 {__version__}</sub>"]
    return "\n\n".join(parts) + "\n"


def _alignment(grid: Grid) -> list[str]:
    return ["---"] * grid.words + ["---:"] * (len(grid.heading) - grid.words)


def _markdown_row(cells: Sequence[str]) -> str:
    return row([literal(cell) for cell in cells])


def _markdown_environment(benchmark: Benchmark) -> str:
    lines = (row([literal(name), literal(value)]) for name, value in benchmark.environment.items())
    return "\n".join([row(["", ""]), row(["---", "---"]), *lines])
