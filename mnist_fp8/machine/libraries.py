"""TE's compiled libraries, what they need, and the folders in which the loader looks."""

import glob
import importlib.machinery
import importlib.util
import mmap
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LOADER_CONFIGURATION = Path("/etc/ld.so.conf")
LOADER_STANDARD = (Path("/lib64"), Path("/usr/lib64"), Path("/lib"), Path("/usr/lib"))
_HOMES = ("CUDNN_HOME", "CUDNN_PATH", "CUDA_HOME", "CUDA_PATH")
"""Variables that name folders in which TE looks for libraries before it asks the loader."""


@dataclass(frozen=True)
class Library:
    """A shared library and the names of those that it asks the loader for."""

    path: Path
    needs: tuple[str, ...] = ()


def find_te_libraries(prefix: str) -> tuple[Library, ...]:
    """The shared libraries of that name in the folders in which TE looks for its own."""
    return tuple(Library(path, needed_libraries(path)) for path in te_library_files(prefix))


def te_library_files(prefix: str) -> list[Path]:
    """Files of the shared libraries of that name in the folders in which TE looks for its own; nothing is read."""
    spec = importlib.util.find_spec("transformer_engine")
    if spec is None or spec.origin is None:
        return []
    package = Path(spec.origin).parent
    folders = (package / "wheel_lib", package, package.parent)
    return [path for folder in folders for path in sorted(folder.glob(f"{prefix}*.so"))]


def te_packages(path: Sequence[str]) -> tuple[Path, ...]:
    """The folders of ``transformer_engine`` that a search path leads to; the first of them is imported."""
    folders = (Path(place).resolve() / "transformer_engine" for place in path)
    return tuple(dict.fromkeys(folder for folder in folders if (folder / "__init__.py").is_file()))


def needed_libraries(path: Path) -> tuple[str, ...]:
    """Names of the libraries that a library asks the loader for, read from its file; none if it is no 64-bit ELF."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as image:
            return tuple(_needed(image)) if image[:6] == b"\x7fELF\x02\x01" else ()
    except (OSError, ValueError, struct.error):  # an empty file, or one that ends too early
        return ()


_LOADED, _DYNAMIC = 1, 2  # types of a segment
_NEEDED, _STRINGS = 1, 5  # tags of an entry in the dynamic segment


def _needed(image: mmap.mmap) -> Iterator[str]:
    (table,) = struct.unpack_from("<Q", image, 32)
    size, count = struct.unpack_from("<HH", image, 54)
    segments = [struct.unpack_from("<IIQQQQ", image, table + size * index) for index in range(count)]
    entries = [
        struct.unpack_from("<qQ", image, start + step)
        for kind, _, start, _, _, length in segments
        if kind == _DYNAMIC
        for step in range(0, length, 16)
    ]
    address = next((value for tag, value in entries if tag == _STRINGS), 0)
    strings = next(
        address - virtual + start
        for kind, _, start, virtual, _, length in segments
        if kind == _LOADED and virtual <= address < virtual + length
    )
    for tag, value in entries:
        if tag == _NEEDED:
            yield image[strings + value : image.find(b"\0", strings + value)].decode()


def configured_folders(file: Path) -> Iterator[Path]:
    """The folders that a configuration file of the loader names, itself or in files that it includes."""
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else ():
        words = line.partition("#")[0].split()
        if words[:1] == ["include"]:
            for pattern in words[1:]:
                for included in sorted(glob.glob(str(file.parent / pattern))):  # noqa: PTH207 - it can be absolute
                    yield from configured_folders(Path(included))
        elif words:
            yield Path(words[0])


def folders_in(environ: Mapping[str, str]) -> Iterator[Path]:
    """Folders that a variable of the loader's kind lists."""
    for home in (*(environ.get(name) for name in _HOMES), "/usr/local/cuda"):
        if home:
            yield from sorted(folder for folder in Path(home).glob("lib*") if folder.is_dir())


def wheel_folders() -> Iterator[Path]:
    """Folders in which NVIDIA's wheels put their libraries."""
    spec = importlib.util.find_spec("nvidia")
    for location in spec.submodule_search_locations or () if spec else ():
        yield from sorted(Path(location).glob("*/lib"))
