"""Whether Transformer Engine can run here, in which kind of run, and which of its pieces do not fit together.

`diagnose` compares what `machine.look` finds: quick, and possible where nothing imports. `attempt` has a new
interpreter train one small dense layer in FP8, which is the proof: a crash or a hang there does no harm here.
"""

import dataclasses
import enum
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion

from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.machine.libraries import Library
from mnist_fp8.machine.packages import CUDA_MAJORS, is_kept_from_gpu
from mnist_fp8.machine.survey import Machine, look

FP8_CAPABILITY = (8, 9)
"""The least compute capability with FP8: Ada's."""
_NONE = "none"
_ANY = "any version"
TE, _TE_JAX = "transformer-engine", "transformer-engine-jax"


class Status(enum.Enum):
    """What is said of a component; the value stands in the table."""

    OK = "ok"
    PROBLEM = "problem"
    NOT_NEEDED = "\N{EM DASH}"


@dataclass(frozen=True)
class Check:
    """A component, and whether it fits the others.

    Attributes:
        name: the component.
        found: what there is.
        needed: what the others need of it; empty where this kind of run needs nothing.
        fits: whether it is as needed.
        advice: what to do; of a component that fits, what is worth knowing.
    """

    name: str
    found: str
    needed: str = ""
    fits: bool = True
    advice: str = ""

    @property
    def status(self) -> Status:
        """What is said of it."""
        if not self.fits:
            return Status.PROBLEM
        return Status.OK if self.needed else Status.NOT_NEEDED

    @property
    def line(self) -> str:
        """What does not fit, or is worth knowing, in one line."""
        clash = "" if self.fits else f"needed {self.needed}; found {self.found}"
        return ": ".join(filter(None, (self.name, clash, self.advice)))


class Demand(NamedTuple):
    """Something that a component has to meet: whether it does, in words what is needed, and what to do."""

    met: bool
    needed: str
    advice: str = ""


def _judge(name: str, found: str, *demands: Demand) -> Check:
    """A component by the first demand that it does not meet; by the last one if it meets them all."""
    unmet = next((demand for demand in demands if not demand.met), None)
    if unmet:
        return Check(name, found, unmet.needed, fits=False, advice=unmet.advice)
    return Check(name, found, demands[-1].needed)


def diagnose(machine: Machine) -> list[Check]:
    """Compare the components with each other; what another one rests on comes first."""
    checks = [check(machine) for check in (_kind, _python, _jax, _flax, _transformer_engine)]
    on_gpu = [check(machine) for check in (_driver, _gpu, _plugin, _runtime, _cudnn)]
    of_te = [check(machine) for check in (_core, _extension, _libraries)]
    if not _wants_kernels(machine):
        on_gpu = _only_found(on_gpu)
    if not _wants_kernels(machine) or TE not in machine.packages:
        of_te = _only_found(of_te)
    return [*checks, *on_gpu, *of_te]


def _only_found(checks: Sequence[Check]) -> list[Check]:
    """Components of which nothing is needed."""
    return [Check(check.name, check.found) for check in checks]


def first_problem() -> str:
    """What does not fit here, the first of it in one line; empty if all that can be compared fits."""
    return next((check.line for check in diagnose(look()) if not check.fits), "")


def _kind(machine: Machine) -> Check:
    name, forced = "kind of run", machine.requested
    restricted = f"JAX_PLATFORMS={machine.platforms}" if is_kept_from_gpu(machine.platforms) else ""
    if forced is RunKind.KERNEL and restricted:
        return Check(name, restricted, "CUDA, for MNIST_FP8_TE=kernel", fits=False, advice="unset JAX_PLATFORMS")
    if forced is RunKind.HOST and _sees_gpu(machine):
        needed = "a JAX on the CPU, for MNIST_FP8_TE=host"
        return Check(name, "a JAX with a GPU", needed, fits=False, advice="set JAX_PLATFORMS=cpu as well")
    kind = RunKind.KERNEL if _wants_kernels(machine) else RunKind.HOST
    gpu = "JAX has a GPU" if _sees_gpu(machine) else "JAX has no GPU"
    why = f"MNIST_FP8_TE={forced.value}" if forced else restricted or gpu
    unused = machine.driver.gpus and not _plugins(machine) and not restricted and forced is None
    note = f"the GPU stays unused, since JAX has no CUDA plugin: {_install_plugin(machine)}" if unused else ""
    return Check(name, f"{kind.value} run: {why}", advice=note)


def _wants_kernels(machine: Machine) -> bool:
    """Whether this is a kernel run: a GPU that JAX can use is never passed over."""
    return machine.requested is RunKind.KERNEL or (machine.requested is None and _sees_gpu(machine))


def _sees_gpu(machine: Machine) -> bool:
    return bool(machine.driver.gpus and _plugins(machine)) and not is_kept_from_gpu(machine.platforms)


