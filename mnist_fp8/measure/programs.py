"""Float8 in jaxprs and compiled programs of a dense layer, and the quantized tensors themselves, to the bit."""

import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import jax
import numpy as np

from mnist_fp8.measure.common import BF16, modes, program, step, tensors
from mnist_fp8.oracle import dense
from mnist_fp8.oracle.dense import FORMATS, Array
from mnist_fp8.programs import hlo, jaxprs
from mnist_fp8.record.entries import AGREES, OUTSIDE, Text, Value

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
        found = {
            "products": _counted(f"{gemm.lhs} x {gemm.rhs} ({gemm.primitive})" for gemm in jaxprs.gemms(jaxpr)),
            "quantized types": ", ".join(sorted(jaxprs.quantized_dtypes(jaxpr))) or "none",
            "compiled program": _compiled(jax.jit(function).lower(*arguments).compile().as_text() or ""),
        }
        entries |= {f"float8/{subject}/{direction}: {what}": Text(text) for what, text in found.items()}
    return entries


def _counted(texts: Iterable[str]) -> str:
    counted = Counter(texts)
    return ", ".join(f"{count} x [{text}]" if count > 1 else text for text, count in sorted(counted.items())) or "none"


def _compiled(text: str) -> str:
    """Custom calls of a compiled program and the quantized types in it."""
    calls = _counted(hlo.custom_calls(text).elements())
    return f"custom calls: {calls}; types: {', '.join(hlo.quantized_types(text)) or 'none'}"


def _bits(name: str) -> dict[str, Value]:
    """Digests of all tensors that a step quantizes, and whether they are those of the oracle."""
    mode, values = modes()[name], tensors(_SHAPE)
    function, (_, *arguments) = program(mode, values, backward=True)
    _, variables = step(mode, values)
    jaxpr = jax.make_jaxpr(function)(variables, *arguments)
    # TE's kernels leave a tensor of one element, whatever stands in it, where they are not asked for one.
    found = [tensor for tensor in jaxprs.quantized_tensors(jaxpr, variables, *arguments) if tensor.size > 1]
    expected = _expected(name, values)
    entries: dict[str, Value] = {}
    for number, tensor in enumerate(found, 1):
        digest = hashlib.sha256(np.ascontiguousarray(tensor).tobytes()).hexdigest()[:16]
        key = f"bits/{name}/tensor {number}: {tensor.dtype}{list(tensor.shape)}"
        entries[key] = Text(digest + _against(expected, tensor))
    return entries


def _expected(name: str, values: Mapping[str, Array]) -> list[Array]:
    """The oracle's codes of the three tensors; none for a recipe that it does not know."""
    if name not in ("DelayedScaling", "Float8CurrentScaling"):
        return []
    formats = FORMATS["HYBRID"]
    return [
        dense.quantize(tensor, float(dense.current_scale(tensor, formats[which])), formats[which])
        for which, tensor in values.items()
    ]


def _against(expected: list[Array], tensor: Array) -> str:
    """What the oracle says of a tensor's codes, laid out as it is or transposed."""
    codes = np.asarray(tensor, np.float64)
    layouts = [each for codes_of in expected for each in (codes_of, codes_of.T) if each.shape == codes.shape]
    if not layouts:
        return ""
    wrong = min(int(np.sum(each != codes)) for each in layouts)
    return f", {AGREES}" if not wrong else f", {wrong} of {codes.size} codes differ from the oracle's"
