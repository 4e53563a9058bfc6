"""Find out from a program's structure whether its matrix products run on quantized operands.

A jaxpr is walked equation by equation, into every jaxpr inside it (``jit``, ``scan``, ``remat``, custom derivatives).
What counts is the dtype of the operands that a matrix product really takes: a tensor that was cast to float8 and back
before the product does not. (Before TE 2.5 that was how FP8 was written in JAX, for XLA to find: such products are seen
as float8 only where a caller asks for it.)
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
import numpy.typing as npt

# Position of the two operands among the inputs of each primitive that multiplies matrices. TE's GEMM takes
# (lhs, lhs_scale_inv, rhs, rhs_scale_inv, ...); JAX's scaled product (lhs, rhs, lhs_scales, rhs_scales).
_SCALED = "scaled_matmul"
_OPERANDS = {"dot_general": (0, 1), _SCALED: (0, 1), "te_gemm": (0, 2)}
_QUANTIZED = ("float8_e4m3", "float8_e5m2", "float4")
_ROTATION = (16, 16)
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
        rotates: whether its right operand is a matrix of 16 by 16, as that of a Hadamard transform in NVFP4.
    """

    layer: str
    backward: bool
    lhs: str
    rhs: str
    primitive: str
    rotates: bool = False

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


def equations(jaxpr: Any) -> Iterator[Any]:  # noqa: ANN401
    """All equations of a jaxpr, each followed by those of the jaxprs inside it."""
    for eqn in _inner(jaxpr).eqns:
        yield eqn
        for inner in _inner_jaxprs(eqn):
            yield from equations(inner)


def quantized_dtypes(jaxpr: Any) -> set[str]:  # noqa: ANN401
    """Names of the dtypes of quantized tensors anywhere in a jaxpr, its inputs and outputs included.

    A single number, such as the largest of a format, is no tensor.
    """
    return {name for name in _dtypes(_inner(jaxpr)) if is_quantized(name)}


def quantized_tensors(jaxpr: Any, *arguments: Any) -> list[npt.NDArray[Any]]:  # noqa: ANN401
    """Run a program, equation by equation, and return the tensors that it quantizes, in their order.

    A tensor counts where it becomes one of few bits: what only lays it out or hands it on does not.

    Args:
        jaxpr: the program, from ``jax.make_jaxpr``.
        arguments: those of the function that was traced.
    """
    tensors: list[npt.NDArray[Any]] = []

    def see(eqn: Any, _given: Sequence[Any], results: Sequence[Any]) -> None:  # noqa: ANN401
        if not any(is_quantized(_dtype(variable)) for variable in eqn.invars):
            tensors.extend(np.asarray(value) for value in results if is_quantized(str(getattr(value, "dtype", ""))))

    _evaluate(_inner(jaxpr), jaxpr.consts, jax.tree.leaves(arguments), see)
    return tensors


class ScaledOperand(NamedTuple):
    """An operand of a block-scaled product.

    Attributes:
        codes: (batch, rows, inner), where products sum over the last axis.
        scales: (batch, rows, blocks).
    """

    codes: jax.Array
    scales: jax.Array


def scaled_products(jaxpr: Any, *arguments: Any) -> list[tuple[ScaledOperand, ScaledOperand]]:  # noqa: ANN401
    """Run a program, equation by equation, and return both operands of its block-scaled products, in their order.

    It can be traced, so that what is found out is what ``jax.jit`` makes of the operands.

    Args:
        jaxpr: the program, from ``jax.make_jaxpr``.
        arguments: those of the function that was traced.
    """
    products: list[tuple[ScaledOperand, ScaledOperand]] = []

    def see(eqn: Any, given: Sequence[Any], _results: Sequence[Any]) -> None:  # noqa: ANN401
        if eqn.primitive.name.startswith(_SCALED):
            lhs, rhs, lhs_scales, rhs_scales = given
            products.append((ScaledOperand(lhs, lhs_scales), ScaledOperand(rhs, rhs_scales)))

    _evaluate(_inner(jaxpr), jaxpr.consts, jax.tree.leaves(arguments), see)
    return products


_See: TypeAlias = Callable[[Any, Sequence[Any], Sequence[Any]], None]


