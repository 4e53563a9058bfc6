"""Kernels that quantize and multiply groups of rows, on a host run: each computes its definition in NumPy.

Codes and scales of all groups stand one behind the other; what of that is a group's follows from the group sizes.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_fp8.oracle import blocks
from mnist_fp8.oracle.blocks import MX_BLOCK
from mnist_fp8.oracle.dense import Array
from mnist_fp8.oracle.dense import quantize as quantize_tensor
from mnist_fp8.subjects.making import name_of_te
from support import stand_ins
from support.stand_ins import Kernel

_DIMS = tuple(f"{operand}_{which}_dims_aval" for operand in ("lhs", "rhs", "out") for which in ("first", "last"))
_SIZES = tuple(f"{operand}_{name}" for operand in ("lhs", "rhs") for name in ("is_trans", "left_size", "right_size"))
PARAMETERS = {
    ("cpp_extensions.quantization", "GroupedQuantizePrimitive"): (
        *("x_aval", "scale_aval", "group_sizes_aval", "out_dtype", "scaling_mode", "q_layout", "flatten_axis"),
        "scale_dtype",
    ),
    ("cpp_extensions.gemm", "GroupedGemmPrimitive"): (
        *("lhs_data_aval", "lhs_scale_inv_aval", "rhs_data_aval", "rhs_scale_inv_aval", "bias_aval", "additional_args"),
        *("scaling_mode", "out_dtype", "has_bias", "use_async_d2h_group_sizes", "use_v2_ffi", "out_shape"),
        *("lhs_axis_boundary", "rhs_axis_boundary", *_DIMS, *_SIZES),
    ),
}
"""What the kernels take in the releases that are known (2.16 on): before, they took sizes in another way."""
REPLACED = [pytest.mark.te_parameters((*path, "abstract"), known) for path, known in PARAMETERS.items()]


def put_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Transformer Engine ask for grouped kernels, and compute them here.

    Raises:
        NotInReleaseError: the release has other kernels.
    """
    quantizing, multiplying = (name_of_te(*path) for path in PARAMETERS)
    stand_ins.put_in(monkeypatch, quantizing, _quantize)
    monkeypatch.setattr(multiplying, "outer_primitive", Kernel(_multiply))
    monkeypatch.setenv("NVTE_JAX_CUSTOM_CALLS", "true")
    monkeypatch.delenv("NVTE_JAX_CUSTOM_CALLS_RE", raising=False)


# --- quantize ---------------------------------------------------------------------------------------------------------


def _quantize(room: Any, x: jax.Array, scale: jax.Array, sizes: jax.Array, **options: Any) -> Any:
    """Codes of all groups along rows and along columns, what undoes their scales, and their amaxes."""
    axis, mode = options["flatten_axis"] % x.ndim, stand_ins.mode_of(options["scaling_mode"])
    name, shapes = str(jnp.dtype(options["out_dtype"])), [place.shape for place in room[2:4]]

    def call(x: Any, scale: Any, sizes: Any) -> list[Array]:
        groups = list(_groups(np.asarray(x), np.asarray(sizes), axis))
        if mode == stand_ins.MX:
            halves = [_in_blocks(groups, along, name) for along in (1, 0)]
        else:
            undo, rows = [1 / np.asarray(scale)], list(map(_codes_as(name), groups, np.asarray(scale)))
            halves = [(rows, undo), ([each.T for each in rows], undo)]
        codes = [_joined(half, (x.size,)) for half, _ in halves]
        undone = [_joined(half, shape) for (_, half), shape in zip(halves, shapes, strict=True)]
        return [*codes, *undone, np.array([np.abs(group).max(initial=0) for group in groups], np.float32)]

    results = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((x.size,), (x.size,), *shapes, room[4].shape)]
    found = jax.pure_callback(call, results, x.astype(jnp.float32), scale, sizes)
    return *[each.astype(name) for each in found[:2]], *map(_as_scales(room[2].dtype), found[2:4]), found[4]


def _codes_as(name: str) -> Callable[[Array, np.float32], Array]:
    return lambda group, scale: quantize_tensor(group, float(scale), name)


def _in_blocks(groups: Sequence[Array], along: int, name: str) -> tuple[list[Array], list[Array]]:
    """Codes and biased exponents of groups along an axis."""
    made = [blocks.mxfp8(group, along, name) for group in groups if group.size]
    return [each.codes for each in made], [each.scales for each in made]


def _as_scales(dtype: Any) -> Callable[[jax.Array], jax.Array]:
    """From float32: numbers as they are, biased exponents as E8M0."""
    if dtype != jnp.float8_e8m0fnu:
        return lambda scales: scales
    return lambda scales: jax.lax.bitcast_convert_type(jnp.nan_to_num(scales, nan=255).astype(jnp.uint8), dtype)


def _groups(x: Array, sizes: Array, axis: int) -> Iterator[Array]:
    """The groups of a tensor as matrices; sizes are of its first axis."""
    ends = np.cumsum(sizes)
    for start, end in zip(ends - sizes, ends, strict=True):
        yield x[start:end].reshape((end - start) * math.prod(x.shape[1:axis]), math.prod(x.shape[axis:]))


