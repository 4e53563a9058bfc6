"""What becomes of a user's code, as every form of a report shows it: texts are made once, and are `clean`."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType

from mnist_fp8.core.plain import clean
from mnist_fp8.gate.reports.markup import at_most, cut
from mnist_fp8.gate.reports.uses import words
from mnist_fp8.gate.reports.uses.words import Status, Words
from mnist_fp8.gate.uses.judgement import Judgement, Outcome
from mnist_fp8.gate.uses.use import Place, Use, Uses
from mnist_fp8.gate.verdict.rules.rule import Difference
from mnist_fp8.gate.verdict.rules.uses import key_of
from mnist_fp8.gate.verdict.uses import JudgedUses

ROOM = 160
"""Characters of a user's line."""


@dataclasses.dataclass(frozen=True)
class Line:
    """A place in the user's code, as text."""

    where: str
    file: str
    number: str
    source: str

    @classmethod
    def of(cls, place: Place) -> "Line":
        """The texts of a place."""
        file = clean(place.file)
        number = f"cell {place.cell}, line {place.line}" if place.cell else str(place.line)
        where = f"{file}, {number}" if place.cell else f"{file}:{number}" if place.line else file
        return cls(where, file, number, cut(clean(place.source), ROOM))


@dataclasses.dataclass(frozen=True)
class Fate:
    """One use and what becomes of it.

    Attributes:
        use: the use.
        outcome: the worst of its judgements.
        judgements: those with that outcome.
        line: where it is.
        happens: what becomes of it, a sentence for each cause.
        write: what to write instead.
        accepted: why it does not count, and until when; empty if it does.
    """

    use: Use
    outcome: Outcome
    judgements: tuple[Judgement, ...]
    line: Line
    happens: Words
    write: Words
    accepted: str = ""

    @classmethod
    def of(cls, judgements: Sequence[Judgement], accepted: str = "") -> "Fate":
        """That of one use.

        Args:
            judgements: all of the use.
            accepted: why it does not count.
        """
        outcome = min((each.outcome for each in judgements), key=words.ORDER.index)
        worst = tuple(each for each in judgements if each.outcome is outcome)
        use = worst[0].use
        told = words.what_happens(worst), words.what_to_write(worst)
        return cls(use, outcome, worst, Line.of(use.place), *told, accepted)

    @property
    def status(self) -> Status:
        """What it is counted as."""
        return None if self.accepted else self.outcome

    @property
    def name(self) -> str:
        """What it uses, in short."""
        return words.name_of(self.use.path)

    @property
    def sides(self) -> tuple[str, str]:
        """What its first cause is about, as it was and as it is; empty where it is not there."""
        return clean(self.judgements[0].old), clean(self.judgements[0].new)


@dataclasses.dataclass(frozen=True)
class Block:
    """Uses of one name to which the same happens, in the order of their places."""

    fates: tuple[Fate, ...]

    @property
    def first(self) -> Fate:
        """The one that stands for all."""
        return self.fates[0]

    def others(self, number: int) -> str:
        """Where else it happens: up to so many places, and how many more there are; empty if nowhere."""
        places = list(dict.fromkeys(fate.line.where for fate in self.fates[1:]))
        return ", ".join(at_most(places, number))


def fates(judgements: Iterable[Judgement], accepted: Mapping[str, str] = MappingProxyType({})) -> tuple[Fate, ...]:
    """What becomes of each use, in the order of their places.

    Args:
        judgements: several of one use where there are several causes.
        accepted: why what becomes of a use does not count, by the key of its difference.
    """
    by_use: dict[Use, list[Judgement]] = {}
    for each in judgements:
        by_use.setdefault(each.use, []).append(each)
    found = (Fate.of(group, clean(accepted.get(key_of(use), ""))) for use, group in by_use.items())
    return tuple(sorted(found, key=lambda fate: fate.use.place.order))


def blocks(found: Iterable[Fate]) -> list[Block]:
    """Uses of one name to which the same happens together."""
    groups: dict[tuple[str, Words, str], list[Fate]] = {}
    for fate in found:
        groups.setdefault((fate.use.path, fate.happens, fate.accepted), []).append(fate)
    return [Block(tuple(group)) for group in groups.values()]


def not_looked_at(uses: Uses) -> list[str]:
    """What was not, a line each; what may use Transformer Engine first."""
    unread = sorted(uses.unread, key=lambda each: (not each.may_use, each.place.order))
    return [f"{Line.of(each.place).where}: {clean(each.reason)}" for each in unread]


@dataclasses.dataclass(frozen=True)
class CodeView:
    """What becomes of a user's code.

    Attributes:
        judged: what was found, what becomes of it, and what was not looked at.
        fates: all uses, in the order of their places.
    """

    judged: JudgedUses
    fates: tuple[Fate, ...]

    @classmethod
    def of(cls, judged: JudgedUses, differences: Iterable[Difference]) -> "CodeView":
        """The view of some code.

        Args:
            judged: what becomes of it.
            differences: those of the uses, some of which may be accepted.
        """
        reasons: dict[str, list[str]] = {}
        for difference in differences:
            for entry in difference.entries:
                reasons.setdefault(entry.key, []).append(difference.accepted)
        # One cause that nobody accepts is enough for a use to count.
        accepted = {key: "; ".join(dict.fromkeys(found)) for key, found in reasons.items() if all(found)}
        return cls(judged, fates(judged.judgements or (), accepted))

    def of_status(self, status: Status) -> list[Block]:
        """Uses of which that becomes; those of one name to which the same happens together."""
        return blocks(fate for fate in self.fates if fate.status is status)

    @property
    def by_file(self) -> dict[str, list[Fate]]:
        """Uses by file."""
        found: dict[str, list[Fate]] = {}
        for fate in self.fates:
            found.setdefault(fate.line.file, []).append(fate)
        return found

    @cached_property
    def by_name(self) -> dict[str, Status]:
        """The worst that becomes of each name."""
        found: dict[str, Status] = {}
        for fate in self.fates:
            earlier = found.get(fate.use.path, fate.status)
            found[fate.use.path] = min(earlier, fate.status, key=words.ORDER.index)
        return found

    @property
    def headline(self) -> str:
        """How many names it uses, and what becomes of them."""
        if self.judged.judgements is None:
            return words.NOT_JUDGED
        return words.headline(len(self.by_name), len(self.by_file), self.by_name.values())

    @property
    def range(self) -> Words:
        """Which releases it fits."""
        return words.releases(self.judged.fitting)

    @property
    def looked_at(self) -> str:
        """What was looked at."""
        return words.looked_at(self.judged.found)

    @property
    def not_looked_at(self) -> list[str]:
        """What was not."""
        return not_looked_at(self.judged.found)
