"""The mutants: what is edited, what counts as on the path, and that no outcome is lost or taken for another."""

import ast
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from proofs.mutation import farm, page, path, probe, trial
from proofs.mutation.__main__ import seen_once
from proofs.mutation.operators import Edit, edits
from proofs.mutation.path import Mutant, sample
from proofs.mutation.results import Notes, Result, digest, of_the_claims, of_the_suite

# --- operators -----------------------------------------------------------------------------------------------------


def made_of(source: str, operator: str = "") -> set[str]:
    """The sources that the operators make of one."""
    return {edit.apply(source) for edit in edits(source) if operator in ("", edit.operator)}


@pytest.mark.parametrize(
    ("operator", "source", "expected"),
    [
        ("arithmetic", "y = a / b", {"y = (a * b)"}),
        ("rank", "y = a.ndim - b.ndim", {"y = max(a.ndim - b.ndim, 1)"}),
        ("rank", "y = a.size - b.ndim", set()),
        ("comparison", "y = a > 0", {"y = a >= 0"}),
        ("comparison", "y = a is None", {"y = a is not None"}),
        ("constant", "y = f(2)", {"y = f(3)", "y = f((1))"}),
        ("constant", "y = True", {"y = False"}),
        ("constant", "y = 0.0", {"y = 1.0"}),
        ("name", "y = d['fp8_metas']", {"y = d['fp8_metas_']"}),
        ("condition", "if a:\n    b()", {"if not (a):\n    b()"}),
        ("boolean", "y = a and b", {"y = ((a) or (b))", "y = (a)", "y = (b)"}),
        ("unary", "y = -a", {"y = (a)"}),
        ("dropped statement", "f(x)", {"pass"}),
        ("dropped statement", "y = y.at[0].set(0.0)", {"pass"}),
        ("dropped statement", "assert a", {"pass"}),
        ("dropped keyword", "f(a, k=1)", {"f(a)"}),
        ("left unquantized", "f(a, quantizer=q)", {"f(a, quantizer=None)"}),
        ("swapped arguments", "y = f(a, b)", {"y = f(b, a)"}),
        ("function", "y = jnp.max(a)", {"y = jnp.min(a)"}),
        ("left out call", "y = jnp.abs(a)", {"y = (a)"}),
        ("left out call", "y = a.astype(t)", {"y = (a)"}),
        ("role", "y = q.x", {"y = q.kernel"}),
        ("role", "t = jnp.float8_e4m3fn", {"t = jnp.float8_e5m2"}),
        ("swapped elements", "y = (a, b)", {"y = (b, a)"}),
        ("conditional", "y = a if c else b", {"y = (a)", "y = (b)"}),
        ("not restored", "try:\n    f()\nfinally:\n    g = h", {"try:\n    f()\nfinally:\n    pass"}),
    ],
)
def test_operator_makes_these_faults(operator: str, source: str, expected: set[str]) -> None:
    assert made_of(source, operator) == expected


@pytest.mark.parametrize(
    "source",
    [
        '"""A docstring."""',
        "def f(x: Array) -> Tuple[int, float]: return",
        "raise ValueError('some words')",
        "warnings.warn('some words', stacklevel=2)",
    ],
)
def test_what_is_no_behaviour_is_left_alone(source: str) -> None:
    assert made_of(source) <= {"pass"}


def test_words_of_an_assertion_are_left_alone() -> None:
    assert made_of("assert a, 'some words'") == {"assert not (a), 'some words'", "pass"}


def test_an_edit_changes_its_own_place_only() -> None:
    source = "ö = 'ü'  # ä\ny = a / b  # a / b\n"
    assert "ö = 'ü'  # ä\ny = (a * b)  # a / b\n" in made_of(source, "arithmetic")


def test_scopes_are_named() -> None:
    source = "class A:\n    def f(self):\n        return a + b\n"
    assert {edit.scope for edit in edits(source)} == {"A.f"}


# --- the path ------------------------------------------------------------------------------------------------------

Of = Callable[[Path], str]
SOURCE = """\
LIMIT = 4
def used(x=1):
    if x:
        return x + 1
    return x - 1
def unused(x=2):
    return x * 2
class Used:
    field = 3
    def method(self):
        return 1
class Unused:
    field = 5
    def method(self):
        return 6
class Enum:
    member = 7
"""


