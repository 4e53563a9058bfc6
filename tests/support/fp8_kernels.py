"""Kernels that quantize and multiply, on a host run: each computes its definition in JAX, and what it is told is noted.

Between a layer and these kernels, TE's Python takes the scales of the metadata, asks for codes along rows and columns,
turns contracted axes with them, pads and orders the scales of blocks, and keeps the amaxes that come back. A host run
takes another path, unless they are put in place.
"""

import math
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_fp8.oracle import blocks
from mnist_fp8.subjects.making import name_of_te
from support import stand_ins
from support.stand_ins import Amaxes, Asked, Kernel

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
)
PARAMETERS = {
    **{("cpp_extensions.quantization", f"{name}Primitive"): _QUANTIZE for name in QUANTIZING},
    ("cpp_extensions.gemm", "GemmPrimitive"): _MULTIPLY,
}
"""What the kernels that are replaced take in all known releases: with others, they may give something else."""
REPLACED = [pytest.mark.te_parameters((*path, "abstract"), known) for path, known in PARAMETERS.items()]


def put_in_place(monkeypatch: pytest.MonkeyPatch, also: Collection[str] = ()) -> Asked:
    """Have Transformer Engine ask for kernels, and compute them here.

    Args:
        monkeypatch: undoes it.
        also: names of kernels of `LEFT_OFF` that have a definition elsewhere.

    Raises:
        NotInReleaseError: the release has other kernels.
    """
    asked, extensions = Asked(), name_of_te("cpp_extensions")
    base = name_of_te("cpp_extensions.quantization", "BaseDBiasQuantizePrimitive")
    for name in QUANTIZING:
        kernel = name_of_te("cpp_extensions.quantization", f"{name}Primitive")
        stand_ins.put_in(monkeypatch, kernel, _quantize(asked), base)
    product = name_of_te("cpp_extensions.gemm", "GemmPrimitive")
    monkeypatch.setattr(product, "outer_primitive", Kernel(_multiply(product, asked)))
    monkeypatch.setattr(product, "inner_primitive", Kernel(_multiplied))
    amaxes = getattr(extensions, "amax", extensions.quantization)
    if hasattr(amaxes, "AmaxCalculationPrimitive"):  # since 2.9
        monkeypatch.setattr(amaxes.AmaxCalculationPrimitive, "outer_primitive", Kernel(_amax(asked)))
    if hasattr(amaxes, "RHTAmaxCalculationPrimitive"):  # since 2.9
        monkeypatch.setattr(amaxes.RHTAmaxCalculationPrimitive, "outer_primitive", Kernel(_amaxes(asked)))
    give_workspaces(monkeypatch, "quantization", "get_dbias_quantize_workspace_sizes")
    on = [f"{name}Primitive=true" for name in (*QUANTIZING, "Gemm", *also)]
    off = [f"{name}Primitive=false" for name in LEFT_OFF if name not in also]
    monkeypatch.setenv("NVTE_JAX_CUSTOM_CALLS", ",".join(on + off))
    monkeypatch.delenv("NVTE_JAX_CUSTOM_CALLS_RE", raising=False)
    return asked


def give_workspaces(monkeypatch: pytest.MonkeyPatch, module: str, *names: str) -> None:
    """Answer a module's questions for how much memory kernels need beside their results: some.

    Args:
        monkeypatch: undoes it.
        module: of ``cpp_extensions``.
        names: of the functions of the extension that it asks.
    """
    asking = name_of_te("cpp_extensions", module)
    for name in names:
        monkeypatch.setattr(asking.transformer_engine_jax, name, lambda *_question: [((1,), jnp.uint8)])
    monkeypatch.setattr(asking, "te_dtype_to_jax_dtype", lambda dtype: dtype)


