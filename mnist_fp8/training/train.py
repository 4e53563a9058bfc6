"""Train and evaluate `Net` in one of the three precisions; the steps are those of any model with such variables."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from flax import struct
from flax.training import train_state
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from mnist_fp8 import te
from mnist_fp8.core.modes import Precision, RecipeConfig
from mnist_fp8.training import data
from mnist_fp8.training.config import TrainConfig
from mnist_fp8.training.data import Dataset
from mnist_fp8.training.model import Net

Metadata = Mapping[str, Any]
"""FP8 metadata by collection: ``{"fp8_metas": {...}}``, or empty where the mode keeps none."""
Context: TypeAlias = Callable[[], contextlib.AbstractContextManager[None]]
"""Makes the context to compute in; hashable."""
_STEPS_IN_FLIGHT = 10
_STEPS_UNROLLED = 4
"""Steps in the body of an epoch's loop. On an H100, an epoch takes 0.20 s with four and 0.22 s with one; in FP8, 0.27
and 0.32."""


class TrainState(train_state.TrainState):
    """Flax's state and the static facts that change what is traced.

    Attributes:
        mode: context to compute in; `te.Autocast` for TE, ``contextlib.nullcontext`` for Flax.
        metadata_interval: steps from one update of the FP8 metadata to the next; 0 never updates.
        batch_sharding: how the batch is divided over devices; ``None`` on one device.
    """

    mode: Context = struct.field(pytree_node=False)
    metadata_interval: int = struct.field(pytree_node=False)
    batch_sharding: NamedSharding | None = struct.field(pytree_node=False, default=None)


def prepare_backend(precision: Precision) -> None:
    """What has to happen before anything starts JAX's backend."""
    if precision.uses_te:
        te.engine()
    else:
        te.prepare_xla()


def create_train_state(config: TrainConfig, *, boxed: bool = False) -> tuple[TrainState, Metadata]:
    """Initialise the model and its optimizer (SGD with momentum).

    The parameters depend on the seed only: they are the same numbers in every precision.

    Args:
        config: what is trained.
        boxed: leave the parameters in the boxes in which Transformer Engine may put them.

    Returns:
        The state, and the FP8 metadata (empty unless the recipe keeps some).
    """
    prepare_backend(config.precision)
    model = _model(config.precision)
    mode = mode_of(config.precision, config.recipe, tuple(axis for axis, _ in config.mesh))
    mesh = _mesh(config)
    with mesh_context(config):
        first = _init(model, mode, jax.random.key(config.seed), _image_shape(config, 32))
    variables = te.unbox(first)
    params = variables.pop("params")
    if boxed:
        params = first["params"]
    state = TrainState.create(
        apply_fn=model.apply,
        params=params,
        tx=_optimizer(config.learning_rate, config.momentum),
        mode=mode,
        metadata_interval=config.fp8_update_interval if config.precision is Precision.TE_FP8 else 0,
        batch_sharding=NamedSharding(mesh, PartitionSpec(mesh.axis_names)) if mesh else None,
    )
    # Where all later states are: else the second step would be compiled anew.
    return _everywhere((state, variables), mesh)


@functools.cache
def _model(precision: Precision) -> Net:
    """The same object for the same precision: it is a static part of what is compiled."""
    return Net(precision)


@functools.cache
def _optimizer(learning_rate: float, momentum: float) -> optax.GradientTransformation:
    """The same object for the same values, as `_model`."""
    return optax.sgd(learning_rate, momentum)


