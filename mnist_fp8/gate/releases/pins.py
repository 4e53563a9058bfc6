"""What a requirements file asks for: the Transformer Engine that it pins, or other packages; read as pip reads it."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.reading import encoding_of
from mnist_fp8.core.requirements import applies
from mnist_fp8.gate.releases.catalogue import DISTRIBUTION

_CHOSEN = ("jax", "jaxlib", "flax")
"""What each release is judged with in versions that are known to work."""
_INDEX_OPTIONS = ("-i", "--index-url", "--extra-index-url", "-f", "--find-links", "--no-index")
_INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS")


def pinned(path: Path) -> str:
    """The version that a requirements file pins, itself or in files that it includes by ``-r``.

    Raises:
        ConfigError: it cannot be read, pins none or several, or installs from what would not be asked.
    """
    named = [(file, each) for file, each in _asked(path, ()) if isinstance(each, Requirement)]
    found = [(file, requirement) for file, requirement in named if _concerns(requirement)]
    if len(found) != 1:
        raise ConfigError(
            f"requirements file {path} pins {DISTRIBUTION} {len(found)} times;"
            f" expected one line {DISTRIBUTION}==VERSION"
        )
    ((file, requirement),) = found
    if requirement.url:
        raise ConfigError(
            f"requirements file {file} installs {DISTRIBUTION} from {requirement.url}: get it from there, and name"
            " the folder or the wheel instead of the file"
        )
    exact = {each.version for each in requirement.specifier if each.operator in ("==", "===")}
    if (
        len(exact) != 1
        or "*" in (version := exact.pop())
        or not requirement.specifier.contains(version, prereleases=True)
    ):
        raise ConfigError(f"requirements file {file} has {requirement}; expected one version: {DISTRIBUTION}==VERSION")
    return version


def packages(path: Path) -> tuple[str, ...]:
    """The packages that a requirements file asks for, itself or in files that it includes, beside what is judged.

    Raises:
        ConfigError: it cannot be read, asks for what each release has in versions of its own, for what has no name, or
            for what can change where it lies.
    """
    found = []
    for file, each in _asked(path, ()):
        if isinstance(each, str) or (each.url or "").startswith("file:"):
            raise ConfigError(f"requirements file {file} has {each}; expected packages by name, such as einops==0.8.1")
        name = canonicalize_name(each.name)
        if name in _CHOSEN or name.startswith(DISTRIBUTION):  # whose parts are packages, too
            raise ConfigError(
                f"requirements file {file} has {each}, but each release is judged with a {name} of its own: leave"
                f" out {', '.join(_CHOSEN)} and {DISTRIBUTION}"
            )
        if applies(each):
            found.append(str(each))
    return tuple(found)


def _concerns(requirement: Requirement) -> bool:
    """Whether a requirement is Transformer Engine for the Python that runs."""
    return canonicalize_name(requirement.name) == DISTRIBUTION and applies(requirement)


def _asked(path: Path, above: tuple[Path, ...]) -> Iterator[tuple[Path, Requirement | str]]:
    """What a file and those that it includes ask for: by name, or the line of a folder, a URL or an option."""
    for line in _lines(path):
        option, _, value = line.replace("=", " ", 1).partition(" ") if line.startswith("-") else ("", "", "")
        if option in ("-r", "--requirement"):
            included = path.parent / value.strip()
            if included.resolve() in above:
                raise ConfigError(f"requirements file {path} includes {value.strip()}, which includes it")
            yield from _asked(included, (*above, path.resolve()))
        elif option in _INDEX_OPTIONS:
            _check_index(path, option, value.strip())
        else:
            try:
                yield path, Requirement(re.split(r"\s--?[a-z]", line)[0])
            except InvalidRequirement:
                yield path, line


def _check_index(path: Path, option: str, place: str) -> None:
    """An index that pip would ask, and we not, may have another release of that version."""
    known = [word for name in _INDEX_VARIABLES for word in os.environ.get(name, "").split()]
    if place.rstrip("/") not in {word.rpartition("=")[2].rstrip("/") for word in known}:
        raise ConfigError(
            f"requirements file {path} has {option} {place}".rstrip()
            + ", which is not used: set UV_DEFAULT_INDEX (or UV_INDEX, UV_FIND_LINKS) to the same, or name the version"
        )


def _lines(path: Path) -> list[str]:
    """Lines without comments, those that go on joined."""
    try:
        content = path.read_bytes()
        text = content.decode(encoding_of(content))
    except OSError as error:
        raise ConfigError(f"requirements file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"requirements file {path} is not text in {error.encoding}: save it in UTF-8") from error
    lines = re.sub(r"\\\r?\n", " ", text).splitlines()
    return [line for each in lines if (line := re.sub(r"(^|\s)#.*", "", each).strip())]
