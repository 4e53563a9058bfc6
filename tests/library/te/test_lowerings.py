"""Tests of the lowerings that a CPU lacks for block-scaled recipes: each is exactly what is defined."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from mnist_fp8.te import lowerings
from support.subprocesses import run_code

pytestmark = pytest.mark.host
E4M3, E5M2, E2M1 = jnp.float8_e4m3fn, jnp.float8_e5m2, jnp.float4_e2m1fn


@pytest.fixture(autouse=True, scope="module")
def _provided() -> None:
    lowerings.provide()


def operand(dtype: jnp.dtype, scale_dtype: jnp.dtype, rows: int, block: int, seed: int) -> tuple[jax.Array, jax.Array]:
    """Codes (1, rows, 96) and scales that are powers of two, of which both formats of scales have these."""
    drawn = np.random.default_rng(seed)
    codes = jnp.asarray(drawn.normal(0, 2, (1, rows, 96)).clip(-6, 6), dtype)
    return codes, jnp.asarray(2.0 ** drawn.integers(-3, 4, (1, rows, 96 // block)), scale_dtype)


def dequantized(codes: jax.Array, scales: jax.Array) -> np.ndarray:
    """In float64."""
    repeated = np.repeat(np.asarray(scales, np.float64), codes.shape[-1] // scales.shape[-1], axis=-1)
    return np.asarray(np.asarray(codes, np.float64) * repeated)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("lhs", "rhs", "scales", "block"),
    [(E4M3, E4M3, jnp.float8_e8m0fnu, 32), (E4M3, E5M2, jnp.float8_e8m0fnu, 32), (E2M1, E2M1, E4M3, 16)],
    ids=["MXFP8", "MXFP8 hybrid", "NVFP4"],
)
def test_scaled_product_is_that_of_the_dequantized_operands(
    lhs: jnp.dtype,
    rhs: jnp.dtype,
    scales: jnp.dtype,
    block: int,
    compiled: bool,  # noqa: FBT001
) -> None:
    (x, x_scales), (y, y_scales) = operand(lhs, scales, 8, block, 0), operand(rhs, scales, 24, block, 1)
    found = (jax.jit(jax.nn.scaled_matmul) if compiled else jax.nn.scaled_matmul)(x, y, x_scales, y_scales)
    expected = np.einsum("bmk,bnk->bmn", dequantized(x, x_scales), dequantized(y, y_scales))
    assert np.abs(np.asarray(found) - expected).max() <= 2**-20 * np.abs(expected).max()


@pytest.mark.parametrize("compiled", [False, True])
def test_numbers_of_e4m3_lose_nothing_in_their_own_precision(compiled: bool) -> None:  # noqa: FBT001
    codes = np.arange(256, dtype=np.uint8)

    def reduce(numbers: jax.Array) -> jax.Array:
        return jax.lax.reduce_precision(numbers, 4, 3)

    found = (jax.jit(reduce) if compiled else reduce)(jnp.asarray(codes.view(ml_dtypes.float8_e4m3fn)))
    assert (np.asarray(found).view(np.uint8) == codes).all()


def test_other_numbers_are_reduced_as_ever() -> None:
    found = jax.jit(lambda number: jax.lax.reduce_precision(number, 8, 7))(jnp.float32(1 + 2**-7 + 2**-9))
    assert float(found) == 1 + 2**-7


def test_product_runs_alone_as_in_a_program() -> None:
    """As where a program is run equation by equation."""
    (x, x_scales), (y, y_scales) = (operand(E4M3, jnp.float8_e8m0fnu, rows, 32, rows) for rows in (8, 24))
    program = jax.make_jaxpr(jax.nn.scaled_matmul)(x, y, x_scales, y_scales)
    found = jax.core.eval_jaxpr(program.jaxpr, program.consts, x, y, x_scales, y_scales)
    assert (found[0] == jax.jit(jax.nn.scaled_matmul)(x, y, x_scales, y_scales)).all()


def test_product_is_lowered_inside_of_a_mesh_as_outside() -> None:
    """In a process of its own, where the mesh is there before it is asked for."""
    run_code(
        """
        import numpy as np, jax
        from mnist_fp8.plugin.process import divide_cpu
        divide_cpu()
        from mnist_fp8 import te
        from mnist_fp8.te.dense_step import dense_layer, dense_step, fp8, on_device, variables_of
        ones, mesh = np.ones((64, 64), np.float32), jax.sharding.Mesh(np.asarray(jax.devices()[:2]), ("dp",))
        with te.mesh_context(mesh), te.Autocast(axes=("dp",))():
            everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
            given = jax.device_put((variables_of(ones, {}), on_device(ones), on_device(ones)), everywhere)
            step = dense_step(dense_layer(features=64, use_bias=False), fp8("MXFP8BlockScaling"), *given)
        assert (step.y == 64).all(), step.y
        """
    )
