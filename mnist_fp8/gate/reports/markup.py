"""Pieces of Markdown, HTML and XML that all reports share."""

import re
from collections.abc import Sequence

import jinja2


def counted(number: int, noun: str) -> str:
    """``1 test``, ``2 tests``."""
    return f"{number} {noun}" if number == 1 else f"{number:,} {noun}s"


def row(cells: Sequence[str]) -> str:
    """A row of a Markdown table; what the cells say is `literal` already."""
    return f"| {' | '.join(cells)} |"


def literal(text: str) -> str:
    """Text that Markdown leaves alone, in the cell of a table, too."""
    return re.sub(r"([\\`*_{}\[\]<>#|&~])", r"\\\1", text)


def template(name: str) -> jinja2.Template:
    """A template of the package; what is put into it is escaped."""
    loader = jinja2.PackageLoader("mnist_fp8.gate.reports")
    return jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    ).get_template(name)


def xml(text: str) -> str:
    """Without the control characters that XML has no way to write."""
    return re.sub(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]", "�", text)


def clean(text: str) -> str:
    """One line without characters that do something to a terminal, or that XML has no way to write."""
    return "".join(each if each.isprintable() else "�" for each in " ".join(text.split()))


def cut(text: str, room: int) -> str:
    """A text in that many characters."""
    return text if len(text) <= room else text[: room - 1] + "…"
