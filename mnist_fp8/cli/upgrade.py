"""``mnist-fp8 upgrade``."""

import argparse
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_fp8.cli.github import add_github, conclude
from mnist_fp8.cli.options import Commands, add_only, add_output, add_policy, add_rerun
from mnist_fp8.cli.output import VERDICT_CODES, check_output, show_verdict
from mnist_fp8.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress, TaskID


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "upgrade",
        help="say whether an upgrade of Transformer Engine, JAX or Flax is safe, and what changes",
        description="Measure two installations, hold both to the claims, compare, and give a verdict: SAFE, CHANGED, "
        "BROKEN or UNVERIFIED. What was measured before is taken from the cache, so that an interrupted run goes on.",
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
    add_policy(parser)
    add_github(parser)
    add_only(parser)
    add_output(parser, "for upgrade.md, .html, .json, junit.xml and both records (default: a new one in runs)")
    add_rerun(parser)
    parser.set_defaults(run=run)


def _parse_pair(text: str) -> tuple[str, str]:
    old, colon, new = text.partition(":")
    if not old or (colon and not new):
        raise argparse.ArgumentTypeError(f"{text!r} is no pair of versions; expected OLD:NEW, such as 0.9.2:0.10.2")
    return old, new or old


def run(args: argparse.Namespace) -> int:
    """Compare what the arguments name; returns the exit code."""
    from mnist_fp8.gate.releases import subjects  # noqa: PLC0415 - `--help` needs none of these
    from mnist_fp8.gate.runner import upgrade  # noqa: PLC0415 - `--help` needs none of these
    from mnist_fp8.gate.verdict import compare, policy  # noqa: PLC0415 - `--help` needs none of these

    if args.new is None and args.jax[0] == args.jax[1] and args.flax[0] == args.flax[1]:
        raise ConfigError("nothing changes: expected a second Transformer Engine, --jax OLD:NEW or --flax OLD:NEW")
    accepted = policy.load(args.policy) if args.policy else ()
    output = args.output
    if output is None and not args.only:
        output = Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-upgrade"
    if output:
        check_output(output)
    old = subjects.parse_subject(args.old)
    new = subjects.parse_subject(args.new) if args.new else old
    with _watching() as watcher:
        pair = upgrade.sides(old, new, args.jax, args.flax)
        records = upgrade.measure_both(pair, only=args.only, rerun=args.rerun, watcher=watcher)
    comparison = compare.compare(*records, accepted)
    if args.only and not any(comparison.compared.values()) and not comparison.differences:
        raise ConfigError(
            f"nothing is measured under {', '.join(args.only)}; mnist-fp8 measure -o FILE writes all keys"
        )
    show_verdict(comparison, output)
    return conclude(comparison, github=args.github)


# --- progress ------------------------------------------------------------------------------------------------------


@contextmanager
def _watching() -> "Iterator[_Watcher]":
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    class TimeLeft(ProgressColumn):
        """Runs down to the end of the estimate."""

        def render(self, task: Task) -> Text:
            left = task.fields["ends"] - time.monotonic()
            if left < 0:
                return Text("longer than usual")
            return Text(f"about {left / 60:.0f} min left" if left > 90 else f"about {left:.0f} s left")  # noqa: PLR2004

    columns = (BarColumn(16), TimeElapsedColumn(), TextColumn("{task.description}"), TimeLeft())
    console = Console(stderr=True, highlight=False)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        yield _Watcher(progress, progress.add_task("", total=None, ends=time.monotonic()))


class _Watcher:
    """A line for each step that is done; if standard error is a terminal, also a bar, what runs, and the time left."""

    def __init__(self, progress: "Progress", task: "TaskID") -> None:
        self._progress, self._task = progress, task
        self._done = 0.0

    def started(self, what: str, left: float) -> None:
        """Show it as running."""
        ends = time.monotonic() + left
        self._progress.update(self._task, description=what, completed=self._done, total=self._done + left, ends=ends)

    def finished(self, what: str, seconds: float) -> None:
        """Print its line."""
        self._done += seconds
        self._progress.console.print(f"{what}  ({seconds:.0f} s)", markup=False, soft_wrap=True)
