"""What becomes of each leaf of a checkpoint on the way from one release to another."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mnist_fp8.checkpoints import metadata, parameters
from mnist_fp8.checkpoints.formats import Crossing
from mnist_fp8.checkpoints.metadata import Mlps, Recipe
from mnist_fp8.checkpoints.parameters import Parameters, Shapes
from mnist_fp8.checkpoints.tree import Leaves, NewLeaf, Path, Plan, text_of, without_box
from mnist_fp8.core.errors import ConfigError

_SHOWN = 3
"""Names in a sentence."""


@dataclasses.dataclass(frozen=True)
class Wishes:
    """What a checkpoint does not say.

    Attributes:
        recipe: what its metadata were made with.
        kernels: shapes that have to fit a kernel.
        like: shapes of all leaves under the new release, by their paths there. Where some of these end with a box,
            just these parameters get one.
        boxed: whether parameters are to be in boxes; ``None`` is as ``like`` has them, or as they are.
        mlps: which layers of two products are one function.
    """

    recipe: Recipe = dataclasses.field(default_factory=Recipe)
    kernels: Shapes = dataclasses.field(default_factory=dict)
    like: Shapes = dataclasses.field(default_factory=dict)
    boxed: bool | None = None
    mlps: Mlps = dataclasses.field(default_factory=Mlps)


def plan(leaves: Leaves, crossing: Crossing, wishes: Wishes) -> Plan:
    """Say what becomes of each leaf.

    Args:
        leaves: of the checkpoint.
        crossing: the releases.
        wishes: what the checkpoint does not say.

    Raises:
        ConfigError: something in it is unknown, or a wish does not fit it.
    """
    if () in leaves or not leaves:
        raise ConfigError("the checkpoint has no collections: expected a tree with params, at least")
    metadata.check_names(leaves, old=crossing.has_old_names, release=crossing.old)
    known = Parameters(leaves)
    _check(wishes, crossing, known)
    changes: dict[Path, NewLeaf] = {}
    notes = []
    if crossing.renames_metadata:
        changes |= metadata.renamed(leaves, wishes.recipe, wishes.mlps)
    if crossing.shapes_kernels:
        like = {path: shape for path, shape in wishes.like.items() if without_box(path)[-1] == "kernel"}
        shapes = {**like, **wishes.kernels}
        changes |= parameters.shaped_kernels(leaves, known, shapes)
        notes += _about_kernels(parameters.perhaps_flat(leaves, known, shapes))
    dropped = _dropped(leaves, crossing.gone_axes)
    boxes = _Boxes(wishes, crossing, known)
    new = [
        boxes.put(changes.get(path, NewLeaf(path, (path,), shape=leaf.shape)))
        for path, leaf in leaves.items()
        if path not in dropped
    ]
    _check_paths(new)
    if not dropped and not any(leaf.what for leaf in new):
        notes.append(f"nothing to change from TE {crossing.old} to {crossing.new}: the new checkpoint is a copy")
    return Plan(new, dropped, notes)


def _dropped(leaves: Leaves, gone: Mapping[str, str]) -> dict[Path, str]:
    """Leaves of the collections that are gone, each with the reason."""
    return {path: f"dropped: gone since {gone[key]}" for path in leaves for key in path if key in gone}


def _check(wishes: Wishes, crossing: Crossing, known: Parameters) -> None:
    """Refuse wishes that nothing would come of."""
    if wishes.boxed and not crossing.knows_boxes:
        raise ConfigError(f"--boxed, but TE {crossing.new} has no boxes: they came with 2.4")
    if wishes.kernels and not crossing.shapes_kernels:
        raise ConfigError(f"--kernel, but kernels keep their shape from TE {crossing.old} to {crossing.new}")
    for path in wishes.kernels:
        if not known.matching(path):
            raise ConfigError(f"--kernel {text_of(path)} names no parameter of the checkpoint")


def _about_kernels(names: Sequence[Path]) -> list[str]:
    if not names:
        return []
    some = ", ".join(map(text_of, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
    right = f"kernels that keep their shape: {len(names)} ({some}); right where one axis is contracted"
    return [f"{right}, but a kernel with several was flat before 2.1 and needs --kernel PATH=AxBxC or --like FILE"]


class _Boxes:
    """Which parameters are to be in boxes.

    Args:
        wishes: of the user.
        crossing: the releases.
        known: parameters of the checkpoint.
    """

    def __init__(self, wishes: Wishes, crossing: Crossing, known: Parameters) -> None:
        self._known = known
        self._all = wishes.boxed
        in_boxes = [path for path in wishes.like if path != without_box(path)]
        self._some = {name for path in in_boxes for name in known.matching(path)}
        if crossing.drops_boxes and wishes.boxed is None and not self._some:
            self._all = False

    def put(self, leaf: NewLeaf) -> NewLeaf:
        """A new leaf with or without its box. Nothing without an array has one."""
        wanted = self._all
        if wanted is None and self._some:
            wanted = self._known.name_of(leaf.path) in self._some
        path = leaf.path if leaf.shape is None else parameters.boxed(leaf.path, self._known, wanted=wanted)
        if path == leaf.path:
            return leaf
        what = "into a box" if wanted else "out of its box"
        return dataclasses.replace(leaf, path=path, what=f"{leaf.what}, {what}" if leaf.what else what)


def _check_paths(new: Collection[NewLeaf]) -> None:
    """Refuse two leaves at one place."""
    seen: dict[Path, Path] = {}
    for leaf in new:
        if leaf.path in seen:
            both = f"{text_of(seen[leaf.path])} and {text_of(leaf.sources[0])}"
            raise ConfigError(f"{both} would both become {text_of(leaf.path)}: the checkpoint mixes two formats")
        seen[leaf.path] = leaf.sources[0]


def document(plan: Plan, crossing: Crossing, wishes: Wishes) -> Mapping[str, Any]:
    """What was done, as JSON can hold it."""
    return {
        "from": crossing.old,
        "to": crossing.new,
        "recipe": dataclasses.asdict(wishes.recipe) if crossing.renames_metadata else None,
        "mlps": dataclasses.asdict(wishes.mlps) if crossing.renames_metadata else None,
        "changed": [
            {"leaf": text_of(leaf.sources[0]), "new": text_of(leaf.path), "what": leaf.what} for leaf in plan.changed
        ],
        "dropped": [{"leaf": text_of(path), "what": what} for path, what in plan.dropped.items()],
        "untouched": len(plan.leaves) - len(plan.changed),
        "notes": list(plan.notes),
    }
