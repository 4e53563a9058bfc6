"""How two signatures of one public name differ."""

import dataclasses
import difflib
import enum
import itertools
from collections.abc import Iterator, Mapping, Sequence

from mnist_fp8.record.entries import (
    CALLED,
    POSITIONAL,
    VARIADIC,
    Parameter,
    Signature,
)


class ApiChange(enum.Enum):
    """What differs between two releases, for those who call or import it."""

    REMOVED = "removed"
    ADDED = "added"
    KIND = "kind"
    PARAMETER_REMOVED = "parameter removed"
    PARAMETER_ADDED_OPTIONAL = "optional parameter added"
    PARAMETER_ADDED_REQUIRED = "required parameter added"
    PARAMETER_NOW_REQUIRED = "parameter now required"
    PARAMETER_RENAMED = "parameter renamed"
    PARAMETER_MOVED = "position of parameters moved"
    PARAMETER_KIND = "kind of parameter"
    DEFAULT_CHANGED = "default changed"
    VALUE_CHANGED = "value changed"


@dataclasses.dataclass(frozen=True)
class SignatureDifference:
    """One thing that differs.

    Attributes:
        change: what it is.
        parameter: the parameter's old name, or several; empty where it is about the name as a whole.
        old: what it was, as a person reads it, such as ``recipe=None``; empty where there was nothing.
        new: what it is.
    """

    change: ApiChange
    parameter: str
    old: str
    new: str


_ALLOWS = {"positional": {"position"}, "keyword": {"keyword"}, "either": {"position", "keyword"}}
"""How an argument can be given, by the parameter's kind."""
_IN_WORDS = {"positional": "by position only", "keyword": "by keyword only", "either": "by position or keyword"}


def signature_differences(old: Signature, new: Signature) -> tuple[SignatureDifference, ...]:
    """What differs between two signatures of one name, for a caller.

    What no caller can notice is no difference: another name of a parameter that is given by position only, an argument
    that need no longer be given, or can be given in more ways than before.
    """
    found = [] if old.what == new.what else [SignatureDifference(ApiChange.KIND, "", old.what, new.what)]
    if {old.what, new.what} <= CALLED:
        found += _parameter_differences(_by_name(old), _by_name(new))
    elif not found and old.value != new.value:
        found.append(SignatureDifference(ApiChange.VALUE_CHANGED, "", old.value, new.value))
    return tuple(found)


def _by_name(signature: Signature) -> dict[str, Parameter]:
    """Parameters by what a caller knows them by: nobody writes the names in ``*args`` and ``**kwargs``."""
    return {each.kind if each.kind in VARIADIC else each.name: each for each in signature.parameters}


def _parameter_differences(old: Mapping[str, Parameter], new: Mapping[str, Parameter]) -> Iterator[SignatureDifference]:
    renamed = _renamed(old, new)
    kept = {name: renamed.get(name, name) for name in old if name in new or name in renamed}
    for name, parameter in old.items():
        if name not in kept:
            yield SignatureDifference(ApiChange.PARAMETER_REMOVED, parameter.with_stars, parameter.as_source, "")
        elif name in renamed and parameter.kind != "positional":
            texts = parameter.as_source, new[renamed[name]].as_source
            yield SignatureDifference(ApiChange.PARAMETER_RENAMED, name, *texts)
    for name, parameter in new.items():
        if name not in kept.values():
            is_required = parameter.default is None and parameter.kind not in VARIADIC
            change = ApiChange.PARAMETER_ADDED_REQUIRED if is_required else ApiChange.PARAMETER_ADDED_OPTIONAL
            yield SignatureDifference(change, parameter.with_stars, "", parameter.as_source)
    for name, new_name in kept.items():
        yield from _changed(old[name], new[new_name])
    yield from _moved(old, new, kept)


def _renamed(old: Mapping[str, Parameter], new: Mapping[str, Parameter]) -> dict[str, str]:
    """New names by old ones: between the same neighbours, exactly one parameter went and one came."""
    before, after = list(old), list(new)
    opcodes = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    pairs = [(before[i1], after[j1]) for _, i1, i2, j1, j2 in opcodes if i2 - i1 == j2 - j1 == 1]
    return {
        name: new_name
        for name, new_name in pairs
        if name not in new and new_name not in old and not VARIADIC & {name, new_name}
    }


def _changed(old: Parameter, new: Parameter) -> Iterator[SignatureDifference]:
    if old.kind in VARIADIC:
        return
    if not _ALLOWS[old.kind] <= _ALLOWS[new.kind]:
        texts = (f"{each.name} {_IN_WORDS[each.kind]}" for each in (old, new))
        yield SignatureDifference(ApiChange.PARAMETER_KIND, old.name, *texts)
    if old.default is not None and old.default != new.default:
        change = ApiChange.PARAMETER_NOW_REQUIRED if new.default is None else ApiChange.DEFAULT_CHANGED
        yield SignatureDifference(change, old.name, old.as_source, new.as_source)


def _moved(
    old: Mapping[str, Parameter], new: Mapping[str, Parameter], kept: Mapping[str, str]
) -> Iterator[SignatureDifference]:
    """Parameters that stand at another position than before, all in one."""
    before, after = _positions(old), _positions(new)
    pairs = [
        (name, before[name], after[new_name]) for name, new_name in kept.items() if name in before and new_name in after
    ]
    moved = [(name, place, new_place) for name, place, new_place in pairs if place != new_place]
    if moved:
        names, places, new_places = zip(*moved, strict=True)
        listed = ", ".join(old[name].with_stars for name in names)
        yield SignatureDifference(ApiChange.PARAMETER_MOVED, listed, _places(places), _places(new_places))


def _positions(parameters: Mapping[str, Parameter]) -> dict[str, int]:
    """The place of each argument that can be given by position, from 1; of ``*args``, the place of the first."""
    positional = [name for name, parameter in parameters.items() if parameter.kind in POSITIONAL]
    return {name: place for place, name in enumerate(positional, 1)}


def _places(places: Sequence[int]) -> str:
    """Such as ``positions 2-4, 7``."""
    runs = [list(run) for _, run in itertools.groupby(enumerate(places), key=lambda each: each[1] - each[0])]
    words = [str(run[0][1]) if len(run) == 1 else f"{run[0][1]}-{run[-1][1]}" for run in runs]
    return f"position{'s' if len(places) > 1 else ''} {', '.join(words)}"
