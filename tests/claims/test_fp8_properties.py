"""Claim: an FP8 dense layer is the function that its recipe defines, however its numbers are sized, ordered or traced.

Promised by TE's user guide, in which a scale is a factor that is undone and a batch is so many rows, and by JAX, whose
transformations change neither values nor gradients. Most of these tests compare TE with itself and expect the same
bits; those over several steps compare with the NumPy oracle, which carries metadata of its own.

What a failure means for an upgrade: a model that trains in one arrangement (batch shape, loss scale, remat, scan,
micro-batches) computes something else in another, which no test of a single arrangement shows.
"""

import concurrent.futures
import contextlib
import functools
import importlib
import inspect
import math
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax
import flax.linen as nn
import flax.serialization
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mnist_fp8 import te
from mnist_fp8.model.checkpoints import through_orbax
from mnist_fp8.oracle import dense
from mnist_fp8.oracle.dense import FORMATS, TENSORS, Array, Meta, initial_meta
from mnist_fp8.oracle.tolerances import fp8_error_band, product_tolerance, rounding_tolerance, sum_tolerance
from mnist_fp8.te.dense_step import BF16, Step, dense_layer, dense_step, fp8, init, on_device, read_meta, variables_of
from support.assertions import assert_close, assert_close_norm, assert_equal, assert_same_structure, assert_trees_equal
from support.codes import codes_at_both_ends
from support.metadata import assert_metas, initial_metadata, meta_of, next_metas

ROWS, CONTRACTED, FEATURES = 32, 48, 16


def shapes(features: int = FEATURES, rows: int = ROWS, contracted: int = CONTRACTED) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of a layer with a bias."""
    return {"x": (rows, contracted), "kernel": (contracted, features), "grad": (rows, features), "bias": (features,)}


FP8_MODES = {"delayed": fp8(amax_history_len=4), "current": fp8("Float8CurrentScaling")}
MODES = FP8_MODES | {"bf16": BF16}


def settled_metas(times: float = 1.0) -> dict[str, Meta]:
    """Metadata unlike each other. All scales, and those that follow from an amax of 28, are powers of two.

    Args:
        times: a power of two: how many times as large the tensors are that they are for.
    """
    settled = {"x": (8, (0, 7, 14, 3.5)), "kernel": (16, (0, 56, 7, 14)), "grad": (256, (0, 14, 28, 7))}
    return {
        tensor: meta_of(scale / times, tuple(amax * times for amax in history))
        for tensor, (scale, history) in settled.items()
    }


fp8_modes = pytest.mark.parametrize("mode", FP8_MODES.values(), ids=FP8_MODES)
all_modes = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
mapped_modes = [
    *(pytest.param(mode, id=name) for name, mode in FP8_MODES.items()),
    pytest.param(BF16, id="bf16", marks=pytest.mark.host),  # on kernels, nobody has looked at it
]
dtypes = pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
summed_dtypes = pytest.mark.parametrize(
    "dtype", [pytest.param("bfloat16", marks=pytest.mark.xla_sums_in_float32), "float32"]
)
seeds = st.integers(0, 2**16)


def integers(seed: int = 0, **sizes: int) -> dict[str, Array]:
    """Integers, of which the first is -28 and no other is beyond 20.

    448/28 and 57344/28 are powers of two, so that sums are exact in whatever order and however XLA compiles them; with
    any other amax they are not. 17 and 19 are no E4M3 numbers: FP8 rounds them, BF16 does not.

    Args:
        seed: of the numbers.
        sizes: those of `shapes`.
    """
    drawn = np.random.default_rng(seed)
    values = {name: drawn.integers(-20, 21, shape).astype(np.float32) for name, shape in shapes(**sizes).items()}
    for name in TENSORS:
        values[name].flat[0] = -28
    return values


def without_bias(values: Mapping[str, Array]) -> dict[str, Array]:
    """The same for a layer without a bias, whose output is a product and no more."""
    return {name: values[name] for name in TENSORS}


def normal(seed: int, dtype: str, spread: Mapping[str, float] | None = None) -> dict[str, Array]:
    """Normally distributed tensors that are numbers of a dtype."""
    drawn = np.random.default_rng(seed)
    values = {name: drawn.normal(0, (spread or {}).get(name, 1), shape) for name, shape in shapes().items()}
    return {name: np.array(on_device(value, dtype), np.float32) for name, value in values.items()}


def arguments(
    mode: te.Autocast,
    values: Mapping[str, Array],
    dtype: str = "float32",
    *,
    metas: Mapping[str, Meta] | None = None,
    batch: tuple[int, ...] = (ROWS,),
) -> tuple[Any, te.Autocast, dict[str, Any], jax.Array, jax.Array]:
    """Arguments of `dense_step` for a layer with a bias if there is one, and metadata if the mode keeps them.

    Without ``metas``, those are `settled_metas`.
    """
    keeps_metadata = mode.recipe is not None and te.keeps_metadata(mode.recipe)
    bias = values.get("bias")
    layer = dense_layer(features=values["kernel"].shape[-1], use_bias=bias is not None)
    metas = settled_metas() if metas is None else metas
    variables = variables_of(values["kernel"], metas if keeps_metadata else {}, bias)
    x, grad = (on_device(values[name].reshape(*batch, -1), dtype) for name in ("x", "grad"))
    return layer, mode, variables, x, grad


def run(mode: te.Autocast, values: Mapping[str, Array], dtype: str = "float32", **options: Any) -> Step:
    """Forward and backward pass of a layer, compiled."""
    return dense_step(*arguments(mode, values, dtype, **options))


def joined(*rows: Any) -> Any:
    """Rows of a batch, one after the other."""
    return np.concatenate(rows)


def near_halfway(values: Mapping[str, Array], scales: Mapping[str, np.float32], fp8_format: str) -> bool:
    """Whether a value is so close to halfway between two codes that a GPU's division decides which one it becomes."""
    ends = codes_at_both_ends(values, scales, fp8_format, te.engine().kind)
    return any(not np.array_equal(low, high) for _, low, high in ends)


def assert_follows_oracle(
    step: Step,
    values: Mapping[str, Array],
    scales: dict[str, np.float32],
    fp8_format: str,
    dtype: str,
    *,
    where: str,
) -> None:
    """Compare output and all gradients of a layer with bias, of any batch shape, with the oracle."""
    __tracebackhide__ = True
    expected = dense.fp8_dense(values["x"], values["kernel"], values["grad"], scales, fp8_format)
    assert_follows_passes(step, values, expected, dtype, where=where)


