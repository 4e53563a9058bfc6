"""The verdict on an upgrade where it rests on a user's own sources."""

import dataclasses
import datetime as dt
import re
from collections.abc import Sequence
from typing import Any

import pytest

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.gate.uses.judgement import Cause, Judgement, Outcome
from mnist_fp8.gate.uses.use import Call, Guard, Place, Unread, Use, UseKind, Uses
from mnist_fp8.gate.verdict.compare import compare
from mnist_fp8.gate.verdict.comparison import Comparison
from mnist_fp8.gate.verdict.coverage import Effect, GapKind
from mnist_fp8.gate.verdict.policy import Acceptance
from mnist_fp8.gate.verdict.rules.rule import Severity
from mnist_fp8.gate.verdict.rules.uses import RULES, rule_of_use, use_differences
from mnist_fp8.record.entries import Parameter, Signature, Text, Value
from mnist_fp8.record.names import Definition, Names
from support.comparing import TODAY, WHOLE, record

F = "transformer_engine.jax.f"
API = f"api/{F}"
OLD, NEW, GONE = (("x",), ("x", "y"), None)
MODULES = {each: Definition(Signature("module")) for each in ("transformer_engine", "transformer_engine.jax")}


def function(names: Sequence[str] | None) -> Signature | None:
    return None if names is None else Signature("function", tuple(Parameter(name, "either", None) for name in names))


def call(line: int = 3, **fields: Any) -> Use:
    place = {"place": Place("src/a.py", line, source="f(1)")}
    return Use(F, UseKind.CALL, **{**place, "call": Call(1), **fields})


def found_in(*uses: Use, unread: tuple[Unread, ...] = ()) -> Uses:
    return Uses(uses, unread, 2, 30)


def side(version: str, parameters: Sequence[str] | None, **fields: Any) -> Any:
    signature = function(parameters)
    entries: dict[str, Value] = WHOLE | ({API: signature} if signature else {})
    definitions = MODULES | ({F: Definition(signature)} if signature else {})
    every = {"names": Names(definitions, {}, frozenset(definitions), {}), **fields}
    return record(version, entries, **every)


def upgraded(
    uses: Uses | None, new: Sequence[str] | None = NEW, accepted: Sequence[Acceptance] = (), **fields: Any
) -> Comparison:
    return compare(side("1.0.0", OLD), side("2.0.0", new, **fields), accepted, TODAY, uses=uses)


def gaps(comparison: Comparison) -> dict[GapKind, Effect]:
    return {gap.kind: gap.effect for gap in comparison.coverage.gaps if gap.kind.name.startswith("USES")}


@pytest.mark.parametrize(
    ("use", "new", "verdict", "rule"),
    [
        (call(), NEW, "BROKEN", "use-argument-missing"),
        (call(), GONE, "BROKEN", "use-name-gone"),
        (call(), OLD, "SAFE", ""),
        (call(call=Call(2)), NEW, "SAFE", "use-works-now"),
        (call(call=Call(9)), NEW, "CHANGED", "use-broken-already"),
        (call(call=Call(0, has_args=True)), NEW, "CHANGED", "use-may-break"),
        (call(guards=frozenset({Guard.TYPE_ERROR})), NEW, "SAFE", "use-guarded"),
        (Use("transformer_engine.jax", UseKind.IMPORT, Place("a.py", 1)), NEW, "SAFE", ""),
        (Use("transformer_engine.jax", UseKind.IMPORT, Place("a.py", 1)), GONE, "SAFE", ""),
    ],
)
def test_verdict_is_that_of_what_is_used(use: Use, new: tuple[str, ...] | None, verdict: str, rule: str) -> None:
    comparison = upgraded(found_in(use), new)
    assert comparison.verdict.value == verdict
    assert [each.rule.id for each in comparison.of("uses")] == ([rule] if rule else [])
    assert comparison.compared["uses"] == 1
    assert comparison.uses is not None
    assert [each.use for each in comparison.uses.judgements or ()] == [use]


