"""Patterns of names: of entries, differences and tests."""

import functools
import re


def matches(pattern: str, name: str) -> bool:
    """Whether a name fits a pattern: ``*`` stands for any text, slashes included; all else means itself.

    Brackets and question marks are part of many names, so they have no meaning of their own, unlike in ``fnmatch``.
    """
    return _expression(pattern).fullmatch(name) is not None


@functools.cache
def _expression(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)
