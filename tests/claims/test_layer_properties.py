"""Claim: each layer keeps what its definition implies, whatever the numbers, the shapes and the program around it.

Rows do not see each other, the order of a batch does not count, numbers that are none stay visible, and jit, scan,
vmap, checkpointing and donation change nothing. All of it follows from the layers' formulas; in BF16 and under delayed
scaling, whose scales do not depend on the step's own numbers.

What a failure means for an upgrade: results of one example depend on the others of its batch, a diverged run looks
healthy, or a model computes something else when its program is written in another way.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_fp8 import te
from mnist_fp8.oracle import arithmetic
from mnist_fp8.oracle.arithmetic import Arithmetic
from mnist_fp8.oracle.tolerances import PARTIAL_SUMS
from mnist_fp8.subjects import SUBJECTS
from mnist_fp8.subjects.layer import Layer, Step, next_variables, step
from mnist_fp8.subjects.subject import RecipeFrom, Subject
from mnist_fp8.te.dense_step import BF16, on_device
from support.assertions import assert_close_norm, assert_trees_close_norm, assert_trees_equal
from support.layers import CURRENT, DELAYED, assert_step, has_rows, passes, paths, tolerance_of


def plainest_layers(*modes: te.Autocast, of: Callable[[Subject], bool] = lambda _: True) -> Any:
    """Parameter ``layer`` of a test: each subject's plainest case in some modes; in BF16 alone if it has no recipe."""
    quantized = [(subject, subject.cases[0], bool(subject.products(subject.cases[0]))) for subject in SUBJECTS]
    chosen = [
        Layer(subject, case, mode)
        for subject, case, quantizes in quantized
        for mode in (modes if quantizes else (BF16,))
        if of(subject)
    ]
    layers = [pytest.param(layer, marks=_needs(layer), id=_name(layer)) for layer in chosen]
    return pytest.mark.parametrize("layer", layers)


def _needs(layer: Layer) -> list[Any]:
    recipe = [pytest.mark.recipe(layer.mode.recipe.name)] if layer.mode.recipe else []
    return [pytest.mark.subject(layer.subject.name, layer.case.name), *recipe]


def _name(layer: Layer) -> str:
    return f"{layer.subject.name}-{layer.mode.recipe.name if layer.mode.recipe else 'BF16'}"


def plain_step(layer: Layer, variables: Any, inputs: Any, grads: Any, around: Any = lambda function: function) -> Step:
    """`step`, to be traced anew; ``around`` transforms the forward pass."""
    with layer.entered():
        return passes(around(layer.apply), variables, inputs, grads)


def changed(arrays: Any, index: Any, value: Any) -> Any:
    """A tree of arrays of a step in which a part of each is set."""

    def change(array: Any) -> jax.Array:
        numbers = np.array(array)
        numbers[index] = value
        return on_device(numbers, array.dtype)

    return jax.tree.map(change, arrays)


def has_free_rows(subject: Subject) -> bool:
    """Whether no position sees another."""
    return has_rows(subject) and not subject.attends


def has_equal_examples(subject: Subject) -> bool:
    """Whether the examples of a batch may change places: nothing else is said of one of them."""
    return has_rows(subject) and "segments" not in subject.cases[0].arguments


def row_of(layer: Layer) -> tuple[int, ...]:
    """The index of what nothing else depends on: a position, or a whole example where positions see each other."""
    return (1,) if layer.subject.attends else (1, 3)


def others(arrays: Any, row: tuple[int, ...]) -> Any:
    """A tree of arrays without a row."""

    def left(array: Any) -> Any:
        kept = np.ones(array.shape[: len(row)], bool)
        kept[row] = False
        return np.asarray(array)[kept]

    return jax.tree.map(left, arrays)


# --- rows and batches ----------------------------------------------------------------------------------------------


@plainest_layers(BF16, DELAYED, of=has_rows)
def test_row_changes_no_other_row(layer: Layer) -> None:
    variables, inputs, grads, row = layer.variables(), layer.inputs(), layer.grads(), row_of(layer)
    before = step(layer, variables, inputs, grads)
    after = step(layer, variables, changed(inputs, row, 0.75), changed(grads, row, -0.5))
    assert not np.array_equal(before.y[0][row], after.y[0][row]), "Control: the row itself changes"
    for where, results in {"output": (after.y, before.y), "input gradient": (after.dx, before.dx)}.items():
        found, expected = (others(result, row) for result in results)
        assert_trees_equal(where=f"{where} of the other rows", actual=found, expected=expected)


@plainest_layers(BF16, DELAYED, CURRENT, of=has_equal_examples)
def test_order_of_the_batch_does_not_count(layer: Layer) -> None:
    variables, inputs, grads = layer.variables(), layer.inputs(), layer.grads()
    shuffled = step(layer, variables, *jax.tree.map(lambda array: array[::-1], (inputs, grads)))
    found = shuffled._replace(**jax.tree.map(lambda array: array[::-1], {"y": shuffled.y, "dx": shuffled.dx}))
    expected = step(layer, variables, inputs, grads)
    assert_trees_equal(where="rows", actual=[found.y, found.dx], expected=[expected.y, expected.dx])
    assert_gradients(layer, found.grads, expected.grads)


