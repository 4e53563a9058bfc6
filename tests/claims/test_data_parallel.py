"""Claim: data parallelism through ``MeshResource`` computes what one device computes, metadata included.

Promised by TE's documentation of ``autocast(mesh_resource=...)``: amaxes of delayed scaling are reduced over the data
parallel devices, so that all of them quantize with the same scales. (With current scaling TE's kernels let each
device use the amax of its own part of the batch, so that results depend on the division. They must not where all
parts have the same amax; more is not claimed.)

What a failure means for an upgrade: devices drift apart, or a batch is quantized by the part of it that a device sees.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mnist_fp8 import te
from mnist_fp8.core.modes import Precision, RecipeConfig
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.oracle import dense
from mnist_fp8.oracle.dense import TENSORS, Array
from mnist_fp8.oracle.tolerances import BF16_NET, PARTIAL_SUMS, product_tolerance
from mnist_fp8.te.dense_step import Step, dense_layer, dense_step, exact, on_device, variables_of
from mnist_fp8.training import train
from mnist_fp8.training.config import TrainConfig
from mnist_fp8.training.train import Metadata, TrainState
from support.assertions import assert_close, assert_close_norm, assert_trees_close_norm, assert_trees_equal
from support.metadata import meta_of

pytestmark = pytest.mark.devices(2)

RECIPES = {
    "bf16": None,
    "delayed": RecipeConfig(amax_history_len=4),
    "current": RecipeConfig("Float8CurrentScaling"),
}
HALF = 16


def mesh_of(axis: str, devices: int = 2) -> Mesh:
    """A mesh of two devices, or more, along one axis."""
    return Mesh(np.asarray(jax.devices()[:devices]), (axis,))


def run_layer(recipe: str, mesh: Mesh | None, parts: int = 2) -> Step:
    """Forward and backward pass of one dense layer, over the devices of a mesh of one axis or on one device.

    The last part of the batch alone holds the amax of input and gradient; with current scaling, every part does.

    Args:
        recipe: one of `RECIPES`.
        mesh: of as many devices as there are parts; ``None`` for one device.
        parts: of the batch, of 16 rows each.
    """
    drawn = np.random.default_rng(0)
    x, grad = drawn.normal(0, 1, (parts * HALF, 32)), drawn.normal(0, 1, (parts * HALF, 16))
    x[-HALF:] *= 8
    grad[-HALF:] *= 8
    if recipe == "current":
        x[::HALF, 0], grad[::HALF, 0] = np.abs(x).max(), np.abs(grad).max()
    metas = dict.fromkeys(TENSORS, meta_of(20))
    kernel, bias = drawn.normal(0, 1, (32, 16)), drawn.normal(0, 1, 16)
    variables = variables_of(kernel, metas if recipe == "delayed" else {}, bias)
    layer = dense_layer(features=16)
    batch = on_device(x, "bfloat16"), on_device(grad, "bfloat16")
    if mesh is None:
        return dense_step(layer, te.Autocast(RECIPES[recipe]), variables, *batch)
    axes = mesh.axis_names
    # TE asks for the mesh resource while it is compiled, so it has to be set around the call as well.
    with te.mesh_context(mesh), te.Autocast(axes=axes)():
        divided = jax.device_put(batch, NamedSharding(mesh, PartitionSpec(*axes)))
        variables = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
        step = dense_step(layer, te.Autocast(RECIPES[recipe], axes), variables, *divided)
    assert len(step.y.sharding.device_set) == parts, f"Control: the output should be divided over {parts} devices"
    return step


@pytest.mark.xla_sums_in_float32
@pytest.mark.parametrize(
    ("axis", "devices"), [("dp", 2), ("fsdp", 2), pytest.param("dp", 8, marks=pytest.mark.devices(8))]
)
@pytest.mark.parametrize("recipe", RECIPES)
def test_layer_on_several_devices_equals_one(recipe: str, axis: str, devices: int) -> None:
    many, one = run_layer(recipe, mesh_of(axis, devices), devices), run_layer(recipe, None, devices)
    where = f"{recipe} over {axis}={devices}"
    outputs, expected = ({"y": step.y, "dx": step.dx} for step in (many, one))
    if te.engine().kind is RunKind.HOST:
        assert_trees_equal(where=where, actual=outputs, expected=expected)
    else:  # cuBLAS may choose another kernel for half of the rows
        assert_trees_close_norm(where=where, actual=outputs, expected=expected, tolerance=PARTIAL_SUMS)
    kernels = [step.grads["params"]["kernel"] for step in (many, one)]
    assert_close_norm(where=f"{where}: kernel gradient", actual=kernels[0], expected=kernels[1], tolerance=PARTIAL_SUMS)
    if recipe == "delayed":
        for device in range(devices):
            actual = jax.tree.map(lambda leaf, device=device: leaf.addressable_shards[device].data, many.metadata)
            assert_trees_equal(where=f"{where}: metadata on device {device}", actual=actual, expected=one.metadata)


@pytest.mark.parametrize("recipe", RECIPES)
def test_layer_on_two_devices_of_an_explicit_axis_equals_one(recipe: str) -> None:
    """As `jax.make_mesh` makes axes since JAX 0.9: how arrays lie is part of their type."""
    mesh = jax.make_mesh((2,), ("dp",), axis_types=(jax.sharding.AxisType.Explicit,), devices=jax.devices()[:2])
    two, one = (run_layer(recipe, where) for where in (mesh, None))
    assert_trees_close_norm(
        where=f"{recipe} over an explicit axis",
        actual={"y": two.y, "dx": two.dx, "dkernel": two.grads["params"]["kernel"]},
        expected={"y": one.y, "dx": one.dx, "dkernel": one.grads["params"]["kernel"]},
        tolerance=PARTIAL_SUMS,
    )


def test_mesh_resource_that_a_compiled_function_enters_itself_is_enough() -> None:
    """A layer of sizes of its own: the program of another test, which is compiled already, would not show it."""
    x, kernel, grad = exact((2 * HALF, 64), 1), exact((64, 48), 2), exact((2 * HALF, 48), 3)
    mesh, mode = mesh_of("dp"), te.Autocast(RECIPES["delayed"], ("dp",))
    variables = variables_of(kernel, dict.fromkeys(TENSORS, meta_of(32)))
    layer = dense_layer(features=48, use_bias=False)
    with te.mesh_context(mesh):
        batch = on_device(x, "bfloat16"), on_device(grad, "bfloat16")
        divided = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("dp")))
        step = dense_step(layer, mode, jax.device_put(variables, NamedSharding(mesh, PartitionSpec())), *divided)
    expected = x @ kernel
    tolerance = product_tolerance(dense.dense(x, kernel, grad).y, "bfloat16", te.engine().kind, roundings=2)
    assert_close(where="output", actual=step.y, expected=expected, tolerance=tolerance)


def _gradients(config: TrainConfig, state: TrainState, metadata: Metadata, images: Array) -> tuple[Any, dict[str, Any]]:
    """Loss and gradients of a step as a configuration divides it, from a given state."""
    own, _ = train.create_train_state(config)
    # Without a place of their own, numbers go where the program needs them.
    state, metadata = jax.device_get((state.replace(batch_sharding=own.batch_sharding, mode=own.mode), metadata))
    with train.mesh_context(config):
        labels = np.arange(len(images), dtype=np.int32) % 10
        rngs = {"dropout": jax.random.key(0), "sr_rng": jax.random.key(1)}
        grads, loss, _ = train.apply_model(state, images, labels, metadata, rngs)
    return jax.device_get((loss, grads))


@pytest.mark.xla_sums_in_float32
@pytest.mark.parametrize("precision", [Precision.TE_BF16, Precision.TE_FP8], ids=lambda precision: precision.value)
def test_network_on_two_devices_follows_one_step_by_step(precision: Precision) -> None:
    """The trainer divides its batch. Both begin each step in the state that one device has reached.

    Bias gradients are left out: they are sums in BF16, of two lengths here.
    """
    one = TrainConfig(precision=precision, batch_size=2 * HALF, pooling=3, recipe=RecipeConfig(amax_history_len=4))
    two = dataclasses.replace(one, mesh=(("dp", 2),))
    state, metadata = train.create_train_state(one)
    for step in range(4):
        images = np.random.default_rng(step).random((2 * HALF, 9, 9, 1), np.float32)
        images[HALF:] *= 8
        (loss, grads), (loss_of_two, grads_of_two) = (
            _gradients(config, state, metadata, images) for config in (one, two)
        )
        where = f"step {step} over dp=2"
        assert_close_norm(where=f"{where}: loss", actual=loss_of_two, expected=loss, tolerance=BF16_NET)
        for layer in ("dense1", "dense2", "dense3"):
            kernels = (grads_of_two["params"][layer]["kernel"], grads["params"][layer]["kernel"])
            at = f"{where}: {layer}"
            assert_close_norm(where=at, actual=kernels[0], expected=kernels[1], tolerance=BF16_NET)
        if precision is Precision.TE_FP8:
            name = te.metadata_collection()
            assert_trees_close_norm(where=where, actual=grads_of_two[name], expected=grads[name], tolerance=BF16_NET)
        state, metadata = train.update_model(state, grads, metadata)
