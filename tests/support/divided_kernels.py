"""Kernels of one device under TE's rules for several, on a host run.

TE's rules say how the tensors of a kernel are divided, what a device is given, and what is summed up or compared over
devices afterwards. The kernels of `support.layer_kernels` stand in for those that the rules ask for on each device.
"""

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import jax
import pytest

from mnist_fp8.subjects.making import name_of_te
from mnist_fp8.subjects.subject import NotInReleaseError
from support import fp8_kernels, layer_kernels

KERNELS = (*layer_kernels.PARAMETERS, *fp8_kernels.PARAMETERS, ("cpp_extensions.amax", "AmaxCalculationPrimitive"))


def put_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Transformer Engine divide the kernels of its dense layers over devices, and compute each part here.

    Raises:
        NotInReleaseError: the release has other kernels.
    """
    divided = [(kernel, kernel.outer_primitive) for kernel in _kernels()]
    layer_kernels.put_in_place(monkeypatch)
    for kernel, primitive in divided:
        monkeypatch.setattr(kernel, "outer_primitive", primitive)


def _kernels() -> Iterator[Any]:
    for path in KERNELS:
        with contextlib.suppress(NotInReleaseError):  # some came in 2.9
            yield name_of_te(*path)


def show_mesh(monkeypatch: pytest.MonkeyPatch, mesh: jax.sharding.Mesh) -> None:
    """Have Transformer Engine's rules see a mesh: JAX 0.10 asks them in a thread of XLA's, which has entered none."""
    resources = SimpleNamespace(env=SimpleNamespace(physical_mesh=mesh))
    monkeypatch.setattr(name_of_te("sharding"), "_PXLA_THREAD_RESOURCES", resources)
