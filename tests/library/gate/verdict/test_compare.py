"""Two records compared: the verdict, what can be compared, claims, acceptances, and commands."""

import dataclasses
import datetime as dt

import pytest

from mnist_fp8.core.capability import VARIABLE as CAPABILITY
from mnist_fp8.core.errors import RecordError
from mnist_fp8.core.model import CONTENTS, FOLDER, VARIABLE
from mnist_fp8.gate.verdict.compare import compare
from mnist_fp8.gate.verdict.comparison import Comparison, UpgradeVerdict
from mnist_fp8.gate.verdict.coverage import NOT_ASKED_FOR, Effect, Gap, GapKind
from mnist_fp8.gate.verdict.policy import Acceptance
from mnist_fp8.record.checkpoints import CHECKPOINT_FILES
from mnist_fp8.record.claims import ClaimResult, Outcome, SuiteResult, TestResult
from mnist_fp8.record.entries import (
    Agreement,
    Codes,
    Cost,
    Failure,
    Formats,
    Signature,
    Support,
    Text,
    Value,
)
from mnist_fp8.record.packages import Imported
from support.comparing import EVERY_KIND, HOST, TODAY, WHOLE, F, changed, compared, curves, numbers, record

ERROR = "numerics/R/output against float64"


# --- verdicts ------------------------------------------------------------------------------------------------------


def test_entries_of_one_side_count_as_compared() -> None:
    found = compared({"variables/R/a": Text("1")}, {"variables/R/b": Text("1")})
    assert found.compared == {"claims": 1, "variables": 2}


def test_names_that_more_users_import_come_first() -> None:
    names = ["api/transformer_engine.jax.quantize.a", "api/transformer_engine.jax.z"]
    (difference,) = compared({name: changed() for name in names} | EVERY_KIND, EVERY_KIND).of("api")[:1]
    assert difference.entries[0].key == names[1]


def test_record_against_itself_is_safe_without_difference() -> None:
    found = compared(EVERY_KIND, dict(EVERY_KIND))
    assert found.verdict is UpgradeVerdict.SAFE
    assert found.differences == ()
    assert sum(found.compared.values()) == len(EVERY_KIND) + 1, "and a claim"


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ({"float8/R/types": Formats(("float8_e4m3fn",))}, {"float8/R/types": Formats(())}, "BROKEN"),
        ({"bits/R/t": Codes("1", 1, 0)}, {"bits/R/t": Codes("2", 1, 0)}, "CHANGED"),
        ({}, {"api/transformer_engine.jax.f": Signature("function")}, "SAFE"),
        ({"float8/R/t": Formats(("e",)), "special/R/t": Text("1")}, {"float8/R/t": Formats(())}, "BROKEN"),
        ({"bits/R/t": Codes("1", 1, 0), "special/R/t": Text("1")}, {"bits/R/t": Codes("2", 1, 0)}, "UNVERIFIED"),
        ({"bits/R/t": Codes("1", 1, 0)}, {"bits/R/t": Codes("2", 1, 0), "special/R/t": Text("1")}, "CHANGED"),
        ({}, {"special/R/t": Text("1")}, "PARTIAL"),
    ],
    ids=[
        *("breaks", "changes", "notes", "breaks before unverified", "unverified before changes"),
        *("changes before partial", "partial"),
    ],
)
def test_verdict_is_that_of_the_worst(old: dict[str, Value], new: dict[str, Value], verdict: str) -> None:
    assert compared(WHOLE | old, WHOLE | new).verdict.value == verdict


def test_records_with_nothing_in_common_verify_nothing() -> None:
    assert compared({}, {}, suite=None).verdict is UpgradeVerdict.UNVERIFIED


def test_old_release_that_could_not_be_measured_leaves_the_upgrade_unverified() -> None:
    found = compare(record("1.0.0", problem="no\u00a0import"), record(entries=EVERY_KIND), (), TODAY)
    assert found.verdict is UpgradeVerdict.UNVERIFIED
    assert kinds(found) == {GapKind.OLD_PROBLEM}


def test_new_release_that_does_not_start_is_broken_in_its_own_words() -> None:
    found = compare(record("1.0.0", EVERY_KIND), record(problem="ImportError: libfoo"), (), TODAY)
    assert found.verdict is UpgradeVerdict.BROKEN
    (start,) = found.of("behaviour")
    assert (start.entries[0].old, start.entries[0].new) == (Text("works"), Text("ImportError: libfoo"))


