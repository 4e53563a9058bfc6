"""What FP8 dense layers must compute, from the definitions, in NumPy. Nothing here comes from Transformer Engine.

Delayed scaling is described in TE's user guide ("Using FP8 with Transformer Engine") and in the docstring of
``transformer_engine.common.recipe.DelayedScaling``: ``scale = (fp8_max / amax) / 2**margin``. The formats are those of
Micikevicius et al., "FP8 Formats for Deep Learning" (2022): E4M3 reaches 448, E5M2 57344.
"""

import dataclasses
import functools
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
from packaging.version import Version

from mnist_fp8.core.modes import BLOCK_SCALED, RecipeConfig

Array = npt.NDArray[Any]

FP8_MAX = {"float8_e4m3fn": 448.0, "float8_e5m2": 57344.0}
"""Largest finite value of each format."""

FORMATS = {
    "HYBRID": {"x": "float8_e4m3fn", "kernel": "float8_e4m3fn", "grad": "float8_e5m2"},
    "E4M3": {"x": "float8_e4m3fn", "kernel": "float8_e4m3fn", "grad": "float8_e4m3fn"},
}
"""For each of the recipes' formats, what each tensor is quantized to."""

TENSORS = ("x", "kernel", "grad")
FP4 = "float4_e2m1fn"


def formats_of(recipe: RecipeConfig) -> Mapping[str, str]:
    """What a recipe quantizes ``x``, ``kernel`` and ``grad`` to; block-scaled MXFP8 has E4M3 where nobody asks."""
    if recipe.name == "NVFP4BlockScaling":
        return dict.fromkeys(TENSORS, FP4)
    return FORMATS[recipe.fp8_format or ("E4M3" if recipe.name in BLOCK_SCALED else "HYBRID")]


ROUNDS_TWICE = Version(metadata.version("jax")) < Version("0.7")
"""Whether JAX rounds float32 to float8 by way of float16 on a CPU: four numbers in a thousand differ."""


def quantize(tensor: Array, scale: float, dtype: str) -> Array:
    """Quantize: scale in float32, saturate at the largest finite value, round to nearest, ties to even.

    Args:
        tensor: any float dtype.
        scale: what the tensor is multiplied by.
        dtype: ``float8_e4m3fn`` or ``float8_e5m2``.

    Returns:
        The codes as float64 numbers, not yet divided by the scale.
    """
    scaled = tensor.astype(np.float32) * np.float32(scale)
    saturated = np.clip(scaled, -FP8_MAX[dtype], FP8_MAX[dtype])
    if ROUNDS_TWICE:
        saturated = saturated.astype(np.float16)
    return saturated.astype(getattr(ml_dtypes, dtype)).astype(np.float64)


@dataclasses.dataclass(frozen=True)
class Meta:
    """Delayed-scaling metadata of one tensor, as stored between steps.

    Attributes:
        scale: what the next step multiplies the tensor by; before TE 2.3, what the last one did.
        history: amaxes of past steps, float32; entry 0 is a free slot (zero), the last entry the newest. Before TE 2.3,
            entry 0 is the newest, followed by the others from the oldest on.
    """

    scale: np.float32
    history: Array


def initial_meta(length: int) -> Meta:
    """Metadata before the first step: scale 1 and an empty history."""
    return Meta(np.float32(1), np.zeros(length, np.float32))


def next_meta(meta: Meta, amax: float, *, fp8_max: float, margin: int = 0, algo: str = "max") -> Meta:
    """Metadata after a step that saw ``amax``: its scale is the next step's.

    The scale follows from the largest amax of the window (``max``) or from this step's (``most_recent``). A window
    amax that is zero, infinite or not a number leaves the scale as it is.
    """
    window = np.concatenate([[np.float32(amax)], meta.history[1:]]).astype(np.float32)
    scale = _scale_of(window, meta.scale, fp8_max, margin, algo)
    rolled = np.concatenate([[np.float32(0)], window[2:], window[:1]]) if len(window) > 1 else np.zeros(1, np.float32)
    return Meta(scale, rolled.astype(np.float32))


