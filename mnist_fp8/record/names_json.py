"""Names of a record as JSON, and back: every type is checked. What is empty is left out."""

import dataclasses
from typing import Any, Literal, cast

import msgspec

from mnist_fp8.record.entries import Parameter, Signature
from mnist_fp8.record.names import Definition, Names, Passed

_Kind = Literal["positional", "keyword", "either", "*", "**"]
_What = Literal["module", "class", "function", "method", "property", "attribute", "field", "member"]


class _Definition(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, frozen=True):
    """A definition with its signature in one, and parameters as lists."""

    what: _What
    parameters: tuple[tuple[str, _Kind, str | None], ...] = ()
    value: str = ""
    bases: tuple[str, ...] = ()
    decorators: tuple[str, ...] = ()
    returns: int | None = None
    raises: tuple[str, ...] = ()
    passed: tuple[Passed, ...] = ()
    is_conditional: bool = False


_SAME = tuple(field.name for field in dataclasses.fields(Definition) if field.name != "signature")
"""Fields that a definition has in JSON, too."""


class _Names(msgspec.Struct, forbid_unknown_fields=True):
    definitions: dict[str, _Definition]
    aliases: dict[str, str]
    public: list[str]
    unread: dict[str, str]


def names_to_json(names: Names) -> dict[str, Any]:
    """Names as plain data."""
    definitions = {path: definition_to_json(definition) for path, definition in names.definitions.items()}
    return {
        "definitions": definitions,
        "aliases": dict(names.aliases),
        "public": sorted(names.public),
        "unread": dict(names.unread),
    }


def names_from_json(document: Any) -> Names:  # noqa: ANN401 - whatever JSON can hold
    """Read what `names_to_json` made.

    Raises:
        msgspec.ValidationError: it is something else.
    """
    read = msgspec.convert(document, _Names)
    definitions = {path: _definition(stored) for path, stored in read.definitions.items()}
    return Names(definitions, read.aliases, frozenset(read.public), read.unread)


def definition_to_json(definition: Definition) -> dict[str, Any]:
    """A definition as plain data."""
    fields = {name: getattr(definition, name) for name in _SAME}
    parameters = tuple((each.name, each.kind, each.default) for each in definition.signature.parameters)
    signature = definition.signature
    stored = _Definition(cast("_What", signature.what), cast("Any", parameters), signature.value, **fields)
    plain: dict[str, Any] = msgspec.to_builtins(stored)
    return plain


def definitions_from_json(document: Any) -> list[Definition]:  # noqa: ANN401 - whatever JSON can hold
    """Read a list of what `definition_to_json` made.

    Raises:
        msgspec.ValidationError: it is something else.
    """
    return [_definition(stored) for stored in msgspec.convert(document, list[_Definition])]


def _definition(stored: _Definition) -> Definition:
    parameters = tuple(Parameter(*each) for each in stored.parameters)
    fields = {name: getattr(stored, name) for name in _SAME}
    return Definition(Signature(stored.what, parameters, stored.value), **fields)
