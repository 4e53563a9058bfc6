"""The one door to Transformer Engine: nothing else in the project imports it, `te_host` excepted.

The first call of any function here loads TE, in the kind of run that the machine allows or ``MNIST_FP8_TE`` forces.
What differs between releases is found by looking (is there a name, an argument), not by comparing versions.
"""

import contextlib
import dataclasses
import functools
import importlib
import importlib.util
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import jax

from mnist_fp8.core import xla_flags
from mnist_fp8.core.capability import Capability, refuse_on_kernels, requested_capability
from mnist_fp8.core.errors import TeUnavailableError
from mnist_fp8.core.run_kind import RunKind, requested_run_kind
from mnist_fp8.core.xla_flags import NO_GRAPHS, ON_A_CPU
from mnist_fp8.machine import driver, libraries, packages
from mnist_fp8.machine.packages import CUDA_MAJORS
from mnist_fp8.te import host


@dataclasses.dataclass(frozen=True)
class Engine:
    """The loaded Transformer Engine.

    Attributes:
        kind: kernel or host run.
        module: ``transformer_engine.jax``.
        recipes: ``transformer_engine.common.recipe``.
    """

    kind: RunKind
    module: ModuleType
    recipes: ModuleType

    @property
    def description(self) -> str:
        """One line that says what it can see, and which GPU a host run pretends."""
        return self.kind.describe(host.DEVICE.asked)


@functools.cache
def engine() -> Engine:
    """Load Transformer Engine once for the process.

    On a GPU this has to happen before JAX starts its backend: both load cuDNN, and where a machine has two of them,
    TE does not import once JAX has loaded the other one.

    Raises:
        TeUnavailableError: it is not installed, does not import, or cannot run as ``MNIST_FP8_TE`` demands.
        ConfigError: ``MNIST_FP8_CAPABILITY`` asks for what cannot be pretended here.
    """
    kind, capability = kind_of_run(), requested_capability()
    if kind is RunKind.KERNEL:
        refuse_on_kernels(capability)
    host.DEVICE.asked = capability
    host.DEVICE.capability = capability or Capability.HOPPER
    prepare_xla()
    module = import_te(kind)
    if kind is RunKind.KERNEL and jax.default_backend() != "gpu":
        raise TeUnavailableError(f"the driver shows a GPU, but JAX runs on {jax.default_backend()!r}")
    return Engine(kind, module, importlib.import_module("transformer_engine.common.recipe"))


def import_te(kind: RunKind) -> ModuleType:
    """Import ``transformer_engine.jax``.

    Raises:
        TeUnavailableError: it does not import.
    """
    try:
        with host.without_pytorch():
            return host.load() if kind is RunKind.HOST else importlib.import_module("transformer_engine.jax")
    except Exception as error:
        message = f"Transformer Engine does not import ({kind.value} run): {type(error).__name__}: {error}"
        raise TeUnavailableError(message) from error


def kind_of_run() -> RunKind:
    """How Transformer Engine runs here; see `choose_run_kind`."""
    return choose_run_kind(requested_run_kind(), no_gpu=why_no_gpu(), extension=find_extension())


def prepare_xla() -> None:
    """Set the flags of XLA that this project needs, for a CPU or a GPU; see `xla_flags`. JAX must not have started yet.

    `engine` does it; what runs Flax alone asks for it, so that Flax and TE are computed by the same XLA.
    """
    flags = ON_A_CPU if why_no_gpu() else (NO_GRAPHS,)
    xla_flags.put_first(*filter(xla_flags.is_known, flags))


def choose_run_kind(requested: RunKind | None, *, no_gpu: str, extension: Path | None) -> RunKind:
    """Decide how to run TE. A usable GPU is never passed over silently.

    Args:
        requested: what the user forces, if anything.
        no_gpu: why JAX has no GPU to use; empty if it has one.
        extension: TE's compiled JAX extension, if there is one.

    Raises:
        TeUnavailableError: the request, or a GPU without the extension, cannot be honoured.
    """
    installation = f"found {no_gpu or 'a GPU'}, and {extension or 'no CUDA extension of TE'}"
    if requested is RunKind.KERNEL and (no_gpu or not extension):
        raise TeUnavailableError(f"MNIST_FP8_TE=kernel needs a GPU and TE's CUDA extension; {installation}")
    if requested is RunKind.HOST and not no_gpu:
        raise TeUnavailableError(f"a host run needs JAX on the CPU; {installation}: set JAX_PLATFORMS=cpu as well")
    if requested is None and not no_gpu and not extension:
        raise TeUnavailableError(
            f"{installation}: install the extension (tox -e gpu shows how),"
            " or ask for a host run with MNIST_FP8_TE=host JAX_PLATFORMS=cpu"
        )
    return RunKind.HOST if no_gpu else RunKind.KERNEL


def why_no_gpu() -> str:
    """Why JAX would not use a GPU here, found out without starting its backend; empty if it would."""
    platforms = str(jax.config.values["jax_platforms"] or "")
    if packages.is_kept_from_gpu(platforms):
        return f"JAX restricted to {platforms} (JAX_PLATFORMS)"
    if not any(importlib.util.find_spec(f"jax_cuda{major}_plugin") for major in CUDA_MAJORS):
        return "a JAX without CUDA"
    return driver.find_driver().error


def find_extension() -> Path | None:
    """Path of TE's compiled JAX extension, without loading it; ``None`` where there is none."""
    return next(iter(libraries.te_library_files("transformer_engine_jax")), None)


def version() -> str:
    """Version of the installed TE, without loading it; ``not installed`` where there is none."""
    try:
        return metadata.version("transformer-engine")
    except metadata.PackageNotFoundError:
        return "not installed"


def quantization() -> ModuleType:
    """TE's quantization module, ``transformer_engine.jax.quantize``: the recipe in force, what the device supports."""
    quantize: ModuleType = engine().module.quantize
    return quantize


def find_name(*path: str) -> Any:  # noqa: ANN401 - whatever it is
    """What a path below ``transformer_engine.jax`` leads to, modules that it does not import itself included.

    Raises:
        AttributeError: it leads nowhere.
    """
    module = engine().module
    with contextlib.suppress(ModuleNotFoundError):
        module = importlib.import_module(f"{module.__name__}.{path[0]}")
        path = path[1:]
    return functools.reduce(getattr, path, module)


def has_name(name: str) -> bool:
    """Whether ``transformer_engine.jax`` has a public name."""
    return hasattr(engine().module, name)
