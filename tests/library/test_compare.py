"""Differences of two records: which there are, how large, what they mean, and the verdict that follows."""

import dataclasses
import datetime as dt
import math
from typing import Any

import pytest

from mnist_fp8 import compare as compare_
from mnist_fp8.compare import Comparison, Difference, UpgradeVerdict, compare
from mnist_fp8.meaning import Severity
from mnist_fp8.measurements import (
    AGREES,
    RUNS,
    Cost,
    Curves,
    Failure,
    Numbers,
    Parameter,
    Record,
    Signature,
    Text,
    Value,
)
from mnist_fp8.policy import Acceptance
from mnist_fp8.records import ClaimResult, Outcome, RecordError, TestResult, Verification

TODAY = dt.date(2026, 11, 25)
BREAKS, CHANGES, NOTE = Severity.BREAKS, Severity.CHANGES, Severity.NOTE
HOST = {"device": "1 x cpu", "processor": "one", "jax": "0.10.2", "flax": "0.12.8", "data": "d"}


def record(te: str = "2.0.0", entries: dict[str, Value] | None = None, **fields: Any) -> Record:
    whole = {"run": "host", "environment": HOST, "settings": "s", "arguments": (te,), "seconds": 1.0} | fields
    return Record(te=te, version=te, entries=entries or {}, **whole)


def compared(old: dict[str, Value], new: dict[str, Value], **fields: Any) -> Comparison:
    return compare(record("1.0.0", old, **fields), record("2.0.0", new, **fields), (), TODAY)


def one(old: Value | None, new: Value | None, key: str = "behaviour/layers/x") -> Difference:
    """The only difference between two records of one entry."""
    sides = [{key: value} if value else {} for value in (old, new)]
    (difference,) = compared(*sides).differences
    return difference


def numbers(*values: float, noise: float = 0.0) -> Numbers:
    return Numbers(values, tuple(f"step {index}" for index in range(len(values))), noise)


def curves(*ends: float, noise: float = 0.0) -> Curves:
    return Curves((1, 2), tuple((3.0, end) for end in ends), noise)


# --- verdicts ------------------------------------------------------------------------------------------------------

EVERY_KIND: dict[str, Value] = {
    "api/transformer_engine.jax.f": Signature("function", (Parameter("x", "either", None),)),
    "recipes/R/support": Text(RUNS),
    "numerics/R/output against float64": numbers(0.1, math.nan, math.inf),
    "training/TE/loss": curves(1, 2, 3),
    "special/R/zeros": Failure("ValueError: no"),
    "costs/process/import": Cost((1.0, 2.0), "s"),
}


def test_entries_of_one_side_count_as_compared() -> None:
    found = compared({"variables/R/a": Text("1")}, {"variables/R/b": Text("1")})
    assert found.compared == {"variables": 2}


def test_names_that_more_users_import_come_first() -> None:
    names = ["api/transformer_engine.jax.quantize.a", "api/transformer_engine.jax.z"]
    (difference,) = compared({name: changed() for name in names} | EVERY_KIND, EVERY_KIND).of("api")[:1]
    assert difference.details[0].key == names[1]


def test_record_against_itself_is_safe_without_difference() -> None:
    found = compared(EVERY_KIND, dict(EVERY_KIND))
    assert found.verdict is UpgradeVerdict.SAFE
    assert found.differences == ()
    assert found.compared == {"api": 1, "recipes": 1, "numerics": 1, "special": 1, "training": 1, "costs": 1}


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ({"float8/R/products": Text("float8_e4m3fn")}, {"float8/R/products": Text("bfloat16")}, "BROKEN"),
        ({"bits/R/t": Text("1")}, {"bits/R/t": Text("2")}, "CHANGED"),
        ({}, {"api/transformer_engine.jax.f": Signature("function")}, "SAFE"),
        ({"bits/R/t": Text("1")}, {"special/R/t": Text("1")}, "BROKEN"),
        ({}, {}, "UNVERIFIED"),
    ],
    ids=["breaks", "changes", "notes", "breaks before unverified", "nothing in common"],
)
def test_verdict_is_that_of_the_worst(old: dict[str, Value], new: dict[str, Value], verdict: str) -> None:
    both: dict[str, Value] = {"recipes/R/support": Text(RUNS)} if old != new or old else {}
    assert compared(both | old, both | new).verdict.value == verdict


