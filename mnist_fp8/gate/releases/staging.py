"""The stage: a copy of what runs in environments of other releases, named by its digest."""

import functools
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import filelock

from mnist_fp8.core.errors import EnvError
from mnist_fp8.core.files import cache_dir, digest_of
from mnist_fp8.gate.releases.processes import MAKING_TIMEOUT_S, explained

PACKAGE_FOLDER = Path(__file__).parents[2]
STAGED = (
    *("__init__.py", "py.typed", "core", "record"),
    *("machine", "oracle", "programs", "te", "training", "subjects", "model", "measure", "plugin"),
)
"""What of the package runs in environments of other releases. Nothing that judges does: results stay valid when it
changes."""
_KEPT_S = 14 * 86400
_READ = (".py", ".pyc", ".so", ".ini", ".toml", ".cfg", "METADATA")
"""Ends of the names of files that Python or pytest would read, wherever they lie in the stage."""
_stages: dict[Path, Mapping[str, str]] = {}
"""Of the stages that this process uses: the digest of each file as it was written, by its name."""


@functools.cache
def stage() -> Path:
    """A folder with copies of the package and its tests, to be the working directory of runs.

    It is made once for each content; its name is the content's digest. One that was edited is made anew.

    Raises:
        EnvError: the tests are missing, or it cannot be written.
    """
    with explained("the copy of the suite"):
        files = _suite_files()
        digests = _digests(files)
        home = cache_dir() / "suite" / digest_of(digests)[:16]
        if os.pathsep in str(home):
            raise EnvError(
                f"the cache folder {cache_dir()} has {os.pathsep!r} in its name: set XDG_CACHE_HOME to another"
            )
        home.parent.mkdir(parents=True, exist_ok=True)
        # Of releases that are judged side by side, the first makes it: another would pull it away from under that one.
        with filelock.FileLock(home.parent.with_name(".suite.lock"), timeout=MAKING_TIMEOUT_S):
            if home.exists() and not _edits(home, digests):
                os.utime(home)
            else:
                _write_stage(files, home)
        _stages[home] = digests
    return home


def _digests(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def _edits(home: Path, written: Mapping[str, str]) -> list[str]:
    """The files of a stage that are not as they were written, and what came and would be read.

    Files that Python does not read may come, such as a checkpoint in the working folder, or what Hypothesis notes.
    """
    found = _digests({str(name): content for name, content in _contents(home, with_bytecode=True).items()})
    changed = [name for name, digest in written.items() if found.get(name) != digest]
    return changed + [name for name in found if name not in written and name.endswith(_READ)]


def check_unchanged(home: Path) -> None:
    """See that nothing that ran in a stage has edited it: what runs there next would be judged by something else.

    Raises:
        EnvError: it has; the stage is made anew by the next command.
    """
    if edits := home in _stages and _edits(home, _stages[home]):
        raise EnvError(
            f"what was judged has changed the suite that judges it, such as {edits[0]}: no result counts;"
            " find what writes to its working folder or to mnist_fp8, and run the same again"
        )


@functools.cache
def measuring_digest() -> str:
    """Digest of the code that measures: the package in the stage, without the tests."""
    files = sorted(file for file in (stage() / PACKAGE_FOLDER.name).rglob("*.py") if file.is_file())
    return digest_of([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])[:16]


def suite_source() -> Path:
    """The folder with the tests: ``suite`` in an installed package, else the repository."""
    inside = PACKAGE_FOLDER / "suite"
    return inside if inside.is_dir() else PACKAGE_FOLDER.parent


def _suite_files() -> dict[str, bytes]:
    """The files of the stage, by their name in it."""
    package, source = PACKAGE_FOLDER, suite_source()
    if not (source / "tests" / "claims").is_dir():
        raise EnvError(f"the tests are missing in {source}: install mnist-fp8 again")
    code = {f"{package.name}/{name}": text for name, text in _contents(package).items() if name.parts[0] in STAGED}
    folders = [source / "tests" / name for name in ("claims", "support")]
    tests = {f"tests/{each.name}/{name}": text for each in folders for name, text in _contents(each).items()}
    settings = {name: (source / name).read_bytes() for name in ("conftest.py", "pytest.ini", "tests/expectations.toml")}
    return code | tests | settings


def _contents(folder: Path, *, with_bytecode: bool = False) -> dict[Path, bytes]:
    """What is in a folder."""
    files = (file.relative_to(folder) for file in sorted(folder.rglob("*")) if file.is_file())
    return {file: (folder / file).read_bytes() for file in files if with_bytecode or "__pycache__" not in file.parts}


def distribution_metadata(package: str, version: str) -> dict[str, bytes]:
    """What makes a folder on the path count as an installed package."""
    text = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
    return {f"{package}-{version}.dist-info/METADATA": text.encode()}


def write_tree(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files, by their name in a folder, and the folders that they need."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _write_stage(files: Mapping[str, bytes], home: Path) -> None:
    """Write files so that the folder is never seen half-made, in place of one that was edited."""
    forget_unused(home.parent)
    partial = Path(tempfile.mkdtemp(dir=home.parent, prefix=".partial-"))
    write_tree(files, partial)
    if home.exists():
        home.rename(partial.with_name(f"{partial.name}-edited"))
        shutil.rmtree(partial.with_name(f"{partial.name}-edited"), ignore_errors=True)
    partial.rename(home)


def forget_unused(folder: Path) -> None:
    """Remove what has not been used for long."""
    for old in folder.iterdir() if folder.is_dir() else ():
        if time.time() - old.stat().st_mtime > _KEPT_S:
            shutil.rmtree(old, ignore_errors=True)
