"""``mnist-fp8 matrix``."""

import argparse

from mnist_fp8.cli.options import Commands, add_examining


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "matrix",
        help="hold many releases of Transformer Engine to the claims, and compare them",
        description="Run the claims against many releases of Transformer Engine at the same time, and measure what "
        "changes between them. What was done before is taken from the cache, so that an interrupted matrix goes on.",
    )
    parser.add_argument(
        "--te", default="all", metavar="EXPR", help="releases: all, 2.10.., ..2.3, 2.3..2.8, 2.19.0; with commas (all)"
    )
    parser.add_argument(
        "--jax", nargs="+", default=[None], metavar="V", help="versions of JAX (default: each release's newest)"
    )
    output = "for matrix.md, .html, .json and junit.xml (default: a new one in runs)"
    add_examining(parser, output, "(by cores and memory)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Judge the releases that the arguments name; returns the exit code."""
    from mnist_fp8.cli.examining import examine_and_show  # noqa: PLC0415 - `--help` needs none of these
    from mnist_fp8.gate.releases import catalogue, editions  # noqa: PLC0415 - `--help` needs none of these
    from mnist_fp8.gate.reports.claims.history import CHOSEN  # noqa: PLC0415 - `--help` needs none of these

    releases = [editions.parse_edition(version) for version in catalogue.select_releases(args.te)]
    return examine_and_show(args, releases, args.jax, CHOSEN, name="matrix", kept=True, explained=False)
