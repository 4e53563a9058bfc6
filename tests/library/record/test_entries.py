"""Entries: every kind of value is written and read, and what keys and patterns cover."""

import json
import math
from typing import Any

import pytest

from mnist_fp8.record.calls import CALLS, LayerCall, LayerCalls, Operand, Option
from mnist_fp8.record.checkpoints import Unrestored
from mnist_fp8.record.entries import (
    KINDS,
    Agreement,
    Call,
    Codes,
    Compiled,
    Contents,
    Cost,
    Curves,
    Failure,
    Formats,
    NamedNumber,
    Numbers,
    Parameter,
    Product,
    Products,
    Quantity,
    Signature,
    Special,
    Support,
    Text,
    Value,
)
from mnist_fp8.record.entries_json import entries_from_json, entries_to_json
from mnist_fp8.record.keys import AREAS, covers
from mnist_fp8.record.packages import Imported, Needs, Resolved

ENTRIES: dict[str, Value] = {
    "package/requires/jax": Needs(">=0.5", "0.10.2"),
    "package/resolver": Resolved(ok=False, reason="no jax<0.5"),
    "recipes/R/support": Support(ok=False, reason="no kernel"),
    "variables/R/params/kernel": Text("float32[2]"),
    "numerics/R/errors": Numbers((1.5, 2.0**-60), ("a", "b"), 1e-9, Quantity.ERROR),
    "training/R/loss": Curves((1, 2), ((1.0, 2.0), (3.0, 4.0)), 0.5),
    "training/R/accuracy": Curves((1,), ((1.0,), (3.0,)), higher_is_better=True),
    "float8/R/forward: products": Products((Product("float8_e4m3fn", "float8_e5m2", "te_gemm", True, 2),)),  # noqa: FBT003
    "float8/R/forward: quantized types": Formats(("float8_e4m3fn",)),
    "float8/R/forward: compiled program": Compiled((Call("a", 1),), ("f8e4m3fn",)),
    "bits/R/known": Codes("abc", 6, 2),
    "bits/R/unknown": Codes("abc", 6, None),
    "metadata/R/right": Agreement(),
    "metadata/R/wrong": Agreement(3, 1.0, math.inf),
    "special/R/ones": Special(
        (Contents("output", 3, 1, None), Contents("gradient", 0, 0, 2.5)), (NamedNumber("x", 0.0),)
    ),
    "api/te.f": Signature("function", (Parameter("x", "either", None), Parameter("y", "keyword", "3"))),
    "checkpoints/R/Orbax": Unrestored("ValueError", "no", ("mnist-fp8", "migrate"), "why"),
    f"layers/ours:case/model/R/{CALLS}": LayerCalls(
        (
            LayerCall(
                "up at ours.py:1",
                "dense",
                quantized=True,
                operands=(Operand("x", (2, 3), "bfloat16", 0.5, math.inf),),
                gradient=Operand("output", (), "float32", 0.0, 1.0),
                options=(Option("epsilon", "0.1"), Option("activation_type", None)),
            ),
        )
    ),
    "import/packages/pydantic": Imported(declared=False),
    "import/packages/numpy": Imported(declared=None),
    "api/te.LIMIT": Signature("attribute", value="448"),
    "special/R/zeros": Failure("ValueError", "no"),
    "costs/import": Cost((0.1, 0.2), "s"),
}


def test_every_kind_of_value_is_written_and_read() -> None:
    assert {type(value) for value in ENTRIES.values()} == set(KINDS.values())
    assert entries_from_json(json.loads(json.dumps(entries_to_json(ENTRIES), allow_nan=False))) == ENTRIES


def test_numbers_that_json_does_not_know_survive() -> None:
    entries = {"numerics/x": Numbers((math.inf, -math.inf, math.nan), ("a", "b", "c"))}
    value = entries_from_json(json.loads(json.dumps(entries_to_json(entries), allow_nan=False)))["numerics/x"]
    assert isinstance(value, Numbers)
    assert value.values[:2] == (math.inf, -math.inf)
    assert math.isnan(value.values[2])


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "odd"},
        {},
        {"kind": "text", "text": 1},
        {"kind": "text"},
        {"kind": "text", "text": "a", "more": 1},
        {"kind": "numbers", "values": [True], "labels": ["a"], "noise": 0.0, "quantity": "value"},
        {"kind": "numbers", "values": [1.0], "labels": [], "noise": 0.0, "quantity": "value"},
        {"kind": "numbers", "values": [1.0], "labels": ["a"], "noise": 0.0, "quantity": "odd"},
        {"kind": "numbers", "values": ["one"], "labels": ["a"], "noise": 0.0, "quantity": "value"},
        {"kind": "numbers", "values": 1.0, "labels": ["a"], "noise": 0.0, "quantity": "value"},
        {"kind": "numbers", "values": ["1.5"], "labels": ["a"], "noise": 0.0, "quantity": "value"},
        {"kind": "numbers", "values": [1.0, 2.0], "labels": ["a", "a"], "noise": 0.0, "quantity": "value"},
        {"kind": "curves", "steps": [], "seeds": [[]], "noise": 0.0},
        {"kind": "curves", "steps": [1], "seeds": [], "noise": 0.0},
        {"kind": "curves", "steps": [1, 2], "seeds": [[1.0]], "noise": 0.0},
        {"kind": "cost", "values": [], "unit": "s"},
        {"kind": "signature", "what": "class", "parameters": [{"name": "x", "kind": "odd", "default": None}]},
        {"kind": "codes", "digest": "a", "size": 1.5, "wrong": None},
        {"kind": "support", "ok": 1, "reason": ""},
        {"kind": "products", "products": [["a"]]},
        [],
    ],
)
def test_entry_of_wrong_types_is_none(fields: Any) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        entries_from_json({"bits/b": fields})


def test_every_area_of_an_entry_is_known() -> None:
    assert {key.partition("/")[0] for key in ENTRIES} <= AREAS.keys()


def test_failure_keeps_the_kind_and_the_first_line() -> None:
    assert Failure.of(ValueError("one\ntwo")) == Failure("ValueError", "one")
    assert Failure.of(KeyError()) == Failure("KeyError", "")


@pytest.mark.parametrize(
    ("pattern", "covered"),
    [
        ("a", True),
        ("a/", True),
        ("a/b c", True),
        ("a/b c/d", True),
        ("a/b*", True),
        ("*/d", True),
        ("a/b", False),
        ("b", False),
        ("A", False),
    ],
)
def test_pattern_names_a_key_by_its_beginning_or_by_words_with_stars(pattern: str, *, covered: bool) -> None:
    assert covers(pattern, "a/b c/d") is covered
