"""The layer of a user's model that diverges first, in each mode."""

import dataclasses
from collections.abc import Mapping

import pytest

from mnist_fp8.core.model import VARIABLE
from mnist_fp8.gate.verdict.comparison import Comparison
from mnist_fp8.record.calls import CALLS, LayerCall, LayerCalls, Operand
from mnist_fp8.record.entries import Numbers, Product, Products, Quantity, Value
from support.comparing import HOST, compared

MODEL = "ours.model:case"
X = Operand("x", (2, 2), "bfloat16", 0.0, 1.0)
FP8, BF16 = (
    Products((Product(dtype, dtype, "dot_general", dtype != "bfloat16", 1),)) for dtype in ("float8_e4m3fn", "bfloat16")
)
SITES = ("up at m.py:1", "up at m.py:10", "down", "down at m.py:9")
SAME = dict.fromkeys([*(f"{site} output" for site in SITES), "down gradients"], 1.0)


def call(site: str) -> LayerCall:
    return LayerCall(site, "dense", quantized=False, operands=(X,), gradient=X, options=())


def entries(
    values: Mapping[str, float],
    mode: str = "BF16",
    *,
    model: str = MODEL,
    products: Products = FP8,
    errors: float = 0.5,
) -> dict[str, Value]:
    key = f"layers/{model}/model/{mode}"
    return {
        f"{key}/float8/up at m.py:1 forward: products": products,
        f"{key}/numerics/values layer by layer": Numbers(tuple(values.values()), tuple(values), 0.0, Quantity.NORM),
        f"{key}/{CALLS}": LayerCalls(tuple(map(call, SITES))),
        f"{key}/numerics/errors of layers in tolerances": Numbers(
            (errors,), ("down output",), 0.0, Quantity.IN_TOLERANCES
        ),
    }


def between(old: Mapping[str, Value], new: Mapping[str, Value]) -> Comparison:
    return compared(old, new, environment={**HOST, VARIABLE: MODEL})


def first(old: Mapping[str, Value], new: Mapping[str, Value]) -> list[tuple[str, str]]:
    return [(found.mode, found.site) for found in between(old, new).first_calls]


@pytest.mark.parametrize(
    ("label", "site"),
    [
        ("up at m.py:1 output", "up at m.py:1"),
        ("up at m.py:10 output", "up at m.py:10"),
        ("down output", "down"),
        ("down at m.py:9 output", "down at m.py:9"),
        ("down gradients", "down"),
    ],
)
def test_first_layer_is_the_first_whose_numbers_diverge(label: str, site: str) -> None:
    labels = list(SAME)
    values = {name: 2.0 if labels.index(name) >= labels.index(label) else 1.0 for name in labels}
    assert first(entries(SAME), entries(values)) == [("BF16", site)]


def test_each_mode_has_its_own() -> None:
    old = entries(SAME) | entries(SAME, "DelayedScaling") | entries(SAME, "Float8CurrentScaling")
    new = old | entries(SAME | {"down output": 2.0}) | entries({**SAME, "up at m.py:1 output": 2.0}, "DelayedScaling")
    assert first(old, new) == [("BF16", "down"), ("DelayedScaling", "up at m.py:1")]


def test_numbers_go_before_products_and_products_before_nothing() -> None:
    lost = entries(SAME, products=BF16)
    assert first(entries(SAME), lost) == [("BF16", "up at m.py:1")]
    assert first(entries(SAME), entries(SAME, products=BF16, errors=2.0)) == [("BF16", "down")]


def test_what_is_no_layer_and_diverges_first_has_none() -> None:
    for label in ("gradient of params/down", "up at m.py:100 output"):
        assert not first(entries(SAME | {label: 1.0}), entries(SAME | {label: 2.0}, errors=2.0))
    assert not first(entries(SAME), entries(SAME))


def test_other_layers_than_the_model_s_and_accepted_differences_have_none() -> None:
    old, new = entries(SAME, model="LayerNormMLP"), entries(SAME | {"down output": 2.0}, model="LayerNormMLP")
    assert not first(old, new)
    whole = between(entries(SAME), entries(SAME | {"down output": 2.0}))
    accepted = tuple(dataclasses.replace(each, accepted="known") for each in whole.differences)
    assert not dataclasses.replace(whole, differences=accepted).first_calls


def test_record_without_calls_has_none() -> None:
    sides = [
        {key: value for key, value in entries(values).items() if not isinstance(value, LayerCalls)}
        for values in (SAME, SAME | {"down output": 2.0})
    ]
    assert not first(*sides)


def test_calls_are_those_of_both_sides() -> None:
    new = entries(SAME | {"down output": 2.0})
    wide = dataclasses.replace(call("down"), gradient=dataclasses.replace(X, deviation=9.0))
    new[f"layers/{MODEL}/model/BF16/{CALLS}"] = LayerCalls((wide, call("up")))
    (found,) = between(entries(SAME), new).first_calls
    assert (found.old, found.new) == ((call("down"),), (wide,))
