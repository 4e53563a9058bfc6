"""The calls of TE's dense layers in a model, as the matrices that they multiply, and what they must compute."""

import dataclasses
import math
from collections.abc import Iterator, Mapping

import numpy as np

from mnist_fp8 import te
from mnist_fp8.core.modes import BLOCK_SCALED, RecipeConfig
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.model.delayed import Kept, kept_from, scale_in_use
from mnist_fp8.model.judgement import Amax, Error, Judgement, error
from mnist_fp8.oracle.blocks import BlockDense
from mnist_fp8.oracle.dense import TENSORS, Array, DensePasses, Product, current_scales, dense, fp8_dense
from mnist_fp8.oracle.tolerances import product_norm_tolerance, unit_roundoff
from mnist_fp8.te.calls import Call


@dataclasses.dataclass(frozen=True)
class DenseCall:
    """One call. All are matrices: x and y with rows, the kernel with columns.

    Attributes:
        x: input, (M, K).
        kernel: (K, N).
        grad: gradient of the output, (M, N).
        bias: (N,); none where the layer has none.
        y: output, (M, N).
        dx: gradient of the input, (M, K).
        dkernel: (K, N).
        kept: the metadata, by tensor; empty where the recipe keeps none.
    """

    x: Array
    kernel: Array
    grad: Array
    bias: Array | None
    y: Array
    dx: Array
    dkernel: Array
    kept: Mapping[str, Kept]


_DENSE = ("dense", "dot", "fp8_dot")
"""TE's functions that multiply x by a kernel and do nothing before; ``fp8_dot`` until 2.2."""


def dense_call(call: Call, recipe: RecipeConfig | None) -> DenseCall | None:
    """A call as matrices; ``None`` where it is not x times kernel over x's last and the kernel's first axes."""
    if call.site.function not in _DENSE:
        return None
    x, kernel, *others = call.inputs
    contracted = next(_contracted(x, kernel, call.outputs[0]), None)
    if contracted is None:
        return None
    inner, columns = math.prod(kernel.shape[:contracted]), math.prod(kernel.shape[contracted:])
    bias = others[0] if others and others[0].shape == kernel.shape[contracted:] and columns > 1 else None
    rows = (-1, columns)
    return DenseCall(
        x=x.reshape(-1, inner),
        kernel=kernel.reshape(inner, columns),
        grad=call.d_outputs[0].reshape(rows),
        bias=None if bias is None else bias.reshape(-1),
        y=call.outputs[0].reshape(rows),
        dx=call.d_inputs[0].reshape(-1, inner),
        dkernel=call.d_inputs[1].reshape(inner, columns),
        kept={kept.tensor: kept for kept in kept_from(call, 2 + (bias is not None), TENSORS, recipe)},
    )


def _contracted(x: Array, kernel: Array, y: Array) -> Iterator[int]:
    """How many axes a product sums over, as far as the shapes allow it."""
    for count in range(1, min(x.ndim, kernel.ndim)):
        if x.shape[-count:] == kernel.shape[:count] and y.shape == (*x.shape[:-count], *kernel.shape[count:]):
            yield count


def judged(call: Call, recipe: RecipeConfig | None) -> Judgement | None:
    """What the oracle says of a call of a dense layer; ``None`` where it is none."""
    matrices = dense_call(call, recipe)
    if matrices is None:
        return None
    wanted = expected(matrices, recipe)
    errors = tuple(_errors(matrices, wanted, recipe)) if wanted else ()
    if (
        recipe
        and recipe.name == "Float8CurrentScaling"
        and te.engine().kind is RunKind.KERNEL
        and any(error.in_tolerances > 1 for error in errors)
    ):
        errors = tuple(_errors(matrices, by_amaxes_before_rounding(matrices, recipe), recipe))
    amaxes = (Amax(tensor, kept, _amax(getattr(matrices, tensor))) for tensor, kept in matrices.kept.items())
    return Judgement(errors, tuple(amaxes))


def _amax(numbers: Array) -> np.float32:
    return np.float32(np.max(np.abs(numbers.astype(np.float32))))


