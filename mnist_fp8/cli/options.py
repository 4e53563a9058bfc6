"""Options that the commands share."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from mnist_fp8.cli.own_code import add_model, add_subjects, layers_to_judge, model_to_judge
from mnist_fp8.core.capability import (
    HELP,
    OPTION,
    Capability,
    parse_capability,
    refuse_on_kernels,
    requested_capability,
)
from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.run_kind import RunKind, requested_run_kind

if TYPE_CHECKING:
    from mnist_fp8.gate.releases.editions import Edition
    from mnist_fp8.gate.runner.model import Model
    from mnist_fp8.gate.uses.use import Uses
    from mnist_fp8.record.record import Record

Container: TypeAlias = "argparse._ActionsContainer"  # noqa: SLF001 - a parser or a group of its arguments
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - it has no public name


def parse_count(text: str) -> int:
    """Parse a number of things.

    Raises:
        argparse.ArgumentTypeError: it is not 1 or more.
    """
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


def add_examining(parser: argparse.ArgumentParser, output: str, jobs: str) -> None:
    """Add what ``verify`` and ``matrix`` share.

    Args:
        parser: of one of them.
        output: what ``--output`` is for.
        jobs: the default of ``--jobs``, as help says it.
    """
    parser.add_argument(
        "--claim", nargs="+", action="extend", default=[], metavar="NAME", help="only these claims (default: all)"
    )
    add_judged(parser)
    add_output(parser, output)
    parser.add_argument("--jobs", type=parse_count, metavar="N", help=f"releases at a time {jobs}")
    add_rerun(parser)


class Judged(NamedTuple):
    """What is judged of an installation, and as what: the last fields of `Installation`."""

    layers: tuple[str, ...]
    model: "Model | None"
    capability: Capability | None


def add_judged(parser: argparse.ArgumentParser) -> None:
    """Add ``--subjects``, ``--model`` with what goes with it, and ``--capability``."""
    add_subjects(parser)
    add_model(parser)
    add_capability(parser)


def judged(
    args: argparse.Namespace, editions: "Sequence[Edition]", keys: Iterable[str], only: Sequence[str] = ()
) -> Judged:
    """What the options of `add_judged` ask for.

    Args:
        args: with these options.
        editions: what is judged.
        keys: keys of what is asked for, claims included, or patterns.
        only: those that were named on the command line.

    Raises:
        ConfigError: one of them cannot be done.
    """
    capability = capability_to_pretend(args.capability)
    return Judged(layers_to_judge(args.subjects, only=only), model_to_judge(args, editions, keys), capability)


def add_output(parser: argparse.ArgumentParser, description: str) -> None:
    """Add ``--output``."""
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help=description)


def add_rerun(parser: argparse.ArgumentParser) -> None:
    """Add ``--rerun``."""
    parser.add_argument("--rerun", action="store_true", help="judge again what was judged before")


def add_only(parser: argparse.ArgumentParser) -> None:
    """Add ``--only``."""
    parser.add_argument(
        "--only",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY",
        help="only what these keys name, measured anew, such as numerics, variables/BF16 or 'api/*autocast' (all)",
    )


def check_keys(only: Sequence[str], records: "Sequence[Record]" = (), uses: "Uses | None" = None) -> None:
    """Refuse a key that names no area, or, once it is known what there is, that fits nothing.

    Args:
        only: the keys.
        records: of both sides, once they are measured.
        uses: of the user's own sources, if there are any.

    Raises:
        ConfigError: one of them does.
    """
    from mnist_fp8.gate.verdict.rules.uses import key_of  # noqa: PLC0415 - `--help` needs none of it
    from mnist_fp8.record.keys import AREAS, covers  # noqa: PLC0415

    for key in only:
        area = key.partition("/")[0]
        if "*" not in area and area not in AREAS:
            raise ConfigError(f"nothing is measured under {key!r}; a key begins with one of {', '.join(AREAS)}")
    if not records or any(record.problem for record in records):
        return
    there = {key for record in records for key in record.entries}
    there |= {f"claims/{claim.name}" for record in records if record.suite for claim in record.suite.claims}
    there |= {key_of(use) for use in uses.uses} if uses else set()
    for key in only:
        if not any(covers(key, name) for name in there):
            raise ConfigError(f"nothing is measured under {key!r}; mnist-fp8 measure -o FILE writes all keys")


def add_capability(parser: Container) -> None:
    """Add ``--capability``."""
    parser.add_argument(OPTION, type=_parse_capability, metavar="X", help=HELP)


def _parse_capability(text: str) -> Capability:
    try:
        return parse_capability(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def capability_to_pretend(asked: Capability | None) -> Capability | None:
    """The capability that host runs are to pretend; ``None`` leaves it to the recipe.

    Args:
        asked: on the command line; it goes before the environment variable.

    Raises:
        ConfigError: the variable has no such value, or what runs is to be a kernel run.
    """
    capability = asked or requested_capability()
    if requested_run_kind() is RunKind.KERNEL:
        refuse_on_kernels(capability)
    return capability


def add_policy(parser: argparse.ArgumentParser) -> None:
    """Add ``--policy``."""
    parser.add_argument(
        "--policy", type=Path, metavar="FILE", help="TOML file with differences that are accepted (default: none)"
    )
