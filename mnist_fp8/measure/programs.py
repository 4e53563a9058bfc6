"""Float8 in jaxprs and compiled programs of a dense layer, and the quantized tensors themselves, to the bit."""

import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mnist_fp8 import te
from mnist_fp8.core.modes import BLOCK_SCALED, TENSOR_SCALED, RecipeConfig
from mnist_fp8.measure.common import modes, program, step, tensors
from mnist_fp8.oracle import blocks, dense
from mnist_fp8.oracle.dense import FORMATS, Array
from mnist_fp8.programs import hlo, jaxprs
from mnist_fp8.programs.jaxprs import Gemm
from mnist_fp8.record.entries import (
    Call,
    Codes,
    Compiled,
    Formats,
    Product,
    Products,
    Value,
)
from mnist_fp8.record.keys import BF16, OUTSIDE
from mnist_fp8.te.dense_step import on_device
from mnist_fp8.te.quantizers import quantized

_SHAPE = (64, 128, 32)


def probes() -> Mapping[str, Callable[[], Mapping[str, Value]]]:
    """Measurements by the beginning of their keys."""
    recipes = [name for name in modes() if name != BF16]
    programs = {f"float8/{OUTSIDE}": functools.partial(_programs, BF16, OUTSIDE)}
    programs |= {f"float8/{name}": functools.partial(_programs, name, name) for name in recipes}
    return programs | {f"bits/{name}": functools.partial(_bits, name) for name in recipes}


def _programs(name: str, subject: str) -> dict[str, Value]:
    mode, values = modes()[name], tensors(_SHAPE)
    entries: dict[str, Value] = {}
    for direction, backward in (("forward", False), ("forward and backward", True)):
        function, arguments = program(mode, values, backward=backward)
        jaxpr = jax.make_jaxpr(function)(*arguments)
        key = f"float8/{subject}/{direction}"
        entries[f"{key}: products"] = counted(jaxprs.gemms(jaxpr))
        entries[f"{key}: quantized types"] = formats(jaxpr)
        entries[f"{key}: compiled program"] = _compiled(jax.jit(function).lower(*arguments).compile().as_text() or "")
    return entries


def counted(gemms: Iterable[Gemm]) -> Products:
    """Products, those that are alike together."""
    counts = Counter((gemm.lhs, gemm.rhs, gemm.primitive, gemm.quantized) for gemm in gemms)
    return Products(tuple(Product(*operands, count) for operands, count in sorted(counts.items())))


def formats(jaxpr: Any) -> Formats:  # noqa: ANN401
    """The quantized formats in a jaxpr."""
    return Formats(tuple(sorted(jaxprs.quantized_dtypes(jaxpr))))


def _compiled(text: str) -> Compiled:
    calls = tuple(Call(name, count) for name, count in sorted(hlo.custom_calls(text).items()))
    return Compiled(calls, tuple(hlo.quantized_types(text)))


def _bits(name: str) -> dict[str, Value]:
    """All tensors that a step quantizes, and whether their codes are the oracle's."""
    mode, values = modes()[name], tensors(_SHAPE)
    function, (_, *arguments) = program(mode, values, backward=True)
    _, variables = step(mode, values)
    jaxpr = jax.make_jaxpr(function)(variables, *arguments)
    # TE's kernels leave a tensor of one element, whatever stands in it, where they are not asked for one.
    found = [tensor for tensor in jaxprs.quantized_tensors(jaxpr, variables, *arguments) if tensor.size > 1]
    expected = _expected(name, values)
    entries: dict[str, Value] = {
        f"bits/{name}/tensor {number}: {tensor.dtype}{list(tensor.shape)}": _codes(tensor, expected)
        for number, tensor in enumerate(found, 1)
    }
    return entries | (_draws(name, values["grad"]) if RecipeConfig(name).is_random else {})


@functools.partial(jax.jit, static_argnums=0)
def _drawn(mode: te.Autocast, grad: jax.Array, key: jax.Array) -> jax.Array:
    return quantized(mode, "grad", grad, key)[1].codes


def _draws(name: str, grad: Array) -> dict[str, Value]:
    """The codes of a gradient that a recipe draws under a key: a run is repeated to the bit only where they stay."""
    codes = _drawn(te.Autocast(RecipeConfig(name)), on_device(grad, "bfloat16"), jax.random.key(0))
    return {f"bits/{name}/codes of a gradient under a key": _codes(np.asarray(codes), ())}


def _expected(name: str, values: Mapping[str, Array]) -> list[Array]:
    """The oracle's codes of the three tensors, and scales in blocks; none for a recipe that it does not know."""
    recipe = modes()[name].recipe
    if recipe and name in BLOCK_SCALED:
        both = [blocks.quantized(recipe, which, tensor, axis) for which, tensor in values.items() for axis in (0, 1)]
        scales = [each.scale_values for each in both]
        # Square blocks have theirs written down once, before they are repeated for each row.
        return [*(each.codes for each in both), *scales, *(each[:: blocks.FP4_BLOCK] for each in scales)]
    if name not in TENSOR_SCALED:
        return []
    formats = FORMATS["HYBRID"]
    return [
        dense.quantize(tensor, float(dense.current_scale(tensor, formats[which])), formats[which])
        for which, tensor in values.items()
    ]


def _codes(tensor: Array, expected: Sequence[Array]) -> Codes:
    """A tensor's codes against those of the oracle, laid out as they are or transposed, whole or in blocks."""
    digest = hashlib.sha256(np.ascontiguousarray(tensor).tobytes()).hexdigest()[:16]
    codes = np.asarray(tensor, np.float64)
    layouts = [layout for oracle in expected for layout in (oracle, oracle.T) if layout.size == codes.size]
    wrong = min((int(np.sum(layout.ravel() != codes.ravel())) for layout in layouts), default=None)
    return Codes(digest, codes.size, wrong)
