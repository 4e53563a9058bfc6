"""Functions and classes of a user's sources: what they override, take, hold and return."""

import abc
import ast
import collections
import dataclasses
import functools
import re
from collections.abc import Iterable
from typing import TypeAlias

from mnist_fp8.gate.uses.annotations import Annotations
from mnist_fp8.gate.uses.guards import Context, clues
from mnist_fp8.gate.uses.parsing import Part
from mnist_fp8.gate.uses.project import Exports, Project
from mnist_fp8.gate.uses.scopes import Scope, ScopeKind, all_parameters, bindings
from mnist_fp8.gate.uses.use import Call, UseKind
from mnist_fp8.gate.uses.values import (
    Foreign,
    OwnClass,
    OwnFunction,
    OwnInstance,
    Partial,
    Reached,
    Values,
    joined,
    leads_to_te,
    names_of_te,
)
from mnist_fp8.record.entries import Parameter
from mnist_fp8.record.names import PACKAGE

FunctionNode: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
_WORD = re.compile(r"[^\W\d]\w*")
_ALWAYS = {PACKAGE, "import", "import_module", "__import__", "signature", "getfullargspec", "hasattr", "super"}
"""Words that may lead to a use wherever they stand."""
_MOST_ROUNDS = 20
"""Functions that return what others return, in a row."""
_ANY = ""
"""Stands for every word."""
_PROPERTIES = {"builtins.property", "functools.cached_property"}
_CONSTRUCTORS = {"__init__", "__new__"}


@dataclasses.dataclass(eq=False)
class Job:
    """The body of a function, which is executed after the scope around it.

    Attributes:
        node: the function.
        scope: of its body, with what its parameters stand for.
        context: what protects it.
        part: where it is.
        function: what is known of the function.
    """

    node: FunctionNode
    scope: Scope
    context: Context
    part: Part
    function: OwnFunction

    @functools.cached_property
    def text(self) -> str:
        """Its source."""
        return "\n".join(self.part.lines[self.node.lineno - 1 : self.node.end_lineno])

    @functools.cached_property
    def words(self) -> frozenset[str]:
        """All words in it."""
        return frozenset(_WORD.findall(self.text))


