"""The doctor: a healthy machine, and each clash of pieces on it, named in one line. None of it needs a GPU."""

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.doctor import checks, trial
from mnist_fp8.doctor.components import Check, Status
from mnist_fp8.doctor.trial import Attempt
from mnist_fp8.machine import survey
from mnist_fp8.machine.driver import Driver, Gpu
from mnist_fp8.machine.libraries import Library
from mnist_fp8.machine.packages import Package
from mnist_fp8.machine.survey import Machine
from mnist_fp8.programs import jaxprs
from mnist_fp8.te import dense_step, smoke
from mnist_fp8.te.dense_step import Step
from support.bad_input import exit_code
from support.subprocesses import ROOT, TIMEOUT_S, broken_package, run_python

Captured = pytest.CaptureFixture[str]
Change = Callable[[Machine], Machine]

SUFFIXES = (".cpython-311-x86_64-linux-gnu.so", ".abi3.so", ".so")
H100, A100 = Gpu("NVIDIA H100", (9, 0)), Gpu("NVIDIA A100", (8, 0))
PLUGIN = Package(
    "0.10.2",
    requires=(
        "jax-cuda13-pjrt==0.10.2",
        'nvidia-cudnn-cu13<10.0,>=9.12.0.46; sys_platform == "linux" and extra == "with-cuda"',
        'nvidia-cuda-runtime>=13.0.48; sys_platform == "linux" and extra == "with-cuda"',
        'nvidia-cublas>=13.0.0.19; sys_platform == "linux" and extra == "with-cuda"',
        'nvidia-nccl-cu13>=2.27.7; sys_platform == "linux" and extra == "with-cuda"',
    ),
)
PACKAGES = {
    "jax": Package("0.10.2", ">=3.11", ("jaxlib<=0.10.2,>=0.10.1", 'jaxlib==0.10.1; extra == "minimum-jaxlib"')),
    "jaxlib": Package("0.10.2", ">=3.11"),
    "flax": Package("0.12.8", ">=3.11", ("jax>=0.10.0",)),
    "jax-cuda13-plugin": PLUGIN,
    "jax-cuda13-pjrt": Package("0.10.2"),
    "nvidia-cuda-runtime": Package("13.0.96"),
    "nvidia-cudnn-cu13": Package("9.19.0.56"),
    "transformer-engine": Package("2.20.2", ">=3.10.0"),
    "transformer-engine-cu13": Package("2.20.2"),
    "transformer-engine-jax": Package("2.20.2"),
}
CORE_NEEDS = ("libcublas.so.13", "libcudart.so.13", "libnccl.so.2", "libcudnn.so.9", "libc.so.6", "libcuda.so.1")


@pytest.fixture
def kernels(tmp_path: Path) -> Machine:
    """A machine on which a kernel run works: its libraries are empty files in a folder of their own."""
    wheels = write(tmp_path / "wheels", "libcudnn.so.9", "libcublas.so.13", "libcudart.so.13")
    return Machine(
        python="3.11.7",
        suffixes=SUFFIXES,
        requested=None,
        platforms="",
        packages=PACKAGES,
        driver=Driver((13, 0), (H100, H100)),
        core=(Library(Path("/te/libtransformer_engine.so"), CORE_NEEDS),),
        extension=(Library(Path(f"/te/transformer_engine_jax{SUFFIXES[0]}"), ("libcudart.so.13",)),),
        homes=(),
        library_path=(),
        system=(write(tmp_path / "system", "libnccl.so.2"),),
        wheels=(wheels,),
    )


@pytest.fixture
def host(kernels: Machine) -> Machine:
    """A laptop: TE's own Python, and nothing of CUDA."""
    packages = {name: PACKAGES[name] for name in ("jax", "jaxlib", "flax", "transformer-engine")}
    no_driver = Driver(error="no NVIDIA driver (libcuda.so.1)")
    return dataclasses.replace(kernels, packages=packages, driver=no_driver, core=(), extension=(), wheels=())


def write(folder: Path, *names: str) -> Path:
    """Make a folder of empty libraries."""
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()
    return folder


def replace(**fields: Any) -> Change:
    """A machine with other fields."""
    return lambda machine: dataclasses.replace(machine, **fields)