def test_old_release_that_could_not_be_measured_leaves_the_upgrade_unverified() -> None:
    found = compare(record("1.0.0", problem="no\u00a0import"), record(entries=EVERY_KIND), (), TODAY)
    assert found.verdict is UpgradeVerdict.UNVERIFIED
    assert "could not be measured" in found.unverified[0]


def test_new_release_that_does_not_start_is_broken_in_its_own_words() -> None:
    found = compare(record("1.0.0", EVERY_KIND), record(problem="ImportError: libfoo"), (), TODAY)
    assert found.verdict is UpgradeVerdict.BROKEN
    (start,) = found.of("behaviour")
    assert (start.details[0].old, start.details[0].new) == ("works", "ImportError: libfoo")


# --- what each area means --------------------------------------------------------------------------------------------

F = Signature("function", (Parameter("x", "either", None), Parameter("recipe", "either", "None")))


def changed(**fields: Any) -> Signature:
    return dataclasses.replace(F, **fields)


@pytest.mark.parametrize(
    ("key", "old", "new", "severity", "says"),
    [
        ("api/transformer_engine.jax.f", F, None, BREAKS, "imports the name fails"),
        ("api/transformer_engine.jax.f", None, F, NOTE, "A new name"),
        ("api/transformer_engine.jax.f", F, changed(parameters=F.parameters[:1]), BREAKS, "raise TypeError"),
        (
            "api/transformer_engine.jax.f",
            F,
            changed(parameters=(*F.parameters, Parameter("new", "either", "0"))),
            NOTE,
            "A new option",
        ),
        ("recipes/R/support", Text(RUNS), Text("does not run here: x"), BREAKS, "fails on this machine"),
        ("recipes/R/support", Text("does not run here: x"), Text(RUNS), NOTE, "runs on this machine now"),
        ("recipes/R/support", Text("does not run here: x"), Text("does not run here: y"), NOTE, "another"),
        ("variables/R/params/kernel", Text("f32[2]"), Text("f32[3]"), BREAKS, "Checkpoints"),
        ("variables/R/fp8_metas/x_scale", Text("f32[1]"), None, BREAKS, "FP8 metadata of old checkpoints"),
        ("variables/R/params_axes/k", Text("x"), None, BREAKS, "sharded"),
        ("metadata/max/x scale stored", numbers(1, 2, 3), numbers(2, 3, 3), CHANGES, "another step's value"),
        ("metadata/max/x scale used", numbers(1, 2), numbers(1, 3), BREAKS, "Another scale"),
        (
            "metadata/max/x used scales against the oracle",
            Text(AGREES),
            Text("step 3: 1, expected 2"),
            BREAKS,
            "no longer follow the recipe",
        ),
        (
            "float8/R/forward: products",
            Text("float8_e4m3fn x float8_e4m3fn (a)"),
            Text("float8_e4m3fn x float8_e4m3fn (b)"),
            CHANGES,
            "written in another way",
        ),
        (
            "float8/R/forward: products",
            Text("float8_e4m3fn x float8_e4m3fn (a)"),
            Text("bfloat16 x float8_e4m3fn (a)"),
            BREAKS,
            "no longer",
        ),
        ("float8/outside autocast/f", Text("bfloat16"), Text("float8_e4m3fn"), BREAKS, "without autocast"),
        ("numerics/R/output against float64", numbers(0.04), numbers(0.039), CHANGES, "another place"),
        ("numerics/R/output against float64", numbers(0.04), numbers(0.06), BREAKS, "less accurate"),
        ("numerics/R/output against float64", numbers(0.04), numbers(math.nan), BREAKS, "wrong"),
        ("numerics/R/output in tolerances", numbers(0.5), numbers(1.1), BREAKS, "wrong"),
        ("numerics/R/output in tolerances", numbers(0.5), numbers(0.9), CHANGES, "another"),
        ("numerics/R/output in tolerances", numbers(3.0), numbers(9.0), CHANGES, "another"),
        ("numerics/R/distribution of output errors", numbers(0.1), numbers(0.9), CHANGES, "another"),
        ("bits/R/t", Text(f"a, {AGREES}"), Text("b, 3 of 9 codes differ"), BREAKS, "not quantized as"),
        ("bits/R/t", Text(f"a, {AGREES}"), Text(f"b, {AGREES}"), CHANGES, "other codes"),
        ("special/R/zeros", Text("output up to 0"), Text("output 3 NaN"), BREAKS, "NaN appears"),
        ("special/R/zeros", Text("output 3 NaN"), Text("output up to 0"), CHANGES, "in another way"),
        ("special/R/zeros", Text("a"), Failure("ValueError"), BREAKS, "fails, where it worked"),
        ("special/R/zeros", Failure("ValueError"), Text("a"), NOTE, "works now"),
        ("special/R/zeros", Failure("ValueError"), Failure("TypeError"), NOTE, "in other words"),
        ("behaviour/layers/kernel of a BF16 layer", Text("float32"), Text("bfloat16"), CHANGES, "master copy"),
        ("warnings/DeprecationWarning/x", None, Text("x"), CHANGES, "announced to go"),
        ("warnings/DeprecationWarning/x", Text("x"), None, NOTE, "Fewer"),
        ("training/TE/loss", curves(1.0, 1.1, 0.9), curves(1.01, 1.1, 0.9), CHANGES, "of the same quality"),
        ("training/TE/loss", curves(1.0, 1.1, 0.9), curves(2.0, 2.1, 1.9), BREAKS, "ends worse"),
        ("training/TE/loss", curves(2.0, 2.1, 1.9), curves(1.0, 1.1, 0.9), CHANGES, "of the same quality"),
        ("training/TE/loss", curves(1.0, 1.1, 0.9), curves(1.0, 1.1, math.nan), BREAKS, "ends worse"),
        ("training/TE/test accuracy", curves(0.9, 0.91, 0.89), curves(0.5, 0.51, 0.49), BREAKS, "ends worse"),
        ("training/TE/test accuracy", curves(0.5, 0.51, 0.49), curves(0.9, 0.91, 0.89), CHANGES, "same quality"),
        ("training/TE/test accuracy", curves(0.5, 0.51, 0.49), curves(0.5, 0.51, math.nan), BREAKS, "ends worse"),
    ],
)
def test_difference_says_what_it_means(
    key: str, old: Value | None, new: Value | None, severity: Severity, says: str
) -> None:
    found = one(old, new, key)
    assert found.severity is severity
    assert says in found.means
    assert found.do
    assert found.area == key.partition("/")[0]
    assert found.details[0].key == key


