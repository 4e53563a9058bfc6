"""The installed Transformer Engine as the subject of faults: its source, and how a changed file takes effect."""

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from shutil import copytree, ignore_patterns
from types import CodeType, ModuleType

PACKAGE = "transformer_engine"


def folder() -> Path:
    """The installed package's folder, found without importing it.

    Raises:
        LookupError: it is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise LookupError(f"{PACKAGE} is not installed")
    return Path(spec.origin).parent


def read(file: str) -> str:
    """Source of one of its files, named from its folder: ``jax/dense.py``."""
    return (folder() / file).read_text()


def copy(into: Path) -> Path:
    """Copy the package into a folder, without compiled code; the copy's own folder."""
    return copytree(folder(), into / PACKAGE, ignore=ignore_patterns("__pycache__"))


def replace(file: str, source: str) -> None:
    """Let the coming import of a file of the package see another source. Nothing is written to disk."""
    sys.meta_path.insert(0, _Replaced(folder() / file, source))


class _Replaced(MetaPathFinder):
    """Finds every module where it is, and gives one of them another source."""

    def __init__(self, path: Path, source: str) -> None:
        self._path, self._source = path, source

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Answer for the one module, and for no other."""
        if fullname.partition(".")[0] != PACKAGE:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin is None or Path(spec.origin) != self._path:
            return None
        spec.loader = _ReplacedLoader(fullname, spec.origin, self._source)
        return spec


class _ReplacedLoader(SourceFileLoader):
    """Compiles the given source; neither the file nor its cached bytecode is looked at."""

    def __init__(self, fullname: str, path: str, source: str) -> None:
        super().__init__(fullname, path)
        self._source = source

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 - the loader's interface
        """Compile the given source."""
        return compile(self._source, self.path, "exec", dont_inherit=True)
