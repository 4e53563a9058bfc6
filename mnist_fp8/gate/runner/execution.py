"""A run in an environment, and why it ended before its end."""

import contextlib
import re
import signal
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from mnist_fp8.core import limits
from mnist_fp8.core.capability import ONLY_ON_HOST
from mnist_fp8.core.errors import EnvError
from mnist_fp8.gate.releases import contents, staging
from mnist_fp8.gate.releases.environments import Environment
from mnist_fp8.gate.releases.interpreters import IMPORTED
from mnist_fp8.gate.releases.processes import Ended
from mnist_fp8.gate.runner import model
from mnist_fp8.record.names import PACKAGE

# What the suite's environment lacks, as opposed to what Transformer Engine does.
_OURS = re.compile(
    r"Read-only file system"
    r"|No module named '?(?:pytest|xdist|execnet|hypothesis|mnist_fp8)\b"
    rf"|compute capability [\d.]+ {ONLY_ON_HOST}"
    r"|error: unrecognized arguments|ERROR: .*(?:file or directory not found|minversion|requires pytest-)"
)
_NO_ROOM = re.compile(
    r"No space left on device|Disk quota exceeded|File too large|Too many open files"
    r"|Cannot allocate memory|MemoryError|bad_alloc|RESOURCE_EXHAUSTED|LLVM ERROR: out of memory"
    r"|Resource temporarily unavailable|can't start new thread"
)
_OF_THE_SUITE = ("mnist_fp8", "conftest", "test_")
_OF_A_CRASH = frozenset(
    {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS}
)
"""Signals that a process gets for what it does itself; all others come from a person, a timer or a limit."""
_USAGE = 4


def run(
    environment: Environment, command: Sequence[str], suite: Path, timeout: float, log: Path | None
) -> tuple[Ended, str]:
    """Run a command in an environment, and keep what it printed.

    Returns:
        How it ended, and all that it printed.

    Raises:
        EnvError: it cannot be run; or the suite, the installation or the user's model was edited meanwhile, or another
            command made the suite or the environment anew.
    """
    marks = suite / "conftest.py", environment.marker
    before = [contents.seen(mark) for mark in marks]
    try:
        ended = environment.run(command, cwd=suite, timeout=timeout)
        printed = f"{ended.out}\n{ended.err}"
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(printed, encoding="utf-8")
    except OSError as error:
        where = environment.edition.label
        raise EnvError(
            f"the claims cannot be run for {where}: {error}; run it again to make its environment anew"
        ) from error
    for mark, seen in zip(marks, before, strict=True):
        if contents.seen(mark) != seen:
            raise EnvError(
                f"{environment.edition.label} was not judged: {mark.parent} was made anew by another command meanwhile,"
                " because something had edited it; run the same again"
            )
    staging.check_unchanged(suite)
    environment.check_unedited()
    model.check_unedited(environment.variables)
    return ended, printed


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder, in which a run leaves its results.

    Raises:
        EnvError: somebody else cleaned it meanwhile, and with it perhaps results.
    """
    with tempfile.TemporaryDirectory() as folder:
        mark = Path(folder) / "in use"
        mark.touch()
        yield Path(folder)
        if not mark.exists():
            raise EnvError(
                f"temporary files of the run were removed from {Path(folder).parent} meanwhile: no result counts; set"
                " TMPDIR to a folder that nothing cleans, and run the same again"
            )


def problem_of(ended: Ended, printed: str, timeout: float, *, finished: bool) -> str:
    """Why the run ended before its end, in one line; empty if it did not.

    Args:
        ended: how it ended.
        printed: all that it printed.
        timeout: seconds that it had.
        finished: whether its results and its exit code say that it came to its end.

    Raises:
        EnvError: the reason is not Transformer Engine.
    """
    if ended.timed_out:
        return f"it hung: not done after {timeout:.0f} s"
    if ended.code < 0:
        name = _signal_name(-ended.code)
        if -ended.code not in _OF_A_CRASH:
            hint = "; perhaps memory ran out: try fewer --jobs" if name == "SIGKILL" else ": run it again"
            raise EnvError(f"the run was ended from outside ({name}){hint}")
        refuse_crash_for_want_of_room(printed)
        return f"it crashed: {' or '.join(fatal(printed)) or name}"
    if finished:
        return ""
    refuse_for_want_of_room([printed])
    ours = _OURS.search(printed)
    if ours:
        raise EnvError(f"the suite cannot run: {_line_of(printed, ours.start())}")
    if ended.code == _USAGE:
        said = re.search(r"^ERROR: (.+)$", ended.err, re.MULTILINE)
        return said[1] if said else last_line(ended.err)
    return f"it did not come to its end (exit code {ended.code}): {last_line(printed)}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # one of the signals that have no name of their own
        return f"signal {number}"


def _line_of(text: str, position: int) -> str:
    return text[text.rfind("\n", 0, position) + 1 :].partition("\n")[0].strip()


def last_line(text: str) -> str:
    """The last line of a program's output that is not empty."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it printed nothing")


def fatal(printed: str) -> list[str]:
    """What Python's fault handler said of each process that it saw crash."""
    return re.findall(r"^Fatal Python error: (.+)$", printed, re.MULTILINE)


def refuse_for_want_of_room(reasons: Iterable[str]) -> None:
    """Blame nothing on Transformer Engine where disk or memory ran out.

    Raises:
        EnvError: one of the reasons for a failure says that they did.
    """
    for reason in reasons:
        if found := _NO_ROOM.search(reason):
            line = _line_of(reason, found.start())
            raise EnvError(f"disk or memory ran out: {line}; make room or try fewer --jobs, and run the same again")


def refuse_crash_for_want_of_room(printed: str) -> None:
    """Blame no crash on Transformer Engine where room ran out, or may have: XLA and LLVM end without an exception then.

    Args:
        printed: all that the crashed processes printed.

    Raises:
        EnvError: they say that it did, or the shell limits what each process may have.
    """
    refuse_for_want_of_room([printed])
    refuse_death_under_limits()


def refuse_death_under_limits() -> None:
    """Blame no process's end on Transformer Engine that a limit of the shell may have brought about.

    Raises:
        EnvError: the shell limits the memory of each process, or its time.
    """
    if found := limits.of_shell():
        raise EnvError(
            f"a process of the run died under {' and '.join(found)}, which may be why: lift that limit, and run the"
            " same again"
        )


def check_imports(environment: Environment, stage: Path, imported: Mapping[str, str]) -> None:
    """See that what a process imported is what was to be judged, by the suite that judges.

    Args:
        environment: where it ran.
        stage: folder with the suite.
        imported: files by module, as the process says.

    Raises:
        EnvError: it is not, or the process does not say.
    """
    for name in ("transformer_engine", "mnist_fp8"):
        if name not in imported:
            raise EnvError(f"the run of {environment.edition.label} does not say where its {name} was; run it again")
    for name, place in imported.items():
        first = name.partition(".")[0]
        if first == PACKAGE:
            expected = [environment.package]
        elif first.startswith(_OF_THE_SUITE):
            expected = [stage]
        else:
            expected = list(environment.folders) if first in IMPORTED else []
        if expected and not any(_lies_in(Path(place), folder) for folder in expected):
            raise EnvError(
                f"{environment.edition.label} was not judged: its run imported {name} from {place}, and not from"
                f" {expected[0]}; look for what puts the former on the path of every Python"
            )


def _lies_in(place: Path, folder: Path) -> bool:
    """Whether a file is a folder's, or that very file; links count as what they lead to, too."""
    return place.is_relative_to(folder) or place.resolve().is_relative_to(folder.resolve())
