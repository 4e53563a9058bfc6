"""Claim: outside autocast, ``te.DenseGeneral`` computes in BF16 what Flax's dense layers compute.

Promised by TE's documentation of ``DenseGeneral`` (a drop-in for Flax's layer of that name) and by its MNIST example,
which compares the two. Both are also compared with a float64 product, since two wrong results can agree.

What a failure means for an upgrade: BF16 training changes, and with it the baseline that FP8 is judged against.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mnist_fp8 import te
from mnist_fp8.core.modes import Precision
from mnist_fp8.oracle import dense
from mnist_fp8.oracle.tolerances import network_tolerance, product_tolerance, rounding_tolerance
from mnist_fp8.te.dense_step import BF16, Step, dense_layer, dense_step, on_device, variables_of
from mnist_fp8.training import train
from mnist_fp8.training.config import TrainConfig
from mnist_fp8.training.train import TrainState
from support.assertions import (
    assert_close,
    assert_close_norm,
    assert_equal,
    assert_same_structure,
    assert_trees_close_norm,
    assert_trees_equal,
)
from support.strategies import DenseCase, dense_cases

CASES = [
    DenseCase(batch=(1,), contracted=(16,), features=(16,), use_bias=True),
    DenseCase(batch=(2, 3, 5), contracted=(7,), features=(11,), use_bias=True),
    DenseCase(batch=(8,), contracted=(4, 6), features=(3, 5), use_bias=True),
    DenseCase(batch=(3, 4), contracted=(2, 9), features=(17,), use_bias=False),
]


def with_examples(test: Callable[..., None]) -> Callable[..., None]:
    """Generate layers, and always try the written-out ones."""
    for number, case in enumerate(CASES):
        test = example(case=case, seed=number)(test)
    return given(case=dense_cases, seed=st.integers(0, 2**16))(test)


@pytest.mark.xla_sums_in_float32
@with_examples
def test_dense_general_computes_output_and_every_gradient(case: DenseCase, seed: int) -> None:
    variables, x, grad = _inputs(case, seed)
    stored = te.kernel_shape(case.contracted, case.features)
    variables["params"]["kernel"] = variables["params"]["kernel"].reshape(stored)
    layer = dense_layer(features=case.features, axis=case.axis, use_bias=case.use_bias)
    step = dense_step(layer, BF16, variables, x, grad)
    _assert_step(case, step, variables["params"], x, grad, where=f"TE {case}")


@pytest.mark.xla_sums_in_float32
@with_examples
def test_flax_layer_computes_the_same(case: DenseCase, seed: int) -> None:
    """The other half of parity: Flax's layer on the same variables, against the same expected values."""
    variables, x, grad = _inputs(case, seed)
    layer = nn.DenseGeneral(
        case.features, axis=case.axis, use_bias=case.use_bias, dtype=jnp.bfloat16, param_dtype=jnp.float32
    )
    step = dense_step(layer, BF16, variables, x, grad)
    _assert_step(case, step, variables["params"], x, grad, where=f"Flax {case}")


def _inputs(case: DenseCase, seed: int) -> tuple[dict[str, Any], jax.Array, jax.Array]:
    drawn = np.random.default_rng(seed)
    params = {"kernel": on_device(drawn.normal(0, 0.5, case.contracted + case.features))}
    if case.use_bias:
        params["bias"] = on_device(drawn.normal(0, 1, case.features))
    x = on_device(drawn.normal(0, 1, case.batch + case.contracted), "bfloat16")
    # Halves up to 1: their sums over a batch stay below 128 and are BF16 numbers, so that bias gradients are exact.
    grad = on_device(drawn.integers(-2, 3, case.batch + case.features) / 2, "bfloat16")
    return {"params": params}, x, grad


