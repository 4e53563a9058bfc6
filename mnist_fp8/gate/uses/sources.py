"""The files of a user in which Transformer Engine may be named, and their text."""

import codecs
import dataclasses
import enum
import io
import os
import stat
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.reading import encoding_of
from mnist_fp8.gate.uses.use import Place, Unread
from mnist_fp8.record.names import PACKAGE

_LEFT_OUT = {"__pycache__", "node_modules", "site-packages", "build", "dist", "_build", "_skbuild"}
"""Folders that are not entered unless they are packages; nor are hidden ones, environments and copies of TE itself."""
_OF_ENVIRONMENTS = ("pyvenv.cfg", "conda-meta")
_CONFIGURATIONS = {".yaml", ".yml", ".toml", ".json", ".cfg", ".ini", ".gin"}


class Kind(enum.Enum):
    """What a file holds."""

    PYTHON = "Python"
    NOTEBOOK = "a notebook"
    CONFIGURATION = "configuration"

    @property
    def largest(self) -> int:
        """Bytes of one that is read: a notebook holds pictures; the tree of 2 MiB of Python takes up to 300 MiB."""
        return (32 if self is Kind.NOTEBOOK else 2) << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """A file.

    Attributes:
        path: where it really is.
        shown: as the user named its folder, with slashes.
        kind: what it holds.
        stamp: device, inode, size and times: what tells it from what it was.
    """

    path: str
    shown: str
    kind: Kind
    stamp: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Sources:
    """The files below some paths.

    Attributes:
        files: each once, in the order of their paths.
        unread: what is no file, or cannot be read.
        left_out: how many folders were not entered.
    """

    files: tuple[Source, ...]
    unread: tuple[Unread, ...]
    left_out: int


class UnreadableError(Exception):
    """A file cannot be looked at.

    Attributes:
        reason: why, in a few words.
        line: where it is about one; else 0.
    """

    def __init__(self, reason: str, line: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line


def find_sources(paths: Sequence[Path]) -> Sources:
    """The Python files, notebooks and files of configuration below some paths.

    Args:
        paths: files, which are read whatever their names are, and folders.

    Raises:
        ConfigError: a path leads nowhere.
    """
    walk = _Walk()
    for path in paths:
        walk.add(path)
    return Sources(
        tuple(walk.files[path] for path in sorted(walk.files)),
        tuple(sorted(walk.unread, key=lambda unread: unread.place.order)),
        walk.left_out,
    )


def read_source(source: Source) -> bytes:
    """The content of a file.

    Raises:
        UnreadableError: it cannot be read, or is too large.
    """
    largest = source.kind.largest
    try:
        with Path(source.path).open("rb") as file:
            content = file.read(largest + 1)
    except OSError as error:
        raise UnreadableError(error.strerror or "it cannot be read") from error
    if len(content) > largest:
        raise UnreadableError(f"it is larger than {largest >> 20} MiB")
    return content


def decode(content: bytes, *, is_python: bool) -> str:
    """The text of a file, in the encoding that its mark or, in Python, its first lines name.

    Raises:
        UnreadableError: it is no text in that encoding.
    """
    encoding = encoding_of(content)
    try:
        if is_python:
            encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        return content.decode(encoding)
    except SyntaxError as error:
        raise UnreadableError(f"this Python cannot parse it: {error.msg}", 1) from None
    except (UnicodeError, LookupError):
        raise UnreadableError(f"it is no text in {encoding.removesuffix('-sig').upper()}") from None


def names_package(source: Source) -> bool:
    """Whether the text of a file names the package, or cannot be read; the file may be too large to be read at once."""
    name, before = PACKAGE.encode(), b""
    try:
        with Path(source.path).open("rb") as file:
            while block := file.read(2**22):
                if name in before + block:
                    return True
                before = block[-len(name) :]
    except OSError:
        return True
    return False


class _Walk:
    """What was found so far."""

    def __init__(self) -> None:
        self.files: dict[str, Source] = {}
        self.unread: list[Unread] = []
        self.left_out = 0
        self._entered: set[tuple[int, int]] = set()

    def add(self, path: Path) -> None:
        """Add what a path of the user's leads to."""
        shown = path.as_posix()
        try:
            status = path.stat()
        except (OSError, ValueError) as error:
            raise ConfigError(f"there is no file or folder {shown}; expected your sources") from error
        if stat.S_ISDIR(status.st_mode):
            self._enter(os.path.realpath(path), "" if shown == "." else f"{shown.rstrip('/')}/", status)
        else:
            self._add_file(os.path.realpath(path), shown, _kind(path.name) or Kind.PYTHON, status)

    def _enter(self, folder: str, shown: str, status: os.stat_result) -> None:
        """Add what is in a folder and below it: a list of open folders, since they may lie deep."""
        folders = [(folder, shown, status)]
        while folders:
            folder, shown, status = folders.pop()
            if (status.st_dev, status.st_ino) in self._entered:  # by another link, or by another path of the user's
                continue
            self._entered.add((status.st_dev, status.st_ino))
            try:
                with os.scandir(folder) as entries:
                    for entry in sorted(entries, key=lambda entry: entry.name):
                        folders += self._entry(entry, shown)
            except OSError as error:
                self._refuse(shown.rstrip("/") or ".", error.strerror or "it cannot be read")

    def _entry(self, entry: os.DirEntry[str], shown: str) -> Iterator[tuple[str, str, os.stat_result]]:
        name = os.fsencode(entry.name).decode(errors="replace")
        kind = _kind(entry.name)
        try:
            if entry.is_dir():
                if _is_left_out(entry):
                    self.left_out += 1
                else:
                    yield os.path.realpath(entry.path), f"{shown}{name}/", entry.stat()
            elif kind or _is_script(entry):
                path = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
                self._add_file(path, f"{shown}{name}", kind or Kind.PYTHON, entry.stat())
        except OSError as error:
            if kind:
                self._refuse(f"{shown}{name}", error.strerror or "it cannot be read")

    def _add_file(self, path: str, shown: str, kind: Kind, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):  # opening it could wait for ever
            self._refuse(shown, "it is no regular file")
            return
        stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        self.files.setdefault(path, Source(path, shown, kind, stamp))

    def _refuse(self, shown: str, reason: str) -> None:
        self.unread.append(Unread(Place(shown, 0), reason, may_use=True))


def _kind(name: str) -> Kind | None:
    suffix = Path(name).suffix.lower()
    if suffix == ".py":
        return Kind.PYTHON
    if suffix == ".ipynb":
        return Kind.NOTEBOOK
    return Kind.CONFIGURATION if suffix in _CONFIGURATIONS else None


def _is_left_out(folder: os.DirEntry[str]) -> bool:
    name = folder.name
    if name.startswith(".") or any(os.path.lexists(f"{folder.path}/{mark}") for mark in _OF_ENVIRONMENTS):
        return True
    is_package = os.path.lexists(f"{folder.path}/__init__.py")
    is_built = name in _LEFT_OUT or name.endswith(".egg-info")
    return is_package if name == PACKAGE else is_built and not is_package


def _is_script(entry: os.DirEntry[str]) -> bool:
    """Whether a file without a suffix says that Python runs it."""
    if "." in entry.name or not entry.is_file() or not entry.stat().st_mode & stat.S_IXUSR:
        return False
    with Path(entry.path).open("rb") as file:
        first = file.readline(100)
    return first.removeprefix(codecs.BOM_UTF8).startswith(b"#!") and b"python" in first
