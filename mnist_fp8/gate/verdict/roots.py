"""Differences by their root: all that may follow from one another, with the entry that diverges first.

- Names of the API: a definition, under whatever paths it can be imported, with what lies in it. Several definitions to
  which the same happens are one root.
- Numbers: all of a recipe, from the metadata over programs and codes to training. Recipes that diverge alike are one.
  The same of a layer, in all of its cases and modes.
- What a checkpoint holds: the parameters, and the metadata.
- Anything else: what comes under one rule in one area.

No verdict rests on roots: it is made of the differences.
"""

import dataclasses
import enum
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from mnist_fp8.core.modes import Mode, RecipeConfig
from mnist_fp8.gate.verdict.changes import EntryChange, NumbersApart
from mnist_fp8.gate.verdict.definitions import definitions
from mnist_fp8.gate.verdict.measures import Measure, telling
from mnist_fp8.gate.verdict.rules import checkpoints, layers, numbers, programs
from mnist_fp8.gate.verdict.rules.rule import Difference, Rule, Severity, difference
from mnist_fp8.record.entries import Numbers, Value
from mnist_fp8.record.keys import BF16, LAYERS, OUTSIDE

_BY_CAUSE = (
    *("package", "import", "api", "recipes", LAYERS, "variables", "metadata", "float8", "bits", "numerics", "special"),
    *("behaviour", "training", "checkpoints", "warnings", "claims"),
)
"""Areas, those first from which others may follow."""
_OF_NUMBERS = ("metadata", "float8", "bits", "numerics", "special", "training")
_RECIPES = {OUTSIDE: BF16, Mode.TE_BF16.value: BF16}
"""Subjects that are another name of what numbers are computed in."""
_PARAMETERS, _METADATA, _COLLECTIONS = (("state", what) for what in ("params", "metadata", ""))
_BY_RULE = {
    **dict.fromkeys((layers.PARAMETERS, layers.KERNEL_DTYPE, layers.KERNEL_SHAPE, layers.CONTAINER), _PARAMETERS),
    **dict.fromkeys((layers.METADATA_VARIABLES, numbers.STORED), _METADATA),
    layers.COLLECTIONS: _COLLECTIONS,
    layers.PRECISION: ("numbers", RecipeConfig().name),
}
"""What is shared by the entries of a rule, of whatever area."""
_GAINS = {
    *(numbers.MORE_ACCURATE, numbers.SCALE_RIGHT, numbers.SPECIAL_BETTER, numbers.TRAINING_BETTER),
    programs.CODES_RIGHT,
}
_DAMAGES = {
    rule
    for rule in (*numbers.RULES, *programs.RULES)
    if rule.severity is Severity.BREAKS and rule is not numbers.FLAX_ALONE  # which may be as good as before
}


class Effect(enum.Enum):
    """What a root does to results."""

    DAMAGE = "damage"
    """They are wrong, or less accurate than rounding explains."""
    GAIN = "gain"
    """Some are more accurate, none is damaged."""
    DRIFT = "drift"
    """Other last bits, as accurate as before."""


@dataclasses.dataclass(frozen=True)
class Root:
    """Differences that may follow from one another.

    Attributes:
        subjects: what it is about: definitions, recipes or subjects of differences, those that break first.
        first: the entry that diverges first, at the first of its numbers that does.
        differences: all of them, cut down to its own entries, in the order of cause.
        effect: what it does to results; ``None`` where no numbers differ.
        measures: the numbers that say so, the most telling first.
    """

    subjects: tuple[str, ...]
    first: EntryChange
    differences: tuple[Difference, ...]
    effect: Effect | None
    measures: tuple[Measure, ...]

    @property
    def main(self) -> Difference:
        """The difference that says what it means: the worst, or of those what is better now."""
        return _main(self.differences)


class _Part(NamedTuple):
    """An entry of a difference, and what it is about."""

    subject: str
    difference: Difference
    entry: EntryChange


_Cause: TypeAlias = tuple[str, ...]
"""What all entries of a root share."""


def roots(differences: Iterable[Difference], old: Mapping[str, Value], new: Mapping[str, Value]) -> tuple[Root, ...]:
    """The roots of some differences, those that break first.

    Args:
        differences: those that break first.
        old: entries of the old record.
        new: entries of the new one.
    """
    found = [(one, entry) for one in differences for entry in one.entries]
    defined = definitions([entry.key for one, entry in found if one.area == "api"], old, new)
    causes: dict[_Cause, list[_Part]] = {}
    for one, entry in found:
        cause = _cause(one, entry, defined)
        subject = cause[1] if cause[0] in ("api", "numbers") else one.subject
        causes.setdefault((*cause, one.accepted), []).append(_Part(subject, one, entry))
    order = {key: place for place, key in enumerate({**old, **new})}
    alike: dict[tuple[object, ...], list[_Part]] = {}
    for cause, parts in _joined(causes).items():
        root = _root(parts, order)
        pattern = (cause[0], root.main.rule, root.first.area, root.effect, root.main.accepted)
        alike.setdefault(pattern, []).extend(parts)
    return tuple(sorted((_root(parts, order) for parts in alike.values()), key=_worst_first))


