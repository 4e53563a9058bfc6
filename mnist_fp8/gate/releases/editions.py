"""The Transformer Engine to be judged, as a person names it."""

import enum
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

from mnist_fp8.core.errors import ConfigError, EnvError
from mnist_fp8.gate.releases import uv
from mnist_fp8.gate.releases.catalogue import DISTRIBUTION, is_version, most_similar_release, releases
from mnist_fp8.gate.releases.interpreters import probe, users_path
from mnist_fp8.gate.releases.pins import pinned
from mnist_fp8.record.names import PACKAGE


class EditionKind(enum.Enum):
    """Where a Transformer Engine comes from."""

    RELEASE = "release"
    WHEEL = "wheel"
    FOLDER = "folder"
    INTERPRETER = "interpreter"


@dataclass(frozen=True)
class Edition:
    """A Transformer Engine to be judged.

    Attributes:
        kind: where it comes from.
        where: the release's version, or an absolute path.
        version: of Transformer Engine; a folder's is that of the release that it resembles most, if it names none.
    """

    kind: EditionKind
    where: str
    version: str

    @property
    def label(self) -> str:
        """How reports name it, such as ``2.19.0`` or ``folder /x``."""
        match self.kind:
            case EditionKind.RELEASE:
                return self.version
            case EditionKind.WHEEL:
                return Path(self.where).name
            case EditionKind.FOLDER:
                return f"folder {self.where}"
            case EditionKind.INTERPRETER:
                return f"python {self.where}"


def parse_edition(text: str) -> Edition:
    """The edition that a person names: a version, a wheel, a folder that holds ``transformer_engine``, an interpreter.

    Raises:
        ConfigError: it is none of these.
        EnvError: it is an interpreter that cannot be judged; see `interpreter_edition`.
    """
    path = Path(text).absolute()
    if text == "newest":  # whatever is called so here: ./newest names that
        text = newest_release()
    elif text.endswith(".whl"):
        return _wheel_edition(path)
    elif text.endswith(".txt") and not path.is_dir():
        text = pinned(Path(text))
    elif text and path.is_dir() and not is_version(text):
        return _folder_edition(path)
    elif path.is_file() and not is_version(text):
        return interpreter_edition(path)
    if not is_version(text.removeprefix("te")):  # as tox names its environments
        raise ConfigError(
            f"{text!r} is no Transformer Engine: expected a version such as {releases()[-1]}, the word newest, or an"
            " existing wheel, folder that holds transformer_engine, requirements file (.txt), or Python interpreter"
        )
    named = Version(text.removeprefix("te"))
    version = next((known for known in releases() if Version(known) == named), str(named))
    return Edition(EditionKind.RELEASE, version, version)


def newest_release(requirement: str = DISTRIBUTION) -> str:
    """The newest release on the package index that fits.

    Raises:
        EnvError: the index cannot be asked, or has none.
    """
    printed = uv.resolve([requirement], "--no-deps", "--no-build", what=f"the list of releases of {DISTRIBUTION}")
    return printed.strip().partition("==")[2]


def _wheel_edition(path: Path) -> Edition:
    if not path.is_file():
        raise ConfigError(f"wheel {path} does not exist")
    try:
        name, version, _, _ = parse_wheel_filename(path.name)
    except InvalidWheelFilename as error:
        raise ConfigError(f"wheel {path} does not say its version: {error}") from error
    if name != DISTRIBUTION:
        raise ConfigError(f"wheel {path} holds {name}; expected {DISTRIBUTION}")
    return Edition(EditionKind.WHEEL, str(path), str(version))


def _folder_edition(path: Path) -> Edition:
    package = path / PACKAGE
    if os.pathsep in str(path):
        raise ConfigError(
            f"folder {path} has {os.pathsep!r} in its name, which separates folders on Python's path: rename it"
        )
    if not (package / "__init__.py").is_file():
        raise ConfigError(f"folder {path} holds no {PACKAGE}/__init__.py")
    versions = sorted(set(_versions_beside(path)))
    if len(versions) > 1:  # Python would take one of them, and the claims what is known of that release
        raise ConfigError(f"folder {path} has metadata of {DISTRIBUTION} {' and '.join(versions)}: leave one there")
    return Edition(EditionKind.FOLDER, str(path), versions[0] if versions else most_similar_release(package))


def _versions_beside(folder: Path) -> Iterator[str]:
    """The versions that metadata in a folder say, as a run there reads them; else those in their names."""
    for place in (*folder.glob(f"{PACKAGE}-*.dist-info"), *folder.glob(f"{PACKAGE}*.egg-info")):
        found = metadata.PathDistribution(place)
        noted = found.read_text("METADATA") or found.read_text("PKG-INFO")
        version = found.version if noted else place.stem.partition("-")[2]
        if version and is_version(version):
            yield version


def interpreter_edition(python: Path) -> Edition:
    """The Transformer Engine that a Python interpreter has.

    Raises:
        ConfigError: there is no such interpreter.
        EnvError: it does not answer, is too old for the suite, or has no Transformer Engine.
    """
    python = python.absolute()  # links stay: a virtual environment's interpreter is one
    if os.pathsep in str(python):
        raise ConfigError(
            f"interpreter {python} has {os.pathsep!r} in its name, which separates folders on PATH: rename it"
        )
    if not (python.is_file() and os.access(python, os.X_OK)):
        raise ConfigError(f"interpreter {python} cannot be run: expected a Python executable")
    facts = probe(python, pythonpath=users_path())
    if facts.package is None:
        raise EnvError(f"python {python} has no {PACKAGE}: install it there, or name a release to verify")
    version = facts.distributions.get(DISTRIBUTION) or most_similar_release(facts.package)
    return Edition(EditionKind.INTERPRETER, str(python), version)
