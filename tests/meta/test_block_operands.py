"""What the claims on block-scaled recipes compare operands with: a wrong scale is named by the mistake behind it."""

import re
from collections.abc import Callable

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from mnist_fp8.oracle import blocks
from mnist_fp8.oracle.dense import FP8_MAX, Array
from mnist_fp8.programs.jaxprs import ScaledOperand
from support.blocks import assert_mxfp8

E4M3 = "float8_e4m3fn"


def matrix() -> Array:
    """A matrix of whose rows and columns each has a size of its own."""
    drawn = np.random.default_rng(0)
    sizes = drawn.integers(-6, 7, (64, 1)) + drawn.integers(-6, 7, (1, 96))
    return np.asarray(drawn.normal(0, 1, (64, 96)) * 2.0**sizes, np.float32)


def operand(rows: Array, scales: Array) -> ScaledOperand:
    """The oracle's codes of a matrix under some scales."""
    codes = blocks.mxfp8(rows, 1).codes.astype(getattr(ml_dtypes, E4M3))
    return ScaledOperand(
        jnp.asarray(codes)[None], jnp.asarray(scales.astype(np.uint8).view(ml_dtypes.float8_e8m0fnu))[None]
    )


def right(rows: Array) -> Array:
    """The oracle's scales."""
    return blocks.mxfp8(rows, 1).scales


def of(amaxes: Array, largest: float = FP8_MAX[E4M3]) -> Array:
    """Scales of other amaxes, or for another format."""
    return blocks.e8m0(amaxes, largest)


def grouped(rows: Array) -> Array:
    """A matrix as blocks."""
    return rows.reshape(64, 3, 32)


MISTAKES: dict[str, tuple[Callable[[Array], Array], str]] = {
    "floor": (
        lambda rows: right(rows) - (np.log2(np.abs(grouped(rows)).max(-1) / 448) % 1 > 0),
        "rounded down, not up",
    ),
    "format": (lambda rows: of(np.abs(grouped(rows)).max(-1), FP8_MAX["float8_e5m2"]), "those of float8_e5m2"),
    "sign": (lambda rows: of(grouped(rows).max(-1)), "of the largest numbers, not the largest absolute ones"),
    "tensor": (lambda rows: np.full((64, 3), right(rows).max()), "one for the whole tensor"),
    "neighbour": (lambda rows: np.roll(right(rows), 1, 1), "those of the block before"),
    "late": (lambda rows: right(np.roll(rows, -1, 1)), "of blocks that begin one number late"),
    "transposed": (lambda rows: right(rows).T.reshape(64, 3), "transposed"),
    "strided": (lambda rows: of(np.abs(rows.reshape(64, 32, 3)).max(1)), "of every so many numbers"),
    "margin": (lambda rows: right(rows) + 2, "each is 2**2 times what it should be"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_wrong_scales_are_named_by_their_mistake(name: str) -> None:
    mistake, words = MISTAKES[name]
    rows = matrix()
    with pytest.raises(AssertionError, match=f"^x: .* scales differ; first .*; (they are )?{re.escape(words)}"):
        assert_mxfp8(operand(rows, mistake(rows)), rows, 1, E4M3, where="x")


def test_wrong_scale_of_one_block_is_named_by_its_place() -> None:
    rows = matrix()
    scales = right(rows).copy()
    scales[3, 1] = 127
    with pytest.raises(
        AssertionError, match=r"^x: 1 of 192 scales differ; first \[3, 1\]=2\*\*0, but should be 2\*\*-?\d+$"
    ):
        assert_mxfp8(operand(rows, scales), rows, 1, E4M3, where="x")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (lambda found: found._replace(codes=-found.codes), "x: codes: .* elements differ"),
        (
            lambda found: found._replace(codes=operand(np.roll(matrix(), 1, 1), right(matrix())).codes),
            "x: codes are those of blocks that begin one number early$",
        ),
        (
            lambda found: found._replace(codes=found.codes.astype("float8_e5m2")),
            "codes=float8_e5m2, but should be float8_e4m3fn",
        ),
        (
            lambda found: found._replace(scales=jnp.repeat(found.scales, 2, -1)),
            r"scales=\(64, 6\), but should be \(64, 3\), blocks of 32",
        ),
    ],
    ids=["codes", "early", "format", "size"],
)
def test_other_codes_formats_and_sizes_of_blocks_are_named(
    changed: Callable[[ScaledOperand], ScaledOperand], words: str
) -> None:
    rows = matrix()
    with pytest.raises(AssertionError, match=words):
        assert_mxfp8(changed(operand(rows, right(rows))), rows, 1, E4M3, where="x")


def test_right_operand_passes_in_either_direction() -> None:
    # Control.
    rows = matrix()
    assert_mxfp8(operand(rows, right(rows)), rows, 1, E4M3, where="x")
    assert_mxfp8(operand(rows, right(rows)), rows.T, 0, E4M3, where="x")