def _assert_step(
    case: DenseCase,
    step: Step,
    params: dict[str, Any],
    x: jax.Array,
    grad: jax.Array,
    *,
    where: str,
) -> None:
    """Compare with float64. The kernel is rounded to BF16 first: that is what computing in BF16 means."""
    __tracebackhide__ = True
    kind = te.engine().kind
    tolerance_of = functools.partial(product_tolerance, dtype="bfloat16", kind=kind)
    rows, inner = case.rows, int(np.prod(case.contracted))
    kernel = np.asarray(params["kernel"]).astype(jnp.bfloat16).astype(np.float64).reshape(inner, -1)
    flat_grad = np.asarray(grad, np.float64).reshape(rows, -1)
    exact = dense.dense(np.asarray(x, np.float64).reshape(rows, inner), kernel, flat_grad)
    output, tolerance = exact.y.value, tolerance_of(exact.y)
    if case.use_bias:
        bias = np.asarray(params["bias"]).astype(jnp.bfloat16).astype(np.float64).reshape(1, -1)
        output = output + bias
        tolerance = tolerance + rounding_tolerance(output, "bfloat16", roundings=1)
        dbias = np.asarray(step.grads["params"]["bias"]).reshape(-1)
        assert_equal(where=f"{where}: bias gradient", actual=dbias, expected=flat_grad.sum(axis=0))
    for name, actual, expected, allowed in (
        ("output", step.y, output, tolerance),
        ("input gradient", step.dx, exact.dx.value, tolerance_of(exact.dx)),
        ("kernel gradient", step.grads["params"]["kernel"], exact.dkernel.value, tolerance_of(exact.dkernel)),
    ):
        found = np.asarray(actual, np.float64).reshape(expected.shape)
        assert_close(where=f"{where}: {name}", actual=found, expected=expected, tolerance=allowed)
    assert step.y.shape == case.batch + case.features, f"{where}: output shape={step.y.shape}"
    for name, array in (("output", step.y), ("input gradient", step.dx)):
        assert array.dtype == jnp.bfloat16, f"{where}: {name} dtype={array.dtype}, but should be bfloat16"


# --- parameters ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.contracted}-to-{case.features}")
def test_parameters_have_the_names_shapes_and_dtypes_of_flax(case: DenseCase) -> None:
    x = jax.ShapeDtypeStruct(case.batch + case.contracted, jnp.bfloat16)
    ours = dense_layer(features=case.features, axis=case.axis, use_bias=case.use_bias)
    found = te.unbox(jax.eval_shape(ours.init, jax.random.key(0), x))
    assert set(found) == {"params"}, f"collections={sorted(found)}, but should be params only"
    expected = {"kernel": (case.contracted + case.features, "float32")}
    if case.use_bias:
        expected["bias"] = (case.features, "float32")
    assert_same_structure(where="parameters", actual=found["params"], expected=expected)


def test_initial_parameters_are_those_of_flax() -> None:
    """The kernel is lecun-normal: fan-in scaling, truncated at two standard deviations; the bias is zero."""
    x = on_device(np.zeros((1, 400)), "bfloat16")
    key = jax.random.key(3)
    ours = te.unbox(dense_layer(features=300).init(key, x))["params"]
    flax_params = nn.Dense(300).init(key, x)["params"]
    assert_equal(where="initial kernel", actual=ours["kernel"], expected=flax_params["kernel"])
    assert_equal(where="initial bias", actual=ours["bias"], expected=np.zeros(300))
    kernel = np.asarray(ours["kernel"], np.float64)
    # A truncated normal of standard deviation 1/sqrt(fan-in) whose truncation is at 2/0.8796 of that.
    deviation = kernel.std() * np.sqrt(400)
    assert 0.99 < deviation < 1.01, f"standard deviation times sqrt(fan-in)={deviation:.4f}, but should be 1"
    reach = np.abs(kernel).max() * np.sqrt(400)
    assert 2.2 < reach < 2.28, f"largest weight times sqrt(fan-in)={reach:.4f}, but should be just below 2.274"


@pytest.mark.parametrize("features", [(4, 64), (16, 16)], ids=str)
def test_initial_kernel_of_several_feature_axes_is_as_large_as_that_of_flax(features: tuple[int, ...]) -> None:
    """Its fan-in are the contracted axes, however the features are laid out."""
    x = on_device(np.zeros((1, 400)), "bfloat16")
    kernel = te.unbox(dense_layer(features=features).init(jax.random.key(3), x))["params"]["kernel"]
    deviation = float(np.asarray(kernel, np.float64).std() * np.sqrt(400))
    assert 0.99 < deviation < 1.01, f"standard deviation times sqrt(fan-in)={deviation:.4f}, but should be 1"


def test_output_dtype_follows_the_input() -> None:
    layer = dense_layer(features=16)
    params = {"params": {"kernel": on_device(np.ones((16, 16))), "bias": on_device(np.zeros(16))}}
    for dtype in (jnp.bfloat16, jnp.float32, jnp.float16):
        x = on_device(np.ones((16, 16)), dtype)
        found = dense_step(layer, BF16, params, x, x).y.dtype
        assert found == dtype, f"output dtype={found}, but should be the input's, {jnp.dtype(dtype)}"


