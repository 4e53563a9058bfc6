"""Differences that a team accepts are set apart."""

import dataclasses
import datetime as dt
from collections.abc import Iterable, Sequence

from mnist_fp8.gate.verdict.policy import Acceptance
from mnist_fp8.gate.verdict.rules.rule import Difference


def accept(
    differences: Iterable[Difference], accepted: Sequence[Acceptance], today: dt.date
) -> tuple[list[Difference], list[str]]:
    """Set accepted details apart; returns the differences, and which acceptances are of no use."""
    valid = [each for each in accepted if not each.expired(today)]
    stale = [
        f"{each.pattern}: accepted until {each.expires}, which is over" for each in accepted if each.expired(today)
    ]
    used: set[str] = set()
    found: list[Difference] = []
    for difference in differences:
        by = [next((each for each in valid if each.covers(detail.key)), None) for detail in difference.details]
        used |= {each.pattern for each in by if each}
        for acceptance in dict.fromkeys(by):
            details = tuple(detail for detail, each in zip(difference.details, by, strict=True) if each is acceptance)
            why = f"{acceptance.reason} (until {acceptance.expires})" if acceptance else ""
            found.append(dataclasses.replace(difference, details=details, accepted=why))
    stale += [f"{each.pattern}: accepted, but no difference" for each in valid if each.pattern not in used]
    return found, stale
