"""Whether a use fits one Transformer Engine: its name is there, and the call, override or base class is taken."""

import dataclasses
from collections.abc import Iterable, Iterator

from mnist_fp8.gate.uses.binding import Misfit, Parameters, given_by_position, misfits
from mnist_fp8.gate.uses.judgement import Cause
from mnist_fp8.gate.uses.places import gone
from mnist_fp8.gate.uses.use import CALLS, Call, Use, UseKind
from mnist_fp8.record.entries import Parameter
from mnist_fp8.record.names import PACKAGE, Definition, Found, Names, Passed

_WITHOUT_INIT = {"object", "abc.ABC", "typing.Generic", "typing.NamedTuple", "flax.linen.Module"}
"""Base classes from elsewhere whose subclasses take what their own fields say."""
_IGNORING = "pydantic.dataclasses.dataclass"
"""Makes a dataclass that ignores arguments by name that it does not know."""
_SELF = Parameter("self", "positional", None)
_WITHOUT_INSTANCE = ("classmethod", "staticmethod")
"""Decorators of methods that are called without an instance."""
_NEED_CLASS = {UseKind.SUBCLASS, UseKind.ISINSTANCE, UseKind.CATCH}
_PLAIN_DECORATOR = Call(1)
"""The call that a decorator without arguments is."""
_OPEN = Call(0, has_args=True, has_kwargs=True)
"""A call that is not seen: what is read or subclassed is called somewhere else."""


@dataclasses.dataclass(frozen=True)
class Fit:
    """How a use fits one Transformer Engine.

    Attributes:
        found: what its path leads to; ``None`` where it leads nowhere.
        value: of a constant or of a member of an enumeration, as source has it; its place where it is counted.
        misfits: why it does not fit; none if it does.
        call: as it is bound; open, with anything in it, where it is not seen.
        parameters: that a call is bound to; ``None`` where they are not known, or it cannot be called.
        passed: of an override, how Transformer Engine calls it, or what it may be handed to.
    """

    found: Found | None
    value: str = ""
    misfits: tuple[Misfit, ...] = ()
    call: Call = _OPEN
    parameters: Parameters | None = None
    passed: tuple[Passed, ...] = ()

    @property
    def definition(self) -> Definition | None:
        """What it is; ``None`` if it is not there, or not defined by Transformer Engine."""
        return self.found.definition if self.found else None

    @property
    def what(self) -> str:
        """The kind of name; empty if it is not known."""
        return self.definition.signature.what if self.definition else ""

    @property
    def is_called(self) -> bool:
        """Whether Transformer Engine certainly calls it, if it is an override."""
        return any(each.by for each in self.passed)

    @property
    def is_read(self) -> bool:
        """Whether source says what it is, or that it comes from elsewhere."""
        return self.found is None or bool(self.definition) or not self.found.path.startswith(f"{PACKAGE}.")


class Fits:
    """How uses fit one Transformer Engine; what is alike is looked at once.

    Attributes:
        names: its names.
    """

    def __init__(self, names: Names) -> None:
        self.names = names
        self._known: dict[tuple[object, ...], Fit] = {}

    def of(self, use: Use) -> Fit:
        """How a use fits it."""
        alike = use.path, use.kind, use.call, use.parameters, use.on_instance
        if alike not in self._known:
            self._known[alike] = _fit(use, self.names)
        return self._known[alike]


