"""Which layer of Transformer Engine in a user's model is the first that two releases compute differently."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

from mnist_fp8.core.model import VARIABLE
from mnist_fp8.gate.verdict.changes import EntryChange, NumbersApart
from mnist_fp8.gate.verdict.rules.rule import Difference
from mnist_fp8.record.calls import CALLS, LayerCall, LayerCalls
from mnist_fp8.record.entries import Numbers, Products, Value
from mnist_fp8.record.keys import LAYERS
from mnist_fp8.record.record import Record


@dataclasses.dataclass(frozen=True)
class FirstCalls:
    """The calls of the first layer that diverges in a mode.

    Attributes:
        site: the layer's name.
        mode: BF16 or a recipe.
        old: its calls in the old release, with what they were given.
        new: those in the new one.
    """

    site: str
    mode: str
    old: tuple[LayerCall, ...]
    new: tuple[LayerCall, ...]


def first_calls(old: Record, new: Record, differences: Iterable[Difference]) -> tuple[FirstCalls, ...]:
    """The first layer of a user's model that diverges, in each mode in which a layer is the first of all.

    That is the first one whose numbers do; where none does, the first whose products are others.

    Args:
        old: of the release in use.
        new: of the release to move to.
        differences: between them.
    """
    model = new.environment.get(VARIABLE)
    changes = [
        entry for one in differences if one.counts and one.area == LAYERS for entry in one.entries
        if entry.subject == model
    ]  # fmt: skip
    order = {key: place for place, key in enumerate({**old.entries, **new.entries})}
    firsts: dict[str, EntryChange] = {}
    for change in sorted(changes, key=lambda each: (isinstance(each.old, Products), order[each.key])):
        if _diverging(change):
            firsts.setdefault(change.mode, change)
    return tuple(filter(None, (_first(change, old.entries, new.entries) for change in firsts.values())))


def _diverging(change: EntryChange) -> str:
    """The label of the first number that diverges, or the name of the products; empty for all else."""
    match change.old, change.apart:
        case Numbers(), NumbersApart(first=label):
            return label
        case Products(), _:
            return change.name
    return ""


def _first(change: EntryChange, old: Mapping[str, Value], new: Mapping[str, Value]) -> FirstCalls | None:
    """The layer that a change is of; ``None`` where it is of none."""
    key = f"{LAYERS}/{change.subject}/{change.parts.case}/{change.mode}/{CALLS}"
    sides = [tuple(_calls(entries.get(key))) for entries in (old, new)]
    name = _diverging(change)
    sites = {call.site for calls in sides for call in calls if name.startswith(f"{call.site} ")}
    if not sites:
        return None
    site = max(sites, key=len)
    return FirstCalls(site, change.mode, *(tuple(call for call in calls if call.site == site) for calls in sides))


def _calls(value: Value | None) -> Iterator[LayerCall]:
    if isinstance(value, LayerCalls):
        yield from value.calls
