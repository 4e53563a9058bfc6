"""Claim: NVFP4 rounds gradients stochastically: without bias, with the variance of E2M1, each number on its own.

Promised by TE's recipe: "values are rounded probabilistically to one of their two nearest representable numbers, with
probabilities inversely proportional to their distances". One gradient is quantized with many keys. What is drawn is
held to statistics (`mnist_fp8.oracle.stochastic`): right draws are beyond one of their bounds in less than one of a
million runs. A bias of 1% of the distance of two codes is found in all but one of a million, and so is a variance that
is off by 10%. Both directions are looked at, one of which is rotated before. The claim has not run on a GPU that has
NVFP4.

What a failure means for an upgrade: gradients are biased or noisier than they were, or as random as one number.
"""

import functools
import sys
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_fp8.oracle import blocks, stochastic
from mnist_fp8.oracle.dense import Array
from mnist_fp8.te.dense_step import fp8, on_device
from mnist_fp8.te.quantizers import quantized
from support.assertions import assert_equal

pytestmark = pytest.mark.recipe("NVFP4BlockScaling")

KEYS, SHAPE = 64, (64, 96)
MODE = fp8("NVFP4BlockScaling")
WHOLE, OUTSIDE = PARTS = "all numbers", "below 1 and above 2"


@functools.cache
def gradient() -> Array:
    """Numbers with an amax of 6; the first rows are codes and what saturates, once scaled.

    They have so few bits that sums over a block are exact, in whichever order: what is rotated is the oracle's to the
    bit, and so are the codes around it.
    """
    values = np.random.default_rng(1).normal(size=SHAPE)
    values = np.round(values / np.abs(values).max() * 6 * 2**5).astype(np.float32) / 2**5
    values[:2] = np.tile(np.concatenate([blocks.GRID, -blocks.GRID]), 6)
    values[2] = np.tile([5.6875, -5.6875, *14 * [0.0]], 6)
    return values


def numbers(axis: int) -> Array:
    """What is rounded, in blocks along an axis."""
    assert MODE.recipe
    rotated = blocks.is_rotated(MODE.recipe, "grad", axis)
    return blocks.nvfp4_scaled(blocks.rotated(gradient(), axis) if rotated else gradient(), axis).numbers


@jax.jit
def codes_of(keys: jax.Array, values: jax.Array) -> dict[int, jax.Array]:
    """Codes of a gradient along both axes, for each key."""

    def draw(key: jax.Array) -> dict[int, jax.Array]:
        return {axis: found.codes for axis, found in quantized(MODE, "grad", values, key).items()}

    return jax.lax.map(draw, keys)


@functools.cache
def drawn() -> dict[int, Array]:
    found = codes_of(jax.random.split(jax.random.key(2), KEYS), on_device(gradient(), "bfloat16"))
    return {axis: np.asarray(codes) for axis, codes in found.items()}


def part_of(axis: int, part: str) -> Array:
    """Which numbers belong to a part of all: a known defect between two codes does not hide what is wrong elsewhere."""
    sizes = np.abs(numbers(axis))
    return (sizes < 1) | (sizes > 2) if part == OUTSIDE else np.full(sizes.shape, fill_value=True)


@functools.cache
def statistics(axis: int, part: str) -> dict[str, stochastic.Statistic]:
    here = part_of(axis, part)
    return stochastic.statistics(drawn()[axis][:, here], numbers(axis)[here])


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", stochastic.NAMES)
@pytest.mark.parametrize("part", PARTS)
def test_draws_are_right(part: str, name: str, axis: int) -> None:
    found = statistics(axis, part)[name]
    where = f"{name} along axis {axis}, {part}"
    assert found.holds, f"{where}: {found.shown} ({found.value:.4g}, but should be at most {found.bound:.4g})"


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("part", PARTS)
def test_control_faults_would_be_found(part: str, axis: int) -> None:
    given = numbers(axis)[part_of(axis, part)]
    powers = {
        "a bias of 1%": stochastic.power_of_mean(given, KEYS, 0.01),
        "a variance 10% too large": stochastic.power_of_variance(given, KEYS, 1.1),
        "a variance 10% too small": stochastic.power_of_variance(given, KEYS, 0.9),
    }
    blind = {fault: power for fault, power in powers.items() if not power > 1 - 1e-6}
    assert not blind, f"probability of being found={blind}, but should be more than 1 - 1e-6"


