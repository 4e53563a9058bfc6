"""Source of Python as trees: of a file, or of the cells of a notebook, in which IPython's own commands are blanked.

The standard library's parser reads 130,000 lines a second; astroid, parso and libcst read about 10,000, and libcst's
scopes 1,300. They read newer grammar than the running Python's, too: what that has of types and exceptions is written
in older grammar before it is parsed, and a line with a newer f-string is left out, and named. A file that cannot be
parsed then is named, and counts as not looked at.
"""

import ast
import dataclasses
import json
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from mnist_fp8.gate.uses.sources import Kind, Source, UnreadableError, decode
from mnist_fp8.gate.uses.use import Place

_NEW_LINE = re.compile(r"\r\n|\r|\n")
_COMMAND = re.compile(r"^([ \t]*)(?:[%!?]|[\w.]+\?{1,2}[ \t]*$|[\w., \t]+=[ \t]*[%!]).*", re.MULTILINE)
"""A line that IPython runs: ``%magic``, ``!command``, ``name?``, ``files = !ls``."""
_BRACKETS = r"\[[^\[\]]*(?:\[[^\[\]]*\][^\[\]]*)*\]"
_GENERIC = re.compile(rf"^([ \t]*(?:(?:async[ \t]+)?def|class)[ \t]+\w+[ \t]*)({_BRACKETS})", re.MULTILINE)
_TYPE = re.compile(rf"^([ \t]*)(type[ \t]+)(\w+)([ \t]*(?:{_BRACKETS})?[ \t]*)=", re.MULTILINE)
_EXCEPT = re.compile(r"^([ \t]*)except[ \t]([\w.]+(?:[ \t]*,[ \t]*[\w.]+)+)[ \t]*:", re.MULTILINE)
_FORMATTED = re.compile(r"([ \t]*).*\b[fFrRtT]{1,2}[\"']")
"""A line with an f-string or t-string, which may hold quotes and backslashes since Python 3.12."""
_MOST_LEFT_OUT = 20
_OF_PYTHON = {"time", "timeit", "capture", "prun", "python", "python3"}
"""Magics over a cell of Python."""


@dataclasses.dataclass(frozen=True)
class Part:
    """A file of Python, or a cell of a notebook.

    Attributes:
        tree: its syntax tree.
        lines: its lines, as Python counts them.
        shown: the file, as the user named its folder.
        cell: of a notebook, from 1; 0 of a file.
    """

    tree: ast.Module
    lines: list[str]
    shown: str
    cell: int = 0

    def place(self, node: ast.AST) -> Place:
        """Where a node begins."""
        line = int(getattr(node, "lineno", 1))
        text = self.lines[line - 1] if line <= len(self.lines) else ""
        column = int(getattr(node, "col_offset", 0))  # in bytes
        if not text.isascii():
            column = len(text.encode()[:column].decode(errors="replace"))
        return Place(self.shown, line, column + 1, self.cell, text.strip())


@dataclasses.dataclass(frozen=True)
class Broken:
    """A cell or file, or a line of it, that does not parse.

    Attributes:
        place: where the parser stopped.
        reason: what it says.
        text: what was to be parsed.
    """

    place: Place
    reason: str
    text: str


def parse(source: Source, content: bytes) -> Iterator[Part | Broken]:
    """The trees of a file.

    Raises:
        UnreadableError: it is no text, or no notebook.
    """
    if source.kind is Kind.NOTEBOOK:
        for number, text in _cells(decode(content, is_python=False)):
            yield from _parse(text, source.shown, number)
    else:
        yield from _parse(decode(content, is_python=True), source.shown)


def _parse(text: str, shown: str, cell: int = 0) -> Iterator[Part | Broken]:
    lines = _NEW_LINE.split(text)
    try:
        tree, left_out = _parsed(text)
    except SyntaxError as error:
        yield Broken(_place(lines, shown, cell, error), f"this Python cannot parse it: {error.msg}", text)
    except (RecursionError, MemoryError):
        yield Broken(Place(shown, 0, cell=cell), "it is nested too deeply", text)
    except ValueError as error:  # null bytes
        yield Broken(Place(shown, 0, cell=cell), f"this Python cannot parse it: {error}", text)
    else:
        yield Part(tree, lines, shown, cell)
        for each in left_out:
            yield Broken(_place(lines, shown, cell, each), f"this Python cannot parse the line: {each.msg}", text)


def _place(lines: Sequence[str], shown: str, cell: int, error: SyntaxError) -> Place:
    line = min(error.lineno or 1, len(lines))
    return Place(shown, line, max(error.offset or 1, 1), cell, lines[line - 1].strip())


def _parsed(text: str) -> tuple[ast.Module, list[SyntaxError]]:
    """The tree of a source, and why lines of it are left out."""
    try:
        return _tree(text), []
    except SyntaxError:
        text = _in_older_grammar(text)
    left_out: list[SyntaxError] = []
    while True:
        try:
            return _tree(text), left_out
        except SyntaxError as error:
            lines = text.splitlines(keepends=True)
            line = (error.lineno or 1) - 1
            found = _FORMATTED.match(lines[line]) if line < len(lines) and len(left_out) < _MOST_LEFT_OUT else None
            if found is None:
                raise
            left_out.append(error)
            lines[line] = f"{found[1]}pass\n"
            text = "".join(lines)


def _in_older_grammar(text: str) -> str:
    """What Python 3.12 and later have of types and exceptions, as Python 3.11 has it; columns stay."""
    text = _GENERIC.sub(lambda match: match[1] + " " * len(match[2]), text)
    text = _TYPE.sub(lambda match: match[1] + match[3] + " " * (len(match[2]) + len(match[4])) + "=", text)
    return _EXCEPT.sub(r"\1except(\2):", text)


def _tree(text: str) -> ast.Module:
    with warnings.catch_warnings(action="ignore"):  # of escapes and comparisons that its author should mend
        return ast.parse(text)


def _cells(text: str) -> Iterator[tuple[int, str]]:
    """The number and source of each cell of Python."""
    try:
        notebook = json.loads(text)  # outputs of cells may hold NaN
    except (ValueError, RecursionError) as error:
        raise UnreadableError("it is no notebook: it holds no JSON") from error
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise UnreadableError("it is no notebook: it has no cells")
    if not _is_python(notebook):
        return
    for number, cell in enumerate(cells, 1):
        if isinstance(cell, dict) and cell.get("cell_type") == "code":
            source = cell.get("source", "")
            yield number, _without_commands(source if isinstance(source, str) else "".join(map(str, source or ())))


def _is_python(notebook: dict[str, Any]) -> bool:
    language = notebook
    for key in ("metadata", "kernelspec", "language"):
        language = language.get(key, {}) if isinstance(language, dict) else {}
    return not isinstance(language, str) or language.lower() == "python"


def _without_commands(text: str) -> str:
    """A cell in which each command of IPython is an empty statement, so that lines keep their numbers."""
    magic = re.match(r"\s*%%(\w+)", text)
    if magic and magic[1] not in _OF_PYTHON:
        return ""
    try:
        _tree(text)
    except SyntaxError:
        return _COMMAND.sub(r"\1pass", text)
    except (ValueError, RecursionError, MemoryError):
        pass
    return text
