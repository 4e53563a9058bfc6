"""Claim: delayed scaling keeps the metadata of every product inside a layer as the recipe says, step by step.

The amaxes of tensors that nothing outside of a layer sees (what a layer norm or an activation hands on, and the
gradients that come back to them) are predicted by the layer's reference, as are the scales that follow from them.

What a failure means for an upgrade: layers of a model are quantized with wrong scales, or with those of each other.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, TypeAlias

import jax
import numpy as np
import pytest

from mnist_fp8 import te
from mnist_fp8.model.delayed import newest
from mnist_fp8.oracle.dense import TENSORS, Meta, initial_meta
from mnist_fp8.oracle.tolerances import scale_tolerance
from mnist_fp8.subjects.layer import Layer, next_variables, read_metas, step
from mnist_fp8.subjects.subject import Case, Subject
from support.assertions import assert_close, assert_equal
from support.layers import (
    DELAYED,
    amax_tolerance,
    assert_step,
    expected,
    quantized_cases,
    scales_of,
    tolerance_of,
    unless_by_chance,
)
from support.metadata import next_metas

_Metas: TypeAlias = Mapping[str, Mapping[str, Meta]]
"""By product and tensor."""


@pytest.mark.parametrize(("subject", "case"), quantized_cases())
def test_first_metadata_are_scales_of_one_and_empty_histories(subject: Subject, case: Case) -> None:
    layer = Layer(subject, case, DELAYED)
    metadata = jax.jit(lambda inputs: {**te.unbox(layer.init(inputs)), "params": {}})(layer.inputs())
    for product, metas in read_metas(layer, metadata).items():
        for tensor, meta in metas.items():
            where = f"{subject.name} {product} {tensor}"
            assert_equal(where=f"{where} scale", actual=meta.scale, expected=1)
            assert_equal(where=f"{where} history", actual=meta.history, expected=np.zeros(4))


@pytest.mark.parametrize(("subject", "case"), quantized_cases())
def test_metadata_follow_the_tensors_inside_a_layer(subject: Subject, case: Case) -> None:
    """Six steps on tensors that grow and shrink, so that the window of four is left again; and what each computes."""
    layer = Layer(subject, case, DELAYED)
    variables = layer.variables()
    metas: _Metas = {product.name: dict.fromkeys(TENSORS, initial_meta(4)) for product in layer.products}
    for number, factor in enumerate((1.0, 4.0, 0.5, 0.25, 0.125, 0.125)):
        variables, metas = unless_by_chance(partial(_assert_follows, layer, variables, metas, number, factor))


def _assert_follows(
    layer: Layer, variables: Any, metas: _Metas, number: int, factor: float, draw: int, times: float
) -> tuple[Any, _Metas]:
    """Returns the variables and the metadata after a step, by what the layer computed."""
    __tracebackhide__ = True
    where = f"{layer.subject.name} {layer.case.name}, step {number}"
    inputs = layer.inputs(number + 6 * draw)
    grads = tuple(grad * factor for grad in layer.grads(number + 6 * draw))
    found_step = step(layer, variables, inputs, grads)
    following = next_variables(layer, variables, found_step.grads)
    wanted = expected(layer, variables, inputs, grads, found_step, scales_of(layer, variables, following))
    found, next_ = read_metas(layer, following), {}
    for product, amaxes in wanted.amaxes.items():
        _assert_amaxes(layer, found[product], amaxes, where=f"{where}, {product}", times=times)
        next_[product] = next_metas(metas[product], {t: newest(found[product][t]) for t in TENSORS}, {})
        _assert_kept(found[product], next_[product], where=f"{where}, {product}")
    assert_step(found_step, wanted, where=where, tolerance_of=lambda name: times * tolerance_of(layer, name))
    return following, next_


def _assert_amaxes(
    layer: Layer, found: Mapping[str, Meta], amaxes: Mapping[str, np.float32], *, where: str, times: float
) -> None:
    """Of a parameter to the bit; of all else, what the change of a result by more than one tolerance moves as well."""
    __tracebackhide__ = True
    for tensor, amax in amaxes.items():
        moved = (times - 1) * tolerance_of(layer, tensor) * float(amax) if tensor != "kernel" else 0.0
        tolerance = amax_tolerance(layer, tensor, amax) + moved
        assert_close(
            where=f"{where}: amax of {tensor}", actual=newest(found[tensor]), expected=amax, tolerance=tolerance
        )


def _assert_kept(found: Mapping[str, Meta], wanted: Mapping[str, Meta], *, where: str) -> None:
    """Histories to the bit; scales as exactly as the device divides."""
    __tracebackhide__ = True
    for tensor, meta in wanted.items():
        assert_equal(where=f"{where}: history of {tensor}", actual=found[tensor].history, expected=meta.history)
        tolerance = scale_tolerance(float(meta.scale), te.engine().kind)
        assert_close(
            where=f"{where}: scale of {tensor}", actual=found[tensor].scale, expected=meta.scale, tolerance=tolerance
        )