def package(name: str, found: Package | None) -> Change:
    """A machine with another package, or without one."""

    def change(machine: Machine) -> Machine:
        packages = {**machine.packages, name: found}
        return dataclasses.replace(machine, packages={name: each for name, each in packages.items() if each})

    return change


def both(*changes: Change) -> Change:
    """One change after another."""

    def change(machine: Machine) -> Machine:
        for each in changes:
            machine = each(machine)
        return machine

    return change


def problems(machine: Machine) -> list[Check]:
    """What does not fit on a machine."""
    return [check for check in checks.diagnose(machine) if not check.fits]


def extension(name: str, *needs: str) -> Library:
    """A file of TE's JAX extension."""
    return Library(Path(f"/te/{name}"), needs)


# --- what does not fit ---------------------------------------------------------------------------------------------

CUDA_12 = {f"jax-cuda12-{part}": Package("0.10.2") for part in ("plugin", "pjrt")}

CLASHES: dict[str, tuple[Change, str]] = {
    "Python too old": (replace(python="3.10.9"), "Python: needed >=3.11,>=3.10.0; found 3.10.9: "),
    "no JAX": (package("jax", None), "JAX: needed jax; found jax none, jaxlib 0.10.2: pip install jax"),
    "jaxlib too new": (
        package("jaxlib", Package("0.11.0")),
        "JAX: needed jaxlib<=0.10.2,>=0.10.1; found jax 0.10.2, jaxlib 0.11.0: pip install jax==0.10.2 jaxlib==0.10.2",
    ),
    "jaxlib too old": (
        package("jaxlib", Package("0.9.0")),
        "JAX: needed jaxlib<=0.10.2,>=0.10.1; found jax 0.10.2, jaxlib 0.9.0: ",
    ),
    "no jaxlib": (package("jaxlib", None), "JAX: needed jaxlib<=0.10.2,>=0.10.1; found jax 0.10.2, jaxlib none: "),
    "version that is none": (package("jaxlib", Package("unknown")), "found jax 0.10.2, jaxlib unknown: "),
    "no Flax": (package("flax", None), "Flax: needed flax; found none: pip install flax"),
    "Flax for another JAX": (
        package("flax", Package("0.13.0", requires=("jax>=0.12",))),
        "Flax: needed one for jax 0.10.2; found 0.13.0, for jax>=0.12: pip install flax jax==0.10.2",
    ),
    "no TE": (package("transformer-engine", None), "Transformer Engine: needed any version; found none: pip install"),
    "driver too old": (
        replace(driver=Driver((12, 4), (H100,))),
        "NVIDIA driver: needed CUDA 13.0 or newer; found CUDA 12.4: update the driver, or install jax[cuda12]",
    ),
    "GPU too old": (
        replace(driver=Driver((13, 0), (H100, A100))),
        "GPU: needed compute capability 8.9 or higher; found 2 x NVIDIA H100 (9.0), NVIDIA A100 (8.0): older GPUs",
    ),
    "plugin of another jaxlib": (
        package("jax-cuda13-plugin", dataclasses.replace(PLUGIN, version="0.10.1")),
        (
            "JAX's CUDA plugin: needed 0.10.2, as jaxlib is; found jax-cuda13-plugin 0.10.1, jax-cuda13-pjrt 0.10.2: "
            'pip install "jax[cuda13]==0.10.2"'
        ),
    ),
    "pjrt of another jaxlib": (
        package("jax-cuda13-pjrt", Package("0.9.2")),
        "needed 0.10.2, as jaxlib is; found jax-cuda13-plugin 0.10.2, jax-cuda13-pjrt 0.9.2: ",
    ),
    "no pjrt": (package("jax-cuda13-pjrt", None), "found jax-cuda13-plugin 0.10.2, jax-cuda13-pjrt none: "),
    "plugins for two CUDAs": (
        both(*(package(name, found) for name, found in CUDA_12.items())),
        (
            "JAX's CUDA plugin: needed one for a single CUDA; found jax-cuda12-plugin 0.10.2, jax-cuda12-pjrt 0.10.2, "
            "jax-cuda13-plugin 0.10.2, jax-cuda13-pjrt 0.10.2: pip uninstall jax-cuda12-plugin jax-cuda12-pjrt"
        ),
    ),
    "cuBLAS of another CUDA": (
        package("nvidia-cublas", Package("12.9.0.2")),
        (
            "CUDA wheels: needed nvidia-cublas>=13.0.0.19; found nvidia-cublas 12.9.0.2: "
            "pip install 'nvidia-cublas>=13.0.0.19'"
        ),
    ),
    "two wheels of CUDA too old": (
        both(package("nvidia-nccl-cu13", Package("2.20")), package("nvidia-cublas", Package("13.0.0.1"))),
        "found nvidia-cublas 13.0.0.1, nvidia-nccl-cu13 2.20: pip install 'nvidia-cublas>=13.0.0.19' 'nvidia-nccl",
    ),
    "CUDA runtime too old": (
        package("nvidia-cuda-runtime", Package("13.0.1")),
        "CUDA wheels: needed nvidia-cuda-runtime>=13.0.48; found nvidia-cuda-runtime 13.0.1: pip install",
    ),
    "cuDNN too old": (
        package("nvidia-cudnn-cu13", Package("9.8.0.87")),
        'cuDNN: needed <10.0,>=9.12.0.46; found 9.8.0.87 (wheel): pip install "nvidia-cudnn-cu13<10.0,>=9.12.0.46"',
    ),
    "no cuDNN": (
        package("nvidia-cudnn-cu13", None),
        "cuDNN: needed nvidia-cudnn-cu13<10.0,>=9.12.0.46; found none: pip install",
    ),
    "no TE core": (
        both(package("transformer-engine-cu13", None), replace(core=())),
        "TE's CUDA library: needed transformer-engine-cu13 2.20.2; found none: pip install",
    ),
    "TE core without its file": (
        replace(core=()),
        "TE's CUDA library: needed transformer-engine-cu13 2.20.2; found transformer-engine-cu13 2.20.2, no file: ",
    ),
    "TE core not by pip": (
        package("transformer-engine-cu13", None),
        "needed transformer-engine-cu13 2.20.2; found libtransformer_engine.so, for CUDA 13: ",
    ),
    "TE core of another release": (
        package("transformer-engine-cu13", Package("2.19.0")),
        (
            "TE's CUDA library: needed 2.20.2, as transformer-engine is; "
            "found transformer-engine-cu13 2.19.0, libtransformer_engine.so, for CUDA 13: pip install"
        ),
    ),
    "TE core for another CUDA": (
        both(package("transformer-engine-cu13", None), package("transformer-engine-cu12", Package("2.20.2"))),
        (
            "TE's CUDA library: needed transformer-engine-cu13, as JAX's plugin is for CUDA 13; "
            "found transformer-engine-cu12 2.20.2, libtransformer_engine.so, for CUDA 13: "
            "pip uninstall transformer-engine-cu12, and pip install"
        ),
    ),
    "two TE cores": (
        package("transformer-engine-cu12", Package("2.20.2")),
        "found transformer-engine-cu12 2.20.2, transformer-engine-cu13 2.20.2, lib",
    ),
    "TE core compiled for another CUDA": (
        replace(core=(extension("libtransformer_engine.so", "libcudart.so.12"),)),
        (
            "TE's CUDA library: needed CUDA 13, as JAX's plugin; "
            "found transformer-engine-cu13 2.20.2, libtransformer_engine.so, for CUDA 12: "
        ),
    ),
    "no extension": (
        both(package("transformer-engine-jax", None), replace(extension=())),
        "TE's JAX extension: needed transformer-engine-jax 2.20.2; found none: pip install",
    ),
    "extension for another Python": (
        replace(extension=(extension("transformer_engine_jax.cpython-310-x86_64-linux-gnu.so"),)),
        (
            "TE's JAX extension: needed one file, transformer_engine_jax.cpython-311-x86_64-linux-gnu.so; "
            "found transformer-engine-jax 2.20.2, transformer_engine_jax.cpython-310-x86_64-linux-gnu.so: delete"
        ),
    ),
    "extensions for two Pythons": (
        replace(extension=tuple(extension(f"transformer_engine_jax.cpython-3{minor}.so") for minor in (11, 12))),
        "/te/transformer_engine_jax.cpython-311.so, /te/transformer_engine_jax.cpython-312.so: delete the file",
    ),
    "two copies of the extension": (
        replace(extension=tuple(Library(Path(at) / f"transformer_engine_jax{SUFFIXES[0]}") for at in ("/te", "/old"))),
        f", /te/transformer_engine_jax{SUFFIXES[0]}, /old/transformer_engine_jax{SUFFIXES[0]}: delete all but one, ",
    ),
    "two copies of the TE core": (
        replace(core=tuple(Library(Path(at) / "libtransformer_engine.so", CORE_NEEDS) for at in ("/te", "/old"))),
        (
            "TE's CUDA library: needed one file; found transformer-engine-cu13 2.20.2, /te/libtransformer_engine.so, "
            "/old/libtransformer_engine.so, for CUDA 13: delete all but that of transformer-engine-cu13 2.20.2"
        ),
    ),
    "extension of another release": (
        package("transformer-engine-jax", Package("2.19.0")),
        "TE's JAX extension: needed 2.20.2, as transformer-engine is; found transformer-engine-jax 2.19.0, ",
    ),
    "extension compiled for another CUDA": (
        replace(extension=(extension(f"transformer_engine_jax{SUFFIXES[0]}", "libcudart.so.12"),)),
        "TE's JAX extension: needed CUDA 13, as JAX's plugin; found transformer-engine-jax 2.20.2, ",
    ),
    "library that the loader does not find": (
        replace(system=()),
        "CUDA libraries: needed each that TE's libraries ask for; found no libnccl.so.2: NVIDIA's wheels have it",
    ),
    "JAX kept from the GPU that is demanded": (
        replace(requested=RunKind.KERNEL, platforms="cpu"),
        "kind of run: needed CUDA, for MNIST_FP8_TE=kernel; found JAX_PLATFORMS=cpu: unset JAX_PLATFORMS",
    ),
    "host run demanded beside a GPU": (
        replace(requested=RunKind.HOST),
        "kind of run: needed a JAX on the CPU, for MNIST_FP8_TE=host; found a JAX with a GPU: set JAX_PLATFORMS=cpu",
    ),
}


