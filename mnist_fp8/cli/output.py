"""Exit codes, and where a command writes."""

# ruff: noqa: T201 - a command prints
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mnist_fp8.gate.runner.matrix import MatrixCell
    from mnist_fp8.gate.verdict.comparison import Comparison

OK, DID_NOT_HOLD, COULD_NOT_RUN, NOTHING_VERIFIED, CHANGED, PARTIAL, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130


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


def exit_code(cells: "Sequence[MatrixCell]") -> int:
    """What the results come to: a failed environment goes before a broken claim, and that before nothing verified."""
    from mnist_fp8.record.claims import ClaimStatus  # noqa: PLC0415 - `--help` needs none of it

    found = [cell.record.suite for cell in cells if cell.record and cell.record.suite]
    if len(found) < len(cells):
        return COULD_NOT_RUN
    if any(each.count(ClaimStatus.BROKEN) for each in found):
        return DID_NOT_HOLD
    held = sum(each.count(ClaimStatus.HOLDS) + each.count(ClaimStatus.KNOWN) for each in found)
    return OK if held else NOTHING_VERIFIED


def report_errors(cells: "Sequence[MatrixCell]") -> None:
    """Print a line for each Transformer Engine that could not be judged."""
    for cell in cells:
        if cell.error:
            print(f"mnist-fp8: error: TE {cell.label}: {cell.error}", file=sys.stderr)


def write_reports(folder: Path, name: str, cells: "Sequence[MatrixCell]") -> None:
    """Write all forms of the report, and say where.

    Raises:
        ConfigError: they cannot be written.
    """
    from mnist_fp8.gate.reports.claims import files  # noqa: PLC0415

    forms = {
        f"{name}.md": files.markdown(cells, f"mnist-fp8 {name}"),
        f"{name}.html": files.html(cells),
        f"{name}.json": files.as_json(cells),
        "junit.xml": files.junit(cells),
    }
    write_files(folder, forms)


def write_files(folder: Path, files: "Mapping[str, str | bytes]") -> None:
    """Write files into a folder, and say where.

    Raises:
        ConfigError: they cannot be written.
    """
    try:
        for file, content in files.items():
            replace_file(folder / file, content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise ConfigError(f"results cannot be written to {folder}: {error}") from error
    print()
    for file in files:
        print(f"written  {folder / file}")


VERDICT_CODES = "exit codes: 0 SAFE, 1 BROKEN, 2 it could not be done, 3 UNVERIFIED, 4 CHANGED, 5 PARTIAL"


def verdict_code(comparison: "Comparison") -> int:
    """The exit code of a verdict."""
    codes = {"SAFE": OK, "BROKEN": DID_NOT_HOLD, "UNVERIFIED": NOTHING_VERIFIED, "CHANGED": CHANGED, "PARTIAL": PARTIAL}
    return codes[comparison.verdict.value]


def show_verdict(comparison: "Comparison", folder: Path | None) -> None:
    """Print a comparison, and write its report if a folder is given: the page, its other forms and both records.

    Raises:
        ConfigError: it cannot be written.
    """
    from rich.console import Console  # noqa: PLC0415

    from mnist_fp8.gate.reports.verdict import files, html, markdown, terminal  # noqa: PLC0415

    console = Console(highlight=False, markup=False, emoji=False)
    for part in terminal.terminal(comparison):
        console.print(part)
    if folder is None:
        return
    records = {"old.json": comparison.old, "new.json": comparison.new}
    write_files(
        folder,
        {
            "upgrade.md": markdown.markdown(comparison),
            "upgrade.html": html.html(comparison),
            "upgrade.json": files.as_json(comparison),
            "junit.xml": files.junit(comparison),
            **{
                name: json.dumps(record.to_json(), indent=1, allow_nan=False) + "\n" for name, record in records.items()
            },
        },
    )
