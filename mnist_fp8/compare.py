"""Two records of Transformer Engine: what differs, how much against the noise, what it means, and a verdict.

Everything here is pure: stored records in, a `Comparison` out.
"""

import dataclasses
import datetime as dt
import enum
import math
import shlex
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from mnist_fp8 import meaning
from mnist_fp8.changes import MISSING, Change, Detail, changes_of, words
from mnist_fp8.judgement import Difference, judge, together
from mnist_fp8.meaning import Severity
from mnist_fp8.measurements import AREAS, RUNS, Cost, Record
from mnist_fp8.policy import Acceptance
from mnist_fp8.records import ClaimResult, Outcome, RecordError, TestResult, Verdict, Verification

OTHER_DEVICE_FLOOR = 0.02
"""Relative difference of numbers from two devices that is taken for none: they may accumulate in another order."""
_TES_OWN_KEYS = ("api", "recipes", "variables", "warnings")
_NOT_OF_RECIPES = ("api", "recipes", "behaviour", "warnings")
_ONE_DEVICE = ("training", "special")


class UpgradeVerdict(enum.Enum):
    """What a comparison says to the owner of the upgrade."""

    SAFE = "SAFE"
    CHANGED = "CHANGED"
    BROKEN = "BROKEN"
    UNVERIFIED = "UNVERIFIED"


