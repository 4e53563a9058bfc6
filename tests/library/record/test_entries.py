"""Records: what is written is what is read, and what is no record is one line."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from mnist_fp8.core.errors import RecordError
from mnist_fp8.record.claims import ClaimResult, Outcome, SuiteResult, TestResult
from mnist_fp8.record.entries import (
    AREAS,
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
    covers,
    entries_from_json,
)
from mnist_fp8.record.record import Record, read_record

ENTRIES: dict[str, Value] = {
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
    "api/te.LIMIT": Signature("attribute", value="448"),
    "special/R/zeros": Failure("ValueError", "no"),
    "costs/import": Cost((0.1, 0.2), "s"),
}
CLAIMS = SuiteResult(
    "2.0.0", "2.0.0", "j", "f", "p", "host", (ClaimResult("c", (TestResult("t", Outcome.PASSED),)),), 1.0
)
RECORD = Record(
    "2.0.0", "2.0.0", "host", {"jax": "0.10.2", "flax": "0.12", "python": "3.11"}, "s", ("2.0.0",), ENTRIES, 2.5
)


def written(folder: Path, record: Record, **changed: Any) -> Path:
    file = folder / "record.json"
    file.write_text(json.dumps(record.to_json() | changed, allow_nan=False))
    return file


@pytest.mark.parametrize("claims", [None, CLAIMS], ids=["without claims", "with claims"])
def test_record_that_is_written_is_read_as_it_was(tmp_path: Path, claims: SuiteResult | None) -> None:
    record = dataclasses.replace(RECORD, suite=claims, problem="none")
    assert read_record(written(tmp_path, record)) == record


def test_numbers_that_json_does_not_know_survive(tmp_path: Path) -> None:
    values = (math.inf, -math.inf, math.nan)
    record = dataclasses.replace(RECORD, entries={"numerics/x": Numbers(values, ("a", "b", "c"))})
    found = read_record(written(tmp_path, record)).entries["numerics/x"]
    assert isinstance(found, Numbers)
    assert found.values[:2] == values[:2]
    assert math.isnan(found.values[2])


def test_every_kind_of_value_is_written_and_read() -> None:
    assert {type(value) for value in ENTRIES.values()} == set(KINDS.values())


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
        {"kind": "codes", "digest": "a", "size": 1.5, "wrong": None},
        {"kind": "support", "ok": 1, "reason": ""},
        {"kind": "products", "products": [["a"]]},
        [],
    ],
)
def test_entry_of_wrong_types_is_none(fields: Any) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        entries_from_json({"a/b": fields})


def test_every_area_of_an_entry_is_known() -> None:
    assert {key.partition("/")[0] for key in ENTRIES} <= AREAS.keys()


def test_title_says_what_it_ran_with() -> None:
    assert RECORD.title == "TE 2.0.0 (JAX 0.10.2, Flax 0.12, Python 3.11)"
    assert dataclasses.replace(RECORD, environment={}).title == "TE 2.0.0"
    assert dataclasses.replace(RECORD, te="python /x", environment={}).title == "TE 2.0.0 (python /x)"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is no record: expected what mnist-fp8 measure -o writes"),
        ("[]", "is no record"),
        ('{"schema_version": 1}', "has schema version 1, but this mnist-fp8 reads 1"),
        (
            '{"schema_version": 99, "entries": {}}',
            "has schema version 99, but this mnist-fp8 reads 1: measure it again",
        ),
        ('{"schema_version": 1, "entries": {}}', "is no record"),
        ('{"schema_version": 1, "entries": {"a": {"kind": "odd"}}, "claims": null, "arguments": []}', "is no record"),
    ],
)
def test_what_is_no_record_is_one_line(tmp_path: Path, content: str, says: str) -> None:
    file = tmp_path / "record.json"
    file.write_text(content)
    with pytest.raises(RecordError) as raised:
        read_record(file)
    assert says in str(raised.value)
    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_record_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"^record .*none.json cannot be read: No such file or directory$"):
        read_record(tmp_path / "none.json")


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
