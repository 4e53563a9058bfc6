"""What the commands share: exit codes, options, and folders to write to. Importing it costs nothing."""

# ruff: noqa: T201 - a command prints

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from mnist_fp8.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mnist_fp8.compare import Comparison
    from mnist_fp8.records import Judged

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - it has no public name
OK, DID_NOT_HOLD, COULD_NOT_RUN, NOTHING_VERIFIED, CHANGED, INTERRUPTED = 0, 1, 2, 3, 4, 130


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
    write_files(folder, files)


def write_files(folder: Path, files: "Mapping[str, str]") -> None:
    """Write files into a folder, and say where.

    Raises:
        ConfigError: they cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            replace_file(folder / file, content.encode())
    except OSError as error:
        raise ConfigError(f"results cannot be written to {folder}: {error}") from error
    print()
    for file in files:
        print(f"written  {folder / file}")


# --- commands that compare -----------------------------------------------------------------------------------------

VERDICT_CODES = "exit codes: 0 SAFE, 1 BROKEN, 2 it could not be done, 3 UNVERIFIED, 4 CHANGED"


def add_only(parser: argparse.ArgumentParser) -> None:
    """Add ``--only``."""
    parser.add_argument(
        "--only",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY",
        help="only what these keys name, measured anew, such as numerics, variables/BF16 or 'api/*autocast' (all)",
    )


def add_policy(parser: argparse.ArgumentParser) -> None:
    """Add ``--policy``."""
    parser.add_argument(
        "--policy", type=Path, metavar="FILE", help="TOML file with differences that are accepted (default: none)"
    )


def verdict_code(comparison: "Comparison") -> int:
    """The exit code of a verdict."""
    codes = {"SAFE": OK, "BROKEN": DID_NOT_HOLD, "UNVERIFIED": NOTHING_VERIFIED, "CHANGED": CHANGED}
    return codes[comparison.verdict.value]


def show_verdict(comparison: "Comparison", folder: Path | None) -> None:
    """Print a comparison, and write its report if a folder is given: the page, its other forms and both records.

    Raises:
        ConfigError: it cannot be written.
    """
    from rich.console import Console  # noqa: PLC0415

    from mnist_fp8 import verdict_report  # noqa: PLC0415

    console = Console(highlight=False, markup=False, emoji=False)
    for part in verdict_report.terminal(comparison):
        console.print(part)
    if folder is None:
        return
    records = {"old.json": comparison.old, "new.json": comparison.new}
    write_files(
        folder,
        {
            "upgrade.md": verdict_report.markdown(comparison),
            "upgrade.html": verdict_report.html(comparison),
            "upgrade.json": verdict_report.as_json(comparison),
            "junit.xml": verdict_report.junit(comparison),
            **{
                name: json.dumps(record.to_json(), indent=1, allow_nan=False) + "\n" for name, record in records.items()
            },
        },
    )