@pytest.mark.parametrize("code", blocks.GRID.tolist())
def test_code_stays_what_it_is(code: float) -> None:
    """Written out: rows of codes, under a scale of one."""
    found, given = drawn()[1][:, :2], gradient()[:2]
    here = np.abs(given) == code
    expected = np.broadcast_to(given[here], (KEYS, int(here.sum())))
    assert_equal(where=f"codes of {code} and -{code}", actual=found[:, here], expected=expected)


def test_number_beyond_the_largest_code_saturates() -> None:
    """Written out: a row whose scale is 416 instead of 424.7, so that 5.6875 becomes 6.125."""
    expected = np.broadcast_to([6.0, -6.0], (KEYS, 2))
    assert_equal(where="codes of 5.6875 and -5.6875", actual=drawn()[1][:, 2, :2], expected=expected)


def test_same_key_gives_the_same_bits_and_another_others() -> None:
    keys, values = jax.random.split(jax.random.key(2), KEYS), on_device(gradient(), "bfloat16")
    again = codes_of(keys[::-1], values)
    for axis, codes in drawn().items():
        assert_equal(where=f"codes along axis {axis}", actual=again[axis][::-1], expected=codes)
        assert (codes[0] != codes[1]).any(), f"codes along axis {axis} are those of another key"


def test_same_key_gives_the_same_bits_in_any_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python salts the hashes of strings anew in each process; in a run of several, all have to draw alike."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "transformer_engine":
            monkeypatch.setattr(module, "hash", _salted, raising=False)
    values = on_device(gradient(), "bfloat16")
    again = jax.jit(lambda key: quantized(MODE, "grad", values, key))(jax.random.split(jax.random.key(2), KEYS)[0])
    for axis, codes in drawn().items():
        assert_equal(where=f"codes along axis {axis}", actual=again[axis].codes, expected=codes[0])


def _salted(value: Any) -> int:
    """The hash of a string in a process of another salt; of all else, what it is."""
    return zlib.crc32(value.encode()) if isinstance(value, str) else hash(value)


def test_scales_do_not_depend_on_the_key() -> None:
    values = on_device(gradient(), "bfloat16")
    found = jax.jit(quantized, static_argnums=(0, 1))(MODE, "grad", values, jax.random.key(3))
    assert_equal(where="scales", actual=found[1].scales, expected=blocks.nvfp4(gradient(), 1).scales)


@pytest.mark.parametrize("tensor", ["x", "kernel"])
def test_inputs_and_kernels_are_rounded_to_the_nearest(tensor: str) -> None:
    values = on_device(gradient(), "bfloat16")
    found = jax.jit(quantized, static_argnums=(0, 1))(MODE, tensor, values, jax.random.key(3))
    expected = blocks.nvfp4(gradient(), 1, square=tensor == "kernel").codes
    assert_equal(where=f"codes of {tensor}", actual=found[1].codes, expected=expected)


@pytest.mark.parametrize("kind", ["threefry2x32", "rbg"])
def test_gradients_are_rounded_with_any_kind_of_keys(kind: str) -> None:
    """Keys of the kind that is JAX's default at the time: rbg is what users of TPUs and of large models set."""
    with jax.default_prng_impl(kind):
        found = jax.jit(quantized, static_argnums=(0, 1))(MODE, "grad", jnp.asarray(gradient()), jax.random.key(3))
    off = np.abs(np.asarray(found[1].codes) - numbers(1)).max()
    assert off <= 2, f"codes are {off} from their numbers, but should be at most 2, the largest distance of two codes"