def _everywhere(tree: Any, mesh: Mesh | None) -> Any:  # noqa: ANN401
    """Arrays on every device of a mesh, or on the default device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()) if mesh else None)


@functools.partial(jax.jit, static_argnames=("model", "mode", "shape"))
def _init(model: Net, mode: Context, key: jax.Array, shape: tuple[int, ...]) -> Any:  # noqa: ANN401
    """First variables. Compiled once for all seeds: the random numbers take XLA seconds."""
    with mode():
        return model.init({"params": key, "sr_rng": key}, jnp.zeros(shape, jnp.float32))


def mode_of(precision: Precision, recipe: RecipeConfig, axes: tuple[str, ...] = ()) -> Context:
    """The context of a precision; the recipe matters in FP8 only, the axes of a mesh to TE only."""
    if not precision.uses_te:
        return contextlib.nullcontext
    return te.Autocast(recipe if precision is Precision.TE_FP8 else None, axes)


def _mesh(config: TrainConfig) -> Mesh | None:
    if not config.mesh:
        return None
    devices = np.asarray(jax.devices()[: config.devices]).reshape([size for _, size in config.mesh])
    return Mesh(devices, [axis for axis, _ in config.mesh])


@contextlib.contextmanager
def mesh_context(config: TrainConfig) -> Iterator[None]:
    """Enter the mesh for TE to see; nothing where the configuration has none, and for Flax, which needs none.

    TE asks for the mesh resource while a program is compiled, not only while it is traced, so it has to be set around
    the call of a jitted function, and not just in its mode.
    """
    mesh = _mesh(config)
    if mesh is None or not config.precision.uses_te:
        yield
        return
    with te.mesh_context(mesh), te.Autocast(axes=mesh.axis_names)():
        yield


@jax.jit
def apply_model(
    state: TrainState, images: ArrayLike, labels: ArrayLike, metadata: Metadata, rngs: Mapping[str, jax.Array]
) -> tuple[dict[str, Any], jax.Array, jax.Array]:
    """Run the model forward and backward on a batch, of images here and of whatever it takes elsewhere.

    The parameters and the FP8 metadata together are the variables that are differentiated: that is how Transformer
    Engine hands back the metadata of the next step.

    Args:
        state: training state; its ``mode`` decides the precision, whatever autocast surrounds the call.
        images: shape (N, H, W, 1).
        labels: digits, integers of shape (N,).
        metadata: FP8 metadata; ignored by a mode that does not quantize.
        rngs: RNG keys: ``dropout``, and ``sr_rng`` for a recipe with stochastic rounding.

    Returns:
        Gradients of the variables, mean loss and accuracy.
    """
    if state.batch_sharding is not None:
        images, labels = jax.lax.with_sharding_constraint((images, labels), state.batch_sharding)

    def loss_of(variables: Mapping[str, Any]) -> tuple[jax.Array, jax.Array]:
        logits = state.apply_fn(variables, images, train=True, rngs=rngs)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), logits

    with state.mode():
        (loss, logits), grads = jax.value_and_grad(loss_of, has_aux=True)({**metadata, "params": state.params})
    return grads, loss, jnp.mean(jnp.argmax(logits, -1) == labels)


@jax.jit
def update_model(state: TrainState, grads: Mapping[str, Any], metadata: Metadata) -> tuple[TrainState, Metadata]:
    """Apply the optimizer to the parameters, and bring the FP8 metadata forward.

    Outside FP8 the "gradient" of metadata is zero and must not replace them (a scale of zero makes the next FP8 step
    NaN), so a mode that does not quantize leaves them as they are.

    Returns:
        The new state and the new metadata.
    """
    if state.metadata_interval and metadata:
        updated = te.update_fp8_metas(metadata, grads, state.step, state.metadata_interval)
        metadata = te.update_collections({te.metadata_collection(): updated}, metadata)
    return state.apply_gradients(grads=grads["params"]), metadata


@jax.jit
def train_step(
    state: TrainState, metadata: Metadata, images: ArrayLike, labels: ArrayLike, key: jax.Array
) -> tuple[TrainState, Metadata, jax.Array, jax.Array]:
    """Take one training step on a batch; ``key`` decides dropout and stochastic rounding.

    Returns:
        The new state and metadata, mean loss and accuracy.
    """
    dropout, stochastic_rounding = jax.random.split(key)
    rngs = {"dropout": dropout, "sr_rng": stochastic_rounding}
    grads, loss, accuracy = apply_model(state, images, labels, metadata, rngs)
    state, metadata = update_model(state, grads, metadata)
    return state, metadata, loss, accuracy


_optimized_step = jax.jit(train_step, compiler_options={"xla_backend_optimization_level": 1})


def step_of_many() -> Callable[..., tuple[TrainState, Metadata, jax.Array, jax.Array]]:
    """`train_step` for a hundred calls and more: on a CPU, they are worth a second of LLVM's optimizations."""
    return train_step if epochs_on_device() else _optimized_step


