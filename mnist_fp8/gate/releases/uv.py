"""uv, which makes environments; its failures in one line."""

import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mnist_fp8.core.errors import EnvError
from mnist_fp8.gate.releases.processes import MAKING_TIMEOUT_S, Ended, execute, inherited

_INDEX = "UV_DEFAULT_INDEX names another one; pip's settings do not count"
_UNREACHABLE = f"cannot be reached: connect to the network, and run the same again ({_INDEX})"
_NO_ANSWER = "error sending request|network was disabled|timed out"
_KNOWN_REASONS = (
    (r"No space left on device", "the disk is full: free some space, and run the same again"),
    # Words before `@`, which can be a password, are not shown.
    (
        rf"(?s)(?:Failed to fetch: `?|for url \()(\w+://)(?:[^/@\s]*@)?([^\s`)]+).*(?:{_NO_ANSWER})",
        rf"the package index \1\2 {_UNREACHABLE}",
    ),
    (_NO_ANSWER, f"the package index {_UNREACHABLE}"),
    (r"there is no version of ([^\s,]+)", rf"the package index has no \1 ({_INDEX})"),
)


class NoSolutionError(EnvError):
    """No packages fit what is asked for.

    Attributes:
        words: uv's reason.
    """

    def __init__(self, what: str, words: str) -> None:
        super().__init__(f"{what} cannot be made: {words}")
        self.words = words


def run(*arguments: str, what: str) -> str:
    """Run uv and return what it prints.

    Args:
        arguments: uv's.
        what: the thing to be made, for the message.

    Raises:
        EnvError: uv is missing or fails.
    """
    # Not where a pyproject.toml lies, whose settings uv would take.
    with tempfile.TemporaryDirectory() as folder:
        command = [_uv_binary(), *arguments, "--quiet"]
        ended = execute(command, cwd=Path(folder), timeout=MAKING_TIMEOUT_S, environ=inherited())
    if ended.code:
        if "No solution found" in ended.err:
            raise NoSolutionError(what, _reason(ended))
        raise EnvError(f"{what} cannot be made: {_reason(ended)}")
    return ended.out


def resolve(requirements: Sequence[str], *options: str, what: str, python: Path = Path(sys.executable)) -> str:
    """The packages that uv would install for some requirements and a Python, one a line.

    Raises:
        NoSolutionError: there are none.
        EnvError: uv is missing, or cannot ask the index.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "requirements.in"
        file.write_text("\n".join(requirements), encoding="utf-8")
        fixed = ("--no-header", "--no-annotate", "--python", str(python))
        return run("pip", "compile", *fixed, *options, str(file), what=what)


def _uv_binary() -> str:
    try:
        from uv import find_uv_bin  # noqa: PLC0415 - environments that are judged have none

        return find_uv_bin()
    except (ImportError, FileNotFoundError):
        raise EnvError("environments are made with uv, which is missing: pip install uv") from None


def _reason(ended: Ended) -> str:
    """Why uv failed, in one line."""
    if ended.timed_out:
        return f"uv took longer than {MAKING_TIMEOUT_S} s"
    for pattern, reason in _KNOWN_REASONS:
        if found := re.search(pattern, ended.err):
            return found.expand(reason)
    causes = ended.err.partition("cause: ")[2] or ended.err
    return " ".join(causes.partition("\n\n")[0].split()) or f"uv ended with {ended.code}"
