"""What a kernel run rests on: driver, GPU, CUDA libraries, and what is compiled of Transformer Engine."""

import dataclasses
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from mnist_fp8.doctor.components import (
    ANY,
    NONE,
    TE,
    TE_JAX,
    Check,
    Demand,
    cuda_of,
    install_plugin,
    is_in,
    judge,
    named,
    plugins_of,
    version,
)
from mnist_fp8.machine.libraries import Library
from mnist_fp8.machine.packages import CUDA_MAJORS, WITH_CUDA
from mnist_fp8.machine.survey import Machine

_FP8_CAPABILITY = (8, 9)
"""The least compute capability with FP8: Ada's."""


def _driver(machine: Machine) -> Check:
    (major, minor), cuda = machine.driver.cuda, cuda_of(machine)
    advice = "update the driver" if major else "install the driver"
    if major in CUDA_MAJORS:
        advice += f", or install jax[cuda{major}]"
    return judge(
        "NVIDIA driver",
        f"CUDA {major}.{minor}" if major else NONE,
        # Within a major version, an older driver runs a newer CUDA.
        Demand((major, minor) >= (cuda, 0), f"CUDA {cuda}.0 or newer", advice),
    )


def _gpu(machine: Machine) -> Check:
    gpus = machine.driver.gpus
    kinds = dict.fromkeys(f"{gpu.name} ({_dotted(gpu.capability)})" for gpu in gpus)
    needed = f"compute capability {_dotted(_FP8_CAPABILITY)} or higher"
    return judge(
        "GPU",
        f"{len(gpus)} x {', '.join(kinds)}" if gpus else machine.driver.error,
        Demand(bool(gpus), needed, "see nvidia-smi, and whether CUDA_VISIBLE_DEVICES hides it"),
        Demand(
            all(gpu.capability >= _FP8_CAPABILITY for gpu in gpus),
            needed,
            "older GPUs cannot compute in FP8: hide them with CUDA_VISIBLE_DEVICES",
        ),
    )


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


def _plugin(machine: Machine) -> Check:
    majors, jaxlib = plugins_of(machine), version(machine, "jaxlib")
    parts = [f"jax-cuda{major}-{part}" for major in majors for part in ("plugin", "pjrt")]
    surplus = " ".join(part for part in parts if f"cuda{cuda_of(machine)}" not in part)
    return judge(
        "JAX's CUDA plugin",
        named(machine, *parts),
        Demand(len(majors) < len(CUDA_MAJORS), "one for a single CUDA", f"pip uninstall {surplus}"),
        Demand(
            bool(parts) and all(_numbers(version(machine, part)) == _numbers(jaxlib) for part in parts),
            f"{jaxlib}, as jaxlib is",
            install_plugin(machine),
        ),
    )


def _numbers(version: str) -> str:
    """The numbers that a version begins with: what JAX compares of it."""
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    return numbers[0] if numbers else version


def _wheels_needed(machine: Machine) -> dict[str, str]:
    """The versions of NVIDIA's wheels that JAX's plugin can use, by their names; empty for any."""
    plugin = machine.packages.get(f"jax-cuda{cuda_of(machine)}-plugin")
    needed = plugin.bounds(WITH_CUDA) if plugin else {}
    return {name: versions for name, versions in needed.items() if name.startswith("nvidia-")}


def _wheels(machine: Machine) -> Check:
    """What JAX's plugin bounds but cuDNN, which is looked for elsewhere, too. What is no wheel can be the system's."""
    needed = _wheels_needed(machine)
    installed = [name for name in needed if name in machine.packages and not name.startswith(_CUDNN)]
    misfits = [name for name in installed if not is_in(version(machine, name), needed[name])]
    if not installed:
        return Check("CUDA wheels", NONE)
    wanted = [f"{name}{needed[name]}" for name in misfits]
    demand = Demand(
        not misfits, ", ".join(wanted) or "as JAX's plugin bounds them", f"pip install {shlex.join(wanted)}"
    )
    return judge("CUDA wheels", named(machine, *misfits) if misfits else f"all of {len(installed)}", demand)


_CUDNN = "nvidia-cudnn"
_WHEEL = "wheel"


def _cudnn(machine: Machine) -> Check:
    """The first cuDNN to be loaded serves JAX and TE alike."""
    wheel = f"{_CUDNN}-cu{cuda_of(machine)}"
    copies, needed = list(_cudnn_copies(machine, wheel)), _wheels_needed(machine).get(wheel, "")
    version, where = copies[0] if copies else (NONE, _WHEEL)
    install = f'pip install "{wheel}{needed}"'
    advice = install if where == _WHEEL else f"keep the loader from {where}: see LD_LIBRARY_PATH"
    check = judge(
        "cuDNN",
        ", ".join(f"{version} ({where})" for version, where in copies) or NONE,
        Demand(bool(copies), f"{wheel}{needed}", advice),
        Demand(is_in(version, needed), needed or ANY, advice),
    )
    if check.fits and len({version for version, _ in copies}) > 1:
        return dataclasses.replace(check, advice="several versions: the first of them serves JAX and TE alike")
    return check


def _cudnn_copies(machine: Machine, wheel: str) -> Iterator[tuple[str, str]]:
    """Version and place of each cuDNN, in the order in which they are found.

    ``LD_LIBRARY_PATH`` goes before a wheel. So does what TE finds as ``libcudnn.so``, for which it looks first; where
    a system has cuDNN without its development files, there is no such name.
    """
    ahead = {folder.resolve() for folder in machine.library_path}
    folders = (folder.resolve() for folder in (*machine.homes, *machine.library_path, *machine.system))
    versions = {folder: _cudnn_version(folder) for folder in folders}
    copies = {folder: version for folder, version in versions.items() if version}
    first = [folder for folder in copies if folder in ahead or (folder / "libcudnn.so").exists()]
    yield from ((copies[folder], str(folder)) for folder in first)
    if wheel in machine.packages:
        yield version(machine, wheel), _WHEEL
    yield from ((version, str(folder)) for folder, version in copies.items() if folder not in first)


