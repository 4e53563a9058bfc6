"""Whether a use fits one Transformer Engine: its name is there, and the call, override or base class is taken."""

import dataclasses
from collections.abc import Iterator

from mnist_fp8.gate.uses.binding import Misfit, Parameters, misfits
from mnist_fp8.gate.uses.judgement import Cause
from mnist_fp8.gate.uses.places import gone
from mnist_fp8.gate.uses.use import Call, Use, UseKind
from mnist_fp8.record.entries import Parameter
from mnist_fp8.record.names import PACKAGE, Definition, Found, Names

_FLAX = "flax.linen.Module"
_FLAX_FIELDS = tuple(Parameter(name, "keyword", "None") for name in ("parent", "name"))
"""What the constructor of every Flax module takes besides its fields."""
_WITHOUT_INIT = {"object", "abc.ABC", "typing.Generic", "typing.Protocol", "typing.NamedTuple", _FLAX}
"""Base classes from elsewhere whose subclasses take what their own fields say."""
_NEED_CLASS = {UseKind.SUBCLASS, UseKind.ISINSTANCE, UseKind.CATCH}
_CALLS = {UseKind.CALL, UseKind.DECORATOR}
_PLAIN_DECORATOR = Call(1)
"""The call that a decorator without arguments is."""
_OPEN = Call(0, has_args=True, has_kwargs=True)
"""A call that is not seen: what is read or subclassed is called somewhere else."""


@dataclasses.dataclass(frozen=True)
class Fit:
    """How a use fits one Transformer Engine.

    Attributes:
        found: what its path leads to; ``None`` where it leads nowhere.
        misfits: why it does not fit; none if it does.
        call: the call as it is bound: without the instance, where a method is called through its class.
        parameters: that a call is bound to; ``None`` where they are not known, or it cannot be called.
    """

    found: Found | None
    misfits: tuple[Misfit, ...] = ()
    call: Call = _OPEN
    parameters: Parameters | None = None

    @property
    def definition(self) -> Definition | None:
        """What it is; ``None`` if it is not there, or not defined by Transformer Engine."""
        return self.found.definition if self.found else None

    @property
    def what(self) -> str:
        """The kind of name; empty if it is not known."""
        return self.definition.signature.what if self.definition else ""

    @property
    def is_read(self) -> bool:
        """Whether source says what it is, or that it comes from elsewhere."""
        return self.found is None or bool(self.definition) or not self.found.path.startswith(f"{PACKAGE}.")


def fit(use: Use, names: Names, call: Call | None = None) -> Fit:
    """How a use fits a Transformer Engine.

    Args:
        use: the use.
        names: of the Transformer Engine.
        call: as it is bound, if that is known from another one.
    """
    found = names.find(use.path)
    if found is None:
        return Fit(None, (Misfit(Cause.NAME_GONE, gone(use.path, names)),))
    definition = found.definition
    if definition is None:
        return Fit(found)
    what = definition.signature.what
    if (use.kind in _NEED_CLASS and what not in ("class", "attribute")) or (use.kind in _CALLS and what == "module"):
        return Fit(found, (Misfit(Cause.KIND),))
    if use.kind is UseKind.OVERRIDE:
        return Fit(found, tuple(dict.fromkeys(_not_accepted(use, definition))))
    parameters = _parameters(found.path, definition, names)
    if use.kind not in _CALLS or parameters is None:
        return Fit(found, parameters=parameters)
    call = call or _bound(use.call or _PLAIN_DECORATOR, definition, parameters)
    return Fit(found, (*misfits(call, parameters), *_not_unpacked(call, definition)), call, parameters)


def _not_accepted(use: Use, hook: Definition) -> Iterator[Misfit]:
    """Arguments that Transformer Engine passes to a method, and that an override does not take."""
    taken = Parameters.of(use.parameters)
    for passed in hook.passed:
        call = Call(passed.positional, passed.keywords, has_args=passed.is_open, has_kwargs=passed.is_open)
        for misfit in misfits(call, taken):
            match misfit.cause:
                case Cause.MISSING_ARGUMENT:
                    yield misfit
                case Cause.TOO_MANY_POSITIONAL:
                    beyond = hook.signature.parameters[len(taken.positional) : passed.positional]
                    yield Misfit(Cause.OVERRIDE_ARGUMENT, ", ".join(each.name for each in beyond))
                case _:
                    yield Misfit(Cause.OVERRIDE_ARGUMENT, misfit.subject)


def _not_unpacked(call: Call, definition: Definition) -> Iterator[Misfit]:
    if None not in (call.unpacked, definition.returns) and call.unpacked != definition.returns:
        yield Misfit(Cause.RETURNS)


def _bound(call: Call, definition: Definition, parameters: Parameters) -> Call:
    """A call without the instance that it gives first, if it only fits like that: a method called through its class."""
    if definition.signature.what != "method" or not call.positional or not any(misfits(call, parameters)):
        return call
    without = dataclasses.replace(call, positional=call.positional - 1)
    return call if any(misfits(without, parameters)) else without


def _parameters(path: str, definition: Definition, names: Names) -> Parameters | None:
    """What a call of it takes; ``None`` where that cannot be told."""
    signature = definition.signature
    if signature.what in ("function", "method"):
        return Parameters.of(signature.parameters)
    if signature.what != "class":
        return None
    from_elsewhere = False
    for cls in names.mro(path):
        if f"{cls}.__init__" in names.definitions:
            break
        if cls not in names.definitions and cls not in _WITHOUT_INIT:
            return None
        from_elsewhere = from_elsewhere or cls == _FLAX
    return Parameters.of((*signature.parameters, *(_FLAX_FIELDS if from_elsewhere else ())))
