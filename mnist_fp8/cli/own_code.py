"""The user's own code: sources, what they use, which layers are judged for that, and a model that is judged itself."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.model import CLAIMS
from mnist_fp8.core.subjects import ALL, DEFAULT, SUBJECTS, named_in, parse_subjects

if TYPE_CHECKING:
    from mnist_fp8.cli.progress import Watcher
    from mnist_fp8.gate.releases.editions import Edition
    from mnist_fp8.gate.runner.model import Model
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


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add ``--model``, and what goes with it."""
    parser.add_argument(
        "--model",
        metavar="PACKAGE:FACTORY",
        help="your model, to be held to the claims on models: a function of a recipe that gives a mnist_fp8.model.Case"
        " (default: model in [tool.mnist-fp8] of pyproject.toml, else the network of this project)",
    )
    parser.add_argument(
        "--model-path",
        type=Path,
        metavar="DIR",
        help="the folder that has its package (default: model-path in [tool.mnist-fp8] of pyproject.toml, else the"
        " current one)",
    )
    parser.add_argument(
        "--model-requirements",
        type=Path,
        metavar="FILE",
        help="a requirements file with further packages that it needs in environments that are made for releases",
    )


def model_to_judge(args: argparse.Namespace, editions: "Sequence[Edition]", keys: Iterable[str]) -> "Model | None":
    """The user's model that is judged; ``None`` if it has no part in what is asked for, or none is named.

    Args:
        args: with the options of `add_model`.
        editions: what it is judged with.
        keys: keys of what is asked for, claims included, or patterns.

    Raises:
        ConfigError: no model is named where one is needed, or it cannot be judged; see `find_model`.
    """
    from mnist_fp8.gate.runner.model import find_model  # noqa: PLC0415 - `--help` needs none of these
    from mnist_fp8.gate.uses import settings  # noqa: PLC0415
    from mnist_fp8.record.record import may_be_of_model  # noqa: PLC0415

    name = args.model or settings.model()
    options = {"--model": args.model, "--model-path": args.model_path, "--model-requirements": args.model_requirements}
    given = [option for option, value in options.items() if value]
    if not name:
        if given:
            raise ConfigError(f"{given[0]} is given, but no model; expected --model PACKAGE:FACTORY with it")
        return None
    if may_be_of_model(name, keys):
        return find_model(name, args.model_path or settings.model_path(), args.model_requirements, editions)
    if given:
        raise ConfigError(
            f"{given[0]} has no part in what is asked for; expected a claim whose name begins with {CLAIMS}, or keys"
            f" that begin with layers/{name}"
        )
    return None


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
