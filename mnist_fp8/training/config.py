"""What a training run is asked to do."""

import dataclasses
from pathlib import Path

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.modes import Precision, RecipeConfig, check_at_least, check_between

MAX_SEED = 2**32 - 1
"""JAX keeps 32 bits of a seed: a larger one would silently be another seed, or none."""

MAX_INTERVAL = 2**31 - 1
"""JAX counts steps with 32 bits."""

MAX_POOLING = 4
"""Images are 7 pixels wide then; smaller ones show no digits."""


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
        data_dir: TFDS directory that holds MNIST; ``None`` is the MNIST in this package.
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
        check_between("FP8 update interval", self.fp8_update_interval, 1, MAX_INTERVAL)
        check_at_least("batch size", self.batch_size, 1)
        check_at_least("test batch size", self.test_batch_size, 1)
        check_at_least("epochs", self.epochs, 1)
        check_at_least("train size", self.train_size, 1)
        check_at_least("test size", self.test_size, 1)
        check_between("pooling", self.pooling, 1, MAX_POOLING)
        check_between("seed", self.seed, 0, MAX_SEED)
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
