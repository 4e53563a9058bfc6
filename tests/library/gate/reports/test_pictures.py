"""The picture of the training curves, and the pictures of two records."""

import dataclasses
import math
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

from mnist_fp8.gate.reports.verdict import pictures
from mnist_fp8.gate.reports.verdict.pictures import NEW_COLOUR, OLD_COLOUR, Panel
from mnist_fp8.record.entries import Curves, Failure, Numbers, Value
from mnist_fp8.record.entries_json import entries_from_json, entries_to_json
from mnist_fp8.record.record import Record
from mnist_fp8.training import curves
from mnist_fp8.training.runs import EpochMetrics
from support.subprocesses import run_code

EPOCHS = [
    EpochMetrics(1, train_loss=2.5, train_accuracy=0.25, test_loss=1.75, test_accuracy=0.5, seconds=1.0),
    EpochMetrics(2, train_loss=1.5, train_accuracy=0.625, test_loss=1.25, test_accuracy=0.75, seconds=1.0),
]
TITLE = "te-fp8, Transformer Engine 2.20\nhost run"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Figure:
    """The figure, taken as it was saved."""
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_args, **_kwargs: figures.append(figure))
    curves.picture(EPOCHS, TITLE)
    return figures[0]


def png_size(content: bytes) -> tuple[int, int]:
    """Width and height that a PNG states."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert content[-8:-4] == b"IEND", "the file is complete"
    width, height = struct.unpack(">II", content[16:24])
    return width, height


@pytest.mark.parametrize("epochs", [EPOCHS, EPOCHS[:1]], ids=["two epochs", "one epoch"])
def test_picture_is_a_complete_png(epochs: list[EpochMetrics]) -> None:
    assert png_size(curves.picture(epochs, TITLE)) == (1080, 456)


def test_curves_show_the_metrics(drawn: Figure) -> None:
    curves = {(axes.get_title(), line.get_label()): line for axes in drawn.axes for line in axes.lines}
    assert {name: np.asarray(line.get_ydata()).tolist() for name, line in curves.items()} == {
        ("loss", "train"): [2.5, 1.5],
        ("loss", "test"): [1.75, 1.25],
        ("accuracy", "train"): [0.25, 0.625],
        ("accuracy", "test"): [0.5, 0.75],
    }
    assert {tuple(np.asarray(line.get_xdata())) for line in curves.values()} == {(1, 2)}


def test_last_values_are_written_beside_the_curves(drawn: Figure) -> None:
    texts: list[Any] = [text.get_text() for axes in drawn.axes for text in axes.texts]
    assert texts == ["1.5000", "1.2500", "0.6250", "0.7500"]


def test_picture_says_what_was_trained_and_what_is_drawn(drawn: Figure) -> None:
    assert drawn.get_suptitle() == TITLE
    for axes in drawn.axes:
        assert axes.get_xlabel() == "epoch"
        legend = axes.get_legend()
        assert legend is not None
        assert [text.get_text() for text in legend.get_texts()] == ["train", "test"]


# --- two records -------------------------------------------------------------------------------------------------

OLD: dict[str, Value] = {
    "training/TE FP8/loss": Curves((1, 2), ((2.0, 1.0), (3.0, 2.0))),
    "training/TE FP8/test accuracy": Curves((2,), ((0.5,), (0.6,))),
    "metadata/max/x scale used": Numbers((1.0, 2.0, 4.0), ("step 0", "step 1", "step 2")),
    "metadata/max/x scale stored": Numbers((1.0, 2.0, 4.0), ("step 0", "step 1", "step 2")),
    "metadata/max/x newest amax stored": Numbers((0.0, 0.5, math.nan), ("step 0", "step 1", "step 2")),
    "numerics/BF16/output against float64": Numbers((0.25, 0.0, 0.5), ("16x16x16 normal", "16x16x16 wide", "8x8 wide")),
    "numerics/BF16/output in tolerances": Numbers((0.5,), ("16x16x16 normal",)),
    "numerics/BF16/distribution of output errors": Numbers((0.25, 0.75), ("2^-9", "2^-8")),
    "numerics/BF16/distribution of gradient errors": Numbers((0.5, 0.5), ("2^-9", "2^-8")),
}
NEW: dict[str, Value] = OLD | {
    "training/TE FP8/loss": Curves((1, 2), ((2.0, 1.0), (3.0, 3.0))),
    "metadata/max/x scale stored": Numbers((2.0, 4.0, 4.0), ("step 0", "step 1", "step 2")),
    "metadata/max/x newest amax stored": Numbers((0.0, 0.5, float("nan")), ("step 0", "step 1", "step 2")),
    "numerics/BF16/output against float64": Numbers((0.5, 0.0, 0.25), ("16x16x16 normal", "16x16x16 wide", "8x8 wide")),
    "numerics/BF16/distribution of output errors": Numbers((0.5, 0.5), ("2^-9", "2^-8")),
}
Draw = Callable[[Record, Record], list[Panel]]
DRAWN: dict[str, Draw] = {
    "training": pictures.training_curves,
    "trajectories": pictures.trajectories,
    "cases": pictures.errors_by_case,
    "distributions": pictures.error_distributions,
}
every_picture = pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)


def record(te: str, entries: Mapping[str, Value]) -> Record:
    return Record(te, te, "host", {}, "s", (te,), entries, 1.0)


def panels(draw: Draw, old: Mapping[str, Value] = OLD, new: Mapping[str, Value] = NEW) -> list[Panel]:
    return draw(record("2.2.0", old), record("2.3.0", new))


@pytest.mark.parametrize(
    ("draw", "title"),
    [
        (pictures.training_curves, "TE FP8, loss: ends at 2, before at 1.5"),
        (pictures.trajectories, "max, x: scale stored differs at 2 of 3 steps, first at step 0; the rest identical"),
        (pictures.errors_by_case, "BF16, error of output: 0.5 to 2 times the old one"),
        (
            pictures.error_distributions,
            "BF16, how large errors are: output errors moved, 25.0% of them; the rest identical",
        ),
    ],
)
def test_title_says_what_to_see(draw: Draw, title: str) -> None:
    assert [panel.title for panel in panels(draw)] == [title]


def test_steps_with_a_number_on_neither_side_do_not_differ() -> None:
    key, labels = "metadata/max/x scale used", ("step 0", "step 1", "step 2")
    old, new = ({key: Numbers((float("nan"), 1.0, last), labels)} for last in (1.0, 2.0))
    (panel,) = panels(pictures.trajectories, old, new)
    assert panel.title == "max, x: scale used differs at 1 of 3 steps, first at step 2"


@every_picture
def test_what_is_identical_is_called_so_and_both_are_drawn(draw: Draw) -> None:
    read_again = entries_from_json(entries_to_json(OLD))
    assert read_again != OLD, "Control: NaN is not NaN"
    (panel,) = panels(draw, OLD, read_again)
    assert panel.title.endswith(": identical")
    assert "#d97706" in panel.svg
    assert "#3b82f6" in panel.svg


@every_picture
def test_noise_alone_is_no_difference(draw: Draw) -> None:
    noisy = {
        key: dataclasses.replace(value, noise=0.1) for key, value in OLD.items() if isinstance(value, Curves | Numbers)
    }
    (panel,) = panels(draw, OLD, noisy)
    assert panel.title.endswith(": identical")


def test_series_with_a_zero_more_is_another_one() -> None:
    key, labels = "metadata/max/x newest amax stored", ("step 0", "step 1", "step 2")
    shorter, longer = Numbers((1.0, 2.0), labels[:2]), Numbers((1.0, 2.0, 0.0), labels)
    (panel,) = panels(pictures.trajectories, {key: shorter}, {key: longer})
    assert panel.title == "max, x: newest amax stored has other steps"


def test_names_are_no_formulas_and_fit_into_the_legend() -> None:
    te = "folder /a/very/long/path/to/$x$/te"
    (panel,) = pictures.training_curves(record(te, OLD), record("$y_1$", NEW))
    texts = [text for text in ET.fromstring(panel.svg).itertext() if text.strip()]  # noqa: S314 - our own
    assert "old: TE …ery/long/path/to/$x$/te" in texts
    assert "new: TE $y_1$" in texts


@every_picture
@pytest.mark.parametrize("lacking", ["old", "new"])
def test_what_one_side_lacks_is_said_and_the_other_is_drawn(draw: Draw, lacking: str) -> None:
    failed = dict.fromkeys(OLD, Failure("ValueError", "no"))
    for nothing in ({}, failed):
        sides = (nothing, NEW) if lacking == "old" else (OLD, nothing)
        (panel,) = panels(draw, *sides)
        assert panel.title.endswith("only in the new one" if lacking == "old" else "only in the old one")


def test_entry_that_one_side_lacks_is_told_apart_from_those_that_differ() -> None:
    old = {key: value for key, value in OLD.items() if key != "metadata/max/x scale used"}
    (panel,) = panels(pictures.trajectories, old)
    said = (
        "scale stored differs at 2 of 3 steps, first at step 0",
        "scale used only in the new one",
        "the rest identical",
    )
    assert panel.title == f"max, x: {'; '.join(said)}"


@every_picture
def test_nothing_to_draw_is_no_picture(draw: Draw) -> None:
    others = {key: value for key, value in OLD.items() if key.endswith(("accuracy", "tolerances"))}
    assert others
    assert panels(draw, others, others) == []


@every_picture
def test_values_that_cannot_be_drawn_leave_a_gap(draw: Draw) -> None:
    def nothing(value: Value) -> Value:
        if isinstance(value, Curves):
            return Curves(value.steps, tuple((math.inf, math.nan) for _ in value.seeds))
        assert isinstance(value, Numbers)
        return Numbers((math.inf, math.nan, -math.inf)[: len(value.values)], value.labels)

    (panel,) = panels(draw, {key: nothing(value) for key, value in OLD.items()})
    ET.fromstring(panel.svg)  # noqa: S314 - our own


@every_picture
def test_panel_names_the_entries_that_it_shows(draw: Draw) -> None:
    (panel,) = panels(draw)
    assert panel.keys
    assert set(panel.keys) <= OLD.keys()
    assert not [key for key in panel.keys if key.endswith(("accuracy", "tolerances"))]


@every_picture
def test_svg_is_the_same_every_time_and_stands_alone(draw: Draw) -> None:
    (panel,), (again,) = panels(draw), panels(draw)
    assert panel == again
    assert panel.svg.startswith("<svg")
    assert not re.search(r"<style|<metadata|font-family|<g id|href=\"(?!#)", panel.svg)
    assert "#010203" not in panel.svg
    assert "currentColor" in panel.svg
    texts = " ".join(ET.fromstring(panel.svg).itertext())  # noqa: S314 - our own
    assert "old: TE 2.2.0" in texts
    assert "new: TE 2.3.0" in texts


def test_ids_of_pictures_in_one_page_do_not_clash() -> None:
    more = {key.replace("BF16", "other").replace("TE FP8", "other").replace("max", "other"): NEW[key] for key in NEW}
    found = [panel for draw in DRAWN.values() for panel in panels(draw, OLD | more, NEW | more)]
    ids = [name for panel in found for name in re.findall(r'\bid="([^"]*)"', panel.svg)]
    assert len(found) == 8
    assert len(ids) == len(set(ids)) > 8


@pytest.fixture
def figure(monkeypatch: pytest.MonkeyPatch) -> Callable[[Draw], Figure]:
    """The figure of the only panel, taken as it was saved."""
    save = Figure.savefig
    figures: list[Figure] = []

    def kept(saved: Figure, *args: Any, **kwargs: Any) -> None:
        figures.append(saved)
        save(saved, *args, **kwargs)

    def drawn(draw: Draw) -> Figure:
        monkeypatch.setattr(Figure, "savefig", kept)
        panels(draw)
        (only,) = figures
        return only

    return drawn


def lines(axes: Any) -> dict[tuple[str, str], list[float | str]]:
    """Y values of the lines, by colour and style; NaN in words, since it equals nothing."""
    return {
        (line.get_color(), line.get_linestyle()): ["nan" if math.isnan(y) else y for y in line.get_ydata()]
        for line in axes.lines
    }


def test_training_is_the_mean_of_the_seeds_in_their_band(figure: Callable[[Draw], Figure]) -> None:
    (axes,) = figure(pictures.training_curves).axes
    assert lines(axes) == {(OLD_COLOUR, "-"): [2.5, 1.5], (NEW_COLOUR, "-"): [2.5, 2.0]}
    assert [line.get_linewidth() for line in axes.lines] == [4.5, 1.2], "the new one thin on the wide old one"
    bands = [np.asarray(band.get_paths()[0].vertices) for band in axes.collections]
    assert [(band[:, 1].min(), band[:, 1].max()) for band in bands] == [(1, 3), (1, 3)]
    assert axes.get_xlabel() == "step"


def test_trajectories_are_powers_of_two_and_zero_has_a_place(figure: Callable[[Draw], Figure]) -> None:
    scales, amax = figure(pictures.trajectories).axes
    assert lines(scales) == {
        (OLD_COLOUR, "-"): [0, 1, 2],
        (OLD_COLOUR, ":"): [0, 1, 2],
        (NEW_COLOUR, "-"): [0, 1, 2],
        (NEW_COLOUR, ":"): [1, 2, 2],
    }
    assert scales.get_title(loc="left") == "scale used, scale stored (dotted)"
    assert [text.get_text() for text in scales.get_yticklabels()] == ["2⁰", "2¹", "2²"]
    assert lines(amax)[OLD_COLOUR, "-"] == [-2, -1, "nan"], "zero is below all powers"
    assert [text.get_text() for text in amax.get_yticklabels()] == ["0", "2⁻¹"]


def test_errors_stand_in_the_row_of_their_case(figure: Callable[[Draw], Figure]) -> None:
    (axes,) = figure(pictures.errors_by_case).axes
    old, new = axes.lines
    assert (np.asarray(old.get_xdata()).tolist(), np.asarray(old.get_ydata()).tolist()) == ([-2, -3, -1], [0, 1, 2])
    assert np.asarray(new.get_xdata()).tolist() == [-1, -3, -2]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["16x16x16 normal", "16x16x16 wide", "8x8 wide"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "2⁻²", "2⁻¹"]


def test_distributions_are_steps_with_the_old_ones_filled(figure: Callable[[Draw], Figure]) -> None:
    output, gradient = figure(pictures.error_distributions).axes
    assert (output.get_title(loc="left"), gradient.get_title(loc="left")) == ("output errors", "gradient errors")
    old, new = (patch for patch in output.patches if isinstance(patch, StepPatch))
    assert [list(patch.get_data()[0]) for patch in (old, new)] == [[0.25, 0.75], [0.5, 0.5]]
    assert (old.get_fill(), new.get_fill()) == (True, False)
    assert [text.get_text() for text in gradient.get_xticklabels()] == ["2⁻⁹", "2⁻⁸"]


@pytest.mark.parametrize("count", [1, 7, 19, 40])
def test_distribution_of_any_length_has_a_few_ticks(count: int) -> None:
    labels = tuple(f"2^{exponent}" for exponent in range(-count, 0))
    entry = {"numerics/BF16/distribution of output errors": Numbers(tuple(np.ones(count) / count), labels)}
    (panel,) = panels(pictures.error_distributions, entry, entry)
    assert 1 <= len(re.findall(">2⁻[⁰¹²³⁴⁵⁶⁷⁸⁹]+<", panel.svg)) <= 12


def test_records_are_drawn_without_jax_and_imported_without_matplotlib() -> None:
    code = """
        import sys
        from mnist_fp8.gate.reports.verdict import pictures
        print([name for name in ("matplotlib", "numpy", "jax") if name in sys.modules])
        from mnist_fp8.record.entries import Curves
        from mnist_fp8.record.record import Record
        record = Record("1", "1", "host", {}, "s", (), {"training/x/loss": Curves((1, 2), ((2.0, 1.0),))}, 1.0)
        print(len(pictures.training_curves(record, record)), "jax" in sys.modules)
    """
    assert run_code(code).split() == ["[]", "1", "False"]