def test_control_nothing_is_wrong_where_all_fits(kernels: Machine, host: Machine) -> None:
    assert problems(kernels) == problems(host) == []


@pytest.mark.parametrize(("change", "says"), CLASHES.values(), ids=CLASHES)
def test_clash_is_named_with_what_is_found_and_needed_in_one_line(kernels: Machine, change: Change, says: str) -> None:
    found = problems(change(kernels))
    assert says in found[0].line
    assert "\n" not in found[0].line
    assert found[0].advice


ALSO = {
    "jaxlib too new": ["JAX's CUDA plugin"],
    "jaxlib too old": ["JAX's CUDA plugin"],
    "no jaxlib": ["JAX's CUDA plugin"],
    "version that is none": ["JAX's CUDA plugin"],
    "TE core compiled for another CUDA": ["CUDA libraries"],
    "extension compiled for another CUDA": ["CUDA libraries"],
}
"""What else does not fit then."""


@pytest.mark.parametrize("clash", CLASHES)
def test_clash_blames_one_component(kernels: Machine, clash: str) -> None:
    change, _ = CLASHES[clash]
    assert [check.name for check in problems(change(kernels))][1:] == ALSO.get(clash, [])


@pytest.mark.parametrize(
    "change",
    [
        package("jax-cuda13-plugin", dataclasses.replace(PLUGIN, version="0.10.1")),
        replace(driver=Driver((12, 4), (H100,))),
        package("nvidia-cudnn-cu13", None),
        package("transformer-engine-cu12", Package("2.19.0")),
        replace(extension=()),
        replace(system=()),
    ],
    ids=["plugin", "driver", "cuDNN", "TE core", "extension", "libraries"],
)
def test_host_run_needs_nothing_of_a_gpu(kernels: Machine, change: Change) -> None:
    survey = change(kernels)
    assert problems(survey), "Control: a kernel run does"
    assert problems(dataclasses.replace(survey, platforms="cpu")) == []