def test_costs_are_told_and_change_no_verdict() -> None:
    key = "costs/import/time"
    found = compared({**EVERY_KIND, key: Cost((1.0, 2.0, 3.0), "s")}, {**EVERY_KIND, key: Cost((20.0,), "s")})
    assert found.verdict is UpgradeVerdict.SAFE
    (cost,) = found.costs
    assert (cost.name, cost.old, cost.new, cost.ratio, cost.spread) == ("import/time", 2.0, 20.0, 10.0, 0.5)
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


def test_other_models_are_told_and_change_nothing_else() -> None:
    def found(*sides: dict[str, str]) -> Comparison:
        old, new = (record(te, EVERY_KIND, environment=HOST | side) for te, side in zip("12", sides, strict=True))
        return compare(old, new, (), TODAY)

    ours = {VARIABLE: "ours.model:case", CONTENTS: "c1", FOLDER: "/a"}
    assert found(ours, ours | {FOLDER: "/b"}).limits == (), "the same code in another folder"
    (limit,) = found(ours, ours | {CONTENTS: "c2"}).limits
    assert "the models are not the same (ours.model:case, code c1; ours.model:case, code c2)" in limit
    (limit,) = found({}, {VARIABLE: "installed:case"}).limits
    assert "the models are not the same (the network of mnist-fp8; installed:case)" in limit


def test_other_capabilities_are_told_and_change_nothing_else() -> None:
    def found(*sides: dict[str, str]) -> Comparison:
        old, new = (record(te, EVERY_KIND, environment=HOST | side) for te, side in zip("12", sides, strict=True))
        return compare(old, new, (), TODAY)

    assert found({CAPABILITY: "10.0"}, {CAPABILITY: "10.0"}).limits == ()
    assert found({CAPABILITY: ""}, {}).limits == ()
    (limit,) = found({}, {CAPABILITY: "10.0"}).limits
    assert limit.startswith(
        "the host runs pretend different compute capabilities (9.0, and 10.0 for MXFP8 and NVFP4; 10.0): "
    )
    (limit,) = found({CAPABILITY: "10.0"}, {CAPABILITY: "9.0"}).limits
    assert "capabilities (10.0; 9.0): " in limit


def test_claims_hold_defaults_of_recipes_where_a_switch_decides_them() -> None:
    side = record("1", EVERY_KIND, environment=HOST | {"NVTE_NVFP4_DISABLE_RHT": "1", "NVTE_FUSED_ATTN": "0"})
    (limit,) = compare(side, side, (), TODAY).limits
    assert limit.startswith("measured with NVTE_NVFP4_DISABLE_RHT=1; the claims were verified without")


def test_checkpoints_of_another_upgrade_are_left_out() -> None:
    old: dict[str, Value] = {**WHOLE, "checkpoints/R/Orbax/as restored": numbers(1.0)}
    new: dict[str, Value] = old | {"checkpoints/R/Orbax/as restored": numbers(2.0)}
    assert compared(old, new).verdict is UpgradeVerdict.BROKEN, "Control"
    found = compared(old, new | {CHECKPOINT_FILES: Text("other")})
    assert found.verdict is UpgradeVerdict.PARTIAL
    assert found.limits == ("the records are not of one upgrade: checkpoints are not compared",)
    assert found.differences == ()


def test_checkpoints_that_nobody_tried_are_named() -> None:
    alone = {key: value for key, value in WHOLE.items() if area_of(key) != "checkpoints"}
    found = compared(alone, alone)
    assert found.verdict is UpgradeVerdict.SAFE, "a record of one installation cannot have any"
    assert Gap(GapKind.CHECKPOINTS, Effect.NOTED) in found.coverage.gaps
    assert Gap(GapKind.CHECKPOINTS, Effect.NOTED) not in compared(WHOLE, WHOLE).coverage.gaps


