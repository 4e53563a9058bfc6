"""Proof that every dense layer of a model multiplies quantized operands."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
from jax.typing import ArrayLike

from mnist_fp8 import te
from mnist_fp8.core.errors import Float8MissingError
from mnist_fp8.programs import jaxprs
from mnist_fp8.programs.jaxprs import Gemm
from mnist_fp8.training.train import Metadata, TrainState, apply_model


def check_fp8(
    state: TrainState, images: ArrayLike, labels: ArrayLike, metadata: Metadata, rngs: Mapping[str, jax.Array]
) -> list[Gemm]:
    """Make sure that every dense layer multiplies quantized operands, forward and backward.

    The training step is traced, not run, and its jaxpr is read as structure (see `float8`).

    Returns:
        The matrix products that were found.

    Raises:
        Float8MissingError: a dense layer computes in another precision, or does not compute where it should.
    """
    jaxpr = jax.make_jaxpr(apply_model)(state, images, labels, metadata, rngs)
    convolutions = _layers(state.params, axes=4)  # in BF16, though a product may be part of one
    products = jaxprs.gemms(jaxpr, dequantized=te.leaves_float8_to_xla())
    gemms = [gemm for gemm in products if gemm.quantized or not (gemm.rotates or _is_any(gemm, convolutions))]
    named = _layers(state.params, axes=2)
    others = {gemm.layer for gemm in gemms if not _is_any(gemm, named)}
    problems = [problem for layer in (*named, *sorted(others)) for problem in _fp8_problems(layer, gemms)]
    problems += [_unquantized(gemm) for gemm in gemms if not gemm.quantized]
    if problems or not gemms:
        shown = "; ".join(dict.fromkeys(problems)) or "the model has no dense layer"
        raise Float8MissingError(f"training should compute in FP8, but does not: {shown}")
    return gemms


def _layers(params: Mapping[str, Any], axes: int) -> list[str]:
    """Paths of the layers by their kernel's axes: 2 of dense ones, even of those not seen to multiply; 4 of others."""
    kernels = jax.tree_util.tree_leaves_with_path(params)
    paths = [path for path, leaf in kernels if path[-1].key == "kernel" and leaf.ndim == axes]
    return ["/".join(entry.key for entry in path[:-1]) for path in paths]


def _fp8_problems(layer: str, gemms: list[Gemm]) -> Iterator[str]:
    """What is wrong with a layer: each of its forward products has two backward ones, all of them quantized."""
    own = [gemm for gemm in gemms if gemm.quantized and _belongs(gemm, layer)]
    backward = sum(gemm.backward for gemm in own)
    forward = len(own) - backward
    if not forward:
        yield f"{layer}: forward has 0 float8 matrix products, expected 1"
    if backward != 2 * max(forward, 1):
        yield f"{layer}: backward has {backward} float8 matrix products, expected {2 * max(forward, 1)}"


def _belongs(gemm: Gemm, layer: str) -> bool:
    """Whether a product is a layer's; its own path begins with the model's name, which parameters do not know."""
    return f"/{gemm.layer}".endswith(f"/{layer}")


def _is_any(gemm: Gemm, layers: list[str]) -> bool:
    return any(_belongs(gemm, layer) for layer in layers)


def _unquantized(gemm: Gemm) -> str:
    direction = "backward" if gemm.backward else "forward"
    return f"{gemm.layer}: {direction} {gemm.primitive} multiplies {gemm.lhs} by {gemm.rhs}"
