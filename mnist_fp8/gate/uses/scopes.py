"""Python's scopes: which names a function binds, and what they stand for."""

import ast
import dataclasses
import enum
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from mnist_fp8.gate.uses.values import Items, OwnClass, OwnFunction, Values, joined

Changes: TypeAlias = dict[str, Values | None]
"""What names stand for that were bound or, with ``None``, unbound."""


class ScopeKind(enum.Enum):
    """What a scope belongs to."""

    MODULE = enum.auto()
    CLASS = enum.auto()
    FUNCTION = enum.auto()
    COMPREHENSION = enum.auto()


@dataclasses.dataclass(slots=True)
class Bindings:
    """The names that a function binds, and those that it declares to be of an outer scope."""

    names: set[str] = dataclasses.field(default_factory=set)
    globals: set[str] = dataclasses.field(default_factory=set)
    nonlocals: set[str] = dataclasses.field(default_factory=set)


@dataclasses.dataclass(slots=True)
class Scope:
    """A module, class, function or comprehension.

    Attributes:
        kind: which of them.
        parent: the scope around it.
        values: what its names stand for, at the place that is being evaluated.
        bindings: of a function or comprehension, the names that are its own wherever they are bound.
        owner: the class that it is the body of, or a method of.
        function: the function whose body it is.
        added: of a module, what functions bind to names of it that they declare to be global.
        words: names, seen from its end, that lead to Transformer Engine; ``None`` until that is asked.
    """

    kind: ScopeKind
    parent: "Scope | None" = None
    values: dict[str, Values] = dataclasses.field(default_factory=dict)
    bindings: Bindings = dataclasses.field(default_factory=Bindings)
    owner: OwnClass | None = None
    function: OwnFunction | None = None
    added: dict[str, Values] = dataclasses.field(default_factory=dict)
    words: frozenset[str] | None = None
    _branches: list[Changes] = dataclasses.field(default_factory=list)

    def look_up(self, name: str) -> Values | None:
        """What a name stands for where it is read; ``None`` if it is bound nowhere."""
        scope: Scope | None = self.module if name in self.bindings.globals else self
        is_nonlocal = name in self.bindings.nonlocals
        while scope is not None:
            is_skipped = scope is not self and scope.kind is ScopeKind.CLASS
            if name in scope.values and not is_skipped and not (is_nonlocal and scope is self):
                return joined(scope.values[name], scope.added.get(name, ()))
            if name in scope.bindings.names and not (is_nonlocal and scope is self):
                return ()
            scope = scope.parent
        return None

    def forget_keywords(self, name: str) -> None:
        """Note that the keys of a dictionary may be changed."""
        scope: Scope | None = self
        while scope is not None and name not in scope.values:
            scope = scope.parent
        if scope is not None:
            values = scope.values[name]
            scope.set(name, tuple(Items(value.values) if isinstance(value, Items) else value for value in values))

    def bind(self, name: str, values: Values) -> None:
        """Bind a name: to a scope that runs at another time, values are added."""
        if name in self.bindings.globals:
            module = self.module
            module.values.setdefault(name, ())
            module.added[name] = joined(module.added.get(name, ()), values)
        elif name in self.bindings.nonlocals:
            scope = self.parent
            while scope is not None and (scope.kind is ScopeKind.CLASS or name not in scope.values):
                scope = scope.parent
            if scope is not None:
                scope.set(name, joined(scope.values[name], values))
                scope.words = None
        else:
            self.set(name, values)

    def set(self, name: str, values: Values | None) -> None:
        """Set what a name of this scope stands for; ``None`` unbinds it."""
        if self._branches:
            self._branches[-1].setdefault(name, self.values.get(name))
        self._put(name, values)

    def _put(self, name: str, values: Values | None) -> None:
        if values is None:
            self.values.pop(name, None)
        else:
            self.values[name] = values

    def enter_branch(self) -> None:
        """Begin what is done in one of several cases."""
        self._branches.append({})

    def leave_branch(self) -> Changes:
        """Undo what a branch has changed, and give it. That takes no longer for a module with many names."""
        changes = self.changed()
        for name, values in self._branches.pop().items():
            self._put(name, values)
        return changes

    def changed(self) -> Changes:
        """What the branch has changed so far."""
        return {name: self.values.get(name) for name in self._branches[-1]}

    def merge(self, branches: Sequence[Changes]) -> None:
        """Take over what several branches have changed: after any of them, what follows is reached."""
        for name in dict.fromkeys(name for changes in branches for name in changes):
            before = self.values.get(name)
            found = [values for changes in branches if (values := changes.get(name, before)) is not None]
            self.set(name, joined(*found) if found else None)

    @property
    def module(self) -> "Scope":
        """The scope of the module."""
        scope = self
        while scope.parent is not None:
            scope = scope.parent
        return scope

    @property
    def of_walrus(self) -> "Scope":
        """The scope to which ``:=`` binds."""
        scope = self
        while scope.kind is ScopeKind.COMPREHENSION and scope.parent is not None:
            scope = scope.parent
        return scope

    def class_of_method(self) -> OwnClass | None:
        """The class whose method this is, or is in."""
        scope: Scope | None = self
        while scope is not None and scope.owner is None:
            scope = scope.parent
        return scope.owner if scope else None


