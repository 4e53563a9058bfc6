"""The ``mnist-fp8`` command.

Exit codes: 0 done, and what was verified holds; 1 it ran and did not hold (a claim or an upgrade is broken, training
diverged, or FP8 was not computed in FP8); 2 it could not run; 3 too little was verified; 4 an upgrade changes
something; 130 interrupted.
"""

import argparse
import contextlib
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from typing import NoReturn

from mnist_fp8 import __version__
from mnist_fp8.cli import benchmark, bisect, compare, doctor, matrix, measure, run, stacks, train, upgrade, verify
from mnist_fp8.cli.github import annotate
from mnist_fp8.cli.output import COULD_NOT_RUN, INTERRUPTED
from mnist_fp8.core.errors import AnswerError


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(COULD_NOT_RUN, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = _parser().parse_args(argv)
    try:
        with _ended_like_interrupted():
            code: int = args.run(args)
    except KeyboardInterrupt:
        print("mnist-fp8: interrupted before all results were written", file=sys.stderr)
        return INTERRUPTED
    except AnswerError as error:
        message = f"mnist-fp8: error: {' '.join(str(error).split())}"
        print(message, file=sys.stderr)
        if getattr(args, "github", False):
            annotate("error", message)
        return error.exit_code
    except Exception:  # noqa: BLE001 - whatever it is, the exit code has to say so
        # A defect of ours, which must not look like an answer: Python itself would end with 1.
        traceback.print_exc()
        return COULD_NOT_RUN
    return code


@contextlib.contextmanager
def _ended_like_interrupted() -> Iterator[None]:
    """Have SIGTERM, by which CI ends a job, do what Ctrl-C does: children are ended, and what is done is kept."""
    if threading.current_thread() is not threading.main_thread():  # only that one may set a handler
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="mnist-fp8", description="Verify Transformer Engine's FP8 training in JAX.")
    parser.add_argument("--version", action="version", version=f"mnist-fp8 {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    for command in (upgrade, train, verify, measure, compare, matrix, bisect, benchmark, run, stacks, doctor):
        command.add(commands)
    return parser
