"""What a layer must compute in its mode, to the rounding: its reference, and how far from that it may be."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from mnist_fp8 import te
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.oracle.arithmetic import Passes
from mnist_fp8.oracle.products import Scales
from mnist_fp8.oracle.tolerances import AMAX, reference_tolerance
from mnist_fp8.subjects.layer import Layer, Step, numbers, read_metas
from mnist_fp8.te import predictions

OFFSETS = 2.0**-2
"""As `reference_tolerance`, for gradients of attention's learned offsets, by fused kernels: over all queries of a head,
terms of both signs are summed up that are rounded before. Seen on an H200: 0.11 for 16 queries, 0.03 for more."""


def expected(
    layer: Layer,
    variables: Mapping[str, Any],
    inputs: Mapping[str, jax.Array],
    grads: tuple[jax.Array, ...],
    found: Step,
    scales: Mapping[str, Scales] | None = None,
) -> Passes:
    """What a layer must compute in its mode, by its reference, given what it computed: `predictions.closest`."""

    def shares(passes: Passes) -> list[float]:
        return [distance(actual, right) / tolerance_of(layer, name) for name, actual, right in pairs(found, passes)]

    arguments = layer.reference, variables["params"], inputs, grads
    recipe = layer.mode.recipe if layer.quantizes else None
    return predictions.closest(*arguments, shares, recipe=recipe, scales=scales)


def distance(actual: Any, right: Any) -> float:  # noqa: ANN401 - arrays
    """The norm of a difference, relative to that of what is right; infinite where that is zero and the other is not."""
    apart, size = np.linalg.norm(numbers(actual) - right), np.linalg.norm(right)
    return float(apart / size) if size else float(np.where(apart == 0, 0.0, np.inf))


def scales_of(layer: Layer, used: Mapping[str, Any], following: Mapping[str, Any]) -> dict[str, dict[str, np.float32]]:
    """The scales of a step by product and tensor, out of the metadata that it was given, or that it returned."""
    stored = used if te.metadata_dialect().stores_next_scale else following
    return {
        product: {tensor: meta.scale for tensor, meta in metas.items()}
        for product, metas in read_metas(layer, stored).items()
    }


def pairs(step: Step, wanted: Passes) -> Iterator[tuple[str, Any, Any]]:
    """Name, what a layer computed and what it must compute, of all outputs and gradients.

    Raises:
        ValueError: it has another number of outputs.
    """
    for number, (actual, right) in enumerate(zip(step.y, wanted.y, strict=True)):
        yield f"output {number}", actual, right
    for name, right in wanted.dx.items():
        yield f"gradient of {name}", step.dx[name], right
    found = paths(numbers(dict(step.grads.get("params", {}))))
    for path, right in paths(wanted.dparams).items():
        yield f"gradient of {path}", found[path], right


def paths(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> dict[str, Any]:  # noqa: ANN401
    """The leaves of a tree of dictionaries, by their paths with slashes between the keys."""
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf)
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}


def tolerance_of(layer: Layer, name: str) -> float:
    """Largest relative norm of a difference from what the reference predicts, by what is compared."""
    kind = te.engine().kind
    if name.endswith("softmax_offset") and kind is RunKind.KERNEL:
        return OFFSETS
    return layer.subject.flips * reference_tolerance(name, kind, layer.mode.recipe)


def amax_tolerance(layer: Layer, tensor: str, amax: float | np.float32) -> float:
    """Largest difference of the amax of a tensor from what the reference predicts; none of a parameter."""
    return 0.0 if tensor == "kernel" else layer.subject.flips * AMAX[te.engine().kind] * float(amax)
