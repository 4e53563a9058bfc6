"""The ``mnist-fp8`` command.

Each exit code means one thing, whatever the command; `EXIT_CODES` says what. ``run`` alone ends as its command does.
"""

import argparse
import contextlib
import errno
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from mnist_fp8 import __version__
from mnist_fp8.cli import (
    benchmark,
    bisect,
    compare,
    doctor,
    matrix,
    measure,
    migrate,
    run,
    stacks,
    train,
    upgrade,
    uses,
    verify,
)
from mnist_fp8.cli.github import annotate
from mnist_fp8.cli.output import COULD_NOT_RUN, EXIT_CODES, INTERRUPTED, UNREAD
from mnist_fp8.core.errors import AnswerError
from mnist_fp8.core.plain import clean

_MOST = 2_000
"""Characters of a line that says why something cannot be done: it may quote a file of any size."""
_NOT_PRINTED = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EIO)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line. An empty value is wrong everywhere: it comes from a variable that is not set."""

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:  # noqa: ANN401 - as argparse has it
        if not arg_string and action.nargs not in (argparse.REMAINDER, argparse.PARSER):
            raise argparse.ArgumentError(action, "the value is empty; is a shell variable not set?")
        return super()._get_value(action, arg_string)

    def error(self, message: str) -> NoReturn:
        self.exit(COULD_NOT_RUN, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    _print_whatever_the_encoding()
    try:
        with _ended_like_interrupted():
            try:
                return _answer(argv)
            finally:  # not when Python ends, which would find a closed pipe then, and end with another code
                print(end="", flush=True)
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):  # the terminal may be what is gone
            print("mnist-fp8: interrupted before all results were written", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        if error.errno not in _NOT_PRINTED:
            return _failed()
        # What is left to be printed is not tried again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:
            return UNREAD
        print(f"mnist-fp8: error: it cannot print or write: {error.strerror}", file=sys.stderr)
        return COULD_NOT_RUN
    except Exception:  # noqa: BLE001 - whatever it is, the exit code has to say so
        return _failed()


def _failed() -> int:
    """A defect of ours, which must not look like an answer: Python itself would end with 1."""
    traceback.print_exc()
    return COULD_NOT_RUN


def _answer(argv: Sequence[str] | None) -> int:
    """Run the command; what cannot be done is one line."""
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # rich ends so, with a code that means BROKEN
            raise end.__context__ from None
        raise
    except AnswerError as error:
        message, code = str(error), error.exit_code
    except ModuleNotFoundError as error:
        if not error.name or error.name.startswith("mnist_fp8"):
            raise
        message, code = f"Python package {error.name} is missing: install mnist-fp8 again", COULD_NOT_RUN
    line = f"mnist-fp8: error: {clean(message)[:_MOST]}"
    print(line, file=sys.stderr)
    if getattr(args, "github", False):
        annotate("error", line)
    return code


def _print_whatever_the_encoding() -> None:
    """Have a character that the terminal's encoding lacks printed as a question mark: it is no reason to end."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


@contextlib.contextmanager
def _ended_like_interrupted() -> Iterator[None]:
    """Have what ends a job in CI, or a terminal, do what Ctrl-C does: children are ended, and what is done is kept."""
    if threading.current_thread() is not threading.main_thread():  # only that one may set a handler
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _parser() -> argparse.ArgumentParser:
    codes = ", ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items())
    parser = _Parser(
        prog="mnist-fp8", description="Verify Transformer Engine's FP8 training in JAX.", epilog=f"exit codes: {codes}"
    )
    parser.add_argument("--version", action="version", version=f"mnist-fp8 {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    for command in (
        upgrade,
        uses,
        migrate,
        train,
        verify,
        measure,
        compare,
        matrix,
        bisect,
        benchmark,
        run,
        stacks,
        doctor,
    ):
        command.add(commands)
    return parser
