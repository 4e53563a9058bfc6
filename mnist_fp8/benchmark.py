"""Measure how fast training is: our epoch against a plain loop, the modes against each other, and dense layers.

Everything is measured in one process, and repeats are interleaved (A B C A B C ...): what disturbs the machine for a
while disturbs all of them, and ratios are taken within a repeat.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mnist_fp8 import data, environment, float8, te_api, train
from mnist_fp8.benchmark_results import ACCURACY_EPOCHS, Benchmark, Epochs, Layer, Spread, Way
from mnist_fp8.config import Precision, RecipeConfig, RunKind, TrainConfig
from mnist_fp8.roofline import Mode, Shape

Say = Callable[[str], None]
"""Is told what is measured next."""
Program = Callable[[], jax.Array]
"""A compiled program and its arguments: a call starts it, its result is there when it has ended."""

_MNIST_SHAPES: tuple[Shape, ...] = ((64, 32, 32), (64, 128, 32), (64, 12544, 128))
_BATCH_SIZE = 64
_UNROLLED = 8


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
    facts = environment.describe()
    left_out = _left_out()
    modes = [mode for mode in Mode if mode not in left_out]
    train_ds, test_ds = data.get_datasets(plan.train_size, plan.test_size)
    epochs = _epochs(modes, train_ds, test_ds, plan.epochs, say)
    call, layers = _layers(modes, plan, say)
    return Benchmark(
        environment=facts,
        is_host=te_api.engine().kind is RunKind.HOST,
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
    known = te_api.support_by_recipe()
    lacking = te_api.Support(ok=False, reason=f"Transformer Engine {te_api.version()} has no such recipe")
    recipes = {mode: mode.recipe for mode in Mode}
    found = {mode: known.get(recipe.name, lacking) for mode, recipe in recipes.items() if recipe}
    return {mode: support.reason for mode, support in found.items() if not support.ok}


# --- epochs --------------------------------------------------------------------------------------------------------


def plain_epoch(
    state: train.TrainState, train_ds: data.Dataset, batch_size: int, key: jax.Array, metadata: train.Metadata
) -> tuple[train.TrainState, train.Metadata, float, float]:
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


_Start = tuple[TrainConfig, train.TrainState, train.Metadata]


def _start(mode: Mode) -> _Start:
    """What to train, from where; it is the same for each way."""
    config = TrainConfig(mode.precision, mode.recipe or RecipeConfig())
    return config, *train.create_train_state(config)


def _check_fp8(start: _Start, train_ds: data.Dataset) -> None:
    """Make sure that a mode in FP8 computes in FP8; see `train.check_fp8`."""
    config, state, metadata = start
    if config.precision is Precision.TE_FP8:
        batch = train_ds["image"][:_BATCH_SIZE], train_ds["label"][:_BATCH_SIZE]
        key = jax.random.key(0)
        train.check_fp8(state, *batch, metadata, {"dropout": key, "sr_rng": key})


class _Run:
    """The training of one mode in one way, an epoch at a time."""

    def __init__(self, start: _Start, way: Way, train_ds: data.Dataset, test_ds: data.Dataset) -> None:
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


def _epochs(
    modes: Sequence[Mode], train_ds: data.Dataset, test_ds: data.Dataset, repeats: int, say: Say
) -> list[Epochs]:
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
    found = []
    for shape in plan.shapes:
        for backward in (False, True):
            say(f"dense: {' x '.join(map(str, shape))}, forward{' and backward' if backward else ''}")
            programs = [layer_program(mode, shape, plan.applications, backward=backward) for mode in modes]
            times = interleaved(programs, plan.repeats, plan.seconds)
            found += [
                Layer(mode, shape, backward, Spread(tuple(seconds / plan.applications for seconds in spread.values)))
                for mode, spread in zip(modes, times, strict=True)
            ]
    (call,) = interleaved([_almost_nothing()], plan.repeats, plan.seconds)
    return call, found


def interleaved(programs: Sequence[Program], repeats: int, seconds: float) -> list[Spread]:
    """Time programs in turn; returns the seconds of a call for each of them.

    Calls are asynchronous: in a repeat they are made one right after the other, and only the last is waited for, so
    that the device has always something to do.

    Args:
        programs: what to time.
        repeats: how often each has its turn.
        seconds: that a turn should take; it decides how many calls there are in it.
    """
    counts = []
    for program in programs:
        jax.block_until_ready(program())  # compiles it
        counts.append(max(1, round(seconds / _seconds_of_a_call(program, 1))))
    times = [
        [_seconds_of_a_call(program, count) for program, count in zip(programs, counts, strict=True)]
        for _ in range(repeats)
    ]
    return [Spread(tuple(column)) for column in zip(*times, strict=True)]


def _seconds_of_a_call(program: Program, calls: int) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        last = program()
    last.block_until_ready()
    return (time.perf_counter() - begin) / calls


def _almost_nothing() -> Program:
    add, x = jax.jit(lambda x: x + 1), jnp.zeros((64, 32), jnp.bfloat16)
    return lambda: add(x)


def layer_program(mode: Mode, shape: Shape, applications: int, *, backward: bool) -> Program:
    """A program that runs a dense layer some times, each time after the other; its result is of no interest.

    Args:
        mode: which layer.
        shape: rows of the input, contracted size, features.
        applications: how often a call of the program runs it.
        backward: whether forward and backward, or forward only.

    Raises:
        Float8MissingError: a layer in FP8 does not multiply float8.
    """
    m, k, n = shape
    context = te_api.Autocast(mode.recipe) if mode.precision.uses_te else contextlib.nullcontext
    layer = _dense(mode, n)
    x, grad = (_normal(seed, size) for seed, size in enumerate(((m, k), (m, n))))

    def forward(variables: Mapping[str, Any], x: jax.Array) -> jax.Array:
        with context():
            y: jax.Array = layer.apply(variables, x)
        return y

    def whole(variables: Mapping[str, Any], x: jax.Array, grad: jax.Array) -> Any:  # noqa: ANN401 - y and gradients
        y, pull_back = jax.vjp(forward, variables, x)
        return y, *pull_back(grad)

    with context():
        variables = te_api.unbox(jax.jit(layer.init)(jax.random.key(0), x))
    variables = _with_settled_scales(jax.jit(whole), variables, x, grad)
    run = jax.jit(_repeated(whole, applications) if backward else _repeated(forward, applications))
    arguments = (variables, x, grad) if backward else (variables, x)
    if mode.is_fp8:
        _check_float8(jax.make_jaxpr(run)(*arguments), mode, shape)
    return lambda: run(*arguments)


def _dense(mode: Mode, features: int) -> Any:  # noqa: ANN401 - Flax's or TE's module
    """A dense layer without bias that keeps a float32 kernel and computes in BF16 or FP8, as in `model.Net`."""
    if mode.precision.uses_te:
        return te_api.dense_general(features=features, dtype=jnp.float32, use_bias=False)
    return nn.Dense(features, dtype=jnp.bfloat16, param_dtype=jnp.float32, use_bias=False)


def _normal(seed: int, shape: tuple[int, int]) -> jax.Array:
    """Numbers as a layer sees them: a GPU that multiplies zeros needs less power, and is faster."""
    return jax.random.normal(jax.random.key(seed), shape, jnp.bfloat16)


def _with_settled_scales(
    whole: Callable[..., Any], variables: dict[str, Any], x: jax.Array, grad: jax.Array
) -> dict[str, Any]:
    """Variables after two steps, whose scales are those of these tensors; as they were where there are none."""
    if set(variables) == {"params"}:
        return variables
    for _ in range(2):
        _, grads, _ = whole(variables, x, grad)
        variables = {name: variables[name] if name == "params" else grads[name] for name in variables}
    return variables


def _repeated(function: Callable[..., Any], times: int) -> Callable[..., jax.Array]:
    """A function that calls another one some times with the same arguments, one call after the other.

    So a call from Python costs little of what is measured. Barriers keep XLA from doing it once for all: the arguments
    of a call are not known before the one before it has ended, and its results are needed as a whole. A number out of
    each result ties the calls together, which costs a tiny kernel. Several calls stand in the loop's body one after the
    other: XLA starts the kernels of a short body one by one, and those of a longer one as a graph.
    """

    def repeated(*arguments: Any) -> jax.Array:  # noqa: ANN401
        def once(before: jax.Array, _: None) -> tuple[jax.Array, None]:
            *given, before = jax.lax.optimization_barrier((*arguments, before))
            results = jax.lax.optimization_barrier(jax.tree.leaves(function(*given)))
            return before + sum(result.ravel()[0].astype(jnp.float32) for result in results), None

        last, _ = jax.lax.scan(once, jnp.zeros(()), length=times, unroll=min(times, _UNROLLED))
        return last

    return repeated


def _check_float8(jaxpr: Any, mode: Mode, shape: Shape) -> None:  # noqa: ANN401
    found = float8.gemms(jaxpr, dequantized=te_api.leaves_float8_to_xla())
    if not found or not all(gemm.quantized for gemm in found):
        raise train.Float8MissingError(f"a dense layer of {shape} in {mode.value} should multiply float8, but does not")