def assert_gradients(layer: Layer, found: Any, expected: Any) -> None:
    """Compare gradients of parameters, up to the order of their sums, and metadata exactly."""
    __tracebackhide__ = True
    params = [paths(dict(grads.get("params", {}))) for grads in (found, expected)]
    for path, wanted in params[1].items():
        tolerance = max(PARTIAL_SUMS, tolerance_of(layer, path))
        assert_close_norm(where=f"gradient of {path}", actual=params[0][path], expected=wanted, tolerance=tolerance)
    metadata = [grads.get(layer.collection, {}) for grads in (found, expected)]
    assert_trees_equal(where="metadata", actual=metadata[0], expected=metadata[1])


AXES: dict[str, Callable[[tuple[int, ...]], tuple[int, ...]]] = {
    "2-D": lambda shape: (shape[0] * shape[1], *shape[2:]),
    "4-D": lambda shape: (2, shape[0] // 2, *shape[1:]),
}


@pytest.mark.parametrize("axes", AXES)
@plainest_layers(DELAYED, of=has_free_rows)
def test_leading_axes_are_all_the_same(layer: Layer, axes: str) -> None:
    variables, inputs, grads = layer.variables(), layer.inputs(), layer.grads()
    expected = step(layer, variables, inputs, grads)
    found = step(layer, variables, *jax.tree.map(lambda array: array.reshape(AXES[axes](array.shape)), (inputs, grads)))
    rows = jax.tree.map(lambda array, like: array.reshape(like.shape), (found.y, found.dx), (expected.y, expected.dx))
    assert_trees_equal(where=axes, actual=rows, expected=(expected.y, expected.dx))
    assert_gradients(layer, found.grads, expected.grads)


@plainest_layers(BF16, of=has_free_rows)
def test_vector_is_a_batch_of_one_without_its_axes(layer: Layer) -> None:
    variables, inputs, grads = layer.variables(), layer.inputs(), layer.grads()
    whole = step(layer, variables, inputs, grads)
    found = step(layer, variables, *jax.tree.map(lambda array: array[1, 3], (inputs, grads)))
    expected = jax.tree.map(lambda array: array[1, 3], (whole.y, whole.dx))
    assert_trees_equal(where="vector", actual=(found.y, found.dx), expected=expected)


@plainest_layers(BF16, of=has_rows)
def test_parameters_count_in_the_dtype_of_the_input(layer: Layer) -> None:
    """What their last bits add to BF16 changes nothing."""
    variables, given = layer.variables(), (layer.inputs(), layer.grads())
    short = jax.tree.map(lambda leaf: on_device(on_device(leaf, "bfloat16"), leaf.dtype), variables)
    found, expected = step(layer, short, *given), step(layer, variables, *given)
    assert_trees_equal(where="rounded parameters", actual=[found.y, found.dx], expected=[expected.y, expected.dx])


# --- numbers that are special --------------------------------------------------------------------------------------


@plainest_layers(BF16, DELAYED, CURRENT)
def test_zeros_are_finite_and_a_zero_gradient_gives_zeros(layer: Layer) -> None:
    variables, inputs, grads = layer.variables(), layer.inputs(), layer.grads()
    zeros, no_grads = (jax.tree.map(np.zeros_like, given) for given in (inputs, grads))
    assert_finite(step(layer, variables, zeros, grads), where="zeros as input")
    still = step(layer, variables, inputs, no_grads)
    assert_finite(still, where="zeros as gradient")
    for where, found in {"input gradient": still.dx, "gradients": still.grads.get("params", {})}.items():
        assert_trees_equal(where=where, actual=found, expected=jax.tree.map(np.zeros_like, found))


def assert_finite(found: Step, *, where: str) -> None:
    """Results, gradients and metadata are numbers."""
    __tracebackhide__ = True
    for name, tree in found._asdict().items():
        for leaf in jax.tree.leaves(tree):
            assert np.isfinite(np.asarray(leaf, np.float64)).all(), f"{where}: {name} is not finite"


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=["nan", "infinity"])
@plainest_layers(BF16, DELAYED, CURRENT, of=has_rows)
def test_numbers_that_are_none_stay_visible(layer: Layer, value: float) -> None:
    """In the results, or, where float8 saturates, in the amaxes; and with scales of their own, rows stay alone."""
    variables, inputs, grads, row = layer.variables(), layer.inputs(), layer.grads(), row_of(layer)
    index = (1, 3, ..., 5)
    for where, given, of in (
        ("input", (changed(inputs, index, value), grads), lambda found: found.y),
        ("gradient", (inputs, changed(grads, index, value)), lambda found: found.dx),
    ):
        found = step(layer, variables, *given)
        seen = [of(found), found.grads.get(layer.collection, {})]
        visible = any(not np.isfinite(np.asarray(leaf, np.float64)).all() for leaf in jax.tree.leaves(seen))
        saturates = layer.mode == CURRENT and np.isinf(value)
        assert visible or saturates, f"{value} in the {where} is seen nowhere"
        if layer.mode != CURRENT:
            assert_finite(found._replace(y=others(found.y, row), dx=others(found.dx, row), grads={}), where=where)


