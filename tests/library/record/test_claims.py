"""What tests of a claim say together."""

import pytest

from mnist_fp8.record.claims import ClaimResult, ClaimStatus, Outcome, SuiteResult, TestResult, claim_names

PASSED, FAILED, SKIPPED, KNOWN = Outcome.PASSED, Outcome.FAILED, Outcome.SKIPPED, Outcome.KNOWN


def claim(*outcomes: Outcome, name: str = "numerics") -> ClaimResult:
    return ClaimResult(name, tuple(TestResult(f"test_{i}", each, "why") for i, each in enumerate(outcomes)))


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        ([PASSED, PASSED], ClaimStatus.HOLDS),
        ([PASSED, SKIPPED], ClaimStatus.HOLDS),
        ([PASSED, KNOWN, SKIPPED], ClaimStatus.KNOWN),
        ([PASSED, KNOWN, FAILED, SKIPPED], ClaimStatus.BROKEN),
        ([SKIPPED, SKIPPED], ClaimStatus.NOT_VERIFIED),
        ([], ClaimStatus.NOT_VERIFIED),
    ],
)
def test_status_is_the_worst_that_is_said(outcomes: list[Outcome], status: ClaimStatus) -> None:
    assert claim(*outcomes).status is status
    assert claim(*reversed(outcomes)).status is status


def test_only_a_claim_whose_tests_all_passed_needs_no_explanation() -> None:
    assert claim(PASSED, PASSED).is_plain
    for outcomes in ([PASSED, SKIPPED], [PASSED, KNOWN], [FAILED], [SKIPPED], []):
        assert not claim(*outcomes).is_plain


def test_tests_are_selected_by_outcome_and_counted_by_status() -> None:
    found = SuiteResult((claim(PASSED, SKIPPED, SKIPPED), claim(FAILED, name="parity"), claim(FAILED, name="jaxpr")))
    assert [test.name for test in found.claims[0].of(SKIPPED)] == ["test_1", "test_2"]
    assert (found.count(ClaimStatus.BROKEN), found.count(ClaimStatus.HOLDS), found.count(ClaimStatus.KNOWN)) == (
        2,
        1,
        0,
    )
    assert found.claim("parity") is found.claims[1]


def test_headline_is_the_first_line_of_the_reason() -> None:
    assert TestResult("t", FAILED, "\nstep 0: wrong\nassert 1 == 2").headline == "step 0: wrong"
    assert TestResult("t", PASSED).headline == ""


def test_some_claims_are_the_others_left_out() -> None:
    found = SuiteResult((claim(name="b"), claim(name="a"), claim(name="c")), "host run")
    assert found.only(["c", "b", "d"]) == SuiteResult((claim(name="b"), claim(name="c")), "host run")


def test_names_of_claims_keep_their_order_and_come_once() -> None:
    one, other = SuiteResult((claim(name="b"), claim(name="a"))), SuiteResult((claim(name="c"), claim(name="a")))
    assert claim_names([one, other]) == ("b", "a", "c")


def test_tests_of_a_layer_are_together_whatever_claim_they_are_of() -> None:
    def test(name: str, subject: str, outcome: Outcome = Outcome.PASSED) -> TestResult:
        return TestResult(name, outcome, "", subject)

    one = ClaimResult("one", (test("a", "LayerNormMLP"), test("b", ""), test("c", "LayerNorm", Outcome.FAILED)))
    two = ClaimResult("two", (test("d", "LayerNormMLP"), test("e", "Another", Outcome.SKIPPED)))
    found = SuiteResult((one, two), "host run", 1.0).by_subject
    assert {claim.name: [each.name for each in claim.tests] for claim in found.claims} == {
        "LayerNorm": ["c"],
        "LayerNormMLP": ["a", "d"],
        "Another": ["e"],
    }
    assert [claim.status.value for claim in found.claims] == ["broken", "holds", "not verified"]
    assert found.run == "host run"
