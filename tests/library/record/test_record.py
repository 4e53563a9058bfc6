"""Records: what is written is what is read, and what is no record is one line."""

import copy
import dataclasses
import functools
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mnist_fp8.core.capability import VARIABLE as CAPABILITY
from mnist_fp8.core.capability import Capability
from mnist_fp8.core.errors import RecordError
from mnist_fp8.core.model import FOLDER, VARIABLE
from mnist_fp8.record.claims import ClaimResult, Outcome, SuiteResult, TestResult
from mnist_fp8.record.entries import (
    Cost,
    Curves,
    Failure,
    Numbers,
    Parameter,
    Signature,
    Text,
    Value,
)
from mnist_fp8.record.names import Definition, Names, Passed
from mnist_fp8.record.record import Record, read_record

ENTRIES: dict[str, Value] = {
    "recipes/R/support": Text("runs here"),
    "numerics/R/errors": Numbers((1.5, 2.0**-60), ("a", "b"), 1e-9),
    "training/R/loss": Curves((1, 2), ((1.0, 2.0), (3.0, 4.0)), 0.5),
    "api/te.f": Signature("function", (Parameter("x", "either", None), Parameter("y", "keyword", "3"))),
    "api/te.LIMIT": Signature("attribute", value="448"),
    "special/R/zeros": Failure("ValueError", "no"),
    "costs/import": Cost((0.1, 0.2), "s"),
}
NAMES = Names(
    {
        "transformer_engine": Definition(Signature("module")),
        "transformer_engine.A": Definition(Signature("class", (Parameter("x", "either", "1"),)), ("abc.ABC",), ("d",)),
        "transformer_engine.A.f": Definition(
            Signature("method"),
            returns=0,
            raises=("ValueError",),
            passed=(Passed(1, ("x",)), Passed(0, (), is_open=True)),
        ),
        "transformer_engine.B": Definition(Signature("attribute", value="3"), is_conditional=True),
    },
    {"transformer_engine.P": "jax.sharding.PartitionSpec"},
    frozenset(("transformer_engine", "transformer_engine.A")),
    {"transformer_engine.pytorch": "not read"},
)
SUITE = SuiteResult((ClaimResult("c", (TestResult("t", Outcome.FAILED, "why"),)),), "host run", 1.0, "it hung", "cd x")
RECORD = Record(
    "2.0.0", "2.0.0", "host", {"jax": "0.10.2", "flax": "0.12", "python": "3.11"}, "s", ("2.0.0",), ENTRIES, 2.5
)


def written(folder: Path, record: Record, **changed: Any) -> Path:
    file = folder / "record.json"
    file.write_text(json.dumps(record.to_json() | changed, allow_nan=False))
    return file


@pytest.mark.parametrize("suite", [None, SUITE], ids=["without claims", "with claims"])
def test_record_that_is_written_is_read_as_it_was(tmp_path: Path, suite: SuiteResult | None) -> None:
    record = dataclasses.replace(RECORD, suite=suite, problem="none")
    assert read_record(written(tmp_path, record)) == record


def test_names_that_are_written_are_read_as_they_were(tmp_path: Path) -> None:
    record = dataclasses.replace(RECORD, names=NAMES)
    assert read_record(written(tmp_path, record)) == record
    assert "is_conditional" not in record.to_json()["names"]["definitions"]["transformer_engine"], "no empty fields"


def test_record_of_before_names_were_read_has_none(tmp_path: Path) -> None:
    document = RECORD.to_json()
    del document["names"]
    (tmp_path / "record.json").write_text(json.dumps(document))
    assert read_record(tmp_path / "record.json").names is None


def test_numbers_that_json_does_not_know_survive(tmp_path: Path) -> None:
    values = (math.inf, -math.inf, math.nan)
    record = dataclasses.replace(RECORD, entries={"numerics/x": Numbers(values, ("a", "b", "c"))})
    found = read_record(written(tmp_path, record)).entries["numerics/x"]
    assert isinstance(found, Numbers)
    assert found.values[:2] == values[:2]
    assert math.isnan(found.values[2])


def test_title_says_what_it_ran_with() -> None:
    assert RECORD.title == "TE 2.0.0 (JAX 0.10.2, Flax 0.12, Python 3.11)"
    assert dataclasses.replace(RECORD, environment={}).title == "TE 2.0.0"
    assert dataclasses.replace(RECORD, environment={VARIABLE: "ours:case"}).title == "TE 2.0.0 (model ours:case)"
    assert dataclasses.replace(RECORD, te="python /x", environment={}).title == "TE 2.0.0 (python /x)"


