"""The picture of a benchmark: what is drawn, and how it is labelled."""

from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from mnist_fp8.benchmark import plots
from mnist_fp8.benchmark.report import size_of
from mnist_fp8.benchmark.results import Benchmark, Way
from mnist_fp8.core.modes import Mode
from support import benchmarks

H100 = benchmarks.on_h100()


def panels(benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch) -> list[Axes]:
    """The panels of a picture, taken as it was saved."""
    save, saved = Figure.savefig, []

    def keep(figure: Figure, *args: Any, **kwargs: Any) -> None:
        saved.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    assert plots.picture(benchmark).startswith(b"\x89PNG")
    return saved[0].axes


def test_bars_are_the_median_epochs_of_each_way(monkeypatch: pytest.MonkeyPatch) -> None:
    epochs, _ = panels(H100, monkeypatch)
    bars = [container for container in epochs.containers if container.get_label() in {way.value for way in Way}]
    heights = {bar.get_label(): [patch.get_height() for patch in bar] for bar in bars}
    assert heights == {way.value: [H100.epochs_of(mode, way).seconds.median for mode in Mode] for way in Way}
    assert [text.get_text() for text in epochs.get_xticklabels()] == [mode.value for mode in Mode]
    assert epochs.get_ylim()[0] == 0


def test_speed_ups_are_of_all_sizes_against_flax(monkeypatch: pytest.MonkeyPatch) -> None:
    left_out = benchmarks.on_h100(left_out={Mode.TE_FP8_CURRENT: "no such recipe"})
    _, layers = panels(left_out, monkeypatch)
    bars = [container for container in layers.containers if isinstance(container, ErrorbarContainer)]
    lines = {bar.get_label(): np.asarray(bar.lines[0].get_ydata()).tolist() for bar in bars}
    assert lines == {
        mode.value: [H100.layer_speed_up(mode, shape, backward=True).median for shape in benchmarks.SHAPES]
        for mode in (Mode.TE_BF16, Mode.TE_FP8_DELAYED)
    }
    assert [text.get_text() for text in layers.get_xticklabels()] == [size_of(shape) for shape in benchmarks.SHAPES]
