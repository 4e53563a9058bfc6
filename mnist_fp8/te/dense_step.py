"""Run one dense layer the way a claim needs it: forward, backward, with metadata that the claim chooses."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.oracle.dense import Array, Meta
from mnist_fp8.te import dense
from mnist_fp8.te.autocasts import Autocast
from mnist_fp8.te.metadata import history_leaf, metadata_collection, scale_leaf

BF16 = Autocast()
"""Autocast with ``enabled=False``."""


def fp8(recipe: str = "DelayedScaling", **options: Any) -> Autocast:  # noqa: ANN401 - those of the recipe
    """Autocast with a recipe."""
    return Autocast(RecipeConfig(recipe, **options))


@functools.cache
def dense_layer(**fields: Any) -> Any:  # noqa: ANN401 - a Flax module
    """A TE dense layer; the same one for the same fields, so that `dense_step` is compiled once for it."""
    return dense.dense_general(**fields)


class Step(NamedTuple):
    """Result of a forward and backward pass.

    Attributes:
        y: output.
        dx: gradient of the input.
        grads: gradients of the variables; that of the metadata collection is the metadata of the next step.
    """

    y: jax.Array
    dx: jax.Array
    grads: dict[str, Any]

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the next step, by leaf."""
        metadata: dict[str, Any] = self.grads[metadata_collection()]
        return metadata


@functools.partial(jax.jit, static_argnums=(0, 1))
def dense_step(
    layer: Any,  # noqa: ANN401
    mode: Autocast,
    variables: Mapping[str, Any],
    x: jax.Array,
    grad: jax.Array,
    rngs: Mapping[str, jax.Array] | None = None,
) -> Step:
    """Run a layer forward on ``x`` and backward from ``grad``, the gradient of its output, in a mode.

    ``rngs`` are keys of random numbers by the name of their stream.
    """
    with mode():
        y, pull_back = jax.vjp(functools.partial(layer.apply, rngs=rngs), variables, x)
        grads, dx = pull_back(grad)
    return Step(y, dx, grads)


def init(
    layer: Any,  # noqa: ANN401
    mode: Autocast,
    x: jax.Array,
    rngs: Mapping[str, jax.Array] | None = None,
) -> dict[str, Any]:
    """Variables of a layer that is initialised in a mode; ``rngs`` are keys beside that of the parameters."""
    with mode():
        return dense.unbox(layer.init({"params": jax.random.key(0)} | dict(rngs or {}), x))


def init_shapes(layer: Any, mode: Autocast, x: jax.Array | jax.ShapeDtypeStruct) -> dict[str, Any]:  # noqa: ANN401
    """What `init` returns as shapes and dtypes: traced, not computed, and refused where `init` is."""
    shapes: dict[str, Any] = jax.eval_shape(functools.partial(init, layer, mode), x)
    return shapes


def on_device(numbers: npt.ArrayLike, dtype: npt.DTypeLike = "float32") -> jax.Array:
    """Numbers as an array of JAX. NumPy converts them: for that, JAX would compile a program for each shape."""
    return jax.device_put(np.array(numbers, jnp.dtype(dtype)))


def variables_of(kernel: Array, metas: Mapping[str, Meta], bias: Array | None = None) -> dict[str, Any]:
    """Variables of a dense layer: float32 parameters and the metadata of ``x``, ``kernel`` and ``grad``."""
    params = {"kernel": on_device(kernel)}
    if bias is not None:
        params["bias"] = on_device(bias)
    collection = {}
    for tensor, meta in metas.items():
        collection[scale_leaf(tensor)] = on_device([meta.scale])
        collection[history_leaf(tensor)] = on_device(meta.history)
    return {"params": params, **({metadata_collection(): collection} if collection else {})}


def read_meta(metadata: Mapping[str, Any], tensor: str, number: int | None = None) -> Meta:
    """Metadata of one tensor out of a module's part of TE's collection."""
    scale, history = metadata[scale_leaf(tensor, number)], metadata[history_leaf(tensor, number)]
    return Meta(np.float32(scale[0]), np.asarray(history))


def with_amax(amax: float, shape: tuple[int, int], seed: int) -> Array:
    """A float32 tensor of a given amax. Its largest element is negative and stands somewhere inside."""
    values = np.random.default_rng(seed).uniform(-0.5, 0.5, shape).astype(np.float32)
    if np.isfinite(amax):
        values *= np.float32(amax)
    values[shape[0] // 2, shape[1] // 3] = -amax
    return values


def exact(shape: tuple[int, ...], seed: int, amax: float = 1.75) -> Array:
    """A float32 tensor that no mode rounds: products of such tensors are exact, in FP8 and on a GPU as well.

    Its numbers have three significant bits, those of E5M2. With an amax of 1.75 times a power of two, the scale of
    current scaling is a power of two, too. The first element alone is that large.
    """
    values = np.random.default_rng(seed).choice([-1.25, -1.0, -0.5, 0.0, 0.5, 1.0, 1.25], shape).astype(np.float32)
    values.flat[0] = -1.75
    return values * np.float32(amax / 1.75)
