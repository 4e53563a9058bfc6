"""``mnist-fp8 upgrade``."""

import argparse

from mnist_fp8.cli.github import add_github, conclude
from mnist_fp8.cli.options import (
    Commands,
    add_judged,
    add_only,
    add_output,
    add_policy,
    add_rerun,
    capability_to_pretend,
    check_keys,
)
from mnist_fp8.cli.output import RUNS, VERDICT_CODES, check_output, new_folder, show_verdict
from mnist_fp8.cli.own_code import (
    add_uses,
    demand_uses,
    known_names,
    layers_to_judge,
    model_to_judge,
    own_sources,
)
from mnist_fp8.core.errors import ConfigError


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "upgrade",
        help="say whether an upgrade of Transformer Engine, JAX or Flax is safe, and what changes",
        description="Measure two installations, hold both to the claims, compare, and give a verdict: SAFE, CHANGED, "
        "BROKEN, UNVERIFIED or PARTIAL. What was measured before is taken from the cache: an interrupted run goes on.",
        epilog=VERDICT_CODES,
    )
    parser.add_argument(
        "old",
        metavar="OLD",
        help="the Transformer Engine in use: a release (2.19.0), a wheel, a folder with transformer_engine, a "
        "requirements file (.txt) that pins it, or an interpreter that has it",
    )
    parser.add_argument(
        "new", nargs="?", metavar="NEW", help="the one to move to; also the word newest (default: the same, see --jax)"
    )
    parser.add_argument(
        "--jax", type=_parse_pair, default=(None, None), metavar="OLD:NEW", help="versions of JAX, or one for both"
    )
    parser.add_argument(
        "--flax", type=_parse_pair, default=(None, None), metavar="OLD:NEW", help="versions of Flax, or one for both"
    )
    add_uses(parser)
    add_judged(parser)
    add_policy(parser)
    add_github(parser)
    add_only(parser)
    add_output(parser, "for upgrade.md, .html, .json, junit.xml and both records (default: a new one in runs)")
    add_rerun(parser)
    parser.set_defaults(run=run)


def _parse_pair(text: str) -> tuple[str, str]:
    old, *more = text.split(":")
    if not all((old, *more)) or len(more) > 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no pair of versions; expected OLD:NEW, such as 0.9.2:0.10.2")
    return old, more[0] if more else old


def run(args: argparse.Namespace) -> int:
    """Compare what the arguments name; returns the exit code."""
    from mnist_fp8.cli.progress import say_left_out, watching  # noqa: PLC0415 - `--help` needs none of these
    from mnist_fp8.gate.releases import editions  # noqa: PLC0415 - `--help` needs none of these
    from mnist_fp8.gate.reports.verdict.view import View  # noqa: PLC0415 - `--help` needs none of these
    from mnist_fp8.gate.runner import upgrade  # noqa: PLC0415 - `--help` needs none of these
    from mnist_fp8.gate.runner.measuring import EVERYTHING  # noqa: PLC0415 - `--help` needs none of these
    from mnist_fp8.gate.runner.names import asks_for_names  # noqa: PLC0415 - `--help` needs none of these
    from mnist_fp8.gate.runner.suite_tests import suite_tests  # noqa: PLC0415 - `--help` needs none of these
    from mnist_fp8.gate.verdict import compare, policy  # noqa: PLC0415 - `--help` needs none of these

    if args.new is None and args.jax[0] == args.jax[1] and args.flax[0] == args.flax[1]:
        raise ConfigError("nothing changes: expected a second Transformer Engine, --jax OLD:NEW or --flax OLD:NEW")
    check_keys(args.only)
    capability = capability_to_pretend(args.capability)
    are_names_asked_for = not args.only or asks_for_names(args.only)
    if args.uses and not are_names_asked_for:
        raise ConfigError("--uses has no part in what --only names; expected uses, or a key of it, among them")
    accepted = policy.load(args.policy) if args.policy else ()
    sources = own_sources(args.uses) if are_names_asked_for else ()
    if args.output or not args.only:
        check_output(args.output or RUNS)
    old = editions.parse_edition(args.old)
    new = editions.parse_edition(args.new) if args.new else old
    model = model_to_judge(args, (old, new), args.only or EVERYTHING)
    say_left_out()
    with watching() as watcher:
        uses = demand_uses(sources, watcher)
        layers = layers_to_judge(args.subjects, uses, args.only)
        pair = upgrade.sides(old, new, args.jax, args.flax, layers, model, capability)
        records = upgrade.measure_both(pair, only=args.only, rerun=args.rerun, watcher=watcher)
    check_keys(args.only, records, uses)
    tests = {} if args.only else suite_tests()
    releases = known_names() if uses else {}
    comparison = compare.compare(*records, accepted, only=args.only, tests=tests, uses=uses, releases=releases)
    view = View.of(comparison)
    show_verdict(view, args.output or (None if args.only else new_folder("upgrade")))
    return conclude(view, github=args.github)
