"""Two records compared: the verdict, what can be compared, claims, acceptances, and commands."""

import dataclasses
import datetime as dt

import pytest

from mnist_fp8.core.errors import RecordError
from mnist_fp8.gate.verdict.compare import compare
from mnist_fp8.gate.verdict.comparison import Comparison, UpgradeVerdict
from mnist_fp8.gate.verdict.policy import Acceptance
from mnist_fp8.record.claims import ClaimResult, Outcome, SuiteResult, TestResult
from mnist_fp8.record.entries import Codes, Cost, Formats, Signature, Support, Text, Value
from support.comparing import EVERY_KIND, HOST, TODAY, F, changed, compared, curves, numbers, record

ERROR = "numerics/R/output against float64"


# --- verdicts ------------------------------------------------------------------------------------------------------


def test_entries_of_one_side_count_as_compared() -> None:
    found = compared({"variables/R/a": Text("1")}, {"variables/R/b": Text("1")})
    assert found.compared == {"variables": 2}


def test_names_that_more_users_import_come_first() -> None:
    names = ["api/transformer_engine.jax.quantize.a", "api/transformer_engine.jax.z"]
    (difference,) = compared({name: changed() for name in names} | EVERY_KIND, EVERY_KIND).of("api")[:1]
    assert difference.entries[0].key == names[1]


def test_record_against_itself_is_safe_without_difference() -> None:
    found = compared(EVERY_KIND, dict(EVERY_KIND))
    assert found.verdict is UpgradeVerdict.SAFE
    assert found.differences == ()
    assert found.compared == {"api": 1, "recipes": 1, "numerics": 1, "special": 1, "training": 1, "costs": 1}


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ({"float8/R/types": Formats(("float8_e4m3fn",))}, {"float8/R/types": Formats(())}, "BROKEN"),
        ({"bits/R/t": Codes("1", 1, 0)}, {"bits/R/t": Codes("2", 1, 0)}, "CHANGED"),
        ({}, {"api/transformer_engine.jax.f": Signature("function")}, "SAFE"),
        ({"bits/R/t": Text("1")}, {"special/R/t": Text("1")}, "BROKEN"),
        ({}, {}, "UNVERIFIED"),
    ],
    ids=["breaks", "changes", "notes", "breaks before unverified", "nothing in common"],
)
def test_verdict_is_that_of_the_worst(old: dict[str, Value], new: dict[str, Value], verdict: str) -> None:
    both: dict[str, Value] = {"recipes/R/support": Support(ok=True)} if old != new or old else {}
    assert compared(both | old, both | new).verdict.value == verdict


def test_old_release_that_could_not_be_measured_leaves_the_upgrade_unverified() -> None:
    found = compare(record("1.0.0", problem="no\u00a0import"), record(entries=EVERY_KIND), (), TODAY)
    assert found.verdict is UpgradeVerdict.UNVERIFIED
    assert "could not be measured" in found.unverified[0]


def test_new_release_that_does_not_start_is_broken_in_its_own_words() -> None:
    found = compare(record("1.0.0", EVERY_KIND), record(problem="ImportError: libfoo"), (), TODAY)
    assert found.verdict is UpgradeVerdict.BROKEN
    (start,) = found.of("behaviour")
    assert (start.entries[0].old, start.entries[0].new) == (Text("works"), Text("ImportError: libfoo"))


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
    old: dict[str, Value] = {ERROR: numbers(1.0), "training/TE/loss": curves(1.0), "bits/R/t": Text("1")}
    new: dict[str, Value] = {ERROR: numbers(1.01), "training/TE/loss": curves(1.1), "bits/R/t": Text("2")}
    found = compare(record("1.0.0", old), record(entries=new, environment=HOST | {name: "other"}), (), TODAY)
    assert [difference.area for difference in found.differences] == ["bits"]
    assert any("measured on different devices" in limit for limit in found.limits)
    assert "training" not in found.compared


def test_other_data_leave_training_out() -> None:
    old: dict[str, Value] = {"training/TE/loss": curves(1.0), "bits/R/t": Text("1")}
    new = old | {"training/TE/loss": curves(2.0)}
    found = compare(record("1.0.0", old), record(entries=new, environment=HOST | {"data": "e"}), (), TODAY)
    assert found.differences == ()
    assert any("different data" in limit for limit in found.limits)


def test_entries_of_another_measuring_code_are_left_out_where_they_are_ours() -> None:
    old: dict[str, Value] = {"bits/R/t": Text("1")}
    new = old | {"bits/R/new": Text("1"), "api/transformer_engine.jax.f": F}
    found = compare(record("1.0.0", old), record(entries=new, settings="other"), (), TODAY)
    assert [difference.area for difference in found.differences] == ["api"], "names are TE's own"
    assert any("different versions of mnist-fp8" in limit for limit in found.limits)


def test_other_versions_around_transformer_engine_are_named() -> None:
    found = compare(record("1.0.0", EVERY_KIND), record(entries=EVERY_KIND, environment=HOST | {"jax": "9"}), (), TODAY)
    assert any("jax 0.10.2 → 9" in limit for limit in found.limits)


