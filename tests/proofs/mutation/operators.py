"""Small faults in Python source: each operator looks at one node of the syntax tree and names what could replace it.

A replacement is put into the text where the node stands, so that every other character of the file stays as it is.
"""

import ast
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Replacements = Iterator[tuple[str, str]]
"""Pairs of an operator's name and the text to put in the node's place."""


@dataclasses.dataclass(frozen=True, order=True)
class Edit:
    """One small fault.

    Attributes:
        start: offset of the text that is replaced, in UTF-8 bytes (what `ast` counts) from the beginning of the file.
        end: offset of its end.
        text: what replaces it.
        operator: the operator that made it.
        line: first line of the node, from 1.
        statement: first line of the statement around it.
        scope: qualified name of the function or class around it; empty at the top of a module.
    """

    start: int
    end: int
    text: str
    operator: str
    line: int
    statement: int
    scope: str

    def apply(self, source: str) -> str:
        """The source with the fault in it."""
        raw = source.encode()
        return (raw[: self.start] + self.text.encode() + raw[self.end :]).decode()


_ARITHMETIC = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "*", ast.Mod: "*", ast.Pow: "*"}
_COMPARISON = {
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}

_ROLES = [
    ("x", "kernel", "dgrad"),
    ("lhs", "rhs"),
    ("LHS", "RHS"),
    ("LHS_TRANS", "RHS_TRANS"),
    ("X", "KERNEL", "DGRAD"),
    ("dgrad", "wgrad"),
    ("x_meta", "kernel_meta", "grad_meta"),
    ("args_x", "args_kernel", "args_grad"),
    ("q_x", "q_kernel", "q_dgrad"),
    ("FWD_DTYPE", "BWD_DTYPE"),
    ("fwd_dtype", "bwd_dtype"),
    ("rowwise_tensor", "colwise_tensor"),
    ("lhs_scale_inv", "rhs_scale_inv"),
    ("input_axes", "kernel_axes", "output_axes"),
    ("dp_resource", "fsdp_resource", "tp_resource", "tpsp_resource"),
    ("MAX", "MOST_RECENT"),
    ("E4M3", "E5M2", "HYBRID"),
    ("ROWWISE", "COLWISE", "ROWWISE_COLWISE"),
    ("FPROP_DTYPE", "DGRAD_DTYPE"),
    ("DELAYED_TENSOR_SCALING", "CURRENT_TENSOR_SCALING", "NO_SCALING"),
    ("float8_e4m3fn", "float8_e5m2"),
    ("float32", "bfloat16"),
    ("TPSP", "FSDP"),
    ("DEFAULT", "HIGHEST"),
]
"""Names that mean the same thing for another tensor, format or direction: each is replaced by the next."""

_CALLS = [("max", "min"), ("zeros", "ones"), ("any", "all"), ("isfinite", "isnan"), ("sum", "max"), ("floor", "ceil")]
"""Functions, where they are called, that are replaced by each other."""

_IDENTITIES = {"abs", "clip", "asarray", "astype", "reshape", "transpose", "roll", "stop_gradient"}
"""Calls that are replaced by what they are applied to."""


