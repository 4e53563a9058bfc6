"""Claim: each layer has the variables that are documented: names, shapes, dtypes, names of axes, and first values.

Promised by the docstrings of TE's layers, which name the defaults of initializers and axes. Checkpoints and plans of
how a model is divided over devices refer to these names and shapes.

What a failure means for an upgrade: a checkpoint does not load, parameters are kept whole on every device, or a new
model begins elsewhere.
"""

import functools
import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest
from flax import linen as nn
from flax.core import meta

from mnist_fp8 import te
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.oracle.dense import TENSORS
from mnist_fp8.subjects import find_subject
from mnist_fp8.subjects.layer import OVERWRITE, Layer, number_of
from mnist_fp8.subjects.making import name_of_te
from mnist_fp8.subjects.subject import Case, Parameter, Subject
from mnist_fp8.te.dense_step import BF16
from support.assertions import assert_same_structure, assert_trees_equal
from support.layers import DELAYED, blockwise, cases, paths, plainest, quantized_cases, recipes

CUT = 1 / 0.8796256610342398
"""The deviation of a normal distribution that is cut at two of its deviations, as variance scaling does, has to be that
much larger to be one after the cut."""


@functools.partial(jax.jit, static_argnums=0)
def first_parameters(layer: Layer, inputs: Any) -> Any:
    """The parameters of an initialisation."""
    return te.unbox(layer.init(inputs)).get("params", {})


# --- names, shapes, dtypes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [BF16, DELAYED], ids=["bf16", "delayed"])
@pytest.mark.parametrize(("subject", "case"), cases())
def test_variables_have_their_names_shapes_and_dtypes(subject: Subject, case: Case, mode: te.Autocast) -> None:
    layer = Layer(subject, case, mode)
    found = {name: paths(tree) for name, tree in layer.shapes.items()}
    parameters = {path: (parameter.shape, "float32") for path, parameter in subject.parameters(case).items()}
    expected = {"params": parameters, **(_metadata(layer) if mode == DELAYED else {})}
    where = f"{subject.name} {case.name}"
    assert found.keys() | {"params"} == expected.keys(), f"{where}: collections={list(found)}, not {list(expected)}"
    for collection, wanted in expected.items():
        assert_same_structure(where=f"{where}: {collection}", actual=found.get(collection, {}), expected=wanted)


def _metadata(layer: Layer) -> dict[str, dict[str, tuple[tuple[int, ...], str]]]:
    """A scale and a history of four for each tensor of each product."""
    leaves: dict[str, tuple[tuple[int, ...], str]] = {}
    for product in layer.products:
        for tensor in TENSORS:
            for leaf, size in ((te.scale_leaf, 1), (te.history_leaf, 4)):
                leaves["/".join((*product.module, leaf(tensor, number_of(product, tensor))))] = ((size,), "float32")
    return {layer.collection: leaves} if leaves else {}


# --- names of axes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("subject", "case"), cases(lambda subject, _: subject.has_parameters))
def test_axes_have_the_documented_names(subject: Subject, case: Case) -> None:
    boxes = paths(Layer(subject, case, DELAYED).boxed_shapes.get("params", {}), is_leaf=_is_box)
    found = {path: box.names if _is_box(box) else None for path, box in boxes.items()}
    expected = {path: parameter.axes for path, parameter in subject.parameters(case).items()}
    assert found == expected, f"{subject.name} {case.name}: names of axes={found}, but should be {expected}"


def _is_box(value: object) -> bool:
    return isinstance(value, meta.AxisMetadata)


# --- first values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subject", "case"), cases(lambda _, case: case.name in {"plain", "realistic"} or not case.fields)
)
def test_first_parameters_are_distributed_as_documented(subject: Subject, case: Case) -> None:
    layer = Layer(subject, case, BF16)
    found = paths(first_parameters(layer, layer.inputs()))
    stated = {path: one for path, one in subject.parameters(case).items() if one.deviation is not None}
    for path, parameter in stated.items():
        assert_distributed(np.asarray(found[path], np.float64), parameter, where=f"{subject.name} {case.name} {path}")


@pytest.mark.parametrize(("subject", "case"), cases(lambda _, case: "around one" in case.name or "bias" in case.name))
def test_first_scales_and_biases_are_as_documented(subject: Subject, case: Case) -> None:
    """Of a scale around one as well, which begins at zero."""
    test_first_parameters_are_distributed_as_documented(subject, case)


def assert_distributed(values: Any, parameter: Parameter, *, where: str) -> None:
    """Mean, deviation and where the distribution is cut, each within five standard errors."""
    __tracebackhide__ = True
    deviation, size = parameter.deviation or 0.0, values.size
    error = 5 * deviation / size**0.5
    mean, spread, largest = values.mean(), values.std(), np.abs(values - parameter.mean).max()
    assert abs(mean - parameter.mean) <= error, f"{where}: mean={mean:.4g}, but should be {parameter.mean}"
    assert abs(spread - deviation) <= error, f"{where}: deviation={spread:.4g}, but should be {deviation:.4g}"
    cut = 2 * CUT * deviation * (1 + 1e-5)
    assert largest <= cut, f"{where}: {largest:.4g} from the mean, but the distribution ends at {cut:.4g}"