def test_added_option_of_a_method_concerns_who_overrides_it() -> None:
    method = changed(what="method")
    found = one(
        method,
        changed(what="method", parameters=(*F.parameters, Parameter("n", "either", "0"))),
        "api/transformer_engine.jax.C.m",
    )
    assert found.severity is CHANGES
    assert "override" in found.means


def test_entries_of_one_reason_are_one_difference() -> None:
    old = {f"variables/R/params/{name}": Text("f32[1]") for name in "abc"}
    (difference,) = compared(old | EVERY_KIND, EVERY_KIND).differences
    assert [detail.key for detail in difference.details] == list(old)


def test_recipe_that_runs_on_one_side_only_is_told_once() -> None:
    """What its entries are, there and not there, follows from that."""
    old = {"recipes/R/support": Text("does not run here: x"), "recipes/S/support": Text(RUNS)}
    new = {**old, "recipes/R/support": Text(RUNS), "bits/R/t": Text("1"), "training/TE FP8 R/loss": curves(1)}
    (difference,) = compared(old, new).differences
    assert difference.area == "recipes"


# --- sizes ---------------------------------------------------------------------------------------------------------

ERROR = "numerics/R/output against float64"


def test_number_within_noise_does_not_differ() -> None:
    old, new = numbers(1.0, noise=0.01), numbers(1.039, noise=0.01)
    assert compared({ERROR: old}, {ERROR: new}).differences == ()
    assert one(old, numbers(1.05, noise=0.01), ERROR).details[0].size == "+5.00%, 5 times the noise"


