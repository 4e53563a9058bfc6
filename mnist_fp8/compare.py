"""Two records of Transformer Engine: what differs, how much against the noise, what it means, and a verdict.

Everything here is pure: stored records in, a `Comparison` out.
"""

import dataclasses
import datetime as dt
import enum
import itertools
import math
import re
import shlex
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from mnist_fp8 import meaning
from mnist_fp8.api import ApiChange, SignatureDifference, shown, signature_differences
from mnist_fp8.meaning import Severity
from mnist_fp8.measurements import (
    AGAINST_ORACLE,
    AGREES,
    AREAS,
    DISTRIBUTION,
    IN_TOLERANCES,
    OUTSIDE,
    RUNS,
    Cost,
    Curves,
    Failure,
    Numbers,
    Record,
    Signature,
    Text,
    Value,
)
from mnist_fp8.policy import Acceptance
from mnist_fp8.records import ClaimResult, Outcome, RecordError, TestResult, Verdict, Verification

NOISES = 4
"""A number differs if it does so by more than this many times the noise that was measured."""
OTHER_DEVICE_FLOOR = 0.02
"""Relative difference of numbers from two devices that is taken for none: they may accumulate in another order."""
LESS_ACCURATE = 1.25
"""An error that grew by more than this factor is no matter of rounding in another place."""
SPREADS = 5
"""A training curve is worse if its end lies this many standard errors of the seeds beyond the old one."""
MISSING = "not there"
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
class Detail:
    """One entry that differs.

    Attributes:
        key: of the entry, such as ``numerics/DelayedScaling/output against float64``.
        old: its old value, as a person reads it.
        new: its new value.
        size: how much that is, against the noise; empty where a text differs.
        weight: the same as a number, to find the worst.
    """

    key: str
    old: str
    new: str
    size: str = ""
    weight: float = 0.0


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
    found = [*_claim_differences(old.claims, new.claims), *_start_differences(old, new)]
    for area, judge in _JUDGES.items():
        found += judge([change for change in changes if change.area == area])
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
        return cls(same_keys, floor, tuple(dict.fromkeys(left_out)), tuple(limits))


def _device(record: Record) -> str:
    return ", ".join(record.environment[name] for name in ("device", "processor") if name in record.environment)


_STACK = ("jax", "jaxlib", "flax", "optax", "numpy", "ml-dtypes", "python")


def _other_versions(old: Record, new: Record) -> Iterator[str]:
    names = [name for name in old.environment if name in _STACK or name.isupper()]
    pairs = {name: (old.environment[name], new.environment.get(name, "")) for name in names}
    found = [f"{name} {a} → {b}" for name, (a, b) in pairs.items() if a != b and b]
    if found:
        yield f"not only Transformer Engine differs ({', '.join(found)}): a difference may come from that"


@dataclasses.dataclass(frozen=True)
class _Change:
    """An entry that differs; ``None`` where it is not there."""

    key: str
    old: Value | None
    new: Value | None
    size: str = ""
    weight: float = 0.0
    worst: tuple[str, str] = ("", "")

    @property
    def area(self) -> str:
        return self.key.partition("/")[0]

    @property
    def subject(self) -> str:
        return self.key.split("/")[1]

    @property
    def name(self) -> str:
        return self.key.partition("/")[2].partition("/")[2]

    @property
    def detail(self) -> Detail:
        old, new = self.worst if any(self.worst) else (self._named(self.old), self._named(self.new))
        return Detail(self.key, old, new, self.size, self.weight)

    def _named(self, value: Value | None) -> str:
        """A value; what is there on one side only with its name, which says more than that it is there."""
        one_sided = value is not None and None in (self.old, self.new)
        return f"{self.key.rpartition('/')[2]}: {text(value)}" if one_sided else text(value)


def _changes(old: Record, new: Record, scope: _Scope) -> Iterator[_Change]:
    if any(record.problem and not record.entries for record in (old, new)):
        return  # one of them could not be measured: what there is of the other is no difference
    for key in {**old.entries, **new.entries}:
        a, b = old.entries.get(key), new.entries.get(key)
        if _is_compared(key, old, new, scope) and a != b:
            yield from _change(key, a, b, scope.floor)


