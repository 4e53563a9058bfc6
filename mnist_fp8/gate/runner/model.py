"""A user's model, as the runs are told of it that measure and judge it. It is looked at here, and never imported."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mnist_fp8.core.errors import ConfigError, EnvError
from mnist_fp8.core.files import digest_of
from mnist_fp8.core.model import CONTENTS, FOLDER, VARIABLE, parse_model
from mnist_fp8.gate.releases import pins
from mnist_fp8.gate.releases.contents import MODULES, digests
from mnist_fp8.gate.releases.editions import Edition, EditionKind

MOST_FOLDERS = 10_000
"""That are looked through for modules: a second or two."""
_MODULES = (".py", ".so", ".pyc")
_SETTINGS = (".yaml", ".yml", ".toml", ".gin", ".ini", ".cfg")
"""Ends of the names of files that many models are configured by."""


@dataclasses.dataclass(frozen=True)
class Model:
    """A user's model.

    Attributes:
        name: ``package.module:factory``.
        folder: where its package lies; ``None`` if it is installed where it is judged.
        contents: digest of all modules and settings in the folder: it may read any of them. Empty without a folder.
        packages: requirements of what it needs in environments that are made for it.
    """

    name: str
    folder: Path | None = None
    contents: str = ""
    packages: tuple[str, ...] = ()

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that tell a run of it."""
        place = {FOLDER: str(self.folder), CONTENTS: self.contents} if self.folder else {}
        return {VARIABLE: self.name, **place}

    @property
    def imported(self) -> tuple[str, ...]:
        """The package that an interpreter has, whose content is part of the installation's then."""
        return () if self.folder else (_package(self.name),)


def find_model(name: str, folder: Path | None, requirements: Path | None, editions: Sequence[Edition]) -> Model:
    """Find the package of a user's model.

    Args:
        name: ``package.module:factory``.
        folder: where its package is said to lie; ``None`` is the current folder, or where it is installed.
        requirements: file with packages that it needs besides.
        editions: what it is judged with.

    Raises:
        ConfigError: it has no such name, its package lies nowhere, or there are packages for an interpreter.
    """
    package = _package(name)
    packages = _packages(requirements, editions) if requirements else ()
    place = (folder or Path()).resolve()
    if not os.path.isdir(place):  # noqa: PTH112 - a name that is too long is none
        raise ConfigError(f"model path {folder} is no folder; expected the one that has {package}/ or {package}.py")
    if _has(place, package):
        return Model(name, place, _contents(place), packages)
    can_be_installed = packages or all(each.kind is EditionKind.INTERPRETER for each in editions)
    if folder is None and can_be_installed:
        return Model(name, packages=packages)
    raise ConfigError(
        f"model {name} lies in a package {package}, but there is no {package}/ and no {package}.py in {place}:"
        " expected --model-path with the folder that has it"
    )


def check_unedited(variables: Mapping[str, str]) -> None:
    """See that the code of a user's model is still that of which a run was told: its result would be kept for another.

    Args:
        variables: that told the run.

    Raises:
        EnvError: it is not.
    """
    folder = variables.get(FOLDER)
    if folder and _contents(Path(folder)) != variables[CONTENTS]:
        raise EnvError(f"code in {folder} changed while the model was judged: no result counts; run the same again")


def _package(name: str) -> str:
    module, _ = parse_model(name)
    return module.partition(".")[0]


def _packages(requirements: Path, editions: Sequence[Edition]) -> tuple[str, ...]:
    for each in editions:
        if each.kind is EditionKind.INTERPRETER:
            raise ConfigError(
                f"{each.label} is judged with the packages that it has: install those of {requirements} there, and"
                " leave out --model-requirements"
            )
    return pins.packages(requirements)


def _has(folder: Path, package: str) -> bool:
    """Whether a package of that name, or a module, lies in a folder."""
    files = (file for file in folder.glob(f"{package}.*") if file.suffix in _MODULES)
    return (folder / package).is_dir() or any(file.is_file() for file in files)


def _contents(folder: Path) -> str:
    try:
        return digest_of(digests(folder, endings=(*MODULES, *_SETTINGS), most_folders=MOST_FOLDERS))[:16]
    except ConfigError as error:
        raise ConfigError(
            f"model path {folder}: {error}; expected --model-path with a folder that has the model's code alone"
        ) from error
    except OSError as error:
        raise ConfigError(f"model path {folder}: {error.filename} cannot be read: {error.strerror}") from error
