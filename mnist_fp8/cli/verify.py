"""``mnist-fp8 verify``."""

# ruff: noqa: T201 - a command prints

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_fp8.cli.options import Commands, add_claims, add_output, add_rerun
from mnist_fp8.cli.output import check_output, exit_code, report_errors, write_reports
from mnist_fp8.core.errors import ConfigError

if TYPE_CHECKING:
    from mnist_fp8.gate.releases.subjects import Subject
    from mnist_fp8.gate.runner.matrix import Cell
    from mnist_fp8.record.claims import MatrixCell, SuiteResult


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "verify",
        help="hold one Transformer Engine or several to the claims",
        description="Run the claims against Transformer Engine, each release in an environment of its own.",
    )
    parser.add_argument(
        "te",
        nargs="*",
        metavar="TE",
        help="a release (2.19.0), a wheel, a folder with transformer_engine, or an interpreter that has it "
        "(default: the one that runs this command)",
    )
    parser.add_argument("--python", type=Path, metavar="PATH", help="an interpreter that has Transformer Engine")
    parser.add_argument("--jax", metavar="V", help="version of JAX (default: the newest that the release works with)")
    add_claims(parser)
    add_output(parser, "for verify.md, .html, .json and junit.xml (default: only the terminal)")
    add_rerun(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Judge what the arguments name; returns the exit code."""
    from mnist_fp8.gate.runner import matrix, verification  # noqa: PLC0415 - `--help` needs none of these

    claims = verification.select_claims(args.claim)
    cells: list[Cell] = [(subject, args.jax) for subject in _subjects(args.te, args.python)]
    if args.output:
        check_output(args.output)

    def work(cell: "Cell") -> "SuiteResult":
        return matrix.judge_one(cell, claims, workers=verification.default_jobs(), rerun=args.rerun)

    judged = matrix.judge_all(cells, work, jobs=1, watcher=_Watcher())
    _print(judged)
    if args.output:
        write_reports(args.output, "verify", judged)
    report_errors(judged)
    return exit_code(judged)


def _subjects(named: Sequence[str], python: Path | None) -> list["Subject"]:
    from mnist_fp8.gate.releases import subjects  # noqa: PLC0415

    chosen = [subjects.parse_subject(text) for text in named]
    if python is not None:
        chosen.append(subjects.interpreter_subject(python))
    chosen = chosen or [subjects.interpreter_subject(Path(sys.executable))]
    if len(set(chosen)) < len(chosen):
        raise ConfigError("the same Transformer Engine is named twice")
    return chosen


class _Watcher:
    """Says on standard error what is being judged: it can take minutes."""

    def started(self, label: str) -> None:
        print(f"TE {label}: judging", file=sys.stderr)

    def finished(self, judged: "MatrixCell") -> None:
        """The table says it."""


def _print(judged: "Sequence[MatrixCell]") -> None:
    from rich.console import Console  # noqa: PLC0415

    from mnist_fp8.gate.reports.claims import terminal  # noqa: PLC0415

    found = [each.verification for each in judged if each.verification]
    console = Console(highlight=False, markup=False, emoji=False)
    if found:
        console.print(terminal.claim_table(found))
    for each in found:
        console.print()
        for line in terminal.explain(each):
            console.print(line, soft_wrap=True)