def test_command_for_what_is_of_a_model_names_the_model() -> None:
    ours = HOST | {VARIABLE: "ours.model:case", FOLDER: "/my src"}
    found = compare(record("1.0.0", environment=ours), record("2.0.0", environment=ours), (), TODAY)
    said = "mnist-fp8 upgrade 1.0.0 2.0.0 --model ours.model:case --model-path '/my src' --only "
    for key in ("claims/model_float8", "layers/ours.model:case/model/BF16/numerics/x"):
        assert found.command(key) == f"{said}{key}"
    assert found.command("claims/kernels") == "mnist-fp8 upgrade 1.0.0 2.0.0 --only claims/kernels"


# --- claims --------------------------------------------------------------------------------------------------------


def judged(**outcomes: Outcome) -> SuiteResult:
    """One claim named c, with a test for each outcome."""
    tests = tuple(TestResult(f"f.py::{name}", outcome, f"why {name}") for name, outcome in outcomes.items())
    return SuiteResult((ClaimResult("c", tests),), "host run")


def kinds(found: Comparison, *effects: Effect) -> set[GapKind]:
    """Why something was not looked at, as far as the verdict rests on it."""
    effects = effects or (Effect.UNVERIFIED, Effect.PARTIAL)
    return {gap.kind for gap in found.coverage.gaps if gap.effect in effects}


def with_claims(old: SuiteResult | None, new: SuiteResult | None) -> Comparison:
    return compare(record("1.0.0", WHOLE, suite=old), record(entries=WHOLE, suite=new), (), TODAY)


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
    """That is what ``--only claims/c`` asks for; it is a part."""
    old, new = (record(te, suite=judged(a=PASSED)) for te in ("1.0.0", "2.0.0"))
    assert compare(old, new, (), TODAY).verdict is UpgradeVerdict.PARTIAL


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
    assert found.coverage.gaps[0] == Gap(GapKind.CLAIMS_LOST, Effect.UNVERIFIED, ("c",))


def test_claim_that_neither_side_verifies_is_named_with_what_it_takes() -> None:
    skipped, passed = TestResult("d::t", SKIPPED, "needs 2 devices; found 1"), TestResult("e::t", PASSED)
    others = tuple(ClaimResult(name, (TestResult(f"{name}::t", PASSED),)) for name in "ab")
    side = dataclasses.replace(judged(), claims=(ClaimResult("d", (skipped,)), ClaimResult("e", (passed,)), *others))
    (gap,) = with_claims(side, side).coverage.gaps
    assert gap == Gap(GapKind.SKIPPED_CLAIMS, Effect.NOTED, ("d",), "needs 2 devices; found 1")
    assert with_claims(side, side).verdict is UpgradeVerdict.SAFE
    assert not with_claims(judged(a=PASSED), judged(a=PASSED)).coverage.gaps, "Control: nothing to say"
    half = dataclasses.replace(side, claims=side.claims[:2])
    assert with_claims(half, half).verdict is UpgradeVerdict.UNVERIFIED, "half of the claims is too many"


def test_nothing_verified_is_no_success() -> None:
    assert with_claims(judged(a=SKIPPED), judged(a=SKIPPED)).verdict is UpgradeVerdict.UNVERIFIED


def test_records_without_claims_say_so() -> None:
    assert with_claims(None, judged(a=PASSED)).verdict is UpgradeVerdict.PARTIAL
    assert with_claims(None, None).verdict is UpgradeVerdict.PARTIAL
    assert kinds(with_claims(None, None)) == {GapKind.NO_CLAIMS}
    assert with_claims(judged(a=PASSED), None).verdict is UpgradeVerdict.UNVERIFIED, "they were verified before"
    assert with_claims(judged(a=PASSED), judged(a=PASSED)).verdict is UpgradeVerdict.SAFE, "Control"


def test_claims_that_broke_off_verify_too_little() -> None:
    broke_off = dataclasses.replace(judged(a=PASSED), problem="it hung")
    for sides in ((broke_off, judged(a=PASSED)), (judged(a=PASSED), broke_off)):
        assert kinds(with_claims(*sides)) == {GapKind.SUITE_BROKE_OFF}


# --- coverage --------------------------------------------------------------------------------------------------------


TESTS = {"a": ("test_a", "test_b"), "b": ("test_c",)}
"""Test functions of a suite of two claims."""


