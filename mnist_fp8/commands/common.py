"""What the commands share: exit codes, options, and folders to write to. Importing it costs nothing."""

# ruff: noqa: T201 - a command prints

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from mnist_fp8.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mnist_fp8.records import Judged

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - it has no public name
OK, DID_NOT_HOLD, COULD_NOT_RUN, NOTHING_VERIFIED, INTERRUPTED = 0, 1, 2, 3, 130


def parse_folder(text: str) -> Path:
    """Parse a folder's name.

    Raises:
        argparse.ArgumentTypeError: it is empty, as an unset shell variable is.
    """
    if not text:
        raise argparse.ArgumentTypeError("the name of the folder is empty")
    return Path(text)


def check_output(output: Path) -> None:
    """Refuse an output folder that could not be written to, before any work."""
    try:
        existing = next(path for path in (output, *output.parents) if path.exists())
    except OSError as error:  # such as a name that is too long
        raise ConfigError(f"output {output} cannot be a folder: {error.strerror}") from error
    if not existing.is_dir():
        raise ConfigError(f"output {output} cannot be a folder: {existing} is a file")
    if not os.access(existing, os.W_OK):
        raise ConfigError(f"output {output} cannot be written: no permission in {existing}")


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that it is never seen half-written."""
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(path)


def parse_count(text: str) -> int:
    """Parse a number of things.

    Raises:
        argparse.ArgumentTypeError: it is not 1 or more.
    """
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


# --- commands that judge -------------------------------------------------------------------------------------------


def add_claims(parser: argparse.ArgumentParser) -> None:
    """Add ``--claim``."""
    parser.add_argument(
        "--claim", nargs="+", action="extend", default=[], metavar="NAME", help="only these claims (default: all)"
    )


def add_output(parser: argparse.ArgumentParser, description: str) -> None:
    """Add ``--output``."""
    parser.add_argument("-o", "--output", type=parse_folder, metavar="DIR", help=description)


def add_rerun(parser: argparse.ArgumentParser) -> None:
    """Add ``--rerun``."""
    parser.add_argument("--rerun", action="store_true", help="judge again what was judged before")


def exit_code(judged: "Sequence[Judged]") -> int:
    """What the results come to: a failed environment goes before a broken claim, and that before nothing verified."""
    from mnist_fp8.records import Verdict  # noqa: PLC0415 - `--help` needs none of it

    found = [each.verification for each in judged if each.verification]
    if len(found) < len(judged):
        return COULD_NOT_RUN
    if any(each.count(Verdict.BROKEN) for each in found):
        return DID_NOT_HOLD
    held = sum(each.count(Verdict.HOLDS) + each.count(Verdict.KNOWN) for each in found)
    return OK if held else NOTHING_VERIFIED


def report_errors(judged: "Sequence[Judged]") -> None:
    """Print a line for each Transformer Engine that could not be judged."""
    for each in judged:
        if each.error:
            print(f"mnist-fp8: error: TE {each.te}: {each.error}", file=sys.stderr)


def write_reports(folder: Path, name: str, judged: "Sequence[Judged]") -> None:
    """Write all forms of the report, and say where.

    Raises:
        ConfigError: they cannot be written.
    """
    from mnist_fp8 import report  # noqa: PLC0415

    files = {
        f"{name}.md": report.markdown(judged),
        f"{name}.html": report.html(judged),
        f"{name}.json": report.as_json(judged),
        "junit.xml": report.junit(judged),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            replace_file(folder / file, content.encode())
    except OSError as error:
        raise ConfigError(f"results cannot be written to {folder}: {error}") from error
    print()
    for file in files:
        print(f"written  {folder / file}")
