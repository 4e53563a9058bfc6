"""Measure how fast training is: our epoch against a plain loop, the modes against each other, and dense layers.

Everything is measured in one process, and repeats are interleaved (A B C A B C ...): what disturbs the machine for a
while disturbs all of them, and ratios are taken within a repeat.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mnist_fp8 import te
from mnist_fp8.benchmark.results import ACCURACY_EPOCHS, Benchmark, Epochs, Layer, Way
from mnist_fp8.benchmark.roofline import Shape
from mnist_fp8.core.modes import Mode, Precision, RecipeConfig
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.core.spread import Spread
from mnist_fp8.te import provenance
from mnist_fp8.te.timing import Program, interleaved, layer_program
from mnist_fp8.training import data, fp8_check, train
from mnist_fp8.training.config import TrainConfig
from mnist_fp8.training.data import Dataset
from mnist_fp8.training.train import Metadata, TrainState

Say = Callable[[str], None]
"""Is told what is measured next."""

_MNIST_SHAPES: tuple[Shape, ...] = ((64, 32, 32), (64, 128, 32), (64, 12544, 128))
_BATCH_SIZE = 64


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        train_size: training images; ``None`` is all.
        test_size: test images; ``None`` is all.
        epochs: timed epochs of each mode and way, at least `ACCURACY_EPOCHS`.
        shapes: sizes of the dense layers.
        repeats: of each layer.
        seconds: that one repeat of a layer should take.
        applications: how often one call runs a layer.
    """

    train_size: int | None
    test_size: int | None
    epochs: int
    shapes: Sequence[Shape]
    repeats: int
    seconds: float
    applications: int


def choose_plan(*, on_gpu: bool, quick: bool) -> Plan:
    """How much to measure: minutes on a GPU; on a CPU, where times say nothing about kernels, as little as will do."""
    if on_gpu:
        shapes = (*_MNIST_SHAPES, *((size, size, size) for size in (1024, 2048, 4096, 8192)))
        repeats, seconds = (3, 0.05) if quick else (7, 0.1)
        return Plan(None, None, 3 if quick else 4, shapes, repeats, seconds, applications=32)
    sizes = (128,) if quick else (128, 256)
    return Plan(320, 320, 3, (*_MNIST_SHAPES, *((size, size, size) for size in sizes)), 3, 0.02, applications=2)


def measure(plan: Plan, say: Say) -> Benchmark:
    """Measure everything.

    Raises:
        TeUnavailableError: Transformer Engine cannot run here.
        Float8MissingError: a mode that should compute in FP8 does not.
    """
    facts = provenance.describe()
    left_out = _left_out()
    modes = [mode for mode in Mode if mode not in left_out]
    train_ds, test_ds = data.get_datasets(plan.train_size, plan.test_size)
    epochs = _epochs(modes, train_ds, test_ds, plan.epochs, say)
    call, layers = _layers(modes, plan, say)
    return Benchmark(
        environment=facts,
        is_host=te.engine().kind is RunKind.HOST,
        device=jax.devices()[0].device_kind,
        images=len(train_ds["label"]),
        batch_size=_BATCH_SIZE,
        left_out=left_out,
        epochs=epochs,
        call=call,
        applications=plan.applications,
        layers=layers,
    )


def _left_out() -> dict[Mode, str]:
    """The modes whose recipe the installed TE lacks or this machine cannot run, and why."""
    known = te.support_by_recipe()
    lacking = te.Support(ok=False, reason=f"Transformer Engine {te.version()} has no such recipe")
    recipes = {mode: mode.recipe for mode in Mode}
    supports = {mode: known.get(recipe.name, lacking) for mode, recipe in recipes.items() if recipe}
    return {mode: support.reason for mode, support in supports.items() if not support.ok}


# --- epochs --------------------------------------------------------------------------------------------------------


def plain_epoch(
    state: TrainState, train_ds: Dataset, batch_size: int, key: jax.Array, metadata: Metadata
) -> tuple[TrainState, Metadata, float, float]:
    """Train once over the data, step by step in Python, as the MNIST examples of Flax and Transformer Engine do.

    Each step gathers its batch outside of any program, calls `train.apply_model` and then `train.update_model`, and
    keeps loss and accuracy, which are fetched and averaged when the epoch is over. Data that are JAX arrays are
    gathered on the device, as in Flax's example (``examples/mnist`` before NNX); NumPy arrays on the host, as in
    Transformer Engine's (``examples/jax/mnist``).

    The order is an array on the device, of which each step takes its row, as in both examples. It computes what
    `train.train_epoch` computes: the same order and the same keys. (The keys of all steps are made at once, so that
    they cost next to nothing: Transformer Engine's example uses the same ones in every step.)

    Args:
        state: training state.
        train_ds: images and labels.
        batch_size: images in a step.
        key: decides the order and the dropout.
        metadata: FP8 metadata.

    Returns:
        The new state and metadata, mean loss and mean accuracy.
    """
    order, keys = train.batches(key, len(train_ds["label"]), batch_size)
    dropout_keys, rounding_keys = jax.vmap(jax.random.split)(keys).T
    losses, accuracies = [], []
    for batch, dropout, rounding in zip(order, dropout_keys, rounding_keys, strict=True):
        rngs = {"dropout": dropout, "sr_rng": rounding}
        grads, loss, accuracy = train.apply_model(
            state, train_ds["image"][batch], train_ds["label"][batch], metadata, rngs
        )
        state, metadata = train.update_model(state, grads, metadata)
        losses.append(loss)
        accuracies.append(accuracy)
    return state, metadata, float(np.mean(losses)), float(np.mean(accuracies))