def assert_follows_passes(
    step: Step, values: Mapping[str, Array], expected: dense.DensePasses, dtype: str, *, where: str
) -> None:
    """Compare output and all gradients of a layer, with bias if there is one, with the oracle's products."""
    __tracebackhide__ = True
    # TE rounds the product of the codes, and once more where it is divided by the scales; in float32, the reciprocal
    # scales and their product round as well.
    kind, roundings = te.engine().kind, {"bfloat16": 2, "float32": 6}[dtype]
    tolerance_of = functools.partial(product_tolerance, dtype=dtype, kind=kind, roundings=roundings, fp8=True)
    bias, grad = values.get("bias", np.zeros(values["grad"].shape[-1])).astype(np.float64), values["grad"]
    # XLA may fuse the last multiplication and the addition of the bias, which then round once instead of twice.
    addition = rounding_tolerance(np.abs(expected.y.value) + np.abs(bias), dtype, roundings=2)
    params = step.grads["params"]
    results = [
        ("output", step.y, expected.y.value + bias, tolerance_of(expected.y) + addition),
        ("input gradient", step.dx, expected.dx.value, tolerance_of(expected.dx)),
        ("kernel gradient", params["kernel"], expected.dkernel.value, tolerance_of(expected.dkernel)),
    ]
    if "bias" in values:
        in_sums = sum_tolerance(grad, dtype, accumulator=dtype)
        results.append(("bias gradient", params["bias"], grad.sum(axis=0, dtype=np.float64), in_sums))
    for name, actual, wanted, tolerance in results:
        found = np.asarray(actual, np.float64).reshape(wanted.shape)
        assert_close(where=f"{where}: {name}", actual=found, expected=wanted, tolerance=tolerance)


# --- how large the numbers are -------------------------------------------------------------------------------------


