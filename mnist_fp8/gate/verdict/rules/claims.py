"""What a difference of claims, or a side that does not start, means."""

from collections.abc import Iterator, Mapping

from mnist_fp8.gate.verdict.changes import MISSING, Detail
from mnist_fp8.gate.verdict.rules.rule import Difference, Meaning, breaks, changes, together
from mnist_fp8.record.claims import ClaimResult, Outcome, TestResult, Verdict, Verification
from mnist_fp8.record.record import Record


def claim_differences(old: Verification | None, new: Verification | None) -> Iterator[Difference]:
    """What the suite says otherwise than before."""
    for claim in new.claims if new else ():
        before = next((each for each in old.claims if each.name == claim.name), None) if old else None
        yield from _claim_difference(claim, before)


def _claim_difference(new: ClaimResult, old: ClaimResult | None) -> Iterator[Difference]:
    was = {test.name: test for test in old.tests} if old else {}
    failed = new.of(Outcome.FAILED)
    if failed:
        also = old is not None and old.verdict is Verdict.BROKEN
        yield together("claims", new.name, of_claim(also=also), [_test_detail(new, test, was) for test in failed])
    known = [test for test in new.of(Outcome.KNOWN) if test.name in was and was[test.name].outcome is Outcome.PASSED]
    if known:
        yield together("claims", new.name, KNOWN_DEFECT, [_test_detail(new, test, was) for test in known])
    skipped = [
        test for test in new.of(Outcome.SKIPPED) if test.name in was and was[test.name].outcome is Outcome.PASSED
    ]
    if skipped:
        yield together("claims", new.name, SKIPPED, [_test_detail(new, test, was) for test in skipped])


def _test_detail(claim: ClaimResult, test: TestResult, was: Mapping[str, TestResult]) -> Detail:
    old = was[test.name].outcome.value if test.name in was else MISSING
    return Detail(f"claims/{claim.name}", old, f"{test.outcome.value}: {test.headline}", test.name.rpartition("::")[2])


def start_differences(old: Record, new: Record) -> Iterator[Difference]:
    """That the new side does not start."""
    if new.problem:
        detail = Detail("behaviour/start", old.problem or "works", new.problem)
        yield together("behaviour", "start", DOES_NOT_START, [detail])


KNOWN_DEFECT = changes(
    "A known defect of the new release.", "See docs/explanation/te-findings.md, and whether it concerns you."
)
SKIPPED = changes(
    "Tests that passed are not verified with the new release: it lacks what they need.", "See whether you need it, too."
)
DOES_NOT_START = breaks("Transformer Engine does not come up at all.", "Do not upgrade, or fix the installation first.")


def of_claim(*, also: bool) -> Meaning:
    """A claim that is broken."""
    if also:
        return breaks("A promise is not kept; the old release does not keep it either.", "Read the claim's file.")
    return breaks(
        "A promise that the old release keeps is broken.", "Do not upgrade; the claim's file says what it costs."
    )
