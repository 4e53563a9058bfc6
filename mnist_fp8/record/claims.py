"""What the suite says of an installation: pure data."""

import dataclasses
import enum
from collections.abc import Collection, Iterable, Sequence

from mnist_fp8.core.subjects import SUBJECTS


class Outcome(enum.Enum):
    """How one test ended.

    ``KNOWN`` fails as is expected of this release. ``SPARED`` was not run: this is the old side of an upgrade, and the
    new one passes the test.
    """

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    KNOWN = "known"
    SPARED = "spared"


class ClaimStatus(enum.Enum):
    """What the tests of a claim say together."""

    HOLDS = "holds"
    KNOWN = "known defect"
    BROKEN = "broken"
    NOT_VERIFIED = "not verified"


@dataclasses.dataclass(frozen=True)
class TestResult:
    """One test.

    Attributes:
        name: its id, from the suite's folder.
        outcome: how it ended.
        reason: what failed, why it was skipped, or which defect is known; empty for a test that passed.
        subject: the layer that it is about; empty if it is about none alone.
    """

    __test__ = False  # not a test, whatever pytest makes of the name

    name: str
    outcome: Outcome
    reason: str = ""
    subject: str = ""

    @property
    def headline(self) -> str:
        """The first line of the reason."""
        return self.reason.strip().partition("\n")[0]


@dataclasses.dataclass(frozen=True)
class ClaimResult:
    """One claim: the tests of one file."""

    name: str
    tests: tuple[TestResult, ...]

    @property
    def status(self) -> ClaimStatus:
        """The worst that is said: one broken test breaks the claim, and a skip verifies nothing."""
        found = {test.outcome for test in self.tests}
        if Outcome.FAILED in found:
            return ClaimStatus.BROKEN
        if Outcome.KNOWN in found:
            return ClaimStatus.KNOWN
        return ClaimStatus.HOLDS if Outcome.PASSED in found else ClaimStatus.NOT_VERIFIED

    def of(self, outcome: Outcome) -> tuple[TestResult, ...]:
        """The tests that ended so."""
        return tuple(test for test in self.tests if test.outcome is outcome)

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing to explain: every test passed."""
        return self.status is ClaimStatus.HOLDS and not self.of(Outcome.SKIPPED)


@dataclasses.dataclass(frozen=True)
class SuiteResult:
    """What the suite says of one installation.

    Attributes:
        claims: the claims that were asked for.
        run: the kind of run in words, as the run itself said; empty if it did not come that far.
        seconds: how long it took.
        problem: why the run ended before its end, in one line; empty if it did not.
        command: shell words that run a test of it on the machine where it ran; the test's name follows.
    """

    claims: tuple[ClaimResult, ...]
    run: str = ""
    seconds: float = 0.0
    problem: str = ""
    command: str = ""

    def claim(self, name: str) -> ClaimResult:
        """The claim of that name."""
        return next(claim for claim in self.claims if claim.name == name)

    def find(self, name: str) -> ClaimResult | None:
        """The claim of that name, if it was asked for."""
        return next((claim for claim in self.claims if claim.name == name), None)

    @property
    def by_subject(self) -> "SuiteResult":
        """The same tests, those of each layer together as if they were a claim; without those of no layer alone."""
        found: dict[str, list[TestResult]] = {name: [] for name in SUBJECTS}
        for test in (test for claim in self.claims for test in claim.tests if test.subject):
            found.setdefault(test.subject, []).append(test)
        claims = (ClaimResult(name, tuple(tests)) for name, tests in found.items() if tests)
        return dataclasses.replace(self, claims=tuple(claims))

    def count(self, status: ClaimStatus) -> int:
        """How many claims have that status."""
        return sum(claim.status is status for claim in self.claims)

    def only(self, names: Collection[str]) -> "SuiteResult":
        """The same of some claims alone."""
        return dataclasses.replace(self, claims=tuple(claim for claim in self.claims if claim.name in names))


def joined(results: Sequence[SuiteResult], names: Sequence[str]) -> SuiteResult:
    """The results of several runs of the suite as that of one, whose command is that of the last.

    Args:
        results: one or more, of different claims.
        names: the claims in their order.
    """
    claims = {claim.name: claim for result in results for claim in result.claims}
    problems = [result.problem for result in results if result.problem]
    return dataclasses.replace(
        results[-1],
        claims=tuple(claims[name] for name in names if name in claims),
        seconds=sum(result.seconds for result in results),
        problem="; ".join(dict.fromkeys(problems)),
    )


def claim_names(results: Iterable[SuiteResult]) -> tuple[str, ...]:
    """The claims of all of them, in the order in which they first appear."""
    return tuple(dict.fromkeys(claim.name for result in results for claim in result.claims))
