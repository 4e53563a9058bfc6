"""Which releases of Transformer Engine a user's code fits, and what each of them changed for it: pure."""

import dataclasses
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from packaging.version import Version

from mnist_fp8.gate.uses.fit import Fits
from mnist_fp8.gate.uses.indexed import Indexed
from mnist_fp8.gate.uses.judge import judgements, outcomes
from mnist_fp8.gate.uses.judgement import Judgement, Outcome
from mnist_fp8.gate.uses.use import Use
from mnist_fp8.record.names import Names

_MOST_LEFT_OUT = 3
"""Releases between others that a range leaves out by name; with more, it is cut there."""
_FAILS = {Outcome.BREAKS, Outcome.BROKEN_ALREADY}
_ABSENT = _FAILS | {Outcome.GUARDED}


@dataclasses.dataclass(frozen=True)
class History:
    """What becomes of one use over all releases.

    Attributes:
        use: the use.
        fits: releases that have its name and that it fits, the oldest first; those too in which that is not known.
        fails: releases that it does not fit, and where nothing protects it.
        changes: what a release changed for it, by the release; nothing where it stayed as it was.
    """

    use: Use
    fits: tuple[str, ...]
    fails: tuple[str, ...]
    changes: Mapping[str, tuple[Judgement, ...]]


@dataclasses.dataclass(frozen=True)
class Fitting:
    """Which releases some code fits.

    Attributes:
        releases: all that are known, the oldest first.
        fits: those that all uses fit that nothing protects, or that may.
        unknown: those of them in which it is not known of a use.
        histories: of each use that names something in one of them, in their order.
    """

    releases: tuple[str, ...]
    fits: tuple[str, ...]
    unknown: tuple[str, ...]
    histories: tuple[History, ...]

    @property
    def ranges(self) -> tuple[str, ...]:
        """The releases that it fits, as pip takes them, such as ``>=2.9,<2.12``; several if they lie apart."""
        return ranges(self.releases, self.fits)


def fitting(uses: Sequence[Use], releases: Mapping[str, Names], used: str = "") -> Fitting:
    """Which releases code fits.

    What an argument by position means, or that a method is called, can change in silence. So it is asked between two
    releases: nothing may break from the one that the code is written for to another one, before or after it.

    Args:
        uses: all uses of the code.
        releases: names of each known release, by version.
        used: the release that the code is written for; the newest that fits best, if it is not known or fits worse.
    """
    ordered = {version: Fits(releases[version]) for version in sorted(releases, key=Version)}
    if not ordered:
        return Fitting((), (), (), ())
    code = Indexed(uses)
    alone = {version: outcomes(code, each, each) for version, each in ordered.items()}
    failing = {version: len(_uses(found, _FAILS)) for version, found in alone.items()}
    best = [version for version, number in failing.items() if number == min(failing.values())]
    written_for = used if used in best else best[-1]
    seen = {
        version: alone[version] if version == written_for else outcomes(code, ordered[written_for], each)
        for version, each in ordered.items()
    }
    steps = {
        version: judgements(code, ordered[before], ordered[version]) for before, version in itertools.pairwise(ordered)
    }
    fits = tuple(version for version, found in seen.items() if not _uses(found, _FAILS))
    unknown = tuple(version for version in fits if _uses(seen[version], {Outcome.UNKNOWN}))
    return Fitting(tuple(ordered), fits, unknown, tuple(_histories(seen, steps, alone)))


_Outcomes: TypeAlias = Mapping[Use, set[Outcome]]


def _uses(found: _Outcomes, some: set[Outcome]) -> set[Use]:
    """Uses to which one of some outcomes comes."""
    return {use for use, of_use in found.items() if of_use & some}


def _histories(
    seen: Mapping[str, _Outcomes], steps: Mapping[str, Iterable[Judgement]], alone: Mapping[str, _Outcomes]
) -> Iterator[History]:
    there = {version: found.keys() - _uses(found, _ABSENT) for version, found in seen.items()}
    failing = {version: _uses(found, _FAILS) for version, found in seen.items()}
    changed: dict[Use, dict[str, list[Judgement]]] = {}
    for before, version in itertools.pairwise(alone):
        fit_neither = _uses(alone[before], _ABSENT) & _uses(alone[version], _ABSENT)
        for each in steps[version]:
            if each.outcome is not Outcome.SAME and each.use not in fit_neither:
                changed.setdefault(each.use, {}).setdefault(version, []).append(each)
    for use in dict.fromkeys(itertools.chain.from_iterable(seen.values())):
        changes = {version: tuple(found) for version, found in changed.get(use, {}).items()}
        fits, fails = (tuple(version for version in seen if use in of[version]) for of in (there, failing))
        yield History(use, fits, fails, changes)


def ranges(releases: Sequence[str], fits: Collection[str]) -> tuple[str, ...]:
    """Releases as pip takes them, each range in as few words as it takes.

    Args:
        releases: all that are known, the oldest first.
        fits: some of them.
    """
    joined: list[list[str]] = []
    for run in runs(releases, fits):
        gap = releases[releases.index(joined[-1][-1]) + 1 : releases.index(run[0])] if joined else ()
        if joined and len(gap) <= _MOST_LEFT_OUT:
            joined[-1] += run
        else:
            joined.append(run)
    return tuple(_range(releases, run) for run in joined)


def runs(releases: Sequence[str], some: Collection[str]) -> list[list[str]]:
    """Those of some releases that follow on each other, together."""
    return [list(run) for is_one, run in itertools.groupby(releases, some.__contains__) if is_one]


def _range(releases: Sequence[str], run: Sequence[str]) -> str:
    """One range; what it leaves out between its ends by name."""
    first, end = releases.index(run[0]), releases.index(run[-1]) + 1
    left_out = [each for each in releases[first:end] if each not in run]
    words = [f">={short(run[0])}", *([f"<{short(releases[end])}"] if end < len(releases) else [])]
    for series in dict.fromkeys(map(_series, left_out)):
        whole = [each for each in releases if _series(each) == series]
        some = [each for each in left_out if _series(each) == series]
        words += [f"!={series}.*"] if whole == some else [f"!={each}" for each in some]
    return ",".join(words)


def short(version: str) -> str:
    """``2.9`` for ``2.9.0``, which is the same release to pip."""
    return _series(version) if Version(version) == Version(_series(version)) else version


def _series(version: str) -> str:
    return ".".join(map(str, Version(version).release[:2]))
