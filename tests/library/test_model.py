"""The network: its sizes, what it computes in, and when it drops out."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_fp8 import float8, te_api
from mnist_fp8.config import Precision
from mnist_fp8.model import LOGITS, Net

IMAGES = np.random.default_rng(3).random((2, 28, 28, 1), np.float32)


def key() -> Any:
    """Any RNG key."""
    return jax.random.key(3)


SHAPES = {
    "conv1": {"kernel": (3, 3, 1, 32), "bias": (32,)},
    "conv2": {"kernel": (3, 3, 32, 64), "bias": (64,)},
    "dense1": {"kernel": (12544, 128), "bias": (128,)},
    "dense2": {"kernel": (128, 32), "bias": (32,)},
    "dense3": {"kernel": (32, 32), "bias": (32,)},
}

every_precision = pytest.mark.parametrize("precision", Precision, ids=lambda precision: precision.value)


@pytest.fixture(scope="module")
def variables() -> Any:
    """Of the Flax network."""
    return jax.jit(Net(Precision.FLAX_BF16).init)(key(), IMAGES)


def described(precision: Precision) -> Any:
    """Shapes and dtypes of the variables, without computing them."""
    return te_api.unbox(jax.eval_shape(Net(precision).init, key(), IMAGES))


@every_precision
def test_parameters_are_the_same_float32_arrays_in_every_precision(precision: Precision) -> None:
    params = described(precision)["params"]
    assert jax.tree.map(lambda leaf: leaf.shape, params) == SHAPES
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


@every_precision
def test_logits_are_float32_and_32_for_each_image(precision: Precision) -> None:
    logits = jax.eval_shape(Net(precision).apply, described(precision), IMAGES)
    assert (logits.shape, logits.dtype) == ((2, 32), jnp.dtype("float32"))
    assert LOGITS == 32


@every_precision
def test_dense_layers_multiply_in_bf16_outside_autocast(precision: Precision) -> None:
    found = float8.gemms(jax.make_jaxpr(Net(precision).apply)(described(precision), IMAGES))
    assert [(gemm.layer, gemm.lhs, gemm.rhs) for gemm in found] == [
        (f"Net/dense{number}", "bfloat16", "bfloat16") for number in (1, 2, 3)
    ]


@every_precision
def test_sizes_of_dense_layers_are_multiples_of_32(precision: Precision) -> None:
    """So that every recipe can multiply them, those with blocks of 32 included."""
    params = described(precision)["params"]
    sizes = [size for name, layer in params.items() if name.startswith("dense") for size in layer["kernel"].shape]
    assert sizes
    assert not [size for size in sizes if size % 32]


def test_convolutions_compute_in_bf16() -> None:
    jaxpr = jax.make_jaxpr(Net(Precision.FLAX_BF16).apply)(described(Precision.FLAX_BF16), IMAGES)
    operands = [
        [str(variable.aval.dtype) for variable in eqn.invars]
        for eqn in jaxpr.eqns
        if eqn.primitive.name == "conv_general_dilated"
    ]
    assert operands == [["bfloat16", "bfloat16"]] * 2


@pytest.mark.parametrize("train", [True, False], ids=["training", "evaluation"])
def test_dropout_follows_the_convolutions_and_the_first_dense_layer(*, train: bool) -> None:
    found = []

    def note(apply: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if isinstance(context.module, nn.Dropout):
            found.append((context.module.rate, context.module.deterministic, args[0].shape))
        return apply(*args, **kwargs)

    def logits(variables: Any) -> jax.Array:
        return Net(Precision.FLAX_BF16).apply(variables, IMAGES, train=train, rngs={"dropout": key()})

    variables = described(Precision.FLAX_BF16)
    with nn.intercept_methods(note):
        jax.eval_shape(logits, variables)
    assert found == [(0.25, not train, (2, 14, 14, 64)), (0.5, not train, (2, 128))]


def test_dropout_is_active_only_in_training(variables: Any) -> None:
    apply = jax.jit(Net(Precision.FLAX_BF16).apply, static_argnames="train")
    first, second = (apply(variables, IMAGES, train=True, rngs={"dropout": jax.random.key(i)}) for i in range(2))
    assert not np.array_equal(first, second), "two draws of dropout should differ"
    plain, again = (apply(variables, IMAGES, rngs={"dropout": jax.random.key(i)}) for i in range(2))
    np.testing.assert_array_equal(plain, again)
    assert not np.array_equal(plain, first)
