"""Times and memory, for information: what Transformer Engine takes to compile and to take a step."""

import functools
import resource
import sys
import time
from collections.abc import Callable, Mapping

import jax

from mnist_fp8.measure.common import modes, program, tensors
from mnist_fp8.record.entries import Cost, Value

_SHAPE = (256, 512, 512)
_COMPILED, _STEPS = 2, 30


def probes() -> Mapping[str, Callable[[], Mapping[str, Value]]]:
    """Measurements by the beginning of their keys."""
    timed = {f"costs/{name}": functools.partial(_timed, name) for name in modes()}
    return {**timed, "costs/process": _memory}


def _timed(name: str) -> dict[str, Value]:
    """A dense layer's step, forward and backward: tracing and compiling it, and running it."""
    function, arguments = program(modes()[name], tensors(_SHAPE), backward=True)
    compiling, steps = [], []
    for _ in range(_COMPILED):
        jax.clear_caches()
        begin = time.perf_counter()
        compiled = jax.jit(function).lower(*arguments).compile()
        compiling.append(time.perf_counter() - begin)
    for _ in range(_STEPS):
        begin = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        steps.append(time.perf_counter() - begin)
    return {
        f"costs/{name}/trace and compile a step": Cost(tuple(compiling), "s"),
        f"costs/{name}/step": Cost(tuple(steps[_STEPS // 3 :]), "s"),
    }


def _memory() -> dict[str, Value]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    found: dict[str, Value] = {"costs/process/peak memory": Cost((float(peak),), "bytes")}
    on_device = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in on_device:
        found["costs/process/peak memory of the device"] = Cost((float(on_device["peak_bytes_in_use"]),), "bytes")
    return found
