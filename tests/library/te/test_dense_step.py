"""Layers on tensors that a claim chooses; tensors that no mode rounds; and the search in a program's equations."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.oracle import dense
from mnist_fp8.oracle.dense import FP8_MAX
from mnist_fp8.oracle.tolerances import exact_tolerance
from mnist_fp8.te.dense_step import exact, on_device
from support.assertions import assert_close, assert_equal
from support.programs import equations

AMAXES = [1.75, 3.5, 7.0]


@pytest.mark.parametrize("amax", AMAXES)
@pytest.mark.parametrize("dtype", FP8_MAX)
def test_exact_tensor_is_not_rounded_by_quantization(dtype: str, amax: float) -> None:
    values = exact((16, 32), 1, amax)
    scale = dense.current_scale(values, dtype)
    assert scale == FP8_MAX[dtype] / amax, f"scale={scale}"
    assert np.log2(scale) == int(np.log2(scale)), f"scale={scale} is no power of two"
    codes = dense.quantize(values, float(scale), dtype)
    assert_equal(where="codes divided by the scale", actual=codes / float(scale), expected=values)
    assert_equal(where="BF16", actual=values.astype(ml_dtypes.bfloat16), expected=values)


def test_exact_tensor_has_its_amax_in_one_place() -> None:
    """So that who sees only a part of it takes another amax."""
    values = np.abs(exact((16, 32), 1, 3.5))
    assert np.argwhere(values == 3.5).tolist() == [[0, 0]]
    assert values.flat[1:].max() < 3.5


@pytest.mark.parametrize("kind", RunKind)
def test_exact_tolerance_rejects_the_smallest_error(kind: RunKind) -> None:
    """The product's elements are multiples of an eighth."""
    product = exact((16, 32), 1) @ exact((32, 16), 2, 3.5)
    assert_equal(where="eighths", actual=product * 8, expected=np.round(product * 8))
    wrong = product.copy()
    wrong[3, 5] += 0.125
    tolerance = exact_tolerance(product, kind)
    with pytest.raises(AssertionError, match="1 of 256 elements are wrong"):
        assert_close(where="product", actual=wrong, expected=product, tolerance=tolerance)
    assert_close(where="product", actual=product, expected=product, tolerance=tolerance)


def test_numbers_become_an_array_without_a_compiled_program(caplog: pytest.LogCaptureFixture) -> None:
    """Rounded as JAX rounds them; and a copy, so that the numbers can be changed afterwards."""
    numbers = np.random.default_rng(0).normal(0, 1, (3, 13, 7))
    with jax.log_compiles():
        found = on_device(numbers, "bfloat16")
        assert not caplog.records, f"compiled: {caplog.messages}"
        expected = np.asarray(jnp.asarray(numbers, jnp.bfloat16))
        assert caplog.records, "Control: JAX should compile a program"
    numbers[:] = 0
    assert found.dtype == jnp.bfloat16
    assert_equal(where="numbers in BF16", actual=found, expected=expected)


def test_equations_are_found_inside_others() -> None:
    def inside(x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda carry, _: (jnp.sin(carry), None), x, None, length=2)[0]

    jaxpr = jax.make_jaxpr(jax.jit(inside))(1.0)
    assert [e.primitive.name for e in equations(jaxpr, "sin")] == ["sin"]
    assert not list(equations(jaxpr, "cos"))
    assert {e.primitive.name for e in equations(jaxpr, "s")} == {"scan", "sin"}, "names are taken by their beginning"