def epochs_on_device() -> bool:
    """Whether an epoch is one call on the device: everywhere but on a CPU.

    There XLA computes a convolution inside a loop about twenty times more slowly than outside of it.
    """
    return jax.default_backend() != "cpu"


def on_device(config: TrainConfig, dataset: Dataset) -> Dataset:
    """A dataset where its epochs are computed: on a GPU, on every device of the mesh; on a CPU, as it is."""
    return _everywhere(dataset, _mesh(config)) if epochs_on_device() else dataset


def train_epoch(
    state: TrainState,
    train_ds: Dataset,
    batch_size: int,
    key: jax.Array,
    metadata: Metadata,
    on_steps: Callable[[int, int], None] = lambda _done, _total: None,
) -> tuple[TrainState, Metadata, float, float]:
    """Train once over the data in random order; images beyond the last full batch are left out.

    On a GPU the epoch is one call: data that are `on_device` stay there, and nothing is transferred until it ends.

    Args:
        state: training state.
        train_ds: images and labels, as from `data.get_datasets`.
        batch_size: images in a step.
        key: decides the order and the dropout.
        metadata: FP8 metadata.
        on_steps: called now and then with the steps done and the steps in all.

    Returns:
        The new state and metadata, mean loss and mean accuracy.
    """
    if not epochs_on_device():
        return _epoch_by_steps(state, train_ds, batch_size, key, metadata, on_steps)
    state, metadata, metrics = epoch_at_once(state, metadata, train_ds["image"], train_ds["label"], key, batch_size)
    loss, accuracy = jax.device_get(metrics.mean(axis=0)).tolist()
    steps = len(train_ds["label"]) // batch_size
    on_steps(steps, steps)
    return state, metadata, loss, accuracy


def _epoch_by_steps(
    state: TrainState,
    train_ds: Dataset,
    batch_size: int,
    key: jax.Array,
    metadata: Metadata,
    on_steps: Callable[[int, int], None],
) -> tuple[TrainState, Metadata, float, float]:
    order, keys = batches(key, len(train_ds["label"]), batch_size)
    losses, accuracies = [], []
    take_step = step_of_many()
    for step, batch in enumerate(np.asarray(order)):
        images, labels = train_ds["image"][batch], train_ds["label"][batch]
        state, metadata, loss, accuracy = take_step(state, metadata, images, labels, keys[step])
        losses.append(loss)
        accuracies.append(accuracy)
        if (step + 1) % _STEPS_IN_FLIGHT == 0 or step + 1 == len(order):
            loss.block_until_ready()
            on_steps(step + 1, len(order))
    return state, metadata, float(jnp.mean(jnp.stack(losses))), float(jnp.mean(jnp.stack(accuracies)))


@functools.partial(jax.jit, static_argnames="batch_size")
def epoch_at_once(
    state: TrainState, metadata: Metadata, images: jax.Array, labels: jax.Array, key: jax.Array, batch_size: int
) -> tuple[TrainState, Metadata, jax.Array]:
    """State and metadata after an epoch; loss and accuracy of each step, shape (steps, 2)."""

    def step(
        carried: tuple[TrainState, Metadata], batch: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[TrainState, Metadata], jax.Array]:
        rows, step_key = batch
        state, metadata, loss, accuracy = train_step(*carried, images[rows], labels[rows], step_key)
        return (state, metadata), jnp.stack([loss, accuracy])

    order = batches(key, len(labels), batch_size)
    unroll = _STEPS_UNROLLED if epochs_on_device() else 1
    (state, metadata), metrics = jax.lax.scan(step, (state, metadata), order, unroll=unroll)
    return state, metadata, metrics


def batches(key: jax.Array, images: int, batch_size: int) -> tuple[jax.Array, jax.Array]:
    """Rows of each batch of an epoch, (steps, batch_size), and the key of each step."""
    order_key, step_key = jax.random.split(key)
    steps = images // batch_size
    order = jax.random.permutation(order_key, images)[: steps * batch_size]
    return order.reshape(steps, batch_size), jax.random.split(step_key, steps)


