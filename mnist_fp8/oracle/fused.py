"""The layers that Transformer Engine computes by one function with more than a product in it, as references."""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax

from mnist_fp8.oracle import layers
from mnist_fp8.oracle.arithmetic import Arithmetic, Params, Reference

COMPOSED = ("sigmoid", "linear")
"""Transformer Engine has no function of its own for it: its gradient is that of each of JAX's operations."""


class Norm(NamedTuple):
    """A layer norm, by mean and variance where there is a bias; an RMS norm around one is refused by TE.

    Attributes:
        around_one: whether its scale is kept as the distance from one.
        epsilon: added to the variance.
    """

    around_one: bool = False
    epsilon: float = layers.EPSILON


class Fusion(NamedTuple):
    """What a layer has around its products.

    Attributes:
        norm: of its input, if there is one.
        returns_normal: whether what was normalised is an output as well.
        activations: between two products; none where there is one product.
    """

    norm: Norm | None
    returns_normal: bool = False
    activations: tuple[str, ...] = ()

    @property
    def norm_is_in_product(self) -> bool:
        """Whether Transformer Engine computes the norm and the first product by one function, where it quantizes."""
        return self.norm is not None and not self.returns_normal

    @property
    def is_one(self) -> bool:
        """Whether it computes all of the layer by one function, where it quantizes."""
        return self.norm_is_in_product and self.activations != COMPOSED


def normalised(norm: Norm | None, arithmetic: Arithmetic, params: Params, x: jax.Array) -> jax.Array:
    """What a layer norm with the parameters ``scale`` and ``ln_bias`` makes of (..., features), if there is one."""
    if norm is None:
        return x
    scale, bias = arithmetic.parameter(params["scale"]), params.get("ln_bias")
    return layers.layer_norm(
        x,
        arithmetic.around_one(scale) if norm.around_one else scale,
        None if bias is None else arithmetic.parameter(bias),
        epsilon=norm.epsilon,
    )


def _first_input(fusion: Fusion, arithmetic: Arithmetic, params: Params, x: jax.Array) -> jax.Array:
    normal = normalised(fusion.norm, arithmetic, params, x)
    return arithmetic.stored(normal) if fusion.returns_normal else normal


def dense(fusion: Fusion, arithmetic: Arithmetic, params: Params, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Output, (..., features), of a layer norm and the product ``dense``; and what was normalised."""
    normal = _first_input(fusion, arithmetic, params, x)
    y = arithmetic.product("dense", normal, params["kernel"], fused=fusion.is_one)
    if "bias" in params:
        y = y + arithmetic.parameter(params["bias"])
    return y, normal


def mlp(
    fusion: Fusion, arithmetic: Arithmetic, params: Params, x: jax.Array, prefix: str = ""
) -> tuple[jax.Array, jax.Array]:
    """Output of a layer norm, a product, an activation and another product; and what was normalised.

    Args:
        fusion: which norm and activations.
        arithmetic: what computes the products, ``wi`` and ``wo``.
        params: of the MLP.
        x: (..., features).
        prefix: of the products' names.
    """
    normal = _first_input(fusion, arithmetic, params, x)
    hidden = arithmetic.product(f"{prefix}wi", normal, params["wi_kernel"], fused=fusion.norm_is_in_product)
    if "wi_bias" in params:
        hidden = arithmetic.stored_inside(hidden + arithmetic.parameter(params["wi_bias"]))
    if not fusion.is_one:
        hidden = arithmetic.stored(hidden)
    active = arithmetic.activated(hidden, fusion.activations, as_one=fusion.activations != COMPOSED)
    y = arithmetic.product(f"{prefix}wo", active, params["wo_kernel"], fused=fusion.is_one)
    if "wo_bias" in params:
        y = y + arithmetic.parameter(params["wo_bias"])
    return y, normal


@functools.cache
def output_of(fusion: Fusion) -> Reference:
    """The reference of a layer that returns its output alone: `mlp` if it has activations, else `dense`.

    The same function each time, so that it is compiled once. Its input is called ``x``.
    """
    layer = mlp if fusion.activations else dense

    def reference(arithmetic: Arithmetic, params: Params, inputs: Mapping[str, jax.Array]) -> jax.Array:
        return layer(fusion, arithmetic, params, inputs["x"])[0]

    return reference
