"""Errors of a dense layer's output and gradients, over shapes and ranges of numbers; and numbers that are special."""

import functools
from collections.abc import Callable, Mapping

import numpy as np

from mnist_fp8 import te
from mnist_fp8.core.modes import BLOCK_SCALED, TENSOR_SCALED
from mnist_fp8.measure.common import modes, rounded, step, tensors
from mnist_fp8.oracle import dense
from mnist_fp8.oracle.blocks import BlockDense
from mnist_fp8.oracle.dense import TENSORS, Array, DensePasses, Product
from mnist_fp8.oracle.tolerances import product_tolerance
from mnist_fp8.record.entries import (
    Contents,
    NamedNumber,
    Numbers,
    Quantity,
    Special,
    Value,
)
from mnist_fp8.record.keys import BF16
from mnist_fp8.te.dense_step import Step

SHAPES = ((64, 128, 32), (32, 32, 32), (32, 512, 64), (256, 64, 128))
RANGES: dict[str, Callable[[Array], Array]] = {
    "normal": lambda tensor: tensor,
    "small": lambda tensor: tensor * 2.0**-20,
    "large": lambda tensor: tensor * 2.0**20,
    "wide": lambda tensor: tensor * np.exp2(np.linspace(-8, 8, tensor.size)).reshape(tensor.shape),
    "outlier": lambda tensor: np.where(np.arange(tensor.size).reshape(tensor.shape) == 7, 2.0**8, tensor),  # noqa: PLR2004
}
"""What becomes of normally distributed numbers; tensors stay within what BF16 holds."""
PASSES = {"output": "y", "input gradient": "dx", "kernel gradient": "dkernel"}
_NAMES = {Quantity.ERROR: "against float64", Quantity.IN_TOLERANCES: "in tolerances"}
EDGES = range(-16, 2)
"""Exponents of the bins of the relative errors of single elements."""


def probes() -> Mapping[str, Callable[[], Mapping[str, Value]]]:
    """Measurements by the beginning of their keys."""
    errors = {f"numerics/{name}": functools.partial(_errors, name) for name in modes()}
    return errors | {f"special/{name}": functools.partial(_special, name) for name in modes()}


# --- errors --------------------------------------------------------------------------------------------------------


def _errors(name: str) -> dict[str, Value]:
    once, again = (_all_errors(name) for _ in range(2))
    entries: dict[str, Value] = {
        f"numerics/{name}/{what} {_NAMES[quantity]}": Numbers(
            tuple(errors.values()), tuple(errors), _noise(errors, again[what, quantity]), quantity
        )
        for (what, quantity), errors in once.items()
    }
    return entries | _distributions(name)


def _noise(once: Mapping[str, float], again: Mapping[str, float]) -> float:
    return max(abs(once[label] - again[label]) / max(abs(once[label]), 1e-30) for label in once)


def _all_errors(name: str) -> dict[tuple[str, Quantity], dict[str, float]]:
    """By what is measured, and by shape and range."""
    errors: dict[tuple[str, Quantity], dict[str, float]] = {}
    for shape in SHAPES:
        for spread in RANGES:
            passes = _passes(step(modes()[name], _values(shape, spread))[0])
            label = f"{'x'.join(map(str, shape))} {spread}"
            exact, predicted = _exact(shape, spread), _predicted(name, shape, spread)
            for what, attribute in PASSES.items():
                value = getattr(exact, attribute).value
                error = np.linalg.norm(passes[what] - value) / np.linalg.norm(value)
                errors.setdefault((what, Quantity.ERROR), {})[label] = float(error)
                if predicted:
                    in_tolerances = errors.setdefault((what, Quantity.IN_TOLERANCES), {})
                    in_tolerances[label] = _in_tolerances(name, passes[what], getattr(predicted, attribute))
    return errors


def _passes(taken: Step) -> dict[str, Array]:
    arrays = (taken.y, taken.dx, taken.grads["params"]["kernel"])
    return {what: np.asarray(array, np.float64) for what, array in zip(PASSES, arrays, strict=True)}


@functools.cache
def _values(shape: tuple[int, int, int], spread: str) -> dict[str, Array]:
    return {which: rounded(RANGES[spread](tensor)) for which, tensor in tensors(shape).items()}


