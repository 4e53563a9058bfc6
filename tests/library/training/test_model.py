"""The network: its sizes, what it computes in, and when it drops out."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_fp8 import te
from mnist_fp8.core.modes import Precision
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.oracle.dense import Product
from mnist_fp8.oracle.tolerances import product_tolerance
from mnist_fp8.programs import jaxprs
from mnist_fp8.training.model import LOGITS, Net, convolve_images, max_pool

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
    return te.unbox(jax.eval_shape(Net(precision).init, key(), IMAGES))


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
    found = jaxprs.gemms(jax.make_jaxpr(Net(precision).apply)(described(precision), IMAGES))
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
    found = {}

    def note(apply: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        result = apply(*args, **kwargs)
        if isinstance(context.module, nn.Conv):
            found[context.module.name] = [str(array.dtype) for array in (*args, result)]
        return result

    with nn.intercept_methods(note):
        jax.eval_shape(Net(Precision.FLAX_BF16).apply, described(Precision.FLAX_BF16), IMAGES)
    assert found == {"conv1": ["bfloat16"] * 2, "conv2": ["bfloat16"] * 2}


def normal(seed: int, shape: tuple[int, ...]) -> jax.Array:
    """Numbers in BF16, of which some are equal."""
    return jax.random.normal(jax.random.key(seed), shape, jnp.bfloat16)


def with_gradients(function: Any, *arguments: Any, of: Any = lambda x: x) -> list[Any]:
    """A function's result and gradients, for an output gradient that is the same for functions of one shape.

    Args:
        function: what is differentiated.
        arguments: its arguments, whose dtype is the output gradient's too.
        of: what is done to arguments and output gradient first.
    """
    result, pull_back = jax.vjp(function, *map(of, arguments))
    return [result, *pull_back(of(normal(0, result.shape).astype(result.dtype)))]


TIES: dict[str, Callable[[], jax.Array]] = {
    "random": lambda: normal(1, (3, 28, 28, 64)),
    "many ties": lambda: jnp.round(normal(2, (3, 28, 28, 64))),
    "all equal": lambda: jnp.ones((2, 4, 6, 3), jnp.bfloat16),
    "zeros of both signs": lambda: jnp.where(normal(3, (2, 4, 6, 3)) > 0, 0.0, -0.0).astype(jnp.bfloat16),
    "infinite": lambda: jnp.where(normal(4, (2, 4, 6, 3)) > 0, jnp.inf, -jnp.inf).astype(jnp.bfloat16),
}


@pytest.mark.parametrize("numbers", TIES)
def test_max_pool_is_that_of_flax_to_the_bit_and_so_is_its_gradient_where_numbers_are_equal(numbers: str) -> None:
    for found, expected in zip(
        with_gradients(max_pool, TIES[numbers]()),
        with_gradients(lambda x: nn.max_pool(x, (2, 2), (2, 2)), TIES[numbers]()),
        strict=True,
    ):
        np.testing.assert_array_equal(found, expected)


def test_relu_may_follow_the_pooling() -> None:
    """Also for gradients: there is none where the largest is below zero, and above it the first largest is the same."""
    x = TIES["many ties"]()
    for found, expected in zip(
        with_gradients(lambda x: nn.relu(max_pool(x)), x),
        with_gradients(lambda x: nn.max_pool(nn.relu(x), (2, 2), (2, 2)), x),
        strict=True,
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shape", [(2, 9, 9, 3), (2, 8, 7, 3)])
def test_max_pool_of_an_odd_number_of_rows_or_columns_is_that_of_flax(shape: tuple[int, ...]) -> None:
    x = jax.random.normal(jax.random.key(3), shape, jnp.bfloat16)
    pooled = with_gradients(max_pool, x), with_gradients(lambda x: nn.max_pool(x, (2, 2), (2, 2)), x)
    for ours, theirs in zip(*map(jax.tree.leaves, pooled), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_max_pool_hands_on_what_is_no_number() -> None:
    assert np.isnan(max_pool(TIES["random"]().at[0, 1, 1, 0].set(jnp.nan))[0, 0, 0, 0])


def convolution(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """JAX's own, as in Flax's layer."""
    return jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def test_first_convolution_and_its_gradients_are_those_of_jax_within_rounding() -> None:
    """Against sums in float64; the sums of the absolute values are the convolution of these."""
    arguments = normal(1, (4, 28, 28, 1)), normal(2, (3, 3, 1, 32))
    found = with_gradients(convolve_images, *arguments)
    with jax.enable_x64(True):  # noqa: FBT003 - its name says what it is
        exact = [array.astype(jnp.float64) for array in arguments]
        values, magnitudes = with_gradients(convolution, *exact), with_gradients(convolution, *exact, of=jnp.abs)
    for actual, value, magnitude, terms in zip(found, values, magnitudes, (9, 9 * 32, 4 * 28 * 28), strict=True):
        assert (actual.dtype, value.dtype) == (jnp.bfloat16, jnp.float64)
        product = Product(np.asarray(value), np.asarray(magnitude), terms)
        error = np.abs(np.asarray(actual, np.float64) - product.value)
        assert np.all(error <= product_tolerance(product, "bfloat16", RunKind.HOST))


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
