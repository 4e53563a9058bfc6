"""The FP8 metadata in any tree: found by TE's own names, and told apart by their values."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mnist_fp8 import te
from mnist_fp8.model import drawing
from mnist_fp8.oracle.dense import Array
from mnist_fp8.te.quantizers import is_quantizers, named_leaves


@dataclasses.dataclass(frozen=True)
class Leaf:
    """Scale or amax history of a tensor; of a stack of layers, all of theirs.

    Attributes:
        path: in the tree, such as ``fp8_metas/dense/x_scale``.
        owner: what a scale and its history have in common: layer, tensor, and the number of the product.
        tensor: ``x``, ``kernel`` or ``grad``.
        is_scale: whether it is a scale; else a history.
        value: one number for each layer of a stack, or as many as the history is long.
        axis: of the numbers of a layer; the others are those of a stack of layers.
    """

    path: str
    owner: tuple[str, ...]
    tensor: str
    is_scale: bool
    value: Any
    axis: int = -1

    def rows(self) -> Array:
        """One row for each layer of a stack, float32.

        Raises:
            RuntimeError: JAX's own, where the array was donated.
        """
        numbers = np.moveaxis(np.asarray(self.value).astype(np.float32), self.axis, -1)
        return numbers.reshape(-1, numbers.shape[-1])


def leaves(tree: Any) -> dict[str, Leaf]:  # noqa: ANN401
    """The metadata in a tree, by path. A scale without an amax history beside it is somebody else's."""
    read = (_read(names, value) for names, value in named(tree))
    known = [leaf for leaf in read if leaf]
    shapes = {(leaf.owner, leaf.is_scale): np.shape(leaf.value) for leaf in known}
    whole = [leaf for leaf in known if {(leaf.owner, True), (leaf.owner, False)} <= shapes.keys()]
    return {leaf.path: dataclasses.replace(leaf, axis=_axis(leaf.owner, shapes)) for leaf in whole}


def _axis(owner: tuple[str, ...], shapes: Mapping[tuple[tuple[str, ...], bool], tuple[int, ...]]) -> int:
    """The axis in which a scale and its history differ; the last one where a history is of one step."""
    sizes = zip(shapes[owner, True], shapes[owner, False], strict=False)
    return next((number for number, (scale, history) in enumerate(sizes) if scale != history), -1)


def _read(names: tuple[str, ...], value: Any) -> Leaf | None:  # noqa: ANN401
    for position in reversed(range(len(names))):
        meaning = te.read_leaf(names[position])
        if meaning and np.ndim(value):
            tensor, number, is_scale = meaning
            return Leaf("/".join(names), (*names[:position], tensor, number), tensor, is_scale, value)
    return None


def named(tree: Any) -> Iterator[tuple[tuple[str, ...], Any]]:  # noqa: ANN401
    """The leaves of a tree in JAX's order, each with the names on the way to it.

    In TE's quantizers, which name nothing, metadata have the names that they have in a collection of Flax.
    """
    for path, node in jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_quantizers)[0]:
        names = tuple(map(_name, path))
        if is_quantizers(node):
            yield from (((*names, name), leaf) for name, leaf in named_leaves(node))
        else:
            yield names, node


def by_path(tree: Any) -> dict[str, Any]:  # noqa: ANN401
    """Leaves of a tree by where they are, as `Leaf` names it."""
    return {"/".join(names): value for names, value in named(tree)}


def replaced(tree: Any, change: Callable[[str, Any], Any]) -> Any:  # noqa: ANN401
    """A tree with other leaves.

    Args:
        tree: any.
        change: gives a leaf, of its path and what is there.
    """
    leaves = [change("/".join(names), value) for names, value in named(tree)]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def _name(key: Any) -> str:  # noqa: ANN401 - one of JAX's kinds of keys
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


# --- told apart ----------------------------------------------------------------------------------------------------


def tagged(tree: Any) -> Any:  # noqa: ANN401
    """A tree whose metadata are random numbers, so that each can be told from all others by its value."""
    known = leaves(tree)

    def tag(path: str, value: Any) -> Any:  # noqa: ANN401
        leaf = known.get(path)
        return value if leaf is None else jnp.asarray(_random(leaf), np.asarray(value).dtype)

    return replaced(tree, tag)


_LARGE = 1024.0
"""What scales of gradients are multiplied by: those of a mean over a batch are small."""


def _random(leaf: Leaf) -> Array:
    numbers = drawing.by_name(leaf.path).uniform(0.5, 2.0, np.shape(leaf.value))
    large = leaf.tensor == "grad"
    factor = (_LARGE if leaf.is_scale else 1 / _LARGE) if large else 1.0
    return (numbers * factor).astype(np.float32)


class Pair(NamedTuple):
    """Scale and amax history of a tensor of one layer, float32: together they are no other tensor's."""

    scale: Array
    history: Array

    @property
    def key(self) -> tuple[bytes, bytes]:
        """What equal ones have in common."""
        return self.scale.tobytes(), self.history.tobytes()


Place = tuple[tuple[str, ...], int]
"""Owner of a scale and its history, and the row in a stack of layers."""


def pairs(tree: Any) -> dict[Place, Pair]:  # noqa: ANN401
    """The metadata in a tree, by what they belong to.

    Raises:
        RuntimeError: JAX's own, where an array was donated.
    """
    rows = {(leaf.owner, leaf.is_scale): leaf.rows() for leaf in leaves(tree).values()}
    return {
        (owner, number): Pair(scale.copy(), rows[owner, False][number].copy())
        for (owner, is_scale), scales in rows.items()
        if is_scale
        for number, scale in enumerate(scales)
    }


def positions(arguments: Sequence[Array]) -> Iterator[tuple[int, int]]:
    """Where the scales and histories of x, kernel and grad stand among the arguments of one of TE's functions."""
    flat = [n for n, array in enumerate(arguments) if array.ndim == 1 and array.dtype == np.float32]
    if te.metadata_dialect().stores_next_scale:  # a quantizer has its scale, then its history
        last = -1
        for n in flat:
            if n > last and arguments[n].shape == (1,) and n + 1 in flat:
                last = n + 1
                yield n, last
        return
    scales = [n for n in flat if arguments[n].shape == (1,)]  # the histories of all, then the scales of all
    histories = [n for n in flat if n not in scales]
    if len(histories) < len(scales):  # those of one step look like scales
        half = len(scales) // 2
        histories, scales = scales[:half], scales[half:]
    yield from zip(scales, histories[-len(scales) or None :], strict=False)
