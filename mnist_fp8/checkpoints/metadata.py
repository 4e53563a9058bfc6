"""FP8 metadata from before 2.3 as those of 2.3 and later.

Both derive the scale of a step from the same amaxes: 2.2 at the beginning of the step, 2.3 at the end of the one
before. So the scale that 2.3 stores is the one that 2.2 would derive next, from its whole history. In the history, the
newest amax goes from the first place to the last; the oldest, which neither would look at again, makes room.
"""

import dataclasses
import functools
import re

import numpy as np

from mnist_fp8.checkpoints.tree import Array, Leaves, NewLeaf, Path, siblings, text_of, without_box
from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.metadata import METADATA_COLLECTIONS
from mnist_fp8.core.patterns import matches
from mnist_fp8.oracle.dense import FORMATS, FP8_MAX, Meta, next_meta_before_2_3

_TENSORS = {"i": "x", "w": "kernel", "g": "grad"}
_OLD = re.compile(r"(?P<kind>amax|scale)_(?P<tensor>[iwg])_(?P<number>\d+)")
_NEW = re.compile(r"(x|kernel|grad)(_\w+)?_(scale|amax_history)")
_FLAX = re.compile(r"(input|kernel|output_grad)_(scale|amax_history)")
_TWO_PRODUCTS = {"0", "1"}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Options of ``DelayedScaling``; a checkpoint does not have them.

    Attributes:
        fp8_format: ``HYBRID`` or ``E4M3``.
        margin: as the recipe has it.
        algo: ``max`` or ``most_recent``.
    """

    fp8_format: str = "HYBRID"
    margin: int = 0
    algo: str = "max"


@dataclasses.dataclass(frozen=True)
class Mlps:
    """Whether each layer of two products (``LayerNormMLP``) makes both in one function; a checkpoint does not say it.

    Attributes:
        fused: patterns of paths of those that do.
        separate: the same of those that do not.
    """

    fused: tuple[str, ...] = ()
    separate: tuple[str, ...] = ()

    def is_fused(self, layer: Path) -> bool:
        """Whether a layer is one function.

        Raises:
            ConfigError: nothing says so, or both is said.
        """
        fused, separate = (
            any(matches(pattern, text_of(layer)) for pattern in patterns) for patterns in (self.fused, self.separate)
        )
        if fused == separate:
            raise ConfigError(
                f"{text_of(layer)} has the FP8 metadata of a LayerNormMLP; where that runs as one function, 2.3"
                " exchanges the numbers of its gradients: name it by --fused-mlp (return_layernorm_output=False, as"
                " in a TransformerLayer) or by --separate-mlp (return_layernorm_output=True), not by both"
            )
        return fused


def check_names(leaves: Leaves, *, old: bool, release: str) -> None:
    """Refuse metadata that a release does not have.

    Args:
        leaves: of the checkpoint.
        old: whether its names are those from before 2.3.
        release: the release.

    Raises:
        ConfigError: there are some.
    """
    for layer, paths in siblings(filter(_is_metadata, leaves)).items():
        names = [without_box(path)[-1] for path in paths]
        if "_overwrite_with_gradient" in layer and all(map(_FLAX.fullmatch, names)):
            continue  # Flax's own FP8 products
        for path, name in zip(paths, names, strict=True):
            if leaves[path].shape is not None and not (_OLD if old else _NEW).fullmatch(name):
                raise ConfigError(_unknown(path, name, release))


def _is_metadata(path: Path) -> bool:
    return any(key in METADATA_COLLECTIONS for key in path)


def _unknown(path: Path, name: str, release: str) -> str:
    line = f"{text_of(path)} is not a name that TE {release} gives to FP8 metadata"
    if _OLD.fullmatch(name):
        return f"{line}, but one from before 2.3: is --from right?"
    if _NEW.fullmatch(name):
        return f"{line}, but one of 2.3 and later: is --from right?"
    return f"{line}: nothing is known of it"


def renamed(leaves: Leaves, recipe: Recipe, mlps: Mlps) -> dict[Path, NewLeaf]:
    """The new leaf of each leaf of metadata from before 2.3.

    Args:
        leaves: of the checkpoint.
        recipe: what they were made with.
        mlps: which layers of two products are one function.

    Raises:
        ConfigError: those of a layer are not complete, do not fit together, or are of an unknown MLP.
    """
    new: dict[Path, NewLeaf] = {}
    for layer, paths in siblings(leaves).items():
        if found := _read(layer, paths, leaves):
            new |= _layer(layer, found, leaves, recipe, mlps)
    return new


_Names = dict[tuple[str, str, str], Path]
"""Paths of a layer's metadata by kind, tensor and number."""


