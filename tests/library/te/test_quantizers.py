"""Tests of the door to TE's quantizers: which axis is which."""

import jax
import numpy as np
import pytest

from mnist_fp8.te.dense_step import fp8, on_device
from mnist_fp8.te.quantizers import quantized

pytestmark = [pytest.mark.host, pytest.mark.recipe("NVFP4BlockScaling")]


def test_blocks_lie_along_the_axis_that_they_are_asked_for_by() -> None:
    matrix = np.zeros((64, 96), np.float32)
    matrix[20, 40], matrix[50, 3] = 3, -6
    mode = fp8("NVFP4BlockScaling", disable_rht=True, disable_stochastic_rounding=True)
    found = jax.jit(quantized, static_argnums=(0, 1))(mode, "x", on_device(matrix))
    for axis, places in {0: [[1, 40], [3, 3]], 1: [[20, 2], [50, 0]]}.items():
        blocks = found[axis]
        assert np.argwhere(np.asarray(blocks.scales)).tolist() == places, f"axis {axis}"
        assert np.argwhere(np.asarray(blocks.codes)).tolist() == [[20, 40], [50, 3]], f"axis {axis}"
        assert blocks.codes[50, 3] == -6
        assert blocks.amax.tolist() == [6]
