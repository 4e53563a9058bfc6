"""What a verification found: pure records, and their JSON."""

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from typing import Any, Self

from mnist_fp8.core.errors import RecordError

SCHEMA_VERSION = 1
"""Of stored verifications; raised when a field changes its meaning."""


class Outcome(enum.Enum):
    """How one test ended. ``KNOWN`` fails as is expected of this release."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    KNOWN = "known"


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
    """

    __test__ = False  # not a test, whatever pytest makes of the name

    name: str
    outcome: Outcome
    reason: str = ""

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
    """One Transformer Engine, judged.

    Attributes:
        te: what was judged, as a person reads it.
        version: of Transformer Engine.
        jax: version of JAX that it ran with.
        flax: version of Flax that it ran with.
        python: version of Python.
        run: the kind of run in words, as the run itself said; empty if it did not come that far.
        claims: the claims that were asked for.
        seconds: how long it took.
        problem: why the run ended before its end, in one line; empty if it did not.
        facts: what this release does, measured.
        facts_problem: why there are no facts, in one line.
        command: shell words that run a test of it on the machine where it was judged; the test's name follows.
    """

    te: str
    version: str
    jax: str
    flax: str
    python: str
    run: str
    claims: tuple[ClaimResult, ...]
    seconds: float
    problem: str = ""
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    facts_problem: str = ""
    command: str = ""

    def claim(self, name: str) -> ClaimResult:
        """The claim of that name."""
        return next(claim for claim in self.claims if claim.name == name)

    def count(self, status: ClaimStatus) -> int:
        """How many claims have that status."""
        return sum(claim.status is status for claim in self.claims)

    @property
    def title(self) -> str:
        """What was judged and what it ran with, in one line."""
        return f"TE {self.te} (JAX {self.jax}, Flax {self.flax}{self.python and ', Python ' + self.python})"

    def to_json(self) -> dict[str, Any]:
        """Plain data, with the version of its schema."""
        claims = {claim.name: [_plain(test) for test in claim.tests] for claim in self.claims}
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"schema_version": SCHEMA_VERSION, **fields, "claims": claims, "facts": dict(self.facts)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_json` made.

        Raises:
            RecordError: it is of another version.
        """
        version = document.get("schema_version")
        if version != SCHEMA_VERSION:
            raise RecordError(f"the record has schema version {version}; this mnist-fp8 reads {SCHEMA_VERSION}")
        claims = tuple(
            ClaimResult(
                name, tuple(TestResult(test["name"], Outcome(test["outcome"]), test["reason"]) for test in tests)
            )
            for name, tests in document["claims"].items()
        )
        fields = {name: value for name, value in document.items() if name != "schema_version"}
        return cls(**fields | {"claims": claims})


def _plain(test: TestResult) -> dict[str, str]:
    return {"name": test.name, "outcome": test.outcome.value, "reason": test.reason}


@dataclasses.dataclass(frozen=True)
class MatrixCell:
    """One column of a comparison: a verification, or why there is none."""

    te: str
    verification: SuiteResult | None
    error: str = ""


def claim_names(verifications: Sequence[SuiteResult]) -> tuple[str, ...]:
    """The claims of all of them, in the order in which they first appear."""
    return tuple(dict.fromkeys(claim.name for each in verifications for claim in each.claims))
