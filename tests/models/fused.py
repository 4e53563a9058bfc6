"""A model of layers that Transformer Engine fuses with a layer norm, none of which is the first or the last."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from mnist_fp8 import te
from models import small


class Fused(nn.Module):
    """Layers of Transformer Engine in a row: the name and the fields of each."""

    layers: tuple[tuple[str, Mapping[str, Any]], ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """From (rows, 32) to as many features as the last layer has."""
        x = nn.Dense(32, dtype=x.dtype)(x)
        for name, fields in self.layers:
            outputs = te.find_name("flax", name)(**fields)(x)
            x = nn.tanh(jax.tree.leaves(outputs)[0])
        return x


def dense(**fields: Any) -> tuple[str, Mapping[str, Any]]:
    """A layer norm and a product in one."""
    return "LayerNormDenseGeneral", {"features": 32, "return_layernorm_output": False, **fields}


def mlp(**fields: Any) -> tuple[str, Mapping[str, Any]]:
    """A layer norm and an MLP in one."""
    plain = {"intermediate_dim": 64, "intermediate_dropout_rate": 0.0, "return_layernorm_output": False}
    return "LayerNormMLP", {**plain, "activations": ("gelu",), **fields}


fused = small.factory(Fused((dense(), mlp(activations=("silu", "linear"), layernorm_type="rmsnorm"))))
"""The factory."""
