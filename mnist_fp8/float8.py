"""Find out from a program's structure whether its matrix products run on quantized operands.

A jaxpr is walked equation by equation, into every jaxpr inside it (``jit``, ``scan``, ``remat``, custom derivatives).
What counts is the dtype of the operands that a matrix product really takes: a tensor that was cast to float8 and back
before the product does not. (Before TE 2.5 that was how FP8 was written in JAX, for XLA to find: such products are seen
as float8 only where a caller asks for it.)
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jax

# Position of the two operands among the inputs of each primitive that multiplies matrices. TE's GEMM takes
# (lhs, lhs_scale_inv, rhs, rhs_scale_inv, ...); JAX's scaled product (lhs, rhs, lhs_scales, rhs_scales).
_OPERANDS = {"dot_general": (0, 1), "scaled_matmul": (0, 1), "te_gemm": (0, 2)}

_QUANTIZED = ("float8_e4m3", "float8_e5m2", "float4")
_TRANSFORM = re.compile(r"^\w+\((.*)\)$")


@dataclasses.dataclass(frozen=True)
class Gemm:
    """One matrix product of a program.

    Attributes:
        layer: path of the Flax module that it belongs to, such as ``Net/dense1``; empty outside of modules.
        backward: whether it is part of a backward pass.
        lhs: dtype name of the left operand, such as ``float8_e4m3fn``.
        rhs: dtype name of the right operand.
        primitive: the JAX primitive.
    """

    layer: str
    backward: bool
    lhs: str
    rhs: str
    primitive: str

    @property
    def quantized(self) -> bool:
        """Whether both operands are float8 (or float4)."""
        return is_quantized(self.lhs) and is_quantized(self.rhs)


def is_quantized(dtype: str) -> bool:
    """Whether a dtype name is one that tensors are quantized to (block scales, ``float8_e8m0fnu``, are not)."""
    return dtype.startswith(_QUANTIZED)


def gemms(jaxpr: Any, *, dequantized: bool = False) -> list[Gemm]:  # noqa: ANN401 - JAX does not export its jaxpr types
    """The matrix products of a jaxpr (from ``jax.make_jaxpr``), in program order.

    Args:
        jaxpr: the program.
        dequantized: whether an operand that is a float8 tensor times its inverse scale counts as that float8 tensor.
    """
    return list(_gemms(_inner(jaxpr), (), dequantized=dequantized))


def quantized_dtypes(jaxpr: Any) -> set[str]:  # noqa: ANN401
    """Names of the quantized dtypes that occur anywhere in a jaxpr, its inputs and outputs included."""
    return {name for name in _dtypes(_inner(jaxpr)) if is_quantized(name)}


def custom_calls(hlo: str) -> Counter[str]:
    """Count the custom calls of a compiled program's text by target, such as ``te_gemm_v2_ffi``."""
    return Counter(re.findall(r'custom_call_target="([^"]+)"', hlo))


def _gemms(jaxpr: Any, names: tuple[str, ...], *, dequantized: bool) -> Iterator[Gemm]:  # noqa: ANN401
    origins = _dequantized(jaxpr) if dequantized else {}
    for eqn in jaxpr.eqns:
        here = (*names, *str(eqn.source_info.name_stack).split("/"))
        operands = _operands(eqn)
        if operands is not None:
            lhs, rhs = (origins.get(id(eqn.invars[i]), str(eqn.invars[i].aval.dtype)) for i in operands)
            backward = any("transpose(" in name for name in here)
            yield Gemm(_module_path(here), backward, lhs, rhs, eqn.primitive.name)
        for inner in _inner_jaxprs(eqn):
            yield from _gemms(inner, here, dequantized=dequantized)


# What may happen to a tensor between float8 and its product: it is cast, scaled and laid out, and nothing else.
_DEQUANTIZING = ("convert_element_type", "mul", "reshape", "transpose", "broadcast_in_dim", "sharding_constraint")


def _dequantized(jaxpr: Any) -> dict[int, str]:  # noqa: ANN401
    """The variables of a jaxpr that are dequantized float8 tensors, by identity, each with its float8 dtype."""
    origins: dict[int, str] = {}
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in _DEQUANTIZING and not is_quantized(_dtype(eqn.outvars[0])):
            found = {origins.get(id(v)) or _dtype(v) for v in eqn.invars if v.aval.size > 1}
            if len(found) == 1 and is_quantized(min(found)):  # one tensor, and otherwise numbers that scale it
                origins[id(eqn.outvars[0])] = min(found)
    return origins


def _operands(eqn: Any) -> tuple[int, int] | None:  # noqa: ANN401
    return next((where for name, where in _OPERANDS.items() if eqn.primitive.name.startswith(name)), None)


def _module_path(names: tuple[str, ...]) -> str:
    """Join name-stack entries without the transformations around them: ``jvp(Net)``, ``dense1`` is ``Net/dense1``."""
    plain = [_without_transforms(name) for name in names]
    return "/".join(name for name in plain if name)


def _without_transforms(name: str) -> str:
    while match := _TRANSFORM.match(name):
        name = match[1]
    return name


def _dtypes(jaxpr: Any) -> Iterator[str]:  # noqa: ANN401
    for variable in (*jaxpr.invars, *jaxpr.constvars, *jaxpr.outvars):
        yield _dtype(variable)
    for eqn in jaxpr.eqns:
        for variable in (*eqn.invars, *eqn.outvars):
            yield _dtype(variable)
        for inner in _inner_jaxprs(eqn):
            yield from _dtypes(inner)


def _dtype(variable: Any) -> str:  # noqa: ANN401
    return str(getattr(variable.aval, "dtype", ""))


def _inner_jaxprs(eqn: Any) -> Iterator[Any]:  # noqa: ANN401
    for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=_is_jaxpr):
        if _is_jaxpr(value):
            yield _inner(value)


def _is_jaxpr(value: object) -> bool:
    return hasattr(value, "eqns") or hasattr(getattr(value, "jaxpr", None), "eqns")


def _inner(jaxpr: Any) -> Any:  # noqa: ANN401
    """The jaxpr itself where a closed one is given."""
    return getattr(jaxpr, "jaxpr", jaxpr)
