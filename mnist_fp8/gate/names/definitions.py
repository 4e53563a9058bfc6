"""Definitions and aliases, by griffe's objects."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import griffe

from mnist_fp8.gate.names import signatures, values
from mnist_fp8.gate.names.bodies import is_builtin_exception
from mnist_fp8.gate.names.notes import Notes
from mnist_fp8.gate.names.public import public_paths
from mnist_fp8.gate.names.source import Named, is_attribute, is_class, is_function, is_import, is_module, modules
from mnist_fp8.record.entries import Signature
from mnist_fp8.record.names import PACKAGE, Definition, Names, Passed

_ADD_NO_NAMES = {
    *("dataclasses.dataclass", "pydantic.dataclasses.dataclass", "enum.unique", "typing.final"),
    *("jax.tree_util.register_dataclass", "jax.tree_util.register_pytree_node_class", "functools.total_ordering"),
}
"""Decorators that add no names to a class, but for what every dataclass has."""
_METACLASSES = {"abc.ABCMeta", "enum.EnumMeta", "enum.EnumType"}


def names_of(root: griffe.Module, notes: Notes) -> Names:
    """All names of a Transformer Engine that was read."""
    reader = _Reader(notes)
    reader.module(root)
    names = Names(reader.definitions, reader.aliases, public_paths(root), reader.unread)
    return dataclasses.replace(names, definitions=_with_passed(names, reader.passed))


class _Reader:
    """Makes definitions and aliases of griffe's objects.

    Attributes:
        passed: how the methods of each class call methods of ``self``, by their names; and how functions of each module
            call their arguments.
    """

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self.definitions: dict[str, Definition] = {}
        self.aliases: dict[str, str] = {}
        self.unread = dict(notes.unread)
        self.passed: dict[str, dict[str, set[Passed]]] = defaultdict(lambda: defaultdict(set))

    def module(self, module: griffe.Module) -> None:
        """Read a module and the modules in it."""
        self.definitions[module.path] = Definition(Signature("module"))
        for member in _at_run_time(module):
            if is_module(member):
                self.module(member)
            elif is_import(member):
                self._import(module, member)
            elif is_class(member):
                self._class(member)
            elif not self._second_name(member):
                self._define(member, self._signature(member))
                self._calls(module, member)
        self.aliases |= _shadowed(module, self._notes)
        self._rest(module)

    def _import(self, scope: griffe.Module | griffe.Class, alias: griffe.Alias) -> None:
        if alias.wildcard:
            self.unread[scope.path] = f"it imports all of {alias.wildcard}"
        else:
            self.aliases[alias.path] = alias.target_path
            self._condition(alias.path)

    def _condition(self, path: str) -> None:
        if path in self._notes.conditional and self.aliases[path].startswith(f"{PACKAGE}."):
            self.unread[path] = "a condition decides on it"

    def _second_name(self, member: Named) -> bool:
        """Note a name that is set to another name, unless that leads back to it."""
        referred = values.referred(member)
        if referred is None or values.final(member).path == member.path:
            return False
        self.aliases[member.path] = referred.path
        self._condition(member.path)
        return True

    def _signature(self, member: Named) -> Signature:
        if is_function(member):
            return Signature("function", signatures.parameters(member))
        if not is_attribute(member):
            return Signature("attribute")
        made = signatures.made_of(member, self._notes.imports) or Signature("attribute")
        return dataclasses.replace(made, value=values.text(member.value, member))

    def _class(self, cls: griffe.Class) -> None:
        self._define(cls, Signature("class", signatures.constructor(cls)))
        unknown = [path for path in _decorators(cls) if path not in _ADD_NO_NAMES]
        unknown += [path for path in map(values.dotted, cls.keywords.values()) if path not in _METACLASSES]
        if unknown:
            self.unread.setdefault(cls.path, f"{unknown[0]} can add names to it")
        for member in _at_run_time(cls):
            if is_import(member):
                self._import(cls, member)
            elif is_class(member):
                self._class(member)
            elif is_function(member):
                self._define(member, Signature("method", signatures.bound(member)))
                self._calls(cls, member)
            elif is_attribute(member) and not self._method_again(cls, member):
                self._define(member, self._class_attribute(cls, member))
        self._rest(cls)

    def _calls(self, scope: griffe.Module | griffe.Class, function: Named) -> None:
        body = self._notes.bodies.get(function.path)
        if body and is_class(scope) and "staticmethod" not in function.labels:
            for name, ways in body.passed.items():
                self.passed[scope.path][name] |= {dataclasses.replace(way, by=scope.path) for way in ways}
        for name, ways in body.handed.items() if body and is_module(scope) else ():
            self.passed[scope.path][name] |= ways

    def _method_again(self, cls: griffe.Class, member: griffe.Attribute) -> bool:
        """Whether an attribute is a second name of a method."""
        referred = values.referred(member)
        return referred is not None and is_function(referred) and referred.parent is cls and self._second_name(member)

    def _class_attribute(self, cls: griffe.Class, member: griffe.Attribute) -> Signature:
        if "property" in member.labels:
            return Signature("property")
        if signatures.is_field(member) and signatures.makes_fields(cls):
            return Signature("field", value=signatures.field_default(member))
        if "class-attribute" not in member.labels:
            return Signature("attribute")  # of instances
        signature = self._signature(member)
        is_member = values.is_enumeration(cls) and not member.name.startswith("_") and member.value is not None
        what = "member" if is_member else {"function": "method"}.get(signature.what, signature.what)
        return dataclasses.replace(signature, what=what)

    def _define(self, member: Named, signature: Signature) -> None:
        body = self._notes.bodies.get(member.path)
        self.definitions[member.path] = Definition(
            signature,
            bases=values.bases(member) if is_class(member) else (),
            decorators=_decorators(member),
            returns=body.returns if body else None,
            raises=tuple(sorted(_exceptions(body.raises, member))) if body else (),
            is_conditional=member.path in self._notes.conditional,
        )

    def _rest(self, scope: griffe.Module | griffe.Class) -> None:
        """Names that griffe does not read: set by loops, by methods, or on a class from outside of it."""
        for path in self._notes.bound.get(scope.path, ()):
            if path not in self.aliases and path not in self.definitions:
                is_conditional = path in self._notes.conditional
                self.definitions[path] = Definition(Signature("attribute"), is_conditional=is_conditional)
        for path, target in self._notes.assigned.get(scope.path, {}).items():
            self.aliases[path] = target


def _at_run_time(scope: griffe.Module | griffe.Class) -> Iterator[Named]:
    """Members, without those that are there for type checkers only."""
    return (member for member in scope.members.values() if is_module(member) or member.runtime)


def _decorators(member: Named) -> tuple[str, ...]:
    """What decorates a member; what is given to ``partial`` in its place."""
    if not (is_class(member) or is_function(member)):
        return ()
    found = []
    for decorator in member.decorators:
        path = values.dotted(decorator.value)
        arguments = getattr(decorator.value, "arguments", ())
        found.append(values.dotted(arguments[0]) if path == "functools.partial" and arguments else path)
    return tuple(found)


def _exceptions(raised: Iterable[str], user: Named) -> Iterator[str]:
    """Dotted paths of exceptions, without what cannot be told to be one."""
    for source in raised:
        first, dot, rest = source.partition(".")
        try:
            path = f"{user.resolve(first)}{dot}{rest}"
        except griffe.NameResolutionError:
            if is_builtin_exception(source):
                yield source
            continue
        named = values.member_at(path, user)
        if named is None:
            yield path  # from elsewhere
        elif is_class(values.final(named)) or is_import(values.final(named)):
            yield values.final_path(named)


def _shadowed(package: griffe.Module, notes: Notes) -> dict[str, str]:
    """What a package imports under the name of one of its modules: griffe keeps the module alone."""
    own = modules(package)
    found = {}
    for name in own:
        path = f"{package.path}.{name}"
        if notes.imports.get(path, path) != path:
            found[path] = notes.imports[path]
    for star in notes.stars.get(package.path, ()):
        exported = values.member_at(star, package)
        if exported is None or not is_module(exported):
            continue
        names = exported.exports or [name for name in exported.members if not name.startswith("_")]
        found |= {
            f"{package.path}.{name}": f"{star}.{name}"
            for name in map(str, names)
            if name in own and name in exported.members and not is_module(exported.members[name])
        }
    return found


def _with_passed(names: Names, passed: Mapping[str, Mapping[str, set[Passed]]]) -> dict[str, Definition]:
    """Definitions with how methods are called: what a class has, what its subclasses override, what it hands on."""
    subclasses: dict[str, set[str]] = defaultdict(set)
    for path, definition in names.definitions.items():
        if definition.signature.what == "class":
            for base in (*names.mro(path), path.rpartition(".")[0]):  # and its module
                subclasses[base].add(path)
    found: dict[str, set[Passed]] = defaultdict(set)
    for cls, calls in passed.items():
        for name, ways in calls.items():
            for member in filter(None, (names.find(f"{owner}.{name}") for owner in subclasses[cls])):
                found[member.path] |= ways
    definitions = dict(names.definitions)
    for path in found.keys() & definitions.keys():
        definition, ways = definitions[path], found[path]
        if definition.signature.what == "method":
            in_order = sorted(ways, key=dataclasses.astuple)
            definitions[path] = dataclasses.replace(definition, passed=tuple(in_order))
    return definitions
