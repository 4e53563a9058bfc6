"""The kernels that a program ran on a GPU, read from a profiler's trace of the device, and what their names say.

A program's text says what was asked for. cuBLAS chooses a kernel when it is called, and writes into its name the types
that it multiplies.
"""

import functools
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class ProfilerError(RuntimeError):
    """The profiler saw no kernel; the message says what it needs."""


class Kernel(NamedTuple):
    """One run of a kernel.

    Attributes:
        name: as the device reports it.
        operation: the instruction of the compiled program that started it, such as ``te_gemm_v2_ffi.0``, or the graph
            of instructions that it was part of, such as ``command_buffer_1``.
    """

    name: str
    operation: str


_BY_LETTER = {"q": "float8_e4m3fn", "r": "float8_e5m2", "t": "bfloat16", "h": "float16", "s": "float32"}
_BY_TOKEN = {
    "e4m3": "float8_e4m3fn",
    "e5m2": "float8_e5m2",
    "bf16": "bfloat16",
    "f16": "float16",
    "tf32": "float32",
    "f32": "float32",
}
_TOKEN = "|".join(_BY_TOKEN)

# Families of cuBLAS's kernels, as seen on H100 with cuBLAS 13.0 (nvjet) and in traces of cuBLAS 12 (the others).
_NVJET = re.compile(r"nvjet(?:_sm\d+[a-z]?)?_([a-z]{3}|[a-z]{5})_")
_XMMA = re.compile(rf"xmma_gemm_({_TOKEN})(?:{_TOKEN})?_({_TOKEN})")
_NAMED = re.compile(rf"gemm_(?:relu_)?({_TOKEN})(?:_({_TOKEN}))?")
_GEMM = re.compile(r"nvjet|gemm|gemv", re.IGNORECASE)
_NO_GEMM = re.compile(r"implicit|conv|cudnn|wgrad|dgrad|fprop|splitkreduce", re.IGNORECASE)


def is_gemm(name: str) -> bool:
    """Whether a kernel's name is that of a matrix product.

    A convolution, which may be an "implicit gemm", is none, and neither is the sum over the parts into which cuBLAS
    divides a long product.
    """
    return bool(_GEMM.search(name)) and not _NO_GEMM.search(name)


def operands(name: str) -> tuple[str, str] | None:
    """Dtype names of the two matrices that a kernel of cuBLAS multiplies, read from its name.

    ``nvjet_sm90_qqtst_...`` multiplies E4M3 (``q``) by E4M3, adds up in float32 (``s``) and writes BF16 (``t``);
    ``nvjet_sm90_tst_...`` multiplies BF16 by BF16; ``sm90_xmma_gemm_e4m3bf16_e5m2f32_...`` writes the types out.

    Returns:
        ``None`` if the name is not of a known family.
    """
    if match := _NVJET.search(name):
        letters = match[1] if len(match[1]) > 3 else match[1][0] * 2  # noqa: PLR2004 - one letter stands for both
        first, second = (_BY_LETTER.get(letter) for letter in letters[:2])
        return (first, second) if first and second else None
    if match := _XMMA.search(name) or _NAMED.search(name):
        first, second = match[1], match[2] or match[1]
        return _BY_TOKEN[first], _BY_TOKEN[second]
    return None


def trace(program: Callable[..., Any], *arguments: Any) -> list[Kernel]:  # noqa: ANN401
    """Run a program on the GPU and list the kernels that ran, in the order in which they started.

    It is run once before, so that what a first call loads or chooses is not part of the trace.

    Raises:
        ProfilerError: the profiler saw no kernel.
    """
    jax.block_until_ready(program(*arguments))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(program(*arguments))
        files = sorted(Path(folder).rglob("*.xplane.pb"))
        with warnings.catch_warnings():
            # The reader's own types have no module name, which Python 3.12 warns of.
            warnings.simplefilter("ignore", DeprecationWarning)
            events = sorted(event for file in files for event in _events(file))
    if not events:
        raise ProfilerError("the profiler saw no kernel; it needs CUPTI (nvidia-cuda-cupti) and the right to use it")
    return [kernel for _, kernel in events]


@functools.cache
def why_no_trace() -> str:
    """Why this machine's profiler sees no kernel; empty if it does. A matrix product is run to find out."""
    square = jnp.ones((256, 256), jnp.bfloat16)
    try:
        trace(jax.jit(jnp.matmul), square, square)
    except (ProfilerError, AttributeError) as error:  # an older JAX has no reader of traces
        return str(error)
    return ""


def _events(file: Path) -> Iterator[tuple[float, Kernel]]:
    """Kernels of a trace with the time at which each started; copies and what runs on the host are left out."""
    for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
        if not plane.name.startswith("/device:GPU"):
            continue
        for line in plane.lines:
            for event in line.events:
                stats = dict(event.stats)
                if "kernel_details" in stats:
                    operation = str(stats.get("hlo_op", ""))
                    yield event.start_ns, Kernel(event.name, operation)
