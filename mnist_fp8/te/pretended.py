"""The GPU that a host run pretends to have: the one asked for, else a Hopper, and a Blackwell where a recipe needs one.

Nothing of such a GPU is emulated. Transformer Engine asks for the compute capability before it takes a recipe, and then
computes its definition in plain JAX.
"""

import contextlib
import sys
from collections.abc import Iterator

from mnist_fp8.core.capability import Capability
from mnist_fp8.core.modes import BLOCK_SCALED
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.te import host, loading, lowerings

_REMEMBERED = (
    "_is_fp8_available",
    "_is_scaling_mode_supported",
    "_reason_for_no_fp8",
    "_reason_for_no_scaling_mode",
)
"""Variables of TE's modules, by release, that hold what it has found out of the device; ``None`` has it ask again."""


@contextlib.contextmanager
def device_for(recipe: str) -> Iterator[None]:
    """Have Transformer Engine see a GPU that has the products of a recipe, by its name.

    A kernel run has its own GPU, and a run that was asked for another keeps that: TE refuses what it does not have.
    """
    if recipe not in BLOCK_SCALED or loading.engine().kind is not RunKind.HOST:
        yield
        return
    lowerings.provide()
    with pretending(host.DEVICE.asked or Capability.BLACKWELL):
        yield


@contextlib.contextmanager
def pretending(capability: Capability) -> Iterator[None]:
    """Have Transformer Engine see a compute capability, whatever it has found out before."""
    before = host.DEVICE.capability
    _pretend(capability)
    try:
        yield
    finally:
        _pretend(before)


def _pretend(capability: Capability) -> None:
    if capability == host.DEVICE.capability:
        return
    host.DEVICE.capability = capability
    for name, module in list(sys.modules.items()):
        if name.startswith("transformer_engine"):
            _forget(vars(module))


def _forget(names: dict[str, object]) -> None:
    """Have a module ask for its device again: what it has kept itself, and what its functions and methods keep."""
    for name, value in names.items():
        if name in _REMEMBERED:
            names[name] = None
        elif str(getattr(value, "__module__", "")).startswith("transformer_engine"):
            for each in (value, *(vars(value).values() if isinstance(value, type) else ())):
                if hasattr(each, "cache_clear"):
                    each.cache_clear()
