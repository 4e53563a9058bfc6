"""The table ``[tool.mnist-fp8]`` of a user's ``pyproject.toml``: their sources, layers they care for, their model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.model import parse_model
from mnist_fp8.core.reading import read_toml
from mnist_fp8.core.subjects import parse_subjects

FILE = Path("pyproject.toml")
"""Where the table is looked for: in the current folder."""
_TABLE = "[tool.mnist-fp8]"
_KEYS = {
    "uses": 'a list of paths, such as ["src"]',
    "subjects": 'a list of layers, such as ["LayerNormMLP"]',
    "model": 'a factory, such as "ours.model:case"',
    "model-path": 'a folder, such as "src"',
}
"""What each key is, with an example."""


def sources(file: Path = FILE) -> tuple[Path, ...]:
    """The sources that a file names; none if there is no such file, or no table in it.

    Raises:
        ConfigError: it cannot be read, or the table says something else; one line that names the key.
    """
    return tuple(file.parent / each for each in _listed(file, "uses"))


def subjects(file: Path = FILE) -> tuple[str, ...]:
    """The layers that a file names, and the one that always is; as `sources`."""
    named = _listed(file, "subjects")
    try:
        return parse_subjects(",".join(named)) if named else ()
    except ConfigError as error:
        raise ConfigError(f"subjects in {_TABLE} of {file}: {error}") from error


def model(file: Path = FILE) -> str | None:
    """The user's model that a file names, as ``package.module:factory``; ``None`` if it names none; as `sources`."""
    named = _text(file, "model")
    try:
        if named is not None:
            parse_model(named)
    except ConfigError as error:
        raise ConfigError(f"model in {_TABLE} of {file}: {error}") from error
    return named


def model_path(file: Path = FILE) -> Path | None:
    """The folder that has the model's package, where a file names one; as `sources`."""
    named = _text(file, "model-path")
    return None if named is None else file.parent / named


def _text(file: Path, key: str) -> str | None:
    named = _table(file).get(key)
    if not (named is None or (isinstance(named, str) and named)):
        raise _other(file, key, named)
    return named


def _listed(file: Path, key: str) -> list[str]:
    named = _table(file).get(key, [])
    if not isinstance(named, list) or not all(isinstance(each, str) and each for each in named):
        raise _other(file, key, named)
    return named


def _other(file: Path, key: str, found: object) -> ConfigError:
    return ConfigError(f"{key} in {_TABLE} of {file} is {found!r}; expected {_KEYS[key]}")


def _table(file: Path) -> Mapping[str, Any]:
    """The table, with no keys but those that there are."""
    try:
        document = read_toml(file)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{file} is no TOML file: {error}") from error
    tool = document.get("tool", {})
    table = tool.get("mnist-fp8", {}) if isinstance(tool, Mapping) else tool
    if not isinstance(table, Mapping):
        raise ConfigError(f"{_TABLE} of {file} is {table!r}; expected a table")
    if unknown := [name for name in table if name not in _KEYS]:
        raise ConfigError(f"{_TABLE} of {file} has {unknown[0]!r}; expected nothing but {', '.join(_KEYS)}")
    return table