def _read(layer: Path, paths: list[Path], leaves: Leaves) -> _Names:
    """The metadata among the leaves of a layer; none where somebody else's leaf has such a name."""
    matches = {path: _OLD.fullmatch(without_box(path)[-1]) for path in paths}
    found = {(m["kind"], m["tensor"], m["number"]): path for path, m in matches.items() if m}
    numbers = {number for _, _, number in found}
    wanted = {(kind, tensor, number) for kind in ("amax", "scale") for tensor in _TENSORS for number in numbers}
    if absent := wanted - found.keys():
        if not _is_metadata(layer):
            return {}
        raise ConfigError(
            f"{text_of(layer)} has FP8 metadata, but no {'_'.join(min(absent))}: the checkpoint is damaged"
        )
    for number in numbers:
        for tensor in _TENSORS:
            _check_shapes(found["amax", tensor, number], found["scale", tensor, number], leaves)
    return found


def _check_shapes(history: Path, scale: Path, leaves: Leaves) -> None:
    shape, expected = leaves[scale].shape, (*(leaves[history].shape or ())[:-1], 1)
    if shape != expected:
        raise ConfigError(
            f"{text_of(scale)} has the shape {shape}; expected {expected}, that of its amaxes but for the last"
        )


def _layer(layer: Path, found: _Names, leaves: Leaves, recipe: Recipe, mlps: Mlps) -> dict[Path, NewLeaf]:
    new = {}
    numbers = {number for _, _, number in found}
    crossed = numbers == _TWO_PRODUCTS and mlps.is_fused(layer)
    for (kind, letter, number), path in found.items():
        tensor, written = _TENSORS[letter], number
        note = ""
        if letter == "g" and crossed:
            # Where 2.3 and later make both products in one function, each gradient has the other one's number.
            (written,) = numbers - {number}
            note = ", the other product's number"
        postfix = "" if numbers == {"0"} else f"_{written}"
        ending = path[len(layer) + 1 :]
        fp8_max = FP8_MAX[FORMATS[recipe.fp8_format][tensor]]
        if kind == "amax":
            at = (*layer, f"{tensor}{postfix}_amax_history", *ending)
            what = f"renamed, rolled{note}"
            new[path] = NewLeaf(at, (path,), what, rolled, leaves[path].shape)
        else:
            at = (*layer, f"{tensor}{postfix}_scale", *ending)
            make = functools.partial(next_scale, fp8_max=fp8_max, recipe=recipe)
            what = f"renamed, the next scale{note}"
            new[path] = NewLeaf(at, (path, found["amax", letter, number]), what, make, leaves[path].shape)
    return new


def rolled(history: Array) -> Array:
    """An amax history as 2.3 has it; leading axes are those of stacked layers."""
    new = np.roll(history, -1, -1)
    new[..., 0] = 0
    return new


def next_scale(scale: Array, history: Array, *, fp8_max: float, recipe: Recipe) -> Array:
    """The scale that follows from a history as it was before 2.3; leading axes are those of stacked layers."""
    rows = zip(scale.reshape(-1), history.reshape(-1, history.shape[-1]), strict=True)
    metas = [Meta(np.float32(old), row.astype(np.float32)) for old, row in rows]
    algo, margin = recipe.algo, recipe.margin
    new = [next_meta_before_2_3(meta, 0.0, fp8_max=fp8_max, margin=margin, algo=algo).scale for meta in metas]
    return np.array(new, np.float32).reshape(scale.shape).astype(scale.dtype)
