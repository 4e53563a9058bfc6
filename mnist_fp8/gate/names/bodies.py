"""What the bodies of functions and modules tell, from their syntax trees."""

import ast
import builtins
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping

from mnist_fp8.record.names import Passed

_DYNAMIC = {"setattr", "delattr", "exec", "globals", "locals", "vars"}
"""Calls that can bind names which no one reads in source."""
_BRANCHES = (ast.If, ast.For, ast.While, ast.Try, ast.TryStar, ast.ExceptHandler, ast.Match)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_SCOPES = (*_FUNCTIONS, ast.ClassDef, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclasses.dataclass(frozen=True)
class Body:
    """What the body of a function tells.

    Attributes:
        returns: elements of the tuple that each ``return`` has, or that its annotation says where they do not show it;
            ``None`` where they do not all have as many.
        raises: what it raises, as source has it.
        passed: how it calls the methods of its first argument, by their names.
        handed: how it, or a function inside of it, calls its arguments, by their names.
        attributes: names that it sets on its first argument.
        globals: names of the module that it sets.
        dynamic: a call in it that binds names at run time; empty if there is none.
    """

    returns: int | None
    raises: frozenset[str]
    passed: Mapping[str, frozenset[Passed]]
    handed: Mapping[str, frozenset[Passed]]
    attributes: frozenset[str]
    globals: frozenset[str]
    dynamic: str


def read_body(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Body:
    """Read a body. Functions inside of it call and set what is around them, but do not return for it."""
    first = next((argument.arg for argument in (*function.args.posonlyargs, *function.args.args)), "")
    every = [node for statement in function.body for node in ast.walk(statement)]
    own = list(_in_scope(function.body))
    return Body(
        _returned(own, function.returns),
        frozenset(_raised(own)),
        _passed(every, first),
        _handed([function.args, *every]),
        frozenset(_attributes(every, first)),
        frozenset(name for node in every if isinstance(node, ast.Global) for name in node.names),
        next((name for node in every if (name := _called(node)) in {"exec", "globals"}), ""),
    )


def _in_scope(statements: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Statements and all below them that run with them: not what is inside of functions and classes."""
    nodes = list(statements)
    while nodes:
        node = nodes.pop()
        yield node
        if not isinstance(node, _SCOPES):
            nodes.extend(ast.iter_child_nodes(node))


def _returned(own: list[ast.AST], annotation: ast.expr | None) -> int | None:
    """How many elements are returned: by every ``return`` that shows it, else as the annotation says."""
    if any(isinstance(node, ast.Yield | ast.YieldFrom) for node in own):
        return None
    values = [node.value for node in own if isinstance(node, ast.Return)]
    shown: set[int | None] = {
        len(value.elts) for value in values if isinstance(value, ast.Tuple) and not _has_star(value.elts)
    }
    if not all(isinstance(value, ast.Tuple) for value in values) or not values:
        shown.add(_annotated(annotation))
    return shown.pop() if len(shown) == 1 else None


def _annotated(annotation: ast.expr | None) -> int | None:
    """The elements of ``Tuple[int, str]``; of ``Tuple[int]`` it is not known whether it means any number."""
    match annotation:
        case ast.Subscript(value=ast.Name(id=name) | ast.Attribute(attr=name), slice=ast.Tuple(elts=elements)):
            is_open = any(isinstance(element, ast.Constant) for element in elements)
            return None if name not in ("Tuple", "tuple") or is_open or len(elements) == 1 else len(elements)
        case _:
            return None


def _has_star(arguments: list[ast.expr]) -> bool:
    return any(isinstance(argument, ast.Starred) for argument in arguments)


def _raised(own: list[ast.AST]) -> Iterator[str]:
    for node in own:
        if isinstance(node, ast.Assert):
            yield AssertionError.__name__
        if isinstance(node, ast.Raise) and node.exc:
            yield ast.unparse(node.exc.func if isinstance(node.exc, ast.Call) else node.exc)


def is_builtin_exception(name: str) -> bool:
    """Whether a name is that of an exception which every module knows."""
    found = getattr(builtins, name, None)
    return isinstance(found, type) and issubclass(found, BaseException)


def _passed(every: list[ast.AST], first: str) -> Mapping[str, frozenset[Passed]]:
    """How methods of the first argument are called; a method that is handed on may be called in any way."""
    calls = {id(node.func): node for node in every if isinstance(node, ast.Call)}
    found: dict[str, set[Passed]] = {}
    for node in every:
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and _is_name(node.value, first):
            call = calls.get(id(node))
            found.setdefault(node.attr, set()).add(_arguments(call) if call else Passed(0, (), is_open=True))
    return {name: frozenset(ways) for name, ways in found.items()}


def _handed(every: list[ast.AST]) -> Mapping[str, frozenset[Passed]]:
    """How functions call what they are given."""
    names = {argument.arg for node in every if isinstance(node, ast.arguments) for argument in _each(node)}
    found: dict[str, set[Passed]] = {}
    for node in every:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
            found.setdefault(node.func.id, set()).add(_arguments(node))
    return {name: frozenset(ways) for name, ways in found.items()}


def _each(arguments: ast.arguments) -> Iterator[ast.arg]:
    return itertools.chain(arguments.posonlyargs, arguments.args, arguments.kwonlyargs)


def _arguments(call: ast.Call) -> Passed:
    positional = sum(not isinstance(argument, ast.Starred) for argument in call.args)
    keywords = tuple(sorted(keyword.arg for keyword in call.keywords if keyword.arg))
    return Passed(positional, keywords, is_open=positional + len(keywords) < len(call.args) + len(call.keywords))


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _attributes(every: list[ast.AST], first: str) -> Iterator[str]:
    for node in every:
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_name(node.value, first):
            yield node.attr
        match node:  # as a frozen dataclass has to write it
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="object"), attr="__setattr__"),
                args=[ast.Name(id=owner), ast.Constant(value=str(name)), _],
            ) if owner == first:
                yield name


def _called(node: ast.AST) -> str:
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""


def is_conditional(node: ast.AST) -> bool:
    """Whether a node lies under a condition of its module, class or function; griffe gives each its parent."""
    while parent := getattr(node, "parent", None):
        if isinstance(parent, _BRANCHES):
            return True
        if isinstance(parent, _SCOPES):
            return False
        node = parent
    return False


def bound_names(scope: ast.Module | ast.ClassDef) -> dict[str, bool]:
    """Names that assignments, loops and deletions bind in a module or class, with whether a condition decides on it."""
    found: dict[str, bool] = {}
    for statement in itertools.chain.from_iterable(map(_at_run_time, scope.body)):
        is_branch = isinstance(statement, _BRANCHES)
        for node in _in_scope([statement]):
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                found[node.id] = found.get(node.id, False) or is_branch or isinstance(node.ctx, ast.Del)
    return found


def _at_run_time(statement: ast.stmt) -> list[ast.stmt]:
    """A statement, but of one that is there for type checkers only what is in its place."""
    if isinstance(statement, ast.If) and ast.unparse(statement.test).endswith("TYPE_CHECKING"):
        return statement.orelse
    return [statement]


def dynamic_call(scope: ast.Module | ast.ClassDef) -> str:
    """A call in a module or class that binds names at run time; empty if there is none."""
    return next((name for node in _in_scope(scope.body) if (name := _called(node)) in _DYNAMIC), "")
