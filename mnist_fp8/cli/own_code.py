"""The user's own sources: which they are, and what they use."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

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
