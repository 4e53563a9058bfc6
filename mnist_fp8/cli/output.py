"""Exit codes, and where a command writes."""

# ruff: noqa: T201 - a command prints
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mnist_fp8.gate.reports.verdict.view import View
    from mnist_fp8.gate.runner.matrix import MatrixCell

OK, DID_NOT_HOLD, COULD_NOT_RUN, NOTHING_VERIFIED, CHANGED, PARTIAL, INTERRUPTED, UNREAD = 0, 1, 2, 3, 4, 5, 130, 141
EXIT_CODES = {
    OK: "it is done, and what was verified holds",
    DID_NOT_HOLD: "it ran, and something did not hold: a claim or an upgrade is BROKEN, Transformer Engine does not "
    "work, no release fits your code, training diverged or was not in FP8",
    COULD_NOT_RUN: "it could not run; one line says why",
    NOTHING_VERIFIED: "too little was verified: UNVERIFIED",
    CHANGED: "an upgrade is CHANGED",
    PARTIAL: "only a part of an upgrade was looked at, and nothing differs in it: PARTIAL",
    INTERRUPTED: "it was interrupted",
    UNREAD: "nobody read what it printed",
}
"""What each exit code means, whatever the command. Only ``run`` ends as the command that it runs."""

RUNS = Path("runs")
"""Where results go if no folder is named."""


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


def new_folder(name: str) -> Path:
    """Make a folder in ``runs``, named by the time: none that exists, since two runs may end within a second.

    Raises:
        ConfigError: it cannot be made.
    """
    first = folder = RUNS / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
    number = 1
    while True:
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
            folder = first.with_name(f"{first.name}-{number}")
        except OSError as error:
            raise ConfigError(f"results cannot be written to {folder}: {error.strerror}") from error
        else:
            return folder


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


def write_reports(folder: Path, name: str, cells: "Sequence[MatrixCell]") -> list[Path]:
    """Write all forms of the report; returns the files.

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
    return write_files(folder, forms)


def write_files(folder: Path, files: "Mapping[str, str | bytes]") -> list[Path]:
    """Write files into a folder; returns them. That is done before anything is printed: a terminal can go away.

    Raises:
        ConfigError: they cannot be written.
    """
    try:
        for file, content in files.items():
            replace_file(folder / file, content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise ConfigError(f"results cannot be written to {folder}: {error}") from error
    return [folder / file for file in files]


def say_written(files: "Sequence[Path]") -> None:
    """Print where results are."""
    if files:
        print()
    for file in files:
        print(f"written  {file}")


VERDICT_CODES = "exit codes: 0 SAFE, 1 BROKEN, 2 it could not be done, 3 UNVERIFIED, 4 CHANGED, 5 PARTIAL"


def verdict_code(view: "View") -> int:
    """The exit code of a verdict."""
    codes = {"SAFE": OK, "BROKEN": DID_NOT_HOLD, "UNVERIFIED": NOTHING_VERIFIED, "CHANGED": CHANGED, "PARTIAL": PARTIAL}
    return codes[view.verdict.value]


def _forms(view: "View") -> dict[str, str]:
    """All forms of the report, scripts of what diverges first, and both records, by the names of their files."""
    from mnist_fp8.gate.reports.verdict import files, html, markdown  # noqa: PLC0415

    records = {"old.json": view.comparison.old, "new.json": view.comparison.new}
    return {
        "upgrade.md": markdown.markdown(view),
        "upgrade.html": html.html(view),
        "upgrade.json": files.as_json(view),
        "junit.xml": files.junit(view),
        **{each.file: each.source for each in view.slices if each.source},
        **{name: json.dumps(record.to_json(), indent=1, allow_nan=False) + "\n" for name, record in records.items()},
    }


def show_verdict(view: "View", folder: Path | None) -> None:
    """Write the report of a comparison if a folder is given: the page, its other forms and both records. Print it then.

    Raises:
        ConfigError: it cannot be written.
    """
    from rich.console import Console  # noqa: PLC0415

    from mnist_fp8.gate.reports.verdict import terminal  # noqa: PLC0415

    written = write_files(folder, _forms(view)) if folder else []
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(terminal.Screen(view))
    say_written(written)
