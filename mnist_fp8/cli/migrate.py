"""``mnist-fp8 migrate``."""

# ruff: noqa: T201 - a command prints

import argparse
import dataclasses
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_fp8.cli.options import Commands
from mnist_fp8.cli.output import OK
from mnist_fp8.core.errors import ConfigError

if TYPE_CHECKING:
    from mnist_fp8.checkpoints import tree
    from mnist_fp8.checkpoints.migration import Wishes
    from mnist_fp8.checkpoints.parameters import Shapes

_KERNEL = re.compile(r"(?P<path>[^=]+)=(?P<shape>\d+(x\d+)*)")


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "migrate",
        help="write a checkpoint anew for another release of Transformer Engine",
        description="Write a new checkpoint, with the names, shapes and numbers that another release of Transformer "
        "Engine expects: of an Orbax folder, or of a file of flax.serialization.to_bytes. The old one is only read.",
        epilog="exit codes: 0 it is written, 2 it could not be done",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder of Orbax, or MessagePack file")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="NEW", help="where to; nothing may be there"
    )
    parser.add_argument("--from", dest="old", required=True, metavar="TE", help="the release that it was saved under")
    parser.add_argument("--to", dest="new", required=True, metavar="TE", help="the release that is to read it")
    _add_recipe(parser)
    _add_parameters(parser)
    parser.set_defaults(run=run)


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "the recipe that it was trained with, which a checkpoint from before 2.3 does not say"
    )
    group.add_argument("--recipe", choices=["DelayedScaling"], default="DelayedScaling", help="(default: %(default)s)")
    group.add_argument("--fp8-format", choices=["HYBRID", "E4M3"], default="HYBRID", help="(default: %(default)s)")
    group.add_argument("--margin", type=int, default=0, metavar="N", help="(default: %(default)s)")
    group.add_argument(
        "--amax-compute-algo", choices=["max", "most_recent"], default="max", help="(default: %(default)s)"
    )
    for name, when in (
        ("fused", "runs as one function: return_layernorm_output=False, as in a TransformerLayer"),
        ("separate", "does not: return_layernorm_output=True, an activation of your own, or dropout inside"),
    ):
        group.add_argument(
            f"--{name}-mlp",
            nargs="+",
            action="extend",
            default=[],
            metavar="PATTERN",
            help=f"metadata of each LayerNormMLP that {when}; such as 'fp8_metas/*/mlp'",
        )


def _add_parameters(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("parameters")
    boxes = group.add_mutually_exclusive_group()
    boxes.add_argument(
        "--boxed",
        action="store_const",
        const=True,
        help="put them into boxes, which 2.4 brought (default: as they are)",
    )
    boxes.add_argument(
        "--unboxed", dest="boxed", action="store_const", const=False, help="take them out of their boxes"
    )
    group.add_argument(
        "--kernel",
        nargs="+",
        action="extend",
        default=[],
        metavar="PATH=AxBxC",
        help="shape of a kernel with several contracted axes, which was flat before 2.1",
    )
    group.add_argument(
        "--like",
        type=Path,
        metavar="FILE",
        help="JSON file with the shapes of all parameters under the new release, by path: for kernels that were flat,"
        " and for which parameters are in boxes",
    )


def run(args: argparse.Namespace) -> int:
    """Migrate; returns the exit code."""
    from mnist_fp8.checkpoints import migration, store  # noqa: PLC0415 - `--help` needs none of it
    from mnist_fp8.checkpoints.formats import Crossing  # noqa: PLC0415

    crossing, wishes = Crossing(args.old, args.new), _wishes(args)
    store.check_new(args.output)
    store.check_outside(args.output, args.checkpoint)
    old = store.opened(args.checkpoint)
    plan = migration.plan(old.leaves, crossing, wishes)
    plan = dataclasses.replace(plan, notes=[*plan.notes, *store.check_metadata(old)])
    report = json.dumps(migration.document(plan, crossing, wishes), indent=1) + "\n"
    noted = store.migrate(old, args.output, plan, report.encode())
    _show(plan)
    print(f"\nwritten  {args.output}\nwritten  {noted}")
    return OK


def _wishes(args: argparse.Namespace) -> "Wishes":
    from mnist_fp8.checkpoints.metadata import Mlps, Recipe  # noqa: PLC0415
    from mnist_fp8.checkpoints.migration import Wishes  # noqa: PLC0415

    return Wishes(
        recipe=Recipe(args.fp8_format, args.margin, args.amax_compute_algo),
        kernels=_kernels(args.kernel),
        like=_like(args.like) if args.like else {},
        boxed=args.boxed,
        mlps=Mlps(tuple(args.fused_mlp), tuple(args.separate_mlp)),
    )


def _kernels(texts: list[str]) -> "Shapes":
    from mnist_fp8.checkpoints.tree import path_of  # noqa: PLC0415

    shapes = {}
    for text in texts:
        found = _KERNEL.fullmatch(text)
        if not found:
            raise ConfigError(f"--kernel {text!r} is no PATH=AxBxC, such as params/out/kernel=4x16x32")
        shapes[path_of(found["path"])] = tuple(map(int, found["shape"].split("x")))
    return shapes


def _like(file: Path) -> "Shapes":
    """Shapes in a file."""
    from mnist_fp8.checkpoints.tree import path_of  # noqa: PLC0415

    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        return {path_of(path): tuple(map(int, shape)) for path, shape in document.items()}
    except OSError as error:
        raise ConfigError(f"--like {file} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, AttributeError):
        raise ConfigError(
            f'--like {file} is no JSON file of paths with shapes, such as {{"out/kernel": [4, 16]}}'
        ) from None


def _show(plan: "tree.Plan") -> None:
    """Print what changed, leaf by leaf."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Column, Table  # noqa: PLC0415

    from mnist_fp8.checkpoints.tree import text_of  # noqa: PLC0415

    console = Console(highlight=False, markup=False, emoji=False)
    table = Table(Column("leaf", overflow="fold"), Column("becomes", overflow="fold"), "what")
    for leaf in plan.changed:
        table.add_row(text_of(leaf.sources[0]), _ending(leaf.sources[0], leaf.path), leaf.what)
    for path, what in plan.dropped.items():
        table.add_row(text_of(path), "", what)
    if table.row_count:
        console.print(table)
    counts = (
        f"{len(plan.changed)} changed, {len(plan.dropped)} dropped, {len(plan.leaves) - len(plan.changed)} untouched"
    )
    for line in (counts, *(f"note: {note}" for note in plan.notes)):
        console.print(line, soft_wrap=True)


def _ending(old: "tree.Path", new: "tree.Path") -> str:
    """What of a new path is another than in the old one; empty if nothing is."""
    same = next((at for at, (one, other) in enumerate(zip(old, new, strict=False)) if one != other), len(old))
    return "/".join(("..", *new[same:])) if new[same:] else ("" if new == old else "../")