def suite(*names: str) -> SuiteResult:
    """Tests that passed; a name is ``claim::test``."""
    claims = dict.fromkeys(name.partition("::")[0] for name in names)
    return SuiteResult(
        tuple(
            ClaimResult(claim, tuple(TestResult(name, PASSED) for name in names if name.startswith(f"{claim}::")))
            for claim in claims
        ),
        "host run",
    )


ALL = suite("a::test_a[1]", "a::test_a[2]", "a::test_b", "b::test_c")
FAILS = Failure("ValueError", "no")


def area_of(key: str) -> str:
    return key.partition("/")[0]


@pytest.mark.parametrize("area", sorted({area_of(key) for key in WHOLE} - {"checkpoints"}))
def test_area_that_neither_record_has_is_never_safe(area: str) -> None:
    cut = {key: value for key, value in WHOLE.items() if area_of(key) != area}
    assert compared(WHOLE, WHOLE).verdict is UpgradeVerdict.SAFE, "Control"
    assert compared(cut, cut).verdict is UpgradeVerdict.PARTIAL


@pytest.mark.parametrize("key", [key for key in WHOLE if not key.startswith("api/")])
def test_entry_that_is_gone_on_a_side_is_never_safe(key: str) -> None:
    cut = {name: value for name, value in WHOLE.items() if name != key}
    for settings in ("s", "those of another mnist-fp8"):
        for sides in ((WHOLE, cut), (cut, WHOLE)):
            old, new = record("1.0.0", sides[0]), record("2.0.0", sides[1], settings=settings)
            assert compare(old, new, (), TODAY).verdict is not UpgradeVerdict.SAFE, (settings, sides[0] is cut)


def test_import_that_one_side_was_not_measured_for_is_a_part_and_no_difference() -> None:
    without = {key: value for key, value in WHOLE.items() if area_of(key) != "import"}
    whole = WHOLE | {"import/packages/pydantic": Imported(declared=False)}
    for sides, te in (((whole, without), "2.0.0"), ((without, whole), "1.0.0")):
        found = compared(*sides)
        assert (found.differences, found.verdict) == ((), UpgradeVerdict.PARTIAL)
        assert f"what the import of {te} does to its process was not measured" in found.limits


def test_side_that_does_not_start_has_no_other_limits() -> None:
    found = compare(record("1.0.0", WHOLE), record("2.0.0", {}, problem="ImportError: no libfoo"), (), TODAY)
    assert found.limits == ()


def test_only_names_are_a_part() -> None:
    api = {key: value for key, value in WHOLE.items() if key.startswith("api/")}
    assert kinds(compared(api, api)) == {GapKind.AREAS}
    assert compared(api, api, suite=None).verdict is UpgradeVerdict.PARTIAL


def test_entries_of_the_old_side_only_are_named_and_no_error() -> None:
    old = WHOLE | {"special/R/x": Text("1"), "numerics/S/x": numbers(1.0)}
    found = compared(old, WHOLE)
    assert found.coverage.of(Effect.UNVERIFIED) == (
        Gap(GapKind.ENTRIES_LOST, Effect.UNVERIFIED, ("special/R/x", "numerics/S/x")),
    )
    assert found.differences == ()


def test_number_that_the_new_side_lacks_is_not_verified() -> None:
    found = compared(WHOLE | {ERROR: numbers(1.0, 2.0)}, WHOLE | {ERROR: numbers(1.0)})
    assert kinds(found) == {GapKind.ENTRIES_LOST}


def test_entries_that_fail_on_both_sides_are_verified_on_neither() -> None:
    few = WHOLE | {"special/R/x": FAILS}
    (gap,) = compared(few, few).coverage.gaps
    assert gap == Gap(GapKind.FAILING, Effect.NOTED, ("special/R/x",), "ValueError: no")
    assert compared(few, few).verdict is UpgradeVerdict.SAFE


@pytest.mark.parametrize("failing", [1, 20])
def test_area_of_which_half_fails_on_the_old_side_is_compared_in_part(failing: int) -> None:
    """What comes to work is no difference to look at; but then nothing is known of what it was."""
    new = WHOLE | {f"special/BF16/{number}": Text("1") for number in range(20)}
    found = compared(new | dict.fromkeys([*new][-failing:], FAILS), new)
    assert {difference.rule.id for difference in found.differences} == {"works-now"}
    expected = ({GapKind.OLD_FAILING}, UpgradeVerdict.PARTIAL) if failing > 1 else (set(), UpgradeVerdict.SAFE)
    assert (kinds(found), found.verdict) == expected