# --- transformations -----------------------------------------------------------------------------------------------


@functools.cache
def ensemble(layer: Layer) -> tuple[Any, tuple[Step, ...]]:
    """Variables, inputs and gradients of two layers, stacked, and the step of each. Their metadata differ."""
    members = []
    for seed in (1, 2):
        first = layer.variables(seed), layer.inputs(seed), layer.grads(seed)
        members.append((next_variables(layer, first[0], step(layer, *first).grads), *first[1:]))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *members), tuple(step(layer, *given) for given in members)


def _scanned(layer: Layer, given: Any) -> Any:
    return jax.lax.scan(lambda _, one: (None, plain_step(layer, *one)), None, given)[1]


def _mapped(layer: Layer, given: Any) -> Any:
    return jax.vmap(functools.partial(plain_step, layer))(*given)


STACKED = [
    pytest.param(_scanned, id="scan"),
    # TE's custom calls have no batching rule (docs/explanation/te-findings.md), its JAX path does.
    pytest.param(_mapped, id="vmap", marks=pytest.mark.host),
]


@pytest.mark.parametrize("transformation", STACKED)
@plainest_layers(DELAYED)
def test_layers_of_a_stack_equal_layers_alone(layer: Layer, transformation: Callable[[Layer, Any], Any]) -> None:
    given, alone = ensemble(layer)
    found = jax.jit(functools.partial(transformation, layer))(given)
    for number, expected in enumerate(alone):
        one = jax.tree.map(lambda leaf, number=number: leaf[number], found)
        assert_steps(layer, one, expected, where=f"layer {number}")


def assert_steps(layer: Layer, found: Step, expected: Step, *, where: str) -> None:
    """Compare outputs exactly, and gradients up to the order of their sums."""
    __tracebackhide__ = True
    assert_trees_equal(where=where, actual=found.y, expected=expected.y)
    assert_trees_close_norm(where=where, actual=found.dx, expected=expected.dx, tolerance=ONE_ROUNDING)
    assert_gradients(layer, found.grads, expected.grads)


ONE_ROUNDING = 2.0**-14
"""Largest relative norm of a difference in gradients that are summed in another order: a number among thousands is
rounded to its neighbour."""


# Gradients of kernels are in BF16, a known defect: JAX 0.5 warns that kernels in float32 are donated for nothing.
@pytest.mark.filterwarnings("ignore:Some donated buffers were not usable:UserWarning")
@plainest_layers(DELAYED)
def test_checkpointed_and_donated_step_equals_a_plain_one(layer: Layer) -> None:
    variables, inputs, grads = layer.variables(), layer.inputs(), layer.grads()
    expected = step(layer, variables, inputs, grads)
    run = jax.jit(functools.partial(plain_step, layer, around=jax.checkpoint), donate_argnums=0)
    assert_steps(layer, run(jax.tree.map(jnp.copy, variables), inputs, grads), expected, where="checkpointed")


@plainest_layers(DELAYED)
def test_output_without_jit_equals_that_with(layer: Layer) -> None:
    variables, inputs = layer.variables(), layer.inputs()
    with layer.entered():
        found = layer.apply(variables, inputs)
    assert_trees_equal(where="without jit", actual=found, expected=step(layer, variables, inputs, layer.grads()).y)


# --- dtypes --------------------------------------------------------------------------------------------------------


class _Unrounded(Arithmetic):
    """Parameters of the dtype of the input: as they are, or in float16."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype

    def parameter(self, values: jax.Array) -> jax.Array:
        """Round to the dtype."""
        return values.astype(self.dtype).astype(jnp.float64)


@pytest.mark.host
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2.0**-18), ("float16", 2.0**-7)])
@plainest_layers(BF16, of=lambda subject: has_rows(subject) and subject.recipe_from is not RecipeFrom.CONSTRUCTION)
def test_layer_computes_in_the_dtype_of_its_input(layer: Layer, dtype: str, tolerance: float) -> None:
    """On a CPU: a GPU's default precision for float32 products is TF32."""
    variables, inputs = layer.variables(), layer.inputs(dtype=dtype)
    grads = tuple(on_device(grad, dtype) for grad in layer.grads())
    found = step(layer, variables, inputs, grads)
    dtypes = {str(leaf.dtype) for leaf in jax.tree.leaves((found.y, found.dx))}
    assert dtypes == {dtype}, f"dtypes of results={dtypes}, but should be {dtype}"
    reference = layer.reference
    exact = arithmetic.exact(
        lambda _, params, inputs: reference(_Unrounded(dtype), params, inputs), variables["params"], inputs, grads
    )
    assert_step(found, exact, where=dtype, tolerance_of=lambda _: tolerance)
