"""The oracles against numbers worked out by hand, so that they are not their own judges."""

import jax.numpy as jnp
import numpy as np
import pytest

from mnist_fp8.oracle import dense
from mnist_fp8.oracle.dense import TENSORS, Meta, initial_meta, next_meta, quantize


@pytest.mark.parametrize(
    ("value", "dtype", "code"),
    [
        (1.0, "float8_e4m3fn", 1.0),
        (17.0, "float8_e4m3fn", 16.0),  # halfway between 16 and 18: to the even mantissa
        (19.0, "float8_e4m3fn", 20.0),  # halfway between 18 and 20
        (500.0, "float8_e4m3fn", 448.0),
        (-1e9, "float8_e4m3fn", -448.0),
        (2.0**-9, "float8_e4m3fn", 2.0**-9),  # the smallest subnormal
        (2.0**-10, "float8_e4m3fn", 0.0),  # halfway to it
        (1.125, "float8_e5m2", 1.0),  # halfway between 1 and 1.25
        (60000.0, "float8_e5m2", 57344.0),
        (2.0**-16, "float8_e5m2", 2.0**-16),
    ],
)
def test_quantize_gives_the_code_of_the_format(value: float, dtype: str, code: float) -> None:
    assert quantize(np.asarray([value]), 1.0, dtype)[0] == code


@pytest.mark.host
@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_quantize_rounds_as_jax_does_on_a_cpu(dtype: str) -> None:
    """An old JAX rounds by way of float16, and the oracle with it: that is no matter of Transformer Engine."""
    values = np.random.default_rng(0).normal(0, 50, 100_000).astype(np.float32).clip(-448, 448)
    rounded = np.asarray(jnp.asarray(values).astype(dtype).astype(jnp.float32))
    assert np.array_equal(quantize(values, 1.0, dtype), rounded)


def test_quantize_multiplies_by_the_scale_first() -> None:
    assert quantize(np.asarray([0.5]), 100.0, "float8_e4m3fn")[0] == 48.0  # 50 is halfway between 48 and 52


def test_next_meta_follows_the_written_out_steps() -> None:
    meta = initial_meta(3)
    for amax, history, scale in (
        (2.0, [0, 0, 2], 224.0),
        (4.0, [0, 2, 4], 112.0),
        (1.0, [0, 4, 1], 112.0),
        (1.0, [0, 1, 1], 112.0),  # 4 is still in the window of three
        (1.0, [0, 1, 1], 448.0),
    ):
        meta = next_meta(meta, amax, fp8_max=448.0)
        assert meta.history.tolist() == history
        assert meta.scale == scale


def test_next_meta_of_the_most_recent_amax() -> None:
    meta = next_meta(Meta(np.float32(1), np.asarray([0, 9, 8], np.float32)), 2.0, fp8_max=448.0, algo="most_recent")
    assert meta.scale == 224.0


@pytest.mark.parametrize(("margin", "scale"), [(0, 224.0), (2, 56.0), (-1, 448.0)])
def test_margin_divides_by_a_power_of_two(margin: int, scale: float) -> None:
    assert next_meta(initial_meta(2), 2.0, fp8_max=448.0, margin=margin).scale == scale


@pytest.mark.parametrize("amax", [0.0, np.inf, np.nan])
def test_unusable_amax_keeps_the_scale(amax: float) -> None:
    assert next_meta(Meta(np.float32(7), np.zeros(2, np.float32)), amax, fp8_max=448.0).scale == 7


def test_history_of_one_step_is_always_empty() -> None:
    meta = next_meta(initial_meta(1), 2.0, fp8_max=448.0)
    assert meta.history.tolist() == [0]
    assert meta.scale == 224.0


def test_dense_passes_of_a_tiny_layer() -> None:
    passes = dense.dense(np.asarray([[1.0, 2.0]]), np.asarray([[3.0], [-4.0]]), np.asarray([[10.0]]))
    assert passes.y.value.tolist() == [[-5.0]]
    assert passes.y.magnitude.tolist() == [[11.0]]
    assert passes.dx.value.tolist() == [[30.0, -40.0]]
    assert passes.dkernel.value.tolist() == [[10.0], [20.0]]


def test_fp8_dense_undoes_the_scales() -> None:
    x, kernel, grad = np.asarray([[1.0, 2.0]]), np.asarray([[3.0], [-4.0]]), np.asarray([[10.0]])
    scales = {"x": np.float32(2), "kernel": np.float32(4), "grad": np.float32(8)}
    passes = dense.fp8_dense(x, kernel, grad, scales, "HYBRID")
    exact = dense.dense(x, kernel, grad)
    for name in ("y", "dx", "dkernel"):
        assert getattr(passes, name).value.tolist() == getattr(exact, name).value.tolist()


def test_e4m3_gradients_are_finer_than_e5m2() -> None:
    x, kernel, grad = np.ones((1, 1)), np.ones((1, 1)), np.asarray([[1.125]])
    ones = {name: np.float32(1) for name in TENSORS}
    assert dense.fp8_dense(x, kernel, grad, ones, "E4M3").dx.value == 1.125
    assert dense.fp8_dense(x, kernel, grad, ones, "HYBRID").dx.value == 1.0


def test_next_meta_before_2_3_follows_the_written_out_steps() -> None:
    meta = initial_meta(3)
    for amax, history, scale in (
        (2.0, [2, 0, 0], 1.0),
        (4.0, [4, 0, 2], 224.0),
        (1.0, [1, 2, 4], 112.0),
        (1.0, [1, 4, 1], 112.0),
        (0.5, [0.5, 1, 1], 112.0),
        (0.5, [0.5, 1, 0.5], 448.0),
    ):
        meta = dense.next_meta_before_2_3(meta, amax, fp8_max=448)
        assert (meta.history.tolist(), float(meta.scale)) == (history, scale)