def _is_compared(key: str, old: Record, new: Record, scope: _Scope) -> bool:
    """Whether an entry is compared: a name of ours that one side lacks may only mean that other code measured it."""
    area = key.partition("/")[0]
    both = key in old.entries and key in new.entries
    return area not in scope.left_out and (both or scope.same_keys or area in _TES_OWN_KEYS)


def _follows_from_support(change: _Change, old: Record, new: Record) -> bool:
    """Whether an entry is there on one side only because the recipe that it belongs to runs on that side only."""
    if change.area in _NOT_OF_RECIPES or (change.old is not None and change.new is not None):
        return False
    sides = [_recipes_that_run(record) for record in (old, new)]
    return any(recipe in change.subject for recipe in sides[0] ^ sides[1])


def _recipes_that_run(record: Record) -> set[str]:
    supported = {key: _text(value) for key, value in record.entries.items() if key.startswith("recipes/")}
    return {key.split("/")[1] for key, said in supported.items() if said.startswith(RUNS)}


def _change(key: str, old: Value | None, new: Value | None, floor: float) -> Iterator[_Change]:
    match old, new:
        case Cost(), _:
            return
        case _, Cost():
            return
        case Numbers(), Numbers():
            yield from _number_change(key, old, new, floor)
        case Curves(), Curves():
            yield from _curve_change(key, old, new, floor)
        case _:
            yield _Change(key, old, new)


def _number_change(key: str, old: Numbers, new: Numbers, floor: float) -> Iterator[_Change]:
    """The number that differs most, if one does so by more than noise."""
    noise = max(old.noise, new.noise)
    least = max(floor, NOISES * noise)
    before, after = (dict(zip(each.labels, each.values, strict=True)) for each in (old, new))
    found = {
        label: _relative(before.get(label, math.nan), after.get(label, math.nan))
        for label in dict.fromkeys([*before, *after])
    }
    beyond = {label: size for label, size in found.items() if size > least}
    if beyond:
        worst = max(beyond, key=lambda label: beyond[label])
        a, b = before.get(worst, math.nan), after.get(worst, math.nan)
        of_all = f"{len(beyond)} of {len(found)} numbers" if len(found) > 1 else ""
        shown_as = (f"{worst}: {number(a)}".removeprefix(": "), f"{worst}: {number(b)}".removeprefix(": "))
        size = ", ".join(filter(None, [_signed(a, b), of_all, _noise(noise, beyond[worst])]))
        weight = (
            0.0 if DISTRIBUTION in key else beyond[worst]
        )  # shares of a distribution may be tiny, and grow manyfold
        yield _Change(key, old, new, _shifted(old, new) or size, weight, shown_as)


def _relative(old: float, new: float) -> float:
    """Relative difference; infinite between a number and none, or between different infinities."""
    apart = _absolute(old, new)
    return apart / max(abs(old), abs(new)) if 0 < apart < math.inf else apart


def _absolute(old: float, new: float) -> float:
    """Difference; infinite between a number and none, or between different infinities."""
    if old == new or (math.isnan(old) and math.isnan(new)):
        return 0.0
    return abs(new - old) if math.isfinite(old) and math.isfinite(new) else math.inf


def _signed(old: float, new: float) -> str:
    if not (math.isfinite(old) and math.isfinite(new) and old):
        return ""
    change = (new - old) / abs(old)
    return f"{change:+.2%}" if abs(change) >= 1e-4 else f"{change:+.1e}"  # noqa: PLR2004 - what two decimals show


def _noise(noise: float, size: float) -> str:
    return f"{size / noise:.0f} times the noise" if noise else "exact: noise is 0"


def _shifted(old: Numbers, new: Numbers) -> str:
    """Whether a series is the same one, a step earlier or later."""
    if len(old.values) == len(new.values) > 2:  # noqa: PLR2004 - two numbers are no series
        if old.values[1:] == new.values[:-1]:
            return "the same values, one step earlier"
        if old.values[:-1] == new.values[1:]:
            return "the same values, one step later"
    return ""


