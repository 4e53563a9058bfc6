"""What changes for a use that fits two Transformer Engines."""

import ast
import dataclasses
from collections.abc import Iterator
from typing import TypeAlias

from mnist_fp8.gate.uses.binding import Misfit, defaults, ignored, moved, risks
from mnist_fp8.gate.uses.fit import Fit
from mnist_fp8.gate.uses.judgement import Cause, Outcome
from mnist_fp8.gate.uses.use import CALLS, Use, UseKind
from mnist_fp8.record.names import PACKAGE, Names

_READS = {UseKind.READ, UseKind.DYNAMIC}
_NOTICE = _READS | CALLS | {UseKind.OVERRIDE}
"""Uses that notice another kind of name; an import does not, and a subclass does not fit then."""
_OF_POSITIONS = {Cause.MOVED_ARGUMENT, Cause.TOO_MANY_POSITIONAL}
_RUN = {"function", "method"}
"""Kinds of names that do something only where they are called."""
_HELD = {"property", "field"}
"""Kinds of names that are there without a call."""
Change: TypeAlias = tuple[Outcome, Misfit]


@dataclasses.dataclass(frozen=True)
class Pair:
    """A use, and how it fits two Transformer Engines.

    Attributes:
        use: the use.
        old: how it fits the one in use.
        new: how it fits the one to move to.
        old_names: all names of the one in use.
        new_names: all names of the one to move to.
    """

    use: Use
    old: Fit
    new: Fit
    old_names: Names
    new_names: Names

    @property
    def breaks(self) -> Outcome:
        """What becomes of a use that fits no longer: not known, where source does not say for certain what it is."""
        found = self.old.found, self.new.found
        is_certain = all(each is None or each.is_certain for each in found)
        return Outcome.BREAKS if is_certain else Outcome.UNKNOWN


def changes(pair: Pair) -> Iterator[Change]:
    """What changes for a use whose name both define, and that fits both."""
    if kind := _kind(pair):
        yield kind
        return
    match pair.use.kind:
        case UseKind.CALL | UseKind.DECORATOR:
            yield from _call(pair)
        case UseKind.READ | UseKind.DYNAMIC:
            yield from _value(pair)
            yield from _risks(pair)
        case UseKind.SUBCLASS:
            yield from list(_bases(pair)) or _risks(pair)
        case UseKind.OVERRIDE:
            yield from _hook(pair)


def _kind(pair: Pair) -> Change | None:
    """That something became of another kind, as far as the use notices."""
    use, kinds = pair.use.kind, {pair.old.what, pair.new.what}
    if len(kinds) == 1 or kinds <= _HELD | {"attribute"} or use not in _NOTICE:
        return None
    is_called = use in CALLS and pair.old.what in _RUN and pair.new.what in _HELD
    is_read = use in _READS and kinds & _RUN and kinds & _HELD
    is_overridden = use is UseKind.OVERRIDE and pair.old.what == "method"
    return pair.breaks if is_called or is_read or is_overridden else Outcome.CHANGES, Misfit(Cause.KIND)


def _call(pair: Pair) -> Iterator[Change]:
    old, new = pair.old, pair.new
    if old.parameters is None or new.parameters is None:
        yield from _value(pair)
        return
    for misfit in moved(old.call, old.parameters, new.parameters):
        yield pair.breaks, misfit
    yield from _risks(pair)
    for keyword in ignored(old.call, old.parameters, new.parameters):
        yield Outcome.CHANGES, Misfit(Cause.UNKNOWN_KEYWORD, keyword)
    for parameter in defaults(old.call, old.parameters, new.parameters):
        yield Outcome.CHANGES, Misfit(Cause.DEFAULT, parameter.name)
    yield from _result(pair)


def _result(pair: Pair) -> Iterator[Change]:
    """What a call returns and raises."""
    before, after = pair.old.definition, pair.new.definition
    if before is None or after is None:
        return
    if before.returns != after.returns and before.returns is not None:
        unknown = after.returns is None
        yield Outcome.UNKNOWN if unknown else Outcome.CHANGES, Misfit(Cause.RETURNS)
    caught = {each.rpartition(".")[2] for each in pair.use.caught}
    for error in before.raises:
        if error.rpartition(".")[2] in caught and error not in after.raises:
            yield Outcome.CHANGES, Misfit(Cause.EXCEPTION, error)


def _risks(pair: Pair) -> Iterator[Change]:
    """Why a call may fail by arguments that are not seen; fields of a class are given by name."""
    old, new = pair.old, pair.new
    if old.parameters and new.parameters:
        by_name = new.what == "class" and not (pair.use.call and pair.use.call.has_args)
        for misfit in risks(old.call, old.parameters, new.parameters):
            if not (by_name and misfit.cause in _OF_POSITIONS):
                yield Outcome.UNKNOWN, misfit


def _value(pair: Pair) -> Iterator[Change]:
    old, new = pair.old, pair.new
    if old.what not in ("attribute", "member") or old.value == new.value:
        return
    if old.what == "member":
        yield Outcome.CHANGES, Misfit(Cause.MEMBER, pair.use.path.rpartition(".")[2])
    elif _is_constant(old.value) or _is_constant(new.value):  # what is computed may be the same in other words
        yield Outcome.UNKNOWN if pair.use.kind in CALLS else Outcome.CHANGES, Misfit(Cause.VALUE)


def _is_constant(source: str) -> bool:
    try:
        ast.literal_eval(source)
    except (ValueError, SyntaxError):
        return False
    return True


def _bases(pair: Pair) -> Iterator[Change]:
    """Base classes that a subclass no longer has; those of Transformer Engine may have moved."""
    sides = (pair.old, pair.old_names), (pair.new, pair.new_names)
    before, after = (names.mro(fit.found.path)[1:] if fit.found else () for fit, names in sides)
    last = {each.rpartition(".")[2] for each in after}
    for base in before:
        if base not in after and not (base.startswith(f"{PACKAGE}.") and base.rpartition(".")[2] in last):
            outcome = Outcome.CHANGES if base.startswith(f"{PACKAGE}.") else pair.breaks
            yield outcome, Misfit(Cause.BASE, base)


def _hook(pair: Pair) -> Iterator[Change]:
    if pair.old.is_called and not pair.new.is_called:
        yield pair.breaks, Misfit(Cause.HOOK_GONE)
