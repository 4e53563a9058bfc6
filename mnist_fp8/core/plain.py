"""Values as JSON can hold them."""

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