def _plugins(machine: Machine) -> list[int]:
    """The CUDAs that JAX has a plugin for here."""
    return [major for major in CUDA_MAJORS if f"jax-cuda{major}-plugin" in machine.packages]


def _cuda(machine: Machine) -> int:
    """The CUDA that counts: that of JAX's plugin, or else the newest that the driver can run."""
    runnable = [major for major in CUDA_MAJORS if (major, 0) <= machine.driver.cuda]
    return max(_plugins(machine) or runnable or CUDA_MAJORS)


def version(machine: Machine, name: str) -> str:
    """Version of an installed package, or that there is none."""
    return machine.packages[name].version if name in machine.packages else _NONE


def _named(machine: Machine, *names: str) -> str:
    return ", ".join(f"{name} {version(machine, name)}" for name in names) or _NONE


def _is_in(version: str, specifier: str) -> bool:
    try:
        return SpecifierSet(specifier).contains(version, prereleases=True)
    except InvalidVersion:  # by older releases of packaging
        return False


def _python(machine: Machine) -> Check:
    asked = [machine.packages[name].python for name in ("jax", TE) if name in machine.packages]
    needed = ",".join(dict.fromkeys(filter(None, asked)))
    demand = Demand(_is_in(machine.python, needed), needed or _ANY, "use one of these versions")
    return _judge("Python", machine.python, demand)


def _jax(machine: Machine) -> Check:
    jax = machine.packages.get("jax")
    needed = jax.needs("jaxlib") if jax else ""
    return _judge(
        "JAX",
        _named(machine, "jax", "jaxlib"),
        Demand(jax is not None, "jax", "pip install jax"),
        Demand(
            _is_in(version(machine, "jaxlib"), needed),
            f"jaxlib{needed}",
            f"pip install jax=={version(machine, 'jax')} jaxlib=={version(machine, 'jax')}",
        ),
    )


def _flax(machine: Machine) -> Check:
    flax, jax = machine.packages.get("flax"), version(machine, "jax")
    needed = flax.needs("jax") if flax else ""
    return _judge(
        "Flax",
        f"{version(machine, 'flax')}{f', for jax{needed}' if needed else ''}",
        Demand(flax is not None, "flax", "pip install flax"),
        Demand(jax == _NONE or _is_in(jax, needed), f"one for jax {jax}", f"pip install flax jax=={jax}"),
    )


def _transformer_engine(machine: Machine) -> Check:
    installed = version(machine, TE)
    return _judge("Transformer Engine", installed, Demand(installed != _NONE, _ANY, f"pip install {TE}"))


def _driver(machine: Machine) -> Check:
    (major, minor), cuda = machine.driver.cuda, _cuda(machine)
    advice = "update the driver" if major else "install the driver"
    if major in CUDA_MAJORS:
        advice += f", or install jax[cuda{major}]"
    return _judge(
        "NVIDIA driver",
        f"CUDA {major}.{minor}" if major else _NONE,
        # Within a major version, an older driver runs a newer CUDA.
        Demand((major, minor) >= (cuda, 0), f"CUDA {cuda}.0 or newer", advice),
    )


def _gpu(machine: Machine) -> Check:
    gpus = machine.driver.gpus
    kinds = dict.fromkeys(f"{gpu.name} ({_dotted(gpu.capability)})" for gpu in gpus)
    needed = f"compute capability {_dotted(FP8_CAPABILITY)} or higher"
    return _judge(
        "GPU",
        f"{len(gpus)} x {', '.join(kinds)}" if gpus else machine.driver.error,
        Demand(bool(gpus), needed, "see nvidia-smi, and whether CUDA_VISIBLE_DEVICES hides it"),
        Demand(
            all(gpu.capability >= FP8_CAPABILITY for gpu in gpus),
            needed,
            "older GPUs cannot compute in FP8: hide them with CUDA_VISIBLE_DEVICES",
        ),
    )


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


def _plugin(machine: Machine) -> Check:
    majors, jaxlib = _plugins(machine), version(machine, "jaxlib")
    parts = [f"jax-cuda{major}-{part}" for major in majors for part in ("plugin", "pjrt")]
    surplus = " ".join(part for part in parts if f"cuda{_cuda(machine)}" not in part)
    return _judge(
        "JAX's CUDA plugin",
        _named(machine, *parts),
        Demand(len(majors) < len(CUDA_MAJORS), "one for a single CUDA", f"pip uninstall {surplus}"),
        Demand(
            bool(parts) and all(_numbers(version(machine, part)) == _numbers(jaxlib) for part in parts),
            f"{jaxlib}, as jaxlib is",
            _install_plugin(machine),
        ),
    )


def _install_plugin(machine: Machine) -> str:
    return f'pip install "jax[cuda{_cuda(machine)}]=={version(machine, "jax")}"'