def test_without_uses_names_decide_as_ever() -> None:
    comparison = upgraded(None)
    assert comparison.verdict.value == "BROKEN"
    assert [each.rule.id for each in comparison.differences] == ["api-required-parameter-added"]
    assert comparison.uses is None
    assert "uses" not in comparison.compared


@pytest.mark.parametrize("use", [call(), Use("transformer_engine.jax", UseKind.IMPORT, Place("a.py", 1))])
def test_names_are_no_more_than_notes_with_uses(use: Use) -> None:
    (difference,) = upgraded(found_in(use)).of("api")
    assert difference.rule.id == "api-required-parameter-added"
    assert difference.rule.severity is Severity.NOTE


def test_names_decide_as_ever_where_words_alone_name_transformer_engine() -> None:
    words = Use("transformer_engine.jax.words", UseKind.TEXT, Place("a.py", 1))
    assert upgraded(found_in(words)).verdict.value == "BROKEN"


@pytest.mark.parametrize(
    ("use", "verdict"),
    [(call(), "BROKEN"), (Use("transformer_engine.jax", UseKind.IMPORT, Place("a.py", 1)), "PARTIAL")],
)
def test_look_at_the_code_alone_is_a_part(use: Use, verdict: str) -> None:
    """As with ``--only uses``: the records hold names and nothing else."""
    old, new = (dataclasses.replace(side(*each), entries={}, suite=None) for each in (("1.0.0", OLD), ("2.0.0", NEW)))
    assert compare(old, new, (), TODAY, only=("uses",), uses=found_in(use)).verdict.value == verdict


def test_command_for_a_use_names_the_sources() -> None:
    comparison = upgraded(dataclasses.replace(found_in(call()), paths=("src", "my code.py")))
    ((key, *_),) = ([entry.key for entry in each.entries] for each in comparison.of("uses"))
    assert comparison.command(key) == f"mnist-fp8 upgrade 1.0.0 2.0.0 --uses src --uses 'my code.py' --only {key}"
    assert "--uses" not in comparison.command("bits/R/t"), "Control"


def test_other_areas_decide_as_ever_with_uses() -> None:
    changed = {"bits/R/tensor 1": Text("other")}
    sides = side("1.0.0", OLD), dataclasses.replace(side("2.0.0", OLD), entries=side("2.0.0", OLD).entries | changed)
    assert compare(*sides, (), TODAY, uses=found_in(call())).verdict.value == "CHANGED"


def test_difference_of_a_use_names_place_and_argument() -> None:
    uses = found_in(call(9), call(3), call(3, place=Place("b.ipynb", 2, cell=5)))
    (difference,) = upgraded(uses).of("uses")
    assert difference.subject == F
    assert [entry.key for entry in difference.entries] == [
        f"uses/{F}/src/a.py:9",
        f"uses/{F}/src/a.py:3",
        f"uses/{F}/b.ipynb:5.2",
    ]
    assert {(entry.old, entry.new, entry.part) for entry in difference.entries} == {
        (Text("f(x)"), Text("f(x, y)"), "y")
    }


@pytest.mark.parametrize(
    ("pattern", "rule", "verdict"),
    [
        (f"uses/{F}/src/a.py:3", "", "SAFE"),
        ("uses/*/src/a.py:*", "use-argument-missing", "SAFE"),
        ("", "use-argument-missing", "SAFE"),
        (f"uses/{F}/src/a.py:4", "", "BROKEN"),
        (API, "", "BROKEN"),
    ],
)
def test_use_can_be_accepted_by_key_and_by_rule(pattern: str, rule: str, verdict: str) -> None:
    acceptance = Acceptance(pattern, "we know", TODAY + dt.timedelta(9), rule)
    assert upgraded(found_in(call()), accepted=[acceptance]).verdict.value == verdict


