"""Entries of a record as JSON, and back: every type is checked, so that nothing is misread."""

import dataclasses
import enum
import functools
import types
from collections.abc import Mapping
from typing import Any, get_args, get_origin, get_type_hints

from mnist_fp8.core.plain import plain
from mnist_fp8.record.entries import (
    KINDS,
    POSITIONAL,
    VARIADIC,
    Cost,
    Curves,
    Numbers,
    Signature,
    Value,
)
from mnist_fp8.record.keys import AREAS, NOT_MEASURED


def entries_to_json(entries: Mapping[str, Value]) -> dict[str, Any]:
    """Entries as plain data; numbers that JSON does not know are words."""
    return {
        key: {"kind": type(value).__name__.lower(), **plain(dataclasses.asdict(value))}
        for key, value in entries.items()
    }


def entries_from_json(document: Mapping[str, Any]) -> dict[str, Value]:
    """Read what `entries_to_json` made.

    Raises:
        KeyError, TypeError, ValueError: it is something else.
    """
    return {_checked_key(key): _value(fields) for key, fields in document.items()}


def _checked_key(key: str) -> str:
    area, slash, _ = key.partition("/")
    if not slash or area not in AREAS or area in NOT_MEASURED:
        raise ValueError(f"{key!r} is the key of no entry")
    return key


def _value(fields: Mapping[str, Any]) -> Value:
    value: Value = _read(KINDS[fields["kind"]], {name: item for name, item in fields.items() if name != "kind"})
    match value:
        case Numbers(values, labels) if len(values) != len(labels) or len(set(labels)) < len(labels):
            raise ValueError(f"{len(values)} values, but {len(set(labels))} different labels")
        case Curves(steps, seeds) if not (steps and seeds) or any(len(seed) != len(steps) for seed in seeds):
            raise ValueError("curves do not have a value for each step and seed")
        case Signature(parameters=found) if {each.kind for each in found} - {"keyword"} - POSITIONAL - VARIADIC:
            raise ValueError("a parameter is of no kind that there is")
        case Cost(values=()):
            raise ValueError("a cost was never measured")
    return value


_hints = functools.cache(get_type_hints)
_NO_JSON_NUMBERS = ("nan", "inf", "-inf")


def _read(annotation: Any, value: Any) -> Any:  # noqa: ANN401 - a type, and anything that JSON can hold
    """A value of an annotated type out of plain data.

    Raises:
        KeyError, TypeError, ValueError: it is of another type.
    """
    if get_origin(annotation) is tuple:
        return tuple(_read(get_args(annotation)[0], item) for item in _checked(list, value))
    if isinstance(annotation, types.UnionType):  # a type, or None
        return None if value is None else _read(get_args(annotation)[0], value)
    if dataclasses.is_dataclass(annotation):
        hints = _hints(annotation)  # type: ignore[arg-type]
        fields = {name: _read(hints[name], item) for name, item in _checked(dict, value).items()}
        return annotation(**fields)  # type: ignore[operator]
    if issubclass(annotation, enum.Enum):
        return annotation(value)
    if isinstance(value, bool) and annotation is not bool:
        raise TypeError(f"{value} is not {annotation}")
    if annotation is float:
        return float(value if value in _NO_JSON_NUMBERS else _checked(int | float, value))
    return _checked(annotation, value)


def _checked(expected: Any, value: Any) -> Any:  # noqa: ANN401
    if not isinstance(value, expected):
        raise TypeError(f"{type(value).__name__} is not {expected}")
    return value
