"""Rules: what a kind of difference does to the verdict, means and asks for. And differences of one subject."""

import dataclasses
import enum
import math
from collections.abc import Iterable

from mnist_fp8.gate.verdict.changes import EntryChange


class Severity(enum.Enum):
    """What a difference does to the verdict."""

    BREAKS = "breaks"
    CHANGES = "changes"
    NOTE = "note"

    @property
    def order(self) -> int:
        """Its place among them, the worst first."""
        return list(Severity).index(self)


@dataclasses.dataclass(frozen=True)
class Rule:
    """A kind of difference.

    Attributes:
        id: its name in reports, JSON and policies, such as ``float8-product-lost``.
        severity: what it does to the verdict.
        title: what happened, in a few words.
        meaning: what it means for a user.
        action: what to do about it.
    """

    id: str
    severity: Severity
    title: str
    meaning: str
    action: str = "Nothing."


def breaks(name: str, title: str, meaning: str, action: str) -> Rule:
    """A rule that blocks the upgrade."""
    return Rule(name, Severity.BREAKS, title, meaning, action)


def changes(name: str, title: str, meaning: str, action: str) -> Rule:
    """A rule for what has to be looked at."""
    return Rule(name, Severity.CHANGES, title, meaning, action)


def note(name: str, title: str, meaning: str) -> Rule:
    """A rule for what is reported and decides nothing."""
    return Rule(name, Severity.NOTE, title, meaning)


@dataclasses.dataclass(frozen=True)
class Difference:
    """Entries of one subject to which one rule applies.

    Attributes:
        area: one of `keys.AREAS`.
        subject: a recipe, a claim, a kind of variable; empty where the rule says it all.
        rule: what it means.
        entries: what differs, the worst first.
        accepted: why it does not count, and until when; empty if it does.
    """

    area: str
    subject: str
    rule: Rule
    entries: tuple[EntryChange, ...]
    accepted: str = ""

    @property
    def title(self) -> str:
        """Subject and rule in a few words."""
        return f"{self.subject}: {self.rule.title}" if self.subject else self.rule.title

    @property
    def counts(self) -> bool:
        """Whether the verdict rests on it."""
        return not self.accepted and self.rule.severity is not Severity.NOTE


def difference(area: str, subject: str, rule: Rule, entries: Iterable[EntryChange]) -> Difference:
    """A difference of some entries, the worst first."""
    ordered = sorted(entries, key=lambda entry: -math.inf if math.isnan(entry.weight) else -abs(entry.weight))
    return Difference(area, subject, rule, tuple(ordered))
