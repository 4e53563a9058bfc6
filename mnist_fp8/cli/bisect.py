"""``mnist-fp8 bisect``."""

# ruff: noqa: T201 - a command prints

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_fp8.cli.options import Commands, add_capability, add_rerun, capability_to_pretend
from mnist_fp8.cli.output import OK
from mnist_fp8.cli.own_code import add_model, model_to_judge
from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.plain import clean

if TYPE_CHECKING:
    from mnist_fp8.gate.runner.bisect import Change, Probe


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "bisect",
        help="find the release of Transformer Engine that brought a change",
        description="Find the first release of Transformer Engine in which a claim, a measured entry or a command of "
        "your own differs from a good one.",
    )
    parser.add_argument("--good", required=True, metavar="A", help="a release without the change")
    parser.add_argument("--bad", required=True, metavar="B", help="a release with the change")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--claim", metavar="NAME", help="what changes is how the tests of a claim end")
    what.add_argument(
        "--entry", metavar="KEY", help="what changes is a measured entry, or those whose keys begin so; measured alone"
    )
    what.add_argument(
        "--command",
        dest="words",
        metavar="WORDS",
        help="what changes is its exit code, run with the environment's python first on PATH: "
        "0 good, 125 cannot be judged, else bad",
    )
    add_model(parser)
    add_capability(parser)
    add_rerun(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Search the releases between the two that the arguments name; returns the exit code."""
    from mnist_fp8.cli.progress import say_left_out  # noqa: PLC0415 - `--help` needs none of it
    from mnist_fp8.gate.releases.editions import parse_edition  # noqa: PLC0415
    from mnist_fp8.gate.runner import bisect  # noqa: PLC0415
    from mnist_fp8.gate.verdict.changes import differ  # noqa: PLC0415

    probe = _probe(args)
    capability = capability_to_pretend(args.capability)
    releases = _between(args.good, args.bad)
    keys = [f"claims/{args.claim}"] if args.claim else filter(None, [args.entry])
    model = model_to_judge(args, list(map(parse_edition, releases)), keys)
    print(f"{len(releases)} releases, at most {len(releases).bit_length() + 2} to look at unless some cannot be judged")
    if args.words is None:  # a command of the user's own gets them
        say_left_out()
    look = bisect.in_environment(probe, model, capability)
    change = bisect.find_change(releases, look, lambda line: print(f"  {line}", flush=True), differ)
    _print(change)
    return OK


def _probe(args: argparse.Namespace) -> "Probe":
    from mnist_fp8.gate.reports.values import text  # noqa: PLC0415
    from mnist_fp8.gate.runner import bisect, suite  # noqa: PLC0415

    if args.claim:
        (claim,) = suite.select_claims([args.claim])
        return bisect.claim_probe(claim, rerun=args.rerun)
    if args.entry:
        return bisect.entry_probe(args.entry, text, rerun=args.rerun)
    try:
        words = shlex.split(args.words or "")
    except ValueError as error:
        raise ConfigError(f"the command cannot be split into words: {error}") from error
    if not words:
        raise ConfigError("the command is empty")
    return bisect.command_probe(words, Path.cwd())


def _between(good: str, bad: str) -> list[str]:
    """The releases from the good one to the bad one; backwards if the good one is newer."""
    from mnist_fp8.gate.releases import catalogue  # noqa: PLC0415

    known = catalogue.releases()
    for version in (good, bad):
        if version not in known:
            raise ConfigError(f"release {version!r} is not known; there are {', '.join(known)}")
    if good == bad:
        raise ConfigError(f"the good and the bad release are both {good}")
    start, end = known.index(good), known.index(bad)
    return list(known[start : end + 1]) if start < end else list(reversed(known[end : start + 1]))


def _print(change: "Change") -> None:
    from mnist_fp8.gate.reports import values  # noqa: PLC0415

    releases, answer = change.releases, change.answer
    print()
    if len(change.suspects) > 1:
        print(f"first with the change: one of {', '.join(change.suspects)}; those between cannot be judged")
    else:
        print(f"first with the change: {releases[answer.first_changed]}")
    print(f"last without:          {releases[answer.last_same]}")
    print(f"\n{releases[answer.last_same]}: {change.before.text}")
    print(f"{releases[answer.first_changed]}: {change.after.text}")
    for name, old, new in change.differences:
        print(f"  {clean(name)}: {' -> '.join(map(clean, values.texts(old, new)))}")