def _numbers(version: str) -> str:
    """The numbers that a version begins with: what JAX compares of it."""
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    return numbers[0] if numbers else version


def _wheel_needed(machine: Machine, name: str) -> str:
    """The versions of one of NVIDIA's wheels that JAX's plugin can use; empty for any."""
    plugin = machine.packages.get(f"jax-cuda{_cuda(machine)}-plugin")
    return plugin.needs(name, extra="with-cuda") if plugin else ""


def _runtime(machine: Machine) -> Check:
    # Since CUDA 13 the wheels of CUDA itself do not have it in their names.
    wheel = "nvidia-cuda-runtime" if _cuda(machine) > min(CUDA_MAJORS) else f"nvidia-cuda-runtime-cu{min(CUDA_MAJORS)}"
    installed, needed = version(machine, wheel), _wheel_needed(machine, wheel)
    if installed == _NONE:
        return Check("CUDA runtime", "no wheel of it")  # it can be the system's
    demand = Demand(_is_in(installed, needed), f"{wheel}{needed}", f'pip install "{wheel}{needed}"')
    return _judge("CUDA runtime", f"{wheel} {installed}", demand)


_WHEEL = "wheel"


def _cudnn(machine: Machine) -> Check:
    """The first cuDNN to be loaded serves JAX and TE alike."""
    wheel = f"nvidia-cudnn-cu{_cuda(machine)}"
    copies, needed = list(_cudnn_copies(machine, wheel)), _wheel_needed(machine, wheel)
    version, where = copies[0] if copies else (_NONE, _WHEEL)
    install = f'pip install "{wheel}{needed}"'
    advice = install if where == _WHEEL else f"keep the loader from {where}: see LD_LIBRARY_PATH"
    check = _judge(
        "cuDNN",
        ", ".join(f"{version} ({where})" for version, where in copies) or _NONE,
        Demand(bool(copies), f"{wheel}{needed}", advice),
        Demand(_is_in(version, needed), needed or _ANY, advice),
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
    te, cuda = version(machine, TE), _cuda(machine)
    wanted = f"{TE}-cu{cuda}"
    packages = [package for package in (f"{TE}-cu{major}" for major in CUDA_MAJORS) if package in machine.packages]
    surplus = " ".join(package for package in packages if package != wanted)
    install = f"pip install --force-reinstall --no-deps {wanted}=={te}"
    return _judge(
        "TE's CUDA library",
        _described(machine, packages, machine.core),
        Demand(not surplus, f"{wanted}, as JAX's plugin is for CUDA {cuda}", f"pip uninstall {surplus}, and {install}"),
        Demand(bool(machine.core) and bool(packages or _TE_JAX not in machine.packages), f"{wanted} {te}", install),
        Demand(_compiled_for(machine.core) <= {cuda}, f"CUDA {cuda}, as JAX's plugin", install),
        Demand(all(version(machine, package) == te for package in packages), f"{te}, as {TE} is", install),
    )


def _extension(machine: Machine) -> Check:
    """TE's bindings for JAX, compiled for one Python, one CUDA and one release of TE."""
    te, cuda, files = version(machine, TE), _cuda(machine), machine.extension
    packages = [_TE_JAX] if _TE_JAX in machine.packages else []
    suffixes = [library.path.name.removeprefix("transformer_engine_jax") for library in files]
    # pip keeps what it has compiled, for whatever JAX and CUDA that was, and would install it again.
    install = f"pip install --force-reinstall --no-deps --no-cache-dir --no-build-isolation {_TE_JAX}=={te}"
    return _judge(
        "TE's JAX extension",
        _described(machine, packages, files),
        Demand(bool(files), f"{_TE_JAX} {te}", f"{install} (tox.ini says what its build needs)"),
        Demand(
            len(files) == 1 and suffixes[0] in machine.suffixes,
            f"one file, transformer_engine_jax{machine.suffixes[0]}",
            f"delete the file for another Python, and {install}",
        ),
        Demand(_compiled_for(files) <= {cuda}, f"CUDA {cuda}, as JAX's plugin", install),
        Demand(all(version(machine, package) == te for package in packages), f"{te}, as {TE} is", install),
    )


def _described(machine: Machine, packages: Sequence[str], libraries: Sequence[Library]) -> str:
    """Packages, and the files that they or a build brought."""
    files = [library.path.name for library in libraries] or ["no file"] * bool(packages)
    compiled = [f"for CUDA {major}" for major in sorted(_compiled_for(libraries))]
    versions = [f"{name} {version(machine, name)}" for name in packages]
    return ", ".join((*versions, *files, *compiled)) or _NONE


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
    return _judge(
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
    return f"NVIDIA's wheels have it: {_install_plugin(machine)}, and add its folder to LD_LIBRARY_PATH"
