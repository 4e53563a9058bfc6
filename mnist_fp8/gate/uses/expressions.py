"""What the expressions in a user's sources stand for, and the uses of Transformer Engine in them."""

import abc
import ast
import builtins
import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import ClassVar, TypeAlias

from mnist_fp8.gate.uses.guards import clues, presence, turned
from mnist_fp8.gate.uses.scopes import Scope, ScopeKind, all_parameters, bindings
from mnist_fp8.gate.uses.state import State
from mnist_fp8.gate.uses.use import Guard, UseKind
from mnist_fp8.gate.uses.values import (
    Clue,
    Foreign,
    Instance,
    Items,
    OwnClass,
    OwnFunction,
    OwnInstance,
    OwnModule,
    Reached,
    Text,
    Value,
    Values,
    elements,
    is_te,
    joined,
    keywords_of,
    names_of_te,
    texts,
)

Comprehension: TypeAlias = ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp
_BUILTINS = {*dir(builtins)}
_NAME = re.compile(r"transformer_engine(?:\.\w+)+(?::\w+(?:\.\w+)*)?")
"""A string that is a name as a whole; an entry point has a colon in it."""
_LONGEST = 200
"""Characters of a string that may be a name."""
_MOST_ITEMS = 1000
_KEEP_ITEMS = {"get", "items", "keys", "values", "copy", "index", "count"}
"""Methods that change no list or dictionary."""
_GIVE_ITEMS = {"get", "pop", "values"}


MODULES = "sys.modules"


