"""Installed packages that a run depends on, by their metadata."""

from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

CUDA_MAJORS = (12, 13)
"""The CUDAs that JAX has plugins for."""
_PACKAGES = (
    *("jax", "jaxlib", "flax", "transformer-engine", "transformer-engine-jax", "nvidia-cuda-runtime"),
    *(f"jax-cuda{major}-{part}" for major in CUDA_MAJORS for part in ("plugin", "pjrt")),
    *(f"{name}-cu{major}" for major in CUDA_MAJORS for name in ("transformer-engine", "nvidia-cudnn")),
    "nvidia-cuda-runtime-cu12",  # the wheel for CUDA 13 has no such ending
)


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


def find_packages() -> dict[str, Package]:
    """The installed packages that matter, by name."""
    packages = {name: _package(name) for name in _PACKAGES}
    return {name: package for name, package in packages.items() if package}


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
