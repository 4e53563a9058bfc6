"""``mnist-fp8 uses``."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_fp8.cli.options import Commands, add_output
from mnist_fp8.cli.output import DID_NOT_HOLD, NOTHING_VERIFIED, OK, check_output, say_written, write_files
from mnist_fp8.cli.own_code import find_uses, known_names, own_sources
from mnist_fp8.core.errors import ConfigError

if TYPE_CHECKING:
    from mnist_fp8.gate.reports.uses.releases import ReleasesView


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "uses",
        help="say which releases of Transformer Engine your code fits",
        description="Find what your sources use of Transformer Engine, and hold it to the signatures of every "
        "release: which have each name, which changed it for you, and which all of it fits. Nothing is run.",
        epilog="exit codes: 0 there are releases that all of it fits, 1 there are none, 2 it could not be done, "
        "3 nothing is used, something that may use it could not be read, or of no release it is certain that it fits",
    )
    parser.add_argument(
        "paths",
        nargs="*",
        type=Path,
        metavar="PATH",
        help="a folder, a Python file or a notebook (default: uses in [tool.mnist-fp8] of pyproject.toml)",
    )
    add_output(parser, "for uses.md, .html and .json (default: only the terminal)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Look at the sources that the arguments name; returns the exit code."""
    from mnist_fp8.cli.progress import watching  # noqa: PLC0415 - `--help` needs none of these
    from mnist_fp8.gate.reports.uses import pages  # noqa: PLC0415
    from mnist_fp8.gate.reports.uses.releases import ReleasesView  # noqa: PLC0415
    from mnist_fp8.gate.uses.by_name import used_names  # noqa: PLC0415

    sources = own_sources(args.paths)
    if not sources:
        raise ConfigError("no sources are named; expected a folder or a file, or uses in [tool.mnist-fp8]")
    if args.output:
        check_output(args.output)
    with watching() as watcher:
        uses = find_uses(sources, watcher)
    view = ReleasesView(uses, used_names(uses.uses, known_names()))
    written = write_files(args.output, pages.forms(view)) if args.output else []
    _print(view)
    say_written(written)
    return _exit_code(view)


def _print(view: "ReleasesView") -> None:
    from rich.console import Console  # noqa: PLC0415

    from mnist_fp8.gate.reports.uses.releases import table  # noqa: PLC0415

    console = Console(highlight=False, markup=False, emoji=False)
    for part in table(view, console.width):
        console.print(part)


def _exit_code(view: "ReleasesView") -> int:
    if not view.used.fitting.fits:
        return DID_NOT_HOLD
    is_open = any(each.may_use for each in view.uses.unread) or view.used.fitting.unknown == view.used.fitting.fits
    return NOTHING_VERIFIED if is_open or not view.used.names else OK