def _worst_first(root: Root) -> tuple[bool, int, bool, bool]:
    """What is accepted comes last; of one severity what all else may follow from comes first, and then results."""
    main = root.main
    return bool(main.accepted), main.rule.severity.order, main.rule is not numbers.FLAX_ALONE, root.effect is None


def _cause(one: Difference, entry: EntryChange, defined: Mapping[str, str]) -> _Cause:
    """What an entry shares with all that may follow from it, or that it may follow from."""
    if one.area == "api":
        return "api", defined[entry.key]
    if one.rule in _BY_RULE:
        return _BY_RULE[one.rule]
    if one.rule is layers.AXES:
        return _PARAMETERS if entry.name.startswith("params") else _METADATA
    of_numbers = entry.kind in _OF_NUMBERS or one.rule is checkpoints.TRAINS_ON_DIFFERENTLY
    if of_numbers and one.rule is not numbers.FLAX_ALONE:
        subject = RecipeConfig().name if one.area == "metadata" else entry.subject
        return "numbers", _RECIPES.get(subject, subject)
    return one.area, one.rule.id, one.subject


def _joined(causes: Mapping[_Cause, list[_Part]]) -> Mapping[_Cause, list[_Part]]:
    """Which collections there are follows from what is in them, where that differs."""
    joined = dict(causes)
    for cause in [cause for cause in joined if cause[:2] == _COLLECTIONS]:
        of_state = [each for each in joined if each[:2] in (_PARAMETERS, _METADATA) and each[2:] == cause[2:]]
        if of_state:
            joined[of_state[0]] = [*joined[of_state[0]], *joined.pop(cause)]
    return joined


def _root(parts: Sequence[_Part], order: Mapping[str, int]) -> Root:
    def place(part: _Part) -> tuple[int, ...]:
        if part.difference.area == "api":
            # Names follow from no others: those that break stand for all, and of them those that lie outside.
            return part.difference.rule.severity.order, part.entry.key.count("."), order.get(part.entry.key, -1)
        return _BY_CAUSE.index(part.entry.kind), order.get(part.entry.key, -1)

    ordered = sorted(parts, key=place)
    entries: dict[tuple[str, str, Rule], list[_Part]] = {}
    for part in ordered:
        entries.setdefault((part.difference.area, part.difference.subject, part.difference.rule), []).append(part)
    differences = tuple(_whole(each) for each in entries.values())
    rule = _main(differences).rule
    subjects: dict[str, str] = {}
    for part in ordered:
        if part.difference.rule is rule:
            name = part.entry.key.partition("/")[2] if part.difference.area == "api" else part.subject
            subjects.setdefault(part.subject, name)
    return Root(tuple(filter(None, subjects.values())), _at_first(ordered[0].entry), differences, *_effect(differences))


def _main(differences: Iterable[Difference]) -> Difference:
    return min(differences, key=lambda one: (one.rule.severity.order, one.rule not in _GAINS))


def _whole(parts: Sequence[_Part]) -> Difference:
    """The difference of some parts and nothing else."""
    one = parts[0].difference
    found = difference(one.area, one.subject, one.rule, [part.entry for part in parts])
    return dataclasses.replace(found, accepted=one.accepted)


def _at_first(change: EntryChange) -> EntryChange:
    """A change of many numbers at the first of them that differs, and not at the one that differs most."""
    match change.old, change.new, change.apart:
        case Numbers() as old, Numbers() as new, NumbersApart(first=label) as apart:
            before, after = (side.by_label.get(label, math.nan) for side in (old, new))
            return dataclasses.replace(change, apart=dataclasses.replace(apart, label=label, old=before, new=after))
    return change


def _effect(differences: Sequence[Difference]) -> tuple[Effect | None, tuple[Measure, ...]]:
    """What some differences do to results, and the numbers that say so."""
    damages, gains = ([one for one in differences if one.rule in rules] for rules in (_DAMAGES, _GAINS))
    if damages:
        return Effect.DAMAGE, tuple(each for each in telling(_entries(damages), gain=False) if each.is_damage)
    if gains:
        return Effect.GAIN, telling(_entries(gains), gain=True)
    found = telling(_entries(differences), gain=False)
    return (Effect.DRIFT if found else None), found


def _entries(differences: Iterable[Difference]) -> list[EntryChange]:
    return [entry for one in differences for entry in one.entries]
