"""What is said of a component, and which of them there are on a machine."""

import enum
from dataclasses import dataclass
from typing import NamedTuple

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion

from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.machine.packages import CUDA_MAJORS, is_kept_from_gpu
from mnist_fp8.machine.survey import Machine

NONE = "none"
ANY = "any version"
TE, TE_JAX = "transformer-engine", "transformer-engine-jax"


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


def judge(name: str, found: str, *demands: Demand) -> Check:
    """A component by the first demand that it does not meet; by the last one if it meets them all."""
    unmet = next((demand for demand in demands if not demand.met), None)
    if unmet:
        return Check(name, found, unmet.needed, fits=False, advice=unmet.advice)
    return Check(name, found, demands[-1].needed)


def wants_kernels(machine: Machine) -> bool:
    """Whether this is a kernel run: a GPU that JAX can use is never passed over."""
    return machine.requested is RunKind.KERNEL or (machine.requested is None and sees_gpu(machine))


def sees_gpu(machine: Machine) -> bool:
    """Whether JAX finds a GPU here."""
    return bool(machine.driver.gpus and plugins_of(machine)) and not is_kept_from_gpu(machine.platforms)


def plugins_of(machine: Machine) -> list[int]:
    """The CUDAs that JAX has a plugin for here."""
    return [major for major in CUDA_MAJORS if f"jax-cuda{major}-plugin" in machine.packages]


def cuda_of(machine: Machine) -> int:
    """The CUDA that counts: that of JAX's plugin, or else the newest that the driver can run."""
    runnable = [major for major in CUDA_MAJORS if (major, 0) <= machine.driver.cuda]
    return max(plugins_of(machine) or runnable or CUDA_MAJORS)


def install_plugin(machine: Machine) -> str:
    """The command that installs JAX's CUDA plugin."""
    return f'pip install "jax[cuda{cuda_of(machine)}]=={version(machine, "jax")}"'


def version(machine: Machine, name: str) -> str:
    """Version of an installed package, or that there is none."""
    return machine.packages[name].version if name in machine.packages else NONE


def named(machine: Machine, *names: str) -> str:
    """Packages with their versions."""
    return ", ".join(f"{name} {version(machine, name)}" for name in names) or NONE


def is_in(version: str, specifier: str) -> bool:
    """Whether a version is one of those that are needed."""
    try:
        return SpecifierSet(specifier).contains(version, prereleases=True)
    except InvalidVersion:  # by older releases of packaging
        return False
