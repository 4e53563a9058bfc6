"""Claim: each layer computes what its definition says, forward and backward, in BF16 and in every recipe.

TE documents its layers by their formulas: layer norm, activation, dense layer, and what is quantized between them. The
expected values come from each layer's reference in float64, which rounds and quantizes where the layer does. So a layer
norm that is off by a hundredth, a wrong activation or a swapped operand stands out of errors of some units in the last
place; next to exact results it would have to stand out of FP8's few percent.

What a failure means for an upgrade: a model that uses the layer computes something else than it did.
"""

from functools import partial

import pytest

from mnist_fp8 import te
from mnist_fp8.oracle import arithmetic
from mnist_fp8.subjects.layer import Layer, step
from mnist_fp8.subjects.subject import Case, Subject
from mnist_fp8.te.dense_step import BF16
from support.layers import (
    CURRENT,
    assert_step,
    blockwise,
    cases,
    expected,
    plainest,
    quantized_cases,
    recorded,
    tolerance_of,
    unless_by_chance,
)

EXACT = 2.0**-4
"""Largest relative norm of BF16's own errors against float64: some roundings, and signs of numbers close to zero, which
an activation like ReLU turns into whole gradients. Seen: 0.052 there, 0.006 elsewhere."""


@pytest.mark.xla_sums_in_float32
@pytest.mark.parametrize(("subject", "case"), cases())
def test_layer_computes_its_definition_in_bf16(subject: Subject, case: Case) -> None:
    layer = Layer(subject, case, BF16)
    variables, inputs, grads = layer.variables(), layer.inputs(), layer.grads()
    found = step(layer, variables, inputs, grads)
    rounded = expected(layer, variables, inputs, grads, found)
    right = partial(tolerance_of, layer)
    assert_step(found, rounded, where=f"{subject.name} {case.name}", tolerance_of=right)
    if plainest(subject, case):  # so that what the reference rounds is not all that is looked at
        exact = arithmetic.exact(layer.reference, variables["params"], inputs, grads)
        where = f"{subject.name} {case.name} against float64"
        assert_step(found, exact, where=where, tolerance_of=lambda name: max(EXACT, right(name)))


@pytest.mark.recipe("Float8CurrentScaling")
@pytest.mark.parametrize(("subject", "case"), quantized_cases())
def test_layer_computes_its_definition_on_quantized_operands(subject: Subject, case: Case) -> None:
    """In current scaling; the claim on metadata has delayed scaling, step by step."""
    assert_quantized(Layer(subject, case, CURRENT))


@blockwise
@pytest.mark.parametrize(("subject", "case"), quantized_cases(recorded))
def test_layer_computes_its_definition_on_operands_in_blocks(subject: Subject, case: Case, mode: te.Autocast) -> None:
    assert_quantized(Layer(subject, case, mode))


def assert_quantized(layer: Layer) -> None:
    """Compare a step with what the reference computes on the operands of the recipe."""
    __tracebackhide__ = True
    unless_by_chance(partial(_assert_predicted, layer))


def _assert_predicted(layer: Layer, draw: int, times: float) -> None:
    __tracebackhide__ = True
    variables, inputs, grads = layer.variables(), layer.inputs(2 * draw), layer.grads(2 * draw + 1)
    found = step(layer, variables, inputs, grads)
    wanted = expected(layer, variables, inputs, grads, found)
    where = f"{layer.subject.name} {layer.case.name}"
    assert_step(found, wanted, where=where, tolerance_of=lambda name: times * tolerance_of(layer, name))
