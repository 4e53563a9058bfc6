"""A rule and what it says of differences with one cause."""

import dataclasses
import enum
import math
from collections.abc import Callable, Iterable

from mnist_fp8.gate.verdict.changes import Change, Detail
from mnist_fp8.record.entries import Failure


class Severity(enum.Enum):
    """What a difference does to the verdict."""

    BREAKS = "breaks"
    CHANGES = "changes"
    NOTE = "note"


@dataclasses.dataclass(frozen=True)
class Meaning:
    """What a kind of difference means."""

    severity: Severity
    means: str
    do: str


def breaks(means: str, do: str) -> Meaning:
    """A meaning that blocks the upgrade."""
    return Meaning(Severity.BREAKS, means, do)


def changes(means: str, do: str) -> Meaning:
    """A meaning that has to be looked at."""
    return Meaning(Severity.CHANGES, means, do)


def note(means: str, do: str = "Nothing.") -> Meaning:
    """A meaning that is told only."""
    return Meaning(Severity.NOTE, means, do)


def of_failure(*, failed: bool, fails: bool) -> Meaning:
    """Something could not be measured."""
    if failed and fails:
        return note("It fails as before, in other words.")
    if fails:
        return breaks("It fails, where it worked before.", "Look at the message; do not upgrade if you use this.")
    return note("It works now.")


@dataclasses.dataclass(frozen=True)
class Difference:
    """Entries that differ for one reason.

    Attributes:
        area: one of `measurements.AREAS`.
        title: what differs.
        severity: what that does to the verdict.
        details: the entries, the worst first.
        means: what it means for a user.
        do: what to do about it.
        accepted: why it does not count, and until when; empty if it does.
    """

    area: str
    title: str
    severity: Severity
    details: tuple[Detail, ...]
    means: str
    do: str
    accepted: str = ""

    @property
    def counts(self) -> bool:
        """Whether the verdict rests on it."""
        return not self.accepted and self.severity is not Severity.NOTE


def together(area: str, title: str, means: Meaning, details: Iterable[Detail]) -> Difference:
    """One difference of some entries, the worst first."""
    ordered = tuple(sorted(details, key=lambda detail: -math.inf if math.isnan(detail.weight) else -abs(detail.weight)))
    return Difference(area, title, means.severity, ordered, means.means, means.do)


def grouped(changes: Iterable[Change], key: Callable[[Change], tuple[str, Meaning]]) -> list[Difference]:
    """Changes with the same title and meaning as one difference."""
    groups: dict[tuple[str, str, Meaning], list[Detail]] = {}
    for change in changes:
        title, means = key(change)
        groups.setdefault((change.area, title, means), []).append(change.detail)
    return [together(area, title, means, details) for (area, title, means), details in groups.items()]


def measured(changes: Iterable[Change]) -> list[Change]:
    """Changes between two things that were measured."""
    return [change for change in changes if not _is_failure(change)]


def failed(changes: Iterable[Change]) -> list[Difference]:
    """What cannot be measured any more, what can be now, and what fails in other words."""

    def judged(change: Change) -> tuple[str, Meaning]:
        fails, failed = (isinstance(value, Failure) or value is None for value in (change.new, change.old))
        return f"{change.subject}: what works", of_failure(failed=failed, fails=fails)

    return grouped((change for change in changes if _is_failure(change)), judged)


def _is_failure(change: Change) -> bool:
    return any(isinstance(value, Failure) or value is None for value in (change.old, change.new))
