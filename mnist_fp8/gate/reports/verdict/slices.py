"""The smallest program that shows where two releases part in a user's model: the calls of one layer, as a script.

The script needs nothing of this project, but for block-scaled recipes without a GPU. What a record says stands in it as
literals alone: no name in a record is ever code.
"""

import ast
import dataclasses
import math
import re
import shlex
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from mnist_fp8.core.modes import BLOCK_SCALED, TENSOR_SCALED
from mnist_fp8.core.plain import clean
from mnist_fp8.gate.releases.editions import Edition, EditionKind
from mnist_fp8.gate.reports.markup import template
from mnist_fp8.gate.verdict.comparison import Comparison
from mnist_fp8.gate.verdict.first_calls import FirstCalls
from mnist_fp8.record.calls import LayerCall, Operand
from mnist_fp8.record.keys import BF16
from mnist_fp8.record.record import Record


class _Function(NamedTuple):
    """How a function of Transformer Engine is called: its first arguments, some of them sequences, and quantizers."""

    arguments: tuple[str | tuple[str, ...], ...]
    quantizers: str = "quantizer_set=quantizers[0]"
    products: int = 1

    @property
    def names(self) -> set[str]:
        """Of all arrays that it takes."""
        return {name for each in self.arguments for name in ((each,) if isinstance(each, str) else each)}


_FUNCTIONS: Mapping[str, _Function] = {
    "dense": _Function(("x", "kernel", "bias")),
    "layernorm_dense": _Function(("x", "kernel", "gamma", "beta", "bias")),
    "layernorm_mlp": _Function(
        ("x", "gamma", "beta", ("kernel_1", "kernel_2"), ("bias_1", "bias_2")), "quantizer_sets=quantizers", 2
    ),
}
"""What scripts are made of. Each lies in a module of its own name, since 2.3."""
_MODES = (BF16, *TENSOR_SCALED, "MXFP8BlockScaling")
_STEPS = {"DelayedScaling": (1, 2)}
"""Steps of recipes that keep metadata: the second has the scales of what the first one saw."""
_LONGEST = 60
"""Characters of a layer's name in that of a file."""


@dataclasses.dataclass(frozen=True)
class Slice:
    """A script, or why there is none.

    Attributes:
        layer: the layer's name.
        mode: BF16 or a recipe.
        file: name of the file.
        source: what is in it; empty where no script can be made.
        commands: that run it under the old and the new release, in the folder that it lies in.
        problem: why there is no script; else empty.
    """

    layer: str
    mode: str
    file: str = ""
    source: str = ""
    commands: tuple[str, ...] = ()
    problem: str = ""


class _NoScriptError(Exception):
    """Why no script can be made, in a few words."""


def slices(comparison: Comparison) -> tuple[Slice, ...]:
    """The scripts of a comparison: one for each mode in which a layer of a user's model is the first that diverges."""
    return tuple(_slice(found, comparison.old, comparison.new) for found in comparison.first_calls)


def _slice(found: FirstCalls, old: Record, new: Record) -> Slice:
    layer, mode = clean(found.site), clean(found.mode)
    try:
        source = _source(found)
    except _NoScriptError as why:
        return Slice(layer, mode, problem=clean(str(why)))
    short = re.sub(r"[^A-Za-z0-9]+", "-", found.site)[:_LONGEST].strip("-")
    file = f"slice_{short}_{mode}.py"
    return Slice(layer, mode, file, source, tuple(clean(_command(record, file)) for record in (old, new)))


def _command(record: Record, file: str) -> str:
    """What runs a file with the release of a record, and the same JAX."""
    (where, *_) = (*record.arguments, "")
    is_interpreter = record.te == Edition(EditionKind.INTERPRETER, where, record.version).label  # which has its own JAX
    jax = record.environment.get("jax", "")
    options = [*(["--jax", jax] if jax and not is_interpreter else []), *record.capability_arguments]
    return shlex.join(["mnist-fp8", "run", *options, *record.arguments, "--", "python", file])


def _source(found: FirstCalls) -> str:
    """The script.

    Raises:
        _NoScriptError: none can be made.
    """
    if found.mode not in _MODES:
        raise _NoScriptError(f"scripts are not made for {found.mode}")
    if not (found.old and found.new):
        raise _NoScriptError(f"only the {'old' if found.old else 'new'} release calls a function of its own for it")
    if list(map(_form, found.old)) != list(map(_form, found.new)):
        raise _NoScriptError("the two releases call other functions there, or give them other arguments")
    recipe = found.mode if any(call.quantized for call in found.old) and found.mode != BF16 else ""
    script = template("slice.py.jinja").render(
        site=repr(found.site),
        recipe=recipe,
        is_in_blocks=recipe in BLOCK_SCALED,
        functions=sorted({call.function for call in found.old}),
        calls=[_call(call, f"{number} {call.function}") for number, call in enumerate(found.old, 1)],
        steps=_STEPS.get(recipe, (1,)),
    )
    return f"{script}\n"


def _form(call: LayerCall) -> tuple[object, ...]:
    """All of a call but for its numbers."""
    arrays = [(each.name, each.shape, each.dtype) for each in (*call.operands, call.gradient)]
    return call.function, arrays, call.options


def _call(call: LayerCall, name: str) -> dict[str, Any]:
    """What the template needs of a call, as source text.

    Raises:
        _NoScriptError: it cannot be written down.
    """
    function = _FUNCTIONS.get(call.function)
    if function is None:
        raise _NoScriptError(f"it calls {call.function}; scripts are made of {', '.join(_FUNCTIONS)}")
    given = {each.name: _operand(each) for each in call.operands}
    if other := given.keys() - function.names:
        raise _NoScriptError(f"{call.function} is given {', '.join(sorted(other))}, which scripts do not know")
    words = [_argument(each, given) for each in function.arguments]
    words += [function.quantizers] if call.quantized else []
    words += [f"**{options!r}"] if (options := _options(call)) else []
    return {
        "name": repr(name),
        "expression": f"{call.function}({', '.join(words)})",
        "given": {repr(name): operand for name, operand in given.items()},
        "gradient": _operand(call.gradient),
        "quantizers": f"quantizer_sets({function.products})" if call.quantized else "()",
    }


def _argument(name: str | tuple[str, ...], given: Collection[str]) -> str:
    """An argument as source text; what a call is not given is ``None``."""
    if isinstance(name, tuple):
        return f"({', '.join(_argument(each, given) for each in name)})"
    return f"given[{name!r}]" if name in given else "None"


def _operand(operand: Operand) -> str:
    """Shape, dtype, mean and deviation as source text.

    Raises:
        _NoScriptError: the numbers are not finite.
    """
    if not (math.isfinite(operand.mean) and math.isfinite(operand.deviation)):
        raise _NoScriptError(f"numbers that it is given are not finite: {operand.name}")
    return repr((operand.shape, operand.dtype, operand.mean, operand.deviation))


def _options(call: LayerCall) -> dict[str, object]:
    """The other arguments.

    Raises:
        _NoScriptError: Python has no literal for one of them.
    """
    options = dict[str, object]()
    for option in call.options:
        try:
            options[option.name] = ast.literal_eval(option.literal or "")
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
            raise _NoScriptError(f"{call.function} is given {option.name} that cannot be written down") from error
    return options
