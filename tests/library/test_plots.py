"""The picture of the training curves."""

import struct
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from mnist_fp8.plots import save_curves
from mnist_fp8.train import EpochMetrics

EPOCHS = [
    EpochMetrics(1, train_loss=2.5, train_accuracy=0.25, test_loss=1.75, test_accuracy=0.5, seconds=1.0),
    EpochMetrics(2, train_loss=1.5, train_accuracy=0.625, test_loss=1.25, test_accuracy=0.75, seconds=1.0),
]
TITLE = "te-fp8, Transformer Engine 2.20\nhost run"


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Figure:
    """The figure, taken as it was saved."""
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_args, **_kwargs: figures.append(figure))
    save_curves(EPOCHS, TITLE, tmp_path / "curves.png")
    return figures[0]


def png_size(path: Path) -> tuple[int, int]:
    """Width and height that a PNG file states."""
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert content[-8:-4] == b"IEND", "the file is complete"
    width, height = struct.unpack(">II", content[16:24])
    return width, height


@pytest.mark.parametrize("epochs", [EPOCHS, EPOCHS[:1]], ids=["two epochs", "one epoch"])
def test_picture_is_a_png_whatever_the_file_is_called(tmp_path: Path, epochs: list[EpochMetrics]) -> None:
    path = tmp_path / "curves.partial"
    path.write_text("an older file")
    save_curves(epochs, TITLE, path)
    assert png_size(path) == (1080, 456)


def test_curves_show_the_metrics(drawn: Figure) -> None:
    curves = {(axes.get_title(), line.get_label()): line for axes in drawn.axes for line in axes.lines}
    assert {name: list(line.get_ydata()) for name, line in curves.items()} == {
        ("loss", "train"): [2.5, 1.5],
        ("loss", "test"): [1.75, 1.25],
        ("accuracy", "train"): [0.25, 0.625],
        ("accuracy", "test"): [0.5, 0.75],
    }
    assert {tuple(line.get_xdata()) for line in curves.values()} == {(1, 2)}


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