def _curve_change(key: str, old: Curves, new: Curves, floor: float) -> Iterator[_Change]:
    """Curves that are not the same: how far apart their ends are, in standard errors of the seeds."""
    if old.steps != new.steps or len(old.seeds) != len(new.seeds):
        yield _Change(key, old, new, "not the same steps or seeds", math.inf)
        return
    ends = [[seed[-1] for seed in curves.seeds] for curves in (old, new)]
    before, after = (statistics.fmean(values) for values in ends)
    pairs = zip(itertools.chain(*old.seeds), itertools.chain(*new.seeds), strict=True)
    apart = max(_absolute(a, b) for a, b in pairs)
    noise = max(old.noise, new.noise)
    if apart <= max(NOISES * noise, floor * abs(before)):
        return
    error = _standard_error(ends)
    distance = (after - before) / error
    errors = f"{distance:+.1f} standard errors of the {len(old.seeds)} seeds"
    size = errors if math.isfinite(distance) else "not finite any more"
    yield _Change(key, old, new, size, distance, (f"ends at {number(before)}", f"ends at {number(after)}"))


def _standard_error(ends: Sequence[Sequence[float]]) -> float:
    """Of the difference of two means over the same number of seeds."""
    finite = [[value for value in values if math.isfinite(value)] for values in ends]
    variances = [statistics.variance(values) for values in finite if len(values) > 1]
    pooled = statistics.fmean(variances) if variances else 0.0
    return max(math.sqrt(2 * pooled / len(ends[0])), 1e-6)


# --- what it means ---------------------------------------------------------------------------------------------------


def _together(area: str, title: str, means: meaning.Meaning, details: Iterable[Detail]) -> Difference:
    ordered = tuple(sorted(details, key=lambda detail: -abs(detail.weight)))
    return Difference(area, title, means.severity, ordered, means.means, means.do)


def _grouped(changes: Iterable[_Change], key: Callable[[_Change], tuple[str, meaning.Meaning]]) -> list[Difference]:
    """Changes with the same title and meaning as one difference."""
    groups: dict[tuple[str, str, meaning.Meaning], list[Detail]] = {}
    for change in changes:
        title, means = key(change)
        groups.setdefault((change.area, title, means), []).append(change.detail)
    return [_together(area, title, means, details) for (area, title, means), details in groups.items()]


def _judge_api(changes: Sequence[_Change]) -> list[Difference]:
    groups: dict[tuple[str, meaning.Meaning], list[Detail]] = {}
    for change in changes:
        for found in _api_differences(change):
            is_method = "method" in (getattr(change.old, "what", ""), getattr(change.new, "what", ""))
            title, means = meaning.of_api(found.change, change.key.removeprefix("api/"), is_method=is_method)
            # The shorter the path to a name, the more users import it.
            detail = Detail(change.key, found.old, found.new, found.parameter, 1 / change.key.count("."))
            groups.setdefault((title, means), []).append(detail)
    return [
        _together("api", title if len(details) == 1 else f"{len(details)} x {title}", means, details)
        for (title, means), details in groups.items()
    ]


def _api_differences(change: _Change) -> Iterator[SignatureDifference]:
    match change.old, change.new:
        case Signature(), None:
            yield SignatureDifference(ApiChange.REMOVED, "", change.detail.old, MISSING)
        case None, Signature():
            yield SignatureDifference(ApiChange.ADDED, "", MISSING, change.detail.new)
        case Signature() as old, Signature() as new:
            yield from signature_differences(old, new)
        case _, Failure(error=error):
            yield SignatureDifference(ApiChange.REMOVED, "", "can be read", error)


def _judge_recipes(changes: Sequence[_Change]) -> list[Difference]:
    def judged(change: _Change) -> tuple[str, meaning.Meaning]:
        ran, runs = (_text(value).startswith(RUNS) for value in (change.old, change.new))
        return f"recipe {change.subject}", meaning.of_support(ran=ran, runs=runs)

    return _grouped(changes, judged)


