"""Training: what a step does, what an epoch takes, when a run ends, and what is refused before it begins.

A compilation of the network's training step costs seconds, so that two runs are shared: one in Flax BF16, one in FP8.
Where only the control flow counts, the steps are replaced.
"""

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mnist_fp8 import te
from mnist_fp8.core.errors import ConfigError, Float8MissingError, TeUnavailableError
from mnist_fp8.core.modes import Precision, RecipeConfig
from mnist_fp8.training import data, feasible, fp8_check, runs, train
from mnist_fp8.training.config import TrainConfig
from mnist_fp8.training.data import Dataset
from mnist_fp8.training.runs import EpochMetrics, TrainResult, Watcher
from mnist_fp8.training.train import TrainState

FLAX = TrainConfig(batch_size=16, test_batch_size=16, epochs=2, train_size=40, test_size=40)
FP8 = dataclasses.replace(FLAX, precision=Precision.TE_FP8, recipe=RecipeConfig(amax_history_len=4), epochs=1)


class Notebook(Watcher):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.variables: Any = None
        self.steps: list[tuple[int, int, int]] = []
        self.epochs: list[EpochMetrics] = []

    def on_variables(self, variables: Any) -> None:
        """Keep them."""
        self.variables = variables

    def on_steps(self, epoch: int, done: int, total: int) -> None:
        """Keep them."""
        self.steps.append((epoch, done, total))

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """Keep it."""
        self.epochs.append(metrics)


Run = tuple[TrainResult, Notebook]


@pytest.fixture(scope="module")
def flax_run() -> Run:
    """Two epochs in Flax BF16, of two steps each."""
    notebook = Notebook()
    return runs.train_and_evaluate(FLAX, notebook), notebook


@pytest.fixture(scope="module")
def fp8_run() -> Run:
    """An epoch in FP8 with delayed scaling, of two steps."""
    notebook = Notebook()
    return runs.train_and_evaluate(FP8, notebook), notebook


@pytest.fixture(scope="module")
def test_images() -> Dataset:
    """The 40 test images of both runs."""
    return data.get_datasets(1, 40)[1]


# --- before any work -----------------------------------------------------------------------------------------------

INFEASIBLE: dict[str, tuple[dict[str, Any], str]] = {
    "batch larger than the data": ({"batch_size": 48}, "batch size is 48, more than the 40 images there are"),
    "test batch larger than the data": ({"test_batch_size": 48}, "test batch size is 48, more than the 40 images"),
    "batch larger than MNIST": ({"batch_size": 60_001, "train_size": None}, "more than the 60000 images there are"),
    "test batch larger than MNIST": (
        {"test_batch_size": 10_001, "test_size": None},
        "test batch size is 10001, more than the 10000 images there are",
    ),
    "mesh that divides the model": ({"mesh": (("tp", 2),)}, "mesh axis 'tp' divides the model; "),
    "mesh of more devices than there are": (
        {"mesh": (("dp", 99),), "batch_size": 99, "test_batch_size": 99, "train_size": 99, "test_size": 99},
        "the mesh asks for 99 devices; JAX has ",
    ),
    "batch that FP8 cannot multiply": (
        {"precision": Precision.TE_FP8, "batch_size": 20},
        "batch size is 20; DelayedScaling needs a multiple of 16, as FP8 matrix products do",
    ),
    "test batch that FP8 cannot multiply": (
        {"precision": Precision.TE_FP8, "test_batch_size": 20},
        "test batch size is 20; DelayedScaling needs a multiple of 16, as FP8 matrix products do",
    ),
    "interval without metadata": (
        {"precision": Precision.TE_FP8, "recipe": RecipeConfig("Float8CurrentScaling"), "fp8_update_interval": 2},
        "recipe Float8CurrentScaling keeps no metadata, so an update interval has no meaning",
    ),
    "unknown recipe": (
        {"precision": Precision.TE_FP8, "recipe": RecipeConfig("Foo")},
        "recipe 'Foo' is not in Transformer Engine ",
    ),
}


