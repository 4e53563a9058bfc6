"""On a GPU, the amax of current scaling may be one of a tensor before it was rounded to BF16."""

import dataclasses

import ml_dtypes
import numpy as np
import pytest

from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.model.dense_calls import DenseCall, by_amaxes_before_rounding, expected
from mnist_fp8.oracle.dense import Array, DensePasses, current_scales, fp8_dense

CURRENT = RecipeConfig("Float8CurrentScaling")


def call_with(**factors: float) -> DenseCall:
    """A call that a layer has computed with amaxes multiplied by factors."""
    drawn = np.random.default_rng(0)
    shapes = {"x": (64, 96), "kernel": (96, 32), "grad": (64, 32)}
    tensors = {name: drawn.normal(0, 1, shape).astype(ml_dtypes.bfloat16) for name, shape in shapes.items()}
    scales = current_scales(tensors, "HYBRID")
    scales |= {name: np.float32(scales[name] / factor) for name, factor in factors.items()}
    passes = fp8_dense(**tensors, scales=scales, fp8_format="HYBRID")
    found = {name: getattr(passes, name).value.astype(ml_dtypes.bfloat16) for name in ("y", "dx", "dkernel")}
    return DenseCall(**tensors, **found, bias=None, kept={})


def error(found: Array, passes: DensePasses, name: str) -> float:
    """The relative norm of a difference."""
    wanted = getattr(passes, name).value
    return float(np.linalg.norm(found.astype(np.float64) - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("factors", [{"x": 1 + 2**-10}, {"grad": 1 - 2**-9.5}, {"x": 1 - 2**-11, "grad": 1 + 2**-9}])
def test_amax_within_half_a_unit_in_the_last_place_is_found(factors: dict[str, float]) -> None:
    call = call_with(**factors)
    known, rounding = expected(call, CURRENT), 2**-9
    assert isinstance(known, DensePasses)
    found = by_amaxes_before_rounding(call, CURRENT)
    errors = {name: error(getattr(call, name), found, name) for name in ("y", "dx", "dkernel")}
    assert max(errors.values()) < rounding, errors
    assert error(call.dkernel, known, "dkernel") > rounding, "Control: the rounded amax explains it as well"


def test_amax_that_is_off_by_more_is_not_explained() -> None:
    call = call_with(x=1 + 2**-6)
    assert error(call.y, by_amaxes_before_rounding(call, CURRENT), "y") > 2**-7


def test_nothing_is_found_where_the_product_is_wrong() -> None:
    call = call_with()
    call = dataclasses.replace(call, y=(call.y.astype(np.float64) * 1.01).astype(ml_dtypes.bfloat16))
    assert error(call.y, by_amaxes_before_rounding(call, CURRENT), "y") > 2**-7