def _quantize(asked: Asked) -> Callable[..., Any]:
    def computed(room: Any, x: jax.Array, scale: jax.Array, *rest: jax.Array, **options: Any) -> Any:
        """Codes along rows and along columns, what undoes their scales, the amax, and the gradient of a bias.

        Of all modes but delayed scaling, the amax is that which was given.
        """
        mode = stand_ins.mode_of(options["scaling_mode"])
        given = rest[0] if rest else jnp.zeros(1, jnp.float32)  # since 2.8
        amaxes = None
        if mode.startswith("NVFP4"):
            _, keys, rotated, matrix = rest
            asked.keys.append((x.shape, keys if options["stochastic_rounding"] else None))
            amaxes = Amaxes(given, rotated, matrix) if options["use_rht"] else Amaxes(given)
            asked.rotated.extend([x.shape] if options["use_rht"] else [])
        found = stand_ins.codes(x, room, mode, scale, options["flatten_axis"], amaxes)
        amax = jnp.abs(x).max().astype(jnp.float32).reshape(1) if mode == stand_ins.DELAYED else given
        dbias = x.astype(jnp.float32).sum(tuple(range(options["flatten_axis"] % x.ndim))).astype(x.dtype)
        return (*found, amax, dbias if options["is_dbias"] else None)

    return computed


def _multiply(kernel: Any, asked: Asked) -> Callable[..., Any]:
    def bind(lhs: jax.Array, undo_lhs: jax.Array, rhs: jax.Array, *rest: Any, **options: Any) -> Any:
        """The product; in MXFP8, of scales that TE's Python pads and orders."""
        asked.multiplied.append((str(lhs.dtype), str(rhs.dtype)))
        arguments = (lhs, undo_lhs, rhs, *rest)
        if stand_ins.mode_of(options["scaling_mode"]) == stand_ins.MX:
            return kernel.impl(*arguments, **options)
        return _multiplied(*arguments, **options)[:-1]

    return bind


def _multiplied(
    lhs: jax.Array,
    undo_lhs: jax.Array,
    rhs: jax.Array,
    undo_rhs: jax.Array,
    bias: jax.Array,
    *rest: Any,
    **options: Any,
) -> Any:
    """The product, its scales undone, and a workspace; before 2.14, also what biases and activations would need."""
    mode, dims = stand_ins.mode_of(options["scaling_mode"]), options["contracting_dims"]
    pairs = ((lhs, undo_lhs), (rhs, undo_rhs))
    sizes = [[operand.shape[dim] for dim in each] for (operand, _), each in zip(pairs, dims, strict=True)]
    assert sizes[0] == sizes[1], f"contracting dimensions have the sizes {sizes[0]} and {sizes[1]}"
    left, right = (stand_ins.operand(*pair, each, mode) for pair, each in zip(pairs, dims, strict=True))
    y = jnp.matmul(left, right.T, precision="highest")
    if len(rest) > 1:  # since 2.9
        alpha, beta = rest[-2:]
        y = jnp.where(beta == 0, y * alpha, jnp.nan)  # there is nothing to be added to
    y = y.reshape(*_others(lhs, dims[0]), *_others(rhs, dims[1]))
    y = y.astype(options["out_dtype"])
    if options.get("fuse_bias", bias.size) and not options.get("grad"):
        y = y + bias  # as references have it: both are rounded
    nothing = jnp.zeros(0, y.dtype)
    return (y, nothing, nothing, nothing) if "fuse_bias" in options else (y, nothing)


def _others(operand: jax.Array, dims: Any) -> list[int]:
    contracted = [dim % operand.ndim for dim in dims]
    return [size for dim, size in enumerate(operand.shape) if dim not in contracted]


def _amax(asked: Asked) -> Callable[..., Any]:
    def bind(x: jax.Array, **options: Any) -> jax.Array:
        asked.note_amax(x, options)
        return jnp.abs(x).max().astype(jnp.float32).reshape(1)

    return bind


def _amaxes(asked: Asked) -> Callable[..., Any]:
    def bind(x: jax.Array, **options: Any) -> tuple[jax.Array, jax.Array]:
        """The amax, if it was asked for, and that of the tensor rotated along columns."""
        asked.note_amax(x, options)
        rows = math.prod(x.shape[: options["flatten_axis"] % x.ndim])
        right = options["rht_matrix_random_sign_mask_t"] == sum(1 << int(i) for i in np.flatnonzero(blocks.SIGNS < 0))
        largest = jnp.abs(stand_ins.rotated(x.reshape(rows, -1))).max().reshape(1)
        amax = jnp.abs(x).max().astype(jnp.float32).reshape(1)
        return amax if options["produce_regular_amax"] else amax * jnp.nan, largest if right else largest * jnp.nan

    return bind