def test_gpu_components_of_a_host_run_are_found_and_not_needed(host: Machine) -> None:
    shown = {check.name: (check.found, check.status) for check in checks.diagnose(host)}
    assert shown["GPU"] == ("no NVIDIA driver (libcuda.so.1)", Status.NOT_NEEDED)
    assert shown["JAX's CUDA plugin"] == shown["TE's JAX extension"] == ("none", Status.NOT_NEEDED)
    assert shown["kind of run"] == ("host run: JAX has no GPU", Status.NOT_NEEDED)
    assert shown["JAX"][1] is Status.OK


def test_kernels_demanded_on_a_laptop_lack_all_of_cuda(host: Machine) -> None:
    found = problems(dataclasses.replace(host, requested=RunKind.KERNEL))
    names = ["NVIDIA driver", "GPU", "JAX's CUDA plugin", "cuDNN", "TE's CUDA library", "TE's JAX extension"]
    assert [check.name for check in found] == names
    assert found[0].line == "NVIDIA driver: needed CUDA 13.0 or newer; found none: install the driver"
    assert found[2].advice == 'pip install "jax[cuda13]==0.10.2"'


def test_gpu_without_a_plugin_is_pointed_out_and_no_failure(host: Machine) -> None:
    survey = dataclasses.replace(host, driver=Driver((12, 8), (H100,)))
    assert problems(survey) == []
    note = 'kind of run: the GPU stays unused, since JAX has no CUDA plugin: pip install "jax[cuda12]==0.10.2"'
    assert checks.diagnose(survey)[0].line == note
    assert not checks.diagnose(host)[0].advice, "Control: without a GPU there is nothing to say"
    forced = dataclasses.replace(survey, requested=RunKind.KERNEL)
    assert problems(forced)[0].name == "JAX's CUDA plugin"


