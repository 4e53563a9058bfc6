"""What can be measured, as typed values, which a record has by their keys (`record.keys`).

What differs between two records is found entry by entry, and what a difference means is decided by the
fields of the values. Text is made where a report prints a value.
"""

import dataclasses
import enum
import itertools
from typing import Self, TypeAlias, get_args

from mnist_fp8.record.calls import LayerCalls
from mnist_fp8.record.checkpoints import Unrestored
from mnist_fp8.record.packages import Imported, Needs, Resolved

CALLED = {"function", "class", "method"}
VARIADIC = {"*", "**"}
POSITIONAL = {"positional", "either", "*"}

UNFUSED = "unfused"
"""The attention backend that is no kernel, but products and a softmax."""


# --- values --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Text:
    """Words or names that are only ever compared as a whole: a container class, a dtype, a message."""

    text: str


class Quantity(enum.Enum):
    """What numbers are; it decides what a difference of them means."""

    VALUE = "value"
    ERROR = "error"
    """Relative error against float64: larger is worse."""
    IN_TOLERANCES = "error in tolerances"
    """Largest error in units of what rounding explains: above 1 it is wrong."""
    NORM = "norm"
    """Of a tensor: a larger or smaller one is neither better nor worse."""
    SHARE = "share of elements"
    """Shares of a distribution."""
    SCALE_USED = "scale used"
    """Scales that quantized a tensor, by step."""
    STORED = "stored"
    """Scales and amaxes as the metadata hold them after a step."""


@dataclasses.dataclass(frozen=True)
class Numbers:
    """One number or more.

    Attributes:
        values: the numbers; may hold infinities and NaN.
        labels: what each of them is, as many as there are values.
        noise: largest relative difference of a value between repetitions on the same machine; 0 where it is exact.
        quantity: what they measure.
    """

    values: tuple[float, ...]
    labels: tuple[str, ...]
    noise: float = 0.0
    quantity: Quantity = Quantity.VALUE

    @property
    def by_label(self) -> dict[str, float]:
        """The numbers by what they are."""
        return dict(zip(self.labels, self.values, strict=True))


@dataclasses.dataclass(frozen=True)
class Curves:
    """The same quantity over the same steps, once for each seed.

    Attributes:
        steps: steps at which the quantity was taken.
        seeds: values by step, for each seed.
        noise: largest difference between two runs with the same seed; 0 where training is exact.
        higher_is_better: whether it is an accuracy, and not a loss.
    """

    steps: tuple[int, ...]
    seeds: tuple[tuple[float, ...], ...]
    noise: float = 0.0
    higher_is_better: bool = False


@dataclasses.dataclass(frozen=True)
class Support:
    """Whether a recipe runs on the machine, or a release has a layer; and the reason where not."""

    ok: bool
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Product:
    """Matrix products of a program that are alike.

    Attributes:
        lhs: dtype of the left operand, such as ``float8_e4m3fn``.
        rhs: dtype of the right operand.
        primitive: the JAX primitive.
        quantized: whether both operands are.
        count: how many there are.
    """

    lhs: str
    rhs: str
    primitive: str
    quantized: bool
    count: int


@dataclasses.dataclass(frozen=True)
class Products:
    """All matrix products of a program."""

    products: tuple[Product, ...]


@dataclasses.dataclass(frozen=True)
class Formats:
    """The quantized formats that tensors of a program are in, such as ``float8_e5m2``, sorted."""

    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Call:
    """A custom call, and how often a compiled program has it."""

    name: str
    count: int


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled program: its custom calls and the quantized formats in it."""

    calls: tuple[Call, ...]
    formats: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Codes:
    """A quantized tensor, to the bit.

    Attributes:
        digest: of its codes.
        size: elements.
        wrong: codes that differ from the oracle's; ``None`` where the oracle does not know the tensor.
    """

    digest: str
    size: int
    wrong: int | None


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Whether a series of numbers is the oracle's.

    Attributes:
        step: the first step that is wrong; ``None`` where there is none.
        value: what it is there.
        expected: what the oracle expects there.
    """

    step: int | None = None
    value: float = 0.0
    expected: float = 0.0


