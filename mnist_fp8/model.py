"""The convolutional network that is trained, with Flax's or Transformer Engine's dense layers."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mnist_fp8 import te_api
from mnist_fp8.config import Precision

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
        x = nn.relu(nn.Conv(32, (3, 3), dtype=jnp.bfloat16, name="conv1")(x))
        x = nn.relu(nn.Conv(64, (3, 3), dtype=jnp.bfloat16, name="conv2")(x))
        x = nn.max_pool(x, window_shape=(2, 2), strides=(2, 2))
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
    return te_api.dense_general(features=features, dtype=jnp.float32, name=name)
