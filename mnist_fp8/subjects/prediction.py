"""What a layer must compute in its mode, to the rounding: its reference, and how far from that it may be."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from mnist_fp8 import te
from mnist_fp8.core.modes import BLOCK_SCALED
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.oracle import arithmetic
from mnist_fp8.oracle.arithmetic import Passes, ProductForm, Scales
from mnist_fp8.subjects.layer import Layer, Step, numbers, read_metas

RECIPES = ("DelayedScaling", "Float8CurrentScaling")
"""The recipes that the oracle predicts to the bit."""
FLIPPED = {RunKind.HOST: 2.0**-8, RunKind.KERNEL: 2.0**-4.75}
"""Largest relative norm of a difference from what the reference predicts.

Where a sum in float32 falls on the other side of a rounding than in float64, one of BF16, or a code, is that
beside it. Host runs of 2.20.2: most results are equal to the bit, the others differ by up to 0.0024. Kernels (H200):
single products up to 0.001, layers with an activation between two products 0.0325, where JAX computes it.
"""
FP4_STEPS = 4.0
"""How many steps of E4M3 are one of E2M1, which has two bits less: a code beside is so much farther off."""
SUMS = 2.0**-5
"""The same for gradients of biases: on a CPU, XLA rounds each partial sum over the rows to BF16. Seen: 0.0116."""
OFFSETS = 2.0**-2
"""The same for gradients of attention's learned offsets, by fused kernels: over all queries of a head, terms of both
signs are summed up that are rounded before. Seen on an H200: 0.11 for 16 queries, 0.03 for more."""
AMAX = {RunKind.HOST: 2.0**-20, RunKind.KERNEL: 2.0**-5}
"""Largest relative difference of an amax from the predicted one.

Where a fused layer hands on float32, its norm has some roundings of 2**-24 (seen: 2**-23); a neighbour in BF16 is 2**-8
away, and a kernel's sums may move an amax there. In a transformer layer, what attention rounds moves it further: 0.075
on an H200, which its `flips` allow.
"""


def form_of(mode: te.Autocast) -> ProductForm:
    """How a layer's products are written in a mode, in the run at hand."""
    if mode.recipe is None:
        return ProductForm.BF16
    if te.engine().kind is RunKind.KERNEL:
        return ProductForm.KERNEL
    return ProductForm.DEQUANTIZED if te.leaves_float8_to_xla() else ProductForm.CODES


def expected(
    layer: Layer,
    variables: Mapping[str, Any],
    inputs: Mapping[str, jax.Array],
    grads: tuple[jax.Array, ...],
    found: Step,
    scales: Mapping[str, Scales] | None = None,
) -> Passes:
    """What a layer must compute in its mode, by its reference.

    A function for more than one layer may hand what it has between them to a quantizer as float32 or as BF16, which TE
    does by release, recipe and kind of run. Both are right; the one that is closer to what was found is what is
    expected of all of the step, metadata included.
    """
    arguments = layer.reference, variables["params"], inputs, grads
    recipe = layer.mode.recipe
    predict = functools.partial(
        arithmetic.rounded,
        *arguments,
        scales=scales,
        form=form_of(layer.mode),
        narrow=te.computes_more_in_bf16(),
        blocks=recipe if recipe and recipe.name in BLOCK_SCALED else None,
    )
    predictions = (predict(kept=frozenset(kept)) for kept in (KEPT if layer.quantizes else KEPT[:1]))
    return _closest(layer, found, predictions)


KEPT = ((), ("x", "grad"), ("grad",), ("x",), ("amax",), ("amax", "grad"))
"""Which tensors may come to the quantizers inside a layer as float32, or be measured as such."""


def _closest(layer: Layer, found: Step, predictions: Iterable[Passes]) -> Passes:
    """The first prediction that is close, or else the one from which the fewest tensors are too far off."""
    tried = []
    for passes in predictions:
        named = pairs(found, passes)
        shares = [distance(actual, right) / tolerance_of(layer, name) for name, actual, right in named]
        tried.append((sum(share > 1 for share in shares), max(shares), passes))
        if max(shares) < CLOSE[te.engine().kind]:
            break
    return min(tried, key=lambda each: each[:2])[2]


CLOSE = {RunKind.HOST: 0.75, RunKind.KERNEL: 0.1}
"""Share of what is tolerated under which nothing closer is looked for: kernels are tolerated more than they need."""


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
    flips = layer.subject.flips * (FP4_STEPS if recipe_of(layer) == "NVFP4BlockScaling" else 1.0)
    return flips * (SUMS if name.endswith("bias") and "ln_bias" not in name else FLIPPED[kind])


def recipe_of(layer: Layer) -> str | None:
    """The name of the recipe of a layer's mode."""
    return layer.mode.recipe.name if layer.mode.recipe else None


def amax_tolerance(layer: Layer, tensor: str, amax: float | np.float32) -> float:
    """Largest difference of the amax of a tensor from what the reference predicts; none of a parameter."""
    return 0.0 if tensor == "kernel" else layer.subject.flips * AMAX[te.engine().kind] * float(amax)
