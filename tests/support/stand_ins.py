"""What kernels that quantize give, by their definitions, in programs of JAX on a CPU.

What a kernel was not asked for is NaN, and so is the scale of what it was told something wrong for: neither may show in
any result.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_fp8.oracle import blocks
from mnist_fp8.oracle.blocks import FP4_BLOCK, MX_BLOCK
from mnist_fp8.oracle.dense import Array
from mnist_fp8.subjects.making import name_of_te

NO_SCALING, DELAYED, MX = "NO_SCALING", "DELAYED_TENSOR_SCALING", "MXFP8_1D_SCALING"
FP4_SQUARE = "NVFP4_2D_SCALING"


@dataclasses.dataclass
class Asked:
    """What was asked for, in order.

    Attributes:
        multiplied: dtypes of both operands of a product.
        scopes: shape of a tensor, and over which devices its amax is taken, where a recipe takes it beforehand.
        sequences_first: the same tensors, and whether their first axis is said to be that of sequences.
        keys: shape of a tensor, and by which random numbers it is rounded; none where it is rounded to the nearest.
        rotated: shapes of the tensors that are rotated along columns.
    """

    multiplied: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    scopes: list[tuple[tuple[int, ...], str]] = dataclasses.field(default_factory=list)
    sequences_first: list[tuple[tuple[int, ...], bool]] = dataclasses.field(default_factory=list)
    keys: list[tuple[tuple[int, ...], jax.Array | None]] = dataclasses.field(default_factory=list)
    rotated: list[tuple[int, ...]] = dataclasses.field(default_factory=list)

    def note_amax(self, x: jax.Array, options: Mapping[str, Any]) -> None:
        """Note over which devices the amax of a tensor is taken."""
        self.scopes.append((x.shape, options["amax_scope"].name))
        self.sequences_first.append((x.shape, options.get("transpose_batch_sequence", False)))  # since 2.9

    def assert_scopes(self, kernels: Collection[tuple[int, ...]], *, where: str) -> None:
        """Amaxes were taken of kernels over the devices of FSDP, and of other tensors over those of sequences.

        Raises:
            AssertionError: one was taken over others; or none of a kernel, or of anything else.
        """
        __tracebackhide__ = True
        wrong = {(shape, scope) for shape, scope in self.scopes if scope != ("FSDP" if shape in kernels else "TPSP")}
        assert not wrong, f"{where}: amaxes over {wrong}"
        seen = {shape for shape, _ in self.scopes}
        assert set(kernels) < seen, f"{where}: amaxes of {seen}, but should be of kernels, inputs and gradients"


class Kernel:
    """Stands for a primitive of JAX."""

    def __init__(self, bind: Callable[..., Any]) -> None:
        self.bind = bind


def put_in(monkeypatch: pytest.MonkeyPatch, kernel: Any, computed: Callable[..., Any], base: Any = None) -> None:
    """Put a definition in a kernel's place; what TE does with its arguments and results is done to them.

    Args:
        monkeypatch: undoes it.
        kernel: a primitive's class.
        computed: results, from the shapes that TE makes room for, and what the kernel is told.
        base: the class that TE asks instead of one that is derived from it.
    """

    def inner(*tensors: Any, **options: Any) -> list[jax.Array]:
        room = kernel.abstract(*(jax.core.ShapedArray(each.shape, each.dtype) for each in tensors), **options)
        return _fitted(kernel.__name__, computed(room, *tensors, **options), room)

    monkeypatch.setattr(base or kernel, "inner_primitive", Kernel(inner))
    monkeypatch.setattr(kernel, "outer_primitive", Kernel(kernel.impl))


def _fitted(name: str, found: Sequence[jax.Array | None], room: Sequence[Any]) -> list[jax.Array]:
    """Results in the room that TE made for them, which is one element for what was not asked for and for workspaces."""
    values = [*found, *[None] * (len(room) - len(found))]
    pairs = enumerate(zip(values, room, strict=True))
    return [_fit(f"{name}, result {number}", value, place) for number, (value, place) in pairs]


def _fit(where: str, value: jax.Array | None, place: Any) -> jax.Array:
    if value is None or (math.prod(place.shape) == 1 and value.size > 1):
        nothing = jnp.nan if jnp.issubdtype(place.dtype, jnp.floating) else 0
        return jnp.full(place.shape, nothing, place.dtype)
    made, wanted = (f"{each.dtype}{each.shape}" for each in (place, value))
    assert made == wanted, f"{where}: room for {made}, but should be for {wanted}"
    return value


def mode_of(value: Any) -> str:
    """The name of a scaling mode that a kernel is told."""
    return str(name_of_te("quantize", "ScalingMode")(value).name)


# --- codes ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Amaxes:
    """What a kernel of NVFP4 is told of a tensor.

    Attributes:
        given: the largest absolute value.
        rotated: that of the tensor rotated along columns; ``None`` if it is not rotated.
        matrix: what it is rotated by.
    """

    given: jax.Array
    rotated: jax.Array | None = None
    matrix: jax.Array | None = None


def codes(
    x: jax.Array, room: Sequence[Any], mode: str, scale: jax.Array, axis: int, amaxes: Amaxes | None = None
) -> tuple[jax.Array | None, ...]:
    """Codes along rows and along columns, and what undoes the scales of each; tensors are turned in tensor scaling.

    Args:
        x: the tensor.
        room: for these four.
        mode: name of the scaling mode.
        scale: of the whole tensor, where the mode has one.
        axis: the first of the axes that are a row's.
        amaxes: of NVFP4.
    """
    axis, room = axis % x.ndim, room[:4]
    if mode == NO_SCALING:
        return x.astype(room[0].dtype), None, None, None
    if mode == MX:
        along = [_mxfp8(x, axis, which, room[which], room[which + 2]) for which in (0, 1)]
    elif amaxes is not None:
        along = [
            _nvfp4(x, axis, which, room[which], room[which + 2], amaxes, square=mode == FP4_SQUARE) for which in (0, 1)
        ]
    else:
        dtype, undo = room[0].dtype, (1 / scale).reshape(1)
        most = jnp.finfo(dtype).max.astype(jnp.float32)
        rows = jnp.clip(x.astype(jnp.float32) * scale, -most, most).astype(dtype)
        along = [(rows, undo), (turned(rows, axis), undo)]
    return along[0][0], along[1][0], along[0][1], along[1][1]


def turned(x: jax.Array, axis: int) -> jax.Array:
    """The axes from one on first, then the others."""
    return x.transpose(*range(axis, x.ndim), *range(axis))


def _matrix(x: jax.Array, axis: int) -> jax.Array:
    return x.astype(jnp.float32).reshape(math.prod(x.shape[:axis]), -1)


def _mxfp8(x: jax.Array, axis: int, which: int, codes: Any, scales: Any) -> tuple[jax.Array | None, jax.Array | None]:
    """Codes and scales along rows, or along columns, which are not turned."""
    if codes.size == 1:
        return None, None
    matrix, name = _matrix(x, axis), str(codes.dtype)
    rows, columns = matrix.shape
    shape = (rows, columns // MX_BLOCK) if which == 0 else (rows // MX_BLOCK, columns)
    found = _from_oracle(functools.partial(blocks.mxfp8, axis=1 - which, dtype=name), matrix, shape, np.uint8)
    exponents = padded(found[1], (math.prod(scales.shape[:axis]), math.prod(scales.shape[axis:])))
    undo = jax.lax.bitcast_convert_type(exponents, jnp.float8_e8m0fnu).reshape(scales.shape)
    return found[0].reshape(x.shape).astype(codes.dtype), undo


def padded(exponents: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Exponents of E8M0 in the corner of a larger matrix of NaN."""
    return jnp.full(shape, 255, jnp.uint8).at[: exponents.shape[0], : exponents.shape[1]].set(exponents)


