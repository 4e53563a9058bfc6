"""Differences that a team accepts are set apart."""

import dataclasses
import datetime as dt
from collections.abc import Iterable, Sequence

from mnist_fp8.gate.verdict.policy import Acceptance
from mnist_fp8.gate.verdict.rules.rule import Difference


def accept(
    differences: Iterable[Difference], accepted: Sequence[Acceptance], today: dt.date
) -> tuple[list[Difference], list[str]]:
    """Set accepted entries apart; returns the differences, and which acceptances have no effect."""
    valid = [acceptance for acceptance in accepted if not acceptance.expired(today)]
    stale = [
        f"{acceptance.label}: accepted until {acceptance.expires}, which is over"
        for acceptance in accepted
        if acceptance.expired(today)
    ]
    used: set[str] = set()
    result: list[Difference] = []
    for difference in differences:
        rule = difference.rule.id
        by = [next((one for one in valid if one.covers(entry.key, rule)), None) for entry in difference.entries]
        used |= {acceptance.label for acceptance in by if acceptance}
        for acceptance in dict.fromkeys(by):
            pairs = zip(difference.entries, by, strict=True)
            entries = tuple(entry for entry, one in pairs if one is acceptance)
            why = f"{acceptance.reason} (until {acceptance.expires})" if acceptance else ""
            result.append(dataclasses.replace(difference, entries=entries, accepted=why))
    stale += [f"{one.label}: accepted, but no difference" for one in valid if one.label not in used]
    return result, stale