def expected(call: DenseCall, recipe: RecipeConfig | None) -> DensePasses | BlockDense | None:
    """What the call must compute but for its bias; ``None`` for a recipe without an oracle here."""
    x, kernel, grad = call.x, call.kernel, call.grad
    if recipe is None:
        return dense(x, kernel.astype(x.dtype), grad)
    if recipe.name in BLOCK_SCALED:
        return None if recipe.is_random else BlockDense(recipe, x, kernel, grad, str(x.dtype))
    if te.computes_more_in_bf16():  # what is rounded then, the claims on single layers know
        return None
    fp8_format = recipe.fp8_format or "HYBRID"
    if recipe.name == "Float8CurrentScaling":
        return _by_current_scales(call, fp8_format, {})
    if call.kept:
        scales = {tensor: scale_in_use(kept.given, tensor, recipe) for tensor, kept in call.kept.items()}
        return _by_scales(call, scales, fp8_format)
    return None


def _by_scales(call: DenseCall, scales: dict[str, np.float32], fp8_format: str) -> DensePasses:
    """What the call computes with some scales. Before 2.5, one is undone in its tensor's dtype, rounded likewise."""
    passes = fp8_dense(call.x, call.kernel, call.grad, scales, fp8_format)
    if not te.leaves_float8_to_xla():
        return passes
    undo = {name: float(np.asarray(factor, getattr(call, name).dtype)) for name, factor in passes.undo.items()}
    return dataclasses.replace(passes, undo=undo)


def _by_current_scales(call: DenseCall, fp8_format: str, factors: Mapping[str, float]) -> DensePasses:
    """What current scaling computes, with the amaxes of some tensors multiplied by factors."""
    tensors = {"x": call.x, "kernel": call.kernel, "grad": call.grad}
    scales = current_scales(tensors, fp8_format)
    scales |= {tensor: np.float32(scales[tensor] / factor) for tensor, factor in factors.items()}
    return _by_scales(call, scales, fp8_format)


def by_amaxes_before_rounding(call: DenseCall, recipe: RecipeConfig) -> DensePasses:
    """What current scaling computes with the amaxes of x and grad as they may have been before these were BF16.

    XLA on a GPU may compute the amax together with what makes a tensor, and take it before it rounds. It is off by half
    a unit in the last place at most; the output shows that of x, the gradient of the input that of grad.
    """
    fp8_format, factors = recipe.fp8_format or "HYBRID", dict[str, float]()
    for tensor, product, found in (("x", "y", _without_bias(call)), ("grad", "dx", call.dx.astype(np.float64))):

        def off(factor: float, tensor: str = tensor, product: str = product, found: Array = found) -> float:
            passes = _by_current_scales(call, fp8_format, {tensor: factor})
            return float(np.linalg.norm(found - getattr(passes, product).value))

        half = unit_roundoff("bfloat16")
        coarse = min(1 + half * np.linspace(-1, 1, 17), key=off)
        factors[tensor] = min(coarse + half / 8 * np.linspace(-1, 1, 17), key=off)
    return _by_current_scales(call, fp8_format, factors)


def _without_bias(call: DenseCall) -> Array:
    return call.y.astype(np.float64) - (0.0 if call.bias is None else call.bias.astype(np.float64))


def _errors(call: DenseCall, wanted: DensePasses | BlockDense, recipe: RecipeConfig | None) -> Iterator[Error]:
    dtype = str(call.y.dtype)
    bias = np.zeros(1) if call.bias is None else call.bias.astype(np.float64)
    # The sum with a bias is rounded once more, and so is the bias.
    of_bias = 0.0 if call.bias is None else 2 * unit_roundoff(dtype)
    output = _without_bias(call)
    sizes = float(np.hypot(np.linalg.norm(wanted.y.value), np.linalg.norm(np.broadcast_to(bias, output.shape))))
    yield error("output", output, wanted.y.value, _tolerance(wanted.y, dtype, recipe), of_bias * sizes)
    for name, found, due in (
        ("gradient of the input", call.dx, wanted.dx),
        ("gradient of the kernel", call.dkernel, wanted.dkernel),
    ):
        yield error(name, found, due.value, _tolerance(due, dtype, recipe))


def _tolerance(wanted: Product, dtype: str, recipe: RecipeConfig | None) -> float:
    if not np.any(wanted.value):
        return 0.0
    # Of the product, before and after its scales are undone; before 2.5, of each operand as well.
    roundings = 5 if recipe and te.leaves_float8_to_xla() else 3
    return product_norm_tolerance(wanted, dtype, te.engine().kind, roundings=roundings, fp8=recipe is not None)
