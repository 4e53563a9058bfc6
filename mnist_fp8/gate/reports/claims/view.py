"""What the reports on claims show of records. Nothing here judges or measures."""

import dataclasses
import itertools
import re
import shlex
from collections.abc import Iterator, Sequence

from mnist_fp8.core.model import VARIABLE
from mnist_fp8.core.plain import clean
from mnist_fp8.gate.runner.matrix import MatrixCell
from mnist_fp8.record.claims import ClaimResult, ClaimStatus, Outcome, SuiteResult, claim_names
from mnist_fp8.record.record import Record

WORDS = {Outcome.FAILED: "broken", Outcome.KNOWN: "known defect", Outcome.SKIPPED: "not verified"}
SUBJECTS = "--subjects"
NAMES_SHOWN = 5
"""Tests that are named under one reason; the others are counted."""


@dataclasses.dataclass(frozen=True)
class Reason:
    """Tests that ended alike for one reason."""

    outcome: Outcome
    text: str
    names: tuple[str, ...]

    @property
    def word(self) -> str:
        """What it did to the claim."""
        return WORDS[self.outcome]

    @property
    def shown(self) -> tuple[str, ...]:
        """The names to print, and how many more there are."""
        more = len(self.names) - NAMES_SHOWN
        return (*self.names[:NAMES_SHOWN], f"and {more} more") if more > 0 else self.names


@dataclasses.dataclass(frozen=True)
class Examined:
    """One installation of a report.

    Attributes:
        label: what tells it from the others.
        jax_asked: version of JAX that was asked for; ``None`` if none was.
        record: what is known of it.
        rows: the option that names what its suite says something of: claims, or layers.
    """

    label: str
    jax_asked: str | None
    record: Record
    rows: str = "--claim"

    @property
    def suite(self) -> SuiteResult:
        """What the suite says of it."""
        return self.record.suite or SuiteResult(())

    @property
    def jax(self) -> str:
        """The version of JAX that it ran with."""
        return self.record.environment.get("jax", "")

    @property
    def flax(self) -> str:
        """The version of Flax that it ran with."""
        return self.record.environment.get("flax", "")

    def shown_again(self, claims: Sequence[str]) -> str:
        """The command that holds it to those claims again."""
        asked = ["--jax", self.jax_asked] if self.jax_asked else []
        asked += self.record.model_arguments(*(f"claims/{name}" for name in claims))
        asked += self.record.capability_arguments
        names = [",".join(claims)] if self.rows == SUBJECTS else claims
        return shlex.join(["mnist-fp8", "verify", *self.record.arguments, *asked, self.rows, *names])


def examined(cells: Sequence[MatrixCell]) -> list[Examined]:
    """The installations that could be examined."""
    return [Examined(cell.label, cell.jax, cell.record) for cell in cells if cell.record]


def by_layer(columns: Sequence[Examined]) -> list[Examined]:
    """The same installations with what all claims say of each layer in place of the claims."""
    return [
        dataclasses.replace(each, record=dataclasses.replace(each.record, suite=each.suite.by_subject), rows=SUBJECTS)
        for each in columns
    ]


def names_of(columns: Sequence[Examined]) -> tuple[str, ...]:
    """The names of their claims."""
    return claim_names(each.suite for each in columns)


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The same reasons in neighbouring installations, for one or more claims."""

    anchor: str
    claims: tuple[str, ...]
    installations: tuple[Examined, ...]
    status: ClaimStatus
    reasons: tuple[Reason, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """What tells the installations from the others."""
        return tuple(each.label for each in self.installations)

    @property
    def title(self) -> str:
        """Claims, releases and status."""
        found = "not verified in part" if self.status is ClaimStatus.HOLDS else self.status.value
        return f"{', '.join(self.claims)}, {span(self.labels)}: {found}"

    @property
    def command(self) -> str:
        """What shows it again."""
        return self.installations[0].shown_again(self.claims)


def span(labels: Sequence[str]) -> str:
    """One label, or the first and the last."""
    return labels[0] if len(labels) == 1 else f"{labels[0]} to {labels[-1]}"


def reasons(claim: ClaimResult, version: str = "") -> tuple[Reason, ...]:
    """Why a claim does not plainly hold: what broke, what is known, what was not verified; equal reasons together.

    Args:
        claim: the claim.
        version: named as "this release" in the reasons, so that those of neighbours can be equal.
    """
    grouped: dict[tuple[Outcome, str], list[str]] = {}
    for outcome in WORDS:
        for test in claim.of(outcome):
            text = clean(of_any_release(test.headline, version))
            grouped.setdefault((outcome, text), []).append(clean(test.name))
    return tuple(Reason(outcome, text, tuple(names)) for (outcome, text), names in grouped.items())


def of_any_release(text: str, version: str) -> str:
    """A text without the release's own version, so that neighbours that say the same are told together."""
    own = rf"(?<![\w.]){re.escape(version)}(?!\w|\.\d)"
    return re.sub(own, "this release", text) if version else text


def evidence(columns: Sequence[Examined], prefix: str = "e") -> list[Evidence]:
    """What there is to explain, equal evidence of neighbours once; anchors begin with the prefix."""
    merged: dict[object, Evidence] = {}
    for name in names_of(columns):
        for found in _of_claim(name, columns):
            texts = tuple((reason.outcome, reason.text) for reason in found.reasons)
            other = merged.get((found.labels, texts))
            merged[found.labels, texts] = _together(other, found) if other else found
    return [dataclasses.replace(found, anchor=f"{prefix}{number}") for number, found in enumerate(merged.values(), 1)]


def _of_claim(name: str, columns: Sequence[Examined]) -> Iterator[Evidence]:
    def key(each: Examined) -> tuple[Reason, ...]:
        claim = each.suite.find(name)
        return reasons(claim, each.record.version) if claim else ()

    for found, group in itertools.groupby(columns, key):
        members = tuple(group)
        if found:
            yield Evidence("", (name,), members, members[0].suite.claim(name).status, found)


def _together(one: Evidence, other: Evidence) -> Evidence:
    pairs = zip(one.reasons, other.reasons, strict=True)
    together = tuple(dataclasses.replace(a, names=a.names + b.names) for a, b in pairs)
    return dataclasses.replace(one, claims=one.claims + other.claims, reasons=together)


def anchors(found: Sequence[Evidence]) -> dict[tuple[str, str], str]:
    """The anchor of the evidence for a claim and a label."""
    return {(claim, label): each.anchor for each in found for claim in each.claims for label in each.labels}


def runs(columns: Sequence[Examined]) -> list[str]:
    """The kinds of run that there were, and the user's models."""
    kinds = dict.fromkeys(each.suite.run for each in columns if each.suite.run)
    models = dict.fromkeys(each.record.environment.get(VARIABLE, "") for each in columns)
    return [*kinds, *(f"The claims on models: {clean(name)}" for name in models if name)]
