"""Claim: outside autocast each layer with FP8 metadata among its variables computes exactly as without them.

Promised by the README of TE's MNIST example (no ``autocast``, no FP8, metadata or not). It is what evaluation in BF16,
export and debugging of an FP8 checkpoint rely on.

What a failure means for an upgrade: a model that should run in BF16 quantizes with stale scales, raises, or loses its
metadata.
"""

import contextlib
from typing import Any

import jax
import numpy as np
import pytest

from mnist_fp8 import te
from mnist_fp8.programs import jaxprs
from mnist_fp8.subjects.layer import Layer, step
from mnist_fp8.subjects.subject import Case, RecipeFrom, Subject
from mnist_fp8.te.dense_step import BF16, on_device
from support.assertions import assert_equal, assert_trees_equal
from support.layers import CURRENT, DELAYED, plainest, quantized_cases

obeying = pytest.mark.parametrize(
    ("subject", "case"),
    quantized_cases(lambda subject, case: plainest(subject, case) and subject.recipe_from is RecipeFrom.AUTOCAST),
)
"""Layers that take their recipe from the autocast in force. The others have no outside."""


def with_stale_metadata(subject: Subject, case: Case) -> dict[str, Any]:
    """Variables from an initialisation under autocast, with metadata that would change any result they touch."""
    layer = Layer(subject, case, DELAYED)
    stale = jax.tree.map(lambda leaf: on_device(np.full(leaf.shape, 3.25), leaf.dtype), layer.shapes[layer.collection])
    return {"params": layer.variables()["params"], layer.collection: stale}


@obeying
def test_metadata_count_for_nothing_where_no_autocast_is_enabled(subject: Subject, case: Case) -> None:
    """In a disabled autocast, and in none."""
    layer, variables = Layer(subject, case, BF16), with_stale_metadata(subject, case)
    given = layer.inputs(), layer.grads()
    expected = step(layer, {"params": variables["params"]}, *given)
    in_none = _Unentered(subject, case, BF16)
    for where, found in {"disabled": step(layer, variables, *given), "none": step(in_none, variables, *given)}.items():
        at = f"{subject.name}, autocast: {where}"
        assert_trees_equal(where=at, actual=[found.y, found.dx], expected=[expected.y, expected.dx])
        assert_trees_equal(where=at, actual=found.grads["params"], expected=expected.grads["params"])
        unused = found.grads[te.metadata_collection()]
        zeros = jax.tree.map(np.zeros_like, unused)
        assert_trees_equal(where=f"{at}: gradient of metadata", actual=unused, expected=zeros)
    quantized = jaxprs.quantized_dtypes(jax.make_jaxpr(step, static_argnums=0)(in_none, variables, *given))
    assert not quantized, f"{subject.name}: quantized dtypes={sorted(quantized)}, but should be none"


class _Unentered(Layer):
    """A layer that enters no autocast at all."""

    def entered(self) -> Any:
        """Enter nothing."""
        return contextlib.nullcontext()


@obeying
def test_metadata_stay_as_they_are_outside_autocast(subject: Subject, case: Case) -> None:
    layer, variables = Layer(subject, case, BF16), with_stale_metadata(subject, case)
    name = te.metadata_collection()
    _, updated = jax.jit(lambda *given: layer.module.apply(*given, mutable=[name]))(variables, *layer.inputs().values())
    assert_trees_equal(where=f"{subject.name}: metadata", actual=updated[name], expected=variables[name])


@pytest.mark.recipe("Float8CurrentScaling")
@obeying
def test_metadata_count_for_nothing_in_a_recipe_that_keeps_none(subject: Subject, case: Case) -> None:
    layer, variables = Layer(subject, case, CURRENT), with_stale_metadata(subject, case)
    given = layer.inputs(), layer.grads()
    found, expected = step(layer, variables, *given), step(layer, {"params": variables["params"]}, *given)
    assert_trees_equal(where=subject.name, actual=[found.y, found.dx], expected=[expected.y, expected.dx])
    unused = found.grads[te.metadata_collection()]
    zeros = jax.tree.map(np.zeros_like, unused)
    assert_trees_equal(where=f"{subject.name}: gradient of metadata", actual=unused, expected=zeros)


@obeying
def test_metadata_count_under_their_own_recipe(subject: Subject, case: Case) -> None:
    # Control: these metadata do change what they touch.
    variables = with_stale_metadata(subject, case)
    layer, plain = (Layer(subject, case, mode) for mode in (DELAYED, BF16))
    found = step(layer, variables, layer.inputs(), layer.grads())
    expected = step(plain, {"params": variables["params"]}, layer.inputs(), layer.grads())
    with pytest.raises(AssertionError, match="elements differ"):
        assert_equal(where=subject.name, actual=found.y[0], expected=expected.y[0])
