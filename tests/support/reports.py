"""What each form of the report of a verdict says, as plain text."""

import io
import json
import re
from collections.abc import Callable
from html import unescape
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from mnist_fp8.gate.reports.verdict import files, html, markdown, pictures, terminal
from mnist_fp8.gate.reports.verdict.view import View
from mnist_fp8.gate.verdict.comparison import Comparison

NASTY = "a|b <script>alert(1)</script> \x1b[31m\x00 `c` @jax #12 [x](y) *d* _e_ &amp; \\| ~f~ \ud800"
CLEAN = "a|b <script>alert(1)</script> �[31m� `c` @jax #12 [x](y) *d* _e_ &amp; \\| ~f~ �"
"""What a hostile text has to look like in every form but JSON."""


def printed(comparison: Comparison, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(terminal.Screen(View.of(comparison)))
    return out.getvalue()


def of_terminal(comparison: Comparison) -> str:
    """What the terminal says, a command made whole from its parts."""
    text = " ".join(printed(comparison, 200).split())
    return text.replace(" --only ", f" {comparison.command('KEY').removesuffix('KEY')}")


def of_markdown(comparison: Comparison) -> str:
    return unescape(re.sub(r"<[^>]*>", "", rendered(markdown.markdown(View.of(comparison)))))


def rendered(text: str) -> str:
    """Markdown as GitHub makes HTML of it, as far as this page uses it."""
    return str(MarkdownIt("commonmark").enable("table").render(text))


def without_pictures(comparison: Comparison) -> str:
    """The page; drawing takes most of its time."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("training_curves", "trajectories", "errors_by_case", "error_distributions"):
            patch.setattr(pictures, name, lambda *_: [])
        return html.html(View.of(comparison))


def of_html(comparison: Comparison) -> str:
    """The text of the page."""
    page = re.sub(r"<(style|script).*?</\1>", "", without_pictures(comparison), flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", "", page)).split())


def of_junit(comparison: Comparison) -> str:
    root = ET.fromstring(files.junit(View.of(comparison)))  # noqa: S314 - our own
    return " ".join(" ".join([*each.attrib.values(), each.text or ""]) for each in root.iter())


def of_json(comparison: Comparison) -> str:
    def texts(value: Any) -> str:
        match value:
            case dict():
                return " ".join(map(texts, value.values()))
            case list():
                return " ".join(map(texts, value))
        return str(value)

    return texts(json.loads(files.as_json(View.of(comparison))))


FORMS: dict[str, Callable[[Comparison], str]] = {
    "terminal": of_terminal,
    "markdown": of_markdown,
    "html": of_html,
    "junit": of_junit,
    "json": of_json,
}


def lacks(text: str, *words: str) -> list[str]:
    """Words that a text does not have, however it is broken into lines."""
    flat = " ".join(text.split())
    return [word for word in words if " ".join(word.split()) not in flat]
