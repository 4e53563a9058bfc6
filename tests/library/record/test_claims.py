"""Verdicts, and records that are stored and read again."""

import json

import pytest

from mnist_fp8.core.errors import RecordError
from mnist_fp8.record.claims import ClaimResult, ClaimStatus, Outcome, SuiteResult, TestResult, claim_names

PASSED, FAILED, SKIPPED, KNOWN = Outcome.PASSED, Outcome.FAILED, Outcome.SKIPPED, Outcome.KNOWN


def claim(*outcomes: Outcome, name: str = "numerics") -> ClaimResult:
    return ClaimResult(name, tuple(TestResult(f"test_{i}", each, "why") for i, each in enumerate(outcomes)))


def verification(*claims: ClaimResult) -> SuiteResult:
    return SuiteResult(
        te="2.3.0",
        version="2.3.0",
        jax="0.5.0",
        flax="0.10.4",
        python="3.11.7",
        run="host run: on the CPU",
        claims=claims,
        seconds=12.5,
        problem="",
        facts={"default recipe": "DelayedScaling"},
        command="cd suite && python -m pytest",
    )


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
def test_verdict_is_the_worst_that_is_said(outcomes: list[Outcome], status: ClaimStatus) -> None:
    assert claim(*outcomes).status is status
    assert claim(*reversed(outcomes)).status is status


def test_only_a_claim_whose_tests_all_passed_needs_no_explanation() -> None:
    assert claim(PASSED, PASSED).is_plain
    for outcomes in ([PASSED, SKIPPED], [PASSED, KNOWN], [FAILED], [SKIPPED], []):
        assert not claim(*outcomes).is_plain


def test_tests_are_selected_by_outcome_and_counted_by_verdict() -> None:
    found = verification(claim(PASSED, SKIPPED, SKIPPED), claim(FAILED, name="parity"), claim(FAILED, name="jaxpr"))
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


def test_title_names_python_if_it_is_known() -> None:
    assert verification().title == "TE 2.3.0 (JAX 0.5.0, Flax 0.10.4, Python 3.11.7)"


def test_stored_record_is_read_as_it_was() -> None:
    found = verification(claim(PASSED, FAILED, SKIPPED, KNOWN), claim(name="parity"))
    assert SuiteResult.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_record_of_another_version_is_refused_in_one_line(version: object) -> None:
    document = verification().to_json() | {"schema_version": version}
    with pytest.raises(RecordError, match=f"^the record has schema version {version}; this mnist-fp8 reads 1$"):
        SuiteResult.from_json(document)


def test_names_of_claims_keep_their_order_and_come_once() -> None:
    one, other = verification(claim(name="b"), claim(name="a")), verification(claim(name="c"), claim(name="a"))
    assert claim_names([one, other]) == ("b", "a", "c")