class Expressions(State, abc.ABC):
    """Evaluates expressions, and notes the uses in them."""

    @abc.abstractmethod
    def call(self, node: ast.Call, kind: UseKind = UseKind.CALL, unpacked: int | None = None) -> Values:
        """What a call returns."""

    def evaluate(self, node: ast.AST) -> Values:
        """What an expression stands for. Names of Transformer Engine in it are read."""
        evaluator = self._EVALUATORS.get(type(node))
        if evaluator is not None:
            return evaluator(self, node)
        for child in ast.iter_child_nodes(node):
            self.evaluate(child)
        return ()

    def refer(self, node: ast.AST) -> Values:
        """What an expression stands for; a name of Transformer Engine that it ends with is not yet noted as a use."""
        if isinstance(node, ast.Name):
            return self._look_up(node.id)
        if isinstance(node, ast.Attribute):
            values = self.refer(node.value)
            if isinstance(node.value, ast.Name) and node.attr not in _KEEP_ITEMS:
                self._forget_items(node.value, values)
            return joined(*[self.attribute(value, node.attr, node.value) for value in values])
        return self.evaluate(node)

    def read(self, node: ast.AST, values: Values) -> Values:
        """Note that names of Transformer Engine are read, and give what they are as values."""
        for value in names_of_te(values):
            self.findings.use(node, value, UseKind.READ)
        return tuple(value.read() if isinstance(value, Reached) else value for value in values)

    def attribute(self, value: Value, name: str, node: ast.AST) -> Values:
        """What an attribute of a value is; the value is noted as read where it is the last name that is followed."""
        found: Values = ()
        match value:
            case Reached():
                found = self._member(value, name, node)
            case Instance() if member := value.member(name):
                found = (member,)
            case Foreign():
                found = (Foreign(f"{value.path}.{name}"),)
            case OwnModule():
                found = self.project.member(value.location, name)
            case OwnClass():
                found = self.find(value, name)
            case OwnInstance():
                found = joined(*[self._of_instance(each) for each in self.find(value.cls, name, above=value.above)])
            case Clue():
                found = (value,)
            case Items() if name in _GIVE_ITEMS:
                found = value.values
        return found

    def _member(self, value: Reached, name: str, node: ast.AST) -> Values:
        member = value.member(name)
        if member:
            return (member,)
        self.findings.use(node, value, UseKind.READ)
        read = value.read()
        return () if isinstance(read, Reached) else self.attribute(read, name, node)

    def _of_instance(self, value: Value) -> Values:
        return self.returned(value) if isinstance(value, OwnFunction) and value.is_property else (value,)

    def find(self, cls: OwnClass, name: str, *, above: bool = False) -> Values:
        """What a class has under a name, as far as that is known already."""
        found = cls.find(name, above=above)
        self._members.setdefault((cls, name, above), found)
        return found

    def returned(self, function: OwnFunction) -> Values:
        """What a function of the user's returns, as far as that is known already."""
        self._returns.setdefault(function, function.returns)
        return function.returns

    def _look_up(self, name: str) -> Values:
        values = self.scope.look_up(name)
        if values is not None:
            return values
        if name in _BUILTINS:
            return (Foreign(f"builtins.{name}"),)
        stars = self.scope.module.values.get("*", ())
        return (
            self.attribute(stars[0], name, ast.Name(name)) if len(stars) == 1 and isinstance(stars[0], Reached) else ()
        )

    def _name(self, node: ast.Name) -> Values:
        values = self._look_up(node.id)
        self._forget_items(node, values)
        return self.read(node, values) if values else ()

    def _forget_items(self, node: ast.Name, values: Values) -> None:
        """Whoever is given a dictionary, or calls its methods, may change its keys."""
        for value in values:
            if isinstance(value, Items) and value.keywords is not None:
                self.scope.forget_keywords(node.id)

    def _attribute(self, node: ast.Attribute) -> Values:
        return self.read(node, self.refer(node))

    def _constant(self, node: ast.Constant) -> Values:
        if not isinstance(node.value, str) or len(node.value) > _LONGEST:
            return ()
        if _NAME.fullmatch(node.value):
            self.findings.text(node, node.value.replace(":", "."))
        return (Text(node.value),)

    def _call(self, node: ast.Call) -> Values:
        return self.call(node)

    def _starred(self, node: ast.Starred | ast.Await) -> Values:
        return self.evaluate(node.value)

    def _items(self, node: ast.Tuple | ast.List | ast.Set) -> Values:
        values = [value for element in node.elts for value in self.evaluate(element)]
        return (Items(tuple(dict.fromkeys(values[:_MOST_ITEMS]))),)

    def _dict(self, node: ast.Dict) -> Values:
        keywords: list[str] | None = []
        held: list[Value] = []
        for key, value in zip(node.keys, node.values, strict=True):
            values = self.refer(value) if key is None else self.evaluate(value)
            names = keywords_of(values) if key is None else (tuple(texts(self.evaluate(key))[:1]) or None)
            held += values
            keywords = None if keywords is None or names is None else [*keywords, *names]
        known = None if keywords is None else tuple(dict.fromkeys(keywords))
        return (Items(tuple(dict.fromkeys(held[:_MOST_ITEMS])), known),)

    def _subscript(self, node: ast.Subscript) -> Values:
        values = self.refer(node.value)
        keys = self.evaluate(node.slice)
        if Foreign(MODULES) in values:
            return self.reach_text(node, texts(keys))
        for value in names_of_te(values):
            self.findings.use(node.value, value, UseKind.READ)
        return joined(*(_subscripted(value) for value in values))

    def reach_text(self, node: ast.AST, names: Sequence[str], *, can_miss: bool = False) -> Values:
        """The names of Transformer Engine that are reached by strings."""
        found = [Reached(name, optional=name if can_miss else "") for name in names if is_te(name)]
        for value in found:
            self.findings.use(node, value, UseKind.DYNAMIC, guards=[Guard.PROBE] if can_miss else [])
        return self.findings.context.bound(tuple(found))

    def _formatted(self, node: ast.JoinedStr) -> Values:
        parts = [texts(self.evaluate(part)) for part in node.values]
        return (Text("".join(part[0] for part in parts)),) if all(len(part) == 1 for part in parts) else ()

    def _formatted_value(self, node: ast.FormattedValue) -> Values:
        if node.format_spec is not None:
            self.evaluate(node.format_spec)
        return self.evaluate(node.value)

    def _binary(self, node: ast.BinOp) -> Values:
        left, right = self.evaluate(node.left), self.evaluate(node.right)
        one, other = texts(left), texts(right)
        if isinstance(node.op, ast.Add) and len(one) == len(other) == 1:
            return (Text(one[0] + other[0]),)
        return clues(left + right)

    def _compare(self, node: ast.Compare) -> Values:
        values = self.evaluate(node.left)
        for other in node.comparators:
            values += self.evaluate(other)
        found = clues(values)
        negates = isinstance(node.ops[0], ast.Is | ast.Eq | ast.NotIn)
        is_none = isinstance(node.comparators[0], ast.Constant) and node.comparators[0].value is None
        if is_none:
            return tuple(turned(clue) if negates else clue for clue in presence(values))
        if Foreign(MODULES) in values and (asked := [name for name in texts(values) if is_te(name)]):
            return (Clue(Guard.PROBE, tuple(asked), tells=not negates),)
        return tuple(dataclasses.replace(clue, tells=None) for clue in found)

    def _not(self, node: ast.UnaryOp) -> Values:
        values = presence(self.evaluate(node.operand))
        return tuple(turned(clue) if isinstance(node.op, ast.Not) else clue for clue in values)

    def _bool_op(self, node: ast.BoolOp) -> Values:
        """``hasattr(te, "x") and te.x``: each operand protects those after it. Values may be those of any operand."""
        context, found = self.findings.context, []
        for operand in node.values:
            with self.at(context):
                values = self.evaluate(operand)
            yes, no = context.split(presence(values))
            context = yes if isinstance(node.op, ast.And) else no
            found.append(values)
        values = joined(*found)
        return tuple(dataclasses.replace(each, tells=None) if isinstance(each, Clue) else each for each in values)

    def _if_expression(self, node: ast.IfExp) -> Values:
        yes, no = self.findings.context.split(presence(self.evaluate(node.test)))
        with self.at(yes):
            values = yes.bound(self.evaluate(node.body))
        with self.at(no):
            return joined(values, no.bound(self.evaluate(node.orelse)))

    def _walrus(self, node: ast.NamedExpr) -> Values:
        values = self.evaluate(node.value)
        if isinstance(node.target, ast.Name):
            self.scope.of_walrus.bind(node.target.id, values)
        return values

    def _lambda(self, node: ast.Lambda) -> Values:
        arguments = node.args
        defaults = [*arguments.defaults, *filter(None, arguments.kw_defaults)]
        for default in defaults:
            self.evaluate(default)
        scope = Scope(ScopeKind.FUNCTION, self.scope)
        scope.bindings.names = {argument.arg for argument in all_parameters(arguments)}
        with self.within(scope), self.at(self.findings.context.in_function()):
            return (OwnFunction(self.evaluate(node.body)),)

    def _comprehension(self, node: Comprehension) -> Values:
        scope = Scope(ScopeKind.COMPREHENSION, self.scope)
        for generator in node.generators:
            scope.bindings.names |= bindings([ast.Delete([generator.target])]).names
        context = self.findings.context
        with self.within(scope):
            for generator in node.generators:
                with self.at(context):
                    self.assign(generator.target, elements(self.evaluate(generator.iter)))
                    for test in generator.ifs:
                        context, _ = context.split(presence(self.evaluate(test)))
            with self.at(context):
                results = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
                return clues(tuple(value for result in results for value in self.evaluate(result)))

    def assign(self, target: ast.expr, values: Values, source: ast.expr | None = None) -> None:
        """Bind what is assigned to.

        Args:
            target: a name, an attribute, an element, or several of them.
            values: what is assigned.
            source: the expression that is, where it is known.
        """
        match target:
            case ast.Name():
                self.scope.bind(target.id, self.findings.context.bound(values))
            case ast.Tuple() | ast.List():
                self._assign_each(target, values, source)
            case ast.Starred():
                self.assign(target.value, ())
            case ast.Attribute():
                for owner in self.refer(target.value):
                    self._assign_attribute(owner, target, values)
            case ast.Subscript():
                length = len(self.findings)
                self.evaluate(target.slice)
                if Foreign(MODULES) in self.evaluate(target.value):
                    self.findings.forget_texts(length)

    def _assign_each(self, target: ast.Tuple | ast.List, values: Values, source: ast.expr | None) -> None:
        if pairs := _taken_apart(target, source):
            with self.at_rest():  # before any name is bound: `a, b = b, a`
                found = [self.evaluate(each) for _, each in pairs]
            for (element, each), of_element in zip(pairs, found, strict=True):
                self.assign(element, of_element, each)
        else:
            for element in target.elts:
                self.assign(element, clues(values))

    def _assign_attribute(self, owner: Value, target: ast.Attribute, values: Values) -> None:
        match owner:
            case OwnInstance() if not owner.above:
                owner.cls.assigned[target.attr] = joined(owner.cls.assigned.get(target.attr, ()), values)
            case OwnClass():
                owner.attributes[target.attr] = joined(owner.attributes.get(target.attr, ()), values)
            case Reached() if member := owner.member(target.attr):
                self.findings.use(target, member, UseKind.READ)

    _EVALUATORS: ClassVar[dict[type[ast.AST], Callable[..., Values]]] = {
        ast.Name: _name,
        ast.Attribute: _attribute,
        ast.Constant: _constant,
        ast.Call: _call,
        ast.Starred: _starred,
        ast.Await: _starred,
        ast.Tuple: _items,
        ast.List: _items,
        ast.Set: _items,
        ast.Dict: _dict,
        ast.Subscript: _subscript,
        ast.JoinedStr: _formatted,
        ast.FormattedValue: _formatted_value,
        ast.BinOp: _binary,
        ast.UnaryOp: _not,
        ast.BoolOp: _bool_op,
        ast.Compare: _compare,
        ast.IfExp: _if_expression,
        ast.NamedExpr: _walrus,
        ast.Lambda: _lambda,
        ast.ListComp: _comprehension,
        ast.SetComp: _comprehension,
        ast.GeneratorExp: _comprehension,
        ast.DictComp: _comprehension,
    }


def _taken_apart(target: ast.expr, source: ast.expr | None) -> list[tuple[ast.expr, ast.expr]]:
    """What is assigned to each of several targets, those within others too; nothing where that is not seen."""
    if not (isinstance(target, ast.Tuple | ast.List) and isinstance(source, ast.Tuple | ast.List)):
        return []
    is_starred = any(isinstance(each, ast.Starred) for each in (*source.elts, *target.elts))
    if is_starred or len(source.elts) != len(target.elts):
        return []
    pairs = zip(target.elts, source.elts, strict=True)
    return [inner for pair in pairs for inner in _taken_apart(*pair) or [pair]]


def _subscripted(value: Value) -> Values:
    """What an element of something is: a generic class stays what it is."""
    if isinstance(value, Items):
        return value.values
    is_generic = isinstance(value, OwnClass | Clue) or (isinstance(value, Reached) and value.is_class)
    return (value,) if is_generic else ()
