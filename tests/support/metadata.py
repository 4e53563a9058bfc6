"""FP8 metadata: what a recipe makes of them, by the oracle, and how TE's are compared with that."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mnist_fp8 import te
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.model.delayed import following
from mnist_fp8.oracle.dense import Meta
from mnist_fp8.oracle.tolerances import scale_tolerance
from mnist_fp8.te.dense_step import init, read_meta
from support.assertions import assert_close, assert_equal


def meta_of(scale: float | np.float32, history: tuple[float, ...] = (0, 1, 2, 3)) -> Meta:
    """Metadata with which the next step uses ``scale``, whatever the history says.

    Before TE 2.3 a step's scale follows from the history that it is given: there, the history has to be empty.
    """
    if not te.metadata_dialect().stores_next_scale:
        history = (0,) * len(history)
    return Meta(np.float32(scale), np.asarray(history, np.float32))


@functools.partial(jax.jit, static_argnums=(0, 1))
def initial_metadata(layer: Any, mode: te.Autocast, x: jax.Array) -> dict[str, Any]:
    """Metadata of an initialisation, without its random numbers."""
    metadata: dict[str, Any] = init(layer, mode, x)[te.metadata_collection()]
    return metadata


def next_metas(metas: Mapping[str, Meta], amaxes: Mapping[str, float], options: Mapping[str, Any]) -> dict[str, Meta]:
    """The oracle's metadata after a step that saw the given amaxes, by tensor, under a recipe's options."""
    recipe = RecipeConfig(**options)
    return {tensor: following(metas[tensor], amax, tensor, recipe) for tensor, amax in amaxes.items()}


def assert_metas(metadata: Mapping[str, Any], expected: Mapping[str, Meta], *, where: str, nan: bool = False) -> None:
    """Compare stored metadata: histories bit for bit, scales too where division is exactly rounded.

    Raises:
        AssertionError: a history or scale is not as expected.
        ValueError: NaN is expected, and ``nan`` does not allow that.
    """
    __tracebackhide__ = True
    for tensor, wanted in expected.items():
        found = read_meta(metadata, tensor)
        assert_equal(where=f"{where}: {tensor} amax history", actual=found.history, expected=wanted.history, nan=nan)
        tolerance = scale_tolerance(float(wanted.scale), te.engine().kind)
        assert_close(where=f"{where}: {tensor} scale", actual=found.scale, expected=wanted.scale, tolerance=tolerance)
