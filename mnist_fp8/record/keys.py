"""The keys of what can be measured.

A key reads ``area/subject/what``, such as ``numerics/DelayedScaling/output against float64``, and that of a layer as
`Key` says.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self, TypeVar

from mnist_fp8.core.patterns import matches

Value = TypeVar("Value")

AREAS = {
    "claims": "the suite's claims",
    "uses": "what your code uses of Transformer Engine",
    "api": "names and signatures that users import",
    "package": "what the package asks for and says of itself",
    "recipes": "recipes that run here",
    "variables": "variables of a model, as checkpoints store them",
    "checkpoints": "checkpoints that the old release wrote, restored",
    "metadata": "amax histories and scales, step by step",
    "float8": "float8 in jaxprs and compiled programs",
    "numerics": "errors of outputs and gradients",
    "bits": "quantized tensors, to the bit",
    "special": "zeros, infinities, NaN, tiny and huge numbers",
    "behaviour": "what layers and contexts do",
    "layers": "what the layers beside the dense one are and compute",
    "training": "training curves",
    "warnings": "warnings and deprecations",
    "import": "what the import does to its process",
    "costs": "times and memory, for information",
}
"""All areas in the order of reports, with what they hold."""

NOT_MEASURED = ("claims", "uses")
"""Areas without entries in a record: claims have a place of their own, and uses are found in a user's sources."""

RESOLVER = "package/resolver"
"""The key of what a resolver says of one side beside the JAX, Flax and Python of the old one."""

OUTSIDE = "outside autocast"
"""The subject of what is computed without a recipe."""

BF16 = "BF16"
"""The name of what is computed without a recipe, in all other areas."""

LAYERS = "layers"
"""The area whose entries are of the kinds of other areas, for each layer."""


class Key(NamedTuple):
    """The parts of an entry's key.

    Attributes:
        area: one of `AREAS`.
        subject: a recipe, a mode, a kind; in the area of layers, a layer.
        case: of a layer, with which options; else empty.
        mode: what it was computed in, if anything: BF16 or a recipe.
        kind: the area whose entries are alike: the area itself but for layers.
        name: the rest.
    """

    area: str
    subject: str
    case: str
    mode: str
    kind: str
    name: str

    @classmethod
    def of(cls, key: str) -> Self:
        """The parts of a key: ``layers/LayerNormMLP/gelu/BF16/numerics/errors``, or ``numerics/BF16/output``."""
        area, subject, *rest = key.split("/")
        if area != LAYERS:
            return cls(area, subject, "", subject, area, "/".join(rest))
        case, *rest = rest or [""]
        if len(rest) < 3:  # noqa: PLR2004 - of a case as a whole, or of a mode that failed
            return cls(area, subject, case, "".join(rest[:1]), area, "/".join(rest))
        return cls(area, subject, case, rest[0], rest[1], "/".join(rest[2:]))


def covers(pattern: str, key: str) -> bool:
    """Whether a pattern names an entry: its key, the beginning of it up to a slash, or words with ``*``."""
    return matches(pattern, key) or key.startswith(pattern.rstrip("/") + "/")


def covered(entries: Mapping[str, Value], patterns: Sequence[str]) -> dict[str, Value]:
    """The entries that some patterns name, in their order."""
    return {key: value for key, value in entries.items() if any(covers(each, key) for each in patterns)}