@dataclasses.dataclass(frozen=True)
class Contents:
    """The numbers of one tensor.

    Attributes:
        tensor: which one.
        nan: elements that are NaN.
        infinite: elements that are infinite.
        amax: largest absolute value of the others; ``None`` where there are none.
    """

    tensor: str
    nan: int
    infinite: int
    amax: float | None

    @property
    def not_finite(self) -> int:
        """Elements that are NaN or infinite."""
        return self.nan + self.infinite


@dataclasses.dataclass(frozen=True)
class Special:
    """What comes out where something unusual goes in.

    Attributes:
        contents: of the output and of both gradients.
        scales: that of each tensor afterwards, where the recipe keeps them.
    """

    contents: tuple[Contents, ...]
    scales: tuple["NamedNumber", ...] = ()


@dataclasses.dataclass(frozen=True)
class NamedNumber:
    """A number with the name of what it belongs to."""

    name: str
    value: float


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A parameter of a function, or a field of a class that its constructor takes.

    Attributes:
        name: its name.
        kind: ``positional``, ``keyword``, ``either``, ``*`` or ``**``.
        default: source text of the default; ``None`` where an argument is required.
    """

    name: str
    kind: str
    default: str | None

    @property
    def as_source(self) -> str:
        """Such as ``recipe=None`` or ``**kwargs``."""
        return self.with_stars if self.default is None else f"{self.name}={self.default}"

    @property
    def with_stars(self) -> str:
        """Its name, such as ``recipe`` or ``**kwargs``."""
        return f"{self.kind if self.kind in VARIADIC else ''}{self.name}"


@dataclasses.dataclass(frozen=True)
class Signature:
    """What a name is to a caller.

    Attributes:
        what: ``function``, ``class``, ``method``, ``attribute`` or ``module``; of a `Definition` more than that.
        parameters: in their order; none for what is not called.
        value: source text of an attribute's value, or of what makes a function of another one; else empty.
    """

    what: str
    parameters: tuple[Parameter, ...] = ()
    value: str = ""

    @property
    def as_source(self) -> str:
        """The parameters as source has them, such as ``(enabled=False, recipe=None)``, or the value of an attribute."""
        if self.what not in CALLED:
            return self.value
        parts: list[str] = []
        for before, after in itertools.pairwise([None, *self.parameters, None]):
            if before and before.kind == "positional" and (after is None or after.kind != "positional"):
                parts.append("/")
            if after and after.kind == "keyword" and (before is None or before.kind not in {"keyword", "*"}):
                parts.append("*")
            if after:
                parts.append(after.as_source)
        return f"({', '.join(parts)})"


@dataclasses.dataclass(frozen=True)
class Cost:
    """Repeated measurements of a time or an amount of memory, which no verdict rests on.

    Attributes:
        values: one for each repetition.
        unit: ``s`` or ``bytes``.
    """

    values: tuple[float, ...]
    unit: str


@dataclasses.dataclass(frozen=True)
class Failure:
    """It could not be measured: the type of what was raised, and the first line of its message."""

    type: str
    message: str

    @classmethod
    def of(cls, error: Exception) -> Self:
        """What was raised."""
        return cls(type(error).__name__, next(iter(str(error).strip().splitlines()), ""))


Value: TypeAlias = (
    Text
    | Numbers
    | Curves
    | Support
    | Needs
    | Resolved
    | Imported
    | Products
    | Formats
    | Compiled
    | Codes
    | Agreement
    | Special
    | Signature
    | Cost
    | Unrestored
    | LayerCalls
    | Failure
)
KINDS: dict[str, type[Value]] = {cls.__name__.lower(): cls for cls in get_args(Value)}
