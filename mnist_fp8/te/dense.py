"""TE's dense layer, whatever the release calls its fields, and its variables as plain arrays."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax.core import meta

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.te import loading
from mnist_fp8.te.autocasts import autocast

Variables = Mapping[str, Any]
"""Flax variables: collections by name, such as ``params``."""


def dense_general(**fields: Any) -> Any:  # noqa: ANN401 - a Flax module, whose type TE does not export
    """Make a ``te.flax.DenseGeneral``. Its ``dtype`` is the parameters'; it computes in its input's dtype.

    Before 2.1, ``dtype`` is what TE's layer computes in, and its parameters are always float32.

    Raises:
        ConfigError: the release cannot store parameters of that dtype.
    """
    layer = _dense_class()
    if not dense_dialect().computes_in_dtype:
        return layer(**fields)
    if jnp.dtype(fields.pop("dtype", jnp.float32)) != jnp.float32:
        raise ConfigError(
            f"Transformer Engine {loading.version()} stores the parameters of a dense layer in float32 only"
        )
    return computing_in_the_dtype_of_its_input(layer)(**fields)


def _dense_class() -> Any:  # noqa: ANN401
    module = loading.engine().module
    return module.flax.DenseGeneral if hasattr(module, "flax") else module.DenseGeneral  # until 0.8


@functools.cache
def computing_in_the_dtype_of_its_input(layer: Any) -> Any:  # noqa: ANN401
    """A class of layers whose ``dtype`` is what they compute in, as one that computes in that of its first input.

    Without an input it stays at its default, float32.
    """

    def call(self: Any, *inputs: Any, **arguments: Any) -> Any:  # noqa: ANN401
        if inputs:
            object.__setattr__(self, "dtype", inputs[0].dtype)  # Flax's modules are frozen, this bound copy is ours
        return layer.__call__(self, *inputs, **arguments)

    return type(layer.__name__, (layer,), {"__call__": call, "__doc__": layer.__doc__})


@dataclasses.dataclass(frozen=True)
class DenseDialect:
    """What releases before 2.1 mean differently, seen by initialising a dense layer; nothing is computed for it.

    Attributes:
        computes_in_dtype: a layer's ``dtype`` is what it computes in, not its parameters'.
        flat_kernel: all contracted axes are one axis of the stored kernel.
    """

    computes_in_dtype: bool
    flat_kernel: bool


@functools.cache
def dense_dialect() -> DenseDialect:
    """What the installed release means by a dense layer's ``dtype`` and ``axis``."""
    layer = _dense_class()(features=32, dtype=jnp.float32, axis=(-2, -1))
    x = jax.ShapeDtypeStruct((32, 2, 32), jnp.bfloat16)  # sizes that MXFP8 takes
    # In an autocast of NVFP4, which came with this name of it, initialisation needs more than one key. Of the older
    # autocasts, some end the one around them.
    with _outside() if loading.has_name("autocast") else contextlib.nullcontext():
        y, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
    # Not `unbox`: under a mesh and rules of Flax it constrains what it unboxes, and these are shapes only.
    (kernel,) = jax.tree.leaves(variables["params"]["kernel"])
    return DenseDialect(computes_in_dtype=y.dtype == jnp.float32, flat_kernel=kernel.shape == (64, 32))


def _outside() -> contextlib.AbstractContextManager[None]:
    # The recipe counts for nothing, but the environment may forbid the one that TE makes where none is given.
    return autocast(enabled=False, recipe=loading.engine().recipes.Float8CurrentScaling())


def kernel_shape(contracted: tuple[int, ...], features: tuple[int, ...]) -> tuple[int, ...]:
    """Shape in which the release stores the kernel of a layer over some contracted sizes."""
    return (math.prod(contracted), *features) if dense_dialect().flat_kernel else (*contracted, *features)


def unbox(variables: Variables) -> dict[str, Any]:
    """Variables as plain arrays: without what TE adds to say how they are sharded.

    Since 2.4 that is a box around each parameter, before that a collection ``..._axes`` beside each collection.
    """
    arrays = {name: tree for name, tree in variables.items() if not name.endswith("_axes")}
    plain: dict[str, Any] = meta.unbox(arrays)
    return plain
