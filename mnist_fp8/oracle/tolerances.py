"""The tolerances of the claims, derived.

Notation: ``u`` is a dtype's unit roundoff, half its ``eps``: what one rounding costs, relative to the rounded number.
"""

import math

import ml_dtypes
import numpy as np

from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.oracle.dense import Array, Product

ACCUMULATION = {
    # XLA's CPU dots and cuBLAS accumulate in float32.
    ("host", False): 2.0**-24,
    ("host", True): 2.0**-24,
    ("kernel", False): 2.0**-24,
    # Hopper's FP8 tensor cores keep about 14 bits while they add up (fast accumulation, which TE's forward and
    # backward products use); DeepSeek-V3 technical report, section 3.3.2.
    ("kernel", True): 2.0**-13,
}
"""Unit roundoff of a product's accumulator, by kind of run and whether its operands are FP8."""

BF16_NET = 2.0**-7
"""Largest relative norm of a difference between two BF16 computations of the network from the same state.

Where two implementations accumulate in another order, an element may be rounded to the other neighbour: a relative
difference of up to 2u, 2**-7 for BF16. Few elements are so close to halfway that it happens, so that the norm over a
tensor stays below that even after five layers. Measured on a CPU over 6 seeds: up to 0.0018.
"""

KERNEL_AGAINST_JAX = 2.0**-6
"""Largest relative norm of a difference between TE's kernels and TE's JAX path on the same tensors, with a bias.

Both quantize alike; they differ in the accumulator, and in a rounding or two to BF16, of which the last follows the sum
of product and bias.
"""


def network_tolerance(kind: RunKind) -> float:
    """Largest relative norm of a difference between the network of TE and that of Flax, in BF16 from the same state.

    On a GPU, the algorithm of each product is chosen by its time, so that sums are made in other orders than Flax's.
    Measured on an H200 in 120 steps: up to 0.0036; where many processes shared it, once 0.0080.
    """
    return BF16_NET if kind is RunKind.HOST else KERNEL_AGAINST_JAX


PARTIAL_SUMS = 2.0**-7
"""Largest relative norm of a difference between a BF16 sum and the same sum made of two rounded halves.

Each half is rounded (by up to u, 2**-8, and by half of that in the root mean square), then their sum. Measured on 2
H200 and on a CPU: 0.0028.
"""

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

AMAX = {RunKind.HOST: 2.0**-20, RunKind.KERNEL: 2.0**-5}
"""Largest relative difference of an amax from the predicted one.

Where a fused layer hands on float32, its norm has some roundings of 2**-24 (seen: 2**-23); a neighbour in BF16 is 2**-8
away, and a kernel's sums may move an amax there. In a transformer layer, what attention rounds moves it further: 0.075
on an H200, which its `flips` allow.
"""


def unit_roundoff(dtype: str) -> float:
    """Half of a dtype's eps."""
    return float(ml_dtypes.finfo(dtype).eps) / 2


def scale_tolerance(scale: float, kind: RunKind) -> float:
    """Largest difference of a stored scale from ``(fp8_max / amax) / 2**margin`` in float32.

    None on a CPU. On a GPU, XLA divides float32 numbers with an error of up to two units in the last place (CUDA
    Programming Guide, "Floating-point standard": ``div.full``), which are at most 2**-22 of the quotient.
    """
    return 0.0 if kind is RunKind.HOST else 2.0**-22 * abs(float(scale))


def exact_tolerance(expected: Array, kind: RunKind) -> float:
    """Largest difference of a product of exact tensors (`dense_step.exact`): none on a CPU.

    On a GPU, two scales and their two reciprocals may each be off as `scale_tolerance` says.
    """
    return 4 * scale_tolerance(float(np.abs(expected).max()), kind)


def product_tolerance(
    expected: Product,
    dtype: str,
    kind: RunKind,
    *,
    roundings: int = 1,
    fp8: bool = False,
) -> Array:
    """Largest difference from a matrix product that rounding explains, element by element.

    The accumulator errs by at most ``contracted * u * magnitude`` (the classical bound for a sum; Higham, "Accuracy
    and Stability of Numerical Algorithms", section 3.1), and each rounding to the output's dtype by ``u`` of the
    result. The largest such error over a fast accumulator does not grow with the number of terms in practice, and for
    FP8 it is taken for 16 of them. A GPU may divide a long sum into parts and round each of them to the output's dtype
    before it adds them up (cuBLAS's split-k with reduced-precision reduction; XLA, for products of one row, rounds
    every term), which costs at most ``u * magnitude``. Seen on an H100 for (6, 62) by (62, 2) in BF16.

    Args:
        expected: the exact product.
        dtype: dtype of the result.
        kind: kernel or host run.
        roundings: how many times the result is rounded to ``dtype``.
        fp8: whether the operands are FP8.
    """
    accumulator = ACCUMULATION[kind.value, fp8]
    terms = min(expected.contracted, 16) if accumulator > unit_roundoff("float32") else expected.contracted
    rounded_parts = unit_roundoff(dtype) if kind is RunKind.KERNEL and not fp8 else 0.0
    accumulation = (terms * accumulator + rounded_parts) * expected.magnitude
    return accumulation + roundings * unit_roundoff(dtype) * (np.abs(expected.value) + accumulation)


