"""What calls return, and the uses of Transformer Engine that they are: also by a partial, or by a name in a string."""

import ast
import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar

from mnist_fp8.gate.uses.expressions import MODULES, Expressions
from mnist_fp8.gate.uses.guards import clues
from mnist_fp8.gate.uses.use import Call, Guard, UseKind
from mnist_fp8.gate.uses.values import (
    Clue,
    Foreign,
    Instance,
    Items,
    OwnClass,
    OwnFunction,
    OwnInstance,
    OwnModule,
    Partial,
    Reached,
    Text,
    Value,
    Values,
    elements,
    joined,
    keywords_of,
    leads_to_te,
    names_of_te,
    texts,
)
from mnist_fp8.record.names import PACKAGE

_COMPUTED = "a name that is computed"
_SETTERS = {"setattr", "delattr", "object"}
"""Methods that are given a module and a name in it: of ``monkeypatch`` and of ``mock.patch``."""
_TRANSPARENT = {
    *(
        "jax.jit",
        "jax.vmap",
        "jax.pmap",
        "jax.checkpoint",
        "jax.remat",
        "jax.named_call",
        "functools.cache",
        "functools.lru_cache",
    ),
    *(f"flax.{front}.{name}" for front in ("linen", "nnx") for name in ("jit", "remat", "checkpoint")),
}
"""What returns something that is called as what it is given."""


_APPLIES = {"apply", "init", "init_with_output"}
"""Methods of a Flax module that call it: their first argument is not for it, nor are those that are named below."""
_OF_FLAX = {"variables", "rngs", "mutable", "capture_intermediates"}
_Callable = Reached | Partial | OwnFunction | OwnClass


@dataclasses.dataclass(frozen=True)
class _Arguments:
    """The arguments of a call: what they are, all values among them, and which of these each one has."""

    call: Call
    values: Values
    each: Mapping[int | str, Values]