@pytest.mark.parametrize("area", sorted({area_of(key) for key in WHOLE} - {"recipes"}))
def test_area_of_which_half_fails_on_both_sides_is_unverified(area: str) -> None:
    keys = [key for key in WHOLE if area_of(key) == area]
    half = WHOLE | dict.fromkeys(keys[: (len(keys) + 1) // 2], FAILS)
    assert compared(half, half).verdict is UpgradeVerdict.UNVERIFIED


def test_subjects_that_fail_as_a_whole_count_as_much_as_those_with_many_entries() -> None:
    """A probe that fails leaves one entry in place of many."""
    many = WHOLE | {f"special/BF16/{number}": Text("1") for number in range(20)}
    sides = {key: value for key, value in many.items() if not key.startswith("special/R/")} | {"special/R": FAILS}
    assert compared(sides, sides).verdict is UpgradeVerdict.UNVERIFIED


def test_recipe_that_runs_and_is_not_measured_is_no_part_of_what_is_safe() -> None:
    both = WHOLE | {"recipes/S/support": Support(ok=True)}
    found = compared(both, both)
    assert (found.verdict, found.coverage.modes) == (UpgradeVerdict.PARTIAL, ("BF16", "R"))
    assert kinds(found) == {GapKind.MODES}


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        (ALL, suite("a::test_a[1]", "b::test_c"), GapKind.TESTS_LOST),
        (ALL, suite("a::test_a[1]", "a::test_a[2]", "a::test_b"), GapKind.CLAIMS_LOST),
        (suite("a::test_a[1]", "b::test_c"), suite("a::test_a[1]", "b::test_c"), GapKind.TESTS_MISSING),
        (suite("b::test_c"), suite("b::test_c"), GapKind.TESTS_MISSING),
        (suite("b::test_c"), ALL, GapKind.TESTS_MISSING),
    ],
    ids=["a test gone", "a claim gone", "one test a claim", "claims that both lack", "claims that the old side lacks"],
)
def test_claims_that_were_cut_down_are_never_safe(old: SuiteResult, new: SuiteResult, kind: GapKind) -> None:
    sides = record("1.0.0", WHOLE, suite=old), record("2.0.0", WHOLE, suite=new)
    found = compare(*sides, (), TODAY, tests=TESTS)
    assert kind in kinds(found)
    assert found.verdict in (UpgradeVerdict.PARTIAL, UpgradeVerdict.UNVERIFIED)
    whole = record("1.0.0", WHOLE, suite=ALL), record("2.0.0", WHOLE, suite=ALL)
    assert compare(*whole, (), TODAY, tests=TESTS).verdict is UpgradeVerdict.SAFE, "Control"


def test_test_may_be_spared_where_the_new_side_passes_it() -> None:
    spared = dataclasses.replace(ALL, claims=tuple(_spared(claim) for claim in ALL.claims))
    old, new = record("1.0.0", WHOLE, suite=spared), record("2.0.0", WHOLE, suite=ALL)
    found = compare(old, new, (), TODAY, tests=TESTS)
    names = tuple(test.name for claim in ALL.claims for test in claim.tests)
    assert (found.verdict, found.coverage.gaps) == (
        UpgradeVerdict.SAFE,
        (Gap(GapKind.SPARED_TESTS, Effect.NOTED, names),),
    )
    for sides in ((new, old), (old, old)):
        found = compare(*sides, (), TODAY, tests=TESTS)
        assert found.verdict is UpgradeVerdict.UNVERIFIED
        assert GapKind.NOT_RUN in kinds(found)


def _spared(claim: ClaimResult) -> ClaimResult:
    tests = tuple(dataclasses.replace(test, outcome=Outcome.SPARED) for test in claim.tests)
    return dataclasses.replace(claim, tests=tests)