def test_te_built_from_source_has_no_packages_but_files(kernels: Machine) -> None:
    change = both(package("transformer-engine-cu13", None), package("transformer-engine-jax", None))
    assert problems(change(kernels)) == []


def test_newer_runtime_runs_on_an_older_driver_of_the_same_cuda(kernels: Machine) -> None:
    change = package("nvidia-cuda-runtime", Package("13.2.75"))
    assert problems(change(kernels)) == []


def test_checkout_that_hides_the_installed_te_is_named(kernels: Machine, tmp_path: Path) -> None:
    """As where the doctor runs in a clone of TE."""
    clone, installed, beside = (write(tmp_path / place / "transformer_engine") for place in ("clone", "site", "base"))
    for folder in (installed, beside):
        (folder.parent / "transformer_engine-2.20.2.dist-info").mkdir()
    (check,) = problems(dataclasses.replace(kernels, te=(clone, installed)))
    assert check.line == (
        "Transformer Engine: needed the one that is installed; "
        f"found 2.20.2, in {clone} and {installed}: the first hides it: work in another folder"
    )
    assert problems(dataclasses.replace(kernels, te=(installed, beside, clone))) == [], "Control: it hides nothing"
    assert problems(dataclasses.replace(kernels, te=(clone,))) == [], "Control: installed from there (pip install -e)"


CORE = "OSError: /te/libtransformer_engine.so: "


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            f"{CORE}undefined symbol: cublasLtNew, version libcublasLt.so.13",
            (
                "libtransformer_engine.so needs cublasLtNew of libcublasLt.so.13; found without it: "
                "nvidia-cublas 13.0.0.19 and WHEELS: pip install --upgrade nvidia-cublas"
            ),
        ),
        (f"{CORE}undefined symbol: cudnnBackendNew", "found without it: nvidia-cudnn-cu13 9.19.0.56 and WHEELS: pip"),
        (
            f"{CORE}undefined symbol: ncclNew",
            "needs ncclNew of libnccl; found without it: SYSTEM: install the one that",
        ),
        (f"{CORE}undefined symbol: cudaNew, version libcudart.so.13", "nvidia-cuda-runtime 13.0.96 and WHEELS: pip"),
        (f"{CORE}undefined symbol: cuTensorMapEncode", "needs cuTensorMapEncode of the NVIDIA driver (libcuda.so.1)"),
        (
            f"{CORE}undefined symbol: _ZNKSt10filesystem4path12has_filenameEv",
            "of C++'s standard library (libstdc++.so.6), which is too old here: ",
        ),
        (
            "ImportError: /lib/libstdc++.so.6: version `GLIBCXX_3.4.32' not found (required by /te/libte.so)",
            "libte.so needs a newer libstdc++ than /lib/libstdc++.so.6: ",
        ),
        (f"{CORE}undefined symbol: _ZN3xla3ffiEv", "the extension was compiled for other versions of JAX or CUDA"),
    ],
    ids=["versioned", "cuDNN", "NCCL", "runtime", "driver", "C++", "old C++", "XLA"],
)
def test_undefined_symbol_is_named_with_its_library_and_wheel(kernels: Machine, error: str, says: str) -> None:
    (kernels.wheels[0] / "libcublasLt.so.13").touch()
    machine = package("nvidia-cublas", Package("13.0.0.19"))(kernels)
    says = says.replace("WHEELS", str(kernels.wheels[0])).replace("SYSTEM", str(kernels.system[0]))
    assert says in Attempt(error).as_check(machine).advice


