"""What each dense layer of a model computed, held to the oracle on the tensors that it saw; and their metadata."""

import dataclasses
import math
from collections.abc import Iterable, Iterator

import numpy as np

from mnist_fp8 import te
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.model.case import Factory
from mnist_fp8.model.delayed import Kept, following
from mnist_fp8.model.dense_calls import DenseCall, dense_call, expected
from mnist_fp8.model.metadata import positions
from mnist_fp8.model.problems import Problem
from mnist_fp8.model.run import passes
from mnist_fp8.oracle.dense import FORMATS, FP8_MAX, Array, Product
from mnist_fp8.oracle.tolerances import product_norm_tolerance, scale_tolerance, unit_roundoff
from mnist_fp8.te.calls import Call


def numerics_problems(factory: Factory, recipe: RecipeConfig | None) -> list[Problem]:
    """Outputs and gradients of dense layers that are not the products of the operands that the recipe makes."""
    return [problem for call in passes(factory, recipe).calls for problem in call_problems(call, recipe)]


def metadata_problems(factory: Factory, recipe: RecipeConfig) -> list[Problem]:
    """Metadata that do not follow from what a layer saw, or that another recipe keeps."""
    return [problem for call in passes(factory, recipe).calls for problem in metadata_problems_of(call, recipe)]


def metadata_problems_of(call: Call, recipe: RecipeConfig | None) -> Iterator[Problem]:
    """The same of one call: that it keeps metadata if its recipe does, and what these are."""
    quantizes = any(product.quantized for product in call.site.products)
    keeps = any(True for _ in positions(call.inputs))
    if quantizes and recipe and keeps is not te.keeps_metadata(recipe):
        kind = "keeps FP8 metadata" if keeps else "keeps no FP8 metadata"
        yield Problem(
            str(call.site), f"{kind}, which {recipe.name} does{'' if not keeps else ' not'}: another recipe is in force"
        )
    matrices = dense_call(call, recipe)
    if recipe and matrices is not None:
        for kept in matrices.kept.values():
            yield from _kept_problems(str(call.site), kept, _amax(matrices, kept.tensor), recipe)


def layers_without_oracle(factory: Factory, recipe: RecipeConfig | None) -> set[str]:
    """The layers that are called in a model, and whose numbers nothing here predicts."""
    calls = passes(factory, recipe).calls
    return {str(call.site) for call in calls if not list(_errors(call, recipe))}


def errors_in_tolerances(calls: Iterable[Call], recipe: RecipeConfig | None) -> dict[str, float]:
    """The largest error of each tensor of each predicted layer, in units of what rounding explains."""
    largest = dict[str, float]()
    for call in calls:
        for error in _errors(call, recipe):
            name = f"{call.site} {error.tensor}"
            largest[name] = max(largest.get(name, 0.0), error.in_tolerances)
    return dict(sorted(largest.items()))


@dataclasses.dataclass(frozen=True)
class _Error:
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
        return self.off / self.allowed if self.allowed else (math.inf if self.off else 0.0)


def _errors(call: Call, recipe: RecipeConfig | None) -> Iterator[_Error]:
    """The errors of output and gradients; none where no oracle predicts them."""
    matrices = dense_call(call, recipe)
    wanted = expected(matrices, recipe) if matrices is not None else None
    if matrices is None or wanted is None:
        return
    dtype = str(call.outputs[0].dtype)
    bias = np.zeros(1) if matrices.bias is None else matrices.bias.astype(np.float64)
    # The sum with a bias is rounded once more, and so is the bias.
    of_bias = 0.0 if matrices.bias is None else 2 * unit_roundoff(dtype)
    output = matrices.y.astype(np.float64) - bias
    sizes = float(np.hypot(np.linalg.norm(wanted.y.value), np.linalg.norm(np.broadcast_to(bias, output.shape))))
    yield _error("output", output, wanted.y, _tolerance(wanted.y, dtype, recipe), of_bias * sizes)
    for name, found, due in (
        ("gradient of the input", matrices.dx, wanted.dx),
        ("gradient of the kernel", matrices.dkernel, wanted.dkernel),
    ):
        yield _error(name, found.astype(np.float64), due, _tolerance(due, dtype, recipe))


def _error(tensor: str, found: Array, wanted: Product, tolerance: float, more: float = 0.0) -> _Error:
    size, off = float(np.linalg.norm(wanted.value)), float(np.linalg.norm(found - wanted.value))
    return _Error(tensor, size, off if np.isfinite(off) else math.inf, size * tolerance + more)


def call_problems(call: Call, recipe: RecipeConfig | None) -> Iterator[Problem]:
    """The same of one call."""
    for error in _errors(call, recipe):
        if error.in_tolerances > 1:
            explained = f"rounding explains {error.allowed:.3g}, of a norm of {error.size:.3g}"
            yield Problem(str(call.site), f"{error.tensor} is off by a norm of {error.off:.3g}; {explained}")


def _tolerance(wanted: Product, dtype: str, recipe: RecipeConfig | None) -> float:
    if not np.any(wanted.value):
        return 0.0
    # Of the product, before and after its scales are undone; before 2.5, of each operand as well.
    roundings = 5 if recipe and te.leaves_float8_to_xla() else 3
    return product_norm_tolerance(wanted, dtype, te.engine().kind, roundings=roundings, fp8=recipe is not None)


def _amax(matrices: DenseCall, tensor: str) -> np.float32:
    numbers: Array = getattr(matrices, tensor)
    return np.float32(np.max(np.abs(numbers.astype(np.float32))))


def _kept_problems(where: str, kept: Kept, amax: np.float32, recipe: RecipeConfig) -> Iterator[Problem]:
    wanted = following(kept.given, float(amax), kept.tensor, recipe)
    if not np.array_equal(kept.returned.history, wanted.history):
        found, due = (", ".join(f"{number:.6g}" for number in meta.history) for meta in (kept.returned, wanted))
        yield Problem(where, f"amax history of {kept.tensor} is [{found}]; expected [{due}]")
    difference = abs(float(kept.returned.scale) - float(wanted.scale))
    if not difference <= scale_tolerance(float(wanted.scale), te.engine().kind):
        largest = FP8_MAX[FORMATS[recipe.fp8_format or "HYBRID"][kept.tensor]]
        due = f"expected {wanted.scale:.6g}, from {largest:.0f} and the largest amax"
        yield Problem(where, f"scale of {kept.tensor} is {kept.returned.scale:.6g}; {due}")
