"""What is recorded of the layers in a program, whatever is around them."""

import functools
import sys
import types
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_fp8 import te
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.te.calls import Recording, recorded
from mnist_fp8.te.dense_step import on_device, with_amax

MODE = te.Autocast(RecipeConfig("DelayedScaling", amax_history_len=4))


@functools.cache
def x() -> jax.Array:
    """Input of the layers."""
    return on_device(with_amax(2.0, (32, 32), 0), "bfloat16")


class Stack(nn.Module):
    """Dense layers one after the other, each in a scan and rematerialised."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def body(layer: Any, x: jax.Array, _: None) -> tuple[jax.Array, None]:
            return layer(x), None

        axes = {"params": 0, te.metadata_collection(): 0}
        scan = nn.scan(
            nn.remat(body), axes, split_rngs={"params": True}, length=3, metadata_params={nn.PARTITION_NAME: "layers"}
        )
        y, _ = scan(te.dense_general(features=32, name="stacked"), x, None)
        return y


def grads_of(module: nn.Module) -> tuple[Any, Any, Recording]:
    """Variables of a module, gradients of a loss, and what was recorded of it."""
    with MODE():
        variables = te.unbox(module.init(jax.random.key(0), x()))

    @jax.jit
    def grads(variables: Any) -> Any:
        with MODE():
            return jax.grad(lambda variables: module.apply(variables, x()).astype(jnp.float32).sum())(variables)

    plain = grads(variables)
    with recorded() as recording:
        found = grads(variables)
        jax.block_until_ready(found)
        assert recording.calls
    assert jax.tree.all(jax.tree.map(np.array_equal, plain, found)), "recording changes what is computed"
    return variables, found, recording


def test_call_has_what_went_in_and_came_out() -> None:
    variables, grads, recording = grads_of(te.dense_general(features=32, name=None))
    (call,) = recording.calls
    assert call.site.place.startswith("test_calls.py:")
    assert np.array_equal(call.inputs[0], x())
    assert np.array_equal(call.inputs[1], variables["params"]["kernel"])
    assert np.array_equal(call.d_inputs[1], grads["params"]["kernel"])
    returned = {array.tobytes() for array in call.d_inputs}
    assert all(np.asarray(leaf).tobytes() in returned for leaf in jax.tree.leaves(grads[te.metadata_collection()]))


def test_each_layer_of_a_scan_is_a_call() -> None:
    variables, grads, recording = grads_of(Stack())
    calls = recording.calls
    assert len(calls) == 3
    assert {str(call.site.module) for call in calls} == {"stacked"}
    kernels = {call.inputs[1].tobytes() for call in calls}
    assert kernels == {np.asarray(kernel).tobytes() for kernel in variables["params"]["stacked"]["kernel"]}
    gradients = {call.d_inputs[1].tobytes() for call in calls}
    assert gradients == {np.asarray(gradient).tobytes() for gradient in grads["params"]["stacked"]["kernel"]}


def test_products_are_those_of_the_recipe() -> None:
    _, _, recording = grads_of(te.dense_general(features=32))
    ways = [(product.backward, product.quantized) for product in recording.sites[-1].products]
    assert ways == [(False, True), (True, True), (True, True)]


def test_nothing_is_recorded_afterwards() -> None:
    """And what is forgotten of Transformer Engine is there again."""
    _, _, recording = grads_of(te.dense_general(features=32))
    count = len(recording.calls)
    with pytest.raises(ZeroDivisionError), recorded():
        _ = 1 / 0
    layer = te.dense_general(features=32)
    with MODE():
        jax.grad(lambda given: layer.apply(layer.init(jax.random.key(0), x()), given).astype(jnp.float32).sum())(x())
    assert len(recording.calls) == count


def test_call_of_a_function_as_kernels_have_it_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments by their names; a bias that is not there, and has a gradient all the same; metadata behind it."""

    @functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
    def product(x: jax.Array, kernel: jax.Array, bias: Any, kept: Any, factor: int) -> jax.Array:
        return product_forward(x, kernel, bias, kept, factor)[0]

    def product_forward(x: jax.Array, kernel: jax.Array, _bias: Any, kept: Any, factor: int) -> Any:
        return x @ kernel * factor, (x, kernel, kept)

    def product_backward(factor: int, kept: Any, grad: jax.Array) -> Any:
        x, kernel, (scale, history) = kept
        return grad @ kernel.T * factor, x.T @ grad * factor, jnp.zeros(1), (scale + 1, history + 1)

    product.defvjp(product_forward, product_backward)
    module = types.ModuleType(f"{te.engine().module.__name__}.ours")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(module, "_product", product, raising=False)
    x, kept = jnp.ones((4, 4)), (jnp.array([2.0]), jnp.arange(3.0))
    with recorded() as recording:
        jax.grad(lambda kept: module._product(x, x, bias=None, kept=kept, factor=2).sum())(kept)
    (call,) = recording.calls
    assert [array.shape for array in call.inputs] == [array.shape for array in call.d_inputs]
    assert [array.tolist() for array in call.d_inputs[2:]] == [[3], [1, 2, 3]]
