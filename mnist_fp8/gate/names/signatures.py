"""What functions and classes take, by griffe's objects."""

from collections.abc import Iterable, Iterator, Mapping

import griffe

from mnist_fp8.gate.names import values
from mnist_fp8.gate.names.source import Expression, is_attribute, is_class, is_function
from mnist_fp8.record.entries import VARIADIC, Parameter, Signature

ANYTHING = (Parameter("args", "*", None), Parameter("kwargs", "**", None))
_FLAX_MODULE = "flax.linen.Module"
_OF_FLAX = (Parameter("parent", "either", "None"), Parameter("name", "either", "None"))
"""Fields that Flax adds to each module, behind all others."""
_MAKE_FIELDS = {"Module", "BaseLayer", "NamedTuple"}
"""Base classes (Flax's, Praxis', typing's) whose subclasses have fields without being decorated."""
_WITHOUT_CONSTRUCTOR = {"object", "abc.ABC", "typing.Generic", "typing.Protocol"}
_SAME_CALL = {
    *("jax.jit", "jax.checkpoint", "jax.remat", "jax.custom_vjp", "jax.custom_jvp"),
    *("functools.cache", "functools.lru_cache", "contextlib.contextmanager", "staticmethod"),
    "transformer_engine.common.utils.deprecate_wrapper",
}
"""Functions whose result is called as their first argument is."""
_KINDS = {
    "positional-only": "positional",
    "keyword-only": "keyword",
    "positional or keyword": "either",
    "variadic positional": "*",
    "variadic keyword": "**",
}
"""Kinds of a parameter, by griffe's words for them."""


def parameters(function: griffe.Function) -> tuple[Parameter, ...]:
    """The parameters of a function."""
    return _parameters(function.parameters, function)


def _parameters(every: Iterable[griffe.Parameter | griffe.ExprParameter], user: griffe.Object) -> tuple[Parameter, ...]:
    found = []
    for parameter in every:
        kind = _KINDS[parameter.kind.value] if parameter.kind else "either"
        has_default = kind not in VARIADIC and parameter.default is not None  # griffe gives () and {} to variadic ones
        found.append(Parameter(parameter.name, kind, values.text(parameter.default, user) if has_default else None))
    return tuple(found)


def bound(method: griffe.Function) -> tuple[Parameter, ...]:
    """The parameters of a method as its caller sees them."""
    found = parameters(method)
    takes_self = "staticmethod" not in method.labels and found and found[0].kind not in VARIADIC
    return found[1:] if takes_self else found


def constructor(cls: griffe.Class) -> tuple[Parameter, ...]:
    """What the nearest class takes that says so, by an ``__init__`` or by fields."""
    for owner in values.mro(cls):
        init = owner.members.get("__init__")
        if init and is_function(init):
            return bound(init)
        if makes_fields(owner):
            return _with_inherited(_fields(owner), owner)
    if values.is_enumeration(cls):
        return (Parameter("value", "either", None),)
    return ANYTHING if _foreign_bases(cls) - _WITHOUT_CONSTRUCTOR else ()


def _foreign_bases(cls: griffe.Class) -> set[str]:
    own = values.mro(cls)
    return {base for owner in own for base in values.bases(owner)} - {owner.path for owner in own}


def _with_inherited(fields: list[Parameter], cls: griffe.Class) -> tuple[Parameter, ...]:
    """The fields of a class, and what is added to them by Flax or by a base class that is not known."""
    foreign = _foreign_bases(cls) - _WITHOUT_CONSTRUCTOR - {"typing.NamedTuple"}
    of_flax = _OF_FLAX if _FLAX_MODULE in foreign else ()
    anything = ANYTHING[1:] if foreign - {_FLAX_MODULE} and not _dataclass(cls) else ()
    return (*fields, *of_flax, *anything)


def makes_fields(cls: griffe.Class) -> bool:
    """Whether annotated names in its body are fields, which the constructor takes."""
    bases = {values.last(base) for owner in values.mro(cls) for base in owner.bases}
    return bool(bases & _MAKE_FIELDS) or _dataclass(cls) is not None


def _dataclass(cls: griffe.Class) -> Expression:
    """The decorator, of the standard library, pydantic or Flax, that makes it a dataclass."""
    return next((each.value for each in cls.decorators if values.last(each.value) == "dataclass"), None)


