"""The table ``[tool.mnist-fp8]`` of a user's ``pyproject.toml``: their sources, and the layers that they care for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.reading import read_toml
from mnist_fp8.core.subjects import parse_subjects

FILE = Path("pyproject.toml")
"""Where the table is looked for: in the current folder."""
_TABLE = "[tool.mnist-fp8]"
_KEYS = {"uses": 'paths, such as ["src"]', "subjects": 'layers, such as ["LayerNormMLP"]'}
"""What each key lists, with an example."""


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


def _listed(file: Path, key: str) -> list[str]:
    table = _table(file)
    unknown = [name for name in table if name not in _KEYS]
    if unknown:
        raise ConfigError(f"{_TABLE} of {file} has {unknown[0]!r}; expected nothing but {' and '.join(_KEYS)}")
    named = table.get(key, [])
    if not isinstance(named, list) or not all(isinstance(each, str) and each for each in named):
        raise ConfigError(f"{key} in {_TABLE} of {file} is {named!r}; expected a list of {_KEYS[key]}")
    return named


def _table(file: Path) -> Mapping[str, Any]:
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
    return table