def test_exact_number_differs_by_its_last_bit() -> None:
    size = one(numbers(1.0), numbers(1.0 + 2**-40), ERROR).details[0].size
    assert size.endswith("exact: noise is 0")


def test_noise_of_one_side_is_noise_of_both() -> None:
    assert compared({ERROR: numbers(1.0)}, {ERROR: numbers(1.03, noise=0.01)}).differences == ()


def test_worst_number_stands_for_all() -> None:
    detail = one(numbers(1.0, 1.0, 1.0), numbers(1.0, 1.01, 0.5), ERROR).details[0]
    assert (detail.old, detail.new) == ("step 2: 1", "step 2: 0.5")
    assert "2 of 3 numbers" in detail.size


def test_number_that_becomes_nan_or_infinite_differs_and_is_the_worst() -> None:
    for value in (math.nan, math.inf):
        assert one(numbers(1.0, 2.0, noise=9.0), numbers(1.0, value, noise=9.0), ERROR).severity is BREAKS
    assert compared({ERROR: numbers(math.nan)}, {ERROR: numbers(math.nan)}).differences == (), "Control: NaN before"


def test_series_that_is_shifted_says_so() -> None:
    key = "metadata/max/x scale stored"
    assert one(numbers(1, 2, 3), numbers(2, 3, 4), key).details[0].size == "the same values, one step earlier"
    assert one(numbers(2, 3, 4), numbers(1, 2, 3), key).details[0].size == "the same values, one step later"


def test_curves_within_noise_do_not_differ() -> None:
    key = "training/TE/loss"
    assert compared({key: curves(1, noise=0.1)}, {key: curves(1.3, noise=0.1)}).differences == ()
    assert compared({key: curves(1, noise=0.1)}, {key: curves(1.5, noise=0.1)}).differences


def test_distance_of_curves_is_given_in_standard_errors() -> None:
    detail = one(curves(1.0, 1.1, 0.9), curves(1.2, 1.3, 1.1), "training/TE/loss").details[0]
    expected = 0.2 / math.sqrt(2 * 0.01 / 3)
    assert detail.size == f"{expected:+.1f} standard errors of the 3 seeds"
    assert (detail.old, detail.new) == ("ends at 1", "ends at 1.2")


def test_costs_are_told_and_change_no_verdict() -> None:
    key = "costs/process/import"
    found = compared({**EVERY_KIND, key: Cost((1.0, 2.0, 3.0), "s")}, {**EVERY_KIND, key: Cost((20.0,), "s")})
    assert found.verdict is UpgradeVerdict.SAFE
    (cost,) = found.costs
    assert (cost.name, cost.old, cost.new, cost.ratio, cost.spread) == ("process/import", 2.0, 20.0, 10.0, 0.5)
    assert cost.repetitions == 1, "of the side with fewer"


# --- what can be compared --------------------------------------------------------------------------------------------


def test_host_and_kernel_runs_are_not_compared() -> None:
    with pytest.raises(RecordError, match=r"^1.0.0 was measured in a host run and 2.0.0 in a kernel run: measure both"):
        compare(record("1.0.0", EVERY_KIND), record(entries=EVERY_KIND, run="kernel"), (), TODAY)


@pytest.mark.parametrize("name", ["device", "processor"])
def test_other_devices_are_compared_where_that_makes_sense(name: str) -> None:
    old = {ERROR: numbers(1.0), "training/TE/loss": curves(1.0), "bits/R/t": Text("1")}
    new = {ERROR: numbers(1.01), "training/TE/loss": curves(1.1), "bits/R/t": Text("2")}
    found = compare(record("1.0.0", old), record(entries=new, environment=HOST | {name: "other"}), (), TODAY)
    assert [difference.area for difference in found.differences] == ["bits"]
    assert any("measured on different devices" in limit for limit in found.limits)
    assert "training" not in found.compared


