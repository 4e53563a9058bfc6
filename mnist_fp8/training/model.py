"""The convolutional network that is trained, with Flax's or Transformer Engine's dense layers."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mnist_fp8 import te
from mnist_fp8.core.modes import Precision

LOGITS = 32
"""Width of the last layer. There are 10 digits; FP8 matrix products need sizes that are multiples of 16, and
block-scaled recipes of 32, so the other logits exist and are trained to stay low."""


class Net(nn.Module):
    """Two convolutions and three dense layers.

    Activations are BF16 and parameters FP32 in every precision, so that the three differ in the dense layers only.
    The dense layers are 12544 to 128, 128 to 32 and 32 to 32 for images of 28 by 28: multiples of 32, as FP8 needs,
    for smaller images, too.

    Attributes:
        precision: which dense layers. FP8 itself is chosen by the autocast around the call, not here.
    """

    precision: Precision

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Compute the logits.

        Args:
            images: shape (N, H, W, 1), any floating dtype.
            train: whether dropout is active; it then needs the ``dropout`` RNG.

        Returns:
            Logits, shape (N, 32), float32.
        """
        x = images.astype(jnp.bfloat16)
        x = nn.relu(nn.Conv(32, (3, 3), dtype=jnp.bfloat16, conv_general_dilated=_convolution, name="conv1")(x))
        x = nn.Conv(64, (3, 3), dtype=jnp.bfloat16, name="conv2")(x)
        x = nn.relu(max_pool(x))  # the other way round the same, on four times as many numbers
        x = nn.Dropout(0.25, deterministic=not train)(x)
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(_dense(self.precision, 128, "dense1")(x))
        x = nn.Dropout(0.5, deterministic=not train)(x)
        x = nn.relu(_dense(self.precision, 32, "dense2")(x))
        x = _dense(self.precision, LOGITS, "dense3")(x)
        return x.astype(jnp.float32)


def _dense(precision: Precision, features: int, name: str) -> Any:  # noqa: ANN401 - Flax's or TE's module
    """A dense layer that keeps FP32 parameters and computes in BF16.

    ``dtype`` means different things: to Flax what to compute in, to Transformer Engine what the parameters are stored
    in (it computes in its input's dtype).
    """
    if precision is Precision.FLAX_BF16:
        return nn.Dense(features, dtype=jnp.bfloat16, param_dtype=jnp.float32, name=name)
    return te.dense_general(features=features, dtype=jnp.float32, name=name)


# What follows computes what Flax's does. On a GPU, cuDNN is slow where there is one channel, and XLA's gradient of a
# reduction over windows is slow as well: together they cost a quarter of an epoch.


def _convolution(images: jax.Array, kernel: jax.Array, *_: object, **_options: object) -> jax.Array:
    """What the first layer calls in the place of ``jax.lax.conv_general_dilated``; nothing but the sizes differ."""
    return convolve_images(images, kernel)


def _sum_of_shifted(images: jax.Array, kernel: jax.Array) -> jax.Array:
    taps = kernel.reshape(9, -1)
    products = (shifted * tap for shifted, tap in zip(_shifted(images.astype(jnp.float32)), taps, strict=True))
    return functools.reduce(jnp.add, products).astype(images.dtype)


def _shifted(images: jax.Array) -> list[jax.Array]:
    """The images, as each of the nine weights of a kernel sees them."""
    _, height, width, _ = images.shape
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return [padded[:, row : row + height, column : column + width] for row in range(3) for column in range(3)]


@jax.custom_vjp
def convolve_images(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve images of one channel, as ``jax.lax.conv_general_dilated`` with padding ``SAME``.

    Forward, nine shifted images are added up in float32, which is one kernel on a GPU, with bias and ReLU. The gradient
    of the kernel is a matrix product, since sums over all pixels are what products are fast at.

    Args:
        images: shape (N, H, W, 1).
        kernel: shape (3, 3, 1, C).

    Returns:
        Shape (N, H, W, C), of the images' dtype.
    """
    return _sum_of_shifted(images, kernel)


def _convolve_forward(images: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return convolve_images(images, kernel), (images, kernel)


def _convolve_backward(arguments: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    images, kernel = arguments
    _, pull_back = jax.vjp(lambda images: _sum_of_shifted(images, kernel), images)  # computed only if it is asked for
    seen = jnp.concatenate(_shifted(images), axis=-1).reshape(-1, 9)
    return *pull_back(gradient), (seen.T @ gradient.reshape(len(seen), -1)).reshape(kernel.shape)


convolve_images.defvjp(_convolve_forward, _convolve_backward)


def max_pool(x: jax.Array) -> jax.Array:
    """The largest of each two by two numbers, as ``nn.max_pool(x, (2, 2), (2, 2))``.

    Its gradient goes to the first of the largest, row by row, as there. Which one that is takes a byte: so the backward
    pass reads a quarter of the numbers and compares no more.

    Args:
        x: shape (N, H, W, C); the last row or column of an odd number is left out.

    Returns:
        Shape (N, H // 2, W // 2, C).
    """
    return _pooled(x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2])


@jax.custom_vjp
def _pooled(x: jax.Array) -> jax.Array:
    return _largest(x)[0]


def _largest(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The largest of each two by two numbers, and which of the four it is first."""
    images, height, width, channels = x.shape
    blocks = x.reshape(images, height // 2, 2, width // 2, 2, channels)
    corners = [blocks[:, :, row, :, column] for row in range(2) for column in range(2)]
    largest = functools.reduce(jnp.maximum, corners)
    return largest, jnp.select([corner == largest for corner in corners[:3]], list(jnp.arange(3, dtype=jnp.uint8)), 3)


def _max_pool_backward(first: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    corners = jnp.arange(4, dtype=jnp.uint8).reshape(2, 1, 2, 1)
    blocks = jnp.where(first[:, :, None, :, None] == corners, gradient[:, :, None, :, None], 0)
    images, height, _, width, _, channels = blocks.shape
    return (blocks.reshape(images, 2 * height, 2 * width, channels),)


_pooled.defvjp(_largest, _max_pool_backward)
