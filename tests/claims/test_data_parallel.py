"""Claim: data parallelism through ``MeshResource`` computes what one device computes, metadata included.

Promised by TE's documentation of ``autocast(mesh_resource=...)``: amaxes of delayed scaling are reduced over the data
parallel devices, so that all of them quantize with the same scales. (With current scaling TE's kernels let each device
use the amax of its own part of the batch, so that results depend on the division; nothing is claimed about it.)

What a failure means for an upgrade: devices drift apart, or a batch is quantized by the part of it that a device sees.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mnist_fp8 import te_api, train
from mnist_fp8.config import Precision, RecipeConfig, TrainConfig
from mnist_fp8.layers import Step, dense_layer, dense_step, variables_of
from mnist_fp8.oracles import TENSORS
from mnist_fp8.tolerances import BF16_NET, PARTIAL_SUMS
from support.assertions import assert_close_norm, assert_trees_close_norm, assert_trees_equal
from support.metadata import meta_of

pytestmark = pytest.mark.devices(2)

RECIPES = {"bf16": None, "delayed": RecipeConfig(amax_history_len=4)}
HALF = 16


def run_layer(recipe: str, axis: str | None) -> Step:
    """Forward and backward pass of one dense layer, over two devices of a mesh axis or on one device.

    The second half of the batch alone holds the amax of input and gradient.
    """
    drawn = np.random.default_rng(0)
    x, grad = drawn.normal(0, 1, (2 * HALF, 32)), drawn.normal(0, 1, (2 * HALF, 16))
    x[HALF:] *= 8
    grad[HALF:] *= 8
    metas = dict.fromkeys(TENSORS, meta_of(20))
    kernel, bias = drawn.normal(0, 1, (32, 16)), drawn.normal(0, 1, 16)
    variables = variables_of(kernel, metas if recipe == "delayed" else {}, bias)
    layer = dense_layer(features=16)
    batch = jnp.asarray(x, jnp.bfloat16), jnp.asarray(grad, jnp.bfloat16)
    if axis is None:
        return dense_step(layer, te_api.Autocast(RECIPES[recipe]), variables, *batch)
    mesh = Mesh(np.asarray(jax.devices()[:2]), (axis,))
    # TE asks for the mesh resource while it is compiled, so it has to be set around the call as well.
    with te_api.mesh_context(mesh), te_api.Autocast(axes=(axis,))():
        divided = jax.device_put(batch, NamedSharding(mesh, PartitionSpec(axis)))
        variables = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
        step = dense_step(layer, te_api.Autocast(RECIPES[recipe], (axis,)), variables, *divided)
    assert len(step.y.sharding.device_set) == 2, "Control: the output should be divided over two devices"
    return step


@pytest.mark.parametrize("axis", ["dp", "fsdp"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_layer_on_two_devices_equals_one(recipe: str, axis: str) -> None:
    two, one = run_layer(recipe, axis), run_layer(recipe, None)
    where = f"{recipe} over {axis}=2"
    assert_trees_equal(where=where, actual={"y": two.y, "dx": two.dx}, expected={"y": one.y, "dx": one.dx})
    kernels = [step.grads["params"]["kernel"] for step in (two, one)]
    assert_close_norm(where=f"{where}: kernel gradient", actual=kernels[0], expected=kernels[1], tolerance=PARTIAL_SUMS)
    if recipe == "delayed":
        assert_trees_equal(where=f"{where}: metadata", actual=two.metadata, expected=one.metadata)


def _first_step(mesh: tuple[tuple[str, int], ...]) -> tuple[jax.Array, Any, Any]:
    config = TrainConfig(precision=Precision.TE_FP8, batch_size=2 * HALF, mesh=mesh)
    state, metadata = train.create_train_state(config)
    images = np.random.default_rng(0).random((2 * HALF, 28, 28, 1), np.float32)
    images[HALF:] *= 8
    labels = np.arange(2 * HALF, dtype=np.int32) % 10
    with train.mesh_context(config):
        grads, loss, _ = train.apply_model(state, images, labels, metadata, {"dropout": jax.random.key(0)})
    return loss, grads["params"], grads[te_api.metadata_collection()]


def test_network_on_two_devices_equals_one() -> None:
    """The trainer divides its batch. Bias gradients are left out: they are sums in BF16, of two lengths here."""
    (loss, grads, metadata), (one_loss, one_grads, one_metadata) = _first_step((("dp", 2),)), _first_step(())
    assert_close_norm(where="loss over dp=2", actual=loss, expected=one_loss, tolerance=BF16_NET)
    for layer in ("dense1", "dense2", "dense3"):
        where = f"{layer} over dp=2"
        kernels = grads[layer]["kernel"], one_grads[layer]["kernel"]
        assert_close_norm(where=f"{where}: kernel gradient", actual=kernels[0], expected=kernels[1], tolerance=BF16_NET)
        assert_trees_close_norm(where=where, actual=metadata[layer], expected=one_metadata[layer], tolerance=BF16_NET)
