"""Training curves of the modes, over some seeds."""

import functools
import hashlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np

from mnist_fp8.core.modes import Mode, RecipeConfig
from mnist_fp8.measure.common import modes
from mnist_fp8.record.entries import Curves, Value
from mnist_fp8.training import runs, train
from mnist_fp8.training.config import TrainConfig
from mnist_fp8.training.data import Dataset

MODES = {mode.recipe.name if mode.recipe else mode.value: mode for mode in Mode}
"""Modes by the subject of their keys: a recipe's name, where there is one."""
SEEDS = (1, 2, 3)
STEPS, BATCH, EVERY = 120, 16, 6
"""Steps, images in each, and steps over which the loss is averaged."""
LEARNING_RATE = 0.03
"""The loss falls from 3.5 to 1.3 in so few steps; at the trainer's own 0.01 it would stay that of chance."""
REPEATED = 12
"""Steps that are taken again with the first seed, to see whether the numbers are the same."""
TEST_SIZE = 400
POOLING = 3
"""Images are 9 pixels wide: what is measured are the dense layers, and convolutions take long on a CPU."""


def probes() -> Mapping[str, Callable[[], Mapping[str, Value]]]:
    """Measurements by the beginning of their keys."""
    return {f"training/{name}": functools.partial(_curves, name) for name in MODES if _runs(name)}


def _runs(name: str) -> bool:
    recipe = MODES[name].recipe
    return recipe is None or recipe.name in modes()


@functools.cache
def _data() -> tuple[Dataset, Dataset]:
    return runs.datasets(TrainConfig(train_size=STEPS * BATCH, test_size=TEST_SIZE, pooling=POOLING))


def describe_data() -> dict[str, str]:
    """What was trained on: the data's digest, for records that are to be compared."""
    digest, side = hashlib.sha256(), _data()[0]["image"].shape[1]
    for split in _data():
        for name in sorted(split):
            digest.update(np.ascontiguousarray(split[name]).tobytes())
    return {"data": f"MNIST, {STEPS * BATCH} + {TEST_SIZE} images of {side}x{side}, {digest.hexdigest()[:12]}"}


def _curves(name: str) -> dict[str, Value]:
    curves = [_run(name, seed) for seed in SEEDS]
    again = _run(name, SEEDS[0], REPEATED)
    # Runs that are alike for so long are alike to the end; runs that are not, drift apart further.
    factor = STEPS // REPEATED
    noise = factor * max(abs(a - b) for a, b in zip(again.losses, curves[0].losses, strict=False))
    steps = tuple(range(EVERY, STEPS + 1, EVERY))
    return {
        f"training/{name}/loss": Curves(steps, tuple(run.losses for run in curves), noise),
        f"training/{name}/test loss": Curves((STEPS,), tuple((run.test_loss,) for run in curves), noise),
        f"training/{name}/test accuracy": Curves(
            (STEPS,), tuple((run.test_accuracy,) for run in curves), noise, higher_is_better=True
        ),
    }


class _Run(NamedTuple):
    """Training losses, averaged over some steps each; test loss and accuracy at the end."""

    losses: tuple[float, ...]
    test_loss: float
    test_accuracy: float


def _run(name: str, seed: int, steps: int = STEPS) -> _Run:
    mode = MODES[name]
    config = TrainConfig(
        precision=mode.precision,
        recipe=mode.recipe or RecipeConfig(),
        seed=seed,
        batch_size=BATCH,
        pooling=POOLING,
        learning_rate=LEARNING_RATE,
    )
    train_ds, test_ds = _data()
    state, metadata = train.create_train_state(config)
    losses = []
    take_step = train.step_of_many()
    for step, key in enumerate(jax.random.split(jax.random.key(seed), STEPS)[:steps]):
        rows = slice(step * BATCH, (step + 1) * BATCH)
        batch = train_ds["image"][rows], train_ds["label"][rows]
        state, metadata, loss, _ = take_step(state, metadata, *batch, key)
        losses.append(loss)
    means = np.asarray(losses, np.float64).reshape(-1, EVERY).mean(axis=1)
    test_loss, test_accuracy = train.eval_model(state, test_ds, TEST_SIZE, metadata)
    return _Run(tuple(map(float, means)), test_loss, test_accuracy)
