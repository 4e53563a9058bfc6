"""A whole training run: epochs, their figures, and who watches."""

import dataclasses
import functools
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax

from mnist_fp8.core.modes import Precision
from mnist_fp8.training import data
from mnist_fp8.training.config import TrainConfig
from mnist_fp8.training.data import Dataset
from mnist_fp8.training.feasible import check_feasible
from mnist_fp8.training.fp8_check import check_fp8
from mnist_fp8.training.train import (
    Metadata,
    TrainState,
    create_train_state,
    eval_model,
    mesh_context,
    on_device,
    train_epoch,
)

if TYPE_CHECKING:
    from mnist_fp8.training.checkpoints import Checkpoint


@dataclasses.dataclass(frozen=True)
class EpochMetrics:
    """Mean loss and accuracy of an epoch; the training figures are taken while training, with dropout."""

    epoch: int
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    seconds: float


@dataclasses.dataclass
class TrainResult:
    """What a run has produced so far.

    Attributes:
        status: ``complete``, ``interrupted`` or ``diverged``.
    """

    epochs: list[EpochMetrics]
    status: str
    state: TrainState
    metadata: Metadata


class Watcher:
    """What a training run tells to whoever watches it; each method may be overridden."""

    def on_variables(self, variables: Mapping[str, Any]) -> None:
        """Before training: the initial variables, metadata included."""

    def on_steps(self, epoch: int, done: int, total: int) -> None:
        """After some steps of an epoch."""

    def on_resumed(self, epochs: Sequence[EpochMetrics]) -> None:
        """Before training: the epochs that a checkpoint has already."""

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """After an epoch and its evaluation; where there is a checkpoint, it is kept."""


def datasets(config: TrainConfig) -> tuple[data.Dataset, data.Dataset]:
    """The training and the test set of a run."""
    train_ds, test_ds = data.get_datasets(config.train_size, config.test_size, config.data_dir)
    return data.pooled(train_ds, config.pooling), data.pooled(test_ds, config.pooling)


def train_and_evaluate(
    config: TrainConfig, watcher: Watcher | None = None, checkpoint: "Checkpoint | None" = None
) -> TrainResult:
    """Train and evaluate as configured.

    Ctrl-C and a loss that is not finite end the run early; the epochs measured until then are in the result.

    Args:
        config: what to do.
        watcher: is told how it goes.
        checkpoint: of a run of that configuration, which goes on from there, and keeps each epoch in it.

    Raises:
        ConfigError: the request cannot be honoured; nothing has been done.
        TeUnavailableError: Transformer Engine is needed and cannot run.
        Float8MissingError: FP8 was asked for and the model does not compute in it.
    """
    watcher = watcher or Watcher()
    check_feasible(config)
    train_ds, test_ds = datasets(config)
    state, metadata = create_train_state(config)
    watcher.on_variables({**metadata, "params": state.params})
    if config.precision is Precision.TE_FP8:
        key = jax.random.key(0)
        batch = train_ds["image"][: config.batch_size], train_ds["label"][: config.batch_size]
        check_fp8(state, *batch, metadata, {"dropout": key, "sr_rng": key})
    result = TrainResult([], "complete", state, metadata)
    if checkpoint and checkpoint.epochs:
        result.epochs += checkpoint.epochs
        result.state, result.metadata = checkpoint.restored((state, metadata))
        watcher.on_resumed(checkpoint.epochs)
    with mesh_context(config):
        _run_epochs(config, on_device(config, train_ds), on_device(config, test_ds), result, watcher, checkpoint)
    return result


def _run_epochs(
    config: TrainConfig,
    train_ds: Dataset,
    test_ds: Dataset,
    result: TrainResult,
    watcher: Watcher,
    checkpoint: "Checkpoint | None" = None,
) -> None:
    key = jax.random.key(config.seed)
    try:
        for epoch in range(len(result.epochs) + 1, config.epochs + 1):
            started = time.perf_counter()
            result.state, result.metadata, train_loss, train_accuracy = train_epoch(
                result.state,
                train_ds,
                config.batch_size,
                jax.random.fold_in(key, epoch),
                result.metadata,
                functools.partial(watcher.on_steps, epoch),
            )
            test_loss, test_accuracy = eval_model(result.state, test_ds, config.test_batch_size, result.metadata)
            if not (math.isfinite(train_loss) and math.isfinite(test_loss)):
                result.status = "diverged"
                return
            seconds = time.perf_counter() - started
            metrics = EpochMetrics(epoch, train_loss, train_accuracy, test_loss, test_accuracy, seconds)
            result.epochs.append(metrics)
            if checkpoint:
                checkpoint.keep(result.epochs, (result.state, result.metadata))
            watcher.on_epoch(metrics)
    except KeyboardInterrupt:
        result.status = "interrupted"