def all_parameters(arguments: ast.arguments) -> list[ast.arg]:
    """All parameters of a function, in their order."""
    variadic = [argument for argument in (arguments.vararg, arguments.kwarg) if argument]
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *variadic]


def bindings(body: Iterable[ast.stmt], *, has_walrus: bool = True) -> Bindings:
    """The names that a body binds, without what is in the functions and classes in it.

    Args:
        body: some statements.
        has_walrus: whether ``:=`` may be in them: to look into every expression takes five times as long.
    """
    found = Bindings()
    pending: list[ast.AST] = [*body]
    while pending:
        node = pending.pop()
        _bind(node, found)
        for field in _FIELDS.get(type(node), ()):
            value = getattr(node, field)
            if isinstance(value, list):
                pending += value
            elif value is not None:
                pending.append(value)
        if has_walrus and isinstance(node, ast.stmt) and not isinstance(node, _DEFINITIONS):
            walruses = (each.target for each in ast.walk(node) if isinstance(each, ast.NamedExpr))
            found.names.update(target.id for target in walruses)
    found.names -= found.globals | found.nonlocals
    return found


_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_FIELDS: dict[type[ast.AST], tuple[str, ...]] = {
    ast.Assign: ("targets",),
    ast.AnnAssign: ("target",),
    ast.AugAssign: ("target",),
    ast.Delete: ("targets",),
    ast.For: ("target", "body", "orelse"),
    ast.AsyncFor: ("target", "body", "orelse"),
    ast.While: ("body", "orelse"),
    ast.If: ("body", "orelse"),
    ast.With: ("items", "body"),
    ast.AsyncWith: ("items", "body"),
    ast.withitem: ("optional_vars",),
    ast.Try: ("body", "handlers", "orelse", "finalbody"),
    ast.TryStar: ("body", "handlers", "orelse", "finalbody"),
    ast.ExceptHandler: ("body",),
    ast.Match: ("cases",),
    ast.match_case: ("pattern", "body"),
    ast.MatchAs: ("pattern",),
    ast.MatchOr: ("patterns",),
    ast.MatchSequence: ("patterns",),
    ast.MatchMapping: ("patterns",),
    ast.MatchClass: ("patterns", "kwd_patterns"),
    ast.Tuple: ("elts",),
    ast.List: ("elts",),
    ast.Starred: ("value",),
}
"""Where in a statement or target names are bound."""


def _bind(node: ast.AST, found: Bindings) -> None:
    match node:
        case ast.Name():
            found.names.add(node.id)
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            found.names.add(node.name)
        case ast.Import() | ast.ImportFrom():
            found.names.update((alias.asname or alias.name.partition(".")[0]) for alias in node.names)
        case ast.Global():
            found.globals.update(node.names)
        case ast.Nonlocal():
            found.nonlocals.update(node.names)
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            found.names.add(name)
        case ast.MatchMapping(rest=str(name)):
            found.names.add(name)