class Calls(Expressions):
    """Evaluates calls."""

    def call(self, node: ast.Call, kind: UseKind = UseKind.CALL, unpacked: int | None = None) -> Values:
        """What a call returns.

        Args:
            node: the call.
            kind: what a use by it is.
            unpacked: into how many targets its result is taken apart.
        """
        functions = self.refer(node.func)
        for function in functions:
            special = self._SPECIAL.get(function.path) if isinstance(function, Foreign) else None
            if special is not None and node.args:
                return special(self, node)
        if Foreign("builtins.super") in functions:
            return self._super()
        if isinstance(node.func, ast.Attribute) and node.func.attr in _SETTERS and len(node.args) > 1:
            return self._patch(node)
        length = len(self.findings)
        arguments = self._arguments(node, unpacked)
        if _makes_module(functions, arguments.values):
            self.findings.forget_texts(length)
        results = [self._called(function, node.func, arguments, kind) for function in functions]
        is_te_call = any(isinstance(function, Reached | Instance | Partial) for function in functions)
        return joined(*results, () if is_te_call else _asked(arguments.values))

    def _arguments(self, node: ast.Call, unpacked: int | None = None) -> _Arguments:
        each: dict[int | str, Values] = {}
        positional, has_args, has_kwargs = 0, False, False
        keywords: list[str] = []
        for place, argument in enumerate(node.args):
            each[place] = self.evaluate(argument)
            if not isinstance(argument, ast.Starred):
                positional += 1
            elif isinstance(argument.value, ast.Tuple | ast.List):
                positional += len(argument.value.elts)
            else:
                has_args = True
        for keyword in node.keywords:
            if keyword.arg is None:
                known = keywords_of(self.refer(keyword.value))
                keywords += known or ()
                has_kwargs |= known is None
            else:
                keywords.append(keyword.arg)
                each[keyword.arg] = self.evaluate(keyword.value)
        call = Call(positional, tuple(dict.fromkeys(keywords)), has_args, has_kwargs, unpacked)
        return _Arguments(call, tuple(value for values in each.values() for value in values), each)

    def _called(self, function: Value, node: ast.expr, arguments: _Arguments, kind: UseKind) -> Values:
        """What a call of one value returns."""
        call = arguments.call
        results: Values = ()
        match function:
            case Reached():
                results = self._te_called(function, node, call, kind)
            case Instance() if member := function.member("__call__"):
                results = self._te_called(member, node, call, kind)
            case Partial():
                results = self._te_called(function.reached, node, function.called(call), kind)
            case OwnFunction():
                self._give(function, arguments)
                results = tuple(_about(value, arguments.values) for value in self.returned(function))
            case OwnClass():
                self._constructed(function, node, arguments, kind)
                results = (OwnInstance(function),)
            case OwnInstance():
                methods = self.find(function.cls, "__call__")
                results = joined(*(self._called(method, node, arguments, kind) for method in methods))
            case Foreign("builtins.dict"):
                names = None if call.has_kwargs or call.positional else call.keywords
                results = (Items(joined(arguments.values, elements(arguments.values)), names),)
            case Foreign(path) if path in _TRANSPARENT:
                results = tuple(value for value in arguments.values if isinstance(value, _Callable))
            case Clue():
                results = (function,)
        return results

    def _give(self, function: OwnFunction, arguments: _Arguments) -> None:
        """Note what a function of the user's is given that leads to Transformer Engine."""
        places = () if arguments.call.has_args else function.parameters
        names: dict[int | str, str] = {**dict(enumerate(places)), **{name: name for name in arguments.call.keywords}}
        for place, values in arguments.each.items():
            found = tuple(filter(leads_to_te, values))
            if found and place in names:
                before = function.given.get(names[place], ())
                function.given[names[place]] = joined(before, self.findings.context.bound(found))

    def _te_called(self, function: Reached, node: ast.expr, call: Call, kind: UseKind) -> Values:
        self.findings.use(node, function, kind, call=call)
        applied = _applied(function, call)
        if applied and function.owner:
            method = dataclasses.replace(function, path=f"{function.owner.path}.__call__")
            self.findings.use(node, method, kind, call=applied)
        found = function.called()
        return (found,) if found else ()

    def _constructed(self, cls: OwnClass, node: ast.expr, arguments: _Arguments, kind: UseKind) -> None:
        """Note the call of a constructor, the user's or one that is inherited from Transformer Engine."""
        for constructor in self.find(cls, "__init__"):
            if isinstance(constructor, OwnFunction):
                self._give(constructor, arguments)
        call = arguments.call
        own = [each for each in cls.line() if isinstance(each, OwnClass)]
        bases = names_of_te(cls.line())
        if bases and not any(each.has_constructor for each in own):
            fields = {name for each in own for name in each.fields}
            if fields:  # they are arguments, too: by position they come after those of Transformer Engine
                keywords = tuple(name for name in call.keywords if name not in fields)
                call = Call(0, keywords, call.has_args or call.positional > 0, call.has_kwargs)
            self.findings.use(node, bases[0], kind, call=call)

    # --- functions that reach names in other ways ---

    def _super(self) -> Values:
        cls = self.scope.class_of_method()
        return (OwnInstance(cls, above=True),) if cls else ()

    def _super_of(self, node: ast.Call) -> Values:
        classes = self.refer(node.args[0])
        return tuple(OwnInstance(cls, above=True) for cls in classes if isinstance(cls, OwnClass))

    def _partial(self, node: ast.Call) -> Values:
        functions = self.refer(node.args[0])
        rest = ast.Call(node.func, node.args[1:], node.keywords)
        call = self._arguments(rest).call
        found: list[Value] = []
        for function in functions:
            member = function.member("__call__") if isinstance(function, Instance) else function
            if isinstance(member, Reached):
                self.findings.use(node.args[0], member, UseKind.CALL, call=dataclasses.replace(call, is_partial=True))
                found.append(Partial(member, call))
            elif isinstance(member, Partial):
                found.append(Partial(member.reached, member.called(call)))
            elif isinstance(member, OwnFunction | OwnClass):
                found.append(member)
        return tuple(found)

    def _get(self, node: ast.Call) -> Values:
        """``getattr(te, "x")`` and its like; of ``hasattr``, and with a default, the name can be missing."""
        owners = self.refer(node.args[0])
        rest = [self._text(argument) for argument in node.args[1:2]]
        default = joined(*(self.evaluate(argument) for argument in node.args[2:]))
        names = texts(rest[0]) if rest else []
        asks = isinstance(node.func, ast.Name) and node.func.id == "hasattr"
        can_miss = asks or len(node.args) > 2  # noqa: PLR2004 - an object, a name and a default
        found: list[Value] = []
        for owner in owners:
            if isinstance(owner, Reached | Instance) and not names:
                self.findings.unread(node, _COMPUTED)
            found += [value for name in names for value in self._got(node, owner, name, can_miss=can_miss)]
        if asks:
            return tuple(Clue(Guard.PROBE, (value.path,), tells=True) for value in names_of_te(found))
        return joined(tuple(found), default)

    def _got(self, node: ast.Call, owner: Value, name: str, *, can_miss: bool) -> Values:
        members = self.attribute(owner, name, node.args[0])
        found = [dataclasses.replace(each, optional=each.path) if can_miss else each for each in names_of_te(members)]
        for member in found:
            self.findings.use(node, member, UseKind.DYNAMIC, guards=[Guard.PROBE] if can_miss else [])
        return (*found, *(member for member in members if not isinstance(member, Reached)))

    def _text(self, node: ast.expr) -> Values:
        """A string that is looked at as a name by what it is given to."""
        if isinstance(node, ast.Constant):
            return (Text(node.value),) if isinstance(node.value, str) else ()
        return self.evaluate(node)

    def _patch(self, node: ast.Call) -> Values:
        """``monkeypatch.setattr(te, "x", fake)``."""
        names = texts(self._text(node.args[1]))
        for owner in self.refer(node.args[0]):
            for name in names:
                self._got(node, owner, name, can_miss=False)
        for argument in node.args[2:]:
            self.evaluate(argument)
        return ()

    def _import(self, node: ast.Call) -> Values:
        """``importlib.import_module`` and its like, with a name in a string."""
        names = texts(self._text(node.args[0]))
        package = [name for argument in node.args[1:2] for name in texts(self._text(argument))]
        package += [name for keyword in node.keywords for name in texts(self.evaluate(keyword.value))]
        names = [_absolute(name, package[0]) if package and name.startswith(".") else name for name in names]
        if not names:
            self.findings.unread(node, _COMPUTED)
        can_miss = isinstance(node.func, ast.Attribute) and node.func.attr == "importorskip"
        found = self.reach_text(node, names, can_miss=can_miss)
        own = (self.project.module(name, self.location) for name in names)
        return (*found, *(OwnModule(location) for location in own if location))

    def _import_top(self, node: ast.Call) -> Values:
        """``__import__("transformer_engine.jax")`` gives the package at the top."""
        found = names_of_te(self._import(node))
        return (dataclasses.replace(found[0], path=PACKAGE),) if found else ()

    def _find_spec(self, node: ast.Call) -> Values:
        found = self.reach_text(node, texts(self._text(node.args[0])), can_miss=True)
        return tuple(Clue(Guard.PROBE, (value.path,), tells=True) for value in names_of_te(found))

    def _version(self, node: ast.Call) -> Values:
        names = texts(self._text(node.args[0]))
        is_version = any(name.replace("-", "_").startswith(PACKAGE) for name in names)
        return (Clue(Guard.VERSION),) if is_version else ()

    def _signature(self, node: ast.Call) -> Values:
        """What is looked at before it is called; of a parameter, it is not known what that is."""
        values = names_of_te(self.refer(node.args[0]))
        for value in values:
            self.findings.use(node.args[0], value, UseKind.INSPECT)
        return (Clue(Guard.PROBE, tuple(value.path for value in values)),)

    def _is_instance(self, node: ast.Call) -> Values:
        self.evaluate(node.args[0])
        for argument in node.args[1:]:
            self.check_classes(argument)
        return ()

    def check_classes(self, node: ast.expr, kind: UseKind = UseKind.ISINSTANCE) -> Values:
        """Note the classes, one or a tuple or union of them, that something is checked against."""
        if isinstance(node, ast.Tuple):
            return joined(*(self.check_classes(element, kind) for element in node.elts))
        if isinstance(node, ast.BinOp):
            return joined(self.check_classes(node.left, kind), self.check_classes(node.right, kind))
        values = self.refer(node)
        values = (*values, *elements(values))
        for value in names_of_te(values):
            self.findings.use(node, value, kind)
        return values

    _SPECIAL: ClassVar[dict[str, Callable[["Calls", ast.Call], Values]]] = {
        "functools.partial": _partial,
        "functools.partialmethod": _partial,
        "builtins.getattr": _get,
        "builtins.hasattr": _get,
        "builtins.setattr": _patch,
        "builtins.delattr": _patch,
        "builtins.super": _super_of,
        "builtins.isinstance": _is_instance,
        "builtins.issubclass": _is_instance,
        "builtins.__import__": _import_top,
        "importlib.import_module": _import,
        "importlib.util.find_spec": _find_spec,
        "pytest.importorskip": _import,
        "importlib.metadata.version": _version,
        "importlib_metadata.version": _version,
        "pkg_resources.get_distribution": _version,
        "inspect.signature": _signature,
        "inspect.getfullargspec": _signature,
        "inspect.getsource": _signature,
    }


