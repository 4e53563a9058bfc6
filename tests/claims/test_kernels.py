"""Claim: on a GPU, every dense layer's products run as FP8 kernels, forward and backward.

With delayed and with current scaling, the recipes of Hopper. Promised by TE's user guide: under autocast, matrix
products use FP8 tensor cores. It is shown at three levels, each of which can fail where the one before does not: the
operands in the jaxpr that TE writes; the custom call in the compiled program and the operands it takes (TE's own
GEMM, and XLA's call of cuBLASLt where TE's custom calls are disabled); and the kernel that ran, from a trace of the
device. What is cast to FP8 and multiplied in 16 bits passes none of them.

What a failure means for an upgrade: FP8 is configured and reported, but the products run in 16 bits, or not by TE's
kernels; training works and the speed is gone.
"""

import contextlib
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_fp8.core.modes import Precision, RecipeConfig
from mnist_fp8.programs import hlo, jaxprs, kernels
from mnist_fp8.te.dense_step import dense_step
from mnist_fp8.te.host import StandInModule
from mnist_fp8.training import train
from mnist_fp8.training.config import TrainConfig
from support.kernels import (
    CUBLAS,
    FACTORS,
    NO_GRAPHS,
    RECIPES,
    arguments,
    formats,
    one_pass,
    tensors,
    without_custom_calls,
)
from support.programs import compiled_text

pytestmark = pytest.mark.gpu

FP8_RECIPES = [name for name in RECIPES if name != "bf16"]
TARGETS = {"te": "te_gemm", "xla": "__cublas$lt$matmul$f8"}
"""Custom call of each way to compute a product: TE's, and XLA's where TE's are disabled."""
SHAPE = (64, 128, 32)


def assert_operands(found: Iterable[tuple[str, str] | None], expected: Iterable[str], *, where: str) -> None:
    """Compare the dtypes that products multiply; cuBLAS may exchange the two matrices of a product.

    Args:
        found: the operands of each product; ``None`` where they are not known.
        expected: dtypes of the two operands of the one product that there should be.
        where: what is looked at.
    """
    __tracebackhide__ = True
    shown = [" by ".join(sorted(operands)) if operands else "unknown" for operands in found]
    wanted = [" by ".join(sorted(expected))]
    assert shown == wanted, f"{where}: products={shown}, but should be {wanted}"


def compiled(path: str, recipe: str, which: str) -> tuple[Any, Any]:
    """One of a layer's three products, compiled for one of `TARGETS`, and its arguments."""
    function, given = one_pass(recipe, tensors(SHAPE), which)
    with contextlib.nullcontext() if path == "te" else without_custom_calls():
        return jax.jit(function).lower(*given).compile(compiler_options=CUBLAS | NO_GRAPHS), given


def gemms_of(program: Any, target: str) -> list[tuple[str, str]]:
    """Operands of the products of a compiled program that one kind of custom call computes."""
    found = hlo.compiled_gemms(compiled_text(program)).values()
    return [(gemm.lhs, gemm.rhs) for gemm in found if gemm.primitive.startswith(target)]


def gemms_run(program: Any, given: Any) -> list[tuple[str, str] | None]:
    """Operands of the matrix products that a compiled program really ran on the device."""
    return [kernels.operands(kernel.name) for kernel in kernels.trace(program, *given) if kernels.is_gemm(kernel.name)]


# --- a dense layer -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES)
def test_jaxpr_multiplies_the_formats_of_the_recipe(recipe: str) -> None:
    layer, mode, *given = arguments(recipe, tensors(SHAPE))
    program = jax.make_jaxpr(lambda *traced: dense_step(layer, mode, *traced))(*given)
    found = Counter((gemm.backward, *sorted((gemm.lhs, gemm.rhs))) for gemm in jaxprs.gemms(program))
    expected = Counter((which != "forward", *sorted(formats(recipe, which))) for which in FACTORS)
    assert found == expected, f"{recipe}: products in the jaxpr={dict(found)}, but should be {dict(expected)}"


@pytest.mark.parametrize("which", FACTORS)
@pytest.mark.parametrize("recipe", FP8_RECIPES)
@pytest.mark.parametrize("path", TARGETS)
def test_compiled_program_multiplies_float8(path: str, recipe: str, which: str) -> None:
    program, _ = compiled(path, recipe, which)
    where = f"{recipe}, {which}, by {TARGETS[path]}: compiled program"
    assert_operands(gemms_of(program, TARGETS[path]), formats(recipe, which), where=where)


@pytest.mark.profiler
@pytest.mark.parametrize("which", FACTORS)
@pytest.mark.parametrize("recipe", FP8_RECIPES)
@pytest.mark.parametrize("path", TARGETS)
def test_kernel_that_runs_multiplies_float8(path: str, recipe: str, which: str) -> None:
    program, given = compiled(path, recipe, which)
    where = f"{recipe}, {which}, by {TARGETS[path]}: kernels that ran"
    assert_operands(gemms_run(program, given), formats(recipe, which), where=where)


