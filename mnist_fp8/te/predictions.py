"""What a layer of the installed release must compute, by its reference: as its products are written there."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy.typing as npt

from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.oracle import arithmetic
from mnist_fp8.oracle.arithmetic import Params, Passes, Reference
from mnist_fp8.oracle.products import ProductForm, Scales
from mnist_fp8.te import loading
from mnist_fp8.te.metadata import computes_more_in_bf16, leaves_float8_to_xla

KEPT = ((), ("x", "grad"), ("grad",), ("x",), ("amax",), ("amax", "grad"))
"""Which tensors may come to the quantizers inside a layer as float32, or be measured as such."""
CLOSE = {RunKind.HOST: 0.75, RunKind.KERNEL: 0.1}
"""Share of what is tolerated under which nothing closer is looked for: kernels are tolerated more than they need."""


def form_of(*, quantizes: bool) -> ProductForm:
    """How products are written, in the run at hand."""
    if not quantizes:
        return ProductForm.BF16
    if loading.engine().kind is RunKind.KERNEL:
        return ProductForm.KERNEL
    return ProductForm.DEQUANTIZED if leaves_float8_to_xla() else ProductForm.CODES


def closest(
    reference: Reference,
    params: Params,
    inputs: Mapping[str, npt.ArrayLike],
    grads: Sequence[npt.ArrayLike],
    shares: Callable[[Passes], Sequence[float]],
    *,
    recipe: RecipeConfig | None,
    scales: Mapping[str, Scales] | None = None,
) -> Passes:
    """What a layer must compute, by its reference.

    A function for more than one layer may hand what it has between them to a quantizer as float32 or as BF16, which TE
    does by release, recipe and kind of run. Both are right; the one that is closer to what was found is what is
    expected of all of the step, metadata included: the first that is close, or else the one from which the fewest
    tensors are too far off.

    Args:
        reference: the layer.
        params: its parameters.
        inputs: its inputs, by name.
        grads: gradients of its outputs.
        shares: how far each tensor that was found is off, in tolerances.
        recipe: that quantizes the operands of its products; ``None`` if nothing does.
        scales: by product; of current scaling if there are none.
    """

    def predictions() -> Iterator[Passes]:
        for kept in KEPT if recipe else KEPT[:1]:
            yield arithmetic.rounded(
                reference,
                params,
                inputs,
                grads,
                scales=scales,
                form=form_of(quantizes=recipe is not None),
                kept=frozenset(kept),
                narrow=computes_more_in_bf16(),
                recipe=recipe,
            )

    tried = []
    for passes in predictions():
        found = shares(passes)
        tried.append((sum(share > 1 for share in found), max(found), passes))
        if max(found) < CLOSE[loading.engine().kind]:
            break
    return min(tried, key=lambda each: each[:2])[2]
