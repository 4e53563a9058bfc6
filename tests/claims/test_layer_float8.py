"""Claim: under a recipe each layer multiplies float8 operands in just those products that are said to be quantized.

Promised by TE's user guide for every layer that takes part in autocast, and by the docstrings of those that take their
recipe when they are made. Each product is there once in every direction: forward E4M3 by E4M3, backward E4M3 by E5M2
for the gradient of its input and for that of its kernel. What a layer leaves in the dtype of its input by design stays
there, and outside of autocast nothing is quantized.

What a failure means for an upgrade: a part of a model runs in BF16 unnoticed, or is quantized that never was.
"""

import functools
from collections import Counter
from typing import Any

import jax
import pytest

from mnist_fp8 import te
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.oracle.dense import FORMATS, formats_of
from mnist_fp8.programs import hlo, jaxprs
from mnist_fp8.subjects.layer import Layer, Step, step
from mnist_fp8.subjects.subject import Case, RecipeFrom, Subject
from mnist_fp8.te.dense_step import BF16, fp8
from support.assertions import assert_trees_equal
from support.layers import CURRENT, DELAYED, blockwise, cases, passes, plainest, quantized_cases, recipes, recorded
from support.programs import compiled_text, equations

Products = Counter[tuple[str, ...]]
"""How often there is a product, by its direction and its operands' dtypes. Left and right are not told apart."""


def program_of(layer: Layer, around: te.Autocast | None = None) -> Any:
    """The jaxpr of a step; inside of another autocast if there is one."""
    given = layer.variables(), layer.inputs(), layer.grads()
    if around is None:
        return jax.make_jaxpr(functools.partial(step, layer))(*given)
    return jax.make_jaxpr(functools.partial(step_inside, layer, around))(*given)


def step_inside(layer: Layer, around: te.Autocast, variables: Any, inputs: Any, grads: Any) -> Step:
    """`step`, in another autocast than the layer's own."""
    with around():
        return passes(layer.apply, variables, inputs, grads)


def products_of(gemms: Any) -> Products:
    """Count products."""
    return Counter((_direction(gemm.backward), *sorted((gemm.lhs, gemm.rhs))) for gemm in gemms)


def _direction(backward: bool) -> str:  # noqa: FBT001
    return "backward" if backward else "forward"


def expected_products(layer: Layer, program: Any) -> Products:
    """What there must be: one product forward and two backward each. Both of an attention are in one of its kernels."""
    formats = formats_of(layer.mode.recipe or RecipeConfig())
    quantized = len(layer.products) if layer.quantizes else 0
    fused = len(list(equations(program, "te_fused_attn_forward")))
    plain = layer.subject.plain(layer.case) - 2 * fused + len(layer.products) - quantized
    expected: Products = Counter()
    for count, forward, backward in (
        (quantized, (formats["x"], formats["kernel"]), sorted((formats["kernel"], formats["grad"]))),
        (plain, ("bfloat16", "bfloat16"), ("bfloat16", "bfloat16")),
    ):
        expected["forward", *forward] += count
        expected["backward", *backward] += 2 * count
    # An embedding is looked up by a product, whose other factor, of zeros and ones, has no gradient; inside a layer,
    # releases before 2.1 do it in the dtype of that layer.
    lookups = sum(path.endswith("embedding") for path in layer.subject.parameters(layer.case))
    dtype = "bfloat16" if layer.case.inputs and te.dense_dialect().computes_in_dtype else "float32"
    for direction in ("forward", "backward"):
        expected[direction, dtype, dtype] += lookups
    return +expected


def assert_products(found: Products, expected: Products, *, where: str) -> None:
    """Compare products; all of both sides are shown."""
    __tracebackhide__ = True
    assert found == expected, f"{where}: products={dict(found)}, but should be {dict(expected)}"


def assert_its_products(layer: Layer, program: Any, *, where: str) -> None:
    """Compare the products of a layer's step with those that there must be."""
    __tracebackhide__ = True
    assert_products(products_of(gemms_of(program)), expected_products(layer, program), where=where)


def gemms_of(program: Any) -> Any:
    """The products of a jaxpr, whatever way the release writes those of float8."""
    return jaxprs.gemms(program, dequantized=te.leaves_float8_to_xla())


# --- under a recipe ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("subject", "case"), quantized_cases())
def test_just_the_documented_products_take_float8(subject: Subject, case: Case) -> None:
    layer = Layer(subject, case, DELAYED)
    assert_its_products(layer, program_of(layer), where=f"{subject.name} {case.name}")


