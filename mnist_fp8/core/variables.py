"""The environment variables that reach a run. All others stay outside: they could thin out the suite or replace code.

Options of JAX and Flax stay outside as well: most of the tests are true of their defaults alone. A claim of its own
sets those that Transformer Engine has to hold under. A person is told what was left out.

One table for both sides: what judges passes these on and keys results by them; what is judged says which were set.
"""

import itertools
from collections.abc import Iterable, Mapping

CHANGE_RESULTS: Mapping[str, str] = {
    "NVTE_": "switches of Transformer Engine",
    "XLA_": "flags of XLA, and its share of the memory",
    "JAX_PLATFORM": "where JAX runs",
    "JAX_CUDA_VISIBLE_DEVICES": "which GPUs JAX sees",
    "JAX_USE_SHARDY_PARTITIONER": "which partitioner divides the work among devices",
    "TF_CPP_": "what XLA logs",
    "TF_CUDNN_": "whether cuDNN's algorithms are deterministic",
    "TF_GPU_": "how XLA uses the memory of a GPU",
    "MNIST_FP8_": "the kind of run, the GPU that it pretends, and which layers and which model are judged",
    "CUDA_": "which GPUs are seen, and how kernels are loaded",
    "CUDNN_": "switches of cuDNN",
    "CUBLAS": "switches of cuBLAS and cuBLASLt, such as the size of its workspace",
    "NCCL_": "how devices talk to each other",
    "NVIDIA_TF32_OVERRIDE": "whether TF32 replaces FP32",
    "TRITON_": "where Triton's compiler and its cache are",
    "OMP_": "threads, which decide in which order numbers are added",
    "OPENBLAS_": "threads of NumPy's products",
    "MKL_": "threads of NumPy's products",
    "LD_LIBRARY_PATH": "where CUDA and cuDNN are found",
}
"""Beginnings of the names of what can change a result, with the reason to pass it on. It is part of a result's key."""

CHANGE_NOTHING: Mapping[str, str] = {
    "PATH": "programs such as ptxas",
    "HOME": "the folder of caches, if nothing else names it",
    "USER": "a name for temporary folders",
    "LOGNAME": "a name for temporary folders",
    "LANG": "the encoding of names of files",
    "LC_": "the encoding of names of files",
    "TMPDIR": "where temporary files lie",
    "XDG_CACHE_HOME": "the folder of caches",
}
"""The same of what a program needs, and no result depends on."""

DECIDE_DEFAULTS = ("NVTE_BACKWARD_OVERRIDE", "NVTE_FP8_", "NVTE_NVFP4_")
"""Beginnings of the names of switches that decide what a recipe of Transformer Engine does by default. Records are
measured with them, so that two releases are compared as the user runs them. The claims hold the documented defaults:
they are verified without."""

LEFT_OUT = ("JAX_", "FLAX_")
"""Beginnings of the names of options that stay outside, and that a person would expect to reach a run."""
FAST_MATH = "--xla_cpu_enable_fast_math"
"""Beginning of the flags of XLA that stay outside as well: with them nothing holds to the bit."""


def left_out(environ: Mapping[str, str]) -> dict[str, str]:
    """Options of JAX, Flax and XLA that are set and reach no run, in the order of their names."""
    passed = passed_on(environ)
    options = {name: environ[name] for name in sorted(environ) if name.startswith(LEFT_OUT) and name not in passed}
    flags = " ".join(filter(_is_fast_math, environ.get("XLA_FLAGS", "").split()))
    return options | ({"XLA_FLAGS": flags} if flags else {})


def that_decide_defaults(environ: Mapping[str, str]) -> dict[str, str]:
    """Those that reach a run, and not its claims, in the order of their names."""
    return _beginning_with(DECIDE_DEFAULTS, environ)


def assignments(options: Mapping[str, str]) -> str:
    """Variables as a shell has them, in one line."""
    return " ".join(f"{name}={value}" for name, value in options.items())


def that_change_results(environ: Mapping[str, str]) -> dict[str, str]:
    """Those that can change a result and reach a run, in the order of their names."""
    known = _beginning_with(CHANGE_RESULTS, environ)
    if FAST_MATH in known.get("XLA_FLAGS", ""):
        known["XLA_FLAGS"] = " ".join(itertools.filterfalse(_is_fast_math, known["XLA_FLAGS"].split()))
    return known


def of_this_process(environ: Mapping[str, str]) -> dict[str, str]:
    """All that can change what a process with these variables computes, in the order of their names."""
    return _beginning_with((*CHANGE_RESULTS, *LEFT_OUT), environ)


def _beginning_with(beginnings: Iterable[str], environ: Mapping[str, str]) -> dict[str, str]:
    return {name: environ[name] for name in sorted(environ) if name.startswith(tuple(beginnings))}


def _is_fast_math(flag: str) -> bool:
    return flag.startswith(FAST_MATH) and not flag.endswith("=false")


def passed_on(environ: Mapping[str, str]) -> dict[str, str]:
    """All that reach a run."""
    neutral = {name: value for name, value in environ.items() if _is_neutral(name)}
    return neutral | that_change_results(environ)


def _is_neutral(name: str) -> bool:
    return any(name == known or (known.endswith("_") and name.startswith(known)) for known in CHANGE_NOTHING)
