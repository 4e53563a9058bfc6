"""Tests of the door to TE's quantizers: which axis is which, and where the metadata lie in them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_fp8 import te
from mnist_fp8.te.dense_step import BF16, fp8, on_device
from mnist_fp8.te.quantizers import inverts_current_scales, is_quantizers, named_leaves, quantized


@pytest.mark.host
@pytest.mark.recipe("NVFP4BlockScaling")
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


def quantizers(mode: te.Autocast) -> Any:
    """A set of quantizers, as TE's public helper makes it."""
    with mode():
        return te.quantization().QuantizerFactory.create_set()


def test_metadata_in_quantizers_have_the_names_of_a_collection() -> None:
    numbers = iter(range(6))
    made = jax.tree.map(lambda leaf: jnp.full_like(leaf, next(numbers)), quantizers(fp8("DelayedScaling")))
    assert is_quantizers(made)
    found = dict(named_leaves(made))
    wanted = {"x": made.x, "kernel": made.kernel, "grad": made.dgrad}
    for tensor, quantizer in wanted.items():
        assert found.pop(te.scale_leaf(tensor)) is quantizer.scale
        assert found.pop(te.history_leaf(tensor)) is quantizer.amax_history
    assert found == {}
    assert [id(leaf) for _, leaf in named_leaves(made)] == list(map(id, jax.tree.leaves(made))), "in JAX's order"


@pytest.mark.parametrize("mode", [BF16, fp8("Float8CurrentScaling")], ids=["bf16", "current"])
def test_quantizers_without_metadata_have_no_leaf(mode: te.Autocast) -> None:
    assert list(named_leaves(quantizers(mode))) == jax.tree.leaves(quantizers(mode)) == []


def test_random_numbers_of_quantizers_are_no_metadata() -> None:
    made = quantizers(fp8("DelayedScaling"))
    made.x = jnp.zeros(4)
    (name, _), *_ = named_leaves(made)
    assert te.read_leaf(name) is None


@pytest.mark.parametrize("value", [None, {}, (), 1.0])
def test_nothing_else_is_taken_for_quantizers(value: object) -> None:
    assert not is_quantizers(value)


@pytest.mark.recipe("Float8CurrentScaling")
def test_current_scales_are_inverted_as_they_are() -> None:
    """In the newest release; until 2.9, they were not."""
    assert inverts_current_scales()