def test_only_what_is_executed_is_on_the_path() -> None:
    """Imported: all but the bodies. Called: ``used`` with a true argument, and ``Used.method``."""
    imported = {1, 2, 6, 8, 9, 10, 12, 13, 14, 16, 17}
    reached = path._reached(ast.parse(SOURCE), frozenset(imported | {3, 4, 11}))
    assert reached == {1, 2, 3, 4, 9, 10, 11, 17}


def test_nothing_of_a_file_that_is_only_imported_is_on_the_path() -> None:
    assert not path._reached(ast.parse(SOURCE), frozenset({1, 2, 6, 8, 9, 10, 12, 13, 14, 16, 17}))


def test_fault_is_looked_at_where_its_statement_is_executed() -> None:
    at = _mutant("f", 0)
    line = {"a.py": frozenset({at.edit.statement})}
    other = {"a.py": frozenset({at.edit.statement + 1}), "b.py": frozenset({at.edit.statement})}
    assert path.reaching(at, {"x": other, "y": line, "z": line}) == ("y", "z")
    assert path.reaching(at, {"x": other, "y": {}}) == ("x", "y"), "nobody knows where"
    assert path.reaching(at, {probe.IMPORT: line, "x": other}) == (probe.IMPORT, "x"), "done at the import"
    assert path.union({"x": other, "y": line}) == {"a.py": frozenset({1, 2}), "b.py": frozenset({1})}


def test_lines_that_only_some_scenarios_execute() -> None:
    reached = {
        "MXFP8: dense": {"a.py": frozenset({1, 2}), "b.py": frozenset({7})},
        "NVFP4: dense": {"a.py": frozenset({2, 3})},
        "bf16": {"a.py": frozenset({1}), "c.py": frozenset({9})},
    }
    only = path.of_scenarios(reached, ("MXFP8", "NVFP4"))
    assert only == {"a.py": frozenset({2, 3}), "b.py": frozenset({7})}
    assert path.of_scenarios(reached, ("NVFP4",)) == {"a.py": frozenset({3})}


def test_sample_is_spread_over_functions_and_decided_by_the_seed() -> None:
    everything = [_mutant(scope, start) for scope, count in (("f", 50), ("g", 2), ("h", 1)) for start in range(count)]
    drawn = sample(everything, 6, 0)
    assert sorted(each.edit.scope for each in drawn) == ["f", "f", "f", "g", "g", "h"]
    assert drawn == sample(everything, 6, 0)
    assert drawn != sample(everything, 6, 1)
    assert sorted(sample(everything, None, 0)) == sorted(everything)
    assert not sample(everything, None, 0, ("other.py",))


def _mutant(scope: str, start: int) -> Mutant:
    return Mutant("a.py", Edit(start, start + 1, "new", "constant", 1, 1, scope))


# --- processes -----------------------------------------------------------------------------------------------------


def behave(task: str) -> str:
    """What a process is told to do."""
    if task == "raise":
        raise ValueError("on purpose")
    if task == "die":
        os._exit(3)
    if task == "hang":
        time.sleep(60)
    return task * 2


def test_every_way_to_end_is_reported() -> None:
    tasks = ["a", "raise", "die", "hang", "b"]
    ended = {each.task: (each.result, each.failure) for each in farm.run(behave, tasks, jobs=2, timeout=5)}
    assert ended == {
        "a": ("aa", ""),
        "raise": (None, "ValueError: on purpose"),
        "die": (None, "the process ended with exit code 3"),
        "hang": (None, "no end after 5 s"),
        "b": ("bb", ""),
    }


# --- results -------------------------------------------------------------------------------------------------------


def test_notes_survive_an_interruption(tmp_path: Path) -> None:
    file = tmp_path / "new" / "notes.jsonl"
    notes = Notes(file)
    notes.add("first", "a difference")
    notes.add("second", {"claim": ""})
    with file.open("a") as out:
        out.write(json.dumps(["third", "cut o"])[:-4])
    again = Notes(file)
    assert ("first" in again, again["second"], "third" in again) == (True, {"claim": ""}, False)