def test_tests_of_layers_that_were_not_asked_for_are_one_gap() -> None:
    tests = tuple(
        TestResult(f"a::t[{layer}]", SKIPPED, f"needs subject {layer}", layer)
        for layer in ("LayerNorm", "LayerNormMLP", "RelativePositionBiases", "DenseGeneral")
    )
    claims = dataclasses.replace(ALL, claims=(*ALL.claims, ClaimResult("c", (TestResult("c::t", PASSED), *tests))))
    asked = {key: value for key, value in WHOLE.items() if "RelativePositionBiases" not in key}
    old, new = (record(version, asked, suite=claims) for version in ("1.0.0", "2.0.0"))
    gaps = [gap for gap in compare(old, new, (), TODAY).coverage.gaps if gap.kind is GapKind.SKIPPED_TESTS]
    others = [Gap(GapKind.SKIPPED_TESTS, Effect.NOTED, (test.name,), test.reason) for test in (*tests[:2], tests[3])]
    assert sorted(gaps, key=str) == sorted(
        [*others, dataclasses.replace(others[0], names=(tests[2].name,), reason=NOT_ASKED_FOR)], key=str
    )


def test_what_was_asked_for_in_part_is_partial() -> None:
    whole = record("1.0.0", WHOLE)
    assert compare(whole, whole, (), TODAY, only=("api",)).verdict is UpgradeVerdict.PARTIAL
    cut = dataclasses.replace(whole, only=("numerics",))
    assert compare(whole, cut, (), TODAY).verdict is UpgradeVerdict.PARTIAL
    assert compare(cut, whole, (), TODAY).coverage.gaps == (Gap(GapKind.ONLY, Effect.PARTIAL, ("numerics",)),)


def test_record_that_does_not_say_its_kind_of_run_is_a_part() -> None:
    assert compare(record("1.0.0", WHOLE, run=""), record("2.0.0", WHOLE), (), TODAY).verdict.value == "PARTIAL"


@pytest.mark.parametrize("name", ["device", "data"])
def test_areas_that_cannot_be_compared_leave_a_part(name: str) -> None:
    other = record("2.0.0", WHOLE, environment=HOST | {name: "other"})
    assert compare(record("1.0.0", WHOLE), other, (), TODAY).verdict is UpgradeVerdict.PARTIAL


def test_layers_and_recipes_that_are_not_looked_at_are_named() -> None:
    layer = "api/transformer_engine.jax.flax.Softmax"
    both = WHOLE | {
        layer: Signature("class"),
        f"{layer}.__call__": Signature("method"),
        "api/transformer_engine.jax.flax.LayerType": Signature("class"),
        "recipes/S/support": Support(ok=False, reason="needs Blackwell"),
    }
    found = compared(both, both)
    assert found.coverage.layers == {"DenseGeneral": ("BF16", "R")}
    assert found.coverage.gaps == (
        Gap(GapKind.RECIPES, Effect.NOTED, ("S",), "needs Blackwell"),
        Gap(GapKind.LAYERS, Effect.NOTED, ("Softmax",)),
    )


@pytest.mark.parametrize("ok", [True, False])
def test_recipe_that_the_project_does_not_know_is_named(ok: bool) -> None:  # noqa: FBT001
    """Where it runs, no claim looks at it; where it does not, that is said with its reason."""
    both = WHOLE | {"recipes/New/support": Support(ok, "" if ok else "needs a later GPU")}
    gaps = [gap for gap in compared(both, both).coverage.gaps if gap.effect is Effect.NOTED]
    running, lacking = (GapKind.UNKNOWN_RECIPES, ""), (GapKind.RECIPES, "needs a later GPU")
    assert [(gap.kind, gap.reason) for gap in gaps if gap.names == ("New",)] == [running if ok else lacking]
    kinds = {gap.kind for gap in compared(WHOLE, WHOLE).coverage.gaps}
    assert GapKind.UNKNOWN_RECIPES not in kinds, "Control: a recipe that claims look at"


MLP = "layers/LayerNormMLP/gelu"
ABSENT, THERE = {f"{MLP}/support": Support(ok=False, reason="no gelu")}, {f"{MLP}/support": Support(ok=True)}
OF_MLP: dict[str, Value] = {
    f"{MLP}/BF16/variables/params/scale": Text("float32[1]"),
    f"{MLP}/BF16/numerics/errors": numbers(0.5),
    f"{MLP}/R/metadata/wi x amax": Agreement(),
}


