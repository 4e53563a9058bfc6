"""What a record says that the calls of a model were given."""

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest

from mnist_fp8.measure import model
from mnist_fp8.measure.layer_calls import layer_calls
from mnist_fp8.measure.programs import counted
from mnist_fp8.model.run import CURRENT, DELAYED, Passes, passes, traced
from mnist_fp8.record.calls import CALLS, LayerCall, LayerCalls, Operand, Option
from models.fused import Fused, dense, mlp
from models.scanned import scanned
from models.small import factory

FUSED = factory(Fused((dense(use_bias=True), mlp(activations=("silu", "linear"), layernorm_type="rmsnorm"))))


def test_calls_are_in_the_order_of_the_program_and_hold_arrays_but_no_metadata() -> None:
    found = passes(FUSED, DELAYED)
    norm, gated = layer_calls(found).calls
    assert [(call.site, call.function, call.quantized) for call in (norm, gated)] == [
        (str(site), site.function, True) for site in dict.fromkeys(found.sites)
    ]
    assert [operand.name for operand in norm.operands] == ["x", "kernel", "gamma", "beta"]
    assert [operand.name for operand in gated.operands] == ["x", "gamma", "kernel_1", "kernel_2"]
    assert [(operand.shape, operand.dtype) for operand in norm.operands[:2]] == [
        ((32, 32), "bfloat16"),
        ((32, 32), "float32"),
    ]
    (call,) = [each for each in found.calls if str(each.site) == norm.site]
    assert norm.operands[1] == spread("kernel", call.inputs[1])
    assert norm.gradient == spread("output", call.d_outputs[0])


def test_numbers_that_are_not_finite_are_told() -> None:
    """Infinities of both signs in two calls, whose sum is no number."""
    found = passes(scanned, CURRENT)
    calls = [
        dataclasses.replace(each, d_outputs=(np.full_like(each.d_outputs[0], sign * np.inf),))
        for each, sign in zip(found.calls, itertools.cycle((1, -1)), strict=False)
    ]
    told = layer_calls(dataclasses.replace(found, calls=tuple(calls))).calls
    assert not any(np.isfinite((call.gradient.mean, call.gradient.deviation)).any() for call in told)


def spread(name: str, *arrays: Any) -> Any:
    numbers = np.stack(arrays).astype(np.float64)
    about: Any = {"mean": pytest.approx(numbers.mean()), "deviation": pytest.approx(numbers.std())}
    return Operand(name, arrays[0].shape, str(arrays[0].dtype), **about)


def test_options_are_those_that_are_no_defaults_as_literals() -> None:
    norm, gated = layer_calls(passes(FUSED, DELAYED)).calls
    assert norm.options == ()
    assert gated.options == (Option("norm_type", "'rmsnorm'"), Option("activation_type", "('silu', 'linear')"))


@pytest.mark.parametrize("value", [np.tanh, (np.tanh, "linear"), float("inf"), np.float64(2.0)])
def test_option_without_a_literal_says_so(value: Any) -> None:
    assert of_options(zero_centered_gamma=True, activation_type=value, kernel_1_axes=("a",)).options == (
        Option("norm_type", "'rmsnorm'"),
        Option("zero_centered_gamma", "True"),
        Option("activation_type", None),
    )


def of_options(**options: Any) -> LayerCall:
    found = passes(FUSED, DELAYED)
    calls = [dataclasses.replace(call, options={**call.options, **options}) for call in found.calls]
    return layer_calls(dataclasses.replace(found, calls=tuple(calls))).calls[1]


def test_layers_of_a_scan_are_one_call_with_the_numbers_of_all() -> None:
    found = passes(scanned, CURRENT)
    calls = layer_calls(found).calls
    assert len(calls) == len({str(site) for site in found.sites}) == 3
    for call in calls:
        kernels = [each.inputs[1] for each in found.calls if str(each.site) == call.site]
        assert len(kernels) == 3
        assert call.operands[1] == spread("kernel", *kernels)
    assert layer_calls(backward(found)).calls == calls


def backward(found: Passes) -> Passes:
    """With its calls in another order: they ran in no particular one."""
    return dataclasses.replace(found, calls=found.calls[::-1])


def test_layer_without_quantization_that_calls_two_products_is_two_calls() -> None:
    found = passes(FUSED, None)
    calls = layer_calls(found).calls
    assert layer_calls(backward(found)).calls == calls
    assert model._of_passes(FUSED, None)[CALLS] == LayerCalls(calls)
    assert [(call.function, call.quantized, len(call.operands)) for call in calls] == [("dense", False, 2)] * 3
    assert len({call.site for call in calls}) == 2


def test_layers_of_one_name_count_together() -> None:
    """One line of a module may call two functions."""
    found = passes(FUSED, DELAYED)
    sites = {site: dataclasses.replace(site, module="block", place="ours.py:3") for site in found.sites}
    calls = tuple(dataclasses.replace(call, site=sites[call.site]) for call in found.calls)
    both = dataclasses.replace(found, calls=calls, sites=tuple(sites.values()))
    outputs = [call.outputs[0].astype(np.float64) for call in found.calls]
    assert len(outputs) == 2, "Control: there are two layers"
    norm = model._layer_by_layer(both)["block at ours.py:3 output"]
    assert norm == pytest.approx(np.sqrt(sum(np.sum(output**2) for output in outputs)))


def test_products_of_layers_of_one_name_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes, sites = traced(FUSED, DELAYED)
    named = [dataclasses.replace(site, module="block", place="ours.py:3") for site in sites]
    monkeypatch.setattr(model, "traced", lambda _factory, _recipe: (shapes, named))
    products = model._of_program(FUSED, DELAYED)["float8/block at ours.py:3 forward: products"]
    forward = [gemm for site in dict.fromkeys(sites) for gemm in site.products if not gemm.backward]
    assert len(forward) > 1, "Control: there are several"
    assert products == counted(forward)