def test_other_data_leave_training_out() -> None:
    old, new = ({"training/TE/loss": curves(value), "bits/R/t": Text("1")} for value in (1.0, 2.0))
    found = compare(record("1.0.0", old), record(entries=new, environment=HOST | {"data": "e"}), (), TODAY)
    assert found.differences == ()
    assert any("different data" in limit for limit in found.limits)


def test_entries_of_another_measuring_code_are_left_out_where_they_are_ours() -> None:
    old, new = (
        {"bits/R/t": Text("1")},
        {"bits/R/t": Text("1"), "bits/R/new": Text("1"), "api/transformer_engine.jax.f": F},
    )
    found = compare(record("1.0.0", old), record(entries=new, settings="other"), (), TODAY)
    assert [difference.area for difference in found.differences] == ["api"], "names are TE's own"
    assert any("different versions of mnist-fp8" in limit for limit in found.limits)


def test_other_versions_around_transformer_engine_are_named() -> None:
    found = compare(record("1.0.0", EVERY_KIND), record(entries=EVERY_KIND, environment=HOST | {"jax": "9"}), (), TODAY)
    assert any("jax 0.10.2 → 9" in limit for limit in found.limits)


# --- claims --------------------------------------------------------------------------------------------------------


def judged(**outcomes: Outcome) -> Verification:
    """One claim named c, with a test for each outcome."""
    tests = tuple(TestResult(f"f.py::{name}", outcome, f"why {name}") for name, outcome in outcomes.items())
    return Verification("2.0.0", "2.0.0", "j", "f", "p", "host run", (ClaimResult("c", tests),), 1.0)


def with_claims(old: Verification | None, new: Verification | None) -> Comparison:
    return compare(record("1.0.0", EVERY_KIND, claims=old), record(entries=EVERY_KIND, claims=new), (), TODAY)


PASSED, FAILED, SKIPPED, KNOWN = Outcome.PASSED, Outcome.FAILED, Outcome.SKIPPED, Outcome.KNOWN


def test_claim_that_breaks_breaks_the_upgrade() -> None:
    found = with_claims(judged(a=PASSED, b=PASSED), judged(a=PASSED, b=FAILED))
    assert found.verdict is UpgradeVerdict.BROKEN
    (difference,) = found.differences
    assert (difference.area, difference.title) == ("claims", "c")
    assert "that the old release keeps" in difference.means
    assert (difference.details[0].old, difference.details[0].new) == ("passed", "failed: why b")


def test_claim_that_was_broken_before_still_breaks_and_says_so() -> None:
    found = with_claims(judged(a=FAILED), judged(a=FAILED))
    assert found.verdict is UpgradeVerdict.BROKEN
    assert "the old release does not keep it either" in found.differences[0].means


def test_known_defect_that_is_new_changes_something() -> None:
    found = with_claims(judged(a=PASSED), judged(a=KNOWN))
    assert found.verdict is UpgradeVerdict.CHANGED
    assert with_claims(judged(a=KNOWN), judged(a=KNOWN)).verdict is UpgradeVerdict.SAFE, "Control: known before"


def test_claims_alone_are_enough_to_compare() -> None:
    """That is what ``--only claims/c`` asks for."""
    sides = [record(te, claims=judged(a=PASSED)) for te in ("1.0.0", "2.0.0")]
    assert compare(*sides, (), TODAY).verdict is UpgradeVerdict.SAFE


def test_test_that_passed_and_is_skipped_now_is_told() -> None:
    found = with_claims(judged(a=PASSED, b=PASSED), judged(a=PASSED, b=SKIPPED))
    assert found.verdict is UpgradeVerdict.CHANGED
    assert "not verified" in found.differences[0].means


