"""How far what a layer of a model computed and kept is from what it must be."""

import dataclasses
import math

import numpy as np

from mnist_fp8.model.delayed import Kept
from mnist_fp8.oracle.dense import Array


@dataclasses.dataclass(frozen=True)
class Error:
    """How far a tensor of a call is off its prediction.

    Attributes:
        tensor: what it is.
        size: norm of the prediction.
        off: norm of the difference; infinite where the tensor is not finite.
        allowed: norm of the largest difference that rounding explains.
    """

    tensor: str
    size: float
    off: float
    allowed: float

    @property
    def in_tolerances(self) -> float:
        """The error in units of what rounding explains."""
        return self.off / self.allowed if self.allowed else (math.inf if self.off else 0.0)


def error(tensor: str, found: Array, wanted: Array, tolerance: float, more: float = 0.0) -> Error:
    """The error of a tensor.

    Args:
        tensor: what it is.
        found: what a layer computed.
        wanted: the prediction, float64, of the same shape.
        tolerance: largest relative norm of a difference that rounding explains.
        more: norm of a difference that something beside explains.
    """
    size, off = float(np.linalg.norm(wanted)), float(np.linalg.norm(found.astype(np.float64) - wanted))
    return Error(tensor, size, off if math.isfinite(off) else math.inf, size * tolerance + more)


@dataclasses.dataclass(frozen=True)
class Amax:
    """The amax that the metadata of a tensor have to note.

    Attributes:
        tensor: what it is of.
        kept: the metadata.
        value: float32.
        tolerance: largest relative difference that rounding explains.
    """

    tensor: str
    kept: Kept
    value: np.float32
    tolerance: float = 0.0


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What an oracle says of a call.

    Attributes:
        errors: of output and gradients; none where no oracle predicts them.
        amaxes: those that the oracle knows, of the metadata that the call keeps.
    """

    errors: tuple[Error, ...]
    amaxes: tuple[Amax, ...]