def _makes_module(functions: Values, arguments: Values) -> bool:
    """Whether a call puts something in the place of a module: a name of Transformer Engine says which one there."""
    paths = [function.path for function in functions if isinstance(function, Foreign)]
    is_given = not {Foreign(MODULES), Text(MODULES)}.isdisjoint(arguments)
    return is_given or any(path == "types.ModuleType" or path.startswith(f"{MODULES}.") for path in paths)


def _asked(values: Values) -> Values:
    """What the result of an unknown function tells: one that is given a name and a string asks for something of it."""
    names = tuple(value.path for value in names_of_te(values))
    return *clues(values), *([Clue(Guard.PROBE, names)] if names and texts(values) else [])


def _applied(function: Reached, call: Call) -> Call | None:
    """How a Flax module is called by ``apply`` and its like; ``None`` where they call another of its methods."""
    if not function.on_instance or function.name not in _APPLIES or "method" in call.keywords:
        return None
    keywords = tuple(name for name in call.keywords if name not in _OF_FLAX)
    return dataclasses.replace(call, positional=max(call.positional - 1, 0), keywords=keywords, unpacked=None)


def _about(value: Value, arguments: Values) -> Value:
    """What a function of the user's returns, given what it is called with."""
    if isinstance(value, Clue) and value.guard is Guard.PROBE and not value.subjects:
        return dataclasses.replace(value, subjects=tuple(name.path for name in names_of_te(arguments)))
    return value


def _absolute(name: str, package: str) -> str:
    """What ``import_module(name, package)`` imports."""
    below = name.lstrip(".")
    return ".".join((*package.split(".")[: len(package.split(".")) - (len(name) - len(below) - 1)], below))
