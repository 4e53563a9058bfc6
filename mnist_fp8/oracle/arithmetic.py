"""How a layer's reference computes: exactly, or rounded and quantized as a mode demands. Nothing here comes from TE.

A reference is one function in plain JAX, run in float64. It leaves to its `Arithmetic` what depends on the mode: the
product of an activation and a kernel. So the same reference gives the exact output and its gradients, what a quantized
layer has to compute, and the amaxes of the tensors in between, which nothing outside of the layer sees.
"""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from mnist_fp8.core.modes import BLOCK_SCALED, RecipeConfig
from mnist_fp8.oracle import layers
from mnist_fp8.oracle.dense import Array
from mnist_fp8.oracle.products import ProductForm, Scales, Way, before_quantization, quantized_product, rounded_to_bf16

Params: TypeAlias = Mapping[str, Any]
"""Parameters of a layer: arrays by name, nested by module."""

Reference: TypeAlias = Callable[["Arithmetic", Params, Mapping[str, jax.Array]], Any]
"""A layer's outputs from its parameters and inputs, in float64."""


class Passes(NamedTuple):
    """A layer's forward and backward pass in float64.

    Attributes:
        y: outputs.
        dx: gradients of the inputs, by name.
        dparams: gradients of the parameters.
        amaxes: largest absolute values of ``x``, ``kernel`` and ``grad`` before they are quantized, by product.
    """

    y: tuple[Array, ...]
    dx: Mapping[str, Array]
    dparams: Any
    amaxes: Mapping[str, Mapping[str, np.float32]]


class Arithmetic:
    """Exact products, in float64."""

    def product(
        self, name: str, x: jax.Array, kernel: jax.Array, *, cast: bool = False, fused: bool = False
    ) -> jax.Array:
        """Multiply over the last axis of ``x`` and the first of ``kernel``.

        Args:
            name: of the product.
            x: (..., features).
            kernel: a parameter, (features, ...).
            cast: whether the kernel is cast to the dtype that the layer computes in before it is quantized.
            fused: whether what makes ``x`` quantizes it as well, where a recipe does.
        """
        del name, cast, fused
        return jnp.tensordot(x, self.parameter(kernel), 1)

    def parameter(self, values: jax.Array) -> jax.Array:
        """A parameter in the dtype that the layer computes in; its gradient is exact."""
        return values + jax.lax.stop_gradient(rounded_to_bf16(values) - values)

    def around_one(self, scale: jax.Array) -> jax.Array:
        """A layer norm's scale that is kept as its distance from one."""
        return scale + 1

    def stored(self, values: jax.Array) -> jax.Array:
        """What a layer writes down between two of its parts, in the dtype that it computes in."""
        return values

    def stored_inside(self, values: jax.Array) -> jax.Array:
        """The same inside a function for more than one layer, whose gradient may go to a quantizer as it is."""
        return values

    def activated(self, x: jax.Array, names: Sequence[str], *, as_one: bool = True) -> jax.Array:
        """Apply one activation to each part of the axis before the last, and multiply the results.

        Args:
            x: (..., parts, features).
            names: of the activations.
            as_one: whether the layer has a gradient of its own for all of it; else it is that of each operation.
        """
        del as_one
        return layers.activate(x, names)

    def by_operations(self, function: Callable[..., jax.Array], *tensors: jax.Array) -> jax.Array:
        """Apply what a layer computes operation by operation, in the dtype of its input and never quantized."""
        return function(*tensors)