@recipes
@pytest.mark.parametrize(("subject", "case"), quantized_cases(plainest))
def test_formats_are_those_of_the_recipe(subject: Subject, case: Case, mode: te.Autocast) -> None:
    """Current scaling as well as delayed, and the format that has E4M3 in both directions."""
    assert mode.recipe is not None
    for fp8_format in FORMATS:
        layer = Layer(subject, case, fp8(mode.recipe.name, fp8_format=fp8_format))
        where = f"{subject.name} {mode.recipe.name} {fp8_format}"
        assert_its_products(layer, program_of(layer), where=where)


@blockwise
@pytest.mark.parametrize(("subject", "case"), quantized_cases(plainest))
def test_block_scaled_recipe_has_its_formats(subject: Subject, case: Case, mode: te.Autocast) -> None:
    layer = Layer(subject, case, mode)
    assert_its_products(layer, program_of(layer), where=f"{subject.name} {case.name}")


@pytest.mark.recipe("NVFP4BlockScaling")
@pytest.mark.parametrize(("subject", "case"), quantized_cases(recorded))
def test_nvfp4_as_it_comes_has_its_formats(subject: Subject, case: Case) -> None:
    """With square blocks of kernels, a rotation and draws, which the numbers of a layer are judged without.

    A rotation is a product as well.
    """
    layer = Layer(subject, case, fp8("NVFP4BlockScaling"))
    program = program_of(layer)
    found, expected = (
        Counter({name: count for name, count in products.items() if "float4_e2m1fn" in name})
        for products in (products_of(gemms_of(program)), expected_products(layer, program))
    )
    assert_products(found, expected, where=f"{subject.name} {case.name}")


@pytest.mark.host
@pytest.mark.parametrize(("subject", "case"), quantized_cases(plainest))
def test_compiled_program_holds_both_formats_under_a_recipe_and_none_outside(subject: Subject, case: Case) -> None:
    """A CPU has no product of float8: what counts is that no optimization leaves the quantization out."""
    for mode, expected in ((DELAYED, ["f8e4m3fn", "f8e5m2"]), (BF16, [])):
        layer = Layer(subject, case, mode)
        program = step.lower(layer, layer.variables(), layer.inputs(), layer.grads()).compile()
        found = hlo.quantized_types(compiled_text(program))
        assert found == expected, f"{subject.name} in {mode}: quantized types={found}, but should be {expected}"


@pytest.mark.gpu
@recipes
@pytest.mark.parametrize(("subject", "case"), quantized_cases())
def test_custom_calls_of_the_compiled_program_take_float8(subject: Subject, case: Case, mode: te.Autocast) -> None:
    layer = Layer(subject, case, mode)
    compiled = step.lower(layer, layer.variables(), layer.inputs(), layer.grads()).compile()
    called = [
        gemm
        for gemm in hlo.compiled_gemms(compiled_text(compiled)).values()
        if gemm.primitive.startswith("te_gemm") and gemm.quantized
    ]
    products = expected_products(layer, program_of(layer))
    expected = {key: count for key, count in products.items() if not {"bfloat16", "float32"} & set(key)}
    assert_products(products_of(called), Counter(expected), where=f"{subject.name} {case.name}: custom calls")


# --- outside of autocast -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("subject", "case"), cases(plainest))
def test_nothing_is_quantized_outside_autocast(subject: Subject, case: Case) -> None:
    layer = Layer(subject, case, BF16)
    program = program_of(layer)
    found = jaxprs.quantized_dtypes(program)
    assert not found, f"{subject.name}: quantized dtypes={sorted(found)}, but should be none"
    assert_its_products(layer, program, where=subject.name)


# --- recipes given at construction ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subject", "case"),
    quantized_cases(lambda subject, case: plainest(subject, case) and subject.recipe_from is RecipeFrom.CONSTRUCTION),
)
def test_recipe_of_the_construction_counts_and_not_that_of_an_autocast_around_it(subject: Subject, case: Case) -> None:
    layer = Layer(subject, case, DELAYED)
    where = f"{subject.name} made for delayed scaling, in an autocast of current scaling"
    assert_its_products(layer, program_of(layer, CURRENT), where=where)
    given = layer.variables(), layer.inputs(), layer.grads()
    found = jax.jit(step_inside, static_argnums=(0, 1))(layer, CURRENT, *given)
    assert_trees_equal(where=where, actual=found._asdict(), expected=step(layer, *given)._asdict())
