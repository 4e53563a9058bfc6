"""FP8 metadata from before 2.3 as those of 2.3 and later.

Both derive the scale of a step from the same amaxes: 2.2 at the beginning of the step, 2.3 at the end of the one
before. So the scale that 2.3 stores is the one that 2.2 would derive next, from its whole history. In the history, the
newest amax goes from the first place to the last; the oldest, which neither would look at again, makes room.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from mnist_fp8.checkpoints.tree import Array, Leaves, NewLeaf, Path, siblings, text_of, without_box
from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.metadata import METADATA_COLLECTIONS, SINCE_1_8, SINCE_2_3, MetadataName
from mnist_fp8.core.patterns import matches
from mnist_fp8.oracle.dense import FORMATS, FP8_MAX, Meta, next_meta_before_2_3

_FLAX = re.compile(r"(input|kernel|output_grad)_(scale|amax_history)")
_TWO_PRODUCTS = {"_0", "_1"}


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
        if _is_flax_own(layer, paths):
            continue
        for path in paths:
            if leaves[path].shape is not None and not (SINCE_1_8 if old else SINCE_2_3).read(_name(path)):
                raise ConfigError(_unknown(path, release))


def _name(path: Path) -> str:
    return without_box(path)[-1]


def _is_metadata(path: Path) -> bool:
    return any(key in METADATA_COLLECTIONS for key in path)


def _is_flax_own(layer: Path, paths: Iterable[Path]) -> bool:
    """Whether metadata are those of Flax's own FP8 products."""
    return "_overwrite_with_gradient" in layer and all(_FLAX.fullmatch(_name(path)) for path in paths)


def _unknown(path: Path, release: str) -> str:
    line = f"{text_of(path)} is not a name that TE {release} gives to FP8 metadata"
    if SINCE_1_8.read(_name(path)):
        return f"{line}, but one from before 2.3: is --from right?"
    if SINCE_2_3.read(_name(path)):
        return f"{line}, but one of 2.3 and later: is --from right?"
    return f"{line}: nothing is known of it"


def check_numbers(leaves: Leaves, read: Callable[[Path], Array]) -> list[str]:
    """Refuse metadata whose numbers no run of Transformer Engine leaves.

    Args:
        leaves: of the checkpoint, with names that `check_names` does not refuse.
        read: reads a leaf.

    Returns:
        What a person has to know of them, each a sentence.

    Raises:
        ConfigError: some are not float32, or a scale is not a finite number above zero.
    """
    overflown = []
    for path, name in _of_te(leaves):
        numbers = read(path)
        if numbers.dtype != np.float32:
            raise ConfigError(
                f"{text_of(path)} is {numbers.dtype}, but TE keeps FP8 metadata in float32: they were cast;"
                " save the checkpoint again without that"
            )
        finite = np.isfinite(numbers)
        if name.is_scale and not (finite & (numbers > 0)).all():
            wrong = numbers[~(finite & (numbers > 0))].flat[0]
            raise ConfigError(f"{text_of(path)} has {wrong:g}, but a scale is a finite number above zero")
        if not finite.all():
            overflown.append(text_of(path))
    if not overflown:
        return []
    some = f"{len(overflown)} (such as {overflown[0]})"
    return [f"amax histories with infinities or NaN: {some}; as long as they have them, TE keeps the scale"]


def _of_te(leaves: Leaves) -> Iterator[tuple[Path, MetadataName]]:
    """The metadata of Transformer Engine's own products, and what their names say."""
    for layer, paths in siblings(filter(_is_metadata, leaves)).items():
        for path in () if _is_flax_own(layer, paths) else paths:
            name = SINCE_1_8.read(_name(path)) or SINCE_2_3.read(_name(path))
            if name and leaves[path].shape is not None:
                yield path, name


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


_Names = dict[MetadataName, Path]
"""Paths of a layer's metadata by what their names say."""


def _read(layer: Path, paths: list[Path], leaves: Leaves) -> _Names:
    """The metadata among the leaves of a layer; none where somebody else's leaf has such a name."""
    found = {name: path for path in paths if (name := SINCE_1_8.read(_name(path)))}
    numbers = {name.number for name in found}
    wanted = {
        MetadataName(tensor, number, is_scale)
        for tensor in SINCE_1_8.tensors
        for number in numbers
        for is_scale in (False, True)
    }
    if absent := wanted - found.keys():
        if not _is_metadata(layer):
            return {}
        lacking = min(map(SINCE_1_8.write, absent))
        raise ConfigError(f"{text_of(layer)} has FP8 metadata, but no {lacking}: the checkpoint is damaged")
    for name, path in found.items():
        if not name.is_scale:
            _check_shapes(path, found[name._replace(is_scale=True)], leaves)
    return found


def _check_shapes(history: Path, scale: Path, leaves: Leaves) -> None:
    shape, expected = leaves[scale].shape, (*(leaves[history].shape or ())[:-1], 1)
    if shape != expected:
        raise ConfigError(
            f"{text_of(scale)} has the shape {shape}; expected {expected}, that of its amaxes but for the last"
        )


def _layer(layer: Path, found: _Names, leaves: Leaves, recipe: Recipe, mlps: Mlps) -> dict[Path, NewLeaf]:
    new = {}
    numbers = {name.number for name in found}
    crossed = numbers == _TWO_PRODUCTS and mlps.is_fused(layer)
    for name, path in found.items():
        number = SINCE_2_3.only if numbers == {SINCE_1_8.only} else name.number
        note = ""
        if name.tensor == "grad" and crossed:
            # Where 2.3 and later make both products in one function, each gradient has the other one's number.
            (number,) = numbers - {name.number}
            note = ", the other product's number"
        at = (*layer, SINCE_2_3.write(name._replace(number=number)), *path[len(layer) + 1 :])
        if name.is_scale:
            fp8_max = FP8_MAX[FORMATS[recipe.fp8_format][name.tensor]]
            make = functools.partial(next_scale, fp8_max=fp8_max, recipe=recipe)
            sources = path, found[name._replace(is_scale=False)]
            new[path] = NewLeaf(at, sources, f"renamed, the next scale{note}", make, leaves[path].shape)
        else:
            new[path] = NewLeaf(at, (path,), f"renamed, rolled{note}", rolled, leaves[path].shape)
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
