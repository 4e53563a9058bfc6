"""Two records of Transformer Engine: what differs, how much against the noise, what it means, and a verdict.

Everything here is pure: stored records in, a `Comparison` out.
"""

import datetime as dt
from collections.abc import Iterator, Sequence

from mnist_fp8.gate.verdict.acceptance import accept
from mnist_fp8.gate.verdict.changes import EntryChange, changes_of
from mnist_fp8.gate.verdict.comparison import Comparison
from mnist_fp8.gate.verdict.costs import costs
from mnist_fp8.gate.verdict.policy import Acceptance
from mnist_fp8.gate.verdict.rules.apply import judge
from mnist_fp8.gate.verdict.rules.claims import claim_differences, start_differences
from mnist_fp8.gate.verdict.rules.rule import Difference, Severity
from mnist_fp8.gate.verdict.scope import Scope, compared, is_compared, refuse_other_run
from mnist_fp8.record.claims import ClaimStatus
from mnist_fp8.record.entries import AREAS, Support
from mnist_fp8.record.record import Record

_NOT_OF_RECIPES = ("api", "recipes", "behaviour", "warnings")


def compare(old: Record, new: Record, accepted: Sequence[Acceptance] = (), today: dt.date | None = None) -> Comparison:
    """Compare two records.

    Args:
        old: of the release in use.
        new: of the release to move to.
        accepted: differences that a team accepts.
        today: the day on which they are accepted; it decides which of them have expired.

    Raises:
        RecordError: they are of different kinds of run, and so nothing in them can be compared.
    """
    refuse_other_run(old, new)
    scope = Scope.of(old, new)
    changes = [change for change in _changes(old, new, scope) if not _follows_from_support(change, old, new)]
    found = [*claim_differences(old.suite, new.suite), *start_differences(old, new), *judge(changes)]
    differences, stale = accept(found, accepted, today or dt.datetime.now(tz=dt.UTC).date())
    return Comparison(
        old,
        new,
        tuple(sorted(differences, key=_worst_first)),
        compared(old, new, scope),
        scope.limits,
        tuple(_unverified(old, new)),
        tuple(costs(old, new)),
        tuple(stale),
    )


def _worst_first(difference: Difference) -> tuple[bool, int, int]:
    order = list(Severity)
    return bool(difference.accepted), order.index(difference.rule.severity), list(AREAS).index(difference.area)


def _changes(old: Record, new: Record, scope: Scope) -> Iterator[EntryChange]:
    if any(record.problem and not record.entries for record in (old, new)):
        return  # one of them could not be measured: what there is of the other is no difference
    for key in {**old.entries, **new.entries}:
        a, b = old.entries.get(key), new.entries.get(key)
        if is_compared(key, old, new, scope) and a != b:
            yield from changes_of(key, a, b, scope.floor)


def _follows_from_support(change: EntryChange, old: Record, new: Record) -> bool:
    """Whether an entry is there on one side only because the recipe that it belongs to runs on that side only."""
    if change.area in _NOT_OF_RECIPES or (change.old is not None and change.new is not None):
        return False
    sides = [_recipes_that_run(record) for record in (old, new)]
    return change.subject in sides[0] ^ sides[1]


def _recipes_that_run(record: Record) -> set[str]:
    return {key.split("/")[1] for key, value in record.entries.items() if isinstance(value, Support) and value.ok}


def _unverified(old: Record, new: Record) -> Iterator[str]:
    if old.problem:
        yield f"the old one could not be measured: {old.problem}"
    judged = old.suite and new.suite
    if not (judged or old.problem or new.problem or old.entries.keys() & new.entries.keys()):
        yield "the two records have no entry in common"
    if new.suite and not any(claim.status is not ClaimStatus.NOT_VERIFIED for claim in new.suite.claims):
        yield "no claim could be verified"
    for claim in new.suite.claims if new.suite and old.suite else ():
        before = old.suite.find(claim.name) if old.suite else None
        if before and claim.status is ClaimStatus.NOT_VERIFIED is not before.status:
            yield f"claim {claim.name} was verified before and is not now"