@dataclasses.dataclass(frozen=True)
class Rounded(Arithmetic):
    """Products of rounded or quantized operands; everything between them is written down in BF16.

    Attributes:
        scales: by product; of current scaling where there are none.
        offsets: zeros that are added to the products, by name: the gradient of an offset is that of its product.
        seen: where the operands and the output of each product are put.
        form: how a product is written.
        kept: which tensors come to the quantizer as float32, and are not rounded before; with ``amax`` among them,
            the amax of current scaling is that before the rounding.
        fp8_format: ``HYBRID`` or ``E4M3``.
        blocks: the recipe where it is block-scaled: then the operands are those of `oracle.blocks`.
        narrow: whether BF16 is left in fewer places: one is added to a layer norm's scale in it, an activation is
            differentiated in it, ``x`` is multiplied by its scale in it where nothing makes and quantizes it in one,
            and scales of kernels are undone in it.
    """

    scales: Mapping[str, Scales] | None
    offsets: Mapping[str, jax.Array]
    seen: dict[str, dict[str, jax.Array]]
    form: ProductForm = ProductForm.KERNEL
    kept: frozenset[str] = frozenset()
    fp8_format: str = "HYBRID"
    narrow: bool = False
    blocks: RecipeConfig | None = None

    def product(
        self, name: str, x: jax.Array, kernel: jax.Array, *, cast: bool = False, fused: bool = False
    ) -> jax.Array:
        """Quantize both, multiply, and round the product to BF16; the same for both gradients."""
        flat, matrix = x.reshape(-1, x.shape[-1]), kernel.reshape(kernel.shape[0], -1)
        scales = None if self.scales is None else self.scales[name]
        kept = self.kept if cast else self.kept | {"kernel"}
        way = Way(self.form, kept, self.fp8_format, self.narrow, fused, self.blocks)
        y = quantized_product(way, scales, flat, matrix)
        self.seen[name] = {
            "x": before_quantization(flat, "x", kept),
            "kernel": before_quantization(matrix, "kernel", kept),
            "y": y,
        }
        if name in self.offsets:
            y = y + self.offsets[name]
        return y.reshape(*x.shape[:-1], *kernel.shape[1:])

    def parameter(self, values: jax.Array) -> jax.Array:
        """Round to BF16; its gradient, too."""
        return rounded_to_bf16(values)

    def around_one(self, scale: jax.Array) -> jax.Array:
        """Add one, and round it where that is done in BF16."""
        if self.narrow and self.form is not ProductForm.KERNEL:
            return _in_bf16(lambda scale: scale + 1, scale)
        return scale + 1

    def stored(self, values: jax.Array) -> jax.Array:
        """Round to BF16."""
        return rounded_to_bf16(values)

    def stored_inside(self, values: jax.Array) -> jax.Array:
        """Round to BF16, but not the gradient where that is kept."""
        rounded = rounded_to_bf16(values)
        return values + jax.lax.stop_gradient(rounded - values) if "grad" in self.kept else rounded

    def activated(self, x: jax.Array, names: Sequence[str], *, as_one: bool = True) -> jax.Array:
        """Activate in BF16, each operation rounded, but where a kernel does it; differentiate as one in float64."""
        if self.form is ProductForm.KERNEL:
            return layers.activate(x, names)
        if as_one and not self.narrow:
            return _activated_in_bf16(tuple(names), x)
        return _in_bf16(lambda x: layers.activate(x, names), x)

    def by_operations(self, function: Callable[..., jax.Array], *tensors: jax.Array) -> jax.Array:
        """Apply it in BF16, each operation rounded, but where a kernel does all of it."""
        if self.form is ProductForm.KERNEL:
            return function(*tensors)
        return function(*(tensor.astype(jnp.bfloat16) for tensor in tensors)).astype(jnp.float64)


