"""Which recipes run, and the variables that a model has under each, as a checkpoint stores them."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax import serialization

from mnist_fp8 import te
from mnist_fp8.measure.common import modes
from mnist_fp8.record.entries import Support, Text, Value
from mnist_fp8.te.dense_step import on_device
from mnist_fp8.te.quantizers import is_quantizers, named_leaves


def probes() -> Mapping[str, Callable[[], Mapping[str, Value]]]:
    """Measurements by the beginning of their keys."""
    trees = {f"variables/{name}": functools.partial(_tree, name) for name in modes()}
    return {"recipes": _support, **trees}


def _support() -> dict[str, Value]:
    return {
        f"recipes/{name}/support": Support(support.ok, support.reason)
        for name, support in te.support_by_recipe().items()
    }


def _tree(name: str) -> dict[str, Value]:
    """A layer over one axis and one over two: their variables as Flax writes them down, boxes included."""
    mode = modes()[name]
    entries: dict[str, Value] = {}
    for layer, fields in (("dense", {}), ("dense over two axes", {"axis": (-2, -1)})):
        module = te.engine().module.flax.DenseGeneral(features=32, **fields)
        x = on_device(np.ones((32, 2, 32) if fields else (32, 32)), "bfloat16")
        rngs = {"params": jax.random.key(0), "sr_rng": jax.random.key(0)}
        with mode():
            variables = jax.eval_shape(module.init, rngs, x)
        for path, leaf in leaves(variables).items():
            collection, _, rest = path.partition("/")
            entries[f"variables/{name}/{collection}/{layer}/{rest}"] = Text(leaf)
    return entries


def leaves(variables: Any) -> dict[str, str]:  # noqa: ANN401 - a tree
    """Dtype and shape of each leaf of some variables by its path, as Flax writes them down, boxes included."""
    return dict(_leaves(serialization.to_state_dict(variables)))


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, str]]:  # noqa: ANN401 - a state dictionary
    if isinstance(tree, Mapping) and tree:
        for name, value in tree.items():
            yield from _leaves(value, f"{path}/{name}".lstrip("/"))
    elif is_quantizers(tree):  # which Flax does not know
        yield from _leaves(dict(named_leaves(tree)), path)
    else:  # what holds no array, such as the names of a parameter's axes, is written down as an empty dictionary
        yield path, f"{tree.dtype}{list(tree.shape)}" if hasattr(tree, "dtype") else str(tree)
