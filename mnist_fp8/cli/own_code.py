"""The user's own sources: which they are, what they use, and which layers are judged for that."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_fp8.core.subjects import ALL, DEFAULT, SUBJECTS, named_in, parse_subjects

if TYPE_CHECKING:
    from mnist_fp8.cli.progress import Watcher
    from mnist_fp8.gate.uses.use import Uses
    from mnist_fp8.record.names import Names


def add_uses(parser: argparse.ArgumentParser) -> None:
    """Add ``--uses``."""
    parser.add_argument(
        "--uses",
        action="append",
        type=Path,
        metavar="PATH",
        help="your own sources, a folder or a file: the verdict says what of the upgrade reaches them. They are read,"
        " not run (default: uses in [tool.mnist-fp8] of pyproject.toml)",
    )


def own_sources(named: Sequence[Path] | None) -> tuple[Path, ...]:
    """The sources to look at: those that were named, or those of ``pyproject.toml``; none if there are none.

    Raises:
        ConfigError: the file cannot be read.
    """
    from mnist_fp8.gate.uses import settings  # noqa: PLC0415 - `--help` needs none of it

    return tuple(named or settings.sources())


def add_subjects(parser: argparse.ArgumentParser) -> None:
    """Add ``--subjects``."""
    parser.add_argument(
        "--subjects",
        metavar="NAME,...",
        help=f"the layers to judge: all, or some of {', '.join(SUBJECTS)} (default: subjects in [tool.mnist-fp8] of"
        " pyproject.toml, else those that your code uses, else those that a verdict has time for)",
    )


def layers_to_judge(named: str | None, uses: "Uses | None" = None, only: Sequence[str] = ()) -> tuple[str, ...]:
    """The subjects to judge: what is named, what ``pyproject.toml`` names, or what the user's code uses.

    Args:
        named: on the command line.
        uses: of the user's own sources, if the verdict rests on them.
        only: keys that are asked for; they say themselves which layers they are about.

    Raises:
        ConfigError: there is no such subject, or the file cannot be read.
    """
    from mnist_fp8.gate.uses import settings  # noqa: PLC0415 - `--help` needs none of it

    if named is not None or only:
        return parse_subjects(named or ALL)
    used = named_in(use.path for use in uses.uses) if uses else ()
    return settings.subjects() or parse_subjects(",".join(used or DEFAULT))


def demand_uses(paths: Sequence[Path], watcher: "Watcher") -> "Uses | None":
    """What the sources use, for a verdict that rests on it; ``None`` where there are no sources.

    Raises:
        ConfigError: one of them does not exist, or all of them use nothing.
    """
    if not paths:
        return None
    uses = find_uses(paths, watcher)
    uses.demand()
    return uses


def find_uses(paths: Sequence[Path], watcher: "Watcher") -> "Uses":
    """What the sources use of Transformer Engine.

    Raises:
        ConfigError: one of them does not exist.
    """
    from mnist_fp8.core.files import cache_dir  # noqa: PLC0415 - `--help` needs none of these
    from mnist_fp8.gate.reports.markup import counted  # noqa: PLC0415
    from mnist_fp8.gate.uses import scan  # noqa: PLC0415

    what = f"your code in {', '.join(map(str, paths))}"
    watcher.started(what)
    uses = scan.find_uses(paths, cache_dir())
    watcher.finished(what, f"{what}: {counted(uses.files, 'file')}")
    return uses


def known_names() -> "dict[str, Names]":
    """The names of all known releases, by version."""
    from mnist_fp8.gate.names.stored import all_names  # noqa: PLC0415 - `--help` needs none of it

    return all_names()