class OfItsOwn(nn.Module):
    """Multiplies by a kernel of its own, by a product that it gives no name."""

    @nn.compact
    def __call__(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """Multiply them."""
        product = name_of_te("flax", "make_dot_general_cls")(te.make_recipe(RecipeConfig()))()
        y: jax.Array = product(x, kernel, (((1,), (0,)), ((), ())))
        return y


@pytest.mark.te_name("flax", "make_dot_general_cls")
@pytest.mark.recipe("DelayedScaling")
def test_metadata_of_a_product_without_a_name_lie_where_checkpoints_have_them() -> None:
    shapes = jax.eval_shape(OfItsOwn().init, jax.random.key(0), *2 * [jnp.ones((32, 32), jnp.bfloat16)])
    found = {path.rpartition("/")[0] for path in paths(shapes[OVERWRITE])}
    assert found == {"TEWrapper_dot_general_0"}, f"metadata are of {found}"


WIDTH, HEADS, SIZE = 256, 4, 64
FORMS: dict[str, tuple[dict[str, Any], bool]] = {
    "one product": ({}, False),
    "two products": ({}, True),
    "three products": ({"fuse_qkv_params": False}, False),
}
"""How attention's projections are stored: with which fields, and whether it is asked for what another layer encoded."""


@pytest.mark.subject("MultiHeadAttention", "asks itself")
@pytest.mark.parametrize("scaled", [None, True, False], ids=["by default", "scaled queries", "queries as the others"])
@pytest.mark.parametrize("form", FORMS)
def test_first_kernel_of_queries_is_smaller_than_the_others_by_the_root_of_the_head(
    form: str, *, scaled: bool | None
) -> None:
    fields, encoded = FORMS[form]
    asked = {} if scaled is None else {"scaled_query_init": scaled}
    shape = (2, 16, WIDTH)
    inputs = {"x": shape, "encoded": shape} if encoded else {"x": shape}
    case = Case(form, {"head_dim": SIZE, "num_attention_heads": HEADS, **fields, **asked}, inputs)
    layer = Layer(find_subject("MultiHeadAttention"), case, BF16)
    kernels = _kernels_by_product(paths(first_parameters(layer, layer.inputs())))
    assert kernels.keys() == {"query", "key", "value", "out"}
    for product, kernel in kernels.items():
        smaller = SIZE**-0.5 if product == "query" and scaled is not False else 1.0
        expected, deviation = smaller * WIDTH**-0.5, kernel.std()
        error = 5 * expected / (2 * kernel.size) ** 0.5
        assert abs(deviation - expected) <= error, (
            f"{form}: {product} kernel {deviation=:.4g}, but should be {expected}"
        )


@pytest.mark.subject("MultiHeadAttention", "asks itself")
@pytest.mark.parametrize("form", FORMS)
def test_first_kernels_of_attention_are_drawn_each_on_its_own(form: str) -> None:
    fields, encoded = FORMS[form]
    inputs = dict.fromkeys(("x", "encoded") if encoded else ("x",), (2, 16, WIDTH))
    case = Case(form, {"head_dim": SIZE, "num_attention_heads": HEADS, **fields}, inputs)
    layer = Layer(find_subject("MultiHeadAttention"), case, BF16)
    kernels = _kernels_by_product(paths(first_parameters(layer, layer.inputs())))
    for one, other in itertools.combinations(kernels, 2):
        alike = np.corrcoef(kernels[one].ravel(), kernels[other].ravel())[0, 1]
        assert abs(alike) <= 5 / WIDTH, f"{form}: kernels of {one} and {other} have a correlation of {alike:.2f}"


def _kernels_by_product(params: Mapping[str, Any]) -> dict[str, npt.NDArray[np.float64]]:
    """The kernels of attention by what they give; a joined one has its products along its middle axis."""
    names = {"qkv": ("query", "key", "value"), "kv": ("key", "value")}
    found: dict[str, npt.NDArray[np.float64]] = {}
    for path, kernel in params.items():
        name = path.partition("/")[0]
        if path == f"{name}/kernel":
            parts = np.moveaxis(np.asarray(kernel, np.float64), -2, 0) if name in names else [np.asarray(kernel)]
            found |= dict(zip(names.get(name, (name,)), parts, strict=True))
    return found


@pytest.mark.parametrize("mode", [*recipes.args[1], *blockwise.args[1]])
@pytest.mark.parametrize(("subject", "case"), quantized_cases(plainest))
def test_recipe_changes_no_first_parameter(subject: Subject, case: Case, mode: te.Autocast) -> None:
    inputs = Layer(subject, case).inputs()
    found, expected = (first_parameters(Layer(subject, case, which), inputs) for which in (mode, BF16))
    assert_trees_equal(where=f"{subject.name} in {mode}", actual=found, expected=expected)
