"""Render what was found: for the terminal, as Markdown, HTML, JUnit XML and JSON. Nothing here judges or measures."""

import dataclasses
import itertools
import re
import shlex
from collections.abc import Iterator, Sequence

from mnist_fp8.record.claims import ClaimResult, ClaimStatus, Outcome, SuiteResult, claim_names

WORDS = {Outcome.FAILED: "broken", Outcome.KNOWN: "known defect", Outcome.SKIPPED: "not verified"}
NAMES_SHOWN = 5
"""Tests that are named under one reason; the others are counted."""
NO_FACT = "not there"


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
class Evidence:
    """The same reasons in neighbouring releases, for one or more claims."""

    anchor: str
    claims: tuple[str, ...]
    labels: tuple[str, ...]
    status: ClaimStatus
    reasons: tuple[Reason, ...]

    @property
    def title(self) -> str:
        """Claims, releases and status."""
        found = "not verified in part" if self.status is ClaimStatus.HOLDS else self.status.value
        return f"{', '.join(self.claims)}, {span(self.labels)}: {found}"

    @property
    def command(self) -> str:
        """What shows it again."""
        return shown_again(self.labels[0], self.claims)


def shown_again(label: str, claims: Sequence[str]) -> str:
    """The command that judges those claims again."""
    te, _, jax = label.partition(" with JAX ")
    kind, _, rest = te.partition(" ")
    subject = {"folder": shlex.quote(rest), "python": f"--python {shlex.quote(rest)}"}.get(kind, te)
    return f"mnist-fp8 verify {subject}{jax and f' --jax {jax}'} --claim {' '.join(claims)}"


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
            text = _of_any_release(test.headline, version)
            grouped.setdefault((outcome, text), []).append(test.name)
    return tuple(Reason(outcome, text, tuple(names)) for (outcome, text), names in grouped.items())


def _of_any_release(text: str, version: str) -> str:
    """A text without the release's own version, so that neighbours that say the same are told together."""
    own = rf"(?<![\w.]){re.escape(version)}(?!\w|\.\d)"
    return re.sub(own, "this release", text) if version else text


def evidence(verifications: Sequence[SuiteResult]) -> list[Evidence]:
    """What there is to explain, equal evidence of neighbours once."""
    merged: dict[object, Evidence] = {}
    for name in claim_names(verifications):
        for found in _of_claim(name, verifications):
            texts = tuple((reason.outcome, reason.text) for reason in found.reasons)
            other = merged.get((found.labels, texts))
            merged[found.labels, texts] = _together(other, found) if other else found
    return [dataclasses.replace(found, anchor=f"e{number}") for number, found in enumerate(merged.values(), 1)]


def _of_claim(name: str, verifications: Sequence[SuiteResult]) -> Iterator[Evidence]:
    def key(verification: SuiteResult) -> tuple[Reason, ...]:
        found = [claim for claim in verification.claims if claim.name == name]
        return reasons(found[0], verification.version) if found else ()

    for found, group in itertools.groupby(verifications, key):
        members = list(group)
        if found:
            labels = tuple(member.te for member in members)
            yield Evidence("", (name,), labels, members[0].claim(name).status, found)


def _together(one: Evidence, other: Evidence) -> Evidence:
    pairs = zip(one.reasons, other.reasons, strict=True)
    together = tuple(dataclasses.replace(a, names=a.names + b.names) for a, b in pairs)
    return dataclasses.replace(one, claims=one.claims + other.claims, reasons=together)


def anchors(found: Sequence[Evidence]) -> dict[tuple[str, str], str]:
    """The anchor of the evidence for a claim and a label."""
    return {(claim, label): each.anchor for each in found for claim in each.claims for label in each.labels}


@dataclasses.dataclass(frozen=True)
class Fact:
    """A measured fact: its values from the first release to the last, each with the releases that share it."""

    name: str
    values: tuple[tuple[str, str], ...]

    @property
    def changes(self) -> bool:
        """Whether two neighbours differ."""
        return len(self.values) > 1


def facts(verifications: Sequence[SuiteResult]) -> list[Fact]:
    """What each release does; those that change first."""
    measured = [each for each in verifications if each.facts]
    names = dict.fromkeys(name for each in measured for name in each.facts)
    found = [Fact(name, _values(name, measured)) for name in names]
    return sorted(found, key=lambda fact: not fact.changes)


def _values(name: str, verifications: Sequence[SuiteResult]) -> tuple[tuple[str, str], ...]:
    groups = itertools.groupby(
        verifications, lambda each: _of_any_release(each.facts.get(name, NO_FACT), f"Transformer Engine {each.version}")
    )
    return tuple((value, span([each.te for each in group])) for value, group in groups)


def runs(verifications: Sequence[SuiteResult]) -> list[str]:
    """The kinds of run that there were."""
    return list(dict.fromkeys(each.run for each in verifications if each.run))