def _joined(parts: Sequence[Array], shape: tuple[int, ...]) -> Array:
    """One behind the other, in room for more or less."""
    found = np.full(shape, np.nan, np.float32)
    flat = np.concatenate([part.reshape(-1) for part in parts])[: math.prod(shape)]
    found.reshape(-1)[: len(flat)] = flat
    return found


# --- multiply ---------------------------------------------------------------------------------------------------------


class _Operand(NamedTuple):
    """An operand of a grouped product, all groups one behind the other.

    Attributes:
        codes: numbers or codes, flat, float32.
        undo: what undoes their scales, flat, float32.
        sizes: of the groups, where they differ; else empty.
        shape: of all groups as one matrix.
        contracts_first: whether the rows of that matrix are contracted, not its columns.
    """

    codes: Array
    undo: Array
    sizes: Array
    shape: tuple[int, int]
    contracts_first: bool

    def matrices(self, count: int, mode: str, *, contracts_groups: bool) -> Iterator[Array]:
        """The groups' matrices, (others, contracted), their scales undone."""
        of_rows = self.contracts_first == contracts_groups if len(self.sizes) else True
        sizes = self.sizes if len(self.sizes) else np.full(count, self.shape[0] // count)
        start = scales = 0
        for group, size in enumerate(sizes):
            shape = (size, self.shape[1]) if of_rows else (self.shape[0], size)
            codes = self.codes[start : start + math.prod(shape)].reshape(shape)
            along = 0 if self.contracts_first else 1
            if mode == stand_ins.MX:
                grid = tuple(length // MX_BLOCK if axis == along else length for axis, length in enumerate(shape))
                undo = self.undo[scales : scales + math.prod(grid)].reshape(grid)
                codes, scales = codes * np.repeat(undo, MX_BLOCK, axis=along), scales + math.prod(grid)
            elif mode != stand_ins.NO_SCALING:
                codes = codes * self.undo[group]
            yield codes.T if self.contracts_first else codes
            start += math.prod(shape)


def _multiply(
    lhs: jax.Array,
    undo_lhs: jax.Array,
    rhs: jax.Array,
    undo_rhs: jax.Array,
    bias: jax.Array,
    *rest: Any,
    **options: Any,
) -> tuple[jax.Array]:
    """The products of all groups; where groups are contracted, one matrix for each."""
    mode, shape = stand_ins.mode_of(options["scaling_mode"]), options["out_shape"]
    sides = [
        ((options[f"{name}_left_size"], options[f"{name}_right_size"]), options[f"{name}_is_trans"] == (name == "lhs"))
        for name in ("lhs", "rhs")
    ]

    def call(told: Any, out: Any) -> Array:
        operands = [
            _Operand(np.asarray(codes).reshape(-1), np.asarray(undo), np.concatenate(dims), *side)
            for (codes, undo, *dims), side in zip(told, sides, strict=True)
        ]
        try:
            found = _products(operands, np.concatenate(out), mode).reshape(shape)
        except ValueError:  # what does not fit together; an error in a callback would hide which test it is
            found = np.full(shape, np.nan)
        return found.astype(np.float32)

    told = [
        (codes.astype(jnp.float32), _wide(undo), *dims)
        for codes, undo, dims in ((lhs, undo_lhs, rest[:2]), (rhs, undo_rhs, rest[2:4]))
    ]
    y = jax.pure_callback(call, jax.ShapeDtypeStruct(shape, jnp.float32), told, rest[4:6])
    if options["use_v2_ffi"]:
        alpha, beta = rest[6:]
        y = jnp.where((alpha == 1).all() & (beta == 0).all(), y, jnp.nan)  # nothing asks for others
    y = y.astype(options["out_dtype"])
    if options["has_bias"]:
        numbers = jnp.repeat(jnp.arange(len(bias)), rest[0], total_repeat_length=len(y))
        y = (y + bias[numbers].astype(y.dtype)).astype(y.dtype)
    return (y,)


def _products(operands: Sequence[_Operand], out: Array, mode: str) -> Array:
    """What groups' products are, in the order of the groups.

    Args:
        operands: both.
        out: sizes of the groups of the output; none where each group has a matrix of its own.
        mode: name of the scaling mode.

    Raises:
        ValueError: sizes do not fit together.
    """
    left, right = operands
    contracts, count = len(right.sizes) > 0, len(left.sizes)
    if not np.array_equal(out, [] if contracts else left.sizes):
        raise ValueError("the output has other groups")
    each = [operand.matrices(count, mode, contracts_groups=contracts) for operand in operands]
    found = [one @ other.T for one, other in zip(*each, strict=True)]
    return np.stack(found) if contracts else np.concatenate(found)


def _wide(undo: jax.Array) -> jax.Array:
    if undo.dtype != jnp.float8_e8m0fnu:
        return undo
    bits = jax.lax.bitcast_convert_type(undo, jnp.uint8)
    return jnp.where(bits == 255, jnp.nan, jnp.exp2(bits.astype(jnp.float32) - 127))
