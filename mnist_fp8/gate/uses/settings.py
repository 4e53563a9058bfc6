"""The table ``[tool.mnist-fp8]`` of a user's ``pyproject.toml``: its key ``uses`` lists their sources."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.reading import read_toml

FILE = Path("pyproject.toml")
"""Where the table is looked for: in the current folder."""
_TABLE = "[tool.mnist-fp8]"


def sources(file: Path = FILE) -> tuple[Path, ...]:
    """The sources that a file names; none if there is no such file, or no table in it.

    Raises:
        ConfigError: it cannot be read, or the table says something else; one line that names the key.
    """
    table = _table(file)
    unknown = [key for key in table if key != "uses"]
    if unknown:
        raise ConfigError(f"{_TABLE} of {file} has {unknown[0]!r}; expected nothing but uses")
    named = table.get("uses", [])
    if not isinstance(named, list) or not all(isinstance(each, str) and each for each in named):
        raise ConfigError(f'uses in {_TABLE} of {file} is {named!r}; expected a list of paths, such as ["src"]')
    return tuple(file.parent / each for each in named)


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
