"""Entries that differ, put together by what they mean for a user: a rule for each area."""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from mnist_fp8 import meaning
from mnist_fp8.api import ApiChange, SignatureDifference, signature_differences
from mnist_fp8.changes import MISSING, Change, Detail, words
from mnist_fp8.meaning import Severity
from mnist_fp8.measurements import (
    AGAINST_ORACLE,
    AGREES,
    DISTRIBUTION,
    IN_TOLERANCES,
    OUTSIDE,
    RUNS,
    Curves,
    Failure,
    Numbers,
    Signature,
)

LESS_ACCURATE = 1.25
"""An error that grew by more than this factor is no matter of rounding in another place."""
SPREADS = 5
"""A training curve is worse if its end lies this many standard errors of the seeds beyond the old one."""


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


def judge(changes: Sequence[Change]) -> list[Difference]:
    """The differences that changes come to."""
    found: list[Difference] = []
    for area, rule in _RULES.items():
        found += rule([change for change in changes if change.area == area])
    return found


def together(area: str, title: str, means: meaning.Meaning, details: Iterable[Detail]) -> Difference:
    """One difference of some entries, the worst first."""
    ordered = tuple(sorted(details, key=lambda detail: -math.inf if math.isnan(detail.weight) else -abs(detail.weight)))
    return Difference(area, title, means.severity, ordered, means.means, means.do)


def _grouped(changes: Iterable[Change], key: Callable[[Change], tuple[str, meaning.Meaning]]) -> list[Difference]:
    """Changes with the same title and meaning as one difference."""
    groups: dict[tuple[str, str, meaning.Meaning], list[Detail]] = {}
    for change in changes:
        title, means = key(change)
        groups.setdefault((change.area, title, means), []).append(change.detail)
    return [together(area, title, means, details) for (area, title, means), details in groups.items()]


def _judge_api(changes: Sequence[Change]) -> list[Difference]:
    groups: dict[tuple[str, meaning.Meaning], list[Detail]] = {}
    for change in changes:
        for found in _api_differences(change):
            is_method = "method" in (getattr(change.old, "what", ""), getattr(change.new, "what", ""))
            title, means = meaning.of_api(found.change, change.key.removeprefix("api/"), is_method=is_method)
            # The shorter the path to a name, the more users import it.
            detail = Detail(change.key, found.old, found.new, found.parameter, 1 / (1 + change.key.count(".")))
            groups.setdefault((title, means), []).append(detail)
    unreadable = [change.detail for change in changes if isinstance(change.new, Failure)]
    fails = meaning.of_failure(failed=False, fails=True)
    return [together("api", "source", fails, unreadable)] * bool(unreadable) + [
        together("api", title if len(details) == 1 else f"{len(details)} x {title}", means, details)
        for (title, means), details in groups.items()
    ]


def _api_differences(change: Change) -> Iterator[SignatureDifference]:
    match change.old, change.new:
        case Signature(), None:
            yield SignatureDifference(ApiChange.REMOVED, "", change.detail.old, MISSING)
        case None, Signature():
            yield SignatureDifference(ApiChange.ADDED, "", MISSING, change.detail.new)
        case Signature() as old, Signature() as new:
            yield from signature_differences(old, new)


def _judge_recipes(changes: Sequence[Change]) -> list[Difference]:
    def judged(change: Change) -> tuple[str, meaning.Meaning]:
        ran, runs = (words(value).startswith(RUNS) for value in (change.old, change.new))
        return f"recipe {change.subject}", meaning.of_support(ran=ran, runs=runs)

    return _grouped(changes, judged)


def _judge_variables(changes: Sequence[Change]) -> list[Difference]:
    def judged(change: Change) -> tuple[str, meaning.Meaning]:
        collection = change.name.partition("/")[0]
        return f"{change.subject}: variables in {collection}", meaning.of_variables(collection)

    return _grouped(changes, judged)


def _judge_metadata(changes: Sequence[Change]) -> list[Difference]:
    def judged(change: Change) -> tuple[str, meaning.Meaning]:
        what = change.name.partition(" ")[2]  # without the tensor
        wrong = AGAINST_ORACLE in what and words(change.old) == AGREES
        return what, meaning.of_metadata(what, wrong=wrong)

    return _failed(changes) + _grouped(_measured(changes), judged)


