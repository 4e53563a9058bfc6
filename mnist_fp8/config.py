"""What a training run is asked to do, and the environment variables that the project reads."""

import dataclasses
import enum
import os
from collections.abc import Mapping
from pathlib import Path

MAX_SEED = 2**32 - 1
"""JAX keeps 32 bits of a seed: a larger one would silently be another seed, or none."""

MAX_POOLING = 4
"""Images are 7 pixels wide then; smaller ones show no digits."""

MAX_MARGIN = 30
"""Transformer Engine computes ``2**margin`` as a 32-bit integer."""


class ConfigError(ValueError):
    """Something asked for cannot be done; the message is one line for the person who asked."""


class Precision(enum.Enum):
    """The three ways to compute the dense layers."""

    FLAX_BF16 = "flax-bf16"
    TE_BF16 = "te-bf16"
    TE_FP8 = "te-fp8"

    @property
    def uses_te(self) -> bool:
        """Whether the dense layers are Transformer Engine's."""
        return self is not Precision.FLAX_BF16


class RunKind(enum.Enum):
    """How Transformer Engine runs; every output of the project says which."""

    KERNEL = "kernel"
    HOST = "host"

    @property
    def description(self) -> str:
        """One line that says what this kind of run can see."""
        if self is RunKind.KERNEL:
            return "kernel run: Transformer Engine with its CUDA extension, on a GPU"
        return "host run: Transformer Engine's own Python on the CPU; its CUDA kernels are not seen"


@dataclasses.dataclass(frozen=True)
class RecipeConfig:
    """A quantization recipe by Transformer Engine's own name; ``None`` leaves an option at the recipe's default.

    Attributes:
        name: class name in ``transformer_engine.common.recipe``, such as ``DelayedScaling``.
        margin: the scale is divided by ``2**margin``.
        fp8_format: ``E4M3`` or ``HYBRID`` (E4M3 forward, E5M2 for gradients).
        amax_history_len: steps that the amax history keeps.
        amax_compute_algo: ``max`` or ``most_recent``.
    """

    name: str = "DelayedScaling"
    margin: int | None = None
    fp8_format: str | None = None
    amax_history_len: int | None = None
    amax_compute_algo: str | None = None

    def __post_init__(self) -> None:
        """Refuse what no recipe can take."""
        _check_at_least("amax history length", self.amax_history_len, 1)
        _check_between("FP8 margin", self.margin, -MAX_MARGIN, MAX_MARGIN)
        if self.amax_compute_algo not in (None, "max", "most_recent"):
            raise ConfigError(f"amax algorithm is {self.amax_compute_algo!r}; expected 'max' or 'most_recent'")

    @property
    def options(self) -> dict[str, object]:
        """The options that were asked for, by the name of the recipe's field."""
        fields = {k: v for k, v in dataclasses.asdict(self).items() if k != "name"}
        return {name: value for name, value in fields.items() if value is not None}


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training run. The defaults are those of Transformer Engine's own MNIST example.

    Attributes:
        precision: how the dense layers compute.
        recipe: quantization recipe, used when ``precision`` is TE_FP8.
        fp8_update_interval: steps from one update of the FP8 metadata to the next.
        mesh: (axis, devices) pairs; the batch is divided over all of them.
        train_size: training images to use, from the first; ``None`` is all 60,000.
        test_size: test images to use, from the first; ``None`` is all 10,000.
        pooling: pixels of a block's side; images are the means of such blocks, 1 leaves them as they are.
        data_dir: TFDS directory; ``None`` is the user's own, or a cache.
    """

    precision: Precision = Precision.FLAX_BF16
    recipe: RecipeConfig = dataclasses.field(default_factory=RecipeConfig)
    fp8_update_interval: int = 1
    mesh: tuple[tuple[str, int], ...] = ()
    batch_size: int = 64
    test_batch_size: int = 800
    epochs: int = 10
    learning_rate: float = 0.01
    momentum: float = 0.9
    seed: int = 1
    train_size: int | None = None
    test_size: int | None = None
    pooling: int = 1
    data_dir: Path | None = None

    def __post_init__(self) -> None:
        """Refuse values that are wrong whatever the machine and the data are."""
        _check_at_least("FP8 update interval", self.fp8_update_interval, 1)
        _check_at_least("batch size", self.batch_size, 1)
        _check_at_least("test batch size", self.test_batch_size, 1)
        _check_at_least("epochs", self.epochs, 1)
        _check_at_least("train size", self.train_size, 1)
        _check_at_least("test size", self.test_size, 1)
        _check_between("pooling", self.pooling, 1, MAX_POOLING)
        _check_between("seed", self.seed, 0, MAX_SEED)
        if not 0 < self.learning_rate < float("inf"):
            raise ConfigError(f"learning rate is {self.learning_rate}; expected a finite number above 0")
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"momentum is {self.momentum}; expected a number from 0 to below 1")
        for name, size in (("batch size", self.batch_size), ("test batch size", self.test_batch_size)):
            if size % self.devices:
                raise ConfigError(f"{name} is {size}; expected a multiple of the mesh's {self.devices} devices")

    @property
    def mode(self) -> str:
        """The precision and, for FP8, the recipe with the options asked for, such as ``te-fp8: DelayedScaling``."""
        if self.precision is not Precision.TE_FP8:
            return self.precision.value
        options = "".join(f", {name}={value}" for name, value in self.recipe.options.items())
        return f"{self.precision.value}: {self.recipe.name}{options}"

    @property
    def devices(self) -> int:
        """Devices that the mesh asks for."""
        product = 1
        for _, size in self.mesh:
            product *= size
        return product


def _check_at_least(what: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise ConfigError(f"{what} is {value}; expected {least} or more")


def _check_between(what: str, value: int | None, least: int, most: int) -> None:
    if value is not None and not least <= value <= most:
        raise ConfigError(f"{what} is {value}; expected {least} to {most}")


def requested_run_kind(environ: Mapping[str, str] = os.environ) -> RunKind | None:
    """The kind of run that ``MNIST_FP8_TE`` forces; ``None`` where it is unset or empty.

    Raises:
        ConfigError: the variable is neither ``kernel`` nor ``host``.
    """
    value = environ.get("MNIST_FP8_TE", "")
    if not value:
        return None
    try:
        return RunKind(value)
    except ValueError:
        raise ConfigError(f"MNIST_FP8_TE is {value!r}; expected 'kernel' or 'host', or leave it unset") from None


def cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the project keeps what it can make again: ``$XDG_CACHE_HOME/mnist_fp8``."""
    base = environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mnist_fp8"