@pytest.mark.filterwarnings("error:Transformer Engine logical axes:DeprecationWarning")
def test_axis_names_mean_nothing_without_a_mesh() -> None:
    """Outside any autocast, and so without a mesh resource, a layer for several devices is one for a single device."""
    x, params = on_device(np.ones((4, 16))), variables_of(np.eye(16), {}, np.arange(16))
    names = {"input_axes": ("batch", "hidden"), "kernel_axes": ("hidden", "features"), "bias_axes": ("features",)}
    found = dense_layer(features=16, **names).apply(params, x)
    assert_equal(where="output of a layer with axis names", actual=found, expected=1 + np.tile(np.arange(16), (4, 1)))


@pytest.mark.host
def test_float32_input_is_computed_in_float32() -> None:
    """On a CPU: a GPU's default precision for float32 products is TF32."""
    drawn = np.random.default_rng(4)
    x, kernel, grad = (drawn.normal(0, 1, shape).astype(np.float32) for shape in ((16, 32), (32, 16), (16, 16)))
    layer = dense_layer(features=16, use_bias=False)
    step = dense_step(layer, BF16, {"params": {"kernel": on_device(kernel)}}, on_device(x), on_device(grad))
    exact = dense.dense(x, kernel, grad)
    for name, actual, expected in (
        ("output", step.y, exact.y),
        ("input gradient", step.dx, exact.dx),
        ("kernel gradient", step.grads["params"]["kernel"], exact.dkernel),
    ):
        tolerance = product_tolerance(expected, "float32", te.engine().kind)
        assert_close(where=f"float32 {name}", actual=actual, expected=expected.value, tolerance=tolerance)


# --- the whole network ---------------------------------------------------------------------------------------------


def _networks() -> dict[str, tuple[TrainState, Any]]:
    precisions = {"Flax": Precision.FLAX_BF16, "TE": Precision.TE_BF16}
    return {
        name: train.create_train_state(TrainConfig(precision=p, batch_size=16, pooling=3))
        for name, p in precisions.items()
    }


def _batches(count: int) -> list[tuple[Any, Any]]:
    drawn = np.random.default_rng(11)
    templates = drawn.random((10, 9, 9, 1), np.float32)
    labels = drawn.integers(0, 10, (count, 16)).astype(np.int32)
    noise = drawn.normal(0, 0.2, (count, 16, 9, 9, 1)).astype(np.float32)
    return [(templates[label] + extra, label) for label, extra in zip(labels, noise, strict=True)]


def test_network_starts_from_the_same_parameters() -> None:
    flax_state, te_state = (state for state, _ in _networks().values())
    assert_trees_equal(where="initial parameters", actual=te_state.params, expected=flax_state.params)


@pytest.mark.xla_sums_in_float32
def test_network_matches_flax_in_its_first_ten_training_steps() -> None:
    """Loss and gradients of every parameter, from the same state in each step: rounding is not carried on and on."""
    (flax_state, _), (te_state, metadata) = _networks().values()
    assert not metadata, f"the BF16 network has metadata: {sorted(metadata)}"
    losses, tolerance = [], network_tolerance(te.engine().kind)
    for number, batch in enumerate(_batches(10)):
        rngs = {"dropout": jax.random.key(number)}
        expected, loss, _ = train.apply_model(flax_state, *batch, {}, rngs)
        te_state = te_state.replace(params=flax_state.params, opt_state=flax_state.opt_state)
        found, te_loss, _ = train.apply_model(te_state, *batch, {}, rngs)
        where = f"training step {number}"
        assert_close_norm(where=f"{where}: loss", actual=te_loss, expected=loss, tolerance=tolerance)
        assert_trees_close_norm(where=where, actual=found["params"], expected=expected["params"], tolerance=tolerance)
        flax_state, _ = train.update_model(flax_state, expected, {})
        te_state, _ = train.update_model(te_state, found, {})
        assert_trees_close_norm(
            where=f"parameters after {where}", actual=te_state.params, expected=flax_state.params, tolerance=tolerance
        )
        losses.append(float(loss))
    assert losses[-1] < losses[0], f"Control: the network should learn; losses={losses}"


@pytest.mark.xla_sums_in_float32
def test_network_evaluates_like_flax() -> None:
    (flax_state, _), (te_state, _) = _networks().values()
    images, _ = _batches(1)[0]
    logits = {}
    for name, state in (("Flax", flax_state), ("TE", te_state)):
        with state.mode():
            logits[name] = jax.jit(state.apply_fn)({"params": flax_state.params}, images)
    tolerance = network_tolerance(te.engine().kind)
    assert_close_norm(where="logits", actual=logits["TE"], expected=logits["Flax"], tolerance=tolerance)