def _in_bf16(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """Apply a function in BF16, each operation rounded, those of its gradient as well."""
    return function(x.astype(jnp.bfloat16)).astype(jnp.float64)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _activated_in_bf16(names: tuple[str, ...], x: jax.Array) -> jax.Array:
    return layers.activate(x.astype(jnp.bfloat16), names).astype(jnp.float64)


def _activate(names: tuple[str, ...], x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _activated_in_bf16(names, x), x


def _activate_back(names: tuple[str, ...], x: jax.Array, grad: jax.Array) -> tuple[jax.Array]:
    _, pull_back = jax.vjp(lambda x: layers.activate(x, names), x)
    (dx,) = pull_back(grad)
    return (dx,)


_activated_in_bf16.defvjp(_activate, _activate_back)


def exact(
    reference: Reference, params: Params, inputs: Mapping[str, npt.ArrayLike], grads: Sequence[npt.ArrayLike]
) -> Passes:
    """Run a reference in float64, forward and backward from ``grads``, the gradients of its outputs."""
    with _float64():
        y, (dparams, dx) = _exact(reference, _wide(params), _wide(inputs), _wide(tuple(grads)))
        return Passes(_numpy(y), _numpy(dx), _numpy(dparams), {})


@functools.partial(jax.jit, static_argnums=0)
def _exact(reference: Reference, params: Any, inputs: Any, grads: Any) -> Any:  # noqa: ANN401
    y, pull_back = jax.vjp(lambda params, inputs: _outputs(reference(Arithmetic(), params, inputs)), params, inputs)
    return y, pull_back(grads)


def rounded(
    reference: Reference,
    params: Params,
    inputs: Mapping[str, npt.ArrayLike],
    grads: Sequence[npt.ArrayLike],
    *,
    scales: Mapping[str, Scales] | None = None,
    form: ProductForm = ProductForm.KERNEL,
    kept: frozenset[str] = frozenset(),
    narrow: bool = False,
    recipe: RecipeConfig | None = None,
) -> Passes:
    """Run a reference as a layer does, rounding what it rounds: the layer must compute this, but for its accumulation.

    Args:
        reference: the layer.
        params: its parameters, float32.
        inputs: numbers that BF16 has.
        grads: gradients of the outputs; numbers that BF16 has.
        scales: by product; of current scaling if there are none.
        form: how a product is written.
        kept: which of ``x`` and ``grad`` come to the quantizers inside the layer as float32; see `Rounded`.
        narrow: whether more is computed in BF16; see `Rounded`.
        recipe: whose operands are multiplied; current scaling if there is none.
    """
    # No more of the recipe than what is computed depends on, so that one program serves all that compute the same.
    fp8_format = (recipe and recipe.fp8_format) or "HYBRID"
    blocks = recipe if recipe and recipe.name in BLOCK_SCALED else None
    with _float64():
        arguments = _wide(params), _wide(inputs), _wide(tuple(grads))
        y, (dparams, dx), amaxes = _rounded_passes(
            reference, (form, kept, fp8_format, narrow, blocks), _narrow(scales), *arguments
        )
        return Passes(_numpy(y), _numpy(dx), _numpy(dparams), jax.tree.map(np.float32, amaxes))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _rounded_passes(
    reference: Reference,
    how: tuple[ProductForm, frozenset[str], str, bool, RecipeConfig | None],
    scales: Mapping[str, Scales] | None,
    params: Any,  # noqa: ANN401
    inputs: Any,  # noqa: ANN401
    grads: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    def run(params: Any, inputs: Any, offsets: Any) -> Any:  # noqa: ANN401
        seen: dict[str, Any] = {}
        arithmetic = Rounded(scales, offsets, seen, *how)
        inputs = jax.tree.map(rounded_to_bf16, inputs)
        return jax.tree.map(rounded_to_bf16, _outputs(reference(arithmetic, params, inputs))), seen

    shapes = jax.eval_shape(lambda params, inputs: run(params, inputs, {})[1], params, inputs)
    offsets = {name: jnp.zeros(operands["y"].shape) for name, operands in shapes.items()}
    y, pull_back, seen = jax.vjp(run, params, inputs, offsets, has_aux=True)
    dparams, dx, dy = pull_back(grads)
    amaxes = {
        name: {
            "x": _amax(operands["x"]),
            "kernel": _amax(operands["kernel"]),
            "grad": _amax(before_quantization(dy[name], "grad", how[1])),
        }
        for name, operands in seen.items()
    }
    return y, (dparams, dx), amaxes


def _amax(values: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(values)).astype(jnp.float32)


def _outputs(outputs: Any) -> tuple[jax.Array, ...]:  # noqa: ANN401
    return tuple(jax.tree.leaves(outputs))


def _float64() -> Any:  # noqa: ANN401 - a context manager
    """JAX with float64; a name of ``jax`` since 0.8."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)  # noqa: FBT003
    return importlib.import_module("jax.experimental").enable_x64()


def _wide(tree: Any) -> Any:  # noqa: ANN401
    return jax.tree.map(lambda array: np.asarray(array, np.float64), tree)


def _narrow(tree: Any) -> Any:  # noqa: ANN401
    return jax.tree.map(np.float32, tree)


def _numpy(tree: Any) -> Any:  # noqa: ANN401
    return jax.tree.map(np.asarray, tree)
