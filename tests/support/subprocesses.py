"""Run a piece of Python in a process of its own: what is imported, and when, shows only there."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 120
NONE: Mapping[str, str] = MappingProxyType({})


def run_python(
    *arguments: str, cwd: Path = ROOT, first_on_path: Path | None = None, variables: Mapping[str, str] = NONE
) -> str:
    """Run the interpreter and return what it printed on standard output.

    Args:
        arguments: the interpreter's, such as ``"-c", "print(1)"``.
        cwd: working directory.
        first_on_path: folder whose packages hide all others of their name.
        variables: environment variables to add.

    Raises:
        AssertionError: it failed; its standard error is in the message.
    """
    path = [str(folder) for folder in (first_on_path, os.environ.get("PYTHONPATH")) if folder]
    environ = os.environ | ({"PYTHONPATH": os.pathsep.join(path)} if path else {}) | dict(variables)
    done = subprocess.run(  # noqa: S603 - our own interpreter and code
        [sys.executable, *arguments],
        cwd=cwd,
        env=environ,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def run_code(
    code: str, *, cwd: Path = ROOT, first_on_path: Path | None = None, variables: Mapping[str, str] = NONE
) -> str:
    """Run lines of code; see `run_python`."""
    return run_python("-c", textwrap.dedent(code), cwd=cwd, first_on_path=first_on_path, variables=variables)


def broken_package(folder: Path, name: str) -> Path:
    """Write a package that cannot be imported and leaves a note when somebody tries.

    Returns:
        The folder, to be put first on the path.
    """
    package = folder / name
    package.mkdir()
    note = folder / f"{name} was imported"
    code = f"from pathlib import Path\nPath({str(note)!r}).touch()\nraise ImportError('a broken {name}')\n"
    (package / "__init__.py").write_text(code)
    return folder


def was_imported(folder: Path, name: str) -> bool:
    """Whether somebody tried to import the package of `broken_package`."""
    return (folder / f"{name} was imported").exists()