@functools.cache
def _exact(shape: tuple[int, int, int], spread: str) -> DensePasses:
    return dense.dense(**_values(shape, spread))


def _predicted(name: str, shape: tuple[int, int, int], spread: str) -> DensePasses | BlockDense | None:
    """What the oracle expects; nothing for a recipe that it does not know."""
    recipe = modes()[name].recipe
    if recipe is None:
        return _exact(shape, spread)
    if name in BLOCK_SCALED:
        values = _values(shape, spread)
        return BlockDense(recipe, values["x"], values["kernel"], values["grad"])
    return _quantized(shape, spread) if name in TENSOR_SCALED else None


@functools.cache
def _quantized(shape: tuple[int, int, int], spread: str) -> DensePasses:
    values = _values(shape, spread)
    return dense.fp8_dense(**values, scales=dense.current_scales(values, "HYBRID"), fp8_format="HYBRID")


def _in_tolerances(name: str, found: Array, expected: Product) -> float:
    """The largest difference of an element from the oracle, in units of what rounding explains."""
    fp8 = name != BF16
    kind = te.engine().kind
    tolerance = product_tolerance(expected, "bfloat16", kind, roundings=2 if fp8 else 1, fp8=fp8)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = np.where(found == expected.value, 0.0, np.abs(found - expected.value) / tolerance)
    return float(np.max(ratios))


def _distributions(name: str) -> dict[str, Value]:
    """How the relative errors of the elements are distributed: the share of each power of two."""
    values = tensors(SHAPES[2])
    passes, exact = _passes(step(modes()[name], values)[0]), dense.dense(**values)
    bounds = np.array([0, *(2.0**exponent for exponent in EDGES), np.inf])
    labels = tuple([f"2^{exponent}" for exponent in EDGES] + ["more"])
    entries: dict[str, Value] = {}
    for what, attribute in PASSES.items():
        value = getattr(exact, attribute).value
        counts, _ = np.histogram(np.abs(passes[what] - value) / np.abs(value), bounds)
        shares = tuple(float(share) for share in counts / value.size)
        entries[f"numerics/{name}/distribution of {what} errors"] = Numbers(shares, labels, quantity=Quantity.SHARE)
    return entries


# --- special numbers ------------------------------------------------------------------------------------------------

_SPECIAL: dict[str, tuple[str, Callable[[Array], Array]]] = {
    "input of zeros": ("x", np.zeros_like),
    "kernel of zeros": ("kernel", np.zeros_like),
    "output gradient of zeros": ("grad", np.zeros_like),
    "an infinity in the input": ("x", lambda tensor: _with(tensor, np.inf)),
    "a NaN in the input": ("x", lambda tensor: _with(tensor, np.nan)),
    "an infinity in the output gradient": ("grad", lambda tensor: _with(tensor, np.inf)),
    "a NaN in the output gradient": ("grad", lambda tensor: _with(tensor, np.nan)),
    "the largest BF16 number in the input": ("x", lambda tensor: _with(tensor, 3.3895314e38)),
    "the smallest BF16 numbers as input": ("x", lambda tensor: np.full_like(tensor, 2.0**-126)),
}


def _with(tensor: Array, value: float) -> Array:
    changed = tensor.copy()
    changed[3, 5] = value
    return changed


def _special(name: str) -> dict[str, Value]:
    entries: dict[str, Value] = {}
    for case, (which, change) in _SPECIAL.items():
        values = tensors((32, 64, 32))
        values[which] = change(values[which])
        taken = step(modes()[name], values, steps=3)[0]
        contents = tuple(_contents(what, array) for what, array in _passes(taken).items())
        entries[f"special/{name}/{case}"] = Special(contents, _scales(name, taken))
    return entries


def _contents(tensor: str, array: Array) -> Contents:
    finite = array[np.isfinite(array)]
    amax = float(np.abs(finite).max()) if finite.size else None
    return Contents(tensor, int(np.isnan(array).sum()), int(np.isinf(array).sum()), amax)


def _scales(name: str, taken: Step) -> tuple[NamedNumber, ...]:
    if te.metadata_collection() not in taken.grads or name == BF16:
        return ()
    return tuple(NamedNumber(tensor, float(taken.metadata[te.scale_leaf(tensor)][0])) for tensor in TENSORS)
