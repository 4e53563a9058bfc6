"""``mnist-fp8 compare``."""

import argparse
from pathlib import Path

from mnist_fp8.cli.github import add_github, conclude
from mnist_fp8.cli.options import Commands, add_output, add_policy
from mnist_fp8.cli.output import VERDICT_CODES, check_output, show_verdict
from mnist_fp8.cli.own_code import add_uses, demand_uses, known_names, own_sources


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "compare",
        help="compare two records that mnist-fp8 measure wrote",
        description="Compare two records: what differs, what it means, and a verdict. Nothing is run.",
        epilog=VERDICT_CODES,
    )
    parser.add_argument("old", type=Path, metavar="OLD", help="record of the Transformer Engine in use")
    parser.add_argument("new", type=Path, metavar="NEW", help="record of the one to move to")
    add_uses(parser)
    add_policy(parser)
    add_github(parser)
    add_output(parser, "for the report (default: only the terminal)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare what the arguments name; returns the exit code."""
    from mnist_fp8.cli.progress import watching  # noqa: PLC0415 - `--help` needs none of these
    from mnist_fp8.gate.reports.verdict.view import View  # noqa: PLC0415
    from mnist_fp8.gate.runner.suite_tests import suite_tests  # noqa: PLC0415 - `--help` needs none of these
    from mnist_fp8.gate.verdict import compare, policy  # noqa: PLC0415
    from mnist_fp8.record.record import read_record  # noqa: PLC0415

    accepted = policy.load(args.policy) if args.policy else ()
    sources = own_sources(args.uses)
    if args.output:
        check_output(args.output)
    with watching() as watcher:
        uses = demand_uses(sources, watcher)
    records = read_record(args.old), read_record(args.new)
    releases = known_names() if uses else {}
    comparison = compare.compare(*records, accepted, tests=suite_tests(), uses=uses, releases=releases)
    view = View.of(comparison)
    show_verdict(view, args.output)
    return conclude(view, github=args.github)
