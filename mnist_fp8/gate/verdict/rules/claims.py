"""What it means that a claim ends differently, that a side does not start, or that an entry cannot be measured."""

from collections.abc import Iterator, Mapping

from mnist_fp8.gate.verdict.changes import EntryChange
from mnist_fp8.gate.verdict.rules.rule import Difference, Rule, breaks, changes, difference, note
from mnist_fp8.record.claims import ClaimResult, ClaimStatus, Outcome, SuiteResult, TestResult
from mnist_fp8.record.entries import Failure, Text
from mnist_fp8.record.record import Record

BROKEN = breaks(
    "claim-broken",
    "promise broken",
    "The old release keeps this promise and the new one does not.",
    "Do not upgrade; the claim's file says what it costs.",
)
BROKEN_BEFORE = breaks(
    "claim-broken-before",
    "promise broken on both sides",
    "Neither release keeps this promise.",
    "Read the claim's file.",
)
KNOWN_DEFECT = changes(
    "claim-known-defect",
    "known defect",
    "The new release has a known defect that the old one lacks.",
    "Read te-findings.md, and check whether it affects you.",
)
SKIPPED = changes(
    "claim-tests-not-verified",
    "tests no longer verified",
    "Tests that ran are not verified with the new release: it lacks what they need.",
    "Check whether you need it, too.",
)
HOLDS_NOW = note("claim-holds-now", "holds now", "Tests pass that failed, or had a known defect.")
DOES_NOT_START = breaks(
    "does-not-start",
    "does not start",
    "Transformer Engine does not start at all.",
    "Do not upgrade, or repair the installation first.",
)
FAILS_NOW = breaks(
    "fails-now",
    "raises an error now",
    "It fails, where it worked before.",
    "Read the message; do not upgrade if you use this.",
)
FAILS_AS_BEFORE = note("fails-as-before", "fails with another message", "It fails as before, with another message.")
WORKS_NOW = note("works-now", "works now", "It works now.")
RULES = (BROKEN, BROKEN_BEFORE, KNOWN_DEFECT, SKIPPED, HOLDS_NOW, DOES_NOT_START, FAILS_NOW, FAILS_AS_BEFORE, WORKS_NOW)


def claim_differences(old: SuiteResult | None, new: SuiteResult | None) -> Iterator[Difference]:
    """Claims that end differently than before."""
    for claim in new.claims if new else ():
        before = old.find(claim.name) if old else None
        yield from _claim_difference(claim, before)


def _claim_difference(new: ClaimResult, old: ClaimResult | None) -> Iterator[Difference]:
    before = {test.name: test for test in old.tests} if old else {}
    broken = BROKEN_BEFORE if old is not None and old.status is ClaimStatus.BROKEN else BROKEN
    passed = {name for name, test in before.items() if test.outcome is Outcome.PASSED}
    wrong = {name for name, test in before.items() if test.outcome in (Outcome.FAILED, Outcome.KNOWN)}
    for rule, outcome, names in (
        (broken, Outcome.FAILED, None),
        (KNOWN_DEFECT, Outcome.KNOWN, passed),
        (SKIPPED, Outcome.SKIPPED, passed | wrong),
        (HOLDS_NOW, Outcome.PASSED, wrong),
    ):
        tests = [test for test in new.of(outcome) if names is None or test.name in names]
        if tests:
            yield difference("claims", new.name, rule, [_test_change(new, test, before) for test in tests])


def _test_change(claim: ClaimResult, test: TestResult, before: Mapping[str, TestResult]) -> EntryChange:
    old = Text(before[test.name].outcome.value) if test.name in before else None
    new = Text(f"{test.outcome.value}: {test.headline}")
    return EntryChange(f"claims/{claim.name}", old, new, part=test.name.rpartition("::")[2])


def start_differences(old: Record, new: Record) -> Iterator[Difference]:
    """That the new side does not start."""
    if new.problem:
        entry = EntryChange("behaviour/start", Text(old.problem or "works"), Text(new.problem))
        yield difference("behaviour", "start", DOES_NOT_START, [entry])


def rule_of_failure(change: EntryChange) -> Rule | None:
    """The rule for an entry that one side lacks or could not measure; ``None`` where both have one."""
    match change.old, change.new:
        case Failure(), Failure():
            return FAILS_AS_BEFORE
        case (Failure(), None):  # of a whole probe: its entries are there now
            return WORKS_NOW
        case _, (Failure() | None):
            return FAILS_NOW
        case ((Failure() | None), _):
            return WORKS_NOW
    return None