@pytest.mark.profiler
@pytest.mark.parametrize("which", FACTORS)
def test_outside_autocast_compiled_program_and_kernel_multiply_bf16(which: str) -> None:
    # Control: both levels tell 16 bits from 8.
    program, given = compiled("te", "bf16", which)
    assert_operands(gemms_of(program, TARGETS["te"]), formats("bf16", which), where=f"{which}: compiled program")
    assert_operands(gemms_run(program, given), formats("bf16", which), where=f"{which}: kernels that ran")


@pytest.mark.profiler
@pytest.mark.parametrize("which", FACTORS)
def test_casts_to_float8_around_a_16_bit_product_are_seen(which: str) -> None:
    # Control: numbers that FP8 has, even from a cast in the program itself, make no FP8 product.
    function, given = one_pass("bf16", tensors(SHAPE), which)

    def cast(variables: Any, *others: jax.Array) -> jax.Array:
        variables, others = jax.tree.map(
            lambda array: jax.lax.optimization_barrier(array.astype(jnp.float8_e4m3fn)).astype(array.dtype),
            (variables, others),
        )
        return function(variables, *others)

    program = jax.jit(cast).lower(*given).compile(compiler_options=CUBLAS | NO_GRAPHS)
    assert hlo.quantized_types(compiled_text(program)), "Control: there is a cast to float8"
    expected = formats("delayed", which)
    with pytest.raises(AssertionError, match=r"products=.*bfloat16 by bfloat16"):
        assert_operands(gemms_of(program, TARGETS["te"]), expected, where="compiled program")
    with pytest.raises(AssertionError, match=r"products=.*bfloat16 by bfloat16"):
        assert_operands(gemms_run(program, given), expected, where="kernels that ran")


@pytest.mark.parametrize("recipe", RECIPES)
def test_compiled_program_quantizes_with_te_kernels(recipe: str) -> None:
    layer, mode, *given = arguments(recipe, tensors(SHAPE))
    calls = hlo.custom_calls(compiled_text(dense_step.lower(layer, mode, *given).compile()))
    found = sum(count for name, count in calls.items() if name.startswith("te_") and "quantize" in name)
    expected = 0 if recipe == "bf16" else 3
    assert found == expected, f"{recipe}: TE quantize custom calls={found}, but should be {expected}: {dict(calls)}"


@pytest.mark.parametrize("recipe", RECIPES)
def test_disabled_custom_calls_leave_none(recipe: str) -> None:
    # Control.
    layer, mode, *given = arguments(recipe, tensors(SHAPE))
    with without_custom_calls():
        calls = hlo.custom_calls(compiled_text(dense_step.lower(layer, mode, *given).compile(compiler_options=CUBLAS)))
    assert not [name for name in calls if name.startswith("te_")], f"{recipe}: custom calls={dict(calls)}"


# --- the network ---------------------------------------------------------------------------------------------------


@pytest.mark.profiler
@pytest.mark.parametrize("recipe", ["DelayedScaling", "Float8CurrentScaling"])
def test_every_dense_layer_of_the_network_runs_fp8_kernels(recipe: str) -> None:
    """A whole training step: three layers of three products each, and the one kernel that each of them started."""
    config = TrainConfig(precision=Precision.TE_FP8, recipe=RecipeConfig(recipe))
    state, metadata = train.create_train_state(config)
    images, labels = np.zeros((64, 28, 28, 1), np.float32), np.zeros(64, np.int32)
    given = (state, metadata, images, labels, jax.random.key(0))
    program = train.train_step.lower(*given).compile(compiler_options=NO_GRAPHS)
    asked = {
        name: gemm
        for name, gemm in hlo.compiled_gemms(compiled_text(program)).items()
        if gemm.primitive.startswith("te_gemm")
    }
    ran = [kernel for kernel in kernels.trace(program, *given) if kernels.is_gemm(kernel.name)]
    for layer in ("dense1", "dense2", "dense3"):
        own = {name: gemm for name, gemm in asked.items() if gemm.layer.endswith(f"/{layer}")}
        expected = Counter((which != "forward", *sorted(formats("delayed", which))) for which in FACTORS)
        found = Counter((gemm.backward, *sorted((gemm.lhs, gemm.rhs))) for gemm in own.values())
        assert found == expected, f"{recipe}, {layer}: custom calls={dict(found)}, but should be {dict(expected)}"
        for name, gemm in own.items():
            started = [kernel.name for kernel in ran if kernel.operation == name]
            where = f"{recipe}, {layer}, {name}: kernels {started}"
            assert_operands(map(kernels.operands, started), (gemm.lhs, gemm.rhs), where=where)


def test_kernel_run_uses_the_extension() -> None:
    """The module in place is the compiled one, not the host run's stand-in."""
    module = sys.modules["transformer_engine_jax"]
    assert not isinstance(module, StandInModule), "transformer_engine_jax is the host run's stand-in"
    assert str(module.__file__).endswith(".so"), f"transformer_engine_jax is {module.__file__}, but should be compiled"