class Definitions(Annotations):
    """Defines functions and classes."""

    def __init__(self, project: Project, location: str) -> None:
        super().__init__(project, location)
        self._jobs: collections.deque[Job] = collections.deque()
        self._functions: dict[FunctionNode, OwnFunction] = {}
        self._classes: dict[ast.ClassDef, OwnClass] = {}
        self._scopes: list[Scope] = []
        self._globals: dict[str, Values] = {}

    @abc.abstractmethod
    def block(self, body: Iterable[ast.stmt]) -> None:
        """Execute some statements."""

    def execute(self, parts: Iterable[Part]) -> Exports:
        """Read a module, and note its uses.

        It is read again where something was asked of a class or function before all of it was known.

        Returns:
            What its names stand for in the end.
        """
        self._execute(parts)
        if self._globals or self.was_early():
            self._execute(parts)
        values = self.scope.values
        return {name: joined(values[name], self._globals.get(name, ())) for name in values}

    def _execute(self, parts: Iterable[Part]) -> None:
        self.findings.clear()
        self.scope = Scope(ScopeKind.MODULE, added=self._globals)
        self.scope.values.update(dict.fromkeys(self._globals, ()))
        for part in parts:
            self.findings.part = part
            self.block(part.tree.body)
        pending = self._run_jobs()
        for _ in range(_MOST_ROUNDS):
            may_use = {job for job in pending if self._may_use(job)}  # by what others have found
            if not may_use:
                break
            self._jobs.extend(job for job in pending if job in may_use)
            pending = [job for job in pending if job not in may_use] + self._run_jobs()

    def _run_jobs(self) -> list[Job]:
        """Execute the bodies of functions that may use Transformer Engine, and give the others."""
        others = []
        while self._jobs:
            job = self._jobs.popleft()
            self.findings.part = job.part
            if not self._may_use(job):
                others.append(job)
                continue
            self._given[job.function] = {**job.function.given}
            job.scope.bindings = bindings(job.node.body, has_walrus=":=" in job.text)
            with self.within(job.scope), self.at(job.context):
                self.block(job.node.body)
        for scope in self._scopes:
            scope.words = None
        self._scopes.clear()
        return others

    def _may_use(self, job: Job) -> bool:
        """Whether there is a word in a function that may lead to a use: most functions have none."""
        for name in job.function.given.keys() & job.scope.values.keys():
            job.scope.values[name] = joined(job.scope.values[name], job.function.given[name])
        words = self._words(job.scope.parent) | self._leading(job.scope)
        return _ANY in words or not words.isdisjoint(job.words)

    def _words(self, scope: Scope | None) -> frozenset[str]:
        """Names, seen from the end of a scope, that lead to Transformer Engine."""
        if scope is None:
            return frozenset(_ALWAYS)
        if scope.words is None:
            held = self._held(scope.owner) if scope.owner and scope.kind is ScopeKind.CLASS else set()
            scope.words = self._words(scope.parent) | self._leading(scope) | held
            self._scopes.append(scope)
        return scope.words

    def _leading(self, scope: Scope) -> set[str]:
        items = (*scope.values.items(), *scope.added.items())
        return {name for name, values in items if values and any(map(self.project.leads, values))}

    def _held(self, owner: OwnClass) -> set[str]:
        """Names of attributes that lead there; any word may, in a class that is derived from Transformer Engine's."""
        found: set[str] = set()
        for cls in owner.line():
            if isinstance(cls, Reached):
                return {_ANY}
            held = (*cls.attributes.items(), *cls.assigned.items())
            found |= {name for name, values in held if any(map(self.project.leads, values))}
        return found

    # --- functions ---

    def define_function(self, node: FunctionNode) -> None:
        """Define a function; its body is executed later."""
        context = self.findings.context
        decorators = [self._decorated(decorator) for decorator in node.decorator_list]
        names = {value.path for values in decorators for value in values if isinstance(value, Foreign)}
        function = self._functions.setdefault(node, OwnFunction())
        function.is_property = bool(names & _PROPERTIES)
        function.parameters = tuple(each.arg for each in (*node.args.posonlyargs, *node.args.args))
        owner = self.scope.owner if self.scope.kind is ScopeKind.CLASS else None
        scope = Scope(ScopeKind.FUNCTION, self.scope, owner=owner, function=function)
        self._define_parameters(node, scope, names)
        function.returns = joined(function.returns, self.annotated(node.returns))
        self.scope.bind(node.name, (function,))
        if owner:
            is_static = "builtins.staticmethod" in names
            function.parameters = function.parameters[not is_static :]
            self._override(node, owner, is_static=is_static)
        probes = [clue.guard for values in decorators for clue in clues(values)]  # pytest.mark.skipif
        self._jobs.append(Job(node, scope, context.in_function().under(*probes), self.findings.part, function))

    def _define_parameters(self, node: FunctionNode, scope: Scope, decorators: set[str]) -> None:
        arguments = node.args
        scope.values.update((parameter.arg, ()) for parameter in all_parameters(arguments))
        positional = [*arguments.posonlyargs, *arguments.args]
        by_position = zip(positional[len(positional) - len(arguments.defaults) :], arguments.defaults, strict=True)
        for parameter, default in (*by_position, *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)):
            scope.values[parameter.arg] = self.evaluate(default) if default is not None else ()
        for parameter in all_parameters(arguments):
            if parameter.annotation is not None:
                found = self.annotated(parameter.annotation)
                is_variadic = parameter in (arguments.vararg, arguments.kwarg)
                scope.values[parameter.arg] = () if is_variadic else joined(scope.values[parameter.arg], found)
        if scope.owner and positional and "builtins.staticmethod" not in decorators:
            is_class = "builtins.classmethod" in decorators or node.name in ("__new__", "__init_subclass__")
            scope.values[positional[0].arg] = (scope.owner if is_class else OwnInstance(scope.owner),)

    def _decorated(self, node: ast.expr) -> Values:
        """What a decorator is; one of Transformer Engine's is noted as such."""
        if isinstance(node, ast.Call):
            values = self.call(node, UseKind.DECORATOR)
            for value in values:
                if isinstance(value, Partial):
                    self.findings.use(node, value.reached, UseKind.DECORATOR, call=value.called(Call(1)))
            return values
        values = self.refer(node)
        for value in names_of_te(values):
            self.findings.use(node, value, UseKind.DECORATOR)
        return values

    def return_from(self, node: ast.Return) -> None:
        """Note what a function returns."""
        values = self.evaluate(node.value) if node.value else ()
        function = self.scope.function
        if function is not None and any(map(leads_to_te, values)):
            function.returns = joined(function.returns, self.findings.context.bound(values))

    # --- classes ---

    def define_class(self, node: ast.ClassDef) -> None:
        """Define a class: its body is executed at once, its methods later."""
        for decorator in node.decorator_list:
            self._decorated(decorator)
        bases = joined(*(self._base(base) for base in node.bases))
        for keyword in node.keywords:
            self.evaluate(keyword.value)
        cls = self._classes.setdefault(node, OwnClass())
        cls.bases = tuple(base for base in bases if isinstance(base, Reached | OwnClass) and base is not cls)
        scope = Scope(ScopeKind.CLASS, self.scope, owner=cls)
        with self.within(scope):
            self.block(node.body)
        cls.attributes = scope.values
        self.scope.bind(node.name, (cls,))

    def _base(self, node: ast.expr) -> Values:
        target = node
        if isinstance(node, ast.Subscript):
            target = node.value
            self.evaluate(node.slice)
        values = self.refer(target)
        for value in names_of_te(values):
            self.findings.use(target, value, UseKind.SUBCLASS)
        return values

    def _override(self, node: FunctionNode, owner: OwnClass, *, is_static: bool) -> None:
        """Note a method of a class that is derived from Transformer Engine's: it may override one."""
        owner.has_constructor |= node.name in _CONSTRUCTORS
        if node.name.startswith("__") and not node.name.endswith("__"):  # private to the class
            return
        for base in names_of_te(owner.line()):
            path = dataclasses.replace(base, path=f"{base.path}.{node.name}", on_instance=True)
            self.findings.use(node, path, UseKind.OVERRIDE, parameters=_parameters(node.args, is_static=is_static))


def _parameters(arguments: ast.arguments, *, is_static: bool) -> tuple[Parameter, ...]:
    """What a method takes after ``self``."""
    positional = [(each.arg, "positional") for each in arguments.posonlyargs]
    positional += [(each.arg, "either") for each in arguments.args]
    defaults = [*[None] * (len(positional) - len(arguments.defaults)), *arguments.defaults]
    found = [Parameter(*each, _source(default)) for each, default in zip(positional, defaults, strict=True)]
    found = found if is_static else found[1:]
    if arguments.vararg:
        found.append(Parameter(arguments.vararg.arg, "*", None))
    for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        found.append(Parameter(each.arg, "keyword", _source(default)))
    if arguments.kwarg:
        found.append(Parameter(arguments.kwarg.arg, "**", None))
    return tuple(found)


def _source(default: ast.expr | None) -> str | None:
    return None if default is None else ast.unparse(default)
