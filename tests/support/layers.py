"""Layers in modes, for claims that hold for each of them: which there are, and what is expected of one."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_fp8.oracle.arithmetic import Arithmetic, Passes
from mnist_fp8.subjects import SUBJECTS
from mnist_fp8.subjects.layer import Layer, Step, step
from mnist_fp8.subjects.prediction import amax_tolerance, expected, pairs, paths, scales_of, tolerance_of
from mnist_fp8.subjects.subject import Case, Subject
from mnist_fp8.te.dense_step import fp8
from support.assertions import assert_close_norm

__all__ = [
    "CURRENT",
    "DELAYED",
    "MXFP8",
    "NVFP4",
    "amax_tolerance",
    "assert_step",
    "blockwise",
    "cases",
    "defined",
    "expected",
    "fresh_step",
    "passes",
    "paths",
    "plainest",
    "quantized_cases",
    "recipes",
    "recorded",
    "scales_of",
    "short_variables",
    "tolerance_of",
]

DELAYED, CURRENT = fp8(amax_history_len=4), fp8("Float8CurrentScaling")
MXFP8 = fp8("MXFP8BlockScaling")
NVFP4 = fp8("NVFP4BlockScaling", disable_stochastic_rounding=True, disable_rht=True, disable_2d_quantization=True)
"""Without what is random, and without the options that have claims of their own on a dense layer."""


def fresh_step(layer: Layer) -> Any:
    """`step`, to be traced anew: ``jax.jit`` sees neither that Flax's rules have changed, nor a kernel put in place."""
    return jax.jit(functools.partial(inspect.unwrap(step), layer))


def cases(of: Callable[[Subject, Case], bool] = lambda _subject, _case: True, *, fused: bool = False) -> list[Any]:
    """Parameters ``subject`` and ``case`` of a test: all, or those of some kind; those that need a fused attention."""
    pairs = [(subject, case) for subject in SUBJECTS for case in subject.cases if of(subject, case)]
    marks = [pytest.mark.subject, *([pytest.mark.fused_attention] if fused else [])]
    return [
        pytest.param(
            subject,
            case,
            marks=[mark(subject.name, case.name) for mark in marks],
            id=f"{subject.name}-{case.name}",
        )
        for subject, case in pairs
    ]


def quantized_cases(of: Callable[[Subject, Case], bool] = lambda _subject, _case: True) -> list[Any]:
    """As `cases`, of layers that have a product to quantize."""
    return cases(lambda subject, case: bool(subject.products(case)) and of(subject, case))


def plainest(subject: Subject, case: Case) -> bool:
    """Whether a case is its subject's first."""
    return case is subject.cases[0]


def recorded(subject: Subject, case: Case) -> bool:
    """Whether a record has a case: the first, and those that differ from it in what is between the products."""
    return case in subject.recorded_cases


def has_rows(subject: Subject) -> bool:
    """Whether inputs are examples of positions; the others are divided into groups, or there are none."""
    shapes = subject.cases[0].inputs.values()
    return bool(shapes) and all(len(shape) > 2 for shape in shapes)


recipes = pytest.mark.parametrize(
    "mode",
    [
        pytest.param(DELAYED, marks=pytest.mark.recipe("DelayedScaling"), id="delayed"),
        pytest.param(CURRENT, marks=pytest.mark.recipe("Float8CurrentScaling"), id="current"),
    ],
)


blockwise = pytest.mark.parametrize(
    "mode",
    [
        pytest.param(MXFP8, marks=pytest.mark.recipe("MXFP8BlockScaling"), id="mxfp8"),
        pytest.param(NVFP4, marks=pytest.mark.recipe("NVFP4BlockScaling"), id="nvfp4"),
    ],
)


def passes(apply: Callable[..., Any], variables: Any, inputs: Any, grads: Any) -> Step:
    """The passes of `step` in whatever autocast is in force, of a layer's ``apply`` or a transformation of it."""
    y, pull_back = jax.vjp(apply, variables, inputs)
    dvariables, dx = pull_back(grads)
    return Step(y, dx, dvariables)


def assert_step(step: Step, wanted: Passes, *, where: str, tolerance_of: Callable[[str], float]) -> None:
    """Compare outputs and all gradients with what is expected, each by the norm of its difference.

    Args:
        step: what the layer computed.
        wanted: what it must compute.
        where: for the message.
        tolerance_of: largest relative norm of a difference, by the name of what is compared.
    """
    __tracebackhide__ = True
    for name, actual, right in pairs(step, wanted):
        assert_close_norm(where=f"{where}: {name}", actual=actual, expected=right, tolerance=tolerance_of(name))


_Result = TypeVar("_Result")
CHANCE = 4.0
"""Largest distance from what is predicted, in tolerances, that chance explains: `unless_by_chance`."""
DRAWS = 3
"""How many other draws decide then."""


def unless_by_chance(check: Callable[[int, float], _Result]) -> _Result:
    """Check a layer on random numbers; where it fails by little, most of some other draws have to pass.

    A sum in float32 may fall on the other side of a rounding to float8 than in float64. Of one of the largest numbers
    of a gradient, that changes all that follows from it by more than a tolerance: in one draw of twenty, and in others
    with each release and compiler. Seen in 24 draws of three transformer layers (2.4.0, 2.8.0, 2.20.2): up to 2.1.

    Args:
        check: asserts that a layer computes what is predicted, given the number of the draw, and how many tolerances it
            may be off.

    Returns:
        What the check returns of the first draw.
    """
    __tracebackhide__ = True
    try:
        return check(0, 1.0)
    except AssertionError:
        result = check(0, CHANCE)
        if sum(_passes(check, draw) for draw in range(1, DRAWS + 1)) <= DRAWS // 2:
            raise
        return result


def _passes(check: Callable[[int, float], object], draw: int) -> bool:
    try:
        check(draw, 1.0)
    except AssertionError:
        return False
    return True


def short_variables(layer: Layer) -> dict[str, Any]:
    """A layer's variables, of numbers that BF16 has: references take parameters so."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(leaf.dtype), layer.variables())


def defined(layer: Layer, variables: Any, inputs: Mapping[str, jax.Array]) -> Any:
    """The first output of a layer by its definition, computed in float32; nothing is quantized."""
    with jax.default_matmul_precision("highest"):
        reference = jax.jit(functools.partial(layer.reference, Arithmetic()))
        return np.asarray(jax.tree.leaves(reference(variables["params"], dict(inputs)))[0], np.float64)