# --- cuDNN, and where libraries are --------------------------------------------------------------------------------


def cudnn(folder: Path, version: str, *, development: bool = False) -> Path:
    """A folder with a cuDNN as a system's package installs it."""
    write(folder, f"libcudnn.so.{version}")
    (folder / "libcudnn.so.9").symlink_to(f"libcudnn.so.{version}")
    if development:
        (folder / "libcudnn.so").symlink_to("libcudnn.so.9")
    return folder


def test_cudnn_of_the_loader_path_goes_before_the_wheel(kernels: Machine, tmp_path: Path) -> None:
    folder = cudnn(tmp_path / "old", "9.1.0")
    (check,) = problems(dataclasses.replace(kernels, library_path=(folder,)))
    assert check.line == (
        f"cuDNN: needed <10.0,>=9.12.0.46; found 9.1.0 ({folder}), 9.19.0.56 (wheel): "
        f"keep the loader from {folder}: see LD_LIBRARY_PATH"
    )


@pytest.mark.parametrize(("development", "fits"), [(True, False), (False, True)])
def test_te_takes_the_cudnn_of_a_system_with_development_files(
    kernels: Machine, tmp_path: Path, *, development: bool, fits: bool
) -> None:
    folder = cudnn(tmp_path / "usr", "9.1.0", development=development)
    found = problems(dataclasses.replace(kernels, system=(*kernels.system, folder)))
    assert (found == []) is fits
    found = problems(dataclasses.replace(kernels, homes=(folder,)))
    assert (found == []) is fits


def test_several_cudnn_that_fit_are_worth_a_note(kernels: Machine, tmp_path: Path) -> None:
    folder = cudnn(tmp_path / "usr", "9.20.1")
    survey = dataclasses.replace(kernels, system=(*kernels.system, folder, folder))
    (note,) = [check for check in checks.diagnose(survey) if check.advice]
    assert note.found == f"9.19.0.56 (wheel), 9.20.1 ({folder})"
    assert note.status is Status.OK
    assert note.line == "cuDNN: several versions: the first of them serves JAX and TE alike"


def test_library_in_a_wheel_is_found_by_te_or_named(kernels: Machine, tmp_path: Path) -> None:
    """TE finds some of them itself; NCCL only the loader does."""
    folder = write(tmp_path / "nccl", "libnccl.so.2")
    (check,) = problems(dataclasses.replace(kernels, system=(), wheels=(*kernels.wheels, folder)))
    assert check.found == "no libnccl.so.2"
    assert check.advice == f"it is in {folder}: add that to LD_LIBRARY_PATH"
    assert problems(dataclasses.replace(kernels, system=(), library_path=(folder,))) == []


def test_first_problem_is_that_of_this_machine(monkeypatch: pytest.MonkeyPatch, kernels: Machine) -> None:
    monkeypatch.setattr(checks, "look", lambda: kernels)
    assert checks.first_problem() == ""
    monkeypatch.setattr(checks, "look", lambda: package("flax", None)(kernels))
    assert checks.first_problem() == "Flax: needed flax; found none: pip install flax"


# --- the attempt ---------------------------------------------------------------------------------------------------


def stand_in_for_te(folder: Path, code: str) -> Path:
    """A Transformer Engine that does something else when it is imported."""
    common = folder / "transformer_engine" / "common"
    common.mkdir(parents=True)
    (common.parent / "__init__.py").touch()
    (common / "__init__.py").write_text(code)
    return folder