def test_claim_that_is_not_verified_any_more_leaves_the_upgrade_unverified() -> None:
    kept = ClaimResult("d", (TestResult("t", PASSED),))
    old, new = (
        dataclasses.replace(each, claims=(*each.claims, kept)) for each in (judged(a=PASSED), judged(a=SKIPPED))
    )
    found = with_claims(old, new)
    assert found.verdict is UpgradeVerdict.UNVERIFIED
    assert found.unverified == ("claim c was verified before and is not now",)


def test_nothing_verified_is_no_success() -> None:
    assert with_claims(judged(a=SKIPPED), judged(a=SKIPPED)).verdict is UpgradeVerdict.UNVERIFIED


def test_records_without_claims_say_so() -> None:
    assert any("claims are not part" in limit for limit in with_claims(None, judged(a=PASSED)).limits)
    assert not any("claims are not part" in limit for limit in with_claims(judged(a=PASSED), judged(a=PASSED)).limits)


# --- accepted ------------------------------------------------------------------------------------------------------

GONE = {"api/transformer_engine.jax.g": F, "api/transformer_engine.jax.h": F}


def accepting(pattern: str, expires: dt.date = TODAY) -> Comparison:
    acceptance = Acceptance(pattern, "not used here", expires)
    return compare(record("1.0.0", GONE | EVERY_KIND), record(entries=EVERY_KIND), (acceptance,), TODAY)


def test_accepted_difference_does_not_count_and_is_told_with_its_reason() -> None:
    gone = {**EVERY_KIND, "api/transformer_engine.jax.g": F}
    found = compare(
        record("1.0.0", gone),
        record(entries=EVERY_KIND),
        (Acceptance("api/transformer_engine.jax.g", "why", TODAY),),
        TODAY,
    )
    assert found.verdict is UpgradeVerdict.SAFE
    assert found.differences[0].accepted == "why (until 2026-11-25)"
    assert found.stale == ()


def test_what_is_not_accepted_of_a_difference_still_counts() -> None:
    found = accepting("api/transformer_engine.jax.g")
    assert found.verdict is UpgradeVerdict.BROKEN
    counting, accepted = found.differences
    assert [detail.key for detail in accepted.details] == ["api/transformer_engine.jax.g"]
    assert not counting.accepted


def test_expired_acceptance_counts_no_more_and_is_named() -> None:
    found = accepting("api/transformer_engine.jax.*", TODAY - dt.timedelta(days=1))
    assert found.verdict is UpgradeVerdict.BROKEN
    assert found.stale == ("api/transformer_engine.jax.*: accepted until 2026-11-24, which is over",)


def test_acceptance_of_no_difference_is_named() -> None:
    assert accepting("bits/nothing").stale == ("bits/nothing: accepted, but no difference",)


# --- commands ------------------------------------------------------------------------------------------------------


def test_command_measures_the_entry_again_on_both_sides() -> None:
    found = compared(EVERY_KIND, EVERY_KIND)
    assert found.command("bits/R/tensor 1: f8[2]") == "mnist-fp8 upgrade 1.0.0 2.0.0 --only 'bits/R/tensor 1: f8[2]'"


def test_command_names_the_versions_around_transformer_engine_where_they_differ() -> None:
    old = record("1.0.0", environment=HOST | {"jax": "0.9", "flax": "1"})
    found = compare(old, record("1.0.0", environment=HOST | {"jax": "0.10", "flax": "2"}), (), TODAY)
    assert found.command("x") == "mnist-fp8 upgrade 1.0.0 --jax 0.9:0.10 --flax 1:2 --only x"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "not there"),
        (Text("words"), "words"),
        (Failure("E: x"), "fails: E: x"),
        (numbers(1.0, 2.5), "step 0: 1, step 1: 2.5"),
        (curves(1.0, 2.0), "seed 0: 1, seed 1: 2"),
        (Cost((1.0, 3.0, 2.0), "s"), "2 s"),
        (Signature("attribute"), "attribute"),
    ],
)
def test_value_is_shown_in_one_line(value: Value | None, expected: str) -> None:
    assert compare_.text(value) == expected
