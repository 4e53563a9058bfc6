"""Patterns of names: of entries, differences and tests."""

import re


def matches(pattern: str, name: str) -> bool:
    """Whether a name fits a pattern: ``*`` stands for any text, slashes included; all else means itself.

    Brackets and question marks are part of many names, so they have no meaning of their own, unlike in ``fnmatch``.
    """
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name, re.DOTALL) is not None