NO_RECORD = "is no record: expected what mnist-fp8 measure -o writes"
DEEP = b'{"schema_version": 2, "entries": ' + b'{"a/b": ' * 5000 + b"1" + b"}" * 5001


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", NO_RECORD),
        (b"[]", NO_RECORD),
        (b"null", NO_RECORD),
        (b"", NO_RECORD),
        (b"\xff", NO_RECORD),
        ("\ufeff{}".encode(), NO_RECORD),
        (b'{"schema_version": 2, "schema_version": 2}', "('schema_version' comes twice)"),
        (b'{"schema_version": NaN}', "(NaN is no finite number)"),
        (b'{"schema_version": 1e999}', "(1e999 is no finite number)"),
        (b"{" + b" " * (64 << 20) + b"}", "(it is larger than 64 MiB)"),
        ("{}".encode("utf-16"), NO_RECORD),
        (b"[" * 100_000, "(it is nested too deeply)"),
        (DEEP, NO_RECORD),
        (b'{"schema_version": [1], "entries": {}}', NO_RECORD),
        (b'{"schema_version": 2, "entries": {}}', NO_RECORD),
        (b'{"schema_version": 2}', "has schema version 2, but"),
        (b'{"schema_version": 1, "entries": {}}', "has schema version 1, but this mnist-fp8 reads 2: measure it again"),
        (b'{"schema_version": 99, "entries": {}}', "has schema version 99, but this mnist-fp8 reads 2: measure it"),
    ],
)
def test_what_is_no_record_is_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "record.json"
    file.write_bytes(content)
    line = refusal(file)
    assert says in line
    assert str(file) in line


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_record_may_have_any_encoding_that_its_mark_names(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "record.json"
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    file.write_text(mark + json.dumps(RECORD.to_json()), encoding=encoding)
    assert read_record(file) == RECORD


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "record.json")
    assert "(it is no regular file)" in refusal(tmp_path / "record.json")
    assert "cannot be read: Is a directory" in refusal(tmp_path)


def test_record_of_before_parts_were_noted_is_one_of_everything(tmp_path: Path) -> None:
    document = RECORD.to_json()
    del document["only"]
    (tmp_path / "record.json").write_text(json.dumps(document))
    assert read_record(tmp_path / "record.json").only == ()


def refusal(file: Path) -> str:
    with pytest.raises(RecordError) as raised:
        read_record(file)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_kind_of_run_that_there_is_not_is_one_line(tmp_path: Path) -> None:
    assert "('x' is no kind of run)" in refusal(written(tmp_path, RECORD, run="x"))


WHOLE = json.loads(json.dumps(dataclasses.replace(RECORD, suite=SUITE, names=NAMES).to_json()))


def places(document: Any, *path: Any) -> Iterator[tuple[Any, ...]]:
    """The way to each value of a document, entries aside: they have a reader of their own."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for name, value in items:
        yield (*path, name)
        if isinstance(value, dict | list) and name != "entries":
            yield from places(value, *path, name)


@pytest.mark.parametrize("place", list(places(WHOLE)), ids=str)
def test_value_of_a_wrong_type_anywhere_is_one_line(tmp_path: Path, place: tuple[Any, ...]) -> None:
    document = copy.deepcopy(WHOLE)
    parent = functools.reduce(lambda found, name: found[name], place[:-1], document)
    right = (float, int) if place[-1] == "seconds" else type(parent[place[-1]])
    wrong: Any
    for wrong in ([], {"x": []}, "x", 7, 1e400):
        if not isinstance(wrong, right):
            parent[place[-1]] = wrong
            file = tmp_path / "record.json"
            file.write_text(json.dumps(document))
            assert NO_RECORD in refusal(file) or place == ("schema_version",)


@pytest.mark.parametrize("key", ["a", "", "api", "unknown/x", "claims/x", "/x"])
def test_entry_without_an_area_is_no_entry(tmp_path: Path, key: str) -> None:
    entry = {"kind": "text", "text": "x"}
    assert NO_RECORD in refusal(written(tmp_path, RECORD, entries={key: entry}))


@pytest.mark.parametrize("entry", [{"kind": "odd"}, {"kind": []}, {}, [], None, "x", {"kind": "cost", "values": 1}])
def test_entry_of_no_known_kind_is_one_line(tmp_path: Path, entry: object) -> None:
    assert NO_RECORD in refusal(written(tmp_path, RECORD, entries={"bits/b": entry}))


def test_record_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"^record .*none.json cannot be read: No such file or directory$"):
        read_record(tmp_path / "none.json")


def test_capability_that_was_asked_for_is_in_title_and_arguments() -> None:
    asked = dataclasses.replace(RECORD, environment={CAPABILITY: "10.0"})
    assert (asked.capability, asked.capability_arguments) == (Capability.BLACKWELL, ("--capability", "10.0"))
    assert asked.title.endswith(" (pretended compute capability 10.0)")
    assert (RECORD.capability, RECORD.capability_arguments) == (None, ())


def test_record_of_a_capability_that_there_is_not_is_none() -> None:
    with pytest.raises(ValueError, match=r"MNIST_FP8_CAPABILITY is '8\.9'"):
        Record.from_json(dataclasses.replace(RECORD, environment={CAPABILITY: "8.9"}).to_json())


@pytest.mark.parametrize(
    ("key", "is_of_it"),
    [
        ("*", True),
        ("claims", True),
        ("claims/model_float8", True),
        ("claims/kernels", False),
        ("layers", True),
        ("layers/ours:case/model/BF16/numerics/x", True),
        ("layers/LayerNorm", False),
        ("numerics", False),
    ],
)
def test_model_is_named_for_what_is_of_it(key: str, *, is_of_it: bool) -> None:
    ours = dataclasses.replace(RECORD, environment={VARIABLE: "ours:case", FOLDER: "/src"})
    assert ours.model_arguments(key, "numerics") == (
        ("--model", "ours:case", "--model-path", "/src") if is_of_it else ()
    )
    installed = dataclasses.replace(RECORD, environment={VARIABLE: "ours:case"})
    assert installed.model_arguments(key) == (("--model", "ours:case") if is_of_it else ())
    assert RECORD.model_arguments(key) == ()
