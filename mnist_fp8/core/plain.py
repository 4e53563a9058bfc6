"""Values as JSON can hold them, and text as a terminal can show it."""

import enum
import math
from typing import Any


def plain(value: Any) -> Any:  # noqa: ANN401 - whatever a record or a report holds
    """Plain data: enums are their values, and numbers that JSON does not know are words."""
    match value:
        case dict():
            return {name: plain(inner) for name, inner in value.items()}
        case list() | tuple():
            return [plain(inner) for inner in value]
        case enum.Enum():
            return value.value
        case float() if not math.isfinite(value):
            return str(value)
    return value


def clean(text: str) -> str:
    """One line without characters that do something to a terminal, or that XML has no way to write."""
    return "".join(each if each.isprintable() else "�" for each in " ".join(text.split()))


def encodable(value: Any) -> Any:  # noqa: ANN401 - plain data
    """The same with each half of a pair of surrogates written out: no encoding has it, and no other process gets it."""
    match value:
        case str():
            return value.encode(errors="backslashreplace").decode()
        case dict():
            return {encodable(name): encodable(inner) for name, inner in value.items()}
        case list() | tuple():
            return type(value)(map(encodable, value))
    return value
