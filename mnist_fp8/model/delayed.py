"""What delayed scaling makes of a tensor's metadata, by the oracle, in the installed release's way of storing them."""

import dataclasses

import numpy as np

from mnist_fp8 import te
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.oracle.dense import FORMATS, FP8_MAX, Meta, next_meta, next_meta_before_2_3


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


def following(meta: Meta, amax: float, tensor: str, recipe: RecipeConfig) -> Meta:
    """Metadata after a step that saw an amax of ``x``, ``kernel`` or ``grad``."""
    step = next_meta if te.metadata_dialect().stores_next_scale else next_meta_before_2_3
    fp8_max = FP8_MAX[FORMATS[recipe.fp8_format or "HYBRID"][tensor]]
    return step(meta, amax, fp8_max=fp8_max, margin=recipe.margin or 0, algo=recipe.amax_compute_algo or "max")


def scale_in_use(meta: Meta, tensor: str, recipe: RecipeConfig) -> np.float32:
    """What a step multiplies a tensor by that is given some metadata."""
    return meta.scale if te.metadata_dialect().stores_next_scale else following(meta, 0.0, tensor, recipe).scale
