"""``mnist-fp8 verify``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_fp8.cli.options import Commands, add_examining
from mnist_fp8.core.errors import ConfigError

if TYPE_CHECKING:
    from mnist_fp8.gate.releases.editions import Edition


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
        help="a release (2.19.0), releases (2.16.. or all), a wheel, a folder with transformer_engine, or an "
        "interpreter that has it (default: the one that runs this command)",
    )
    parser.add_argument("--python", type=Path, metavar="PATH", help="an interpreter that has Transformer Engine")
    parser.add_argument("--jax", metavar="V", help="version of JAX (default: the newest that the release works with)")
    add_examining(parser, "for verify.md, .html, .json and junit.xml (default: only the terminal)", "(1)")
    parser.set_defaults(run=run, jobs=1)


def run(args: argparse.Namespace) -> int:
    """Judge what the arguments name; returns the exit code."""
    from mnist_fp8.cli.examining import examine_and_show  # noqa: PLC0415 - `--help` needs none of these

    chosen = _editions(args.te, args.python)
    return examine_and_show(args, chosen, [args.jax], (), name="verify", kept=bool(args.output), explained=True)


def _editions(named: Sequence[str], python: Path | None) -> "list[Edition]":
    from mnist_fp8.gate.releases import editions  # noqa: PLC0415

    chosen = [edition for text in named for edition in _named(text)]
    if python is not None:
        chosen.append(editions.interpreter_edition(python))
    chosen = chosen or [editions.interpreter_edition(Path(sys.executable))]
    if len(set(chosen)) < len(chosen):
        raise ConfigError("the same Transformer Engine is named twice")
    return chosen


def _named(text: str) -> "list[Edition]":
    """One edition, or the releases that an expression means; a path is no expression, whatever dots are in it."""
    from mnist_fp8.gate.releases import catalogue, editions  # noqa: PLC0415

    several = "," in text or ".." in text
    if text == "all" or (several and "/" not in text and not Path(text).exists()):
        return [editions.parse_edition(version) for version in catalogue.select_releases(text)]
    return [editions.parse_edition(text)]