_Start = tuple[TrainConfig, TrainState, Metadata]


def _start(mode: Mode) -> _Start:
    """What to train, from where; it is the same for each way."""
    config = TrainConfig(mode.precision, mode.recipe or RecipeConfig())
    return config, *train.create_train_state(config)


def _check_fp8(start: _Start, train_ds: Dataset) -> None:
    """Make sure that a mode in FP8 computes in FP8; see `train.check_fp8`."""
    config, state, metadata = start
    if config.precision is Precision.TE_FP8:
        batch = train_ds["image"][:_BATCH_SIZE], train_ds["label"][:_BATCH_SIZE]
        key = jax.random.key(0)
        fp8_check.check_fp8(state, *batch, metadata, {"dropout": key, "sr_rng": key})


class _Run:
    """The training of one mode in one way, an epoch at a time."""

    def __init__(self, start: _Start, way: Way, train_ds: Dataset, test_ds: Dataset) -> None:
        self._config, self._state, self._metadata = start
        self._way, self._train_ds, self._test_ds = way, train_ds, test_ds
        self.seconds: list[float] = []
        self.accuracy = math.nan

    def warm_up(self) -> float:
        """Seconds of an epoch, its compilation included, after which training starts over."""
        before = self._state, self._metadata
        seconds = self._timed_epoch(0)
        self._state, self._metadata = before
        return seconds

    def epoch(self) -> None:
        """Train an epoch and note its time; take the accuracy when it is time for that."""
        self.seconds.append(self._timed_epoch(len(self.seconds) + 1))
        if len(self.seconds) == ACCURACY_EPOCHS:
            batch_size = min(self._config.test_batch_size, len(self._test_ds["label"]))
            _, self.accuracy = train.eval_model(self._state, self._test_ds, batch_size, self._metadata)

    def _timed_epoch(self, number: int) -> float:
        key = jax.random.fold_in(jax.random.key(self._config.seed), number)
        train_epoch = train.train_epoch if self._way is Way.OURS else plain_epoch
        begin = time.perf_counter()
        self._state, self._metadata, *_ = train_epoch(self._state, self._train_ds, _BATCH_SIZE, key, self._metadata)
        jax.block_until_ready((self._state.params, self._metadata))
        return time.perf_counter() - begin


def _epochs(modes: Sequence[Mode], train_ds: Dataset, test_ds: Dataset, repeats: int, say: Say) -> list[Epochs]:
    one_device = TrainConfig()
    where = {
        Way.OURS: train.on_device(one_device, train_ds),
        Way.DEVICE_LOOP: jax.device_put(train_ds, jax.devices()[0]),
        Way.HOST_LOOP: train_ds,
    }
    test_ds = train.on_device(one_device, test_ds)
    starts = {mode: _start(mode) for mode in modes}
    for start in starts.values():
        _check_fp8(start, train_ds)
    runs = {(mode, way): _Run(starts[mode], way, where[way], test_ds) for mode in modes for way in Way}
    first = {}
    for (mode, way), run in runs.items():
        say(f"epochs: compiling {mode.value}, {way.value}")
        first[mode, way] = run.warm_up()
    for repeat in range(repeats):
        say(f"epochs: {repeat + 1} of {repeats}, all modes and ways")
        for run in runs.values():
            run.epoch()
    return [
        Epochs(mode, way, first[mode, way], Spread(tuple(run.seconds)), run.accuracy)
        for (mode, way), run in runs.items()
    ]


# --- dense layers --------------------------------------------------------------------------------------------------


def _layers(modes: Sequence[Mode], plan: Plan, say: Say) -> tuple[Spread, list[Layer]]:
    layers = []
    for shape in plan.shapes:
        for backward in (False, True):
            say(f"dense: {' x '.join(map(str, shape))}, forward{' and backward' if backward else ''}")
            programs = [layer_program(mode, shape, plan.applications, backward=backward) for mode in modes]
            times = interleaved(programs, plan.repeats, plan.seconds)
            layers += [
                Layer(mode, shape, backward, Spread(tuple(seconds / plan.applications for seconds in spread.values)))
                for mode, spread in zip(modes, times, strict=True)
            ]
    (call,) = interleaved([_almost_nothing()], plan.repeats, plan.seconds)
    return call, layers


def _almost_nothing() -> Program:
    add, x = jax.jit(lambda x: x + 1), jnp.zeros((64, 32), jnp.bfloat16)
    return lambda: add(x)
