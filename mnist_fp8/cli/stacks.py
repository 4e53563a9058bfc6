"""``mnist-fp8 stacks``."""

import argparse

from mnist_fp8.cli.options import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "stacks",
        help="find the newest JAX that a release of Transformer Engine works with",
        description="Try releases of JAX with a release of Transformer Engine, the newest first.",
    )
    parser.add_argument("--search", required=True, metavar="TE", help="the release of Transformer Engine")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Search; returns the exit code."""
    from mnist_fp8.gate.releases import find_jax  # noqa: PLC0415 - `--help` needs none of it

    return find_jax.main(args.search)
