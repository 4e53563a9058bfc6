"""Custom calls and matrix products in the text of a compiled program."""

import re
from collections import Counter
from collections.abc import Mapping

from mnist_fp8.programs.jaxprs import Gemm, module_path


def custom_calls(hlo: str) -> Counter[str]:
    """Count the custom calls of a compiled program's text by target, such as ``te_gemm_v2_ffi``."""
    return Counter(re.findall(r'custom_call_target="([^"]+)"', hlo))


def compiled_gemms(hlo: str) -> dict[str, Gemm]:
    """The matrix products in a compiled program's text by the name of the instruction, in its order.

    Those are custom calls of TE (``te_gemm...``) and of XLA (``__cublas$lt$matmul$f8``), whose target is the product's
    ``primitive``, and products that XLA compiles itself (``dot``).
    """
    types = {name: _DTYPES.get(dtype, dtype) for name, dtype in _DEFINITION.findall(hlo)}
    gemms = ((match[1], _compiled_gemm(match, types)) for match in _CALL.finditer(hlo))
    return {name: gemm for name, gemm in gemms if gemm}


_DEFINITION = re.compile(r"^\s*(?:ROOT )?%?(\S+) = \(?(\w+)\[", re.MULTILINE)
_CALL = re.compile(r"^\s*(?:ROOT )?%?(\S+) = .*? (dot|custom-call)\(([^)]*)\)(.*)$", re.MULTILINE)
_DTYPES = {
    "f8e4m3fn": "float8_e4m3fn",
    "f8e5m2": "float8_e5m2",
    "bf16": "bfloat16",
    "f16": "float16",
    "f32": "float32",
}
"""XLA's names of dtypes."""
_COMPILED_OPERANDS = {"te_gemm": (0, 2), "__cublas$": (0, 1), "dot": (0, 1)}
"""Positions of the operands, by the beginning of what multiplies them."""


def _compiled_gemm(call: re.Match[str], types: Mapping[str, str]) -> Gemm | None:
    _, operation, operands, attributes = call.groups()
    target = re.search(r'custom_call_target="([^"]+)"', attributes)
    called = target[1] if target else operation
    where = next((where for name, where in _COMPILED_OPERANDS.items() if called.startswith(name)), None)
    if where is None:
        return None
    names = re.findall(r"%([^\s,]+)", operands)
    lhs, rhs = (types[names[position]] for position in where)
    path = re.search(r'op_name="([^"]*)"', attributes)
    scopes = path[1].split("/")[:-1] if path else []
    modules = tuple(scope for scope in scopes if not scope.startswith(("jit(", "pjit(")))
    return Gemm(module_path(modules), any("transpose(" in scope for scope in scopes), lhs, rhs, called)


def quantized_types(hlo: str) -> list[str]:
    """The quantized types in a compiled program's text, in its spelling, such as ``f8e4m3fn``."""
    return sorted(set(re.findall(r"\b(?:f8e4m3|f8e5m2|f4e2m1)\w*", hlo)))
