"""One dense layer on the GPU, by TE's kernels and by TE's own JAX path: its tensors, its passes and their programs."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from mnist_fp8.oracle import dense
from mnist_fp8.oracle.dense import FORMATS, TENSORS, Array, DensePasses, Product
from mnist_fp8.te.dense_step import BF16, Step, dense_layer, dense_step, fp8, on_device, variables_of
from support.metadata import meta_of

Shape = tuple[int, int, int]
"""Rows of the input, contracted size, features."""

RECIPES = {
    "bf16": BF16,
    "delayed": fp8(amax_history_len=4),
    "current": fp8("Float8CurrentScaling"),
}
SPREAD = {"x": 1.0, "kernel": 0.3, "grad": 0.01}
SCALES = {"x": np.float32(101.3), "kernel": np.float32(352.7), "grad": np.float32(770013.5)}
"""Of delayed scaling: what spreads the tensors over most of their formats. Unlike each other and no powers of two, so
that a swapped, missing or inverted one shows."""

FACTORS = {
    "forward": ("x", "kernel"),
    "input gradient": ("grad", "kernel"),
    "kernel gradient": ("x", "grad"),
}
"""What each of the three matrix products of a dense layer multiplies."""

CUBLAS: dict[str, str | bool] = {"xla_gpu_enable_triton_gemm": False}
"""XLA's option to leave matrix products to cuBLAS. It would choose between that and kernels of its own by trying all,
which takes minutes for large ones."""

NO_GRAPHS: dict[str, str | bool] = {"xla_gpu_enable_command_buffer": ""}
"""XLA's option to start every kernel by itself, so that a trace says which instruction started it."""


@contextlib.contextmanager
def without_custom_calls() -> Iterator[None]:
    """TE's own JAX path. TE reads the setting when it is traced, so that nothing may be reused."""
    before = os.environ.get("NVTE_JAX_CUSTOM_CALLS")
    os.environ["NVTE_JAX_CUSTOM_CALLS"] = "false"
    jax.clear_caches()
    try:
        yield
    finally:
        jax.clear_caches()
        if before is None:
            del os.environ["NVTE_JAX_CUSTOM_CALLS"]
        else:
            os.environ["NVTE_JAX_CUSTOM_CALLS"] = before


def tensors(shape: Shape, seed: int = 9) -> dict[str, Array]:
    """Normally distributed ``x`` (M, K), ``kernel`` (K, N) and ``grad`` (M, N), float32, of numbers that BF16 has.

    The largest number of each is 251/128 times a power of two. 251 is a prime, so that no number of BF16, times the
    scale of current scaling, is so close to halfway between two codes that a GPU's division decides which it becomes.
    """
    rows, contracted, features = shape
    sizes = {"x": (rows, contracted), "kernel": (contracted, features), "grad": (rows, features)}
    drawn = np.random.default_rng(seed)
    found = {}
    for name, size in sizes.items():
        values = drawn.standard_normal(size, np.float32) * SPREAD[name]
        largest = np.argmax(np.abs(values))
        values.flat[largest] = 251 / 128 * np.exp2(np.ceil(np.log2(np.abs(values.flat[largest]) / (251 / 128))))
        found[name] = np.array(on_device(values, "bfloat16"), np.float32)
    return found


def arguments(recipe: str, values: Mapping[str, Array]) -> tuple[Any, ...]:
    """Arguments of `dense_step` for a layer without bias on some tensors."""
    metas = {name: meta_of(float(SCALES[name])) for name in TENSORS} if recipe == "delayed" else {}
    x, grad = (on_device(values[name], "bfloat16") for name in ("x", "grad"))
    layer = dense_layer(features=values["kernel"].shape[1], use_bias=False)
    return layer, RECIPES[recipe], variables_of(values["kernel"], metas), x, grad


def sampled(count: int, most: int = 256) -> Array:
    """Numbers of some rows of so many, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def expected_rows(recipe: str, values: Mapping[str, Array]) -> dict[str, tuple[Array, Product]]:
    """What the oracle makes of a layer's tensors, by product: numbers of rows, and those rows of the result.

    All rows of a large product would take the oracle minutes.
    """
    x, kernel, grad = (values[name] for name in TENSORS)
    batch, contracted = sampled(len(x)), sampled(len(kernel))
    if recipe == "bf16":
        oracle: Callable[..., DensePasses] = dense.dense
    else:
        scales = SCALES if recipe == "delayed" else dense.current_scales(values, "HYBRID")
        oracle = functools.partial(dense.fp8_dense, scales=scales, fp8_format="HYBRID")
    of_batch = oracle(x[batch], kernel, grad[batch])
    of_kernel = oracle(x[:, contracted], kernel[contracted], grad)
    return {
        "forward": (batch, of_batch.y),
        "input gradient": (batch, of_batch.dx),
        "kernel gradient": (contracted, of_kernel.dkernel),
    }


def passes(step: Step) -> dict[str, jax.Array]:
    """The result of each of the three products, by its name."""
    return dict(zip(FACTORS, (step.y, step.dx, step.grads["params"]["kernel"]), strict=True))


def compile_step(
    recipe: str, values: Mapping[str, Array], options: dict[str, str | bool] | None = None
) -> tuple[Any, tuple[Any, ...]]:
    """A layer's forward and backward pass, compiled with options of XLA, and its arguments."""
    layer, mode, *given = arguments(recipe, values)
    return dense_step.lower(layer, mode, *given).compile(compiler_options=options), tuple(given)


def one_pass(recipe: str, values: Mapping[str, Array], which: str) -> tuple[Callable[..., jax.Array], tuple[Any, ...]]:
    """A function that returns the result of one of the three products only, so that no other is left in its program."""
    layer, mode, *rest = arguments(recipe, values)

    def compute(variables: Mapping[str, Any], x: jax.Array, grad: jax.Array) -> jax.Array:
        return passes(dense_step(layer, mode, variables, x, grad))[which]

    return compute, tuple(rest)


def formats(recipe: str, which: str) -> tuple[str, ...]:
    """Dtypes that one of the three products must multiply."""
    if recipe == "bf16":
        return ("bfloat16", "bfloat16")
    return tuple(FORMATS["HYBRID"][name] for name in FACTORS[which])