def _fit(use: Use, names: Names) -> Fit:
    """How a use fits a Transformer Engine, by what `Fits.of` tells uses apart."""
    found = names.find(use.path) or (_below(use.path, names) if use.on_instance else None)
    if found is None:
        return Fit(None, misfits=(Misfit(Cause.NAME_GONE, gone(use.path, names)),))
    if found.definition is None:
        return Fit(found)
    definition, what = found.definition, found.definition.signature.what
    if (use.kind in _NEED_CLASS and what not in ("class", "attribute")) or (use.kind in CALLS and what == "module"):
        return Fit(found, misfits=(Misfit(Cause.KIND),))
    if use.kind is UseKind.OVERRIDE:
        passed = tuple(_passed(use, definition, names))
        return Fit(found, misfits=tuple(dict.fromkeys(_not_accepted(use, definition, passed))), passed=passed)
    parameters, value = _parameters(use, found.path, definition, names), _value(found.path, definition, names)
    if use.kind not in CALLS or parameters is None:
        return Fit(found, value, parameters=parameters)
    call = use.call or _PLAIN_DECORATOR
    return Fit(found, value, (*misfits(call, parameters), *_not_unpacked(call, definition)), call, parameters)


def _below(path: str, names: Names) -> Found | None:
    """A member of a class that is derived from the one that an instance is said to have."""
    owner, _, name = path.rpartition(".")
    base = names.find(owner)
    derived = names.subclasses.get(base.path, ()) if base else ()
    found = next(filter(None, (names.find(f"{cls}.{name}") for cls in derived)), None)
    return found and dataclasses.replace(found, is_certain=False)


def _value(path: str, definition: Definition, names: Names) -> str:
    signature, (cls, _, name) = definition.signature, path.rpartition(".")
    if signature.what != "member" or not signature.value.endswith("auto()"):
        return signature.value
    members = [each for each, one in names.members[cls].items() if one.signature.what == "member"]
    return str(members.index(name) + 1)


def _passed(use: Use, hook: Definition, names: Names) -> Iterator[Passed]:
    """How an override is called: by the class that the user derives from and its bases, or where it is handed to."""
    base = names.find(use.path.rpartition(".")[0])
    classes = {"", *names.mro(base.path)} if base else {""}
    return (each for each in hook.passed if each.by in classes)


def _not_accepted(use: Use, hook: Definition, calls: Iterable[Passed]) -> Iterator[Misfit]:
    """Arguments that Transformer Engine passes to a method, and that an override does not take."""
    taken = Parameters.of(use.parameters)
    for passed in calls:
        call = Call(passed.positional, passed.keywords, has_args=passed.is_open, has_kwargs=passed.is_open)
        for misfit in misfits(call, taken):
            match misfit.cause:
                case Cause.MISSING_ARGUMENT:
                    yield misfit
                case Cause.TOO_MANY_POSITIONAL:
                    given = given_by_position(call, Parameters.of(hook.signature.parameters))
                    yield Misfit(Cause.OVERRIDE_ARGUMENT, ", ".join(sorted(given - taken.every.keys())))
                case _:
                    yield Misfit(Cause.OVERRIDE_ARGUMENT, misfit.subject)


def _not_unpacked(call: Call, definition: Definition) -> Iterator[Misfit]:
    if None not in (call.unpacked, definition.returns) and call.unpacked != definition.returns:
        yield Misfit(Cause.RETURNS)


def _parameters(use: Use, path: str, definition: Definition, names: Names) -> Parameters | None:
    """What a call of it takes; ``None`` where that cannot be told."""
    signature = definition.signature
    match signature.what:
        case "function":
            return Parameters.of(signature.parameters)
        case "method":
            is_bound = use.on_instance or any(each.endswith(_WITHOUT_INSTANCE) for each in definition.decorators)
            return Parameters.of(signature.parameters if is_bound else (_SELF, *signature.parameters))
        case "class":
            return _constructor(path, definition, names)
    return None


def _constructor(path: str, definition: Definition, names: Names) -> Parameters | None:
    """What a class takes, if that is not up to a base class from elsewhere."""
    taken = Parameters.of(definition.signature.parameters)
    if _IGNORING in definition.decorators:
        taken = dataclasses.replace(taken, ignores_others=True)
    for cls in names.mro(path):
        if f"{cls}.__init__" in names.definitions:
            return taken
        if cls not in names.definitions and cls not in _WITHOUT_INIT:
            return None
    return taken