def for_each_tensor(drawn: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A drawn value for each of x, kernel and grad."""
    return st.fixed_dictionaries(dict.fromkeys(TENSORS, drawn))


def times(values: Mapping[str, Array], factor: Mapping[str, float]) -> dict[str, Array]:
    """The tensors times factors; the bias as many times as the output that it is added to."""
    factors = {**factor, "bias": factor["x"] * factor["kernel"]}
    return {name: value * np.float32(factors[name]) for name, value in values.items()}


def step_times(step: Step, factor: Mapping[str, float]) -> Step:
    """What a step gives on tensors times powers of two and on metadata to match."""
    step = jax.device_get(step)
    params = step.grads["params"]
    grads: dict[str, Any] = {
        "params": {"kernel": params["kernel"] * factor["x"] * factor["grad"], "bias": params["bias"] * factor["grad"]}
    }
    for collection in set(step.grads) - {"params"}:
        grads[collection] = {}
        for tensor in TENSORS:
            size, metadata = abs(factor[tensor]), step.grads[collection]
            scale, history = te.scale_leaf(tensor), te.history_leaf(tensor)
            grads[collection] |= {scale: metadata[scale] / size, history: metadata[history] * size}
    return Step(step.y * factor["x"] * factor["kernel"], step.dx * factor["grad"] * factor["kernel"], grads)


SCALES = {"x": np.float32(101.3), "kernel": np.float32(352.7), "grad": np.float32(7013.5)}
"""Unlike each other and no powers of two."""

signed_powers_of_two = st.builds(lambda sign, k: sign * 2.0**k, st.sampled_from([1, -1]), st.integers(-30, 30))


@dtypes
@fp8_modes
@given(factor=for_each_tensor(signed_powers_of_two), seed=seeds)
def test_powers_of_two_and_signs_pass_through_exactly(
    mode: te.Autocast, dtype: str, factor: dict[str, float], seed: int
) -> None:
    """A tensor 2**k times as large, whose history is as large and whose scale as small, has the same codes."""
    values, history = normal(seed, dtype), np.asarray([0, 1, 2, 3], np.float32)
    metas = {name: Meta(scale, history) for name, scale in SCALES.items()}
    sizes = {name: np.float32(abs(factor[name])) for name in TENSORS}
    metas_to_match = {name: Meta(SCALES[name] / sizes[name], history * sizes[name]) for name in TENSORS}
    plain = run(mode, values, dtype, metas=metas)
    found = run(mode, times(values, factor), dtype, metas=metas_to_match)
    assert_trees_equal(where=f"tensors times {factor}", actual=found, expected=step_times(plain, factor))


@given(factor=for_each_tensor(st.integers(-3, 3).map(lambda k: 2.0**k)), seed=seeds)
def test_delayed_scaling_is_linear_between_underflow_and_saturation(factor: dict[str, float], seed: int) -> None:
    """With the scales as they are: numbers from 2**-3 to 2**4 are normal ones of both formats at a scale of 8."""
    drawn = np.random.default_rng(seed)
    values = {name: drawn.choice([-1, 1], shape) * drawn.uniform(1, 2, shape) for name, shape in shapes().items()}
    metas = dict.fromkeys(TENSORS, settled_metas()["x"])
    plain, found = (run(FP8_MODES["delayed"], tensors, metas=metas) for tensors in (values, times(values, factor)))
    expected, name = step_times(plain, factor), te.metadata_collection()
    for step in (expected, found):
        del step.grads[name]
    assert_trees_equal(where=f"tensors times {factor}", actual=found, expected=expected)


@pytest.mark.parametrize(
    "dtype", ["float32", pytest.param("bfloat16", marks=[pytest.mark.host, pytest.mark.xla_sums_in_float32])]
)
@pytest.mark.parametrize("fp8_format", FORMATS)
@given(spread=for_each_tensor(st.floats(-20, 20).map(np.exp2)), seed=seeds)
def test_current_scaling_follows_the_oracle_for_tensors_of_any_size(
    fp8_format: str, dtype: str, spread: dict[str, float], seed: int
) -> None:
    """In BF16 on a host run only: its numbers, of 8 bits, often stand exactly halfway between two codes."""
    values = normal(seed, dtype, spread)
    scales = dense.current_scales(values, fp8_format)
    assume(not near_halfway(values, scales, fp8_format))
    step = run(fp8("Float8CurrentScaling", fp8_format=fp8_format), values, dtype)
    assert_follows_oracle(step, values, scales, fp8_format, dtype, where=f"standard deviations {spread}")


def test_history_does_not_touch_the_step_that_it_is_given_to() -> None:
    """The stored scale is what a step quantizes with; its history decides the scale of the next."""
    others = {name: Meta(meta.scale, meta.history * 16) for name, meta in settled_metas().items()}
    expected, found = (run(FP8_MODES["delayed"], integers(), metas=metas) for metas in (settled_metas(), others))
    name = te.metadata_collection()
    scale, other_scale = (step.grads.pop(name)[te.scale_leaf("x")] for step in (expected, found))
    assert_trees_equal(where="step with another history", actual=found, expected=expected)
    assert scale != other_scale, f"Control: next scales={scale}, {other_scale}, but should differ"


WIDE = {"x": (16, 1024), "kernel": (1024, 16), "grad": (16, 16)}

DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {
    "normal": lambda drawn, shape: drawn.normal(0, 1, shape),
    "uniform": lambda drawn, shape: drawn.uniform(-1, 1, shape),
    "twelve binades": lambda drawn, shape: drawn.choice([-1, 1], shape) * 2.0 ** drawn.uniform(-12, 0, shape),
}


@pytest.mark.parametrize("fp8_format", FORMATS)
@pytest.mark.parametrize("recipe", ["DelayedScaling", "Float8CurrentScaling"])
@given(distribution=for_each_tensor(st.sampled_from(sorted(DISTRIBUTIONS))), seed=seeds)
def test_results_are_as_inexact_as_their_operands_formats(
    recipe: str, fp8_format: str, distribution: dict[str, str], seed: int
) -> None:
    """A product that is too exact did not run in FP8; one that is not exact enough lost bits on the way."""
    drawn = np.random.default_rng(seed)
    values = {name: DISTRIBUTIONS[distribution[name]](drawn, WIDE[name]).astype(np.float32) for name in TENSORS}
    formats = FORMATS[fp8_format]
    metas = {name: Meta(dense.current_scale(values[name], formats[name]), np.zeros(1024)) for name in TENSORS}
    step = run(fp8(recipe, fp8_format=fp8_format), values, metas=metas, batch=(16,))
    exact = dense.dense(**values)
    for where, actual, expected, operands in (
        ("output", step.y, exact.y, ("x", "kernel")),
        ("input gradient", step.dx, exact.dx, ("grad", "kernel")),
        ("kernel gradient", step.grads["params"]["kernel"], exact.dkernel, ("x", "grad")),
    ):
        difference = np.asarray(actual, np.float64) - expected.value
        error = float(np.linalg.norm(difference) / np.linalg.norm(expected.value))
        low, high = fp8_error_band(*(formats[name] for name in operands))
        assert low < error < high, f"{where}: relative error={error:.4f}, but should be from {low:.4f} to {high:.4f}"


# --- how many there are --------------------------------------------------------------------------------------------

MANY: dict[str, tuple[tuple[int, ...], int, int]] = {
    "of all": ((1040,), 1040, 1040),
    "positions, not aligned": ((2, 1033), 47, 15),
}
"""Batch shape, contracted size and features: those of users, where most tests have what compiles fast."""


@all_modes
@pytest.mark.xla_sums_in_float32
@pytest.mark.parametrize(
    "many",
    ["of all", pytest.param("positions, not aligned", marks=pytest.mark.host)],  # kernels take multiples of 16
)
def test_large_layers_are_computed_as_small_ones_are(many: str, mode: te.Autocast) -> None:
    """In BF16, of integers with the amax in the very last place, so that a part of a tensor does not have it."""
    batch, contracted, features = MANY[many]
    values = without_bias(integers(rows=math.prod(batch), contracted=contracted, features=features))
    for name in TENSORS:
        values[name].flat[0], values[name].flat[-1] = 20, -28
    step, metas = run(mode, values, "bfloat16", batch=batch), settled_metas()
    scales = {name: meta.scale for name, meta in metas.items()}
    if mode == FP8_MODES["current"]:
        scales = dense.current_scales(values, "HYBRID")
    expected = dense.dense(**values) if mode == BF16 else dense.fp8_dense(**values, scales=scales, fp8_format="HYBRID")
    assert_follows_passes(step, values, expected, "bfloat16", where=f"many {many}")
    if mode == FP8_MODES["delayed"]:
        following = next_metas(metas, dict.fromkeys(TENSORS, 28.0), {})
        assert_metas(step.metadata, following, where=f"many {many}: metadata")


# --- how they are ordered ------------------------------------------------------------------------------------------


@all_modes
@pytest.mark.parametrize("dimension", ["row", "contracted", "feature"])
def test_order_of_a_dimension_only_orders_the_results(dimension: str, mode: te.Autocast) -> None:
    """Shuffled rows, input features or output features: what has this dimension is shuffled, all else is the same."""
    axes = {
        "row": {"x": 0, "grad": 0, "y": 0, "dx": 0},
        "contracted": {"x": 1, "kernel": 0, "dx": 1, "dkernel": 0},
        "feature": {"kernel": 1, "grad": 1, "bias": 0, "y": 1, "dkernel": 1, "dbias": 0},
    }[dimension]
    size = {"row": ROWS, "contracted": CONTRACTED, "feature": FEATURES}[dimension]
    order = np.append(1 + np.random.default_rng(0).permutation(size - 1), 0)  # the first, of the amax, is the last

    def shuffled(tensors: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: np.take(np.asarray(value), order, axes[name]) if name in axes else value
            for name, value in tensors.items()
        }

    values = integers()
    plain, found = (by_name(run(mode, tensors)) for tensors in (values, shuffled(values)))
    assert_trees_equal(where=f"{dimension}s shuffled", actual=found, expected=shuffled(plain))


def by_name(step: Step) -> dict[str, Any]:
    """The results of a step, as a flat mapping."""
    params = step.grads["params"]
    others = {name: value for name, value in step.grads.items() if name != "params"}
    return {"y": step.y, "dx": step.dx, "dkernel": params["kernel"], "dbias": params["bias"], **others}


@summed_dtypes
@all_modes
def test_leading_dimensions_are_so_many_rows(mode: te.Autocast, dtype: str) -> None:
    """In BF16 without a bias, before whose addition XLA may or may not round; nor need it round a kernel gradient."""
    values = integers() if dtype == "float32" else without_bias(integers())

    def flat(step: Step) -> Step:
        step = jax.device_get(step)
        params = jax.tree.map(lambda gradient: gradient.astype(jnp.dtype(dtype)), step.grads["params"])
        return Step(step.y.reshape(ROWS, -1), step.dx.reshape(ROWS, -1), {**step.grads, "params": params})

    plain = flat(run(mode, values, dtype))
    for batch in ((4, 8), (2, 2, 8)):
        found = run(mode, values, dtype, batch=batch)
        found_shapes = found.y.shape, found.dx.shape
        expected_shapes = (*batch, FEATURES), (*batch, CONTRACTED)
        assert found_shapes == expected_shapes, f"batch {batch}: shapes of output and input gradient={found_shapes}"
        assert_trees_equal(where=f"batch {batch}", actual=flat(found), expected=plain)


@all_modes
def test_rows_of_zeros_change_nothing(mode: te.Autocast) -> None:
    """A batch that is filled up with them: the output of such a row is the bias."""
    values, half = integers(), ROWS // 2
    for name in ("x", "grad"):
        values[name][half:] = 0
    found = run(mode, values)
    short = run(mode, values | {name: values[name][:half] for name in ("x", "grad")}, batch=(half,))
    padding = np.tile(values["bias"], (half, 1)), np.zeros((half, CONTRACTED))
    y, dx = (joined(*rows) for rows in zip((short.y, short.dx), padding, strict=True))
    assert_trees_equal(where="batch with rows of zeros", actual=found, expected=Step(y, dx, short.grads))


# --- over several steps --------------------------------------------------------------------------------------------

CARRIES: dict[str, tuple[dict[str, Any], str, tuple[int, ...]]] = {
    "defaults": ({}, "bfloat16", (32,)),
    "history of one": ({"amax_history_len": 1}, "float32", (4, 8)),
    "history of three, E4M3": ({"amax_history_len": 3, "fp8_format": "E4M3"}, "bfloat16", (4, 8)),
    "most recent, margin 2": (
        {"amax_history_len": 3, "amax_compute_algo": "most_recent", "margin": 2},
        "float32",
        (32,),
    ),
    "margin -1, so that the next step saturates": ({"amax_history_len": 3, "margin": -1}, "bfloat16", (2, 2, 8)),
}
"""Recipe options, dtype and batch shape."""


@pytest.mark.xla_sums_in_float32
@pytest.mark.parametrize(("options", "dtype", "batch"), CARRIES.values(), ids=CARRIES)
@given(spreads=st.lists(for_each_tensor(st.floats(-6, 6).map(np.exp2)), min_size=3, max_size=3), seed=seeds)
def test_steps_that_carry_their_metadata_follow_the_oracle(
    options: dict[str, Any], dtype: str, batch: tuple[int, ...], spreads: list[dict[str, float]], seed: int
) -> None:
    """Three steps on tensors of changing size, from an initialisation: TE is given its own metadata, never ours."""
    mode, fp8_format = fp8(**options), options.get("fp8_format", "HYBRID")
    metas = dict.fromkeys(TENSORS, initial_meta(options.get("amax_history_len", 1024)))
    name, carried = te.metadata_collection(), None
    for number, spread in enumerate(spreads):
        values = normal(seed + number, dtype, spread)
        layer, _, variables, x, grad = arguments(mode, values, dtype, batch=batch)
        carried = initial_metadata(layer, mode, x) if carried is None else carried
        assert_metas(carried, metas, where=f"before step {number}")
        step = dense_step(layer, mode, {**variables, name: carried}, x, grad)
        # TE's scales, which on a GPU may differ from the oracle's by a unit in the last place.
        used = carried if te.metadata_dialect().stores_next_scale else step.metadata
        scales = {tensor: read_meta(used, tensor).scale for tensor in TENSORS}
        assert_follows_oracle(step, values, scales, fp8_format, dtype, where=f"step {number}")
        metas = next_metas(metas, {tensor: float(np.abs(values[tensor]).max()) for tensor in TENSORS}, options)
        carried = step.metadata
    assert_metas(step.metadata, metas, where="after the last step")


# --- how they are traced -------------------------------------------------------------------------------------------

plain_step = inspect.unwrap(dense_step)
"""`dense_step` without ``jit``."""


def step_through(transformation: Callable[[Any], Any]) -> Callable[..., Step]:
    """`plain_step` with a transformation of the layer's function."""

    def step(layer: Any, mode: te.Autocast, variables: Any, x: jax.Array, grad: jax.Array) -> Step:
        def apply(variables: Any, x: jax.Array) -> jax.Array:  # a new one each time: JAX may know `layer.apply`
            return layer.apply(variables, x)

        with mode():
            y, pull_back = jax.vjp(transformation(apply), variables, x)
            grads, dx = pull_back(grad)
        return Step(y, dx, grads)

    return step


def in_a_branch(apply: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """The layer if the input is anything but zero, which is only known when it runs."""
    return lambda variables, x: jax.lax.cond(jnp.any(x), apply, lambda *_: jnp.ones((len(x), FEATURES)), variables, x)


def rematerialised_module(layer: Any, mode: te.Autocast, variables: Any, x: jax.Array, grad: jax.Array) -> Step:
    """With Flax's own `nn.remat`."""
    remade = nn.remat(type(layer))(features=layer.features, use_bias=layer.use_bias)
    return plain_step(remade, mode, variables, x, grad)


def loss_with_an_output(layer: Any, mode: te.Autocast, variables: Any, x: jax.Array, grad: jax.Array) -> Step:
    """As a training loop does it: a scalar loss, whose output is handed on beside it."""

    def loss(variables: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = layer.apply(variables, x)
        return jnp.sum(y * grad), y

    with mode():
        (_, y), (grads, dx) = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(variables, x)
    return Step(y, dx, grads)


def one_gradient_at_a_time(layer: Any, mode: te.Autocast, variables: Any, x: jax.Array, grad: jax.Array) -> Step:
    """Differentiated with respect to the input alone, and to each collection alone."""
    with mode():
        y, pull_back = jax.vjp(lambda x: layer.apply(variables, x), x)
        (dx,) = pull_back(grad)
        grads = {}
        for name, collection in variables.items():
            _, pull_back = jax.vjp(lambda c, name=name: layer.apply({**variables, name: c}, x), collection)
            (grads[name],) = pull_back(grad)
    return Step(y, dx, grads)


def frozen_variables(layer: Any, mode: te.Autocast, variables: Any, x: jax.Array, grad: jax.Array) -> Step:
    """With variables in a `FrozenDict`, whose gradient is one as well."""
    step = plain_step(layer, mode, flax.core.freeze(variables), x, grad)
    assert isinstance(step.grads, flax.core.FrozenDict), f"gradient of a FrozenDict={type(step.grads).__name__}"
    return step._replace(grads=flax.core.unfreeze(step.grads))


TRACED: dict[str, Callable[..., Step]] = {
    "not compiled": plain_step,
    "cond": jax.jit(step_through(in_a_branch), static_argnums=(0, 1)),
    "jit inside jit": jax.jit(step_through(jax.jit), static_argnums=(0, 1)),
    "checkpoint": jax.jit(step_through(jax.checkpoint), static_argnums=(0, 1)),
    "nn.remat": jax.jit(rematerialised_module, static_argnums=(0, 1)),
    "value_and_grad": jax.jit(loss_with_an_output, static_argnums=(0, 1)),
    "one gradient at a time": jax.jit(one_gradient_at_a_time, static_argnums=(0, 1)),
    "FrozenDict": jax.jit(frozen_variables, static_argnums=(0, 1)),
}


@all_modes
@pytest.mark.parametrize("traced", TRACED.values(), ids=TRACED)
def test_step_does_not_depend_on_how_it_is_traced(traced: Callable[..., Step], mode: te.Autocast) -> None:
    values = integers()
    found = traced(*arguments(mode, values))
    assert_trees_equal(where="step", actual=found, expected=run(mode, values))


@pytest.mark.host  # on a GPU, XLA divides constants more exactly than variables
@fp8_modes
def test_step_on_constants_is_the_same(mode: te.Autocast) -> None:
    """Variables and batch are part of the program, and XLA may compute any of it while it compiles."""
    constants = functools.partial(plain_step, *arguments(mode, integers()))
    assert_trees_equal(where="step", actual=jax.jit(constants)(), expected=run(mode, integers()))


@dtypes
@fp8_modes
def test_shapes_are_known_without_computing(mode: te.Autocast, dtype: str) -> None:
    layer, _, *tensors = arguments(mode, integers(), dtype)
    real = run(mode, integers(), dtype)
    assert real.y.dtype == dtype, f"output dtype={real.y.dtype}, but should be {dtype}"
    abstract = jax.eval_shape(functools.partial(plain_step, layer, mode), *tensors)
    found, expected = (
        {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (abstract, real)
    )
    wanted = {path: (leaf.shape, str(leaf.dtype)) for path, leaf in expected.items()}
    assert_same_structure(where="eval_shape", actual=found, expected=wanted)


@contextlib.contextmanager
def all_at_once() -> Iterator[None]:
    """Options of JAX that look for mistakes, or that change what is drawn or how precise it can be.

    Not ``jax_check_tracer_leaks``: JAX's own ``custom_partitioning``, which TE's kernels go through, does not pass it.
    """
    home: Any = jax if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental")  # before JAX 0.8
    with home.enable_x64(True), jax.debug_nans(True), jax.default_prng_impl("rbg"):  # noqa: FBT003
        yield


STRICT: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
    "numpy_rank_promotion": lambda: jax.numpy_rank_promotion("raise"),
    "numpy_dtype_promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "disable_jit": jax.disable_jit,
    "enable_x64, debug_nans and rbg": all_at_once,
}
"""Legal options of JAX, of which a program has some for reasons of its own."""


@all_modes
@pytest.mark.parametrize("options", STRICT)
def test_options_of_jax_do_not_change_a_step(options: str, mode: te.Autocast) -> None:
    """With a bias and a sequence, whose ranks differ; the parameters of an initialisation have the same dtypes."""
    values, dtype = integers(), "bfloat16" if options == "numpy_dtype_promotion" else "float32"
    layer, _, variables, x, grad = arguments(mode, values, dtype, batch=(4, 8))
    initialised = functools.partial(init, layer, mode)
    expected = dtypes_of(jax.eval_shape(initialised, x))
    with STRICT[options]():
        step = jax.jit(functools.partial(plain_step, layer, mode))(variables, x, grad)
        found = dtypes_of(jax.eval_shape(initialised, x))
    assert_trees_equal(where=f"with {options}", actual=step, expected=run(mode, values, dtype, batch=(4, 8)))
    assert found == expected, f"with {options}: dtypes of the variables={found}, but should be {expected}"


def dtypes_of(tree: Any) -> dict[str, str]:
    """Dtypes of the leaves of a tree, by path."""
    return {jax.tree_util.keystr(path): str(leaf.dtype) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def test_program_is_the_same_whenever_it_is_traced() -> None:
    """Traced under each recipe in turn, again and again: nothing is left over from the recipe before."""
    modes = {
        **MODES,
        "most recent": fp8(amax_history_len=4, amax_compute_algo="most_recent"),
        "E4M3": fp8(fp8_format="E4M3"),
    }
    programs: dict[str, list[str]] = {name: [] for name in modes}
    for _ in range(3):
        for name, mode in modes.items():
            layer, _, variables, x, grad = arguments(mode, integers(), "bfloat16")
            programs[name].append(str(jax.make_jaxpr(functools.partial(plain_step, layer, mode))(variables, x, grad)))
    for name, texts in programs.items():
        assert len(set(texts)) == 1, f"{name}: {len(set(texts))} unlike programs of 3, but should be one"
    assert len({texts[0] for texts in programs.values()}) == len(modes), "Control: the modes' programs should differ"


RESTORED: dict[str, Callable[[Any], Any]] = {
    "Orbax": through_orbax,
    "pickle": lambda variables: pickle.loads(pickle.dumps(variables)),  # noqa: S301 - our own
    "flax.serialization": lambda variables: flax.serialization.msgpack_restore(
        flax.serialization.msgpack_serialize(jax.device_get(variables))
    ),
    "FrozenDict": flax.core.freeze,
}
"""What a checkpoint gives back, in which all or some arrays are NumPy's."""


@fp8_modes
@pytest.mark.parametrize(
    "how", [pytest.param(how, marks=[pytest.mark.orbax] if how == "Orbax" else []) for how in RESTORED]
)
def test_restored_variables_continue_a_run(how: str, mode: te.Autocast) -> None:
    """After a step, as a run that was interrupted: the step after has the same bits, compiled."""
    layer, variables, data = batches(mode)
    step = jax.jit(functools.partial(train_step, layer, mode))
    variables, _ = step(variables, *data[0])
    restored, y = step(RESTORED[how](variables), *data[1])
    expected = step(variables, *data[1])
    if how == "FrozenDict":
        restored = flax.core.unfreeze(restored)
    assert_trees_equal(where=f"step after {how}", actual=(restored, y), expected=expected)


@all_modes
def test_boxed_variables_are_taken_as_plain_ones(mode: te.Autocast) -> None:
    """As an initialisation makes them, with names of axes: gradients come in the same boxes."""
    layer = dense_layer(features=FEATURES, kernel_axes=("in", "out"), bias_axes=("out",))
    x, grad = (on_device(integers()[name]) for name in ("x", "grad"))
    with nn.logical_axis_rules((("in", None),)):
        with mode():
            boxed = jax.jit(layer.init)(jax.random.key(0), x)
        found, expected = (dense_step(layer, mode, variables, x, grad) for variables in (boxed, te.unbox(boxed)))
        actual = found._replace(grads=te.unbox(found.grads))
    names = found.grads["params"]["kernel"].names
    assert names == ("in", "out"), f"names of the gradient's axes={names}, but should be those of the kernel"
    assert_trees_equal(where="step with boxed variables", actual=actual, expected=expected)


def test_numpy_metadata_are_taken_as_those_of_jax() -> None:
    """Not compiled, as a checkpoint gives them back."""
    metas = {name: meta_of(scale) for name, scale in SCALES.items()}
    layer, mode, variables, x, _ = arguments(FP8_MODES["delayed"], normal(0, "float32"), metas=metas)
    name = te.metadata_collection()
    restored = {**variables, name: jax.tree.map(np.asarray, variables[name])}
    with mode():
        found, expected = layer.apply(restored, x), layer.apply(variables, x)
    assert_equal(where="output with NumPy metadata", actual=found, expected=expected)


@fp8_modes
@pytest.mark.te_name("quantize", "QuantizerFactory")
def test_quantizers_take_whatever_is_put_for_their_arrays(mode: te.Autocast) -> None:
    """As JAX asks of the containers of a tree: Orbax puts placeholders there while it saves a state."""
    with mode():
        quantizers = te.quantization().QuantizerFactory.create_set()
    empty = jax.tree.map(lambda _: None, quantizers)
    assert jax.tree.leaves(empty) == []


@all_modes
@pytest.mark.parametrize("tensor", ["x", "kernel"])
def test_numpy_tensors_are_taken_as_those_of_jax(tensor: str, mode: te.Autocast) -> None:
    """Not compiled, as a data loader or a checkpoint gives them."""
    layer, _, variables, x, _ = arguments(mode, without_bias(integers()))
    with mode():
        expected = layer.apply(variables, x)
        if tensor == "kernel":
            found = layer.apply({**variables, "params": {"kernel": np.asarray(variables["params"]["kernel"])}}, x)
        else:
            found = layer.apply(variables, np.asarray(x))
    assert_equal(where=f"output with {tensor} in NumPy", actual=found, expected=expected)


@all_modes
def test_scan_that_closes_over_the_parameters_has_their_gradients(mode: te.Autocast) -> None:
    """A loss that is added up batch by batch, differentiated as a whole."""
    values = without_bias(integers())
    layer, _, variables, x, grad = arguments(mode, values, "bfloat16")

    def loss(params: Any) -> jax.Array:
        def add(total: jax.Array, batch: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            y = layer.apply({**variables, "params": params}, batch[0])
            return total + jnp.sum((y * batch[1]).astype(jnp.float32)), None

        return jax.lax.scan(add, jnp.float32(0), (x[None], grad[None]))[0]

    with mode():
        found = jax.jit(jax.grad(loss))(variables["params"])
    assert found["kernel"].dtype == jnp.float32, f"kernel gradient: dtype={found['kernel'].dtype}"
    expected = run(mode, values, "bfloat16").grads["params"]["kernel"]
    # TE rounds it to the input's dtype, which XLA may leave out.
    actual, wanted = (gradient.astype(jnp.bfloat16) for gradient in (found["kernel"], expected))
    assert_equal(where="kernel gradient", actual=actual, expected=wanted)


@fp8_modes
def test_tangent_of_a_gradient_is_as_exact_as_fp8_or_refused(mode: te.Autocast) -> None:
    """A Hessian times a vector: the tangent needs a scale of its own, that of the value says nothing about it."""
    values, metas = without_bias(normal(0, "float32", {"kernel": 0.15})), settled_metas() | {"grad": meta_of(7000)}
    layer, _, variables, x, _ = arguments(mode, values, metas=metas)
    gradient, tangent = jax.grad(lambda x: jnp.sum(layer.apply(variables, x) ** 2)), jnp.full_like(x, 10)
    try:
        with mode():
            _, found = jax.jvp(gradient, (x,), (tangent,))
    except TypeError:  # how JAX refuses
        return
    kernel = values["kernel"].astype(np.float64)
    tolerance = sum(fp8_error_band("float8_e4m3fn", other)[1] for other in ("float8_e4m3fn", "float8_e5m2"))
    expected = 2 * np.asarray(tangent) @ kernel @ kernel.T
    assert_close_norm(where="Hessian times a vector", actual=found, expected=expected, tolerance=tolerance)


@fp8_modes
def test_forward_mode_is_refused(mode: te.Autocast) -> None:
    """There is no rule for it, and no wrong tangent either."""
    layer, _, variables, x, _ = arguments(mode, integers())
    with mode(), pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(functools.partial(layer.apply, variables), (x,), (x,))


@pytest.mark.parametrize("ensemble", [False, True], ids=["batches", "batches and variables"])
@pytest.mark.parametrize("mode", mapped_modes)
def test_mapped_steps_equal_a_loop(mode: te.Autocast, ensemble: bool) -> None:  # noqa: FBT001
    """Over batches of unlike amaxes, or over a whole ensemble: each with scales of its own."""
    first, second = without_bias(integers(1)), without_bias(integers(2))
    for name in ("x", "grad"):
        if mode == FP8_MODES["current"]:
            second[name] *= 2.0**-30  # of which the scale of the first would leave nothing; sums stay exact
        else:
            second[name].flat[0] = -20
    if not ensemble:
        second["kernel"] = first["kernel"]
    (layer, _, *given), (_, _, *others) = (arguments(mode, values) for values in (first, second))
    variables, xs, grads = stack([given, others])
    mapped = jax.vmap(functools.partial(plain_step, layer, mode), in_axes=(0 if ensemble else None, 0, 0))
    found = jax.jit(mapped)(variables if ensemble else given[0], xs, grads)
    for number, values in enumerate((first, second)):
        one = jax.tree.map(lambda leaf, number=number: leaf[number], found)
        assert_trees_equal(where=f"mapped step {number}", actual=one, expected=run(mode, values))


@fp8_modes
def test_steps_in_threads_equal_steps_one_after_the_other(mode: te.Autocast) -> None:
    """Compiled steps: a program that is being traced in one thread sees the autocast of another."""
    data = [times(integers(seed), dict.fromkeys(TENSORS, 2.0**seed)) for seed in range(8)]
    expected = [run(mode, values) for values in data]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(functools.partial(run, mode), data))
    assert_trees_equal(where="steps in threads", actual=found, expected=expected)


# --- in a training program -----------------------------------------------------------------------------------------


def test_micro_batches_whose_largest_amaxes_are_kept_equal_the_whole_batch() -> None:
    """Gradients add up. Of the metadata, the largest amax and the smallest scale are those of the whole batch.

    (Added up they are of no use: `test_gradients_accumulated_over_micro_batches_add_metadata_up`.)
    """
    values, mode, name = integers(), FP8_MODES["delayed"], te.metadata_collection()
    for tensor in ("x", "grad"):
        values[tensor][ROWS // 2 :] = values[tensor][ROWS // 2 :].clip(-7, 7)  # so that the amaxes differ
    halves = [
        run(mode, values | dict(zip(("x", "grad"), pair, strict=True)), batch=(ROWS // 2,))
        for pair in zip(*(np.split(values[tensor], 2) for tensor in ("x", "grad")), strict=True)
    ]
    first, second = (half.metadata for half in halves)
    scales = {te.scale_leaf(tensor) for tensor in TENSORS}
    x_scale = te.scale_leaf("x")
    assert first[x_scale] != second[x_scale], "Control: the scales of the micro-batches should differ"
    kept = {leaf: (np.minimum if leaf in scales else np.maximum)(first[leaf], second[leaf]) for leaf in first}
    params = jax.tree.map(np.add, *(half.grads["params"] for half in halves))
    y, dx = (joined(*(getattr(half, result) for half in halves)) for result in ("y", "dx"))
    found = Step(y, dx, {"params": params, name: kept})
    assert_trees_equal(where="two micro-batches", actual=found, expected=run(mode, values))


def train_step(
    layer: Any, mode: te.Autocast, variables: Any, x: jax.Array, grad: jax.Array
) -> tuple[dict[str, Any], jax.Array]:
    """A step of gradient descent: new variables, and the output. The rate is a power of two: products are exact."""
    step = plain_step(layer, mode, variables, x, grad)
    params = jax.tree.map(
        lambda param, gradient: param - gradient * 2.0**-12, variables["params"], step.grads["params"]
    )
    return {**step.grads, "params": params}, step.y


def batches(mode: te.Autocast) -> tuple[Any, Any, list[Any]]:
    """A layer without bias, its variables, and three batches whose amaxes are unlike each other."""
    drawn = [without_bias(integers(seed)) for seed in range(3)]
    for number, values in enumerate(drawn):
        values["x"] *= 2.0**number
        values["grad"] *= 4.0**-number
    made = [arguments(mode, values) for values in drawn]
    return made[0][0], made[0][2], [(x, grad) for _, _, _, x, grad in made]


@fp8_modes
def test_scan_over_training_steps_equals_a_loop(mode: te.Autocast) -> None:
    """Parameters and metadata are carried; every output and the last variables are compared."""
    layer, variables, data = batches(mode)
    step = functools.partial(train_step, layer, mode)
    scanned, ys = jax.jit(
        lambda variables, data: jax.lax.scan(lambda carry, batch: step(carry, *batch), variables, data)
    )(variables, stack(data))
    expected = variables
    for number, batch in enumerate(data):
        expected, y = jax.jit(step)(expected, *batch)
        assert_equal(where=f"output of step {number}", actual=ys[number], expected=y)
    assert_trees_equal(where="variables after three steps", actual=scanned, expected=expected)


@fp8_modes
def test_donated_variables_give_the_same_steps(mode: te.Autocast) -> None:
    """The usual way to save memory: the old variables are gone after a step, and nothing may still refer to them."""
    layer, variables, data = batches(mode)
    step = functools.partial(train_step, layer, mode)
    donating, keeping = jax.jit(step, donate_argnums=0), jax.jit(step)
    for run_number in range(2):
        found, expected = jax.tree.map(jnp.copy, variables), variables
        for number, batch in enumerate(data):
            given = found
            found, y = donating(found, *batch)
            expected, wanted = keeping(expected, *batch)
            assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given)), "Control: the variables should be gone"
            assert_equal(where=f"run {run_number}, step {number}: output", actual=y, expected=wanted)
        assert_trees_equal(where=f"run {run_number}: variables", actual=found, expected=expected)


# --- in a model of several layers ----------------------------------------------------------------------------------


class Pair(nn.Module):
    """Two layers, by name."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply both."""
        hidden = te.dense_general(features=CONTRACTED, use_bias=False, name="first")(x)
        return te.dense_general(features=CONTRACTED, use_bias=False, name="second")(hidden)


def apply_pair(layers: list[dict[str, Any]], x: jax.Array) -> jax.Array:
    """Two layers of one module."""
    names = ("first", "second")
    joined = {c: {name: layer[c] for name, layer in zip(names, layers, strict=True)} for c in layers[0]}
    return Pair().apply(joined, x)


class Block(nn.Module):
    """One layer, as `nn.scan` wants it."""

    @nn.compact
    def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        """Apply it."""
        return te.dense_general(features=CONTRACTED, use_bias=False, name="layer")(x), None


def apply_flax_scan(layers: list[dict[str, Any]], x: jax.Array) -> jax.Array:
    """Two layers as Flax stacks them."""
    scanned = nn.scan(Block, variable_axes=dict.fromkeys(layers[0], 0), length=len(layers))()
    y, _ = scanned.apply({c: {"layer": leaves} for c, leaves in stack(layers).items()}, x, None)
    return y


def apply_scan(layers: list[dict[str, Any]], x: jax.Array) -> jax.Array:
    """Two layers as JAX scans over them."""
    layer = dense_layer(features=CONTRACTED, use_bias=False)
    y, _ = jax.lax.scan(lambda x, variables: (layer.apply(variables, x), None), x, stack(layers))
    return y


def stack(trees: list[Any]) -> Any:
    """Join trees of arrays along a new first axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@all_modes
@pytest.mark.parametrize("apply", [apply_pair, apply_scan, apply_flax_scan], ids=["module", "scan", "nn.scan"])
def test_model_of_two_layers_equals_its_layers_one_after_the_other(
    apply: Callable[..., jax.Array], mode: te.Autocast
) -> None:
    """Each with metadata of its own, those of the second layer for numbers 64 times as large."""
    larger = settled_metas(times=64)
    drawn = [without_bias(integers(seed, features=CONTRACTED)) for seed in (0, 1)]
    layer, _, first, x, grad = arguments(mode, drawn[0])
    layers = [first, arguments(mode, drawn[1], metas=larger)[2]]

    @jax.jit
    def whole(layers: list[dict[str, Any]], x: jax.Array, grad: jax.Array) -> tuple[Any, ...]:
        with mode():
            y, pull_back = jax.vjp(apply, layers, x)
            grads, dx = pull_back(grad)
        return y, dx, grads

    hidden = dense_step(layer, mode, layers[0], x, grad).y
    second_step = dense_step(layer, mode, layers[1], hidden, grad)
    first_step = dense_step(layer, mode, layers[0], x, second_step.dx)
    expected = second_step.y, first_step.dx, [first_step.grads, second_step.grads]
    assert_trees_equal(where="two layers", actual=whole(layers, x, grad), expected=expected)


class Cell(nn.Module):
    """Two layers, one of them unnamed, some modules further down.

    Attributes:
        depth: how many modules lie around the layers, this one counted.
    """

    depth: int = 3

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply both."""
        if self.depth > 1:
            return Cell(self.depth - 1)(x)
        for name in ("query", None):
            x = te.dense_general(features=CONTRACTED, use_bias=False, name=name)(x)
        return x


class ScannedCell(nn.Module):
    """A cell that is rematerialised, as `nn.scan` wants it."""

    @nn.compact
    def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        """Apply it."""
        return nn.remat(Cell)(name="cell")(x), None


class Loop(nn.Module):
    """Three cells: six layers, each of them four modules deep."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply all."""
        for number in range(CELLS):
            x = Cell(name=f"cell{number}")(x)
        return x


class Scan(nn.Module):
    """The same as a scan."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply all."""
        axes = dict.fromkeys(["params", te.metadata_collection()], 0)
        unpartitioned = {nn.PARTITION_NAME: None}
        scanned = nn.scan(ScannedCell, axes, split_rngs={"params": True}, length=CELLS, metadata_params=unpartitioned)
        y, _ = scanned(name="cells")(x, None)
        return y


CELLS = 3
Layers = Sequence[Mapping[str, Any]]


def of_cell(layers: Layers) -> dict[str, Any]:
    """Variables of a cell out of those of its two layers."""
    names = ("query", "DenseGeneral_0")
    return {
        c: {"Cell_0": {"Cell_0": {name: layer[c] for name, layer in zip(names, layers, strict=True)}}}
        for c in layers[0]
    }


def of_loop(layers: Layers) -> dict[str, Any]:
    """Variables of `Loop`, in the order in which it applies its layers."""
    cells = [of_cell(layers[2 * number : 2 * number + 2]) for number in range(CELLS)]
    return {c: {f"cell{number}": cell[c] for number, cell in enumerate(cells)} for c in layers[0]}


def of_scan(layers: Layers) -> dict[str, Any]:
    """Variables of `Scan`."""
    cells = stack([of_cell(layers[2 * number : 2 * number + 2]) for number in range(CELLS)])
    return {c: {"cells": {"cell": cells[c]}} for c in cells}


DEEP: dict[str, tuple[nn.Module, Callable[[Layers], dict[str, Any]]]] = {
    "loop": (Loop(), of_loop),
    "nn.scan of nn.remat": (Scan(), of_scan),
}


def sparse_kernel(seed: int) -> Array:
    """Two numbers in each column and row: sums of two terms do not depend on their order, in however many layers."""
    drawn = np.random.default_rng(seed)
    order = drawn.permutation(CONTRACTED)
    kernel = np.zeros((CONTRACTED, CONTRACTED), np.float32)
    for shift in (0, 1):
        kernel[np.arange(CONTRACTED), np.roll(order, shift)] = drawn.choice([-1, -0.5, 0.5, 1], CONTRACTED)
    return kernel


def one_after_the_other(
    layer: Any, mode: te.Autocast, layers: Sequence[dict[str, Any]], x: jax.Array, grad: jax.Array
) -> tuple[jax.Array, jax.Array, list[dict[str, Any]]]:
    """Output, input gradient and the layers' gradients of a model, out of steps of its layers alone."""
    inputs = [x]
    for variables in layers:
        inputs.append(dense_step(layer, mode, variables, inputs[-1], grad).y)
    grads: list[dict[str, Any]] = []
    for variables, hidden in zip(reversed(layers), reversed(inputs[:-1]), strict=True):
        step = dense_step(layer, mode, variables, hidden, grad)
        grads.insert(0, step.grads)
        grad = step.dx
    return inputs[-1], grad, grads


@all_modes
@pytest.mark.parametrize("name", DEEP)
def test_deep_model_equals_its_layers_one_after_the_other(name: str, mode: te.Autocast) -> None:
    """Six layers four modules deep, each with metadata of its own: the number and the depth of layers do not count."""
    model, joined_variables = DEEP[name]
    values = integers(features=CONTRACTED)
    layers = []
    for number in range(6):
        tensors = {**without_bias(values), "kernel": sparse_kernel(number)}
        layer, _, variables, x, grad = arguments(mode, tensors, metas=settled_metas(times=2.0**number))
        layers.append(variables)

    @jax.jit
    def whole(variables: Any, x: jax.Array, grad: jax.Array) -> tuple[Any, ...]:
        with mode():
            y, pull_back = jax.vjp(model.apply, variables, x)
            grads, dx = pull_back(grad)
        return y, dx, grads

    with mode():
        made = te.unbox(jax.eval_shape(model.init, jax.random.key(0), x))
    variables = joined_variables(layers)
    made_paths, paths = (set(flax.traverse_util.flatten_dict(tree)) for tree in (made, variables))
    assert made_paths == paths, f"initialised variables: {sorted(made_paths ^ paths)} are missing or should not be"
    y, dx, grads = one_after_the_other(layer, mode, layers, x, grad)
    expected = y, dx, joined_variables(grads)
    assert_trees_equal(where=f"six layers, {name}", actual=whole(variables, x, grad), expected=expected)
