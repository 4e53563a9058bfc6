"""What a result was measured with: it stands in every report, so that no two kinds of run are confused."""

import os
import platform
import sys
from importlib import metadata
from types import ModuleType

import jax

from mnist_fp8 import __version__
from mnist_fp8.core import variables, xla_flags
from mnist_fp8.core.modes import Precision
from mnist_fp8.core.processor import describe_processor
from mnist_fp8.te import loading, xla_products

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def describe(precision: Precision | None = None) -> dict[str, str]:
    """Versions, device and kind of run, by name and in the order to print them.

    Args:
        precision: what ran; Flax BF16 involves no Transformer Engine. ``None`` is a test run.

    Raises:
        TeUnavailableError: Transformer Engine is involved and cannot run.
    """
    involved = precision is None or precision.uses_te
    facts = {
        "run": loading.engine().description if involved else "Flax only: Transformer Engine is not involved",
        "transformer-engine": loading.version(),
        **{package: metadata.version(package) for package in _PACKAGES},
        "python": platform.python_version(),
        "device": describe_devices(),
        **({"gpu": f"none used: {loading.why_no_gpu()}"} if loading.why_no_gpu() else {}),
        **(_describe_cpu() if jax.default_backend() == "cpu" else {}),
        **({"XLA flags set here": " ".join(flags)} if (flags := xla_flags.ours(os.environ)) else {}),
        "platform": platform.platform(),
        "mnist-fp8": __version__,
    }
    return facts | variables.of_this_process(os.environ)


def origins() -> dict[str, str]:
    """The file, or else the folder, of each package and each module of Transformer Engine that was imported here."""
    names = (name for name in list(sys.modules) if "." not in name or name.startswith("transformer_engine."))
    places = {name: _origin(sys.modules[name]) for name in names if name != "__main__"}
    return {name: place for name, place in sorted(places.items()) if place}


def _origin(module: object) -> str:
    """Where a module comes from; empty for what has no file, such as a built-in one or a stand-in."""
    known = vars(module) if isinstance(module, ModuleType) else {}
    return str(known.get("__file__") or next(iter(known.get("__path__") or ()), ""))


def _describe_cpu() -> dict[str, str]:
    return {"processor": describe_processor(), "XLA products": str(xla_products.sums())}


def describe_devices() -> str:
    """The devices that JAX uses, such as ``2 x NVIDIA H100 80GB HBM3 (compute capability 9.0)``."""
    devices = jax.devices()
    capability = getattr(devices[0], "compute_capability", None)
    shown = f"{len(devices)} x {devices[0].device_kind}"
    return f"{shown} (compute capability {capability})" if capability else shown
