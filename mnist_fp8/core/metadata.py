"""What Transformer Engine calls its FP8 metadata, and where they are kept."""

import dataclasses
import re
from collections.abc import Mapping
from typing import NamedTuple

METADATA_COLLECTIONS = ("fp8_metas", "_overwrite_with_gradient")
"""The collections: of its layers since 1.1, and of its wrapper of a product. There is nothing else in them."""


class MetadataName(NamedTuple):
    """What a name of metadata says.

    Attributes:
        tensor: ``x``, ``kernel`` or ``grad``.
        number: of the product, as it is written, such as ``_0``; empty where there is none.
        is_scale: whether it is a scale; else an amax history.
    """

    tensor: str
    number: str
    is_scale: bool


@dataclasses.dataclass(frozen=True)
class MetadataDialect:
    """How a release writes the metadata of a tensor.

    Attributes:
        tensors: the release's names of ``x``, ``kernel`` and ``grad``.
        scale: name of a scale, ``{tensor}`` and ``{number}`` standing for the tensor and the product's number.
        history: name of an amax history.
        only: what stands for the number of a layer's only product.
        numbers: pattern of what may stand for a number.
        stores_next_scale: the stored scale is for the next step, and the history's newest entry is its last. If not,
            it is the scale that the last step used, and the newest entry is the first.
        crosses_grads: where one function has two products, the metadata of their gradients have each other's number.
    """

    tensors: Mapping[str, str]
    scale: str
    history: str
    only: str
    numbers: str
    stores_next_scale: bool
    crosses_grads: bool

    def write(self, name: MetadataName) -> str:
        """A name as the release writes it."""
        form = self.scale if name.is_scale else self.history
        return form.format(tensor=self.tensors[name.tensor], number=name.number)

    def read(self, written: str) -> MetadataName | None:
        """What a name says; ``None`` where the release has no such name."""
        for tensor, own in self.tensors.items():
            for form, is_scale in ((self.scale, True), (self.history, False)):
                found = re.fullmatch(form.format(tensor=own, number=f"({self.numbers})"), written)
                if found:
                    return MetadataName(tensor, found[1], is_scale)
        return None


SINCE_2_3 = MetadataDialect(
    tensors={"x": "x", "kernel": "kernel", "grad": "grad"},
    scale="{tensor}{number}_scale",
    history="{tensor}{number}_amax_history",
    only="",
    numbers=r"(?:_\w+)?",
    stores_next_scale=True,
    crosses_grads=True,
)
SINCE_1_8 = MetadataDialect(
    tensors={"x": "i", "kernel": "w", "grad": "g"},
    scale="scale_{tensor}{number}",
    history="amax_{tensor}{number}",
    only="_0",
    numbers=r"_\d+",
    stores_next_scale=False,
    crosses_grads=False,
)
