"""Two records of Transformer Engine: what differs, how much against the noise, what it means, and a verdict.

Everything here is pure: stored records in, a `Comparison` out.
"""

import datetime as dt
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType

from mnist_fp8.gate.uses.use import Uses
from mnist_fp8.gate.verdict.acceptance import accept
from mnist_fp8.gate.verdict.changes import EntryChange, changes_of
from mnist_fp8.gate.verdict.comparison import Comparison
from mnist_fp8.gate.verdict.costs import costs
from mnist_fp8.gate.verdict.coverage import Coverage, coverage
from mnist_fp8.gate.verdict.policy import Acceptance
from mnist_fp8.gate.verdict.rules.apply import judge
from mnist_fp8.gate.verdict.rules.claims import claim_differences, start_differences
from mnist_fp8.gate.verdict.rules.numbers import FLAX_ALONE
from mnist_fp8.gate.verdict.rules.rule import Difference
from mnist_fp8.gate.verdict.scope import OneSided, Scope, compared, is_compared, refuse_other_run
from mnist_fp8.gate.verdict.uses import JudgedUses
from mnist_fp8.record.keys import AREAS
from mnist_fp8.record.names import Names
from mnist_fp8.record.record import Record

_NOT_OF_RECIPES = ("api", "recipes", "behaviour", "warnings", "import")


def compare(
    old: Record,
    new: Record,
    accepted: Sequence[Acceptance] = (),
    today: dt.date | None = None,
    *,
    only: Sequence[str] = (),
    tests: Mapping[str, Collection[str]] = MappingProxyType({}),
    uses: Uses | None = None,
    releases: Mapping[str, Names] = MappingProxyType({}),
) -> Comparison:
    """Compare two records.

    Args:
        old: of the release in use.
        new: of the release to move to.
        accepted: differences that a team accepts.
        today: the day on which they are accepted; it decides which of them have expired.
        only: keys of what was asked for; empty if everything was.
        tests: the test functions of each claim of the suite; empty if they are not known.
        uses: of a user's own sources; ``None`` if the verdict does not rest on any.
        releases: names of all known releases, of which it is told which the sources fit.

    Raises:
        RecordError: they are of different kinds of run, and so nothing in them can be compared.
        ConfigError: the sources use nothing of Transformer Engine.
    """
    refuse_other_run(old, new)
    if uses:
        uses.demand()
    scope = Scope.of(old, new)
    looked_at = coverage(old, new, scope, only, tests)
    one_sided = OneSided(old, new)
    changes = [
        change
        for change in _changes(old, new, scope)
        if not (_follows_from_support(change, one_sided) or _is_gap(change, looked_at))
    ]
    judged = judge(changes, same_stack=scope.same_stack)
    found = [*claim_differences(old.suite, new.suite), *start_differences(old, new), *judged]
    judged_uses = JudgedUses.of(uses, old, new, releases) if uses else None
    if judged_uses:
        found, looked_at = judged_uses.reach(found), judged_uses.in_coverage(looked_at)
    differences, stale = accept(found, accepted, today or dt.datetime.now(tz=dt.UTC).date())
    return Comparison(
        old,
        new,
        tuple(sorted(differences, key=_worst_first)),
        compared(old, new, scope) | (judged_uses.compared if judged_uses else {}),
        scope.limits,
        looked_at,
        tuple(costs(old, new)),
        tuple(stale),
        judged_uses,
    )


def _worst_first(difference: Difference) -> tuple[bool, bool, int, int]:
    """What is accepted comes last; and what all else may follow from, first."""
    return (
        bool(difference.accepted),
        difference.rule is not FLAX_ALONE,
        difference.rule.severity.order,
        list(AREAS).index(difference.area),
    )


def _changes(old: Record, new: Record, scope: Scope) -> Iterator[EntryChange]:
    if any(record.problem and not record.entries for record in (old, new)):
        return  # one of them could not be measured: what there is of the other is no difference
    for key in {**old.entries, **new.entries}:
        a, b = old.entries.get(key), new.entries.get(key)
        if is_compared(key, old, new, scope) and a != b:
            yield from changes_of(key, a, b, scope.floor)


def _is_gap(change: EntryChange, looked_at: Coverage) -> bool:
    """Whether an entry is there on one side only because the other one was not measured for it."""
    return None in (change.old, change.new) and any(change.key in gap.names for gap in looked_at.gaps)


def _follows_from_support(change: EntryChange, one_sided: OneSided) -> bool:
    """Whether an entry is there on one side only because the recipe that it belongs to runs on that side only."""
    if change.area in _NOT_OF_RECIPES or (change.old is not None and change.new is not None):
        return False
    return one_sided.has(change.key)
