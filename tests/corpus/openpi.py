"""Quantized products for a policy in Linen and NNX, in the style of OpenPI's fork. Written for Transformer Engine 2.14."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

ALIASES = {"current": "Float8CurrentScaling", "mxfp8": "MXFP8BlockScaling", "nvfp4": "NVFP4BlockScaling"}


def find_recipe(name: str):
    """The recipe of a name; those that keep state are refused later."""
    from transformer_engine.common.recipe import Float8CurrentScaling
    from transformer_engine.common.recipe import Format
    from transformer_engine.common.recipe import MXFP8BlockScaling
    from transformer_engine.common.recipe import NVFP4BlockScaling

    match ALIASES[name]:
        case "Float8CurrentScaling":
            return Float8CurrentScaling(fp8_format=Format.E4M3)
        case "MXFP8BlockScaling":
            return MXFP8BlockScaling(fp8_format=Format.E4M3)
    return NVFP4BlockScaling(disable_rht=True, disable_stochastic_rounding=True)


def alignment(scaling_mode) -> int | None:
    """Of what number sizes have to be a multiple."""
    from transformer_engine.jax.quantize import ScalingMode

    if scaling_mode == ScalingMode.MXFP8_1D_SCALING:
        return 32
    return 16 if scaling_mode.is_nvfp4_scaling or scaling_mode.is_tensor_scaling() else None


def dot_general_cls(recipe):
    """A class of products that pads its operands."""
    import transformer_engine.jax.flax as te_flax
    from transformer_engine.jax.quantize import TensorSource
    from transformer_engine.jax.quantize import get_quantize_config_with_recipe
    from transformer_engine.jax.quantize import is_quantize_recipe_supported

    name = type(recipe).__name__
    supported, reason = is_quantize_recipe_supported(name)
    if not supported:
        raise RuntimeError(f"{name}: {reason}")
    config = get_quantize_config_with_recipe(recipe)
    multiple = alignment(config.get_scaling_mode(TensorSource.X))
    kernel_multiple = alignment(config.get_scaling_mode(TensorSource.KERNEL))
    te_dot_cls = te_flax.make_dot_general_cls(recipe)

    class AlignedDot(nn.Module):
        @nn.compact
        def __call__(self, lhs, rhs, dims, precision=None, preferred_element_type=None, **kwargs):
            if dims[1] != ((), ()):
                return jax.lax.dot_general(lhs, rhs, dims, **kwargs)
            lhs, rhs = _padded(lhs, multiple), _padded(rhs, kernel_multiple)
            return te_dot_cls(name="te_dot")(lhs, rhs, dims)

    return AlignedDot


def _padded(value, multiple):
    return value if multiple is None else jnp.pad(value, [(0, -size % multiple) for size in value.shape])


def nnx_dot_general(recipe):
    """The same for NNX, for recipes without state."""
    from flax.nnx import bridge

    dot = bridge.ToNNX(dot_general_cls(recipe)())
    zeros = jnp.zeros((128, 128), dtype=jnp.bfloat16)
    dot.lazy_init(zeros, zeros, (((1,), (0,)), ((), ())))
    return lambda *args, **kwargs: dot(*args, **kwargs)
