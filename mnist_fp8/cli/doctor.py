"""``mnist-fp8 doctor``."""

# ruff: noqa: T201 - a command prints

import argparse
import sys
from typing import TYPE_CHECKING

from mnist_fp8.cli.options import Commands
from mnist_fp8.cli.output import COULD_NOT_RUN, OK
from mnist_fp8.core.capability import requested_capability

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mnist_fp8.doctor.components import Check
    from mnist_fp8.doctor.trial import Attempt


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "doctor",
        help="say whether Transformer Engine runs here, and if not, what does not fit",
        description="Look at Python, JAX, the NVIDIA driver, CUDA, cuDNN and Transformer Engine as they are installed "
        "for the Python that runs this command, and run one FP8 step.",
        epilog="exit codes: 0 it runs, 2 it cannot",
    )
    parser.set_defaults(run=run)


def run(_args: argparse.Namespace) -> int:
    """Diagnose; returns the exit code."""
    try:
        import rich  # noqa: F401, PLC0415

        from mnist_fp8.doctor import checks, trial  # noqa: PLC0415 - `--help` needs none of these
        from mnist_fp8.machine import survey  # noqa: PLC0415
    except ImportError as error:
        print(f"mnist-fp8: error: {error}: pip install packaging rich", file=sys.stderr)
        return COULD_NOT_RUN
    here = survey.look()
    attempt = trial.attempt()
    _print([*checks.diagnose(here), attempt.as_check(here)], attempt)
    return COULD_NOT_RUN if attempt.error else OK


def _print(checks: "Sequence[Check]", attempt: "Attempt") -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    console = Console(highlight=False, markup=False, emoji=False)
    table = Table("component", "found", "needed", "")
    for check in checks:
        table.add_row(check.name, check.found, check.needed, check.status.value)
    console.print(table)
    for line in _lines(checks, attempt):
        console.print(line, soft_wrap=True)


def _lines(checks: "Sequence[Check]", attempt: "Attempt") -> list[str]:
    """What stands under the table: recipes, what is worth knowing, what does not fit, and the answer."""
    problems = [check.line for check in checks if not check.fits]
    lines = [f"not {name}: {reason}" for name, reason in attempt.recipes.items() if reason]
    if attempt.recipes:
        lines.insert(0, "recipes: " + ", ".join(name for name, reason in attempt.recipes.items() if not reason))
    lines += [f"note: {check.line}" for check in checks if check.fits and check.advice]
    if attempt.error:
        lines += [f"problem: {line}" for line in problems[1:]]
        return [*lines, f"Transformer Engine cannot run: {problems[0]}"]
    lines += [f"problem: {line}" for line in problems]
    return [*lines, f"Transformer Engine runs here: {attempt.kind.describe(requested_capability())}"]
