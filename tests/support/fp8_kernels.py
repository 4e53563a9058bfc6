"""Kernels that quantize and multiply, on a host run: each computes its definition in JAX, and what it is told is noted.

Between a layer and these kernels, TE's Python takes the scales of the metadata, asks for codes along rows and columns,
turns contracted axes with them, and keeps the amaxes that come back. A host run takes another path, unless they are
put in place.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from mnist_fp8.subjects.making import name_of_te

QUANTIZING = ("Quantize", "DBiasQuantize")
LEFT_OFF = ("NormFwd", "NormBwd", "ActLu", "DActLuDBiasQuantize", "DActLuQuantize")
"""Kernels without a definition here: TE's JAX path takes their place."""

_QUANTIZE = (
    *("x_aval", "scale_aval", "amax_aval", "sr_rng_state_aval", "post_rht_amax_aval", "rht_matrix_aval", "out_dtype"),
    *("scaling_mode", "q_layout", "flatten_axis", "scale_dtype", "is_dbias", "is_outer", "stochastic_rounding"),
    "use_rht",
)
_MULTIPLY = (
    *("lhs", "lhs_scale_inv", "rhs", "rhs_scale_inv", "bias", "gelu_input", "alpha", "beta", "out_dtype"),
    *("contracting_dims", "scaling_mode", "fuse_bias", "fuse_gelu", "grad", "use_split_accumulator", "sequence_dim"),
    *("transpose_batch_sequence", "is_outer", "collective_op"),
    *("batched_dims", "lhs_quantized_colwise", "rhs_quantized_colwise", "sequence_parallel_output"),  # before 2.7
)
PARAMETERS = {
    **{("cpp_extensions.quantization", f"{name}Primitive"): _QUANTIZE for name in QUANTIZING},
    ("cpp_extensions.gemm", "GemmPrimitive"): _MULTIPLY,
}
"""What the kernels that are replaced take in all known releases: with others, they may give something else."""
REPLACED = [pytest.mark.te_parameters((*path, "abstract"), known) for path, known in PARAMETERS.items()]


@dataclasses.dataclass
class Asked:
    """What was asked for, in order.

    Attributes:
        multiplied: dtypes of both operands of a product.
        scopes: shape of a tensor, and over which devices its amax is taken, where a recipe takes it beforehand.
    """

    multiplied: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    scopes: list[tuple[tuple[int, ...], str]] = dataclasses.field(default_factory=list)


class _Kernel:
    """Stands for a primitive of JAX."""

    def __init__(self, bind: Callable[..., Any]) -> None:
        self.bind = bind


def put_in_place(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Have Transformer Engine ask for kernels, and compute them here.

    Raises:
        NotInReleaseError: the release has other kernels.
    """
    asked, extensions = Asked(), name_of_te("cpp_extensions")
    for name in QUANTIZING:
        kernel = name_of_te("cpp_extensions.quantization", f"{name}Primitive")
        monkeypatch.setattr(kernel, "outer_primitive", _Kernel(_quantize(kernel)))
    product = name_of_te("cpp_extensions.gemm", "GemmPrimitive")
    monkeypatch.setattr(product, "outer_primitive", _Kernel(_multiply(asked)))
    amaxes = getattr(extensions, "amax", extensions.quantization)
    if hasattr(amaxes, "AmaxCalculationPrimitive"):  # since 2.9
        monkeypatch.setattr(amaxes.AmaxCalculationPrimitive, "outer_primitive", _Kernel(_amax(asked)))
    on = [f"{name}Primitive=true" for name in (*QUANTIZING, "Gemm")]
    off = [f"{name}Primitive=false" for name in LEFT_OFF]
    monkeypatch.setenv("NVTE_JAX_CUSTOM_CALLS", ",".join(on + off))
    monkeypatch.delenv("NVTE_JAX_CUSTOM_CALLS_RE", raising=False)
    return asked


def _quantize(kernel: Any) -> Callable[..., Any]:
    def bind(x: jax.Array, scale: jax.Array, *rest: jax.Array, **options: Any) -> Any:
        """Codes along rows and along columns, what undoes their scales, the amax, and no gradient of a bias.

        What was not asked for has one element, which is none of the tensor's.
        """
        dtype = options["out_dtype"]
        most = jnp.finfo(dtype).max.astype(jnp.float32)
        codes = jnp.clip(x.astype(jnp.float32) * scale, -most, most).astype(dtype)
        axis = options["flatten_axis"] % x.ndim
        turned = codes.transpose(*range(axis, x.ndim), *range(axis))
        shapes = [each.shape for each in kernel.abstract(x, scale, *rest, **options)[:2]]
        rows, columns = (
            each if each.shape == shape else jnp.full(shape, jnp.nan, dtype)
            for each, shape in zip((codes, turned), shapes, strict=True)
        )
        mode = name_of_te("quantize", "ScalingMode")(options["scaling_mode"]).name
        given = rest[0] if rest else jnp.zeros(1, jnp.float32)  # since 2.8
        amax = jnp.abs(x).max().astype(jnp.float32).reshape(1) if mode == "DELAYED_TENSOR_SCALING" else given
        undo = (1 / scale).reshape(1)
        return rows, columns, undo, undo, amax, jnp.zeros(1, x.dtype)

    return bind


def _multiply(asked: Asked) -> Callable[..., Any]:
    def bind(
        lhs: jax.Array, undo_lhs: jax.Array, rhs: jax.Array, undo_rhs: jax.Array, *rest: Any, **options: Any
    ) -> Any:
        """The product, its scales undone; before 2.14, also what fused biases and activations would need."""
        asked.multiplied.append((str(lhs.dtype), str(rhs.dtype)))
        wide, dims = [each.astype(jnp.float32) for each in (lhs, rhs)], (options["contracting_dims"], ((), ()))
        y = jax.lax.dot_general(wide[0], wide[1], dims, precision="highest")
        for undo in (undo_lhs, undo_rhs):
            y *= undo.reshape(()) if undo.size else 1
        bias = rest[0] if options.get("fuse_bias", rest[0].size) and not options.get("grad") else jnp.zeros(())
        y = (y + bias.astype(jnp.float32)).astype(options["out_dtype"])
        return (y, jnp.zeros(0, y.dtype), jnp.zeros(0, y.dtype)) if "fuse_bias" in options else (y,)

    return bind


def _amax(asked: Asked) -> Callable[..., Any]:
    def bind(x: jax.Array, **options: Any) -> jax.Array:
        asked.scopes.append((x.shape, options["amax_scope"].name))
        return jnp.abs(x).max().astype(jnp.float32).reshape(1)

    return bind
