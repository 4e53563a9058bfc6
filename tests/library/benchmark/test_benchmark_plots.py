"""The pictures of a benchmark: what is drawn, and how it is labelled."""

import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from matplotlib.figure import Figure

from mnist_fp8.benchmark import plots
from mnist_fp8.benchmark.plots import size_of
from mnist_fp8.benchmark.results import Benchmark, Way
from mnist_fp8.core.modes import Mode
from support import benchmarks
from support.subprocesses import run_code

FOUND = benchmarks.on_h100()
Draw = Callable[[Benchmark], str]
PICTURES = {
    "epochs": plots.epochs,
    "rates": plots.rates,
    "speed-ups": plots.speed_ups,
}
every_picture = pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)


@pytest.fixture
def figure(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Figure]:
    """The figure of a picture, taken as it was saved."""
    save = Figure.savefig
    figures: list[Figure] = []

    def kept(saved: Figure, *args: Any, **kwargs: Any) -> None:
        figures.append(saved)
        save(saved, *args, **kwargs)

    def drawn(draw: Draw, found: Benchmark = FOUND) -> Figure:
        monkeypatch.setattr(Figure, "savefig", kept)
        draw(found)
        return figures[-1]

    return drawn


def texts(svg: str) -> str:
    return " | ".join(text.strip() for text in ET.fromstring(svg).itertext() if text.strip())  # noqa: S314 - our own


def points(axes: Any, label: str) -> list[float]:
    """Y values of the line of a name."""
    (line,) = [each for each in axes.containers if each.get_label() == label]
    return list(line.lines[0].get_ydata())


@every_picture
def test_picture_stands_alone_and_is_the_same_every_time(draw: Draw) -> None:
    svg = draw(FOUND)
    assert svg.startswith("<svg")
    assert not re.search(r"<style|<metadata|font-family|href=\"(?!#)", svg)
    assert "currentColor" in svg
    assert svg == draw(FOUND)


def test_ids_of_the_pictures_do_not_clash() -> None:
    ids = [name for draw in PICTURES.values() for name in re.findall(r'\bid="([^"]*)"', draw(FOUND))]
    assert len(ids) == len(set(ids)) > 3


def test_bars_are_the_median_epochs_of_each_way(figure: Callable[..., Figure]) -> None:
    (axes,) = figure(plots.epochs).axes
    bars = [container for container in axes.containers if container.get_label() in {way.value for way in Way}]
    heights = {bar.get_label(): [patch.get_height() for patch in bar] for bar in bars}
    assert heights == {way.value: [FOUND.epochs_of(mode, way).seconds.median for mode in Mode] for way in Way}
    assert [text.get_text() for text in axes.get_xticklabels()] == [mode.value for mode in Mode]
    assert axes.get_ylim()[0] == 0


def test_ratio_stands_above_the_loops_alone() -> None:
    said = texts(plots.epochs(FOUND))
    assert "0.22 s" in said
    assert said.count("×") == 8  # noqa: RUF001
    assert "8.38×" in said  # noqa: RUF001


def test_rates_are_those_of_the_squares_under_the_peaks(figure: Callable[..., Figure]) -> None:
    forward, both = figure(plots.rates).axes
    for axes, backward in ((forward, False), (both, True)):
        for mode in Mode:
            assert points(axes, mode.value) == [
                FOUND.layer(mode, (size, size, size), backward=backward).rate.median / 1e12
                for size in (1024, 2048, 4096, 8192)
            ]
        assert [text.get_text() for text in axes.texts] == ["BF16 peak 989", "FP8 peak 1,979"]
        assert axes.get_xscale() == "log"


def test_unknown_device_has_no_peaks(figure: Callable[..., Figure]) -> None:
    assert not figure(plots.rates, benchmarks.on_h100(device="another")).axes[0].texts


def test_speed_ups_are_of_all_sizes_against_flax(figure: Callable[..., Figure]) -> None:
    forward, both = figure(plots.speed_ups).axes
    assert (forward.get_title(loc="left"), both.get_title(loc="left")) == ("forward", "forward and backward")
    assert points(both, "TE FP8 delayed") == [
        FOUND.layer_speed_up(Mode.TE_FP8_DELAYED, shape, backward=True).median for shape in benchmarks.SHAPES
    ]
    assert [text.get_text() for text in both.get_xticklabels()] == [size_of(shape) for shape in benchmarks.SHAPES]
    assert {each.get_label() for each in forward.containers} == {mode.value for mode in Mode} - {"Flax BF16"}


@every_picture
def test_mode_that_cannot_run_is_not_drawn(draw: Draw) -> None:
    assert "TE FP8 current" in texts(draw(FOUND))
    assert "TE FP8 current" not in texts(draw(benchmarks.on_h100(left_out={Mode.TE_FP8_CURRENT: "no such recipe"})))


def test_square_has_one_size() -> None:
    assert size_of((1024, 1024, 1024)) == "1,024³"
    assert size_of((64, 12544, 128)) == "64 × 12,544 × 128"  # noqa: RUF001


def test_importing_draws_nothing() -> None:
    code = """
        import sys
        from mnist_fp8 import benchmark_plots, benchmark_report
        print([name for name in ("matplotlib", "jax", "numpy") if name in sys.modules])
    """
    assert run_code(code).strip() == "[]"