@dataclasses.dataclass(frozen=True)
class CostChange:
    """A time or an amount of memory, old and new.

    Attributes:
        name: what it is.
        old: median of the repetitions.
        new: the same of the new record.
        unit: ``s`` or ``bytes``.
        repetitions: how often it was measured, on the side where it was less often.
        spread: largest deviation of a repetition from its median, relative.
    """

    name: str
    old: float
    new: float
    unit: str
    repetitions: int
    spread: float

    @property
    def ratio(self) -> float:
        """New over old."""
        return self.new / self.old if self.old else math.nan


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What two records say together.

    Attributes:
        old: the record of the release in use.
        new: the record of the release to move to.
        differences: all of them, those that break first.
        compared: how many entries were compared, by area.
        limits: what was compared only in part, or not at all, and why.
        unverified: why too little is known for a verdict; empty if enough is.
        costs: times and memory, on which no verdict rests.
        stale: accepted differences that are no differences, or whose time is over.
    """

    old: Record
    new: Record
    differences: tuple[Difference, ...]
    compared: Mapping[str, int]
    limits: tuple[str, ...]
    unverified: tuple[str, ...]
    costs: tuple[CostChange, ...]
    stale: tuple[str, ...] = ()

    @property
    def verdict(self) -> UpgradeVerdict:
        """What breaks goes before what is not known, and that before what changes."""
        counting = {difference.severity for difference in self.differences if difference.counts}
        if Severity.BREAKS in counting:
            return UpgradeVerdict.BROKEN
        if self.unverified:
            return UpgradeVerdict.UNVERIFIED
        return UpgradeVerdict.CHANGED if counting else UpgradeVerdict.SAFE

    def of(self, area: str) -> tuple[Difference, ...]:
        """The differences of an area."""
        return tuple(difference for difference in self.differences if difference.area == area)

    def command(self, key: str) -> str:
        """The command that shows an entry again, measured anew on both sides."""
        words = ["mnist-fp8", "upgrade", *_arguments(self.old, self.new), "--only", key]
        return shlex.join(words)


def _arguments(old: Record, new: Record) -> list[str]:
    words = list(old.arguments)
    if new.arguments != old.arguments:
        words += new.arguments
    for package in ("jax", "flax"):
        versions = [record.environment.get(package, "") for record in (old, new)]
        if all(versions) and versions[0] != versions[1]:
            words += [f"--{package}", ":".join(versions)]
    return words


# --- comparing -----------------------------------------------------------------------------------------------------


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
    _refuse_other_run(old, new)
    scope = _Scope.of(old, new)
    changes = [change for change in _changes(old, new, scope) if not _follows_from_support(change, old, new)]
    found = [*_claim_differences(old.claims, new.claims), *_start_differences(old, new), *judge(changes)]
    differences, stale = _accept(found, accepted, today or dt.datetime.now(tz=dt.UTC).date())
    return Comparison(
        old,
        new,
        tuple(sorted(differences, key=_worst_first)),
        _compared(old, new, scope),
        scope.limits,
        tuple(_unverified(old, new)),
        tuple(_costs(old, new)),
        tuple(stale),
    )


def _worst_first(difference: Difference) -> tuple[bool, int, int]:
    order = list(Severity)
    return bool(difference.accepted), order.index(difference.severity), list(AREAS).index(difference.area)


def _refuse_other_run(old: Record, new: Record) -> None:
    if old.run and new.run and old.run != new.run:
        raise RecordError(
            f"{old.te} was measured in a {old.run} run and {new.te} in a {new.run} run:"
            " measure both in the same kind of run"
        )


@dataclasses.dataclass(frozen=True)
class _Scope:
    """What of two records can be compared.

    Attributes:
        same_keys: both were measured by the same code, so that an entry that one lacks is a difference.
        floor: relative difference of numbers that is taken for none.
        left_out: areas that are not compared.
        limits: all of that in words.
    """

    same_keys: bool
    floor: float
    left_out: tuple[str, ...]
    limits: tuple[str, ...]

    @classmethod
    def of(cls, old: Record, new: Record) -> "_Scope":
        limits, left_out, floor = [], [], 0.0
        devices = [_device(record) for record in (old, new)]
        if devices[0] != devices[1] and not old.problem and not new.problem:
            floor, left_out = OTHER_DEVICE_FLOOR, list(_ONE_DEVICE)
            limits.append(
                f"measured on different devices ({devices[0]}; {devices[1]}): training and special numbers are not"
                f" compared, other numbers only beyond {OTHER_DEVICE_FLOOR:.0%}"
            )
        data = [record.environment.get("data", "") for record in (old, new)]
        if data[0] != data[1] and all(data):
            left_out.append("training")
            limits.append("trained on different data: training is not compared")
        same_keys = old.settings == new.settings
        if not same_keys:
            limits.append("measured by different versions of mnist-fp8: what only one of them measures is not compared")
        limits += _other_versions(old, new)
        if not (old.claims and new.claims):
            limits.append(
                "the claims are not part of both records: mnist-fp8 upgrade, or measure --claims, judges them"
            )
        limits += _verified_by_neither(old.claims, new.claims)
        return cls(same_keys, floor, tuple(dict.fromkeys(left_out)), tuple(limits))


def _verified_by_neither(old: Verification | None, new: Verification | None) -> Iterator[str]:
    """The claims about which nothing is known on either side, by what it would take."""
    if not (old and new):
        return
    known = {claim.name for claim in old.claims if claim.verdict is not Verdict.NOT_VERIFIED}
    claims: dict[str, list[str]] = {}
    for claim in new.claims:
        if claim.verdict is Verdict.NOT_VERIFIED and claim.name not in known:
            reasons = dict.fromkeys(test.reason for test in claim.tests if test.reason)
            claims.setdefault("; ".join(reasons) or "it has no test", []).append(claim.name)
    for reason, names in claims.items():
        yield f"verified on neither side: {', '.join(names)} ({reason})"


def _device(record: Record) -> str:
    return ", ".join(record.environment[name] for name in ("device", "processor") if name in record.environment)


_STACK = ("jax", "jaxlib", "flax", "optax", "numpy", "ml-dtypes", "python")


def _other_versions(old: Record, new: Record) -> Iterator[str]:
    names = [name for name in old.environment if name in _STACK or name.isupper()]
    pairs = {name: (old.environment[name], new.environment.get(name, "")) for name in names}
    found = [f"{name} {a} → {b}" for name, (a, b) in pairs.items() if a != b and b]
    if found:
        yield f"not only Transformer Engine differs ({', '.join(found)}): a difference may come from that"


def _changes(old: Record, new: Record, scope: _Scope) -> Iterator[Change]:
    if any(record.problem and not record.entries for record in (old, new)):
        return  # one of them could not be measured: what there is of the other is no difference
    for key in {**old.entries, **new.entries}:
        a, b = old.entries.get(key), new.entries.get(key)
        if _is_compared(key, old, new, scope) and a != b:
            yield from changes_of(key, a, b, scope.floor)


def _is_compared(key: str, old: Record, new: Record, scope: _Scope) -> bool:
    """Whether an entry is compared: a name of ours that one side lacks may only mean that other code measured it."""
    area = key.partition("/")[0]
    both = key in old.entries and key in new.entries
    return area not in scope.left_out and (both or scope.same_keys or area in _TES_OWN_KEYS)


def _follows_from_support(change: Change, old: Record, new: Record) -> bool:
    """Whether an entry is there on one side only because the recipe that it belongs to runs on that side only."""
    if change.area in _NOT_OF_RECIPES or (change.old is not None and change.new is not None):
        return False
    sides = [_recipes_that_run(record) for record in (old, new)]
    return any(recipe in change.subject for recipe in sides[0] ^ sides[1])


def _recipes_that_run(record: Record) -> set[str]:
    supported = {key: words(value) for key, value in record.entries.items() if key.startswith("recipes/")}
    return {key.split("/")[1] for key, said in supported.items() if said.startswith(RUNS)}


# --- the suite and the start -----------------------------------------------------------------------------------------


def _claim_differences(old: Verification | None, new: Verification | None) -> Iterator[Difference]:
    for claim in new.claims if new else ():
        before = next((each for each in old.claims if each.name == claim.name), None) if old else None
        yield from _claim_difference(claim, before)


def _claim_difference(new: ClaimResult, old: ClaimResult | None) -> Iterator[Difference]:
    was = {test.name: test for test in old.tests} if old else {}
    failed = new.of(Outcome.FAILED)
    if failed:
        also = old is not None and old.verdict is Verdict.BROKEN
        yield together(
            "claims", new.name, meaning.of_claim(also=also), [_test_detail(new, test, was) for test in failed]
        )
    known = [test for test in new.of(Outcome.KNOWN) if test.name in was and was[test.name].outcome is Outcome.PASSED]
    if known:
        yield together("claims", new.name, meaning.KNOWN_DEFECT, [_test_detail(new, test, was) for test in known])
    skipped = [
        test for test in new.of(Outcome.SKIPPED) if test.name in was and was[test.name].outcome is Outcome.PASSED
    ]
    if skipped:
        yield together("claims", new.name, meaning.SKIPPED, [_test_detail(new, test, was) for test in skipped])


def _test_detail(claim: ClaimResult, test: TestResult, was: Mapping[str, TestResult]) -> Detail:
    old = was[test.name].outcome.value if test.name in was else MISSING
    return Detail(f"claims/{claim.name}", old, f"{test.outcome.value}: {test.headline}", test.name.rpartition("::")[2])


def _start_differences(old: Record, new: Record) -> Iterator[Difference]:
    if new.problem:
        detail = Detail("behaviour/start", old.problem or "works", new.problem)
        yield together("behaviour", "start", meaning.DOES_NOT_START, [detail])


def _unverified(old: Record, new: Record) -> Iterator[str]:
    if old.problem:
        yield f"the old one could not be measured: {old.problem}"
    judged = old.claims and new.claims
    if not (judged or old.problem or new.problem or old.entries.keys() & new.entries.keys()):
        yield "the two records have no entry in common"
    if new.claims and not any(claim.verdict is not Verdict.NOT_VERIFIED for claim in new.claims.claims):
        yield "no claim could be verified"
    for claim in new.claims.claims if new.claims and old.claims else ():
        before = next((each for each in old.claims.claims if each.name == claim.name), None) if old.claims else None
        if before and claim.verdict is Verdict.NOT_VERIFIED is not before.verdict:
            yield f"claim {claim.name} was verified before and is not now"


# --- accepted, counted, shown ----------------------------------------------------------------------------------------


def _accept(
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


def _compared(old: Record, new: Record, scope: _Scope) -> dict[str, int]:
    keys = [key for key in {**old.entries, **new.entries} if _is_compared(key, old, new, scope)]
    both = Counter(key.partition("/")[0] for key in keys)
    if old.claims and new.claims:
        both["claims"] = len({claim.name for claim in old.claims.claims} & {claim.name for claim in new.claims.claims})
    return {area: both[area] for area in AREAS if both[area] and area not in scope.left_out}


def _costs(old: Record, new: Record) -> Iterator[CostChange]:
    for key, value in old.entries.items():
        other = new.entries.get(key)
        if isinstance(value, Cost) and isinstance(other, Cost) and value.values and other.values:
            medians = [statistics.median(each.values) for each in (value, other)]
            deviations = [
                abs(each / median - 1)
                for cost, median in zip((value, other), medians, strict=True)
                for each in cost.values
                if median
            ]
            repetitions = min(len(value.values), len(other.values))
            spread = max(deviations, default=0.0)
            yield CostChange(key.partition("/")[2], medians[0], medians[1], value.unit, repetitions, spread)