def test_control_installed_te_takes_a_step() -> None:
    attempt = trial.attempt()
    assert attempt.error == ""
    assert not attempt.recipes["DelayedScaling"]
    assert attempt.recipes["Float8BlockScaling"]


@pytest.mark.host
@pytest.mark.parametrize(
    ("code", "error"),
    [
        (
            "raise OSError('libx.so: cannot open\\nshared object file')",
            "(host run): OSError: libx.so: cannot open shared",
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "the process was ended by SIGSEGV: "),
        ("import os, sys; print('why', file=sys.stderr, flush=True); os._exit(3)", "the process ended with 3: why"),
    ],
    ids=["error", "crash", "end"],
)
def test_what_goes_wrong_in_te_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, error: str
) -> None:
    monkeypatch.syspath_prepend(stand_in_for_te(tmp_path, code))
    found = trial.attempt().error
    assert error in found
    assert "\n" not in found


@pytest.mark.host
def test_attempt_leaves_the_memory_of_a_gpu_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "XLA_PYTHON_CLIENT_PREALLOCATE"
    monkeypatch.delenv(name)
    monkeypatch.syspath_prepend(stand_in_for_te(tmp_path, f"import os; raise OSError(os.environ[{name!r}])"))
    assert trial.attempt().error.endswith("OSError: false")


@pytest.mark.parametrize(
    ("dtypes", "factor", "error"),
    [
        ({"float8_e4m3fn", "float8_e5m2"}, 1, ""),
        ({"float8_e4m3fn"}, 1, "ArithmeticError: the program has no float8_e5m2"),
        ({"float8_e4m3fn", "float8_e5m2"}, math.nan, "ArithmeticError: the result is not finite"),
    ],
    ids=["as it should be", "not all in float8", "not finite"],
)
def test_step_has_to_be_finite_and_in_float8(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dtypes: set[str], factor: float, error: str
) -> None:
    monkeypatch.setattr(jaxprs, "quantized_dtypes", lambda _: dtypes)
    monkeypatch.setattr(dense_step, "dense_step", lambda *given: Step(given[-2] * factor, given[-2], {}))
    smoke.report_step(tmp_path / "answer.json")
    assert json.loads((tmp_path / "answer.json").read_text())["error"] == error


@pytest.mark.host
def test_te_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(stand_in_for_te(tmp_path, "import time; time.sleep(100)"))
    assert trial.attempt(timeout_s=3).error == "it did not end within 3 s"


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (
            "OSError: libnccl.so.2: cannot open shared object file: No such file",
            "it is in {}: add that to LD_LIBRARY_PATH",
        ),
        ("OSError: libfoo.so.7: cannot open shared object file", "NVIDIA's wheels have it: pip install \"jax[cuda13]"),
        ("ImportError: transformer_engine_jax.so: undefined symbol: _ZN18", "the extension was compiled for other"),
        ("RuntimeError: Transformer Engine requires cuDNN 9.12.0 or later", "see which cuDNN is loaded first"),
        ("ImportError: cannot import name 'x' from 'jax'", "mnist-fp8 stacks --search 2.20.2 finds the newest JAX"),
        ("AttributeError: module 'jax.core' has no attribute 'x'", "mnist-fp8 stacks --search 2.20.2 finds the newest"),
        ("No module named 'jax.experimental.maps'", "mnist-fp8 stacks --search 2.20.2 finds the newest JAX"),
        ("ModuleNotFoundError: No module named 'jax'", ""),
        ("ValueError: something else", ""),
    ],
    ids=[
        "library in a wheel",
        "library nowhere",
        "symbol",
        "cuDNN",
        "JAX",
        "name of JAX",
        "module of JAX",
        "no JAX",
        "unknown",
    ],
)
def test_known_errors_come_with_advice(kernels: Machine, tmp_path: Path, error: str, advice: str) -> None:
    folder = write(tmp_path / "nccl", "libnccl.so.2")
    check = Attempt(error).as_check(dataclasses.replace(kernels, wheels=(folder,)))
    assert check.status is Status.PROBLEM
    assert check.advice.startswith(advice.format(folder))
    assert bool(check.advice) is bool(advice)