def _cudnn_version(folder: Path) -> str:
    """Version of the cuDNN in a folder, by the file that its names lead to; empty if there is none, or a wheel's."""
    names = (path.resolve().name for path in folder.glob("libcudnn.so*"))
    matches = (re.fullmatch(r"libcudnn\.so\.(\d+(?:\.\d+)+)", name) for name in names)
    return next((match[1] for match in matches if match), "")


def _core(machine: Machine) -> Check:
    """TE's library of kernels: a package of its own, or a file where TE was built from source."""
    te, cuda = version(machine, TE), cuda_of(machine)
    wanted = f"{TE}-cu{cuda}"
    packages = [package for package in (f"{TE}-cu{major}" for major in CUDA_MAJORS) if package in machine.packages]
    surplus = " ".join(package for package in packages if package != wanted)
    install = f"pip install --force-reinstall --no-deps {wanted}=={te}"
    return judge(
        "TE's CUDA library",
        _described(machine, packages, machine.core),
        Demand(not surplus, f"{wanted}, as JAX's plugin is for CUDA {cuda}", f"pip uninstall {surplus}, and {install}"),
        Demand(bool(machine.core) and bool(packages or TE_JAX not in machine.packages), f"{wanted} {te}", install),
        Demand(len(machine.core) <= 1, "one file", f"delete all but that of {wanted} {te}"),
        Demand(_compiled_for(machine.core) <= {cuda}, f"CUDA {cuda}, as JAX's plugin", install),
        Demand(all(version(machine, package) == te for package in packages), f"{te}, as {TE} is", install),
    )


def _extension(machine: Machine) -> Check:
    """TE's bindings for JAX, compiled for one Python, one CUDA and one release of TE."""
    te, cuda, files = version(machine, TE), cuda_of(machine), machine.extension
    packages = [TE_JAX] if TE_JAX in machine.packages else []
    suffixes = [library.path.name.removeprefix("transformer_engine_jax") for library in files]
    surplus = "all but one" if len(set(suffixes)) < len(suffixes) else "the file for another Python"
    # pip keeps what it has compiled, for whatever JAX and CUDA that was, and would install it again.
    install = f"pip install --force-reinstall --no-deps --no-cache-dir --no-build-isolation {TE_JAX}=={te}"
    return judge(
        "TE's JAX extension",
        _described(machine, packages, files),
        Demand(bool(files), f"{TE_JAX} {te}", f"{install} (tox.ini says what its build needs)"),
        Demand(
            len(files) == 1 and suffixes[0] in machine.suffixes,
            f"one file, transformer_engine_jax{machine.suffixes[0]}",
            f"delete {surplus}, and {install}",
        ),
        Demand(_compiled_for(files) <= {cuda}, f"CUDA {cuda}, as JAX's plugin", install),
        Demand(all(version(machine, package) == te for package in packages), f"{te}, as {TE} is", install),
    )


def _described(machine: Machine, packages: Sequence[str], libraries: Sequence[Library]) -> str:
    """Packages, and the files that they or a build brought; of several, where they are."""
    files = [str(library.path) if len(libraries) > 1 else library.path.name for library in libraries]
    files = files or ["no file"] * bool(packages)
    compiled = [f"for CUDA {major}" for major in sorted(_compiled_for(libraries))]
    versions = [f"{name} {version(machine, name)}" for name in packages]
    return ", ".join((*versions, *files, *compiled)) or NONE


def _compiled_for(libraries: Sequence[Library]) -> set[int]:
    """The CUDAs whose runtime some libraries ask for."""
    names = (re.fullmatch(r"libcudart\.so\.(\d+)", needed) for library in libraries for needed in library.needs)
    return {int(name[1]) for name in names if name}


_OF_CUDA = ("libcu", "libnccl", "libnv")
_OF_THE_DRIVER = "libcuda.so.1"
_LOADED_BY_TE = ("libcudnn", "libcublas", "libcudart", "libcurand", "libnvrtc")
"""What TE finds in NVIDIA's wheels by itself; all else has to be where the loader looks."""


def _libraries(machine: Machine) -> Check:
    asked = dict.fromkeys(needed for library in (*machine.core, *machine.extension) for needed in library.needs)
    names = [library for library in asked if library.startswith(_OF_CUDA) and library != _OF_THE_DRIVER]
    if not names:
        return Check("CUDA libraries", "none that TE's libraries ask for")
    missing = [library for library in names if not _can_be_loaded(machine, library)]
    return judge(
        "CUDA libraries",
        f"no {', no '.join(missing)}" if missing else f"all of {len(names)}",
        Demand(not missing, "each that TE's libraries ask for", where_to_get(machine, missing[0]) if missing else ""),
    )


def _can_be_loaded(machine: Machine, library: str) -> bool:
    wheels = machine.wheels if library.startswith(_LOADED_BY_TE) else ()
    return any((folder / library).exists() for folder in (*machine.library_path, *machine.system, *wheels))


def where_to_get(machine: Machine, library: str) -> str:
    """What to do for the loader to find a library."""
    for folder in machine.wheels:
        if (folder / library).exists():
            return f"it is in {folder}: add that to LD_LIBRARY_PATH"
    return f"NVIDIA's wheels have it: {install_plugin(machine)}, and add its folder to LD_LIBRARY_PATH"


ON_GPU = (_driver, _gpu, _plugin, _wheels, _cudnn)
OF_TE = (_core, _extension, _libraries)
