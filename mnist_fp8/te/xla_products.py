"""Whether XLA multiplies BF16 as the tolerances assume: its own products, in plain JAX, against float64.

A claim that compares numbers rests on it. Where XLA adds up in BF16, these claims say nothing about Transformer Engine.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.oracle.dense import Array, Product
from mnist_fp8.oracle.tolerances import product_norm_tolerance

_SIZES = {"a": 4, "b": 128, "k": 512, "m": 48, "n": 16}
"""Sizes of the axes. Each sum has 512 terms, ``k`` or ``ab``: the more, the further off is a sum in BF16."""


@dataclasses.dataclass(frozen=True)
class Form:
    """A product as layers write it.

    Attributes:
        name: what it is.
        subscripts: the product in the words of ``einsum``, over axes of `_SIZES`.
        multiply: the product of two BF16 arrays in JAX.
    """

    name: str
    subscripts: str
    multiply: Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Sums:
    """How XLA adds up the terms of BF16 products, by the form that is furthest off.

    Attributes:
        form: name of that form.
        error: relative norm of its difference from float64.
        allowed: what a sum in float32, rounded once to BF16, explains.
    """

    form: str
    error: float
    allowed: float

    @property
    def are_float32(self) -> bool:
        """Whether each product is as close as a sum in float32 is."""
        return self.error <= self.allowed

    def __str__(self) -> str:
        """In the words of a record."""
        how = "" if self.are_float32 else "not "
        return f"{how}summed in float32: error {self.error:.1e}, {self.allowed:.1e} allowed ({self.form})"


def _gradient_of_kernel(x: jax.Array, grad: jax.Array) -> jax.Array:
    kernel = jnp.zeros((x.shape[-1], grad.shape[-1]), x.dtype)
    (gradient,) = jax.vjp(functools.partial(jnp.dot, x), kernel)[1](grad)
    return gradient


def _gradient_of_input(grad: jax.Array, kernel: jax.Array) -> jax.Array:
    x = jnp.zeros((*grad.shape[:-1], kernel.shape[0]), grad.dtype)
    (gradient,) = jax.vjp(lambda x: jnp.dot(x, kernel), x)[1](grad)
    return gradient


FORMS = (
    Form("x @ kernel", "mk,kn->mn", jnp.dot),
    Form("x.T @ kernel", "km,kn->mn", lambda lhs, rhs: jnp.dot(lhs.T, rhs)),
    Form("x @ kernel of a 3-D x", "abk,kn->abn", jnp.dot),
    Form("x @ kernel over two axes", "mab,abn->mn", jnp.tensordot),
    Form("gradient of the kernel", "km,kn->mn", _gradient_of_kernel),
    Form("gradient of the kernel for a 3-D x", "abm,abn->mn", _gradient_of_kernel),
    Form("gradient of x", "mk,nk->mn", _gradient_of_input),
    Form("gradient of a 3-D x", "abk,nk->abn", _gradient_of_input),
)
"""Two and three dimensions, one and two contracted axes, forward and backward."""


@functools.cache
def sums() -> Sums:
    """How the XLA that runs here adds up: measured once for the process, in a fraction of a second."""
    return measure(FORMS)


def measure(forms: Sequence[Form]) -> Sums:
    """Multiply random BF16 tensors in each form, and find the one that is furthest off for what is allowed."""
    operands = [_operands(form) for form in forms]
    products = jax.jit(lambda pairs: [form.multiply(*pair) for form, pair in zip(forms, pairs, strict=True)])
    results = products([[operand.astype(jnp.bfloat16) for operand in pair] for pair in operands])
    judged = [_judge(*case) for case in zip(forms, operands, results, strict=True)]
    return max(judged, key=lambda one: one.error / one.allowed)


def _operands(form: Form) -> list[Array]:
    """Normally distributed numbers that BF16 has, as float64."""
    drawn = np.random.default_rng(0)
    shapes = ([_SIZES[axis] for axis in axes] for axes in form.subscripts.partition("->")[0].split(","))
    return [drawn.normal(0, 1, shape).astype(jnp.bfloat16).astype(np.float64) for shape in shapes]


def _judge(form: Form, operands: Sequence[Array], result: jax.Array) -> Sums:
    expected = _expected(form, operands)
    error = float(np.linalg.norm(np.asarray(result, np.float64) - expected.value) / np.linalg.norm(expected.value))
    # A norm that is not a number is no error that anything allows.
    error = error if np.isfinite(error) else float("inf")
    return Sums(form.name, error, product_norm_tolerance(expected, "bfloat16", RunKind.HOST))


def _expected(form: Form, operands: Sequence[Array]) -> Product:
    value, magnitude = (np.einsum(form.subscripts, *tensors) for tensors in (operands, [np.abs(x) for x in operands]))
    return Product(value, magnitude, _SIZES["k"])