def _neighbours(groups: Sequence[tuple[str, ...]]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for group in groups:
        for name, other in zip(group, (*group[1:], group[0]), strict=True):
            pairs.setdefault(name, other)
    return pairs


_ROLE_OF, _CALL_OF = _neighbours(_ROLES), _neighbours(_CALLS)


def _swap_arithmetic(node: ast.AST) -> Replacements:
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        yield "arithmetic", f"({_text(node.left)} {_ARITHMETIC[type(node.op)]} {_text(node.right)})"


def _never_equal_ranks(node: ast.AST) -> Replacements:
    """A difference of ranks is taken for one of at least 1, which holds until a tensor has no leading dimension."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub) and getattr(node.left, "attr", "") == "ndim":
        yield "rank", f"max({_text(node)}, 1)"


def _swap_comparison(node: ast.AST) -> Replacements:
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield "comparison", f"{_text(node.left)} {_COMPARISON[type(node.ops[0])]} {_text(node.comparators[0])}"


def _change_constant(node: ast.AST) -> Replacements:
    if not isinstance(node, ast.Constant) or node.value is None or node.value is Ellipsis:
        return
    if isinstance(node.value, bool):
        yield "constant", str(not node.value)
    elif isinstance(node.value, int):
        yield "constant", str(node.value + 1)
        yield "constant", f"({node.value - 1})"
    elif isinstance(node.value, float):
        yield "constant", str(node.value * 2 if node.value else 1.0)
    elif isinstance(node.value, str) and node.value:
        yield "name", repr(node.value + "_")


def _drop_operand(node: ast.AST) -> Replacements:
    if isinstance(node, ast.BoolOp):
        other = " or " if isinstance(node.op, ast.And) else " and "
        yield "boolean", "(" + other.join(f"({_text(value)})" for value in node.values) + ")"
        yield "boolean", f"({_text(node.values[0])})"
        yield "boolean", f"({_text(node.values[-1])})"


def _drop_unary(node: ast.AST) -> Replacements:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        yield "unary", f"({_text(node.operand)})"


def _drop_statement(node: ast.AST) -> Replacements:
    target = isinstance(node, ast.Assign) and not isinstance(node.targets[0], ast.Name | ast.Tuple)
    call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    if target or call or isinstance(node, ast.AugAssign | ast.Assert | ast.Raise):
        yield "dropped statement", "pass"


def _drop_reassignment(node: ast.AST) -> Replacements:
    """``a = f(a)`` is left out: the value stays what it was."""
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        name = node.targets[0].id
        if any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(node.value)):
            yield "dropped statement", "pass"


def _change_call(node: ast.AST) -> Replacements:
    if not isinstance(node, ast.Call):
        return
    for number, keyword in enumerate(node.keywords):
        if keyword.arg:
            yield "dropped keyword", _call(node, node.args, node.keywords[:number] + node.keywords[number + 1 :])
        if keyword.arg and ("quantizer" in keyword.arg or "scale" in keyword.arg):
            nothing = ast.keyword(keyword.arg, ast.Constant(None))
            changed = [*node.keywords[:number], nothing, *node.keywords[number + 1 :]]
            yield "left unquantized", _call(node, node.args, changed)
    plain = [argument for argument in node.args if not isinstance(argument, ast.Starred)]
    if len(plain) == len(node.args):
        for first in range(len(plain) - 1):
            swapped = [*plain[:first], plain[first + 1], plain[first], *plain[first + 2 :]]
            yield "swapped arguments", _call(node, swapped, node.keywords)
    name = _called(node)
    if name in _CALL_OF and node.args:
        yield "function", _text(_renamed(node.func, _CALL_OF[name])) + _text(node)[len(_text(node.func)) :]
    if name in _IDENTITIES:
        applied = node.args[0] if _is_module_function(node) and node.args else _receiver(node)
        if applied is not None:
            yield "left out call", f"({_text(applied)})"


def _swap_role(node: ast.AST) -> Replacements:
    if isinstance(node, ast.Attribute) and node.attr in _ROLE_OF and isinstance(node.ctx, ast.Load):
        yield "role", f"{_text(node.value)}.{_ROLE_OF[node.attr]}"
    if isinstance(node, ast.Name) and node.id in _ROLE_OF and isinstance(node.ctx, ast.Load):
        yield "role", _ROLE_OF[node.id]


def _swap_elements(node: ast.AST) -> Replacements:
    if isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Load):
        for first in range(len(node.elts) - 1):
            swapped = [*node.elts[:first], node.elts[first + 1], node.elts[first], *node.elts[first + 2 :]]
            yield "swapped elements", "(" + ", ".join(_text(element) for element in swapped) + ")"


def _keep_half(node: ast.AST) -> Replacements:
    if isinstance(node, ast.IfExp):
        yield "conditional", f"({_text(node.body)})"
        yield "conditional", f"({_text(node.orelse)})"


OPERATORS: list[Callable[[ast.AST], Replacements]] = [
    _swap_arithmetic,
    _never_equal_ranks,
    _swap_comparison,
    _change_constant,
    _drop_operand,
    _drop_unary,
    _drop_statement,
    _drop_reassignment,
    _change_call,
    _swap_role,
    _swap_elements,
    _keep_half,
]


def edits(source: str) -> list[Edit]:
    """Every small fault that the operators see in a module's source, in the order of the text.

    Docstrings, annotations, and the words of errors and warnings are left alone: they are no behaviour that a test
    should hold fast.
    """
    return sorted(set(_walk(ast.parse(source), _line_offsets(source), 0, "")))


def _walk(node: ast.AST, offsets: list[int], statement: int, scope: str) -> Iterator[Edit]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        scope = f"{scope}.{node.name}".lstrip(".")
    if isinstance(node, ast.stmt):
        statement = node.lineno
    for place, text, operator in _replacements(node):
        start = offsets[place.lineno - 1] + place.col_offset
        end = offsets[place.end_lineno - 1] + place.end_col_offset
        yield Edit(start, end, text, operator, place.lineno, statement, scope)
    for child in _children(node):
        yield from _walk(child, offsets, statement, scope)


def _replacements(node: ast.AST) -> Iterator[tuple[Any, str, str]]:
    """What is replaced, by what, and by which operator."""
    for operator in OPERATORS:
        for name, text in operator(node):
            yield node, text, name
    if isinstance(node, ast.If | ast.IfExp | ast.While | ast.Assert):
        yield node.test, f"not ({_text(node.test)})", "condition"
    if isinstance(node, ast.Try):
        for statement in node.finalbody:
            yield statement, "pass", "not restored"


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """The parts of a node that are behaviour."""
    if isinstance(node, ast.Raise):
        return
    if isinstance(node, ast.Assert):
        yield node.test
        return
    if isinstance(node, ast.AnnAssign):
        yield from [node.value] if node.value else []
        return
    if isinstance(node, ast.arg):
        return
    if isinstance(node, ast.FunctionDef):
        yield from (default for default in [*node.args.defaults, *node.args.kw_defaults] if default)
        yield from node.decorator_list
        yield from node.body
        return
    if isinstance(node, ast.Expr) and (
        isinstance(node.value, ast.Constant) or _called(node.value) in {"warn", "debug"}
    ):
        return
    yield from ast.iter_child_nodes(node)


def _text(node: ast.AST) -> str:
    return ast.unparse(node)


def _call(node: ast.Call, args: list[ast.expr], keywords: list[ast.keyword]) -> str:
    return _text(ast.Call(node.func, args, keywords))


def _called(node: ast.AST) -> str:
    """Last part of the name of a called function; empty for anything else."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _renamed(function: ast.expr, name: str) -> ast.expr:
    if isinstance(function, ast.Attribute):
        return ast.Attribute(function.value, name, function.ctx)
    return ast.Name(name, ast.Load())


def _is_module_function(node: ast.Call) -> bool:
    receiver = _receiver(node)
    return receiver is None or _text(receiver) in {"jnp", "np", "jax.lax", "jax.numpy", "lax"}


def _receiver(node: ast.Call) -> ast.expr | None:
    return node.func.value if isinstance(node.func, ast.Attribute) else None


def _line_offsets(source: str) -> list[int]:
    """Offset of each line, in UTF-8 bytes."""
    lengths = (len(line) for line in source.encode().splitlines(keepends=True))
    return list(itertools.accumulate(lengths, initial=0))
