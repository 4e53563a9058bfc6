"""``mnist-fp8 measure``."""

# ruff: noqa: T201 - a command prints

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_fp8.cli.options import Commands, add_judged, add_only, add_rerun, check_keys, judged
from mnist_fp8.cli.output import DID_NOT_HOLD, OK, check_output, say_written
from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.files import replace_file
from mnist_fp8.core.plain import clean

if TYPE_CHECKING:
    from mnist_fp8.gate.runner.installation import Installation
    from mnist_fp8.record.record import Record


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "measure",
        help="measure what one Transformer Engine does, as a record to be compared",
        description="Measure what one Transformer Engine does: names and signatures, variables, float8 in programs, "
        "errors, quantized tensors, metadata, special numbers, training curves, warnings, the import and costs.",
    )
    parser.add_argument(
        "te",
        nargs="?",
        metavar="TE",
        help="a release (2.19.0), a wheel, a folder with transformer_engine, a requirements file, or an interpreter "
        "that has it (default: the one that runs this command)",
    )
    parser.add_argument("--python", type=Path, metavar="PATH", help="an interpreter that has Transformer Engine")
    parser.add_argument("--jax", metavar="V", help="version of JAX (default: the newest that the release works with)")
    parser.add_argument("--flax", metavar="V", help="version of Flax (default: the one that goes with that JAX)")
    parser.add_argument("--claims", action="store_true", help="hold it to the claims of the suite as well")
    add_only(parser)
    add_judged(parser)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="file for the record, such as record.json")
    add_rerun(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure what the arguments name; returns the exit code."""
    from mnist_fp8.gate.releases import editions  # noqa: PLC0415 - `--help` needs none of these
    from mnist_fp8.gate.runner.installation import Installation  # noqa: PLC0415 - `--help` needs none of these
    from mnist_fp8.gate.runner.measuring import EVERYTHING  # noqa: PLC0415 - `--help` needs none of these

    if args.te and args.python:
        raise ConfigError("both a Transformer Engine and --python are given; expected one of them")
    if args.claims and args.only:
        raise ConfigError("--claims judges everything; with --only, measure without it")
    check_keys(args.only)
    if args.output:
        check_output(args.output.parent)
        if args.output.is_dir():
            raise ConfigError(
                f"output {args.output} is a folder; expected a file, such as {args.output / 'record.json'}"
            )
    edition = (
        editions.parse_edition(args.te)
        if args.te
        else editions.interpreter_edition(args.python or Path(sys.executable))
    )
    asked = judged(args, [edition], args.only or EVERYTHING, args.only)
    record = _examine(Installation(edition, args.jax, args.flax, *asked), args)
    check_keys(args.only, [record])
    if args.output:
        _write(args.output, record)
    _print(record, whole=not args.only)
    say_written([args.output] if args.output else [])
    if record.problem:
        print(f"mnist-fp8: error: {clean(record.problem)}", file=sys.stderr)
        return DID_NOT_HOLD
    return OK


def _examine(installation: "Installation", args: argparse.Namespace) -> "Record":
    from mnist_fp8.cli.progress import say_left_out, watching  # noqa: PLC0415
    from mnist_fp8.gate.runner import suite  # noqa: PLC0415
    from mnist_fp8.gate.runner.installation import examine  # noqa: PLC0415
    from mnist_fp8.gate.runner.measuring import EVERYTHING  # noqa: PLC0415

    environment = installation.prepare()
    what = f"TE {installation.edition.label}: measuring"
    say_left_out()
    with watching() as watcher:
        watcher.started(what)
        record = examine(
            environment,
            entries=args.only or EVERYTHING,
            claims=suite.known_claims() if args.claims else (),
            workers=suite.default_jobs(),
            rerun=args.rerun or bool(args.only),
        )
        watcher.finished(what)
    return record


def _write(path: Path, record: "Record") -> None:
    try:
        replace_file(path, json.dumps(record.to_json(), indent=1, allow_nan=False).encode() + b"\n")
    except OSError as error:
        raise ConfigError(f"the record cannot be written to {path}: {error.strerror}") from error


def _print(record: "Record", *, whole: bool) -> None:
    """How much was measured in each area, or, where little was asked for, all of it."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    from mnist_fp8.gate.reports.values import text  # noqa: PLC0415
    from mnist_fp8.record.entries import Failure  # noqa: PLC0415
    from mnist_fp8.record.keys import AREAS  # noqa: PLC0415

    console = Console(highlight=False, markup=False, emoji=False)
    console.print(clean(record.title), clean(record.environment.get("run", "")), sep="\n", soft_wrap=True)
    if not whole:
        for key, value in record.entries.items():
            console.print(clean(f"{key}: {text(value)}"), soft_wrap=True)
        return
    table = Table("area", "what", "entries", "failed")
    for area, what in AREAS.items():
        values = [value for key, value in record.entries.items() if key.startswith(f"{area}/")]
        failed = sum(isinstance(value, Failure) for value in values)
        if values:
            table.add_row(area, what, str(len(values)), str(failed or ""))
    console.print(table)
