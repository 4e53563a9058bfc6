"""Runs in a process group of their own, of which nothing is left afterwards."""

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO

import filelock

from mnist_fp8.core import model, variables, xla_flags
from mnist_fp8.core.errors import ConfigError, EnvError

_OF_ANOTHER_PYTHON = ("PYTHON", "PYTEST_", "VIRTUAL_ENV")
OF_EVERY_RUN: Mapping[str, str] = MappingProxyType(
    {
        "PYTHONSAFEPATH": "1",  # the working folder is not on the path
        "PYTHONUTF8": "1",  # whatever the locale
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # what the suite does not name changes nothing
    }
)
MAKING_TIMEOUT_S = 1800
_POLL_S = 0.5
_GRACE_S = 5


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        code: exit code; negative is the signal that ended it.
        out: what it printed on standard output; empty if that went to a file.
        err: the same of standard error.
        seconds: how long it took.
        timed_out: it was ended because its time was over.
    """

    code: int
    out: str
    err: str
    seconds: float
    timed_out: bool


_STOPPED = threading.Event()

_RUNNING: list[str] = []
"""Programs that run now, in all threads."""
_ALONE = threading.RLock()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Have no other thread run anything meanwhile."""
    with _ALONE:
        while _RUNNING and not _STOPPED.is_set():
            time.sleep(_POLL_S)
        yield


def stop_all() -> None:
    """End the runs of all threads, now and from now on: in each of them `KeyboardInterrupt` is raised.

    Ctrl-C interrupts the main thread only; whoever runs environments in others calls this then.
    """
    _STOPPED.set()


def execute(
    command: Sequence[str], *, cwd: Path, timeout: float, environ: Mapping[str, str], output: Path | None = None
) -> Ended:
    """Run a command in a process group of its own, of which nothing is left afterwards, however it ends."""
    with contextlib.ExitStack() as files:
        with _ALONE:
            _RUNNING.append(command[0])
        files.callback(_RUNNING.remove, command[0])
        out: IO[bytes] = files.enter_context(output.open("wb")) if output else _temporary(files)
        err = out if output else _temporary(files)
        begin = time.monotonic()
        process = subprocess.Popen(  # noqa: S603 - a command of ours, or one that the user gave to be run
            command, cwd=cwd, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
        )
        try:
            ended_itself = _wait(process, begin + timeout)
        finally:
            _end(process)
        if _STOPPED.is_set():
            raise KeyboardInterrupt
        texts = ("", "") if output else (_text(out), _text(err))
        return Ended(process.returncode, *texts, time.monotonic() - begin, timed_out=not ended_itself)


def _wait(process: subprocess.Popen[bytes], deadline: float) -> bool:
    """Wait for the end; whether it came before the deadline, and before `stop_all`."""
    while time.monotonic() < deadline and not _STOPPED.is_set():
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(min(_POLL_S, max(deadline - time.monotonic(), 0)))
            return True
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a process group: politely if its first process still runs, then for certain."""
    with contextlib.suppress(ProcessLookupError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE_S)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def inherited() -> dict[str, str]:
    """Our own environment variables, for programs that are not ours: without what is meant for this Python and JAX."""
    inherited = xla_flags.without_ours(os.environ)
    return {name: value for name, value in inherited.items() if not name.startswith(_OF_ANOTHER_PYTHON)}


def closed(own: Mapping[str, str]) -> dict[str, str]:
    """The environment variables of a run of ours: those of a known list, and what is set for it.

    A model is named by us alone, with a digest of its code: what the shell says of one is dropped.

    Raises:
        ConfigError: the flags of XLA are those of a file, which no result would be kept for.
    """
    if xla_flags.names_file(os.environ):
        raise ConfigError(
            f"{xla_flags.VARIABLE} is {os.environ[xla_flags.VARIABLE]!r}, the name of a file with flags; put the flags"
            " themselves into it: a result is kept for them"
        )
    shell = {name: value for name, value in os.environ.items() if name not in model.VARIABLES}
    return variables.passed_on(xla_flags.without_ours(shell)) | dict(OF_EVERY_RUN) | dict(own)


def _temporary(files: contextlib.ExitStack) -> IO[bytes]:
    """A file and not a pipe, which a grandchild that goes on could keep open."""
    return files.enter_context(tempfile.TemporaryFile())


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn the errors of disk and lock into one line."""
    try:
        yield
    except filelock.Timeout:
        raise EnvError(
            f"{what}: another process has been making it for {MAKING_TIMEOUT_S} s; try again later"
        ) from None
    except OSError as error:
        raise EnvError(f"{what} cannot be made or run: {error.strerror or error}{_named(error)}") from error


def _named(error: OSError) -> str:
    return f": {error.filename}" if error.filename else ""
