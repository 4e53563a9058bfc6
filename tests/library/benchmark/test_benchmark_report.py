"""The pages of a benchmark."""

import io
import re
from collections.abc import Callable

import pytest
from rich.console import Console

from mnist_fp8.benchmark import report
from mnist_fp8.benchmark.report import (
    HOST_WARNING,
    UNKNOWN_PEAKS,
    duration,
    grids,
    size_of,
    spread_of_times,
    summary,
    times,
)
from mnist_fp8.benchmark.results import Benchmark
from mnist_fp8.core.modes import Mode
from mnist_fp8.core.spread import Spread
from support import benchmarks

FOUND = benchmarks.on_h100()
HOST = benchmarks.on_h100(is_host=True)
LEFT_OUT = benchmarks.on_h100(left_out={Mode.TE_FP8_CURRENT: "no <such> recipe"})


def printed(found: Benchmark, width: int = 160) -> str:
    console = Console(width=width, file=io.StringIO(), markup=False)
    with console.capture() as capture:
        for part in report.terminal(found, width):
            console.print(part)
    return capture.get()


Form = Callable[[Benchmark], str]
FORMS: dict[str, Form] = {"terminal": printed, "Markdown": report.markdown}
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (95.0, "95.0 s"),
        (1.0, "1.00 s"),
        (0.22, "220 ms"),
        (1.67e-3, "1.67 ms"),
        (12.34e-6, "12.3 µs"),
        (5e-9, "5.00 ns"),
    ],
)
def test_time_is_in_its_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_spread_of_times_is_in_the_unit_of_the_median() -> None:
    assert spread_of_times(Spread((0.9e-3, 1.67e-3, 2e-3))) == "1.67 ms (0.90..2.00)"


def test_ratio_has_its_spread() -> None:
    assert times(Spread((8.0, 12.34, 9.0))) == "9.00× (8.00..12.3)"  # noqa: RUF001


@pytest.mark.parametrize("found", [FOUND, HOST, LEFT_OUT], ids=["H100", "host", "left out"])
def test_tables_have_as_many_cells_as_their_heading(found: Benchmark) -> None:
    for grid in grids(found):
        assert grid.rows
        assert {len(cells) for cells in grid.rows} == {len(grid.heading)}
        assert all(all(cells[: grid.words]) for cells in grid.rows), "what a row is, is said"


def test_table_of_epochs_has_each_mode_and_way() -> None:
    grid = grids(FOUND)[0]
    assert grid.rows[0] == ("Flax BF16", "mnist-fp8", "220 ms (213..229)", "", "", "98.71%", "9.72 s")
    ratio = times(FOUND.faster_than_loop(Mode.TE_FP8_DELAYED, FOUND.epochs[7].way))
    assert grid.rows[7][:4] == ("TE FP8 delayed", "device loop", "3.00 s (2.91..3.12)", ratio)
    assert grid.rows[6][4] == times(FOUND.epoch_speed_up(Mode.TE_FP8_DELAYED))
    assert len(grid.rows) == 12


def test_tables_of_layers_have_each_size_and_direction() -> None:
    _, speed_ups, rates, roofline = grids(FOUND)
    named = [("1,024³", "forward"), ("1,024³", "both")]
    assert [cells[:2] for cells in speed_ups.rows[6:8]] == [cells[:2] for cells in rates.rows[6:8]] == named
    ratio = FOUND.layer_speed_up(Mode.TE_FP8_CURRENT, (1024, 1024, 1024), backward=True)
    assert speed_ups.rows[7][-1] == times(ratio)
    assert len(roofline.rows) == len(FOUND.layers)


def test_rate_has_its_share_of_the_peak_of_its_precision() -> None:
    layer = FOUND.layer(Mode.TE_FP8_DELAYED, (8192, 8192, 8192), backward=False)
    cell = grids(FOUND)[2].rows[-2][4]
    assert cell == f"{layer.rate.median / 1e12:.0f} ({layer.rate.median / 1978.9e12:.0%})"


def test_roofline_row_says_what_it_is_made_of() -> None:
    (cells,) = [
        cells for cells in grids(FOUND)[3].rows if cells[:3] == ("1,024³", "forward", Mode.TE_FP8_DELAYED.value)
    ]
    # Quantizing moves 3 + 5 bytes an element at 3.35 TB/s; the product's operands and result, 4, take longer than
    # its operations at 1,979 TFLOP/s.
    assert cells[4:8] == ("12.58 MB", "171", "3.76 µs", "67%")


def test_unknown_device_has_no_shares() -> None:
    _, _, rates, roofline = grids(benchmarks.on_h100(device="another"))
    assert not [cells for cells in rates.rows if "%" in "".join(cells)]
    assert UNKNOWN_PEAKS in rates.notes
    assert {cells[6:] for cells in roofline.rows} == {("not known",) * 3}


def test_summary_is_of_the_largest_layer_in_fp8() -> None:
    loops, delayed, current = summary(FOUND)
    assert f"{times(FOUND.faster_than_loops(Mode.TE_BF16))} in TE BF16" in loops
    assert delayed.startswith("Dense 8,192³ in TE FP8 delayed: 839 TFLOP/s forward, 42% of the peak;")
    assert current.startswith("Dense 8,192³ in TE FP8 current: ")


@every_form
def test_every_form_has_the_tables_and_the_device(form: Form) -> None:
    text = form(FOUND).replace("\\", "")
    for said in ("NVIDIA H100 80GB HBM3", "kernel run", "An epoch", "TFLOP/s", "220 ms (213..229)", "839 (42%)"):
        assert said in text
    assert HOST_WARNING not in text, "Control: it is no host run"


def test_numbers_are_whole_in_a_terminal_of_80_columns() -> None:
    text = printed(FOUND, 80)
    assert max(map(len, text.splitlines())) <= 80
    for number in ("(1.84..1.98)", "0.69×", "98.71%", "12.7 s", "0.0087 (<1%)", "(1.35..1.51)"):  # noqa: RUF001
        assert number in text
    assert "1.90 s (1.84..1.98)" in printed(FOUND), "Control: there is more room"


@every_form
def test_host_run_says_that_its_times_say_nothing(form: Form) -> None:
    text = " ".join(form(HOST).replace("\\", "").split())
    assert HOST_WARNING in text
    assert not summary(HOST)
    assert "% of the peak" not in text


@every_form
def test_mode_that_is_left_out_is_said_to_be(form: Form) -> None:
    text = form(LEFT_OUT).replace("\\", "")
    assert "TE FP8 current is not measured: no <such> recipe" in text


def test_markdown_shows_the_picture() -> None:
    assert re.findall(r"!\[.*?\]\((.*?)\)", report.markdown(FOUND)) == [report.PICTURE]


def test_square_has_one_size() -> None:
    assert size_of((1024, 1024, 1024)) == "1,024³"
    assert size_of((64, 12544, 128)) == "64 × 12,544 × 128"  # noqa: RUF001


def test_markdown_tables_are_complete() -> None:
    text = report.markdown(FOUND)
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(blocks) == 5, "four tables and the environment"
    for block in blocks:
        assert len({re.sub(r"\\\|", "", line).count("|") for line in block.splitlines()}) == 1
    assert blocks[0].splitlines()[1] == "| --- | --- | ---: | ---: | ---: | ---: | ---: |", "numbers are at the right"
    assert "| 0.022 (\\<1%) |" in text, "what a cell says is no markup"
