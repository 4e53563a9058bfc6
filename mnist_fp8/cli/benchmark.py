"""``mnist-fp8 benchmark``."""

# ruff: noqa: T201 - a command prints

import argparse
import sys

from mnist_fp8.cli.options import Commands, add_output
from mnist_fp8.cli.output import OK, check_output, say_written, write_files
from mnist_fp8.core import imports


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "benchmark",
        help="measure how fast training and dense layers are, in BF16 and FP8",
        description="Measure, in one run: our epoch against a plain step-by-step loop, the modes against each other, "
        "and dense layers in FP8 against BF16 and against what the GPU can do. On a CPU everything is small, and times "
        "say nothing about kernels.",
    )
    add_output(parser, "folder for benchmark.md, .png and .json (default: print only)")
    parser.add_argument("--quick", action="store_true", help="fewer repeats, and smaller layers on a CPU")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, print and write; returns the exit code."""
    if args.output:
        check_output(args.output)
    imports.require("jax", "flax.linen", "optax")

    from rich.console import Console  # noqa: PLC0415 - `--help` needs none of these

    from mnist_fp8 import te  # noqa: PLC0415
    from mnist_fp8.benchmark import measure, plots, report, results  # noqa: PLC0415
    from mnist_fp8.core.run_kind import RunKind  # noqa: PLC0415

    plan = measure.choose_plan(on_gpu=te.engine().kind is RunKind.KERNEL, quick=args.quick)
    found = measure.measure(plan, lambda what: print(what, file=sys.stderr))
    written = []
    if args.output:
        files: dict[str, str | bytes] = {
            "benchmark.md": report.markdown(found),
            "benchmark.json": results.as_json(found),
            report.PICTURE: plots.picture(found),
        }
        written = write_files(args.output, files)
    console = Console(highlight=False, markup=False, emoji=False)
    for part in report.terminal(found, console.width):
        console.print(part)
    say_written(written)
    return OK