def _judge_variables(changes: Sequence[_Change]) -> list[Difference]:
    def judged(change: _Change) -> tuple[str, meaning.Meaning]:
        collection = change.name.partition("/")[0]
        return f"{change.subject}: variables in {collection}", meaning.of_variables(collection)

    return _grouped(changes, judged)


def _judge_metadata(changes: Sequence[_Change]) -> list[Difference]:
    def judged(change: _Change) -> tuple[str, meaning.Meaning]:
        what = change.name.partition(" ")[2]  # without the tensor
        wrong = AGAINST_ORACLE in what and _text(change.old) == AGREES
        return what, meaning.of_metadata(what, wrong=wrong)

    return _failed(changes) + _grouped(_measured(changes), judged)


def _judge_float8(changes: Sequence[_Change]) -> list[Difference]:
    def judged(change: _Change) -> tuple[str, meaning.Meaning]:
        lost = _lost_float8(_text(change.old), _text(change.new), outside=change.subject == OUTSIDE)
        return f"{change.subject}: float8 in programs", meaning.of_float8(lost=lost, subject=change.subject)

    return _failed(changes) + _grouped(_measured(changes), judged)


def _lost_float8(old: str, new: str, *, outside: bool) -> bool:
    """Whether what should compute in float8 does so less than before; outside autocast, whether it does so at all."""
    if outside:
        return "float8" in new and "float8" not in old
    before, after = (Counter(re.findall(r"(float8|f8)\w*", each)) for each in (old, new))
    return sum(after.values()) < sum(before.values())


def _judge_numerics(changes: Sequence[_Change]) -> list[Difference]:
    def judged(change: _Change) -> tuple[str, meaning.Meaning]:
        return f"{change.subject}: numbers", meaning.of_numerics(_worse(change))

    return _failed(changes) + _grouped(_measured(changes), judged)


def _worse(change: _Change) -> bool:
    """Whether new numbers are wrong where the old ones were right: beyond the oracle's tolerance, or less accurate."""
    if not (isinstance(change.old, Numbers) and isinstance(change.new, Numbers)):
        return True
    old = dict(zip(change.old.labels, change.old.values, strict=True))
    new = dict(zip(change.new.labels, change.new.values, strict=True))
    pairs = [(old[label], new[label]) for label in old.keys() & new.keys()]
    if IN_TOLERANCES in change.name:
        return any(not b <= 1 and a <= 1 for a, b in pairs)
    if DISTRIBUTION in change.name:
        return False
    return any(math.isfinite(a) and not b <= LESS_ACCURATE * a for a, b in pairs)


def _judge_bits(changes: Sequence[_Change]) -> list[Difference]:
    def judged(change: _Change) -> tuple[str, meaning.Meaning]:
        wrong = AGREES in _text(change.old) and AGREES not in _text(change.new)
        return f"{change.subject}: quantized tensors", meaning.of_bits(wrong=wrong)

    return _failed(changes) + _grouped(_measured(changes), judged)


def _judge_special(changes: Sequence[_Change]) -> list[Difference]:
    def judged(change: _Change) -> tuple[str, meaning.Meaning]:
        worse = _text(change.new).count("NaN") > _text(change.old).count("NaN")
        return f"{change.subject}: special numbers", meaning.of_special(worse=worse)

    return _failed(changes) + _grouped(_measured(changes), judged)


def _judge_behaviour(changes: Sequence[_Change]) -> list[Difference]:
    def judged(change: _Change) -> tuple[str, meaning.Meaning]:
        return change.name, meaning.of_behaviour(change.name, _text(change.new))

    return _failed(changes) + _grouped(_measured(changes), judged)


