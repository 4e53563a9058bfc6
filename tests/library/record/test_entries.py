"""Records: what is written is what is read, and what is no record is one line."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from mnist_fp8.core.errors import RecordError
from mnist_fp8.record.claims import ClaimResult, Outcome, SuiteResult, TestResult
from mnist_fp8.record.entries import AREAS, Cost, Curves, Failure, Numbers, Parameter, Signature, Text, Value, covers
from mnist_fp8.record.record import Record, read_record

ENTRIES: dict[str, Value] = {
    "recipes/R/support": Text("runs here"),
    "numerics/R/errors": Numbers((1.5, 2.0**-60), ("a", "b"), 1e-9),
    "training/R/loss": Curves((1, 2), ((1.0, 2.0), (3.0, 4.0)), 0.5),
    "api/te.f": Signature("function", (Parameter("x", "either", None), Parameter("y", "keyword", "3"))),
    "api/te.LIMIT": Signature("attribute", value="448"),
    "special/R/zeros": Failure("ValueError: no"),
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
    assert Failure.of(ValueError("one\ntwo")) == Failure("ValueError: one")
    assert Failure.of(KeyError()) == Failure("KeyError: ")


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