def _nvfp4(
    x: jax.Array, axis: int, which: int, codes: Any, scales: Any, amaxes: Amaxes, *, square: bool
) -> tuple[jax.Array | None, jax.Array | None]:
    """Codes and scales along rows, or along columns, which are turned; NaN for a wrong amax or matrix."""
    if codes.size == 1:
        return None, None
    matrix, amax, right = _matrix(x, axis), amaxes.given, jnp.ones((), bool)
    if which == 1 and amaxes.matrix is not None and amaxes.rotated is not None:
        matrix, amax = rotated(matrix), amaxes.rotated
        right = (amaxes.matrix.astype(jnp.float32) == blocks.hadamard()).all()
    right = right & (jnp.abs(matrix).max() == amax).all()
    shape = (matrix.shape[0], matrix.shape[1] // FP4_BLOCK) if which == 0 else (matrix.shape[0] // 16, matrix.shape[1])
    found, made = _from_oracle(
        functools.partial(blocks.nvfp4, axis=1 - which, square=square), matrix, shape, np.float32
    )
    made = jnp.where(right, made, jnp.nan)
    if which == 0:
        return found.reshape(x.shape).astype(codes.dtype), _in_corner(made, scales, axis)
    return turned(found.reshape(x.shape), axis).astype(codes.dtype), _in_corner(made.T, scales, x.ndim - axis)


def _in_corner(scales: jax.Array, place: Any, axis: int) -> jax.Array:
    shape = (math.prod(place.shape[:axis]), math.prod(place.shape[axis:]))
    found = jnp.full(shape, jnp.nan).at[: scales.shape[0], : scales.shape[1]].set(scales)
    return found.astype(place.dtype).reshape(place.shape)


def rotated(matrix: jax.Array) -> jax.Array:
    """A matrix of BF16's numbers, each block of 16 along its columns rotated, by the oracle."""

    def rotate(values: Any) -> Array:
        return blocks.rotated(np.asarray(values), 0)

    return jax.pure_callback(rotate, jax.ShapeDtypeStruct(matrix.shape, jnp.float32), matrix.astype(jnp.float32))


def _from_oracle(
    quantize: Callable[[Array], blocks.Quantized], matrix: jax.Array, shape: tuple[int, ...], dtype: Any
) -> tuple[jax.Array, jax.Array]:
    """Codes, float32, and scales of a matrix by the oracle."""

    def call(values: Any) -> tuple[Array, Array]:
        made = quantize(np.asarray(values))
        return made.codes.astype(np.float32), np.ascontiguousarray(made.scales)

    return jax.pure_callback(
        call, (jax.ShapeDtypeStruct(matrix.shape, jnp.float32), jax.ShapeDtypeStruct(shape, dtype)), matrix
    )


# --- what codes stand for ---------------------------------------------------------------------------------------------


def operand(codes: jax.Array, undo: jax.Array, dims: Sequence[int], mode: str) -> jax.Array:
    """The matrix that an operand of a product stands for, (others, contracted), float32.

    Args:
        codes: the operand.
        undo: what undoes its scales; for blocks of MXFP8 in the order in which tensor cores read them.
        dims: the axes that are contracted: the first ones, or the last ones.
        mode: name of the scaling mode.
    """
    contracted = math.prod(codes.shape[dim] for dim in dims)
    is_last = codes.ndim - 1 in [dim % codes.ndim for dim in dims]
    wide = codes.astype(jnp.float32)
    matrix = wide.reshape(-1, contracted) if is_last else wide.reshape(contracted, -1).T
    if mode == NO_SCALING:
        return matrix
    if mode == MX:
        return matrix * jnp.repeat(_in_order(undo.reshape(-1), len(matrix), contracted), MX_BLOCK, axis=1)
    if mode.startswith("NVFP4"):
        return matrix * jnp.repeat(undo.astype(jnp.float32).reshape(len(matrix), -1), FP4_BLOCK, axis=1)
    return matrix * undo.reshape(())


def _in_order(scales: jax.Array, others: int, contracted: int) -> jax.Array:
    """Scales of blocks as a matrix, (rows, blocks), from the order in which tensor cores read them.

    That is tiles of 128 rows and 4 blocks, in each of which 4 rows at distances of 32 stand side by side (cuBLAS
    documentation, "1D block scaling factors layout").
    """
    rows, count = np.arange(others)[:, None], np.arange(contracted // MX_BLOCK)[None]
    tiles = -(-contracted // (4 * MX_BLOCK))
    inside = rows % 32 * 16 + rows % 128 // 32 * 4 + count % 4
    bits = jax.lax.bitcast_convert_type(scales[(rows // 128 * tiles + count // 4) * 512 + inside], jnp.uint8)
    power = jnp.exp2(bits.astype(jnp.float32) - 127)
    return jnp.where(bits == 255, jnp.nan, power)
