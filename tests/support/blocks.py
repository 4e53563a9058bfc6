"""Operands of block-scaled products, next to the oracle's; where the scales are others, which others they are."""

import functools
import inspect
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from mnist_fp8 import te
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.oracle import blocks
from mnist_fp8.oracle.blocks import MX_BLOCK, BlockDense
from mnist_fp8.oracle.dense import FP8_MAX, Array, Product
from mnist_fp8.programs import jaxprs
from mnist_fp8.programs.jaxprs import ScaledOperand
from mnist_fp8.te.dense_step import dense_layer, dense_step
from support.assertions import assert_equal


class Operand(NamedTuple):
    """A tensor of a dense layer as one of its three products takes it.

    Attributes:
        name: of the tensor and the product.
        tensor: ``x`` (rows, contracted), ``kernel`` (contracted, features) or ``grad`` (rows, features).
        axis: of the tensor, over which the product sums.
    """

    name: str
    tensor: str
    axis: int


PRODUCTS = (
    (Operand("x of the output", "x", 1), Operand("kernel of the output", "kernel", 0)),
    (Operand("grad of the input gradient", "grad", 1), Operand("kernel of the input gradient", "kernel", 1)),
    (Operand("x of the kernel gradient", "x", 0), Operand("grad of the kernel gradient", "grad", 0)),
)
"""Both operands of each product, in the order of a step."""


@functools.partial(jax.jit, static_argnums=0)
def _operands_in(recipe: RecipeConfig, *arguments: Any) -> list[tuple[ScaledOperand, ScaledOperand]]:
    features = arguments[0]["params"]["kernel"].shape[1]
    layer, mode = dense_layer(features=features, use_bias=False), te.Autocast(recipe)
    step = functools.partial(inspect.unwrap(dense_step), layer, mode)
    return jaxprs.scaled_products(jax.make_jaxpr(step)(*arguments), *arguments)


def operands_in(recipe: RecipeConfig, *arguments: Any) -> dict[Operand, ScaledOperand]:
    """What the products of a compiled step of a layer without a bias multiply, on a host run.

    Args:
        recipe: a block-scaled one.
        arguments: variables, input and gradient of `dense_step`.
    """
    found = _operands_in(recipe, *arguments)
    assert len(found) == len(PRODUCTS), f"block-scaled products={len(found)}, but should be {len(PRODUCTS)}"
    return {where: operand for both in zip(PRODUCTS, found, strict=True) for where, operand in zip(*both, strict=True)}


def expected_passes(recipe: RecipeConfig, values: Mapping[str, Array], dtype: str = "bfloat16") -> dict[str, Product]:
    """Output and gradients of a dense layer without bias, of operands as the oracle quantizes them.

    Args:
        recipe: block-scaled; all of it is rounded to the nearest.
        values: matrices ``x``, ``kernel`` and ``grad``.
        dtype: of the input.
    """
    passes = BlockDense(recipe, values["x"], values["kernel"], values["grad"], dtype)
    return {"output": passes.y, "input gradient": passes.dx, "kernel gradient": passes.dkernel}


# --- MXFP8 ------------------------------------------------------------------------------------------------------------


def assert_mxfp8(found: ScaledOperand, matrix: Array, axis: int, dtype: str, *, where: str) -> None:
    """An operand has the oracle's codes and scales, to the bit.

    Args:
        found: the operand.
        matrix: the numbers that it should be quantized from.
        axis: of the matrix, over which the product sums.
        dtype: the format.
        where: what is compared.
    """
    __tracebackhide__ = True
    assert str(found.codes.dtype) == dtype, f"{where}: codes={found.codes.dtype}, but should be {dtype}"
    rows = np.moveaxis(matrix, axis, -1)
    expected = blocks.mxfp8(rows, 1, dtype)
    scales = np.asarray(found.scales)[0].view(np.uint8).astype(int)
    shape = expected.scales.shape
    assert scales.shape == shape, f"{where}: scales={scales.shape}, but should be {shape}, blocks of {MX_BLOCK}"
    wanted = expected.scales.astype(int)
    if wrong := np.argwhere(scales != wanted).tolist():
        row, block = wrong[0]
        raise AssertionError(
            f"{where}: {len(wrong)} of {scales.size} scales differ; first {wrong[0]}=2**{scales[row, block] - 127}, but"
            f" should be 2**{wanted[row, block] - 127}{_cause(scales, rows, dtype)}"
        )
    codes = np.asarray(found.codes)[0].astype(np.float64)
    for which, moved in _moved(rows):
        assert not np.array_equal(codes, blocks.mxfp8(moved, 1, dtype).codes), f"{where}: codes are those {which}"
    assert_equal(where=f"{where}: codes", actual=codes, expected=expected.codes)


def _moved(rows: Array) -> Iterator[tuple[str, Array]]:
    """A matrix whose blocks begin elsewhere."""
    yield "of blocks that begin one number early", np.roll(rows, 1, 1)
    yield "of blocks that begin one number late", np.roll(rows, -1, 1)


def _cause(scales: Array, rows: Array, dtype: str) -> str:
    """Which other scales those are that were found."""
    others = _others(rows, dtype)
    found = next((f"; they are {name}" for name, other in others if np.array_equal(scales, other)), "")
    steps = np.unique(scales - blocks.mxfp8(rows, 1, dtype).scales)
    return found or (f"; each is 2**{steps[0]} times what it should be" if len(steps) == 1 else "")


def _others(rows: Array, dtype: str) -> Iterator[tuple[str, Array]]:
    """Scales of a matrix by which mistake they come from."""
    largest = FP8_MAX[dtype]
    grouped = rows.reshape(len(rows), -1, MX_BLOCK)
    amaxes = np.abs(grouped).max(-1)
    right = blocks.e8m0(amaxes, largest)
    quotients = np.log2(np.maximum(amaxes, np.finfo(np.float32).tiny).astype(np.float64) / largest) + 127
    yield "rounded down, not up", np.floor(quotients)
    yield "rounded to the nearest power, not up", np.round(quotients)
    for other in FP8_MAX.keys() - {dtype}:
        yield f"those of {other}", blocks.e8m0(amaxes, FP8_MAX[other])
    yield "of the largest numbers, not the largest absolute ones", blocks.e8m0(grouped.max(-1), largest)
    yield "of the mean absolute numbers, not the largest ones", blocks.e8m0(np.abs(grouped).mean(-1), largest)
    yield "one for the whole tensor", np.broadcast_to(right.max(), right.shape)
    for step, which in ((1, "before"), (-1, "after")):
        yield f"those of the block {which}", np.roll(right, step, 1)
        yield f"those of the row {which}", np.roll(right, step, 0)
    yield from ((which, blocks.mxfp8(moved, 1, dtype).scales) for which, moved in _moved(rows))
    yield "transposed", right.T.reshape(right.shape)
    strided = rows.reshape(len(rows), MX_BLOCK, -1)
    yield "of every so many numbers, not of those side by side", blocks.e8m0(np.abs(strided).max(1), largest)
