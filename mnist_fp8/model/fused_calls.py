"""The calls of TE's functions that compute a layer norm, or all of an MLP, with products; and what is right of them."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mnist_fp8 import te
from mnist_fp8.core.modes import BLOCK_SCALED, RecipeConfig
from mnist_fp8.model.delayed import Kept, kept_from, scale_in_use
from mnist_fp8.model.judgement import Amax, Error, Judgement, error
from mnist_fp8.oracle import layers
from mnist_fp8.oracle.arithmetic import Passes
from mnist_fp8.oracle.dense import TENSORS, Array
from mnist_fp8.oracle.fused import Fusion, Norm, output_of
from mnist_fp8.oracle.tolerances import AMAX, reference_tolerance
from mnist_fp8.te.calls import Call
from mnist_fp8.te.predictions import closest

_KERNELS = {"layernorm_dense": {"dense": "kernel"}, "layernorm_mlp": {"wi": "wi_kernel", "wo": "wo_kernel"}}
"""Of TE's functions: the products and their kernels, as `oracle.fused` calls them."""
_PARAMETERS = {
    "gamma": "scale",
    "beta": "ln_bias",
    "kernel": "kernel",
    "bias": "bias",
    "kernel_1": "wi_kernel",
    "bias_1": "wi_bias",
    "kernel_2": "wo_kernel",
    "bias_2": "wo_bias",
}
"""What `oracle.fused` calls the arguments of TE's functions."""


class Operand(NamedTuple):
    """What is quantized for a product: its ``x``, ``kernel`` or ``grad``."""

    product: str
    tensor: str

    def __str__(self) -> str:
        """Its name in messages."""
        return self.tensor if self.product == "dense" else f"{self.tensor} of {self.product}"


@dataclasses.dataclass(frozen=True)
class FusedCall:
    """One call.

    Attributes:
        fusion: what is around the products.
        kernels: what the oracle calls the kernel of each product.
        x: input, (..., features).
        params: by the oracle's names.
        grad: gradient of the output.
        found: output and gradients, by the oracle's names; ``y`` and ``x`` those that are no parameter's.
        kept: the metadata; empty where the recipe keeps none.
    """

    fusion: Fusion
    kernels: Mapping[str, str]
    x: Array
    params: Mapping[str, Array]
    grad: Array
    found: Mapping[str, Array]
    kept: Mapping[Operand, Kept]

    @property
    def computes_in_bf16(self) -> bool:
        """Whether all that is not quantized is BF16, as it is in TE's Flax modules for an input in BF16."""
        others = [value for name, value in self.params.items() if name not in self.kernels.values()]
        return all(value.dtype == "bfloat16" for value in (self.x, self.grad, self.found["y"], *others))


def is_fused(call: Call) -> bool:
    """Whether a call computes more than a product."""
    return call.site.function in _KERNELS


def fused_call(call: Call, recipe: RecipeConfig | None) -> FusedCall | None:
    """A call by the oracle's names; ``None`` where it computes but a product, or something else."""
    if not is_fused(call):
        return None
    options, kernels = call.options, _KERNELS[call.site.function]
    arrays = {name: n for n, name in enumerate(call.names) if name == "x" or name in _PARAMETERS}
    params = {_PARAMETERS[name]: n for name, n in arrays.items() if name in _PARAMETERS}
    gradients = {name: call.d_inputs[n] for name, n in {**params, "x": arrays["x"]}.items()}
    return FusedCall(
        fusion=Fusion(
            Norm(bool(options["zero_centered_gamma"]), options["epsilon"]),
            activations=tuple(options.get("activation_type", ())),
        ),
        kernels=kernels,
        x=call.inputs[arrays["x"]],
        params={name: call.inputs[n] for name, n in params.items()},
        grad=call.d_outputs[0],
        found={"y": call.outputs[0], **gradients},
        kept=_kept(call, max(arrays.values()) + 1, tuple(kernels), recipe),
    )


def _kept(call: Call, first: int, products: tuple[str, ...], recipe: RecipeConfig | None) -> dict[Operand, Kept]:
    """The metadata: of each product in turn, but for those of its gradient where a release crosses them."""
    of_grads = products[::-1] if te.metadata_dialect().crosses_grads else products
    rows = zip(products, products, of_grads, strict=True)
    operands = [Operand(product, tensor) for row in rows for product, tensor in zip(row, TENSORS, strict=True)]
    kept = kept_from(call, first, [operand.tensor for operand in operands], recipe)
    return dict(zip(operands, kept, strict=True)) if kept else {}


def judged(call: Call, recipe: RecipeConfig | None) -> Judgement | None:
    """What the oracle says of a fused call; of one that it does not predict, it knows the kernels' amaxes."""
    fused = fused_call(call, recipe)
    if fused is None:
        return None
    wanted = expected(fused, recipe) if not call.options.get("activation_params") else None
    amaxes = _amaxes_of_kernels(fused)
    if wanted is not None:
        amaxes = {operand: wanted.amaxes[operand.product][operand.tensor] for operand in fused.kept}
    rounding = AMAX[te.engine().kind]
    return Judgement(
        errors=_errors(fused, wanted, recipe) if wanted else (),
        amaxes=tuple(
            Amax(str(operand), fused.kept[operand], amax, 0.0 if operand.tensor == "kernel" else rounding)
            for operand, amax in amaxes.items()
        ),
    )


def _amaxes_of_kernels(call: FusedCall) -> dict[Operand, np.float32]:
    kernels = {Operand(product, "kernel"): call.params[name] for product, name in call.kernels.items()}
    return {
        operand: np.float32(np.abs(kernel.astype(np.float32)).max())
        for operand, kernel in kernels.items()
        if operand in call.kept
    }


def expected(call: FusedCall, recipe: RecipeConfig | None) -> Passes | None:
    """What the call must compute; ``None`` where that is unknown here.

    So it is of other recipes, of numbers that are not BF16, of activations of the user's or that TE's layers do not
    fuse, and before 2.3.
    """
    is_known = call.fusion.is_one and all(name in layers.ACTIVATIONS for name in call.fusion.activations)
    if not is_known or not call.computes_in_bf16 or te.computes_more_in_bf16():
        return None
    scales = None
    if recipe and te.keeps_metadata(recipe):
        if not call.kept:
            return None
        scales = {product: dict[str, np.float32]() for product in call.kernels}
        for (product, tensor), kept in call.kept.items():
            scales[product][tensor] = scale_in_use(kept.given, tensor, recipe)
    elif recipe and (recipe.is_random or recipe.name not in ("Float8CurrentScaling", *BLOCK_SCALED)):
        return None
    return closest(
        output_of(call.fusion),
        call.params,
        {"x": call.x},
        (call.grad,),
        lambda passes: [each.in_tolerances for each in _errors(call, passes, recipe)],
        recipe=recipe,
        scales=scales,
    )


def _errors(call: FusedCall, wanted: Passes, recipe: RecipeConfig | None) -> tuple[Error, ...]:
    kind = te.engine().kind
    due = {"y": wanted.y[0], **wanted.dx, **wanted.dparams}
    return tuple(
        error(
            {"y": "output", "x": "gradient of the input"}.get(name, f"gradient of {name}"),
            found,
            due[name],
            reference_tolerance(name, kind, recipe),
        )
        for name, found in call.found.items()
    )
