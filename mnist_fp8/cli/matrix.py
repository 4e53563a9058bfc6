"""``mnist-fp8 matrix``."""

import argparse

from mnist_fp8.cli.options import (
    Commands,
    add_capability,
    add_claims,
    add_jobs,
    add_output,
    add_rerun,
    capability_to_pretend,
)
from mnist_fp8.cli.output import RUNS, check_output
from mnist_fp8.cli.own_code import add_model, add_subjects, layers_to_judge, model_to_judge


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
    add_claims(parser)
    add_subjects(parser)
    add_model(parser)
    add_capability(parser)
    add_output(parser, "for matrix.md, .html, .json and junit.xml (default: a new one in runs)")
    add_jobs(parser, "(by cores and memory)")
    add_rerun(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Judge the releases that the arguments name; returns the exit code."""
    from mnist_fp8.cli.examining import Request, examine_and_show  # noqa: PLC0415 - `--help` needs none of these
    from mnist_fp8.gate.releases import catalogue, editions  # noqa: PLC0415 - `--help` needs none of these
    from mnist_fp8.gate.reports.claims.history import CHOSEN  # noqa: PLC0415 - `--help` needs none of these
    from mnist_fp8.gate.runner.installation import Installation  # noqa: PLC0415 - `--help` needs none of these
    from mnist_fp8.gate.runner.suite import select_claims  # noqa: PLC0415 - `--help` needs none of these

    request = Request(select_claims(args.claim), CHOSEN, args.jobs, args.rerun)
    releases = [editions.parse_edition(version) for version in catalogue.select_releases(args.te)]
    layers = layers_to_judge(args.subjects)
    capability = capability_to_pretend(args.capability)
    check_output(args.output or RUNS)
    model = model_to_judge(args, releases, request.keys)
    installations = [
        Installation(each, jax, layers=layers, model=model, capability=capability)
        for each in releases
        for jax in args.jax
    ]
    return examine_and_show(installations, request, name="matrix", output=args.output, kept=True, explained=False)