def product_norm_tolerance(
    expected: Product,
    dtype: str,
    kind: RunKind,
    *,
    roundings: int = 1,
    fp8: bool = False,
) -> float:
    """Largest relative norm of a difference from a matrix product that rounding explains.

    Errors of many elements add up in quadrature, so that this is much narrower than `product_tolerance`. A rounding to
    ``dtype`` errs by up to ``u * 2**e`` of a number ``m * 2**e``, in the root mean square by that over ``sqrt(3)``,
    which is the largest part of the number where ``m`` is 1. The accumulator's error is taken for one such rounding of
    all that it adds up. Over ``n`` elements a root mean square scatters by ``1 / sqrt(2 * n)``; four times that is
    allowed.

    Measured on an H100 over shapes from 16 to 8192, BF16 results: 0.0016 to 0.0026 for kernels, which round once, and
    0.0019 to 0.0031 for TE's JAX path, which rounds twice. For these, one rounding more than that is allowed.

    Args:
        expected: the exact product.
        dtype: dtype of the result.
        kind: kernel or host run.
        roundings: how many times the result is rounded to ``dtype``.
        fp8: whether the operands are FP8.
    """
    rounding = math.sqrt(roundings / 3) * unit_roundoff(dtype)
    sums = float(np.linalg.norm(expected.magnitude) / np.linalg.norm(expected.value))
    accumulation = ACCUMULATION[kind.value, fp8] / math.sqrt(3) * sums
    return math.hypot(rounding, accumulation) * (1 + 4 / math.sqrt(2 * expected.value.size))


def sum_tolerance(terms: Array, dtype: str, *, accumulator: str = "float32") -> Array:
    """Largest difference from a sum over the first axis that rounding explains.

    Each of the additions errs by up to ``u`` of a sum that is no larger than that of the absolute values; the result is
    rounded to ``dtype``. ``jnp.sum`` accumulates BF16 in float32. The transpose of a broadcast, which makes a bias
    gradient out of an output gradient, does not ask for that: on a CPU, XLA rounds each of its partial sums to BF16.
    """
    values = terms.astype(np.float64)
    errors = len(values) * unit_roundoff(accumulator)
    accumulation = errors / (1 - errors) * np.abs(values).sum(axis=0)
    return accumulation + unit_roundoff(dtype) * (np.abs(values.sum(axis=0)) + accumulation)


def reference_tolerance(name: str, kind: RunKind, recipe: RecipeConfig | None = None) -> float:
    """Largest relative norm of a difference from what a reference predicts, by the name of the tensor."""
    steps = FP4_STEPS if recipe and recipe.name == "NVFP4BlockScaling" else 1.0
    return steps * (SUMS if name.endswith("bias") and "ln_bias" not in name else FLIPPED[kind])


def rounding_tolerance(magnitude: Array, dtype: str, roundings: int) -> Array:
    """Largest difference that some roundings of numbers of a given size explain."""
    return roundings * unit_roundoff(dtype) * np.abs(magnitude.astype(np.float64))


def fp8_error_band(lhs: str, rhs: str) -> tuple[float, float]:
    """Least and largest relative norm of the error of a product of two quantized tensors, by the operands' formats.

    A number ``m * 2**e`` with ``1 <= m < 2`` is rounded by up to ``u * 2**e``; where nothing is subnormal or saturates
    and the bits behind the last kept one are as good as random, by ``u * 2**e / sqrt(3)`` in the root mean square. That
    is between a half (all ``m`` close to 2) and the whole (all of them 1) of ``u / sqrt(3)`` of the number. The errors
    of both operands add up in quadrature. For two E4M3 tensors, from 0.026 to 0.051; for E4M3 and E5M2, from 0.040 to
    0.081. BF16 would stay below 0.004.
    """
    high = math.hypot(unit_roundoff(lhs), unit_roundoff(rhs)) / math.sqrt(3)
    return high / 2, high
