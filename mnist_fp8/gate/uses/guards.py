"""What protects a place in a user's sources: handlers of exceptions, tests of names, signatures and versions."""

import ast
import dataclasses
from collections.abc import Iterable, Sequence

from mnist_fp8.gate.uses.use import Guard, is_below
from mnist_fp8.gate.uses.values import Clue, Foreign, Reached, Value, Values

_CAUGHT = {
    "ImportError": Guard.IMPORT_ERROR,
    "ModuleNotFoundError": Guard.IMPORT_ERROR,
    "AttributeError": Guard.ATTRIBUTE_ERROR,
    "TypeError": Guard.TYPE_ERROR,
    "Exception": Guard.EXCEPTION,
    "BaseException": Guard.EXCEPTION,
}
_ABSENCE = {Guard.IMPORT_ERROR, Guard.ATTRIBUTE_ERROR, Guard.EXCEPTION, Guard.PROBE, Guard.VERSION}
"""Guards under which code can do without a name."""
_SKIPS = {"skip", "skipTest"}


@dataclasses.dataclass(frozen=True, slots=True)
class Context:
    """What protects a place.

    Attributes:
        handled: by handlers around it: they do not protect what a function does that is defined there.
        lasting: by tests: it protects that, too.
        caught: dotted names of the exceptions that are caught around it.
        probed: paths that were tested: it protects uses of them.
        fallback_for: paths whose failure leads here.
    """

    handled: frozenset[Guard] = frozenset()
    lasting: frozenset[Guard] = frozenset()
    caught: tuple[str, ...] = ()
    probed: tuple[str, ...] = ()
    fallback_for: tuple[str, ...] = ()

    def guards(self, path: str) -> frozenset[Guard]:
        """What protects a use of a path here."""
        is_probed = any(is_below(path, probed) or is_below(probed, path) for probed in self.probed)
        return self.handled | self.lasting | ({Guard.PROBE} if is_probed else frozenset())

    def in_function(self) -> "Context":
        """The context of the body of a function that is defined here."""
        return dataclasses.replace(self, handled=frozenset(), caught=())

    def under(self, *guards: Guard) -> "Context":
        """The context of what is protected in another way, too."""
        return dataclasses.replace(self, lasting=self.lasting.union(guards))

    def catching(self, exceptions: Iterable[str], guards: Iterable[Guard]) -> "Context":
        """The context of the body of a ``try``."""
        caught = tuple(dict.fromkeys((*self.caught, *exceptions)))
        return dataclasses.replace(self, handled=self.handled.union(guards), caught=caught)

    def falling_back(self, paths: Iterable[str]) -> "Context":
        """The context of what is done where something fails."""
        return dataclasses.replace(self, fallback_for=tuple(dict.fromkeys((*self.fallback_for, *paths))))

    def split(self, clues: Sequence[Clue]) -> "tuple[Context, Context]":
        """The contexts of what is done where a test is true, and where it is false."""
        yes = no = self
        for clue in clues:
            if clue.guard is not Guard.PROBE or not clue.subjects:
                yes, no = yes.under(clue.guard), no.under(clue.guard)
            elif clue.tells is None:
                yes, no = yes.probing(clue), no.under(Guard.PROBE)
            elif clue.tells:
                yes, no = yes.probing(clue), no.falling_back(clue.subjects)
            else:
                yes, no = yes.falling_back(clue.subjects), no.probing(clue)
        return yes, no

    def probing(self, clue: Clue) -> "Context":
        """The context of what is done where the subjects of a clue are as they should be."""
        return dataclasses.replace(self, probed=(*self.probed, *clue.subjects))

    def bound(self, values: Values) -> Values:
        """Values as a name has them that is bound here: what is missing here is none that the code needs."""
        if not (self.handled or self.lasting or self.probed or self.fallback_for):
            return values
        return tuple(self._bound(value) if isinstance(value, Reached) else value for value in values)

    def _bound(self, value: Reached) -> Reached:
        optional = value.optional or (value.path if self.guards(value.path) & _ABSENCE else "")
        is_typing = value.is_typing or Guard.TYPE_CHECKING in self.lasting
        return Reached(value.path, optional, value.fallback_for or self.fallback_for, value.on_instance, is_typing)


def clues(values: Iterable[Value]) -> tuple[Clue, ...]:
    """The clues among some values."""
    return tuple(value for value in values if isinstance(value, Clue))


def presence(values: Iterable[Value]) -> tuple[Clue, ...]:
    """What it tells that some values are true: a name that may be missing is ``None`` where it is."""
    values = tuple(values)
    optional = (value.optional for value in values if isinstance(value, Reached) and value.optional)
    return *clues(values), *(Clue(Guard.PROBE, (path,), tells=True) for path in optional)


def turned(clue: Clue) -> Clue:
    """What it tells that something is not true."""
    return clue if clue.tells is None else dataclasses.replace(clue, tells=not clue.tells)


def guards_of(exceptions: Iterable[str]) -> set[Guard]:
    """What it protects from to catch some exceptions."""
    return {_CAUGHT[name] for name in exceptions if name in _CAUGHT}


def exception_names(values: Values, node: ast.expr) -> list[str]:
    """The dotted names of what a handler catches, given what its expression stands for."""
    found = [value.path.removeprefix("builtins.") for value in values if isinstance(value, Reached | Foreign)]
    return found or ([node.id] if isinstance(node, ast.Name) else [])


def gives_up(body: Sequence[ast.stmt]) -> bool:
    """Whether a handler ends the program or raises again, and never does something else instead."""
    if not body or not (isinstance(body[-1], ast.Raise) or _calls(body[-1], {"exit", "_exit", "fail", "abort"})):
        return False
    return not any(isinstance(node, ast.Return | ast.Continue | ast.Break) for each in body for node in ast.walk(each))


def goes_on(body: Sequence[ast.stmt]) -> bool:
    """Whether what follows a body is reached after it."""
    if not body:
        return True
    last = body[-1]
    if isinstance(last, ast.If):
        return goes_on(last.body) or goes_on(last.orelse)
    if isinstance(last, ast.With | ast.AsyncWith):
        return goes_on(last.body)
    return not (isinstance(last, ast.Return | ast.Raise | ast.Continue | ast.Break) or _calls(last, _SKIPS))


def steps_aside(body: Sequence[ast.stmt]) -> bool:
    """Whether a body leaves its block, and raises nothing: what follows it is not reached."""
    return not goes_on(body) and not isinstance(body[-1], ast.Raise)


def _calls(statement: ast.stmt, names: set[str]) -> bool:
    """Whether a statement is a call such as ``pytest.skip()``."""
    match statement:
        case ast.Expr(value=ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name))):
            return name in names
        case _:
            return False
