"""What this machine has of what Transformer Engine needs: versions, driver, GPUs, libraries.

Neither JAX nor TE is imported, no process is started and no library but the driver's is loaded: all of it can be asked
where they do not work, and before JAX starts.
"""

import ctypes
import glob
import importlib.machinery
import importlib.util
import mmap
import os
import platform
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from mnist_fp8.config import RunKind, requested_run_kind

CUDA_MAJORS = (12, 13)
"""The CUDAs that JAX has plugins for."""

_PACKAGES = (
    *("jax", "jaxlib", "flax", "transformer-engine", "transformer-engine-jax", "nvidia-cuda-runtime"),
    *(f"jax-cuda{major}-{part}" for major in CUDA_MAJORS for part in ("plugin", "pjrt")),
    *(f"{name}-cu{major}" for major in CUDA_MAJORS for name in ("transformer-engine", "nvidia-cudnn")),
    "nvidia-cuda-runtime-cu12",  # the wheel for CUDA 13 has no such ending
)
_LOADER_CONFIGURATION = Path("/etc/ld.so.conf")
_LOADER_STANDARD = (Path("/lib64"), Path("/usr/lib64"), Path("/lib"), Path("/usr/lib"))
_HOMES = ("CUDNN_HOME", "CUDNN_PATH", "CUDA_HOME", "CUDA_PATH")
"""Variables that name folders in which TE looks for libraries before it asks the loader."""


@dataclass(frozen=True)
class Package:
    """An installed package, by its metadata.

    Attributes:
        version: its version.
        python: the Pythons that it is for, such as ``>=3.11``; empty if it does not say.
        requires: its requirements, as they are written.
    """

    version: str
    python: str = ""
    requires: tuple[str, ...] = ()

    def needs(self, name: str, extra: str = "") -> str:
        """The versions of another package that it can use, such as ``<=0.10.2,>=0.10.1``; empty for any."""
        for text in self.requires:
            try:
                requirement = Requirement(text)
            except InvalidRequirement:
                continue
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
            if canonicalize_name(requirement.name) == name and applies:
                return str(requirement.specifier)
        return ""


@dataclass(frozen=True)
class Gpu:
    """A GPU that the driver shows: its name and compute capability."""

    name: str
    capability: tuple[int, int]