# --- the command ---------------------------------------------------------------------------------------------------

RAN = Attempt("", RunKind.KERNEL, {"DelayedScaling": "", "MXFP8BlockScaling": "not on Hopper"})


def run(monkeypatch: pytest.MonkeyPatch, captured: Captured, found: Machine, attempt: Attempt) -> tuple[int, list[str]]:
    """Exit code and printed lines of the command on a machine."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(survey, "look", lambda: found)
    monkeypatch.setattr(trial, "attempt", lambda: attempt)
    return exit_code(["doctor"]), captured.readouterr().out.splitlines()


def test_healthy_machine_is_a_table_and_an_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured, kernels: Machine
) -> None:
    code, lines = run(monkeypatch, capsys, kernels, RAN)
    assert code == 0
    rows = {
        cells[1].strip(): [cell.strip() for cell in cells[2:5]]
        for cells in (line.split("│") for line in lines)
        if len(cells) > 4
    }
    assert rows["NVIDIA driver"] == ["CUDA 13.0", "CUDA 13.0 or newer", "ok"]
    assert rows["GPU"][2] == rows["FP8 step of a layer"][2] == "ok"
    assert lines[-3:] == [
        "recipes: DelayedScaling",
        "not MXFP8BlockScaling: not on Hopper",
        "Transformer Engine runs here: kernel run: Transformer Engine with its CUDA extension, on a GPU",
    ]


def test_answer_names_the_first_problem(monkeypatch: pytest.MonkeyPatch, capsys: Captured, kernels: Machine) -> None:
    broken = both(replace(driver=Driver((12, 4), (H100,))), package("transformer-engine-jax", Package("2.19.0")))
    code, lines = run(monkeypatch, capsys, broken(kernels), Attempt("ImportError: something"))
    assert code == 2
    assert [line.partition(": needed")[0] for line in lines if ": needed" in line] == [
        "problem: TE's JAX extension",
        "problem: FP8 step of a layer",
        "Transformer Engine cannot run: NVIDIA driver",
    ]


def test_pieces_that_do_not_fit_are_told_even_where_te_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured, kernels: Machine
) -> None:
    code, lines = run(monkeypatch, capsys, package("nvidia-cudnn-cu13", Package("9.8.0"))(kernels), RAN)
    assert code == 0
    assert lines[-2].startswith("problem: cuDNN: needed <10.0,>=9.12.0.46; found 9.8.0 (wheel): ")
    assert lines[-1].startswith("Transformer Engine runs here: kernel run: ")


def test_notes_are_told(monkeypatch: pytest.MonkeyPatch, capsys: Captured, host: Machine) -> None:
    _, lines = run(monkeypatch, capsys, dataclasses.replace(host, driver=Driver((13, 0), (H100,))), RAN)
    assert lines[-2].startswith("note: kind of run: the GPU stays unused, since JAX has no CUDA plugin: pip install")


def test_doctor_that_lacks_its_own_packages_says_so(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setitem(sys.modules, "rich", None)
    assert exit_code(["doctor"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(r"mnist-fp8: error: .*rich.*: pip install packaging rich\n", printed.err)


@pytest.mark.host
@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("jax", "ImportError: a broken jax"),
        ("flax", "ImportError: a broken flax"),
        ("transformer_engine", "ModuleNotFoundError: No module named 'transformer_engine.common'"),
    ],
)
def test_whatever_does_not_import_there_is_no_traceback(tmp_path: Path, name: str, error: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mnist_fp8", "doctor"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(broken_package(tmp_path, name))},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert (done.returncode, done.stderr) == (2, "")
    last = done.stdout.splitlines()[-1]
    hidden = name == "transformer_engine"  # by what is broken
    blamed = "Transformer Engine: needed the one that is installed" if hidden else "FP8 step of a layer: "
    assert last.startswith(f"Transformer Engine cannot run: {blamed}")
    assert error in done.stdout.replace("\n", " ")


@pytest.mark.host
def test_host_run_is_healthy_without_a_gpu() -> None:
    printed = run_python("-m", "mnist_fp8", "doctor")
    assert printed.splitlines()[-1].startswith("Transformer Engine runs here: host run: ")