def _fields(cls: griffe.Class) -> list[Parameter]:
    found: dict[str, Parameter] = {}
    for owner in reversed(values.mro(cls)):
        if makes_fields(owner):  # a field that is defined again keeps its place
            found |= {field.name: field for field in _own_fields(owner)}
    return sorted(found.values(), key=lambda field: field.kind == "keyword")


def _own_fields(cls: griffe.Class) -> Iterator[Parameter]:
    of_class = _arguments(_dataclass(cls))
    for member in cls.members.values():
        if not is_attribute(member) or not is_field(member):
            continue
        options = _options(member)
        kind = "keyword" if "True" in (of_class.get("kw_only"), options.get("kw_only")) else "either"
        if options.get("init") != "False":
            yield Parameter(member.name, kind, _default(options))


def is_field(attribute: griffe.Attribute) -> bool:
    """Whether an attribute is a field, if its class makes fields."""
    # griffe takes ClassVar off an annotation, and leaves no more than this label.
    return attribute.annotation is not None and "instance-attribute" in attribute.labels


def field_default(attribute: griffe.Attribute) -> str:
    """The default of a field, as a parameter has it; empty if there is none."""
    return _default(_options(attribute)) or ""


def _options(attribute: griffe.Attribute) -> dict[str, str]:
    """How a field is made, by name."""
    value = attribute.value
    if isinstance(value, griffe.ExprCall) and values.last(value) == "field":
        return _arguments(value)
    return {"default": values.text(value, attribute)}


def _arguments(call: Expression) -> dict[str, str]:
    """Keyword arguments of a call, as text; none of anything else."""
    arguments = call.arguments if isinstance(call, griffe.ExprCall) else ()
    return {each.name: str(each.value) for each in arguments if isinstance(each, griffe.ExprKeyword)}


def _default(options: Mapping[str, str]) -> str | None:
    if "default_factory" in options:
        return f"field(default_factory={options['default_factory']})"
    return options.get("default") or None


# --- what is made of functions --------------------------------------------------------------------------------------


def made_of(
    member: griffe.Attribute, imports: Mapping[str, str], seen: frozenset[str] = frozenset()
) -> Signature | None:
    """The signature of what is set to ``partial(f, x=1)``, ``jax.jit(f)`` and such; ``None`` of anything else.

    Args:
        member: what is set to it.
        imports: what names were imported before they were set: ``f = jax.jit(f)``.
        seen: paths that led to it.
    """
    return None if member.path in seen else _made_of(member.value, member, imports, seen | {member.path})


def _made_of(
    value: Expression, user: griffe.Attribute, imports: Mapping[str, str], seen: frozenset[str]
) -> Signature | None:
    if isinstance(value, griffe.ExprLambda):
        return Signature("function", _parameters(value.parameters, user))
    if not isinstance(value, griffe.ExprCall) or not value.arguments:
        return None
    path, given = value.canonical_path, value.arguments
    if path not in _SAME_CALL and path != "functools.partial":
        return None
    inner = _made_of(given[0], user, imports, seen) or _of_name(given[0], user, imports, seen)
    if inner is None or path in _SAME_CALL:
        return inner
    by_name = {each.name: values.text(each.value, user) for each in given if isinstance(each, griffe.ExprKeyword)}
    return Signature(inner.what, _left(inner.parameters, len(given) - 1 - len(by_name), by_name))


def _of_name(
    value: Expression, user: griffe.Attribute, imports: Mapping[str, str], seen: frozenset[str]
) -> Signature | None:
    named = values.looked_up(value, user)
    if named is user and user.path in imports:
        named = values.member_at(imports[user.path], user)
    found = values.final(named) if named else None
    if found and is_class(found):
        return Signature("class", constructor(found))
    if found and is_function(found):
        return Signature("function", parameters(found))
    return made_of(found, imports, seen) if found and is_attribute(found) else None


def _left(every: tuple[Parameter, ...], positional: int, by_name: Mapping[str, str]) -> tuple[Parameter, ...]:
    """Parameters that are left when some are given; what comes behind one that is given by name has to be, too."""
    found: list[Parameter] = []
    by_keyword = False
    for parameter in every:
        if parameter.kind in ("positional", "either") and positional:
            positional -= 1
            continue
        by_keyword |= parameter.name in by_name
        kind = "keyword" if by_keyword and parameter.kind == "either" else parameter.kind
        if not (by_keyword and kind == "*"):
            found.append(Parameter(parameter.name, kind, by_name.get(parameter.name, parameter.default)))
    return tuple(found)
