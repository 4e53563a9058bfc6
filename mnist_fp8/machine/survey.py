"""All that there is on this machine, looked at once and without importing any of it."""

import importlib.machinery
import importlib.util
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mnist_fp8.core.run_kind import RunKind, requested_run_kind
from mnist_fp8.machine import driver
from mnist_fp8.machine.driver import Driver
from mnist_fp8.machine.libraries import (
    LOADER_CONFIGURATION,
    LOADER_STANDARD,
    Library,
    configured_folders,
    find_te_libraries,
    folders_in,
    te_packages,
    wheel_folders,
)
from mnist_fp8.machine.packages import Package, find_packages


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
        te: folders of ``transformer_engine``; the first of them is imported.
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
    te: tuple[Path, ...] = ()


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
        driver=driver.find_driver(),
        core=find_te_libraries("libtransformer_engine"),
        extension=find_te_libraries("transformer_engine_jax"),
        homes=tuple(folders_in(environ)),
        library_path=tuple(Path(folder) for folder in environ.get("LD_LIBRARY_PATH", "").split(":") if folder),
        system=tuple(dict.fromkeys((*configured_folders(LOADER_CONFIGURATION), *LOADER_STANDARD))),
        wheels=tuple(wheel_folders()),
        te=te_packages(sys.path),
    )
