"""What a test can need, by the name of its mark, and why it is not met here: "needs X; found Y"."""

from collections.abc import Callable

import jax
import pytest

from mnist_fp8 import te
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.programs import kernels
from mnist_fp8.te import xla_products


def first_unmet(item: pytest.Item) -> str | None:
    """Why a test cannot run here; ``None`` if it can."""
    reasons = (unmet(*mark.args) for name, unmet in NEEDS.items() for mark in item.iter_markers(name))
    return next(filter(None, reasons), None)


def _unmet_gpu() -> str | None:
    kind = te.engine().kind
    return None if kind is RunKind.KERNEL else f"needs a kernel run on a GPU; found a {kind.value} run"


def _unmet_host() -> str | None:
    return None if _unmet_gpu() else "needs a host run; found a kernel run"


def _unmet_devices(count: int) -> str | None:
    found = len(jax.devices())
    return None if found >= count else f"needs {count} devices; found {found} ({jax.devices()[0].device_kind})"


def _unmet_profiler() -> str | None:
    reason = kernels.why_no_trace()
    return f"needs a trace of the kernels that run; found: {reason}" if reason else None


def _unmet_recipe(name: str) -> str | None:
    support = te.support(te.make_recipe(RecipeConfig(name)))
    return None if support.ok else f"needs recipe {name}; found: {support.reason}"


def _unmet_te_name(name: str) -> str | None:
    return None if te.has_name(name) else f"needs {name} in transformer_engine.jax; found none in {te.version()}"


def _unmet_xla_sums_in_float32() -> str | None:
    if te.engine().kind is RunKind.KERNEL:
        return None  # what multiplies there is TE's
    found = xla_products.sums()
    return None if found.are_float32 else f"needs an XLA that sums BF16 products in float32; found them {found}"


NEEDS: dict[str, Callable[..., str | None]] = {
    "gpu": _unmet_gpu,
    "host": _unmet_host,
    "devices": _unmet_devices,
    "profiler": _unmet_profiler,
    "recipe": _unmet_recipe,
    "te_name": _unmet_te_name,
    "xla_sums_in_float32": _unmet_xla_sums_in_float32,
}
"""By the name of a mark: a function of the mark's arguments that says what is needed and found if it is not met."""
