"""What a benchmark measured: raw times, the ratios that they come to, and their JSON. Nothing here measures."""

import dataclasses
import enum
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mnist_fp8 import __version__
from mnist_fp8.benchmark.roofline import Peaks, Shape, intensity, kernels, least_seconds, operations, peaks_of
from mnist_fp8.core.modes import Mode
from mnist_fp8.core.spread import Spread

SCHEMA_VERSION = 1
"""Of ``benchmark.json``; raised when a field changes its meaning."""

ACCURACY_EPOCHS = 3
"""Epochs after which the test accuracy is taken."""


class Way(enum.Enum):
    """How an epoch is computed; the value is its name in tables and pictures.

    A loop is one step by step in Python, over data on the device or on the host.
    """

    OURS = "mnist-fp8"
    DEVICE_LOOP = "device loop"
    HOST_LOOP = "host loop"


LOOPS = (Way.DEVICE_LOOP, Way.HOST_LOOP)


@dataclasses.dataclass(frozen=True)
class Epochs:
    """Epochs of one mode, computed in one way.

    Attributes:
        first: seconds of the first epoch, in which the programs are compiled; it is in no ratio.
        seconds: of an epoch, for each repeat.
        accuracy: on the test images after `ACCURACY_EPOCHS` epochs.
    """

    mode: Mode
    way: Way
    first: float
    seconds: Spread
    accuracy: float


