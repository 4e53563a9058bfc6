"""Files that somebody else may have written, read with care: kind, size, encoding, depth, and what they repeat."""

import codecs
import json
import math
import stat
import tomllib
from pathlib import Path
from typing import Any

LARGEST = 64 * 2**20
"""Bytes of a file. A record of everything has about one megabyte."""
_ENCODINGS = {  # the longer marks first: that of UTF-32 begins like that of UTF-16
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_text(path: Path) -> str:
    """The text of a file, in UTF-8 or in the encoding that its mark names.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no file of text, or too large; the message says which.
    """
    kind = path.stat().st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):  # reading a folder raises an OSError of its own
        raise ValueError("it is no regular file")
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST >> 20} MiB")
    encoding = encoding_of(content)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        raise ValueError(f"it is no text in {encoding.removesuffix('-sig').upper()}") from None


def encoding_of(content: bytes) -> str:
    """The encoding that the mark of a text names; UTF-8 without one."""
    return next((name for mark, name in _ENCODINGS.items() if content.startswith(mark)), "utf-8")


def read_toml(path: Path) -> dict[str, Any]:
    """What a TOML file holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no TOML file; the message says why.
    """
    try:
        return tomllib.loads(read_text(path))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_json(text: str) -> Any:  # noqa: ANN401 - whatever JSON can hold
    """Read JSON in which no name comes twice and every number is finite.

    Raises:
        ValueError: it is something else; the message says what.
    """
    try:
        return json.loads(text, object_pairs_hook=_without_repetition, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for name, value in pairs:
        if name in document:
            raise ValueError(f"{name!r} comes twice")
        document[name] = value
    return document


def _finite(digits: str) -> float:
    if not math.isfinite(value := float(digits)):
        raise ValueError(f"{digits} is no finite number")
    return value
