"""Installed packages that a run depends on, by their metadata."""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from mnist_fp8.core.requirements import applies

CUDA_MAJORS = (12, 13)
"""The CUDAs that JAX has plugins for."""
WITH_CUDA = "with-cuda"
"""The extra of JAX's CUDA plugins that brings NVIDIA's wheels."""
_PACKAGES = (
    *("jax", "jaxlib", "flax", "transformer-engine", "transformer-engine-jax"),
    *(f"jax-cuda{major}-{part}" for major in CUDA_MAJORS for part in ("plugin", "pjrt")),
    *(f"transformer-engine-cu{major}" for major in CUDA_MAJORS),
    # TE needs it, and JAX does not ask for it. Since CUDA 13 the wheels of CUDA itself do not have it in their names.
    *("nvidia-curand", "nvidia-curand-cu12"),
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
        return self.bounds(extra).get(name, "")

    def bounds(self, extra: str = "") -> dict[str, str]:
        """The versions of all packages that it needs, by their names; empty where any will do."""
        found: dict[str, str] = {}
        for text in self.requires:
            try:
                requirement = Requirement(text)
            except InvalidRequirement:
                continue
            if applies(requirement, extra):
                found.setdefault(canonicalize_name(requirement.name), str(requirement.specifier))
        return found


def find_packages() -> dict[str, Package]:
    """The installed packages that matter, by name: those that we know, and those that JAX's CUDA plugins bound."""
    known = installed(_PACKAGES)
    plugins = [known[name] for name in known if name.endswith("-plugin")]
    return known | installed([name for plugin in plugins for name in plugin.bounds(WITH_CUDA)])


def installed(names: Iterable[str]) -> dict[str, Package]:
    """Those of some packages that are installed, by their names."""
    packages = {name: _package(name) for name in names}
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