@pytest.mark.parametrize("without", ["1.0.0", "2.0.0"])
def test_side_without_names_leaves_uses_unverified(without: str) -> None:
    names = {version: {"names": None} if version == without else {} for version in ("1.0.0", "2.0.0")}
    sides = side("1.0.0", OLD, **names["1.0.0"]), side("2.0.0", NEW, **names["2.0.0"])
    comparison = compare(*sides, (), TODAY, uses=found_in(call()))
    assert gaps(comparison) == {GapKind.USES: Effect.UNVERIFIED}
    assert comparison.uses is not None
    assert comparison.uses.judgements is None
    assert comparison.verdict.value == "BROKEN", "names decide as they do without uses"
    sides = sides[0], side("2.0.0", OLD, **names["2.0.0"])
    assert compare(*sides, (), TODAY, uses=found_in(call())).verdict.value == "UNVERIFIED"


@pytest.mark.parametrize(
    ("may_use", "verdict", "effect"), [(True, "PARTIAL", Effect.PARTIAL), (False, "SAFE", Effect.NOTED)]
)
def test_source_that_was_not_looked_at_is_a_gap(may_use: bool, verdict: str, effect: Effect) -> None:  # noqa: FBT001
    unread = Unread(Place("b.py", 0), "it does not parse", may_use=may_use)
    comparison = upgraded(found_in(call(), unread=(unread,)), OLD)
    assert comparison.verdict.value == verdict
    assert gaps(comparison) == {GapKind.USES_UNREAD: effect}


def test_gaps_of_sources_name_line_and_cell() -> None:
    places = Place("a.py", 0), Place("b.py", 3), Place("c.ipynb", 1, cell=5)
    unread = tuple(Unread(place, "it does not parse", may_use=True) for place in places)
    (gap,) = upgraded(found_in(call(), unread=unread), OLD).coverage.gaps
    assert gap.names == ("a.py", "b.py:3", "c.ipynb:5.1")


def test_used_name_that_is_not_read_is_a_gap() -> None:
    use = Use("transformer_engine.jax.g", UseKind.CALL, Place("a.py", 1), Call(0))
    fields = {"names": dataclasses.replace(side("1", OLD).names, unread={"transformer_engine.jax": "dynamic"})}
    comparison = compare(side("1.0.0", OLD, **fields), side("2.0.0", OLD, **fields), (), TODAY, uses=found_in(use))
    assert gaps(comparison) == {GapKind.USES_NOT_READ: Effect.PARTIAL}
    assert comparison.verdict.value == "PARTIAL"


def test_sources_that_use_nothing_are_refused() -> None:
    unread = Unread(Place("b.py", 0), "it does not parse", may_use=True)
    message = (
        "your code uses nothing of Transformer Engine: 2 files with 30 lines were looked at, and 1 places could not be"
        " read; expected sources that import transformer_engine: name the folder that holds them"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        upgraded(found_in(unread=(unread,)))


def test_releases_that_the_code_fits_are_told() -> None:
    releases = {version: side(version, names).names for version, names in (("1.0.0", OLD), ("2.0.0", NEW))}
    comparison = compare(side("1.0.0", OLD), side("2.0.0", NEW), (), TODAY, uses=found_in(call()), releases=releases)
    assert comparison.uses is not None
    assert comparison.uses.fitting.ranges == (">=1.0,<2.0",)


def test_every_outcome_and_cause_has_a_rule() -> None:
    given = {rule.id for outcome in Outcome for cause in Cause if (rule := _rule(outcome, cause)) is not None}
    assert given == {rule.id for rule in RULES}


def _rule(outcome: Outcome, cause: Cause) -> Any:
    try:
        return rule_of_use(Judgement(call(), outcome, cause, old="f(x)", new="f(x, y)"))
    except KeyError:  # no judgement has these two together
        return None


@pytest.mark.parametrize(
    "judgement",
    [
        Judgement(call(), Outcome.SAME),
        Judgement(call(), Outcome.GUARDED, Cause.NAME_GONE, F),
        Judgement(call(), Outcome.GUARDED, Cause.MISSING_ARGUMENT, "y", "f(x, y)", "f(x, y)"),
    ],
    ids=["fits both", "guarded, gone in both", "guarded, fits neither"],
)
def test_what_stays_is_no_difference(judgement: Judgement) -> None:
    assert list(use_differences([judgement])) == []
