"""The calls of TE's dense layers in a model, as the matrices that they multiply, and what they must compute."""

import dataclasses
import math
from collections.abc import Iterator, Mapping

import numpy as np

from mnist_fp8 import te
from mnist_fp8.core.modes import BLOCK_SCALED, RecipeConfig
from mnist_fp8.model.delayed import Kept, scale_in_use
from mnist_fp8.model.metadata import positions
from mnist_fp8.oracle.blocks import BlockDense
from mnist_fp8.oracle.dense import TENSORS, Array, DensePasses, Meta, current_scales, dense, fp8_dense
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
        kept=_kept(call, 2 + (bias is not None), recipe),
    )


def _contracted(x: Array, kernel: Array, y: Array) -> Iterator[int]:
    """How many axes a product sums over, as far as the shapes allow it."""
    for count in range(1, min(x.ndim, kernel.ndim)):
        if x.shape[-count:] == kernel.shape[:count] and y.shape == (*x.shape[:-count], *kernel.shape[count:]):
            yield count


def _kept(call: Call, first: int, recipe: RecipeConfig | None) -> dict[str, Kept]:
    """The metadata among a call's arguments: scales and histories of x, kernel and grad, in this order."""
    if recipe is None or recipe.amax_history_len is None:
        return {}
    places = list(positions(call.inputs[first:]))
    if len(places) != len(TENSORS):
        return {}
    sides = call.inputs[first:], call.d_inputs[first:]
    return {
        tensor: Kept(tensor, *(Meta(np.float32(side[scale][0]), side[history]) for side in sides))
        for tensor, (scale, history) in zip(TENSORS, places, strict=True)
    }


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
        scales = current_scales({"x": x, "kernel": kernel, "grad": grad}, fp8_format)
        return fp8_dense(x, kernel, grad, scales, fp8_format)
    if call.kept:
        scales = {tensor: scale_in_use(kept.given, tensor, recipe) for tensor, kept in call.kept.items()}
        return fp8_dense(x, kernel, grad, scales, fp8_format)
    return None
