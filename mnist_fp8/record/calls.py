"""The calls of TE's layers in a user's model, with what they were given: enough to make one of them again, alone."""

import dataclasses

CALLS = "numerics/calls of layers"
"""What the key of the calls in a mode ends with."""


@dataclasses.dataclass(frozen=True)
class Operand:
    """An array that a call is given.

    Attributes:
        name: of the argument.
        shape: sizes of its axes.
        dtype: such as ``bfloat16``.
        mean: of its numbers.
        deviation: their standard deviation.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    mean: float
    deviation: float


@dataclasses.dataclass(frozen=True)
class Option:
    """An argument of a call that is no array.

    Attributes:
        name: of the argument.
        literal: source text of its value; ``None`` where Python has no literal for it.
    """

    name: str
    literal: str | None


@dataclasses.dataclass(frozen=True)
class LayerCall:
    """Calls of one layer that are alike.

    Attributes:
        site: the layer's name, with which the labels of its numbers and the names of its products begin.
        function: TE's, such as ``dense``.
        quantized: whether a product of it is.
        operands: arrays that go in, but for metadata; numbers are those of all calls together.
        gradient: of the output, which arrives.
        options: those that differ from the function's defaults, but for names of axes, which divide over devices.
    """

    site: str
    function: str
    quantized: bool
    operands: tuple[Operand, ...]
    gradient: Operand
    options: tuple[Option, ...]


@dataclasses.dataclass(frozen=True)
class LayerCalls:
    """All calls of a model in a mode, in the order of the program. They are told, and not compared."""

    calls: tuple[LayerCall, ...]