def _judge_float8(changes: Sequence[Change]) -> list[Difference]:
    def judged(change: Change) -> tuple[str, meaning.Meaning]:
        lost = _lost_float8(words(change.old), words(change.new), outside=change.subject == OUTSIDE)
        return f"{change.subject}: float8 in programs", meaning.of_float8(lost=lost, subject=change.subject)

    return _failed(changes) + _grouped(_measured(changes), judged)


def _lost_float8(old: str, new: str, *, outside: bool) -> bool:
    """Whether a float8 type is gone, or an operand is none where all were; outside autocast, whether there is one."""
    if outside:
        return "float8" in new and "float8" not in old
    before, after = (set(re.findall(r"\b(?:float8|f8)\w+", each)) for each in (old, new))
    plain_before, plain_after = (re.search(r"\b(?:b?float16|float32)\b", each) for each in (old, new))
    return not before <= after or (plain_after is not None and plain_before is None)


def _judge_numerics(changes: Sequence[Change]) -> list[Difference]:
    def judged(change: Change) -> tuple[str, meaning.Meaning]:
        return f"{change.subject}: numbers", meaning.of_numerics(_worse(change))

    return _failed(changes) + _grouped(_measured(changes), judged)


def _worse(change: Change) -> bool:
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


def _judge_bits(changes: Sequence[Change]) -> list[Difference]:
    def judged(change: Change) -> tuple[str, meaning.Meaning]:
        wrong = AGREES in words(change.old) and AGREES not in words(change.new)
        return f"{change.subject}: quantized tensors", meaning.of_bits(wrong=wrong)

    return _failed(changes) + _grouped(_measured(changes), judged)


def _judge_special(changes: Sequence[Change]) -> list[Difference]:
    def judged(change: Change) -> tuple[str, meaning.Meaning]:
        worse = words(change.new).count("NaN") > words(change.old).count("NaN")
        return f"{change.subject}: special numbers", meaning.of_special(worse=worse)

    return _failed(changes) + _grouped(_measured(changes), judged)


def _judge_behaviour(changes: Sequence[Change]) -> list[Difference]:
    def judged(change: Change) -> tuple[str, meaning.Meaning]:
        return change.name, meaning.of_behaviour(change.name, words(change.new))

    return _failed(changes) + _grouped(_measured(changes), judged)


def _judge_training(changes: Sequence[Change]) -> list[Difference]:
    def judged(change: Change) -> tuple[str, meaning.Meaning]:
        distance = -change.weight if "accuracy" in change.name else change.weight
        worse = isinstance(change.new, Curves) and (math.isnan(distance) or distance > SPREADS)
        return f"{change.subject}: training", meaning.of_training(worse=worse)

    return _failed(changes) + _grouped(_measured(changes), judged)


def _judge_warnings(changes: Sequence[Change]) -> list[Difference]:
    def judged(change: Change) -> tuple[str, meaning.Meaning]:
        return ("warnings that are new", meaning.WARNING) if change.old is None else ("warnings gone", meaning.QUIET)

    return _grouped(changes, judged)


_RULES: dict[str, Callable[[Sequence[Change]], list[Difference]]] = {
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


def _measured(changes: Iterable[Change]) -> list[Change]:
    """Changes between two things that were measured."""
    return [change for change in changes if not _is_failure(change)]


def _failed(changes: Iterable[Change]) -> list[Difference]:
    """What cannot be measured any more, what can be now, and what fails in other words."""

    def judged(change: Change) -> tuple[str, meaning.Meaning]:
        fails, failed = (isinstance(value, Failure) or value is None for value in (change.new, change.old))
        return f"{change.subject}: what works", meaning.of_failure(failed=failed, fails=fails)

    return _grouped((change for change in changes if _is_failure(change)), judged)


def _is_failure(change: Change) -> bool:
    return any(isinstance(value, Failure) or value is None for value in (change.old, change.new))