@dataclass(frozen=True)
class Driver:
    """What the NVIDIA driver says.

    Attributes:
        cuda: the newest CUDA that it can run; ``(0, 0)`` where there is no driver.
        gpus: the GPUs that CUDA sees, in its order.
        error: why it has none; empty if it has.
    """

    cuda: tuple[int, int] = (0, 0)
    gpus: tuple[Gpu, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Library:
    """A shared library and the names of those that it asks the loader for."""

    path: Path
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Machine:
    """All that is looked at.

    Attributes:
        python: version of this Python.
        suffixes: ends of the file names of extensions that this Python can load.
        requested: the kind of run that ``MNIST_FP8_TE`` forces.
        platforms: what ``JAX_PLATFORMS`` restricts JAX to; empty for nothing.
        packages: those installed, by name.
        driver: the NVIDIA driver.
        core: files that TE could take for its CUDA library.
        extension: files that TE could take for its JAX extension.
        homes: folders of CUDA and cuDNN that TE looks into by itself.
        library_path: folders of ``LD_LIBRARY_PATH``, which the loader searches first.
        system: the loader's other folders.
        wheels: folders of libraries in NVIDIA's wheels.
    """

    python: str
    suffixes: tuple[str, ...]
    requested: RunKind | None
    platforms: str
    packages: Mapping[str, Package]
    driver: Driver
    core: tuple[Library, ...]
    extension: tuple[Library, ...]
    homes: tuple[Path, ...]
    library_path: tuple[Path, ...]
    system: tuple[Path, ...]
    wheels: tuple[Path, ...]


def look(environ: Mapping[str, str] = os.environ) -> Machine:
    """Look at this machine and this Python.

    Raises:
        ConfigError: ``MNIST_FP8_TE`` is neither ``kernel`` nor ``host``.
    """
    return Machine(
        python=platform.python_version(),
        suffixes=tuple(importlib.machinery.EXTENSION_SUFFIXES),
        requested=requested_run_kind(environ),
        platforms=environ.get("JAX_PLATFORMS", ""),
        packages=find_packages(),
        driver=find_driver(),
        core=find_te_libraries("libtransformer_engine"),
        extension=find_te_libraries("transformer_engine_jax"),
        homes=tuple(_folders_in(environ)),
        library_path=tuple(Path(folder) for folder in environ.get("LD_LIBRARY_PATH", "").split(":") if folder),
        system=tuple(dict.fromkeys((*configured_folders(_LOADER_CONFIGURATION), *_LOADER_STANDARD))),
        wheels=tuple(_wheel_folders()),
    )


# --- packages ------------------------------------------------------------------------------------------------------


def find_packages() -> dict[str, Package]:
    """The installed packages that matter, by name."""
    found = {name: _package(name) for name in _PACKAGES}
    return {name: package for name, package in found.items() if package}


def _package(name: str) -> Package | None:
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
    about = distribution.metadata
    # Not by `about[field]`: since Python 3.12 that warns of a field that is not there.
    version, python = ((about.get_all(field) or [""])[0] for field in ("Version", "Requires-Python"))
    return Package(version or "unknown", python, tuple(distribution.requires or ()))


def is_kept_from_gpu(platforms: str) -> bool:
    """Whether JAX may not use a GPU, by the platforms that it is restricted to; empty is no restriction."""
    return bool(platforms) and not {"cuda", "gpu"} & set(platforms.split(","))


# --- driver --------------------------------------------------------------------------------------------------------

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # of CUdevice_attribute
_NAME_LENGTH = 100


def find_driver() -> Driver:
    """Ask the NVIDIA driver itself; JAX is not started."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Driver(error="no NVIDIA driver (libcuda.so.1)")
    version, count = ctypes.c_int(), ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(version))
    cuda = version.value // 1000, version.value % 1000 // 10  # 12040 is 12.4
    code = library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count))
    gpus = tuple(_gpu(library, index) for index in range(count.value))
    return Driver(cuda, gpus, "" if gpus else f"no GPU ({_error_name(library, code)})")


def _gpu(library: ctypes.CDLL, index: int) -> Gpu:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(_NAME_LENGTH)
    library.cuDeviceGet(ctypes.byref(device), index)
    library.cuDeviceGetName(name, _NAME_LENGTH, device)
    library.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
    library.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
    return Gpu(name.value.decode(), (major.value, minor.value))


def _error_name(library: ctypes.CDLL, code: int) -> str:
    name = ctypes.c_char_p()
    library.cuGetErrorName(code, ctypes.byref(name))
    return name.value.decode() if name.value else f"error {code}"


# --- libraries -----------------------------------------------------------------------------------------------------


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
    for line in file.read_text().splitlines() if file.is_file() else ():
        words = line.partition("#")[0].split()
        if words[:1] == ["include"]:
            for pattern in words[1:]:
                for included in sorted(glob.glob(str(file.parent / pattern))):  # noqa: PTH207 - it can be absolute
                    yield from configured_folders(Path(included))
        elif words:
            yield Path(words[0])


def _folders_in(environ: Mapping[str, str]) -> Iterator[Path]:
    for home in (*(environ.get(name) for name in _HOMES), "/usr/local/cuda"):
        if home:
            yield from sorted(folder for folder in Path(home).glob("lib*") if folder.is_dir())


def _wheel_folders() -> Iterator[Path]:
    spec = importlib.util.find_spec("nvidia")
    for location in spec.submodule_search_locations or () if spec else ():
        yield from sorted(Path(location).glob("*/lib"))
