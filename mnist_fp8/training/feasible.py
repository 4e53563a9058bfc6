"""What a training run asks for and cannot have is refused before any work."""

import jax

from mnist_fp8 import te
from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.modes import Precision
from mnist_fp8.training import data
from mnist_fp8.training.config import TrainConfig
from mnist_fp8.training.data import SIZES
from mnist_fp8.training.train import prepare_backend

_DATA_AXES = ("dp", "fsdp")


def check_feasible(config: TrainConfig) -> None:
    """Refuse what the machine, the recipe or the data cannot honour, before any work.

    Raises:
        ConfigError: with what was asked, what is possible and why.
        TeUnavailableError: TE is needed and cannot run.
    """
    prepare_backend(config.precision)
    data.check_data_dir(config.data_dir)
    for what, size, images in (
        ("batch size", config.batch_size, config.train_size or SIZES["train"]),
        ("test batch size", config.test_batch_size, config.test_size or SIZES["test"]),
    ):
        if size > images:
            raise ConfigError(f"{what} is {size}, more than the {images} images there are to take it from")
    if config.mesh:
        _check_mesh(config)
    if config.precision is Precision.TE_FP8:
        te.require_support(config.recipe)
        if config.fp8_update_interval > 1 and not te.keeps_metadata(config.recipe):
            raise ConfigError(f"recipe {config.recipe.name} keeps no metadata, so an update interval has no meaning")
        _check_fp8_sizes(config)


def _check_mesh(config: TrainConfig) -> None:
    for axis, _ in config.mesh:
        if axis not in _DATA_AXES:
            known = f"; TE also knows {', '.join(te.mesh_axes())}" if config.precision.uses_te else ""
            raise ConfigError(f"mesh axis {axis!r} divides the model; this trainer divides the batch: dp, fsdp{known}")
    devices = jax.devices()
    if config.devices > len(devices):
        more = ""
        if devices[0].platform == "cpu":
            more = f"; on a CPU, XLA_FLAGS=--xla_force_host_platform_device_count={config.devices} makes virtual ones"
        raise ConfigError(f"the mesh asks for {config.devices} devices; JAX has {len(devices)} ({devices[0]}){more}")


def _check_fp8_sizes(config: TrainConfig) -> None:
    multiple = te.size_multiple(config.recipe) * config.devices
    for what, size in (("batch size", config.batch_size), ("test batch size", config.test_batch_size)):
        if size % multiple:
            on_each = f" on each of {config.devices} devices" if config.devices > 1 else ""
            raise ConfigError(
                f"{what} is {size}; {config.recipe.name} needs a multiple of"
                f" {te.size_multiple(config.recipe)}{on_each}, as FP8 matrix products do"
            )
