"""What can be measured, as typed values by key; and their JSON."""

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from mnist_fp8.core.patterns import matches

if TYPE_CHECKING:
    import griffe

    Named: TypeAlias = griffe.Object | griffe.Alias
    Expression: TypeAlias = griffe.Expr | str | None


AREAS = {
    "claims": "the suite's claims",
    "api": "names and signatures that users import",
    "recipes": "recipes that run here",
    "variables": "variables of a model, as checkpoints store them",
    "metadata": "amax histories and scales, step by step",
    "float8": "float8 in jaxprs and compiled programs",
    "numerics": "errors of outputs and gradients",
    "bits": "quantized tensors, to the bit",
    "special": "zeros, infinities, NaN, tiny and huge numbers",
    "behaviour": "what layers and contexts do",
    "training": "training curves",
    "warnings": "warnings and deprecations",
    "costs": "times and memory, for information",
}
"""All areas in the order of reports, with what they hold."""
# Words that measuring and comparing agree on. "In tolerances": errors against the oracle, as multiples of what rounding
# explains.
RUNS = "runs here"
AGREES = "as the oracle"
AGAINST_ORACLE = "against the oracle"
IN_TOLERANCES = "in tolerances"
DISTRIBUTION = "distribution"
OUTSIDE = "outside autocast"


def covers(pattern: str, key: str) -> bool:
    """Whether a pattern names an entry: its key, the beginning of it up to a slash, or words with ``*``."""
    return matches(pattern, key) or key.startswith(pattern.rstrip("/") + "/")


@dataclasses.dataclass(frozen=True)
class Text:
    """Something exact: a shape, a dtype, a digest, words."""

    text: str


@dataclasses.dataclass(frozen=True)
class Numbers:
    """One number or more.

    Attributes:
        values: the numbers; may hold infinities and NaN.
        labels: what each of them is, as many as there are values.
        noise: largest relative difference of a value between repetitions on the same machine; 0 where it is exact.
    """

    values: tuple[float, ...]
    labels: tuple[str, ...]
    noise: float = 0.0


@dataclasses.dataclass(frozen=True)
class Curves:
    """The same quantity over the same steps, once for each seed.

    Attributes:
        steps: steps at which the quantity was taken.
        seeds: values by step, for each seed.
        noise: largest difference between two runs with the same seed; 0 where training is exact.
    """

    steps: tuple[int, ...]
    seeds: tuple[tuple[float, ...], ...]
    noise: float = 0.0


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


@dataclasses.dataclass(frozen=True)
class Signature:
    """A public name.

    Attributes:
        what: ``function``, ``class``, ``method``, ``attribute`` or ``module``.
        parameters: in their order; none for an attribute or a module.
        value: source text of an attribute's value.
    """

    what: str
    parameters: tuple[Parameter, ...] = ()
    value: str = ""


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
    """It could not be measured: what was raised, in one line."""

    error: str

    @classmethod
    def of(cls, error: Exception) -> Self:
        """What was raised, by its kind and the first line of its words."""
        return cls(f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}")


Value: TypeAlias = Text | Numbers | Curves | Signature | Cost | Failure
KINDS: dict[str, type[Value]] = {cls.__name__.lower(): cls for cls in (Text, Numbers, Curves, Signature, Cost, Failure)}


def entries_to_json(entries: Mapping[str, Value]) -> dict[str, Any]:
    """Entries as plain data; numbers that JSON does not know are words."""
    return {
        key: {"kind": type(value).__name__.lower(), **_plain(dataclasses.asdict(value))}
        for key, value in entries.items()
    }


def entries_from_json(document: Mapping[str, Any]) -> dict[str, Value]:
    """Read what `entries_to_json` made.

    Raises:
        KeyError, TypeError, ValueError: it is something else.
    """
    return {key: _value(fields) for key, fields in document.items()}


def _plain(value: Any) -> Any:  # noqa: ANN401 - anything that JSON can hold
    match value:
        case dict():
            return {name: _plain(each) for name, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case float() if not math.isfinite(value):
            return str(value)
    return value


def _value(fields: Mapping[str, Any]) -> Value:
    given = {name: value for name, value in fields.items() if name != "kind"}
    match fields["kind"]:
        case "numbers":
            return Numbers(_floats(given["values"]), tuple(given["labels"]), float(given["noise"]))
        case "curves":
            return Curves(tuple(given["steps"]), tuple(map(_floats, given["seeds"])), float(given["noise"]))
        case "cost":
            return Cost(_floats(given["values"]), given["unit"])
        case "signature":
            parameters = tuple(Parameter(**each) for each in given["parameters"])
            return Signature(given["what"], parameters, given["value"])
    return KINDS[fields["kind"]](**given)


def _floats(values: Any) -> tuple[float, ...]:  # noqa: ANN401
    return tuple(float(value) for value in values)


CALLED = {"function", "class", "method"}
VARIADIC = {"*", "**"}
POSITIONAL = {"positional", "either", "*"}