def test_layers_and_options_that_come_or_go_are_one_difference_with_all_of_theirs() -> None:
    gone, new = compared(WHOLE | THERE | OF_MLP, WHOLE | ABSENT), compared(WHOLE | ABSENT, WHOLE | THERE | OF_MLP)
    assert [each.title for each in gone.differences] == ["LayerNormMLP: layer or option gone"]
    assert [each.title for each in new.differences] == ["LayerNormMLP: layer or option new"]
    assert (gone.verdict, new.verdict) == (UpgradeVerdict.BROKEN, UpgradeVerdict.SAFE)
    neither = compared(WHOLE | ABSENT, WHOLE | ABSENT)
    assert neither.coverage.gaps == (Gap(GapKind.LAYERS, Effect.NOTED, ("LayerNormMLP gelu",), "no gelu"),)


@pytest.mark.parametrize("settings", ["s", "other"])
def test_layer_that_one_side_was_not_measured_for_is_a_gap_and_no_difference(settings: str) -> None:
    """Its variables, too, although their names are Transformer Engine's."""
    found = compare(record("1.0.0", WHOLE | THERE | OF_MLP), record("2.0.0", WHOLE, settings=settings), (), TODAY)
    assert (found.verdict, found.differences) == (UpgradeVerdict.UNVERIFIED, ())
    (gap,) = found.coverage.of(Effect.UNVERIFIED)
    assert set(gap.names) == THERE.keys() | OF_MLP.keys()
    found = compare(record("1.0.0", WHOLE, settings=settings), record("2.0.0", WHOLE | THERE | OF_MLP), (), TODAY)
    assert (found.verdict, found.differences) == (UpgradeVerdict.PARTIAL, ())


def test_what_is_said_of_layers_is_said_of_those_that_both_sides_measured_in_each_mode() -> None:
    both = WHOLE | THERE | OF_MLP
    assert compared(both, both).coverage.layers == {"DenseGeneral": ("BF16", "R"), "LayerNormMLP": ("BF16", "R")}
    fails = {key: value for key, value in both.items() if not key.startswith(f"{MLP}/R/")} | {f"{MLP}/R": FAILS}
    found = compared(both, fails)
    assert found.coverage.layers == {"DenseGeneral": ("BF16", "R"), "LayerNormMLP": ("BF16",)}
    assert [each.title for each in found.differences] == ["LayerNormMLP: raises an error now"]


# --- Flax alone ------------------------------------------------------------------------------------------------------


def test_flax_alone_that_trains_differently_breaks_and_comes_first() -> None:
    old = WHOLE | {"training/Flax BF16/loss": curves(1.0, 1.1), "float8/R/t": Formats(("e",))}
    new = old | {"training/Flax BF16/loss": curves(1.001, 1.1), "float8/R/t": Formats(())}
    found = compared(old, new)
    assert [each.rule.id for each in found.differences] == ["flax-alone-changed", "float8-format-lost"]
    other = record("2.0.0", new, environment=HOST | {"flax": "0.13"})
    rules = {each.rule.id for each in compare(record("1.0.0", old), other, (), TODAY).differences}
    assert rules == {"training-path-changed", "float8-format-lost"}, "another Flax may do so"


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


def test_command_names_the_capability_that_was_asked_for() -> None:
    asked = HOST | {CAPABILITY: "10.0"}
    found = compare(record("1.0.0", environment=asked), record("2.0.0", environment=asked), (), TODAY)
    assert found.command("bits") == "mnist-fp8 upgrade 1.0.0 2.0.0 --capability 10.0 --only bits"


def test_command_measures_the_entry_again_on_both_sides() -> None:
    found = compared(EVERY_KIND, EVERY_KIND)
    assert found.command("bits/R/tensor 1: f8[2]") == "mnist-fp8 upgrade 1.0.0 2.0.0 --only 'bits/R/tensor 1: f8[2]'"


def test_command_names_the_versions_around_transformer_engine_where_they_differ() -> None:
    old = record("1.0.0", environment=HOST | {"jax": "0.9", "flax": "1"})
    found = compare(old, record("1.0.0", environment=HOST | {"jax": "0.10", "flax": "2"}), (), TODAY)
    assert found.command("x") == "mnist-fp8 upgrade 1.0.0 --jax 0.9:0.10 --flax 1:2 --only x"