def _evaluate(jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Any], see: _See) -> list[Any]:  # noqa: ANN401
    """Results of a program; ``see`` gets each equation that is not just a call, what it is given and its results."""
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*constants, *arguments), strict=True))

    def read(variable: Any) -> Any:  # noqa: ANN401
        return variable.val if hasattr(variable, "val") else values[variable]  # a literal has its value itself

    for eqn in jaxpr.eqns:
        given = [read(variable) for variable in eqn.invars]
        inner = _called(eqn)
        if inner is not None:
            results = _evaluate(_inner(inner), getattr(inner, "consts", ()), given, see)
        else:
            bound = eqn.primitive.get_bind_params(eqn.params)
            functions, parameters = (
                bound if isinstance(bound, tuple) else ((), bound)
            )  # only a dictionary since JAX 0.10
            results = eqn.primitive.bind(*functions, *given, **parameters)
            results = results if eqn.primitive.multiple_results else [results]
            see(eqn, given, results)
        values |= zip(eqn.outvars, results, strict=True)
    return [read(variable) for variable in jaxpr.outvars]


_CALLS = ("pjit", "jit", "closed_call", "core_call", "remat", "checkpoint", "custom_jvp_call", "custom_vjp_call")


def _called(eqn: Any) -> Any:  # noqa: ANN401
    """The jaxpr that an equation does nothing but run; ``None`` if it does something else."""
    name = eqn.primitive.name.removesuffix("_jaxpr")
    return next(iter(_jaxprs(eqn)), None) if name in _CALLS else None


def _gemms(jaxpr: Any, names: tuple[str, ...], *, dequantized: bool) -> Iterator[Gemm]:  # noqa: ANN401
    origins = _dequantized(jaxpr) if dequantized else {}
    for eqn in jaxpr.eqns:
        here = (*names, *str(eqn.source_info.name_stack).split("/"))
        operands = _operands(eqn)
        if operands is not None:
            lhs, rhs = (origins.get(id(eqn.invars[i]), str(eqn.invars[i].aval.dtype)) for i in operands)
            backward = any("transpose(" in name for name in here)
            rotates = eqn.invars[operands[1]].aval.shape == _ROTATION
            yield Gemm(module_path(here), backward, lhs, rhs, eqn.primitive.name, rotates)
        for inner in _inner_jaxprs(eqn):
            yield from _gemms(inner, here, dequantized=dequantized)


# What may happen to a tensor between float8 and its product: it is cast, scaled and laid out, and nothing else.
_DEQUANTIZING = ("convert_element_type", "mul", "reshape", "transpose", "broadcast_in_dim", "sharding_constraint")


def _dequantized(jaxpr: Any) -> dict[int, str]:  # noqa: ANN401
    """The variables of a jaxpr that are dequantized float8 tensors, by identity, each with its float8 dtype."""
    origins: dict[int, str] = {}
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in _DEQUANTIZING and not is_quantized(_dtype(eqn.outvars[0])):
            sources = {origins.get(id(v)) or _dtype(v) for v in eqn.invars if v.aval.size > 1}
            if len(sources) == 1 and is_quantized(min(sources)):  # one tensor, and otherwise numbers that scale it
                origins[id(eqn.outvars[0])] = min(sources)
    return origins


def _operands(eqn: Any) -> tuple[int, int] | None:  # noqa: ANN401
    return next((where for name, where in _OPERANDS.items() if eqn.primitive.name.startswith(name)), None)


def module_path(names: tuple[str, ...]) -> str:
    """Join name-stack entries without the transformations around them: ``jvp(Net)``, ``dense1`` is ``Net/dense1``."""
    plain = [_without_transforms(name) for name in names]
    return "/".join(name for name in plain if name)


def _without_transforms(name: str) -> str:
    while match := _TRANSFORM.match(name):
        name = match[1]
    return name


def _dtypes(jaxpr: Any) -> Iterator[str]:  # noqa: ANN401
    inside = (variable for eqn in jaxpr.eqns for variable in (*eqn.invars, *eqn.outvars))
    for variable in (*jaxpr.invars, *jaxpr.constvars, *jaxpr.outvars, *inside):
        if getattr(variable.aval, "shape", ()):
            yield _dtype(variable)
    for eqn in jaxpr.eqns:
        for inner in _inner_jaxprs(eqn):
            yield from _dtypes(inner)


def _dtype(variable: Any) -> str:  # noqa: ANN401
    return str(getattr(variable.aval, "dtype", ""))


def _inner_jaxprs(eqn: Any) -> Iterator[Any]:  # noqa: ANN401
    return map(_inner, _jaxprs(eqn))


def _jaxprs(eqn: Any) -> Iterator[Any]:  # noqa: ANN401
    return filter(_is_jaxpr, jax.tree.leaves(list(eqn.params.values()), is_leaf=_is_jaxpr))


def _is_jaxpr(value: object) -> bool:
    return hasattr(value, "eqns") or hasattr(getattr(value, "jaxpr", None), "eqns")


def _inner(jaxpr: Any) -> Any:  # noqa: ANN401
    """The jaxpr itself where a closed one is given."""
    return getattr(jaxpr, "jaxpr", jaxpr)