@pytest.mark.parametrize(("values", "message"), INFEASIBLE.values(), ids=INFEASIBLE)
def test_infeasible_run_is_refused_before_data_are_read(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(data, "get_datasets", lambda *_args: pytest.fail("the data were read"))
    with pytest.raises(ConfigError) as error:
        runs.train_and_evaluate(dataclasses.replace(FLAX, **values))
    assert str(error.value).startswith(message) or message in str(error.value)


@pytest.mark.devices(2)
def test_sizes_for_fp8_count_on_each_device() -> None:
    config = dataclasses.replace(FP8, mesh=(("dp", 2),), batch_size=32)
    with pytest.raises(ConfigError, match=r"^test batch size is 16; .* a multiple of 16 on each of 2 devices, as FP8"):
        feasible.check_feasible(config)
    feasible.check_feasible(dataclasses.replace(config, test_batch_size=32))


@pytest.mark.parametrize("precision", [Precision.TE_BF16, Precision.TE_FP8], ids=lambda precision: precision.value)
def test_unavailable_transformer_engine_is_said_before_data_are_read(
    monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    def unavailable() -> None:
        raise TeUnavailableError("not here")

    monkeypatch.setattr(te, "engine", unavailable)
    monkeypatch.setattr(data, "get_datasets", lambda *_args: pytest.fail("the data were read"))
    with pytest.raises(TeUnavailableError, match="not here"):
        runs.train_and_evaluate(dataclasses.replace(FP8, precision=precision))
    feasible.check_feasible(FLAX)  # Control: Flax alone does not need it


# --- the state and its update --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def state() -> TrainState:
    """A new state in Flax BF16."""
    return train.create_train_state(dataclasses.replace(FLAX, learning_rate=0.5, momentum=0.75))[0]


def leaves(tree: Any) -> dict[str, np.ndarray]:
    """Arrays of a tree by path."""
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def same(left: Any, right: Any) -> bool:
    """Whether two trees hold the same numbers at the same paths."""
    one, other = leaves(left), leaves(right)
    return one.keys() == other.keys() and all(np.array_equal(one[path], other[path]) for path in one)


def test_parameters_depend_on_the_seed_only(state: TrainState) -> None:
    for precision in (Precision.TE_BF16, Precision.TE_FP8):
        params = train.create_train_state(dataclasses.replace(FP8, precision=precision))[0].params
        assert same(params, state.params), precision
    assert not same(train.create_train_state(dataclasses.replace(FLAX, seed=2))[0].params, state.params)


def small_state(state: TrainState, interval: int = 0) -> Any:
    """A state with one parameter and the optimizer of the given one."""
    return dataclasses.replace(
        TrainState.create(
            apply_fn=None, params={"w": jnp.float32(1)}, tx=state.tx, mode=state.mode, metadata_interval=interval
        ),
        batch_sharding=None,
    )


def test_optimizer_is_gradient_descent_with_momentum(state: TrainState) -> None:
    small = small_state(state)
    found = []
    for _ in range(3):
        small, _ = train.update_model(small, {"params": {"w": jnp.float32(1)}}, {})
        found.append(float(small.params["w"]))
    # The velocity is 1, then 0.75 + 1, then 0.75 * 1.75 + 1; the rate is 0.5.
    assert found == [0.5, 0.5 - 0.875, 0.5 - 0.875 - 1.15625]
    assert small.step == 3


@pytest.mark.parametrize(
    ("interval", "scales"),
    [(0, [1, 1, 1, 1]), (1, [2, 3, 4, 5]), (2, [1, 3, 3, 5])],
    ids=["never", "every step", "every second step"],
)
def test_metadata_follow_the_steps_at_their_interval(state: TrainState, interval: int, scales: list[float]) -> None:
    name = te.metadata_collection()
    small, metadata, found = small_state(state, interval), {name: {"scale": jnp.float32(1)}}, []
    for step in range(4):
        grads = {"params": {"w": jnp.float32(0)}, name: {"scale": jnp.float32(step + 2)}}
        small, metadata = train.update_model(small, grads, metadata)
        found.append(float(metadata[name]["scale"]))
    assert found == scales


# --- an epoch ------------------------------------------------------------------------------------------------------


def numbered(count: int) -> Dataset:
    """Images that are told apart by their label."""
    return {"image": np.zeros((count, 28, 28, 1), np.float32), "label": np.arange(count, dtype=np.int32)}


class Steps:
    """Stands for the training step: remembers the labels and keys, and gives the step's number as the loss."""

    def __init__(self) -> None:
        self.labels: list[list[int]] = []
        self.keys: list[tuple[int, ...]] = []

    def __call__(self, state: Any, metadata: Any, images: Any, labels: Any, key: jax.Array) -> Any:
        """Do nothing else."""
        assert len(images) == len(labels)
        self.labels.append(labels.tolist())
        self.keys.append(tuple(np.asarray(jax.random.key_data(key)).tolist()))
        return state, metadata, jnp.float32(len(self.labels)), jnp.float32(len(self.labels) / 10)


def steps_of(monkeypatch: pytest.MonkeyPatch, count: int, batch_size: int, seed: int = 0) -> tuple[Steps, Any, Any]:
    """The steps of an epoch, what it returned, and the progress that it reported."""
    steps, progress = Steps(), []
    monkeypatch.setattr(train, "step_of_many", lambda: steps)
    key = jax.random.key(seed)
    result = train.train_epoch(
        "state",  # type: ignore[arg-type]
        numbered(count),
        batch_size,
        key,
        {},
        lambda done, total: progress.append((done, total)),
    )
    return steps, result, progress


def test_epoch_leaves_out_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    steps, _, _ = steps_of(monkeypatch, 40, 16)
    assert [len(labels) for labels in steps.labels] == [16, 16]
    used = list(itertools.chain(*steps.labels))
    assert len(set(used)) == 32, "no image comes twice"
    assert set(used) <= set(range(40))


def test_epoch_takes_every_image_where_none_is_left_over(monkeypatch: pytest.MonkeyPatch) -> None:
    steps, _, _ = steps_of(monkeypatch, 48, 16)
    assert sorted(itertools.chain(*steps.labels)) == list(range(48))


def test_order_is_random_and_follows_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    first, again, other = (steps_of(monkeypatch, 40, 16, seed)[0] for seed in (0, 0, 1))
    assert first.labels == again.labels
    assert first.labels != other.labels
    assert first.labels[0] != sorted(first.labels[0])
    assert (first.keys == again.keys, len(set(first.keys))) == (True, 2), "every step drops out differently"


def test_epoch_reports_means_over_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    _, (state, _, loss, accuracy), _ = steps_of(monkeypatch, 64, 16)
    assert (state, loss) == ("state", 2.5)
    assert accuracy == pytest.approx(0.25)


def test_progress_comes_now_and_then_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    assert steps_of(monkeypatch, 25 * 4, 4)[2] == [(10, 25), (20, 25), (25, 25)]


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs in one call, as on a GPU."""
    monkeypatch.setattr(train, "epochs_on_device", lambda: True)


def compilations(function: Any) -> int:
    """How often a jitted function was compiled."""
    count: int = function._cache_size()
    return count


def structure(tree: Any) -> Any:
    """What JAX compares of a tree before it takes a compiled program."""
    return jax.tree.structure(tree)


def two_epochs(config: TrainConfig) -> list[tuple[Any, ...]]:
    """What two epochs and their evaluations return."""
    train_ds, test_ds = (train.on_device(config, dataset) for dataset in data.get_datasets(40, 40))
    state, metadata = train.create_train_state(config)
    found: list[tuple[Any, ...]] = []
    for epoch in range(2):
        state, metadata, *means = train.train_epoch(state, train_ds, 16, jax.random.key(epoch), metadata)
        found.append((means, train.eval_model(state, test_ds, 16, metadata), state.params, metadata))
    return found


@pytest.mark.xla_sums_in_float32
def test_epoch_in_one_call_computes_what_its_single_steps_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a few roundings: on a CPU, a convolution is computed otherwise inside a loop."""
    by_steps = two_epochs(FP8)
    monkeypatch.setattr(train, "epochs_on_device", lambda: True)
    compiled = compilations(train.epoch_at_once), compilations(train._eval_at_once)
    at_once = two_epochs(FP8)
    assert (compilations(train.epoch_at_once), compilations(train._eval_at_once)) == (compiled[0] + 1, compiled[1] + 1)
    for found, expected in zip(at_once, by_steps, strict=True):
        assert found[0] == pytest.approx(expected[0], rel=BF16_EPS)
        assert found[1] == pytest.approx(expected[1], rel=BF16_EPS)
        for tree, other in ((found[2], expected[2]), (found[3], expected[3])):
            wanted = leaves(other)
            for path, leaf in leaves(tree).items():
                # The gradient of a bias is summed up in BF16, in another order inside of a loop.
                allowed = 2**-2 if "bias" in path else 2 * BF16_EPS
                assert np.linalg.norm(leaf - wanted[path]) <= allowed * np.linalg.norm(wanted[path]), path
    assert by_steps[0][0] != by_steps[1][0], "Control: the epochs differ"


@pytest.mark.devices(2)
@pytest.mark.usefixtures("on_device")
def test_data_lie_where_epochs_are_computed() -> None:
    given = data.get_datasets(40, 40)[0]
    for mesh, devices in (((), 1), ((("dp", 2),), 2)):
        config = TrainConfig(batch_size=16, test_batch_size=16, mesh=mesh)
        for part, array in train.on_device(config, given).items():
            assert isinstance(array, jax.Array)
            assert len(array.sharding.device_set) == devices
            assert array.is_fully_replicated
            assert np.array_equal(array, given[part])


def test_data_stay_where_they_are_on_a_cpu() -> None:
    # Control.
    given = numbered(4)
    assert train.epochs_on_device() or train.on_device(TrainConfig(), given) is given


@pytest.mark.devices(2)
@pytest.mark.usefixtures("on_device")
def test_epochs_on_two_devices_are_compiled_once() -> None:
    config = dataclasses.replace(FP8, mesh=(("dp", 2),), batch_size=32, test_batch_size=32)
    before = compilations(train.epoch_at_once)
    with train.mesh_context(config):
        state, metadata = train.create_train_state(config)
        dataset = train.on_device(config, data.get_datasets(40, 40)[0])
        for epoch in range(2):
            state, metadata, *_ = train.train_epoch(state, dataset, 32, jax.random.key(epoch), metadata)
    assert compilations(train.epoch_at_once) == before + 1


@pytest.mark.usefixtures("on_device")
def test_epoch_in_one_call_reports_its_end() -> None:
    state, metadata = train.create_train_state(FP8)
    progress: list[tuple[int, int]] = []
    dataset = data.get_datasets(40, 40)[0]
    key = jax.random.key(0)
    train.train_epoch(state, dataset, 16, key, metadata, lambda done, total: progress.append((done, total)))
    assert progress == [(2, 2)]


def test_a_second_state_is_not_compiled_anew() -> None:
    """What is static in it, model and optimizer, is the same object."""
    first, second = (train.create_train_state(FP8)[0] for _ in range(2))
    assert structure(first) == structure(second)
    other = train.create_train_state(dataclasses.replace(FP8, momentum=0.5))[0]
    assert structure(first) != structure(other)


@pytest.mark.gpu
def test_nothing_is_transferred_inside_an_epoch() -> None:
    config = TrainConfig(precision=Precision.TE_FP8)
    train_ds = train.on_device(config, data.get_datasets(6400, 40)[0])
    state, metadata = train.create_train_state(config)
    given = (state, metadata, train_ds["image"], train_ds["label"], jax.random.key(1))
    on_host = np.asarray(train_ds["image"])
    with jax.transfer_guard("disallow"):
        jax.block_until_ready(train.epoch_at_once(*given, 64))
        with pytest.raises(Exception, match=r"[Dd]isallowed host-to-device transfer"):  # Control
            train.epoch_at_once(state, metadata, on_host, *given[3:], 64)


# --- evaluation ----------------------------------------------------------------------------------------------------


BF16_EPS = 2.0**-8
"""Activations are BF16: in another program, or in batches of another size, a logit may be rounded differently."""


def rows(dataset: Dataset, *numbers: int) -> Dataset:
    """Those images, in that order."""
    return {part: array[list(numbers)] for part, array in dataset.items()}


def test_last_batch_that_is_not_full_counts_for_what_it_holds(flax_run: Run, test_images: Dataset) -> None:
    state = flax_run[0].state
    full = (
        rows(test_images, *range(16)),
        rows(test_images, *range(16, 32)),
        rows(test_images, *range(32, 40), *range(32, 40)),
    )
    expected = np.average([train.eval_model(state, batch, 16, {}) for batch in full], axis=0, weights=[16, 16, 8])
    assert train.eval_model(state, test_images, 16, {}) == pytest.approx(tuple(expected), rel=1e-6)
    # Control: eight images that count twice would be seen.
    twice = train.eval_model(state, rows(test_images, *range(40), *range(32, 40)), 16, {})
    assert twice[0] != pytest.approx(expected[0], rel=1e-6)


def test_evaluation_in_batches_equals_evaluation_in_one(flax_run: Run, test_images: Dataset) -> None:
    state = flax_run[0].state
    logits = logits_of(state, test_images)
    at_once, in_batches = (train.eval_model(state, test_images, size, {}) for size in (40, 16))
    assert in_batches[0] == pytest.approx(at_once[0], abs=2 * BF16_EPS * np.abs(logits).max())
    assert in_batches[1] == pytest.approx(at_once[1], abs=1 / 40)


def logits_of(state: TrainState, dataset: Dataset) -> np.ndarray:
    """What the network says, without dropout."""
    return np.asarray(jax.jit(state.apply_fn)({"params": state.params}, dataset["image"]), np.float64)


def test_evaluation_is_loss_and_accuracy_without_dropout(flax_run: Run, test_images: Dataset) -> None:
    """Against NumPy, with labels of which the network knows the first half."""
    state = flax_run[0].state
    logits = logits_of(state, test_images)
    labels = logits.argmax(-1)
    labels[20:] = (labels[20:] + 1) % 32
    losses = np.log(np.exp(logits).sum(-1)) - logits[np.arange(40), labels]
    loss, accuracy = train.eval_model(state, {"image": test_images["image"], "label": labels.astype(np.int32)}, 40, {})
    assert loss == pytest.approx(losses.mean(), abs=2 * BF16_EPS * np.abs(logits).max())
    assert accuracy == pytest.approx(0.5, abs=1 / 40)


# --- runs ----------------------------------------------------------------------------------------------------------


def test_run_completes_and_tells_its_watcher(flax_run: Run) -> None:
    result, notebook = flax_run
    assert result.status == "complete"
    assert notebook.epochs == result.epochs
    assert [metrics.epoch for metrics in result.epochs] == [1, 2]
    assert notebook.steps == [(1, 2, 2), (2, 2, 2)]
    assert result.state.step == 4
    assert all(math.isfinite(value) for metrics in result.epochs for value in dataclasses.astuple(metrics))


def test_run_reports_the_evaluation_of_its_final_state(flax_run: Run, test_images: Dataset) -> None:
    result, _ = flax_run
    assert (result.epochs[-1].test_loss, result.epochs[-1].test_accuracy) == train.eval_model(
        result.state, test_images, 16, {}
    )


def test_run_changes_every_parameter(flax_run: Run) -> None:
    before, after = leaves(flax_run[1].variables["params"]), leaves(flax_run[0].state.params)
    assert not [path for path in before if np.array_equal(before[path], after[path])]


def test_flax_run_has_no_metadata(flax_run: Run) -> None:
    assert list(flax_run[1].variables) == ["params"]
    assert flax_run[0].metadata == {}


def test_fp8_run_shows_its_metadata_and_brings_them_forward(fp8_run: Run) -> None:
    result, notebook = fp8_run
    name = te.metadata_collection()
    assert result.status == "complete"
    before, after = leaves(notebook.variables[name]), leaves(result.metadata[name])
    assert len(before) == 18
    assert before.keys() == after.keys()
    unchanged = [path for path in before if np.array_equal(before[path], after[path])]
    assert not unchanged
    assert all(np.isfinite(value).all() for value in after.values())


def test_fp8_state_passes_the_check_and_bf16_state_does_not(fp8_run: Run, test_images: Dataset) -> None:
    result, _ = fp8_run
    key = jax.random.key(0)
    batch = test_images["image"][:16], test_images["label"][:16]
    rngs = {"dropout": key, "sr_rng": key}
    found = fp8_check.check_fp8(result.state, *batch, result.metadata, rngs)
    assert len(found) == 9, "three layers, one product forward and two backward"
    assert all(gemm.quantized for gemm in found)
    bf16 = result.state.replace(mode=te.Autocast())
    with pytest.raises(Float8MissingError) as error:
        fp8_check.check_fp8(bf16, *batch, result.metadata, rngs)
    for layer in ("dense1", "dense2", "dense3"):
        assert f"{layer}: forward has 0 float8 matrix products, expected 1" in str(error.value)
        assert f"{layer}: backward has 0 float8 matrix products, expected 2" in str(error.value)


def test_run_without_fp8_where_it_should_be_ends_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "mode_of", lambda *_: te.Autocast())
    monkeypatch.setattr(runs, "train_epoch", lambda *_args: pytest.fail("it trained"))
    with pytest.raises(Float8MissingError, match=r"^training should compute in FP8, but does not: "):
        runs.train_and_evaluate(FP8)


# --- ends ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> Callable[..., TrainResult]:
    """Train without computing: epochs with those training and test losses."""

    def run(train_losses: list[float], test_losses: list[float], watcher: Watcher) -> TrainResult:
        trained, tested = iter(train_losses), iter(test_losses)

        def train_epoch(state: int, *args: Any) -> Any:
            loss = next(trained)
            args[-1](1, 1)
            return state + 1, {}, loss, 0.5

        monkeypatch.setattr(runs, "train_epoch", train_epoch)
        monkeypatch.setattr(runs, "eval_model", lambda *_args: (next(tested), 0.75))
        monkeypatch.setattr(data, "get_datasets", lambda *_args: (numbered(40), numbered(40)))
        result = TrainResult([], "complete", 0, {})  # type: ignore[arg-type]
        try:
            runs._run_epochs(dataclasses.replace(FLAX, epochs=3), numbered(40), numbered(40), result, watcher)
        except KeyboardInterrupt:  # it would end this test run
            pytest.fail("Ctrl-C was not caught")
        return result

    return run


Instant = Callable[[list[float], list[float], Watcher], TrainResult]


def test_epochs_follow_one_another(instant: Instant) -> None:
    result = instant([3.0, 2.0, 1.0], [3.5, 2.5, 1.5], notebook := Notebook())
    assert (result.status, result.state) == ("complete", 3)
    assert [(metrics.train_loss, metrics.test_loss) for metrics in result.epochs] == [(3, 3.5), (2, 2.5), (1, 1.5)]
    assert notebook.steps == [(1, 1, 1), (2, 1, 1), (3, 1, 1)]


@pytest.mark.parametrize("method", ["on_steps", "on_epoch"])
def test_ctrl_c_keeps_the_finished_epochs(instant: Instant, method: str) -> None:
    def interrupt_in_second(where: Any, *_args: object) -> None:
        if getattr(where, "epoch", where) == 2:
            raise KeyboardInterrupt

    watcher = Watcher()
    setattr(watcher, method, interrupt_in_second)
    result = instant([3.0, 2.0, 1.0], [3.5, 2.5, 1.5], watcher)
    assert result.status == "interrupted"
    finished = {"on_steps": 1, "on_epoch": 2}[method]
    assert [metrics.epoch for metrics in result.epochs] == [1, 2][:finished]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("part", ["training", "test"])
def test_loss_that_is_not_finite_ends_the_run(instant: Instant, bad: float, part: str) -> None:
    train_losses, test_losses = [3.0, 2.0, 1.0], [3.5, 2.5, 1.5]
    {"training": train_losses, "test": test_losses}[part][1] = bad
    result = instant(train_losses, test_losses, notebook := Notebook())
    assert (result.status, [metrics.epoch for metrics in result.epochs]) == ("diverged", [1])
    assert [metrics.epoch for metrics in notebook.epochs] == [1]


def test_watcher_that_watches_nothing_is_enough() -> None:
    watcher = Watcher()
    watcher.on_variables({})
    watcher.on_steps(1, 1, 1)


def test_mean_loss_is_the_cross_entropy_of_the_logits() -> None:
    """The loss that is differentiated, on a network that gives back numbers known beforehand."""
    logits = jnp.array([[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]])
    fake = TrainState.create(
        apply_fn=lambda variables, *_args, **_kwargs: variables["params"]["w"] * logits,
        params={"w": jnp.float32(1)},
        tx=optax.sgd(0.1),
        mode=contextlib.nullcontext,
        metadata_interval=0,
    )
    grads, loss, accuracy = train.apply_model(fake, jnp.zeros((2, 1)), jnp.array([2, 1]), {}, {})
    first, second = -math.log(math.e**2 / (1 + math.e + math.e**2)), -math.log(1 / (math.e**3 + 2))
    assert float(loss) == pytest.approx((first + second) / 2, rel=1e-6)
    assert float(accuracy) == 0.5
    assert list(grads) == ["params"]
