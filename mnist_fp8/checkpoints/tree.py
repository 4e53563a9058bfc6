"""What a checkpoint is here: leaves by their paths; and how a new one is made of them."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]

Path = tuple[str, ...]
"""Keys from the root to a leaf, such as ``("params", "out", "kernel")``."""

BOX = "value"
"""The level that a box (`flax.linen.LogicallyPartitioned`) adds below its parameter."""


@dataclasses.dataclass(frozen=True)
class Leaf:
    """What is known of a leaf without reading it.

    Attributes:
        shape: of its array; ``None`` where there is none, as in an empty dictionary or a text.
    """

    shape: tuple[int, ...] | None


Leaves = Mapping[Path, Leaf]
"""The leaves of a checkpoint in their order, by path."""


@dataclasses.dataclass(frozen=True)
class NewLeaf:
    """A leaf of the new checkpoint.

    Attributes:
        path: in the new checkpoint.
        sources: paths of the leaves that it is made of, in the old one.
        what: what changed, in words; empty where nothing did.
        make: makes its array of theirs; ``None`` takes over the first one, to the bit.
        shape: of its array.
    """

    path: Path
    sources: tuple[Path, ...]
    what: str = ""
    make: Callable[..., Array] | None = None
    shape: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a new checkpoint is made.

    Attributes:
        leaves: of the new one, in its order.
        dropped: what is not taken over, with the reason.
        notes: what a person has to know besides, each a sentence.
    """

    leaves: Sequence[NewLeaf]
    dropped: Mapping[Path, str]
    notes: Sequence[str]

    @property
    def changed(self) -> list[NewLeaf]:
        """The leaves that are not what they were."""
        return [leaf for leaf in self.leaves if leaf.what]


def text_of(path: Path) -> str:
    """A path as it is printed: a slash in a key has a backslash before it."""
    return "/".join(re.sub(r"([/\\])", r"\\\1", key) for key in path)


def path_of(text: str) -> Path:
    """A path as it is printed, read."""
    keys = re.findall(r"((?:\\.|[^/\\])*)(?:/|$)", text.strip("/"))[:-1]
    return tuple(re.sub(r"\\(.)", r"\1", key) for key in keys)


def without_box(path: Path) -> Path:
    """A path without the level that a box may add."""
    return path[:-1] if len(path) > 1 and path[-1] == BOX else path


def ends_with(path: Path, suffix: Path) -> bool:
    """Whether a path ends with another one."""
    return path[len(path) - len(suffix) :] == suffix if len(path) >= len(suffix) else False


def siblings(paths: Iterable[Path]) -> dict[Path, list[Path]]:
    """Paths by what they are in, boxes not counted."""
    found: dict[Path, list[Path]] = {}
    for path in paths:
        found.setdefault(without_box(path)[:-1], []).append(path)
    return found