@dataclasses.dataclass(frozen=True)
class Layer:
    """A dense layer of one mode and size.

    Attributes:
        backward: whether it was run forward and backward, or forward only.
        seconds: of running it once, for each repeat.
    """

    mode: Mode
    shape: Shape
    backward: bool
    seconds: Spread

    @property
    def rate(self) -> Spread:
        """Operations of the matrix products in a second."""
        count = operations(self.shape, backward=self.backward)
        return Spread(tuple(count / seconds for seconds in self.seconds.values))

    @property
    def intensity(self) -> float:
        """Operations for each byte that has to move."""
        return intensity(kernels(self.mode, self.shape, backward=self.backward))

    def of_peak(self, peaks: Peaks) -> float:
        """Share of the operations that the GPU's tensor cores could do."""
        return self.rate.median / peaks.of(self.mode)

    def least(self, peaks: Peaks) -> float:
        """Seconds that it takes at least."""
        return least_seconds(self.mode, kernels(self.mode, self.shape, backward=self.backward), peaks)

    def of_roofline(self, peaks: Peaks) -> float:
        """Its least time as a share of the measured one."""
        return self.least(peaks) / self.seconds.median


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Everything that a benchmark measured.

    Attributes:
        environment: versions, device and kind of run.
        is_host: whether it is a host run, whose times say nothing about kernels.
        device: what JAX calls the device.
        images: training images of an epoch.
        batch_size: images of a step.
        left_out: modes that cannot run here, and why.
        epochs: of each mode and way.
        call: seconds of a call of a compiled program that does almost nothing.
        applications: how often a layer is run in one call.
        layers: of each mode, size and direction.
    """

    environment: Mapping[str, str]
    is_host: bool
    device: str
    images: int
    batch_size: int
    left_out: Mapping[Mode, str]
    epochs: Sequence[Epochs]
    call: Spread
    applications: int
    layers: Sequence[Layer]

    @property
    def peaks(self) -> Peaks | None:
        """What the device can do at most; ``None`` where that is not known, and on a host run."""
        return None if self.is_host else peaks_of(self.device)

    @property
    def modes(self) -> list[Mode]:
        """The modes that were measured."""
        return [mode for mode in Mode if mode not in self.left_out]

    @property
    def shapes(self) -> list[Shape]:
        """Sizes of the layers, in the order of measurement."""
        return list(dict.fromkeys(layer.shape for layer in self.layers))

    def epochs_of(self, mode: Mode, way: Way) -> Epochs:
        """The epochs of a mode, computed in a way."""
        return next(epochs for epochs in self.epochs if (epochs.mode, epochs.way) == (mode, way))

    def layer(self, mode: Mode, shape: Shape, *, backward: bool) -> Layer:
        """The layer of a mode and size."""
        wanted = (mode, shape, backward)
        return next(layer for layer in self.layers if (layer.mode, layer.shape, layer.backward) == wanted)

    def faster_than_loop(self, mode: Mode, loop: Way) -> Spread:
        """How many times faster our epoch is than a step-by-step loop."""
        return self.epochs_of(mode, loop).seconds.over(self.epochs_of(mode, Way.OURS).seconds)

    def faster_than_loops(self, mode: Mode) -> Spread:
        """The same for the loop that is faster, repeat by repeat."""
        ratios = [self.faster_than_loop(mode, loop).values for loop in LOOPS]
        return Spread(tuple(map(min, *ratios)))

    def epoch_speed_up(self, mode: Mode) -> Spread:
        """How many times faster our epoch is in a mode than in Flax BF16."""
        return self.epochs_of(Mode.FLAX_BF16, Way.OURS).seconds.over(self.epochs_of(mode, Way.OURS).seconds)

    def layer_speed_up(self, mode: Mode, shape: Shape, *, backward: bool) -> Spread:
        """How many times faster a layer is in a mode than in Flax BF16."""
        reference = self.layer(Mode.FLAX_BF16, shape, backward=backward)
        return reference.seconds.over(self.layer(mode, shape, backward=backward).seconds)


# --- JSON ------------------------------------------------------------------------------------------------------------


def as_json(benchmark: Benchmark) -> str:
    """All raw numbers, and what they come to, for programs. Times are in seconds."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "mnist_fp8": __version__,
        "environment": dict(benchmark.environment),
        "host_run": benchmark.is_host,
        "device": benchmark.device,
        "peaks": dataclasses.asdict(benchmark.peaks) if benchmark.peaks else None,
        "left_out": {mode.value: why for mode, why in benchmark.left_out.items()},
        "training": {
            "images": benchmark.images,
            "batch_size": benchmark.batch_size,
            "accuracy_after_epochs": ACCURACY_EPOCHS,
            "epochs": list(_epochs_as_json(benchmark)),
        },
        "dense": {
            "call": _spread(benchmark.call),
            "applications": benchmark.applications,
            "layers": list(_layers_as_json(benchmark)),
        },
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _epochs_as_json(benchmark: Benchmark) -> Iterator[dict[str, Any]]:
    for epochs in benchmark.epochs:
        ours = epochs.way is Way.OURS
        ratio = benchmark.epoch_speed_up(epochs.mode) if ours else benchmark.faster_than_loop(epochs.mode, epochs.way)
        yield {
            "mode": epochs.mode.value,
            "way": epochs.way.value,
            "first": epochs.first,
            "seconds": _spread(epochs.seconds),
            "accuracy": epochs.accuracy,
            "speed_up_over_flax_bf16" if ours else "ours_is_faster": _spread(ratio),
        }


def _layers_as_json(benchmark: Benchmark) -> Iterator[dict[str, Any]]:
    for layer in benchmark.layers:
        yield {
            "mode": layer.mode.value,
            "shape": layer.shape,
            "backward": layer.backward,
            "seconds": _spread(layer.seconds),
            "operations_per_second": _spread(layer.rate),
            "speed_up_over_flax_bf16": _spread(
                benchmark.layer_speed_up(layer.mode, layer.shape, backward=layer.backward)
            ),
            "operations_per_byte": layer.intensity,
            "of_peak": layer.of_peak(benchmark.peaks) if benchmark.peaks else None,
            "least_seconds": layer.least(benchmark.peaks) if benchmark.peaks else None,
        }


def _spread(spread: Spread) -> dict[str, Any]:
    return {"median": spread.median, "lowest": spread.lowest, "highest": spread.highest, "values": spread.values}
