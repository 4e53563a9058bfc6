"""A run in an environment, and why it ended before its end."""

import re
import signal
from collections.abc import Sequence
from pathlib import Path

from mnist_fp8.core.errors import EnvError
from mnist_fp8.gate.releases.environments import Environment
from mnist_fp8.gate.releases.processes import Ended

# What the suite's environment lacks, as opposed to what Transformer Engine does.
_OURS = re.compile(
    r"No space left on device|Disk quota exceeded|No module named '?(?:pytest|xdist|execnet|hypothesis|mnist_fp8)\b"
    r"|error: unrecognized arguments|ERROR: .*(?:file or directory not found|minversion|requires pytest-)"
)
_FINISHED = (0, 1, 5)
_USAGE = 4


def run(
    environment: Environment, command: Sequence[str], suite: Path, timeout: float, log: Path | None
) -> tuple[Ended, str]:
    """Run a command in an environment, and keep what it printed.

    Returns:
        How it ended, and all that it printed.

    Raises:
        EnvError: it cannot be run.
    """
    try:
        ended = environment.run(command, cwd=suite, timeout=timeout)
        printed = f"{ended.out}\n{ended.err}"
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(printed, encoding="utf-8")
    except OSError as error:
        where = environment.subject.label
        raise EnvError(
            f"the claims cannot be run for {where}: {error}; run it again to make its environment anew"
        ) from error
    return ended, printed


def problem_of(ended: Ended, printed: str, timeout: float, *, started: bool) -> str:
    """Why the run ended before its end, in one line; empty if it did not.

    Raises:
        EnvError: the reason is not Transformer Engine.
    """
    if ended.timed_out:
        return f"it hung: not done after {timeout:.0f} s"
    if ended.code == -signal.SIGKILL:
        raise EnvError("the run was killed from outside; perhaps memory ran out: try fewer --jobs")
    if ended.code < 0:
        return f"it crashed: {' or '.join(fatal(printed)) or signal.Signals(-ended.code).name}"
    if ended.code in _FINISHED and started:
        return ""
    ours = _OURS.search(printed)
    if ours:
        raise EnvError(f"the suite cannot run: {_line_of(printed, ours.start())}")
    if ended.code == _USAGE:
        said = re.search(r"^ERROR: (.+)$", ended.err, re.MULTILINE)
        return said[1] if said else last_line(ended.err)
    return f"it did not come to its end (exit code {ended.code}): {last_line(printed)}"


def _line_of(text: str, position: int) -> str:
    return text[text.rfind("\n", 0, position) + 1 :].partition("\n")[0].strip()


def last_line(text: str) -> str:
    """The last line of a program's output that is not empty."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it printed nothing")


def fatal(printed: str) -> list[str]:
    """What Python's fault handler said of each process that it saw crash."""
    return re.findall(r"^Fatal Python error: (.+)$", printed, re.MULTILINE)
