"""Parameters, and whatever mirrors them, such as the moments of an optimizer: their boxes and the shapes of kernels."""

import functools
import math
from collections.abc import Iterable, Mapping

from mnist_fp8.checkpoints.tree import BOX, Array, Leaves, NewLeaf, Path, ends_with, text_of, without_box
from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.metadata import METADATA_COLLECTIONS

Shapes = Mapping[Path, tuple[int, ...]]
"""Shapes of kernels as a layer sees them, by their paths or by what these end with."""

_PARAMS = "params"
_AXES = ("params_axes", "fp8_metas_axes")


def is_axes(path: Path) -> bool:
    """Whether a leaf is in a collection of axes, as Transformer Engine once had them beside its own."""
    return any(key in _AXES for key in path)


class Parameters:
    """Which leaves are parameters, and which mirror one.

    Args:
        leaves: of the checkpoint.
    """

    def __init__(self, leaves: Leaves) -> None:
        own = [path for path in leaves if not is_axes(path) and not any(key in METADATA_COLLECTIONS for key in path)]
        roots = _roots(own)
        self._leaves = leaves
        self._by_name: dict[Path, Path] = {}
        for root in roots:
            for path in own:
                if path[: len(root)] == root:
                    self._by_name.setdefault(without_box(path)[len(root) :], path)

    def name_of(self, path: Path) -> Path | None:
        """Name of the parameter that a leaf is or mirrors: the longest that the leaf's path ends with."""
        plain = without_box(path)
        endings = (plain[start:] for start in range(len(plain)))
        return next((ending for ending in endings if ending in self._by_name), None)

    def shape_of(self, name: Path) -> tuple[int, ...]:
        """Shape of a parameter."""
        return self._leaves[self._by_name[name]].shape or ()

    def matching(self, path: Path) -> list[Path]:
        """Names of the parameters that a person means with a path, or with what it ends with."""
        plain = without_box(path)
        return [name for name, at in self._by_name.items() if ends_with(without_box(at), plain)]


def _roots(paths: Iterable[Path]) -> list[Path]:
    """Where parameters begin: below each ``params``, the innermost; everywhere if there is none.

    The nearest to the top is the first: others, as in an optimizer's state, mirror it.
    """
    found = {path[: at + 1] for path in paths for at, key in enumerate(path[:-1]) if key == _PARAMS}
    outer = {root[:at] for root in found for at in range(len(root))}
    return sorted(found - outer, key=len) or [()]


def boxed(path: Path, parameters: Parameters, *, wanted: bool | None) -> Path:
    """Path of a leaf with or without a box.

    Args:
        path: of the leaf.
        parameters: of the checkpoint.
        wanted: whether parameters are to be in boxes; ``None`` leaves them as they are.
    """
    if wanted is None or parameters.name_of(path) is None or any(key in METADATA_COLLECTIONS for key in path):
        return path
    plain = without_box(path)
    return (*plain, BOX) if wanted else plain


def shaped_kernels(leaves: Leaves, parameters: Parameters, shapes: Shapes) -> dict[Path, NewLeaf]:
    """The new leaf of each kernel whose shape changes, and of what mirrors it.

    Args:
        leaves: of the checkpoint.
        parameters: of the checkpoint.
        shapes: of the kernels.

    Raises:
        ConfigError: a shape does not fit, or what mirrors a kernel cannot be given another shape.
    """
    wanted = {name: shape for path, shape in shapes.items() for name in parameters.matching(path)}
    for name, shape in wanted.items():
        if math.prod(shape) != math.prod(parameters.shape_of(name)):
            raise ConfigError(f"{text_of(name)} has the shape {parameters.shape_of(name)}, which cannot become {shape}")
    new = {}
    for path, leaf in leaves.items():
        owner = parameters.name_of(path)
        if owner is None or owner not in wanted or leaf.shape in (None, wanted[owner]) or is_axes(path):
            continue
        if leaf.shape == parameters.shape_of(owner):
            make = functools.partial(_reshaped, shape=wanted[owner])
            new[path] = NewLeaf(path, (path,), f"{leaf.shape} reshaped to {wanted[owner]}", make, wanted[owner])
        elif math.prod(leaf.shape or ()) > 1:  # an optimizer keeps a single number where it keeps nothing
            raise ConfigError(
                f"{text_of(path)} of shape {leaf.shape} goes with a kernel that becomes {wanted[owner]}; what it would"
                " become is not known: save the checkpoint again without the optimizer's state"
            )
    return new


def _reshaped(array: Array, shape: tuple[int, ...]) -> Array:
    return array.reshape(shape)


def perhaps_flat(leaves: Leaves, parameters: Parameters, known: Iterable[Path]) -> list[Path]:
    """Kernels from before 2.1 that would have another shape if they had several contracted axes.

    Args:
        leaves: of the checkpoint.
        parameters: of the checkpoint.
        known: paths for which a shape was given.
    """
    named = {name for path in known for name in parameters.matching(path)}
    names = {name for path in leaves if (name := parameters.name_of(path)) and name[-1] == "kernel"}
    return sorted(names - named)
