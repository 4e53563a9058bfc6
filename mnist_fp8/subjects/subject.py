"""What is judged: a layer of Transformer Engine, as data.

A subject says how its layer is made, what goes in, what must come out and which matrix products are inside. Claims,
measurements and reports need nothing else of it: a new layer is one file.
"""

import dataclasses
import enum
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.oracle.arithmetic import Arithmetic, Params


class RecipeFrom(enum.Enum):
    """Where a layer's recipe comes from."""

    AUTOCAST = "autocast"
    CONSTRUCTION = "its construction"
    NOWHERE = "nowhere"
    """It has no product to quantize, or computes them in BF16 by design."""


@dataclasses.dataclass(frozen=True)
class InnerProduct:
    """A matrix product inside a layer.

    Attributes:
        name: what the reference calls it.
        module: path of the module inside the layer that has its metadata.
        number: what its metadata have in their names, where a module has those of several products.
        crossed: what those of ``grad`` have instead, in releases that cross them (`core.metadata.MetadataDialect`).
    """

    name: str
    module: tuple[str, ...] = ()
    number: int | None = None
    crossed: int | None = None


Shape = tuple[int, ...]


class Parameter(NamedTuple):
    """A parameter of a layer, float32 by default.

    Attributes:
        shape: as it is stored.
        axes: names of its axes, by which it is divided over devices; ``None`` where the layer gives it no box for them.
        mean: of its first values.
        deviation: of its first values; they are all the mean where it is zero. Without one, neither is stated.
    """

    shape: Shape
    axes: tuple[str | None, ...] | None = ()
    mean: float = 0.0
    deviation: float | None = 0.0


def first_kernel(shape: Shape, axes: tuple[str, ...] | None = (), fan_in: int | None = None) -> Parameter:
    """A kernel whose first values are as widely spread as its input is wide: all axes but the last, or ``fan_in``."""
    return Parameter(shape, axes, deviation=(fan_in or math.prod(shape[:-1])) ** -0.5)


class NotInReleaseError(Exception):
    """The installed Transformer Engine does not have a layer, or an option of it; the message says what it lacks."""


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A subject with certain options.

    Attributes:
        name: what tests and records call it.
        fields: of the layer.
        inputs: shapes by name, in the order of the call.
        arguments: other arguments of the call.
    """

    name: str
    fields: Mapping[str, Any]
    inputs: Mapping[str, Shape]
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A layer to be judged.

    Attributes:
        name: as Transformer Engine calls it.
        cases: with which options; the first is the plainest.
        make: makes the Flax module of a case, for a recipe that it takes at its construction; raises
            `NotInReleaseError` where the installed release does not have it.
        reference: makes what a case must compute: outputs from an arithmetic, parameters and inputs.
        products: the products of a case that a recipe quantizes, in the order of the program.
        parameters: of a case, by their paths with slashes between the names.
        plain: how many products of a case stay in the input's dtype by design, forward.
        recipe_from: where its recipe comes from.
        attends: whether what it computes of a position depends on others of the sequence, the last axis but one.
        flips: how many times as far as a single layer's its results may be: a rounding that falls on the other side in
            one part of it changes what all that follow are given.
        recorded: the names of the cases that a record has beside the first.
        on_kernels_only: whether Transformer Engine computes it with kernels only, so that a host run cannot.
    """

    name: str
    cases: tuple[Case, ...]
    make: Callable[[Case, RecipeConfig | None], Any]
    reference: Callable[[Case], Callable[[Arithmetic, Params, Mapping[str, jax.Array]], Any]]
    products: Callable[[Case], tuple[InnerProduct, ...]] = lambda _case: ()
    parameters: Callable[[Case], Mapping[str, Parameter]] = lambda _case: {}
    plain: Callable[[Case], int] = lambda _case: 0
    recipe_from: RecipeFrom = RecipeFrom.AUTOCAST
    attends: bool = False
    flips: float = 1.0
    recorded: tuple[str, ...] = ()
    on_kernels_only: bool = False

    @property
    def has_parameters(self) -> bool:
        """Whether any case may have; asked without Transformer Engine."""
        return self.parameters is not Subject.parameters

    def case(self, name: str) -> Case:
        """The case of a name."""
        return next(case for case in self.cases if case.name == name)

    @property
    def recorded_cases(self) -> tuple[Case, ...]:
        """The cases that a record has."""
        return (self.cases[0], *map(self.case, self.recorded))
