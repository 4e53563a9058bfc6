"""uv, which makes environments; its failures in one line."""

import re
import tempfile
from pathlib import Path

from mnist_fp8.core.errors import EnvError
from mnist_fp8.gate.releases.processes import MAKING_TIMEOUT_S, Ended, execute, inherited

_UNREACHABLE = "the package index cannot be reached: connect to the network, and run the same again"
_KNOWN_REASONS = (
    (r"No space left on device", "the disk is full: free some space, and run the same again"),
    (r"error sending request|network was disabled|timed out", _UNREACHABLE),
    (r"there is no version of ([^\s,]+)", r"the package index has no \1"),
)


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
        raise EnvError(f"{what} cannot be made: {_reason(ended)}")
    return ended.out


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
