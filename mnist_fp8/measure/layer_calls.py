"""What the calls of TE's layers in a model were given, as an entry of a record."""

import ast
import contextlib
import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mnist_fp8 import te
from mnist_fp8.model.run import Passes
from mnist_fp8.oracle.dense import Array
from mnist_fp8.record.calls import LayerCall, LayerCalls, Operand, Option
from mnist_fp8.te.calls import Call

_METADATA = "quantizer"
"""What the names of arguments begin with that hold scales and amax histories."""


def layer_calls(found: Passes) -> LayerCalls:
    """The calls of a model's passes. Those of one layer that are alike, as in a scan, are one."""
    alike: dict[str, dict[Any, list[Call]]] = {str(site): {} for site in found.sites}
    for call in found.calls:
        arrays = tuple((name, array.shape, str(array.dtype)) for name, array in _arrays(call).items())
        kind = (call.site.function, _is_quantized(call), arrays, _options(call))
        alike[str(call.site)].setdefault(kind, []).append(call)
    return LayerCalls(
        tuple(
            _layer_call(calls)
            for kinds in alike.values()
            for _, calls in sorted(kinds.items(), key=lambda kind: repr(kind[0]))  # they ran in no particular order
        )
    )


def _layer_call(calls: Sequence[Call]) -> LayerCall:
    site = calls[0].site
    operands = [_operand(name, [_arrays(call)[name] for call in calls]) for name in _arrays(calls[0])]
    return LayerCall(
        site=str(site),
        function=site.function,
        quantized=_is_quantized(calls[0]),
        operands=tuple(operands),
        gradient=_operand("output", [call.d_outputs[0] for call in calls]),
        options=_options(calls[0]),
    )


def _is_quantized(call: Call) -> bool:
    return any(product.quantized for product in call.site.products)


def _arrays(call: Call) -> dict[str, Array]:
    """What goes in by its name, but for metadata."""
    named = zip(call.names, call.inputs, strict=True)
    return {name: array for name, array in named if not name.startswith(_METADATA)}


def _operand(name: str, arrays: Sequence[Array]) -> Operand:
    """An operand of several calls, whose order is of no matter."""
    count = max(sum(array.size for array in arrays), 1)
    with np.errstate(all="ignore"):  # numbers that are not finite are told, and no warning of the release's
        mean = _sum(np.sum(array, dtype=np.float64) for array in arrays) / count
        variance = _sum(np.sum(np.square(array.astype(np.float64) - mean)) for array in arrays) / count
    return Operand(name, arrays[0].shape, str(arrays[0].dtype), mean, math.sqrt(variance))


def _sum(numbers: Iterable[float]) -> float:
    return float(np.sum(sorted(numbers)))


def _options(call: Call) -> tuple[Option, ...]:
    defaults = _defaults(call.site.function)
    named = ((name, value) for name, value in call.options.items() if not name.endswith("axes"))
    return tuple(Option(name, _literal(value)) for name, value in named if not _is(value, defaults.get(name)))


def _defaults(function: str) -> Mapping[str, Any]:
    """Of the public function of that name; none where there is none, or it lies elsewhere."""
    with contextlib.suppress(AttributeError):
        parameters = inspect.signature(te.find_name(function, function)).parameters
        return {name: parameter.default for name, parameter in parameters.items()}
    return {}


def _literal(value: object) -> str | None:
    with contextlib.suppress(ValueError, TypeError, SyntaxError):
        if _is(ast.literal_eval(repr(value)), value):
            return repr(value)
    return None


def _is(value: object, other: object) -> bool:
    return type(value) is type(other) and bool(value == other)