def _judge_training(changes: Sequence[_Change]) -> list[Difference]:
    def judged(change: _Change) -> tuple[str, meaning.Meaning]:
        distance = -change.weight if "accuracy" in change.name else change.weight
        worse = isinstance(change.new, Curves) and (math.isnan(distance) or distance > SPREADS)
        return f"{change.subject}: training", meaning.of_training(worse=worse)

    return _failed(changes) + _grouped(_measured(changes), judged)


def _judge_warnings(changes: Sequence[_Change]) -> list[Difference]:
    def judged(change: _Change) -> tuple[str, meaning.Meaning]:
        return ("warnings that are new", meaning.WARNING) if change.old is None else ("warnings gone", meaning.QUIET)

    return _grouped(changes, judged)


_JUDGES: dict[str, Callable[[Sequence[_Change]], list[Difference]]] = {
    "api": _judge_api,
    "recipes": _judge_recipes,
    "variables": _judge_variables,
    "metadata": _judge_metadata,
    "float8": _judge_float8,
    "numerics": _judge_numerics,
    "bits": _judge_bits,
    "special": _judge_special,
    "behaviour": _judge_behaviour,
    "training": _judge_training,
    "warnings": _judge_warnings,
}


def _measured(changes: Iterable[_Change]) -> list[_Change]:
    """Changes between two things that were measured."""
    return [change for change in changes if not _is_failure(change)]


def _failed(changes: Iterable[_Change]) -> list[Difference]:
    """What cannot be measured any more, what can be now, and what fails in other words."""

    def judged(change: _Change) -> tuple[str, meaning.Meaning]:
        fails, failed = (isinstance(value, Failure) or value is None for value in (change.new, change.old))
        return f"{change.subject}: what works", meaning.of_failure(failed=failed, fails=fails)

    return _grouped((change for change in changes if _is_failure(change)), judged)


def _is_failure(change: _Change) -> bool:
    return any(isinstance(value, Failure) or value is None for value in (change.old, change.new))


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
        yield _together(
            "claims", new.name, meaning.of_claim(also=also), [_test_detail(new, test, was) for test in failed]
        )
    known = [test for test in new.of(Outcome.KNOWN) if test.name in was and was[test.name].outcome is Outcome.PASSED]
    if known:
        yield _together("claims", new.name, meaning.KNOWN_DEFECT, [_test_detail(new, test, was) for test in known])
    skipped = [
        test for test in new.of(Outcome.SKIPPED) if test.name in was and was[test.name].outcome is Outcome.PASSED
    ]
    if skipped:
        yield _together("claims", new.name, meaning.SKIPPED, [_test_detail(new, test, was) for test in skipped])


def _test_detail(claim: ClaimResult, test: TestResult, was: Mapping[str, TestResult]) -> Detail:
    old = was[test.name].outcome.value if test.name in was else MISSING
    return Detail(f"claims/{claim.name}", old, f"{test.outcome.value}: {test.headline}", test.name.rpartition("::")[2])


def _start_differences(old: Record, new: Record) -> Iterator[Difference]:
    if new.problem:
        detail = Detail("behaviour/start", old.problem or "works", new.problem)
        yield _together("behaviour", "start", meaning.DOES_NOT_START, [detail])


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


def text(value: Value | None) -> str:  # noqa: PLR0911 - one for each kind
    """A value as a person reads it, in one line."""
    match value:
        case None:
            return MISSING
        case Text(text=words):
            return words
        case Failure(error=words):
            return f"fails: {words}"
        case Signature() as signature:
            return shown(signature) or signature.what
        case Numbers(values=values, labels=labels):
            pairs = (f"{label}: {number(each)}".removeprefix(": ") for label, each in zip(labels, values, strict=True))
            return ", ".join(pairs)
        case Curves(seeds=seeds):
            return ", ".join(f"seed {index}: {number(seed[-1])}" for index, seed in enumerate(seeds))
        case Cost(values=values, unit=unit):
            return f"{number(statistics.median(values))} {unit}"


def _text(value: Value | None) -> str:
    """The words of a text; empty for anything else."""
    return value.text if isinstance(value, Text) else ""


def number(value: float) -> str:
    """A number to five digits."""
    return f"{value:.5g}"
