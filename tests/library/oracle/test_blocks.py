"""Tests of the oracle of block-scaled recipes: written-out numbers."""

import ml_dtypes
import numpy as np
import pytest

from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.oracle import blocks

MX, FP4 = RecipeConfig("MXFP8BlockScaling"), RecipeConfig("NVFP4BlockScaling")


def row(*numbers: float, size: int) -> np.ndarray:
    """A matrix of one row that begins with some numbers."""
    return np.array([[*numbers, *[0.0] * (size - len(numbers))]], np.float32)


@pytest.mark.parametrize(
    ("amax", "exponent"),
    [(448, 127), (448.5, 128), (224, 126), (225, 127), (1, 119), (0, 0), (2.0**-118 * 448, 9)],
)
def test_scale_of_mxfp8_is_the_power_of_two_above_the_quotient(amax: float, exponent: int) -> None:
    assert blocks.mxfp8(row(-amax, size=32), 1).scales.tolist() == [[exponent]]


def test_codes_of_mxfp8_are_rounded_to_the_nearest_under_their_scale() -> None:
    found = blocks.mxfp8(row(896, 34, 38, -0.001, size=32), 1)  # a scale of 2: 448, 17, 19, -0.0005
    assert found.codes[0, :4].tolist() == [448, 16, 20, 0]
    assert found.values[0, :4].tolist() == [896, 32, 40, 0]


def test_blocks_lie_along_the_axis_of_the_sum() -> None:
    matrix = np.ones((64, 32), np.float32)
    matrix[40, 3] = 448
    assert blocks.mxfp8(matrix, 0).scales.shape == (2, 32)
    assert np.argwhere(blocks.mxfp8(matrix, 0).scales == 127).tolist() == [[1, 3]]
    assert np.argwhere(blocks.mxfp8(matrix, 1).scales == 127).tolist() == [[40, 0]]


def test_gradients_are_e5m2_in_the_hybrid_format_alone() -> None:
    matrix = row(57344, size=32)
    for recipe, tensor, expected in ((MX, "grad", 134), (RecipeConfig(MX.name, fp8_format="HYBRID"), "grad", 127)):
        assert blocks.quantized(recipe, tensor, matrix, 1).scales.tolist() == [[expected]]


def test_largest_number_of_a_tensor_is_the_largest_code_under_the_largest_scale() -> None:
    found = blocks.nvfp4(row(-12, 4, 1, size=16), 1)
    assert found.scales.tolist() == [[448]]
    assert found.codes[0, :3].tolist() == [-6, 2, 0.5]
    assert found.values[0, :3] == pytest.approx([-12, 4, 1])


def test_block_of_small_numbers_has_a_small_scale() -> None:
    found = blocks.nvfp4(row(*[6.0] * 16, 1.5, 0.75, size=32), 1)
    assert found.scales.tolist() == [[448, 112]]
    assert found.codes[0, 16:18].tolist() == [6, 3]


def test_square_block_has_one_scale_in_all_of_its_rows() -> None:
    matrix = np.ones((32, 32), np.float32)
    matrix[20, 5] = 6
    found = blocks.nvfp4(matrix, 1, square=True).scales
    assert found.shape == (32, 2)
    assert (found[16:, 0] == 448).all()
    assert (found[:16] == found[0, 0]).all()
    assert (found[:, 1] == found[0, 0]).all()
    assert found[0, 0] == np.float32(448 / 6).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)


def test_rotation_is_orthogonal_to_the_bit() -> None:
    rotation = blocks.hadamard().astype(np.float64)
    assert (rotation @ rotation.T == np.eye(16)).all()
    assert (np.abs(rotation) == 0.25).all()
    assert (rotation[0] > 0).all(), "the first row of Sylvester's matrix is ones, and its sign is one"


@pytest.mark.parametrize(
    ("tensor", "axis", "disabled", "expected"),
    [
        ("x", 0, None, True),
        ("grad", 0, None, True),
        ("x", 1, None, False),
        ("kernel", 0, None, False),
        ("x", 0, True, False),
    ],
)
def test_what_the_gradient_of_the_kernel_is_computed_from_is_rotated(
    tensor: str,
    axis: int,
    disabled: bool | None,  # noqa: FBT001
    expected: bool,  # noqa: FBT001
) -> None:
    assert blocks.is_rotated(RecipeConfig(FP4.name, disable_rht=disabled), tensor, axis) is expected


def test_neighbours_of_a_number_and_how_probable_the_upper_one_is() -> None:
    numbers = np.array([0, 0.1, -1.25, 1.5, 2.75, 4.5, 6, 9], np.float32)
    found = blocks.neighbours(numbers)
    assert found.lower.tolist() == [0, 0, -1, 1.5, 2, 4, 6, 6]
    assert found.upper.tolist() == [0, 0.5, -1.5, 1.5, 3, 6, 6, 6]
    assert found.chance == pytest.approx([0, 0.2, 0.5, 0, 0.75, 0.25, 0, 0])


def test_zeros_and_infinity_do_not_make_a_scale_of_the_tensor() -> None:
    assert (blocks.nvfp4(np.zeros((16, 16)), 1).values == 0).all()
    assert blocks.nvfp4_scaled(row(np.inf, 1, size=16), 1).amax == np.inf
