"""What delayed scaling makes of a tensor's metadata, by the oracle, in the installed release's way of storing them."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mnist_fp8 import te
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.model.metadata import positions
from mnist_fp8.oracle.dense import FP8_MAX, Meta, formats_of, next_meta, next_meta_before_2_3
from mnist_fp8.te.calls import Call


@dataclasses.dataclass(frozen=True)
class Kept:
    """What a call was given for a tensor, and what it returned for the next step.

    Attributes:
        tensor: ``x``, ``kernel`` or ``grad``.
        given: before the call.
        returned: after it.
    """

    tensor: str
    given: Meta
    returned: Meta


def kept_from(call: Call, first: int, tensors: Sequence[str], recipe: RecipeConfig | None) -> list[Kept]:
    """The metadata among a call's arguments, the ``first`` of them left out.

    Args:
        call: of a layer.
        first: arguments that cannot be metadata.
        tensors: what they are of, in their order.
        recipe: in force.

    Returns:
        One for each tensor; none where the recipe keeps none, or there are others than these.
    """
    if recipe is None or recipe.amax_history_len is None:
        return []
    places, sides = list(positions(call.inputs[first:])), (call.inputs[first:], call.d_inputs[first:])
    if len(places) != len(tensors):
        return []
    return [
        Kept(tensor, *(Meta(np.float32(side[scale][0]), side[history]) for side in sides))
        for tensor, (scale, history) in zip(tensors, places, strict=True)
    ]


def newest(meta: Meta) -> float:
    """The newest amax of a history."""
    return float(meta.history[-1 if te.metadata_dialect().stores_next_scale else 0])


def following(meta: Meta, amax: float, tensor: str, recipe: RecipeConfig) -> Meta:
    """Metadata after a step that saw an amax of ``x``, ``kernel`` or ``grad``."""
    step = next_meta if te.metadata_dialect().stores_next_scale else next_meta_before_2_3
    fp8_max = FP8_MAX[formats_of(recipe)[tensor]]
    return step(meta, amax, fp8_max=fp8_max, margin=recipe.margin or 0, algo=recipe.amax_compute_algo or "max")


def scale_in_use(meta: Meta, tensor: str, recipe: RecipeConfig) -> np.float32:
    """What a step multiplies a tensor by that is given some metadata."""
    return meta.scale if te.metadata_dialect().stores_next_scale else following(meta, 0.0, tensor, recipe).scale