def eval_model(state: TrainState, test_ds: Dataset, batch_size: int, metadata: Metadata) -> tuple[float, float]:
    """Evaluate over all the data, without dropout; nothing is updated.

    A last batch that is not full is filled up with its own images, which then do not count. (They leave the largest
    absolute value of every activation as it is, so that no scale changes either.)

    Returns:
        Mean loss and accuracy.
    """
    total = len(test_ds["label"])
    rows, counts = _filled_batches(total, batch_size)
    if epochs_on_device():
        sums = _eval_at_once(state, metadata, test_ds["image"], test_ds["label"], rows, counts)
    else:
        images, labels = test_ds["image"], test_ds["label"]
        sums = [
            _eval_batch(state, metadata, images[batch], labels[batch], count)
            for batch, count in zip(rows, counts, strict=True)
        ]
    loss, accuracy = np.asarray(jax.device_get(sums), np.float64).sum(axis=0) / total
    return float(loss), float(accuracy)


def _filled_batches(total: int, batch_size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Rows of each batch, the last one filled up with its own, and which of them count."""
    starts = range(0, total, batch_size)
    rows = [np.arange(start, min(start + batch_size, total)) for start in starts]
    filled = np.stack([np.resize(batch, batch_size) for batch in rows])
    return filled, np.stack([np.arange(batch_size) < len(batch) for batch in rows])


def predict(state: TrainState, metadata: Metadata, inputs: jax.Array) -> jax.Array:
    """Logits in the state's mode, without dropout."""
    with state.mode():
        logits: jax.Array
        logits = state.apply_fn({**metadata, "params": state.params}, inputs, rngs={"sr_rng": jax.random.key(0)})
    return logits


@jax.jit
def _eval_at_once(
    state: TrainState, metadata: Metadata, images: jax.Array, labels: jax.Array, rows: jax.Array, counts: jax.Array
) -> jax.Array:
    """What `_eval_batch` says of each batch, shape (batches, 2)."""
    return jax.lax.map(
        lambda batch: _eval_batch(state, metadata, images[batch[0]], labels[batch[0]], batch[1]), (rows, counts)
    )


@jax.jit
def _eval_batch(
    state: TrainState, metadata: Metadata, images: jax.Array, labels: jax.Array, counts: jax.Array
) -> jax.Array:
    """Summed loss and summed hits of the rows that count, shape (2,)."""
    if state.batch_sharding is not None:
        images, labels = jax.lax.with_sharding_constraint((images, labels), state.batch_sharding)
    logits = predict(state, metadata, images)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    hits = jnp.argmax(logits, -1) == labels
    return jnp.stack([jnp.sum(losses, where=counts), jnp.sum(hits, where=counts)])


def programs(config: TrainConfig) -> list[str]:
    """Text of the programs that a run consists of, one training step and one evaluation, and its first parameters.

    On a CPU they decide its numbers, together with the data and the versions of JAX and NumPy.
    """
    state, metadata = create_train_state(config)
    batch, test_batch = (_batch_shapes(config, size) for size in (config.batch_size, config.test_batch_size))
    counts = np.ones(config.test_batch_size, bool)
    with mesh_context(config):
        step = train_step.lower(state, metadata, *batch, jax.random.key(0))
        evaluation = _eval_batch.lower(state, metadata, *test_batch, counts)
    leaves = [np.asarray(leaf).tobytes().hex() for leaf in jax.tree.leaves((state.params, metadata))]
    return [step.as_text(), evaluation.as_text(), *leaves]


def _batch_shapes(config: TrainConfig, size: int) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """Images and labels of a batch, without their numbers."""
    images = jax.ShapeDtypeStruct(_image_shape(config, size), jnp.float32)
    return images, jax.ShapeDtypeStruct((size,), jnp.int32)


def _image_shape(config: TrainConfig, size: int) -> tuple[int, ...]:
    side = data.SIDE // config.pooling
    return size, side, side, 1