def test_healthy_release_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = trial.Healthy(
        {"plain": {"output": "1"}}, {"plain": {"dense.py": frozenset({1, 2})}}, {"test_a.py::test_a": {}}
    )
    looks = iter([seen])
    monkeypatch.setattr(trial, "healthy", lambda _jobs: next(looks))
    file = tmp_path / "of a subject" / "healthy"
    assert [seen_once(file, 1), seen_once(file, 1)] == [seen, seen]


def test_healthy_release_that_is_red_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def red(_jobs: int) -> trial.Healthy:
        raise trial.UnhealthyError("the installed TE is red")

    monkeypatch.setattr(trial, "healthy", red)
    for _ in range(2):
        with pytest.raises(trial.UnhealthyError):
            seen_once(tmp_path / "healthy", 1)


def test_digest_changes_with_any_file(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    before = digest(tmp_path.glob("*"), "more")
    (tmp_path / "b.py").write_text("2")
    assert len({before, digest(tmp_path.glob("*"), "more"), digest(tmp_path.glob("*"))}) == 3


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mnist_fp8/__init__.py", (of_the_claims, of_the_suite)),
        ("mnist_fp8/oracle/deeper/a.py", (of_the_claims, of_the_suite)),
        ("mnist_fp8/gate/a.py", (of_the_suite,)),
        ("tests/claims/test_a.py", (of_the_claims, of_the_suite)),
        ("tests/support/sub/a.py", (of_the_claims, of_the_suite)),
        ("tests/expectations.toml", (of_the_claims, of_the_suite)),
        ("conftest.py", (of_the_claims, of_the_suite)),
        ("pytest.ini", (of_the_claims, of_the_suite)),
    ],
)
def test_verdicts_of_another_suite_are_not_used(tmp_path: Path, name: str, says: tuple[Of, ...]) -> None:
    """In whatever folder of it something changed; but what the claims say is the same whoever makes a verdict of it."""
    for each in ("conftest.py", "pytest.ini", "tests/expectations.toml", name):
        (tmp_path / each).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / each).write_text("1")
    before = {of: of(tmp_path) for of in (of_the_claims, of_the_suite)}
    assert before == {of: of(tmp_path) for of in before}
    (tmp_path / name).write_text("2")
    assert tuple(of for of in before if of(tmp_path) != before[of]) == says


def _result(number: int, **fields: object) -> Result:
    given = {"evidence": "plain: 1, was 2", "claim": "fp8_numerics", "test": "test_a", "silent": True, "seconds": 2.0}
    values = {"file": "jax/dense.py", "line": number, "scope": "f", "operator": "constant", "before": "1", "after": "2"}
    return Result(name=f"mutant {number}", **(values | given | fields))  # type: ignore[arg-type]


RESULTS = [
    _result(1),
    _result(2, silent=False, claim="(start)", test="(start)"),
    _result(3, evidence="", claim="", test="", silent=False),
    _result(4, claim="", test="", silent=False),
    _result(5, claim="", test="", silent=False, evidence="plain: raises TypeError, was 2"),
]
"""Caught by a value, caught by an exception, equivalent, missed with a value, missed with an exception."""


def test_page_counts_what_was_caught_and_names_what_was_not() -> None:
    text = page.render(RESULTS, page.Conditions({"transformer-engine": "2.20.2"}, 5, 7))
    assert "**2 of 4 observable faults caught (50.0%)**" in text
    assert "which nothing raises, 1 of 2 (50.0%)" in text
    assert "| jax/dense.py | 5 | 1 | 4 | 2 | 50.0% |" in text
    assert text.count("**Not explained.**") == 2
    assert "`tox -e mutants -- --sample 5 --seed 7 --output docs/evidence/mutants.md`" in text
    assert "With transformer-engine 2.20.2." in text


def test_page_says_which_lines_its_mutants_are_on() -> None:
    text = page.render(RESULTS, page.Conditions({"transformer-engine": "2.20.2"}, 5, 7, ("MXFP8", "NVFP4")))
    assert "Only lines that nothing but MXFP8 and NVFP4 executes." in text
    command = "--sample 5 --seed 7 --scenarios MXFP8 NVFP4 --output docs/evidence/mutants-mxfp8-nvfp4.md"
    assert f"`tox -e mutants -- {command}`" in text


def test_page_of_nothing_is_a_page() -> None:
    assert "**0 of 0 observable faults caught (-)**" in page.render([], page.Conditions({}, None, 0))