# --- claims --------------------------------------------------------------------------------------------------------


def judged(**outcomes: Outcome) -> SuiteResult:
    """One claim named c, with a test for each outcome."""
    tests = tuple(TestResult(f"f.py::{name}", outcome, f"why {name}") for name, outcome in outcomes.items())
    return SuiteResult((ClaimResult("c", tests),), "host run")


def with_claims(old: SuiteResult | None, new: SuiteResult | None) -> Comparison:
    return compare(record("1.0.0", EVERY_KIND, suite=old), record(entries=EVERY_KIND, suite=new), (), TODAY)


PASSED, FAILED, SKIPPED, KNOWN = Outcome.PASSED, Outcome.FAILED, Outcome.SKIPPED, Outcome.KNOWN


def test_claim_that_breaks_breaks_the_upgrade() -> None:
    found = with_claims(judged(a=PASSED, b=PASSED), judged(a=PASSED, b=FAILED))
    assert found.verdict is UpgradeVerdict.BROKEN
    (difference,) = found.differences
    assert (difference.area, difference.subject) == ("claims", "c")
    assert "The old release keeps this promise" in difference.rule.meaning
    assert (difference.entries[0].old, difference.entries[0].new) == (Text("passed"), Text("failed: why b"))


def test_claim_that_was_broken_before_still_breaks_and_says_so() -> None:
    found = with_claims(judged(a=FAILED), judged(a=FAILED))
    assert found.verdict is UpgradeVerdict.BROKEN
    assert "Neither release keeps" in found.differences[0].rule.meaning


def test_known_defect_that_is_new_changes_something() -> None:
    found = with_claims(judged(a=PASSED), judged(a=KNOWN))
    assert found.verdict is UpgradeVerdict.CHANGED
    assert with_claims(judged(a=KNOWN), judged(a=KNOWN)).verdict is UpgradeVerdict.SAFE, "Control: known before"


def test_claims_alone_are_enough_to_compare() -> None:
    """That is what ``--only claims/c`` asks for."""
    old, new = (record(te, suite=judged(a=PASSED)) for te in ("1.0.0", "2.0.0"))
    assert compare(old, new, (), TODAY).verdict is UpgradeVerdict.SAFE


def test_test_that_passed_and_is_skipped_now_is_told() -> None:
    found = with_claims(judged(a=PASSED, b=PASSED), judged(a=PASSED, b=SKIPPED))
    assert found.verdict is UpgradeVerdict.CHANGED
    assert "not verified" in found.differences[0].rule.meaning


def test_claim_that_is_not_verified_any_more_leaves_the_upgrade_unverified() -> None:
    kept = ClaimResult("d", (TestResult("t", PASSED),))
    old, new = (
        dataclasses.replace(each, claims=(*each.claims, kept)) for each in (judged(a=PASSED), judged(a=SKIPPED))
    )
    found = with_claims(old, new)
    assert found.verdict is UpgradeVerdict.UNVERIFIED
    assert found.unverified == ("claim c was verified before and is not now",)


def test_claim_that_neither_side_verifies_is_named_with_what_it_takes() -> None:
    skipped = TestResult("t", SKIPPED, "needs 2 devices; found 1")
    sides = [
        dataclasses.replace(judged(a=PASSED), claims=(ClaimResult(name, (skipped,)), ClaimResult("e", (one,))))
        for name, one in (("d", TestResult("t", PASSED)), ("d", skipped))
    ]
    limits = with_claims(*sides).limits
    assert limits == ("verified on neither side: d (needs 2 devices; found 1)",), "e was verified on one of them"
    assert not with_claims(judged(a=PASSED), judged(a=PASSED)).limits, "Control: nothing to say"


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
    assert [detail.key for detail in accepted.entries] == ["api/transformer_engine.jax.g"]
    assert not counting.accepted


def test_expired_acceptance_counts_no_more_and_is_named() -> None:
    found = accepting("api/transformer_engine.jax.*", TODAY - dt.timedelta(days=1))
    assert found.verdict is UpgradeVerdict.BROKEN
    assert found.stale == ("api/transformer_engine.jax.*: accepted until 2026-11-24, which is over",)


def test_acceptance_by_rule_accepts_only_what_comes_under_it() -> None:
    removed = Acceptance("", "we use neither", TODAY, rule="api-name-removed")
    bits: dict[str, Value] = {"bits/R/t": Codes("1", 1, 0)}
    sides = record("1.0.0", GONE | EVERY_KIND | bits), record(entries=EVERY_KIND | {"bits/R/t": Codes("2", 1, 0)})
    assert compare(*sides, (removed,), TODAY).verdict is UpgradeVerdict.CHANGED
    assert compare(*sides, (), TODAY).verdict is UpgradeVerdict.BROKEN, "Control: not accepted"


def test_what_does_not_start_cannot_be_accepted() -> None:
    everything = Acceptance("behaviour/*", "why", TODAY)
    assert compare(record("1.0.0", EVERY_KIND), record(problem="gone"), (everything,), TODAY).verdict.value == "BROKEN"


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
