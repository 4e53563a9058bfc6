"""A plot of a training run's loss and accuracy."""

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mnist_fp8.training.runs import EpochMetrics  # it imports JAX, and two records are compared without it


def picture(epochs: "Sequence[EpochMetrics]", title: str) -> bytes:
    """Draw loss and accuracy by epoch, for training and test, as a PNG.

    Args:
        epochs: at least one epoch.
        title: what was trained, with what.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - half a second, and only where something is drawn
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    numbers = [metrics.epoch for metrics in epochs]
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for part, colour in (("train", "tab:gray"), ("test", "tab:blue")):
            values = [getattr(metrics, f"{part}_{quantity}") for metrics in epochs]
            axes.plot(numbers, values, marker="o", color=colour, label=part)
            axes.annotate(
                f"{values[-1]:.4f}", (numbers[-1], values[-1]), xytext=(6, 4), textcoords="offset points", color=colour
            )
        axes.set(xlabel="epoch", title=quantity)
        axes.margins(x=0.25, y=0.12)  # room for the numbers
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(title)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=120)
    return png.getvalue()
