"""Records, kept results and policies that were damaged or forged: one line or a verdict, and never a better one.

``HYPOTHESIS_PROFILE=fuzz pytest tests/library/gate/test_fuzz.py --hypothesis-seed=1`` tries 5,000 of each.
"""

import ast
import copy
import dataclasses
import functools
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from mnist_fp8.core.errors import ConfigError, RecordError
from mnist_fp8.core.model import VARIABLE
from mnist_fp8.gate.reports.verdict import files, html, markdown, terminal
from mnist_fp8.gate.reports.verdict.view import View
from mnist_fp8.gate.runner import store
from mnist_fp8.gate.verdict import policy
from mnist_fp8.gate.verdict.compare import compare
from mnist_fp8.record.calls import CALLS, LayerCall, LayerCalls, Operand, Option
from mnist_fp8.record.claims import ClaimResult, Outcome, SuiteResult, TestResult
from mnist_fp8.record.entries import (
    Agreement,
    Codes,
    Contents,
    Cost,
    Curves,
    Failure,
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
from mnist_fp8.record.keys import AREAS
from mnist_fp8.record.record import Record, read_record
from support.comparing import HOST, TODAY, WHOLE, record

PASSED = SuiteResult(
    tuple(
        ClaimResult(claim, tuple(TestResult(f"tests/claims/test_{claim}.py::{test}", Outcome.PASSED) for test in "xyz"))
        for claim in ("one", "two")
    ),
    "host run",
    command="pytest",
)
X = Operand("x", (2, 2), "bfloat16", 0.0, 1.0)
CALL = LayerCall("x", "dense", quantized=True, operands=(X,), gradient=X, options=(Option("axis", "((1,), 'a')"),))
VALUES = "layers/ours/model/BF16/numerics/values layer by layer"
F = Signature("function", (Parameter("x", "either", None), Parameter("y", "keyword", "None")))
OLD: dict[str, Value] = WHOLE | {
    "api/transformer_engine.jax.f": F,
    "recipes/S/support": Support(ok=False, reason="needs another GPU"),
    "metadata/max/x scale used": Numbers((3.0, 6.0), ("step 0", "step 1"), 0.0, Quantity.SCALE_USED),
    "metadata/max/x used scales against the oracle": Agreement(),
    "float8/R/forward: products": Products((Product("float8_e4m3fn", "float8_e4m3fn", "dot_general", True, 2),)),  # noqa: FBT003
    "numerics/R/output against float64": Numbers((0.1086, 0.2), ("a", "b"), 0.0, Quantity.ERROR),
    "special/R/zeros": Special((Contents("output", 0, 0, 1.0),), (NamedNumber("x", 1.0),)),
    "special/R/failing": Failure("ValueError", "no"),
    "training/TE BF16/accuracy": Curves((6, 12), ((0.3, 0.7), (0.31, 0.72)), 0.0, higher_is_better=True),
    "training/Flax BF16/loss": Curves((6, 12), ((3.0, 1.1), (3.1, 1.2))),
    "warnings/DeprecationWarning/x": Text("x is deprecated"),
    "costs/BF16/step": Cost((0.01, 0.02), "s"),
    VALUES: Numbers((1.0,), ("x output",), 0.0, Quantity.NORM),
    f"layers/ours/model/BF16/{CALLS}": LayerCalls((CALL,)),
}
FAULTS: dict[str, dict[str, Value]] = {
    "name": {"api/transformer_engine.jax.f": dataclasses.replace(F, parameters=F.parameters[:1])},
    "recipe": {"recipes/R/support": Support(ok=False, reason="gone")},
    "variables": {"variables/R/params/dense/kernel": Text("float32[17]")},
    "scale": {"metadata/max/x scale used": Numbers((3.0, 7.0), ("step 0", "step 1"), 0.0, Quantity.SCALE_USED)},
    "float8": {"float8/R/forward: products": Products((Product("bfloat16", "bfloat16", "dot_general", False, 2),))},  # noqa: FBT003
    "accuracy": {"numerics/R/output against float64": Numbers((0.2173, 0.2), ("a", "b"), 0.0, Quantity.ERROR)},
    "rounding": {"numerics/R/output against float64": Numbers((0.1087, 0.2), ("a", "b"), 0.0, Quantity.ERROR)},
    "layer": {VALUES: Numbers((2.0,), ("x output",), 0.0, Quantity.NORM)},
    "codes": {"bits/R/tensor 1": Codes("b", 1, 0)},
    "special": {"special/R/zeros": Special((Contents("output", 9, 0, 1.0),), (NamedNumber("x", 1.0),))},
    "behaviour": {"behaviour/layers/kernel after init": Text("Partitioned")},
    "training": {"training/TE BF16/accuracy": Curves((6, 12), ((0.3, 0.2), (0.31, 0.22)), 0.0, higher_is_better=True)},
    "noise": {"numerics/R/output against float64": Numbers((0.1086, 0.2), ("a", "b"), 0.5, Quantity.ERROR)},
    "failure": {"special/R/zeros": Failure("TypeError", "broken")},
}
JUNK: tuple[Any, ...] = (
    *(None, True, -1, 0, 10**400, 1e308, -1e308, 5e-324, "", "inf", "nan", "-inf", "\x1b[31m\x07", "\ud800", "a/b"),
    *("../..", [], {}, [[]], [1], {"x": 1}, [None], "numbers", "failure", "x" * 10_000, [1.0] * 50, "host", "kernel"),
)  # fmt: skip
"""What a value is replaced by; no value of the old side is among it."""
PAGE = 137
"""Of 200 examples, that with a whole page: drawing one takes a second."""
examples = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


@functools.cache
def document(fault: str) -> dict[str, Any]:
    """A new record with a fault in it, as JSON; the old one for no fault."""
    suite, problem = PASSED, ""
    if fault == "claim":
        broken = dataclasses.replace(PASSED.claims[1].tests[1], outcome=Outcome.FAILED, reason="why")
        tests = (PASSED.claims[1].tests[0], broken, PASSED.claims[1].tests[2])
        suite = dataclasses.replace(PASSED, claims=(PASSED.claims[0], ClaimResult("two", tests)))
    entries = OLD | FAULTS.get(fault, {})
    if fault == "crash":
        entries, problem = {}, "ImportError: no libfoo"
    environment = {**HOST, VARIABLE: "ours"}
    made = record("2.0.0" if fault else "1.0.0", entries, suite=suite, problem=problem, environment=environment)
    return dict(json.loads(json.dumps(made.to_json())))


ALL_FAULTS = (*FAULTS, "claim", "crash")


def places(value: Any, *path: Any) -> Iterator[tuple[Any, ...]]:
    """The way to each value of a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield (*path, name)
        yield from places(inner, *path, name)


def mutate(whole: dict[str, Any], where: int, how: str, junk: int) -> None:
    """Change a value of a document: delete, replace, repeat or rename it."""
    ways = list(places(whole))
    if not ways:
        return
    *path, name = ways[where % len(ways)]
    parent = functools.reduce(lambda found, step: found[step], path, whole)
    match how:
        case "delete":
            del parent[name]
        case "replace":
            parent[name] = copy.deepcopy(JUNK[junk % len(JUNK)])
        case "rename" if isinstance(parent, dict):
            parent[f"{name}{JUNK[junk % len(JUNK)]!s:.9}"] = parent.pop(name)
        case "repeat" if isinstance(parent, list):
            parent.append(copy.deepcopy(parent[name]))


def damage(content: bytes, where: int, how: str, byte: int) -> bytes:
    """Change the bytes of a file: cut it off, put one in, replace one, nest it, or write it in another encoding."""
    place = where % (len(content) + 1)
    match how:
        case "cut":
            return content[:place]
        case "insert":
            return content[:place] + bytes([byte]) + content[place:]
        case "flip":
            return content[:place] + bytes([byte]) + content[place + 1 :]
        case "nest":
            return content[:place] + b"[{"[byte % 2 : byte % 2 + 1] * (byte * 900) + content[place:]
    return content.decode(errors="replace").encode(("utf-16", "utf-8-sig", "utf-16-le", "latin-1")[byte % 4], "replace")


NUMBER = st.integers(0, 1 << 30)
MUTATIONS = st.lists(st.tuples(NUMBER, st.sampled_from(["delete", "replace", "rename", "repeat"]), NUMBER), max_size=3)
DAMAGES = st.lists(
    st.tuples(NUMBER, st.sampled_from(["cut", "insert", "flip", "nest", "encode"]), st.integers(0, 255)), max_size=2
)


def written(path: Path, fault: str, mutations: list[Any], damages: list[Any]) -> Path:
    whole = copy.deepcopy(document(fault))
    for mutation in mutations:
        mutate(whole, *mutation)
    content = json.dumps(whole).encode()
    for each in damages:
        content = damage(content, *each)
    path.write_bytes(content)
    return path


def one_line(error: Exception) -> None:
    assert "\n" not in str(error)


def shown(old: Record, new: Record, *, accepted: tuple[policy.Acceptance, ...] = (), page: bool = False) -> str:
    """The verdict, once every form of the report was made and can be written."""
    found = compare(old, new, accepted, TODAY)
    view, out = View.of(found), io.StringIO()
    Console(file=out, width=80).print(terminal.Screen(view))
    forms = [out.getvalue(), markdown.markdown(view), files.junit(view), files.as_json(view)]
    forms += [html.html(view)] if page else []
    for form in forms:
        assert "\x1b" not in form
        form.encode()
    for script in view.slices:
        ast.parse(script.source.encode())
    return found.verdict.value


@pytest.mark.parametrize("fault", ["", *ALL_FAULTS])
def test_nothing_else_decides_the_verdict(tmp_path: Path, fault: str) -> None:
    """Control: without damage, each fault is seen, and no fault is none."""
    sides = [read_record(written(tmp_path / "r.json", each, [], [])) for each in ("", fault)]
    assert (shown(*sides, page=not fault) == "SAFE") == (not fault)


@examples
@given(st.sampled_from(ALL_FAULTS), st.sampled_from(["old", "new"]), MUTATIONS, DAMAGES, st.integers(0, 199))
def test_damaged_record_is_one_line_or_a_verdict_that_is_no_better(
    tmp_path: Path,
    fault: str,
    side: str,
    mutations: list[Any],
    damages: list[Any],
    page: int,
) -> None:
    changes = {fault: ([], []), "": ([], [])} | {"" if side == "old" else fault: (mutations, damages)}
    try:
        sides = [read_record(written(tmp_path / "record.json", one, *changes[one])) for one in ("", fault)]
        verdict = shown(*sides, page=page == PAGE)
    except RecordError as error:
        one_line(error)
    else:
        assert verdict != "SAFE"


@examples
@given(st.sampled_from(ALL_FAULTS), MUTATIONS, DAMAGES)
def test_damaged_result_is_made_again_or_no_better(
    tmp_path: Path, fault: str, mutations: list[Any], damages: list[Any]
) -> None:
    kept = store.kept(written(tmp_path / "kept.json", fault, mutations, damages))
    if kept:
        assert shown(read_record(written(tmp_path / "old.json", "", [], [])), kept) != "SAFE"


POLICY = """\
[[accept]]
difference = "behaviour/layers/*"
reason = "we unbox parameters ourselves"
expires = 2026-12-31

[[accept]]
rule = "codes-changed"
reason = "we compare nothing bit by bit"
expires = 2026-12-31
"""
TOML_JUNK = st.sampled_from(
    [
        *(
            '"*"',
            '"*/*"',
            '"*a*"',
            '"claims/*"',
            '"behaviour/*"',
            '"does-not-start"',
            '"\\u001b[31m"',
            "''",
            "[]",
            "{}",
        ),
        *("nan", "inf", "-1", "true", "9999-12-31", "0001-01-01", "2026-12-31T00:00:00Z", "07:30:00", "[" * 9_999),
        *("2026-13-01", "1e999", '"""', "# x", "{a={a={}}}", "[[accept]]"),
    ]
)
PIECES = st.lists(
    st.tuples(st.sampled_from(["difference", "rule", "reason", "expires", "accept"]), TOML_JUNK), max_size=4
)


@examples
@given(PIECES, DAMAGES)
@example([("difference", '"*"')], [])
@example([("expires", "9999-12-31")], [])
def test_damaged_policy_accepts_no_more_than_a_policy_can(
    tmp_path: Path, pieces: list[tuple[str, str]], damages: list[Any]
) -> None:
    text = POLICY + "".join(f"{name} = {value}\n" for name, value in pieces)
    for name, value in pieces:
        text = text.replace(f"{name} = ", f"{name} = {value} # ", 1)
    content = text.encode()
    for each in damages:
        content = damage(content, *each)
    path = tmp_path / "policy.toml"
    path.write_bytes(content)
    try:
        accepted = policy.load(path, TODAY)
    except ConfigError as error:
        one_line(error)
        return
    for one in accepted:
        assert one.rule or one.pattern.partition("/")[0] in AREAS
        assert (one.expires - TODAY).days <= policy.MOST_DAYS
    old, crashed = (Record.from_json(document(side)) for side in ("", "crash"))
    assert shown(old, crashed, accepted=accepted) == "BROKEN"
