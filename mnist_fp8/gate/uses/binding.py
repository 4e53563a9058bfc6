"""Whether a call fits parameters, exactly as Python binds them; and what it means after they changed."""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cached_property

from mnist_fp8.gate.uses.judgement import Cause
from mnist_fp8.gate.uses.use import Call
from mnist_fp8.record.entries import POSITIONAL, VARIADIC, Parameter

_BY_NAME = {"either", "keyword"}


@dataclasses.dataclass(frozen=True)
class Misfit:
    """Why a use does not fit.

    Attributes:
        cause: the kind of reason.
        subject: the parameter, path or base class that it is about.
    """

    cause: Cause
    subject: str = ""


@dataclasses.dataclass(frozen=True)
class Parameters:
    """Parameters as a caller meets them.

    Attributes:
        positional: those that can be given by position, in their order.
        named: those that can be given by name, by their name.
        has_args: whether there is ``*args``.
        has_kwargs: whether there is ``**kwargs``.
        ignores_others: whether arguments by name that it does not know are ignored, as pydantic does.
    """

    positional: tuple[Parameter, ...]
    named: dict[str, Parameter]
    has_args: bool
    has_kwargs: bool
    ignores_others: bool = False

    @classmethod
    def of(cls, parameters: Sequence[Parameter]) -> "Parameters":
        """Those of a signature."""
        kinds = {each.kind for each in parameters}
        return cls(
            tuple(each for each in parameters if each.kind in POSITIONAL - VARIADIC),
            {each.name: each for each in parameters if each.kind in _BY_NAME},
            "*" in kinds,
            "**" in kinds,
        )

    @cached_property
    def every(self) -> dict[str, Parameter]:
        """All of them by name, but for ``*args`` and ``**kwargs``."""
        return {each.name: each for each in self.positional} | self.named

    def takes(self, keyword: str) -> bool:
        """Whether an argument can be given by that name."""
        return keyword in self.named or self.has_kwargs or self.ignores_others

    def required(self) -> Iterator[Parameter]:
        """Those without a default."""
        return (each for each in self.every.values() if each.default is None)


def misfits(call: Call, parameters: Parameters) -> Iterator[Misfit]:
    """Why a call raises TypeError, whatever its ``*args`` and ``**kwargs`` hold."""
    given, free = parameters.positional[: call.positional], parameters.positional[call.positional :]
    if call.positional > len(parameters.positional) and not parameters.has_args:
        now_by_name = list(parameters.named)[len(parameters.positional) : call.positional]
        yield Misfit(Cause.TOO_MANY_POSITIONAL, ", ".join(now_by_name))
    twice = {each.name for each in given if each.kind == "either"}
    for keyword in call.keywords:
        if keyword in twice:
            yield Misfit(Cause.TOO_MANY_POSITIONAL, keyword)
        elif not parameters.takes(keyword):
            yield Misfit(Cause.UNKNOWN_KEYWORD, keyword)
    for parameter in parameters.required():
        by_name = parameter.kind in _BY_NAME and (parameter.name in call.keywords or call.has_kwargs)
        if not (parameter in given or by_name or (call.has_args and parameter in free) or call.is_partial):
            yield Misfit(Cause.MISSING_ARGUMENT, parameter.name)


def risks(call: Call, old: Parameters, new: Parameters) -> Iterator[Misfit]:
    """Why a call may raise TypeError now and did not before, by what its ``*args`` and ``**kwargs`` may hold."""
    has_names, has_places = call.has_kwargs or call.is_partial, call.has_args or call.is_partial
    if has_names:
        yield from _names_at_risk(call, old, new)
    if has_places:
        if (len(new.positional) < len(old.positional) or old.has_args) and not new.has_args:
            yield Misfit(Cause.TOO_MANY_POSITIONAL)
        yield from _moved(old, new, call.positional, len(old.positional))
    if has_names or has_places:
        needed = {each.name for each in old.required()} - given_by_position(call, old)
        for parameter in new.required():
            if parameter.name not in needed | given_by_position(call, new) | {*call.keywords}:
                yield Misfit(Cause.MISSING_ARGUMENT, parameter.name)


def _names_at_risk(call: Call, old: Parameters, new: Parameters) -> Iterator[Misfit]:
    """What ``**kwargs`` may hold that only the old takes, or that the new takes by position already."""
    for name in old.named:
        if name not in call.keywords and not new.takes(name):
            yield Misfit(Cause.UNKNOWN_KEYWORD, name)
    if old.has_kwargs and not new.has_kwargs:
        yield Misfit(Cause.UNKNOWN_KEYWORD, "**")
    before, after = (given_by_position(call, side) & side.named.keys() for side in (old, new))
    yield from (Misfit(Cause.TOO_MANY_POSITIONAL, name) for name in sorted(after - before) if old.takes(name))


def moved(call: Call, old: Parameters, new: Parameters) -> Iterator[Misfit]:
    """Arguments by position that another parameter takes now, and needed ones that came before them."""
    return _moved(old, new, 0, call.positional)


def given_by_position(call: Call, parameters: Parameters) -> set[str]:
    """Names of the arguments that a call gives by position."""
    return {each.name for each in parameters.positional[: call.positional]}


def _moved(old: Parameters, new: Parameters, start: int, end: int) -> Iterator[Misfit]:
    for one, other in zip(old.positional[start:end], new.positional[start:end], strict=False):
        is_renamed = one.name not in new.every and other.name not in old.every
        if one.name != other.name and not is_renamed:
            if other.name not in old.every and other.default is None:
                yield Misfit(Cause.MISSING_ARGUMENT, other.name)
            yield Misfit(Cause.MOVED_ARGUMENT, one.name)


def defaults(call: Call, old: Parameters, new: Parameters) -> Iterator[Parameter]:
    """Parameters that a call leaves out and whose default is another one."""
    given = given_by_position(call, old) | {*call.keywords}
    for name, one in old.every.items():
        other = new.every.get(name)
        if name not in given and other and one.default != other.default and None not in (one.default, other.default):
            yield one


def ignored(call: Call, old: Parameters, new: Parameters) -> Iterator[str]:
    """Arguments by name that were parameters and do nothing now."""
    if new.ignores_others:
        yield from (keyword for keyword in call.keywords if keyword in old.named and keyword not in new.named)


def renamed(keyword: str, old: Parameters, new: Parameters) -> str:
    """The new name of a parameter that is gone: that of the only new one at its place or with its default."""
    if keyword not in old.named:
        return ""
    went, came = ([name for name in one.named if name not in other.named] for one, other in ((old, new), (new, old)))
    place = list(old.named).index(keyword)
    alike = [
        name
        for name in came
        if list(new.named).index(name) == place
        or (len(went) == len(came) == 1 and new.named[name].default == old.named[keyword].default)
    ]
    return alike[0] if alike else ""