def next_meta_before_2_3(meta: Meta, amax: float, *, fp8_max: float, margin: int = 0, algo: str = "max") -> Meta:
    """Metadata as TE stored them before 2.3, after a step that saw ``amax``: their scale is the one it used.

    It follows from the history that the step was given, in the same way.
    """
    rolled = np.roll(meta.history, -1).astype(np.float32)
    rolled[0] = np.float32(amax)
    return Meta(_scale_of(meta.history, meta.scale, fp8_max, margin, algo), rolled)


def _scale_of(window: Array, scale: np.float32, fp8_max: float, margin: int, algo: str) -> np.float32:
    chosen = np.max(window) if algo == "max" else window[0]
    if np.isfinite(chosen) and chosen > 0:
        with np.errstate(over="ignore"):  # an amax below 448 / float32's largest gives an infinite scale
            scale = np.float32(np.float32(fp8_max) / chosen) / np.float32(2**margin)
    return np.float32(scale)


def current_scale(tensor: Array, dtype: str) -> np.float32:
    """Scale of current scaling: from the tensor's own amax, which is taken in the tensor's dtype."""
    amax = np.float32(np.max(np.abs(tensor)))
    return np.float32(FP8_MAX[dtype]) / amax if np.isfinite(amax) and amax > 0 else np.float32(1)


def current_scales(tensors: Mapping[str, Array], fp8_format: str) -> dict[str, np.float32]:
    """Scales of current scaling for ``x``, ``kernel`` and ``grad``, each for its format."""
    return {name: current_scale(tensors[name], dtype) for name, dtype in FORMATS[fp8_format].items()}


@dataclasses.dataclass(frozen=True)
class Product:
    """A matrix product in float64 and what bounds its error.

    Attributes:
        value: the product.
        magnitude: the same product of absolute values: how much the terms of each sum add up to.
        contracted: number of terms in each sum.
    """

    value: Array
    magnitude: Array
    contracted: int


def product(lhs: Array, rhs: Array, factor: float = 1.0) -> Product:
    """Multiply two matrices in float64, and the result by ``factor``."""
    lhs, rhs = lhs.astype(np.float64), rhs.astype(np.float64)
    return Product((lhs @ rhs) * factor, (np.abs(lhs) @ np.abs(rhs)) * abs(factor), lhs.shape[1])


@dataclasses.dataclass(frozen=True)
class DensePasses:
    """Forward pass of a dense layer without bias, and both backward products, each computed when it is asked for.

    Attributes:
        x: what the layer multiplies for its input, (M, K): numbers or codes.
        kernel: the same for its kernel, (K, N).
        grad: the same for the gradient of its output, (M, N).
        undo: what each of them is multiplied by afterwards.
    """

    x: Array
    kernel: Array
    grad: Array
    undo: Mapping[str, float]

    @functools.cached_property
    def y(self) -> Product:
        """Output, (M, N)."""
        return product(self.x, self.kernel, self.undo["x"] * self.undo["kernel"])

    @functools.cached_property
    def dx(self) -> Product:
        """Gradient of the input, (M, K)."""
        return product(self.grad, self.kernel.T, self.undo["grad"] * self.undo["kernel"])

    @functools.cached_property
    def dkernel(self) -> Product:
        """Gradient of the kernel, (K, N)."""
        return product(self.x.T, self.grad, self.undo["x"] * self.undo["grad"])


def dense(x: Array, kernel: Array, grad: Array) -> DensePasses:
    """A dense layer in float64: x (M, K), kernel (K, N), grad (M, N), the gradient of the output."""
    return DensePasses(x, kernel, grad, dict.fromkeys(TENSORS, 1.0))


def fp8_dense(x: Array, kernel: Array, grad: Array, scales: dict[str, np.float32], fp8_format: str) -> DensePasses:
    """A dense layer on quantized operands, as `dense`: what the FP8 layer must compute, but for its accumulation.

    Args:
        x: input, (M, K).
        kernel: (K, N).
        grad: gradient of the output, (M, N).
        scales: for ``x``, ``kernel`` and ``grad``.
        fp8_format: ``HYBRID`` or ``E4M3``.
    """
    dtypes = FORMATS[fp8_format]
    tensors = {"x": x, "kernel": kernel, "grad": grad}
    codes = {name: quantize(tensor, float(scales[name]), dtypes[name]) for name, tensor in tensors.items()}
    return DensePasses(**codes, undo={name: 1.0 / float(scale) for name, scale in scales.items()})
