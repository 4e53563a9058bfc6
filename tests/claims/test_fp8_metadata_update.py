"""Claim: TE's delayed scaling updates amax histories and scales as the recipe says, step by step.

Promised by the docstring of ``transformer_engine.common.recipe.DelayedScaling`` and by TE's user guide: a step
quantizes with the scale of the steps before it, records the amax of what it saw, and derives the next scale from the
history. The new metadata arrive as the gradient of their collection.

What a failure means for an upgrade: FP8 training scales tensors wrongly. It saturates or underflows, often without a
visible error in the first steps.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mnist_fp8 import te
from mnist_fp8.core.modes import Precision, RecipeConfig
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.model.delayed import newest
from mnist_fp8.oracle.dense import TENSORS, Array, Meta, initial_meta
from mnist_fp8.oracle.tolerances import fp8_error_band, scale_tolerance
from mnist_fp8.te.dense_step import (
    Step,
    dense_layer,
    dense_step,
    fp8,
    init_shapes,
    on_device,
    read_meta,
    variables_of,
    with_amax,
)
from mnist_fp8.training import train
from mnist_fp8.training.config import TrainConfig
from support.assertions import (
    assert_close,
    assert_close_norm,
    assert_equal,
    assert_same_structure,
    assert_trees_equal,
)
from support.metadata import assert_metas, initial_metadata, next_metas

ROWS, CONTRACTED, FEATURES = 16, 32, 16
SHAPES = {"x": (ROWS, CONTRACTED), "kernel": (CONTRACTED, FEATURES), "grad": (ROWS, FEATURES)}


def x_of_ones() -> jax.Array:
    """Input of a layer, where its values do not matter."""
    return on_device(np.ones(SHAPES["x"]), "bfloat16")


def run_step(mode: te.Autocast, metas: dict[str, Meta], amaxes: dict[str, float], seed: int = 0) -> Step:
    """One step of a dense layer on tensors with the given amaxes."""
    layer = dense_layer(features=FEATURES, use_bias=False)
    kernel = with_amax(amaxes["kernel"], SHAPES["kernel"], seed)
    return dense_step(layer, mode, variables_of(kernel, metas), *batch_of(amaxes, seed))


def batch_of(amaxes: dict[str, float], seed: int = 0) -> list[jax.Array]:
    """Input and output gradient with the given amaxes, in BF16."""
    return [on_device(with_amax(amaxes[name], SHAPES[name], seed), "bfloat16") for name in ("x", "grad")]


# --- what is stored ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 16, 1024])
def test_metadata_start_as_scale_one_and_an_empty_history(length: int) -> None:
    layer = dense_layer(features=FEATURES)
    metadata = initial_metadata(layer, fp8(amax_history_len=length), x_of_ones())
    expected = {te.scale_leaf(t): ((1,), "float32") for t in TENSORS}
    expected |= {te.history_leaf(t): ((length,), "float32") for t in TENSORS}
    assert_same_structure(where="metadata after init", actual=metadata, expected=expected)
    assert_metas(metadata, dict.fromkeys(TENSORS, initial_meta(length)), where="metadata after init")


def test_default_history_keeps_1024_steps() -> None:
    variables = init_shapes(dense_layer(features=FEATURES), fp8(), x_of_ones())
    for tensor in TENSORS:
        found = variables[te.metadata_collection()][te.history_leaf(tensor)].shape
        assert found == (1024,), f"default history of {tensor}: shape={found}, but should be (1024,)"


def test_current_scaling_keeps_no_metadata() -> None:
    # Control: metadata belong to delayed scaling.
    layer = dense_layer(features=FEATURES)
    variables = init_shapes(layer, fp8("Float8CurrentScaling"), x_of_ones())
    assert set(variables) == {"params"}, f"collections={sorted(variables)}, but should be params only"


# --- step by step --------------------------------------------------------------------------------------------------


class Written(TypedDict):
    """A step written out: what it sees, and the metadata after it, by tensor."""

    amax: dict[str, float]
    history: dict[str, list[float]]
    scale: dict[str, float]


WRITTEN_OUT: list[Written] = [
    # amaxes of this step, then history and scale afterwards, worked out by hand. 448/amax for x and kernel (E4M3),
    # 57344/amax for the gradient (E5M2), where amax is the largest of the last four.
    {
        "amax": {"x": 1.0, "kernel": 3.5, "grad": 0.25},
        "history": {"x": [0, 0, 0, 1], "kernel": [0, 0, 0, 3.5], "grad": [0, 0, 0, 0.25]},
        "scale": {"x": 448.0, "kernel": 128.0, "grad": 229376.0},
    },
    {
        "amax": {"x": 2.0, "kernel": 1.75, "grad": 0.5},
        "history": {"x": [0, 0, 1, 2], "kernel": [0, 0, 3.5, 1.75], "grad": [0, 0, 0.25, 0.5]},
        "scale": {"x": 224.0, "kernel": 128.0, "grad": 114688.0},
    },
    {
        "amax": {"x": 4.0, "kernel": 7.0, "grad": 0.125},
        "history": {"x": [0, 1, 2, 4], "kernel": [0, 3.5, 1.75, 7], "grad": [0, 0.25, 0.5, 0.125]},
        "scale": {"x": 112.0, "kernel": 64.0, "grad": 114688.0},
    },
    {
        "amax": {"x": 0.5, "kernel": 0.875, "grad": 0.125},
        "history": {"x": [0, 2, 4, 0.5], "kernel": [0, 1.75, 7, 0.875], "grad": [0, 0.5, 0.125, 0.125]},
        "scale": {"x": 112.0, "kernel": 64.0, "grad": 114688.0},
    },
    {
        "amax": {"x": 0.5, "kernel": 0.875, "grad": 0.125},
        "history": {"x": [0, 4, 0.5, 0.5], "kernel": [0, 7, 0.875, 0.875], "grad": [0, 0.125, 0.125, 0.125]},
        "scale": {"x": 112.0, "kernel": 64.0, "grad": 114688.0},
    },
    {
        "amax": {"x": 0.5, "kernel": 0.875, "grad": 0.0625},
        "history": {"x": [0, 0.5, 0.5, 0.5], "kernel": [0, 0.875, 0.875, 0.875], "grad": [0, 0.125, 0.125, 0.0625]},
        "scale": {"x": 112.0, "kernel": 64.0, "grad": 458752.0},
    },
]


WRITTEN_OUT_BEFORE_2_3: list[Written] = [
    # As above, in the words of those releases: the scale is that of the step before, and entry 0 the newest.
    {
        "amax": {"x": 1.0, "kernel": 3.5, "grad": 0.25},
        "history": {"x": [1, 0, 0, 0], "kernel": [3.5, 0, 0, 0], "grad": [0.25, 0, 0, 0]},
        "scale": {"x": 1.0, "kernel": 1.0, "grad": 1.0},
    },
    {
        "amax": {"x": 2.0, "kernel": 1.75, "grad": 0.5},
        "history": {"x": [2, 0, 0, 1], "kernel": [1.75, 0, 0, 3.5], "grad": [0.5, 0, 0, 0.25]},
        "scale": {"x": 448.0, "kernel": 128.0, "grad": 229376.0},
    },
    {
        "amax": {"x": 4.0, "kernel": 7.0, "grad": 0.125},
        "history": {"x": [4, 0, 1, 2], "kernel": [7, 0, 3.5, 1.75], "grad": [0.125, 0, 0.25, 0.5]},
        "scale": {"x": 224.0, "kernel": 128.0, "grad": 114688.0},
    },
    {
        "amax": {"x": 0.5, "kernel": 0.875, "grad": 0.125},
        "history": {"x": [0.5, 1, 2, 4], "kernel": [0.875, 3.5, 1.75, 7], "grad": [0.125, 0.25, 0.5, 0.125]},
        "scale": {"x": 112.0, "kernel": 64.0, "grad": 114688.0},
    },
    {
        "amax": {"x": 0.5, "kernel": 0.875, "grad": 0.0625},
        "history": {"x": [0.5, 2, 4, 0.5], "kernel": [0.875, 1.75, 7, 0.875], "grad": [0.0625, 0.5, 0.125, 0.125]},
        "scale": {"x": 112.0, "kernel": 64.0, "grad": 114688.0},
    },
]


def test_history_and_scale_match_numbers_worked_out_by_hand() -> None:
    metas = dict.fromkeys(TENSORS, initial_meta(4))
    written_out = WRITTEN_OUT if te.metadata_dialect().stores_next_scale else WRITTEN_OUT_BEFORE_2_3
    for number, step in enumerate(written_out):
        metadata = run_step(fp8(amax_history_len=4), metas, step["amax"]).metadata
        metas = {
            tensor: Meta(np.float32(step["scale"][tensor]), np.asarray(step["history"][tensor], np.float32))
            for tensor in TENSORS
        }
        assert_metas(metadata, metas, where=f"step {number}")


OPTIONS = {
    "max": {"amax_history_len": 4, "amax_compute_algo": "max"},
    "most recent": {"amax_history_len": 4, "amax_compute_algo": "most_recent"},
    "margin 2": {"amax_history_len": 3, "margin": 2},
    "most recent, margin -1": {"amax_history_len": 2, "amax_compute_algo": "most_recent", "margin": -1},
    "margin 5": {"amax_history_len": 2, "margin": 5},
    "history of one": {"amax_history_len": 1},
    "history of one, most recent": {"amax_history_len": 1, "amax_compute_algo": "most_recent"},
    "long history": {"amax_history_len": 1024},
    "E4M3": {"amax_history_len": 4, "fp8_format": "E4M3"},
    "defaults": {},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_metadata_follow_the_oracle_over_many_steps(options: dict[str, Any]) -> None:
    drawn = np.random.default_rng(7)
    metas = dict.fromkeys(TENSORS, initial_meta(options.get("amax_history_len", 1024)))
    for number in range(10):
        amaxes = {tensor: _bf16(float(np.exp(drawn.normal(0, 3)))) for tensor in TENSORS}
        metadata = run_step(fp8(**options), metas, amaxes, seed=number).metadata
        metas = next_metas(metas, amaxes, options)
        assert_metas(metadata, metas, where=f"step {number}")


def _bf16(value: float) -> float:
    return float(jnp.bfloat16(value))


def test_largest_amax_counts_wherever_it_stands_in_the_history() -> None:
    """A history of 64 whose largest entry is the oldest but one: it decides twice, and is gone in the third step."""
    history = np.ones(64, np.float32)
    history[0], history[2] = 0, 50
    metas = dict.fromkeys(TENSORS, Meta(np.float32(1), history))
    for number, largest in enumerate((50, 50, 2)):
        amaxes = dict.fromkeys(TENSORS, 2.0)
        metadata = run_step(fp8(amax_history_len=64), metas, amaxes).metadata
        metas = next_metas(metas, amaxes, {})
        assert metas["x"].scale == np.float32(448) / np.float32(largest), "Control: the oracle's own scale"
        assert_metas(metadata, metas, where=f"step {number}")


@pytest.mark.parametrize("algo", ["max", "most_recent"])
def test_scales_follow_the_oracle_beyond_the_default_length_of_the_history(algo: str) -> None:
    """Amaxes that fall and rise, the largest of them at the very start: it decides until it leaves the history.

    The steps are those of one scan that carries the metadata, so that a thousand cost little more than a few.
    """
    options, length, steps = {"amax_compute_algo": algo}, 1024, 1040
    layer, mode, name = dense_layer(features=FEATURES, use_bias=False), fp8(**options), te.metadata_collection()
    drawn = np.random.default_rng(3)
    amaxes = np.exp2(drawn.normal(0, 2, (steps, len(TENSORS)))).astype(jnp.bfloat16).astype(np.float32)
    amaxes[1], amaxes[length // 2] = 2**10, 2**9
    ones = {tensor: with_amax(1.0, SHAPES[tensor], 0) for tensor in TENSORS}
    fresh = variables_of(ones["kernel"], dict.fromkeys(TENSORS, initial_meta(length)))

    def body(metadata: Any, sizes: jax.Array) -> tuple[Any, Any]:
        x, kernel, grad = (jnp.asarray(ones[tensor]) * size for tensor, size in zip(TENSORS, sizes, strict=True))
        step = dense_step(layer, mode, {"params": {"kernel": kernel}, name: metadata}, x, grad)
        return step.metadata, {tensor: step.metadata[te.scale_leaf(tensor)] for tensor in TENSORS}

    last, scales = jax.jit(lambda metadata: jax.lax.scan(body, metadata, jnp.asarray(amaxes)))(fresh[name])
    metas, wanted = dict.fromkeys(TENSORS, initial_meta(length)), []
    for sizes in amaxes.tolist():
        metas = next_metas(metas, dict(zip(TENSORS, sizes, strict=True)), options)
        wanted.append({tensor: [meta.scale] for tensor, meta in metas.items()})
    for tensor in TENSORS:
        expected = np.asarray([step[tensor] for step in wanted])
        tolerance = [[scale_tolerance(float(scale), te.engine().kind)] for (scale,) in expected]
        assert_close(
            where=f"{tensor} scales, step by step", actual=scales[tensor], expected=expected, tolerance=tolerance
        )
    assert_metas(last, metas, where="metadata after the last step")


@pytest.mark.parametrize("corner", [(0, 0), (0, -1), (-1, 0), (-1, -1)], ids=str)
def test_amax_is_found_in_every_corner_of_a_tensor(corner: tuple[int, int]) -> None:
    """That of one micro-batch or of one device's part would miss some."""
    amaxes = {"x": 16.0, "kernel": 32.0, "grad": 64.0}
    values = {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}
    for name, value in values.items():
        value[corner] = -amaxes[name]
    metas, mode = dict.fromkeys(TENSORS, initial_meta(4)), fp8(amax_history_len=4)
    x, grad = (on_device(values[name], "bfloat16") for name in ("x", "grad"))
    layer = dense_layer(features=FEATURES, use_bias=False)
    step = dense_step(layer, mode, variables_of(values["kernel"], metas), x, grad)
    expected = next_metas(metas, amaxes, {"amax_history_len": 4})
    assert_metas(step.metadata, expected, where=f"amax in corner {corner}")


SPECIAL = {
    "zero": [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 2.0],
    "huge": [1.0, 3.0e38, 1.0, 1.0, 1.0, 1.0, 1.0],
    "tiny": [1.0, 2.0e-30, 2.0e-30, 2.0e-30, 2.0e-30, 1.0],
    "infinite": [1.0, np.inf, 2.0, 2.0, 2.0, 2.0, 2.0],
    "not a number": [1.0, np.nan, 2.0, 2.0, 2.0, 2.0, 2.0],
}


@pytest.mark.parametrize("algo", ["max", "most_recent"])
@pytest.mark.parametrize("special", SPECIAL)
def test_special_amaxes_leave_the_scale_usable(special: str, algo: str) -> None:
    """Zero, infinite and NaN amaxes keep the old scale; a huge or tiny one gives the scale of the formula.

    A NaN element makes TE's JAX path record NaN, while its kernels pass over it and record the amax of the others.
    """
    options: dict[str, Any] = {"amax_history_len": 4, "amax_compute_algo": algo}
    metas = dict.fromkeys(TENSORS, initial_meta(4))
    for number, value in enumerate(SPECIAL[special]):
        amaxes = dict.fromkeys(TENSORS, _bf16(value))
        amaxes["kernel"] = float(np.float32(value))  # the kernel's amax is taken in its own dtype, float32
        metadata = run_step(fp8(**options), metas, amaxes).metadata
        amaxes = {tensor: _recorded(amax, tensor) for tensor, amax in amaxes.items()}
        metas = next_metas(metas, amaxes, options)
        assert_metas(metadata, metas, where=f"{special} amax, step {number}", nan=True)


def test_tiny_amax_leaves_the_scale_finite() -> None:
    """448 / amax is beyond float32 for an amax below 1.3e-36: the scale has to stop at the largest number."""
    amaxes, metas = dict.fromkeys(TENSORS, 1e-37), dict.fromkeys(TENSORS, initial_meta(4))
    for _ in range(2):  # with the second step, the stored scale has moved in every release
        metadata = run_step(fp8(amax_history_len=4), metas, amaxes).metadata
        metas = {tensor: read_meta(metadata, tensor) for tensor in TENSORS}
    scales = {tensor: float(meta.scale) for tensor, meta in metas.items()}
    assert np.isfinite(list(scales.values())).all(), f"scales after an amax of 1e-37={scales}, but should be finite"


def _recorded(amax: float, tensor: str) -> float:
    if not np.isnan(amax) or te.engine().kind is RunKind.HOST:
        return amax
    others = float(np.nanmax(np.abs(with_amax(amax, SHAPES[tensor], 0))))
    return others if tensor == "kernel" else _bf16(others)


# --- when they are updated, and how they travel --------------------------------------------------------------------


def settled_metas() -> dict[str, Meta]:
    """Metadata unlike each other and unlike fresh ones."""
    return {
        "x": Meta(np.float32(101), np.asarray([0, 3, 1, 2], np.float32)),
        "kernel": Meta(np.float32(52), np.asarray([0, 5, 4, 8], np.float32)),
        "grad": Meta(np.float32(707), np.asarray([0, 9, 7, 6], np.float32)),
    }


def test_evaluation_leaves_metadata_as_they_are() -> None:
    """Even where the collection may be written to."""
    metas = settled_metas()
    variables = variables_of(with_amax(20.0, SHAPES["kernel"], 0), metas)
    x = on_device(with_amax(30.0, SHAPES["x"], 0), "bfloat16")
    layer = dense_layer(features=FEATURES, use_bias=False)
    name = te.metadata_collection()
    with fp8(amax_history_len=4)():
        _, updated = layer.apply(variables, x, mutable=[name])
    assert_metas(updated[name], metas, where="collection that evaluation returned")


def test_metadata_do_not_depend_on_where_the_loss_is_scaled() -> None:
    """They are no gradient: x and kernel stay, and the gradient's amax follows the loss."""
    metas, amaxes = settled_metas(), {"x": 1.5, "kernel": 2.5, "grad": 4.0}
    mode = fp8(amax_history_len=4)
    for factor in (1.0, 8.0):
        scaled = amaxes | {"grad": amaxes["grad"] * factor}
        expected = next_metas(metas, scaled, {"amax_history_len": 4})
        assert_metas(run_step(mode, metas, scaled).metadata, expected, where=f"loss times {factor}")


def test_metadata_carried_through_scan_equal_a_loop() -> None:
    layer = dense_layer(features=FEATURES, use_bias=False)
    mode, name, steps = fp8(amax_history_len=4), te.metadata_collection(), 3
    kernel = with_amax(2.0, SHAPES["kernel"], 0)
    xs, grads = map(jnp.stack, zip(*(batch_of({"x": 2.0**i, "grad": 3.0**i}, i) for i in range(steps)), strict=True))
    variables = variables_of(kernel, settled_metas())

    def body(metadata: Any, batch: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        step = dense_step(layer, mode, {**variables, name: metadata}, *batch)
        return step.metadata, None

    scanned, _ = jax.lax.scan(body, variables[name], (xs, grads))
    metas = settled_metas()
    for i in range(steps):
        amaxes = {"x": 2.0**i, "kernel": 2.0, "grad": 3.0**i}
        metas = next_metas(metas, amaxes, {"amax_history_len": 4})
    assert_metas(scanned, metas, where="metadata after a scan of three steps")


def test_layer_applied_twice_returns_the_sum_of_both_updates() -> None:
    """Stated and pinned: JAX adds up what two uses return, so shared layers and accumulated gradients must not be.

    With one collection for two uses (or two micro-batches added up), histories and scales come out as sums: here, a
    scale twice as large as either. A user has to keep one of them, as `mnist_fp8.train` does by updating each step.
    """
    layer = dense_layer(features=FEATURES, use_bias=False)
    mode, name = fp8(amax_history_len=4), te.metadata_collection()
    x, grad = batch_of({"x": 2.0, "grad": 2.0})
    variables = variables_of(with_amax(2.0, SHAPES["kernel"], 0), settled_metas())

    def both(variables: Any) -> jax.Array:
        return layer.apply(variables, x) + layer.apply(variables, x)

    with mode():
        _, pull_back = jax.vjp(both, variables)
        (twice,) = pull_back(grad)
    once = dense_step(layer, mode, variables, x, grad)
    for leaf, value in once.metadata.items():
        assert_equal(where=f"{leaf} of a layer applied twice", actual=twice[name][leaf], expected=2 * value)


def test_gradients_accumulated_over_micro_batches_add_metadata_up() -> None:
    """Stated and pinned, as above: the sum is no metadata, and each micro-batch's own are what the oracle says."""
    mode, metas = fp8(amax_history_len=4), settled_metas()
    batches = [{"x": 2.0, "kernel": 3.0, "grad": 0.5}, {"x": 8.0, "kernel": 3.0, "grad": 4.0}]
    steps = [run_step(mode, metas, amaxes) for amaxes in batches]
    for number, (step, amaxes) in enumerate(zip(steps, batches, strict=True)):
        expected = next_metas(metas, amaxes, {"amax_history_len": 4})
        assert_metas(step.metadata, expected, where=f"micro-batch {number}")
    layer = dense_layer(features=FEATURES, use_bias=False)
    inputs = [batch_of(amaxes) for amaxes in batches]

    def accumulated(variables: Any) -> jax.Array:
        first, second = (jnp.sum(layer.apply(variables, x).astype(jnp.float32) * grad) for x, grad in inputs)
        return first + second

    with mode():
        sums = jax.grad(accumulated)(variables_of(with_amax(3.0, SHAPES["kernel"], 0), metas))
    for leaf, value in sums[te.metadata_collection()].items():
        expected = steps[0].metadata[leaf] + steps[1].metadata[leaf]
        assert_equal(where=f"{leaf} accumulated over two micro-batches", actual=value, expected=expected)


LayerOfStep = Callable[[bool, Callable[[], jax.Array]], jax.Array]
"""A layer in a step that runs it or not."""

LEFT_OUT: dict[str, LayerOfStep] = {
    "cond": lambda runs, layer: jax.lax.cond(jnp.asarray(runs), layer, lambda: jnp.zeros((ROWS, FEATURES))),
    "stop_gradient": lambda runs, layer: layer() if runs else jax.lax.stop_gradient(layer()),
}
"""A branch that is not taken, and an output that is not differentiated."""


@pytest.mark.parametrize("how", LEFT_OUT)
def test_layer_that_a_step_leaves_out_is_right_in_the_next(how: str) -> None:
    """Layer drop, or an expert without tokens: nothing goes back to the layer, which gives its metadata zeros."""
    outputs = outputs_of_steps(4, LEFT_OUT[how], (True, True, False, True))
    assert_outputs_of_twos(outputs, (1, 3))  # before it is left out, and after


def test_layer_whose_gradient_is_zero_is_right_in_the_next() -> None:
    """A masked loss: the layer runs, backward as well. A scale that follows from an amax of zero would be infinite."""
    outputs = outputs_of_steps(1, lambda runs, layer: layer() * float(runs), (True, True, False, True))
    assert_outputs_of_twos(outputs, (1, 3))


def outputs_of_steps(length: int, apply: LayerOfStep, runs: tuple[bool, ...]) -> list[jax.Array]:
    """Outputs of a layer on twos over some steps that run it or not, and carry its histories of some length."""
    layer, name, mode = (
        dense_layer(features=FEATURES, use_bias=False),
        te.metadata_collection(),
        fp8(amax_history_len=length),
    )
    x, kernel = twos()

    @functools.partial(jax.jit, static_argnums=1)
    def step(variables: Any, runs: bool) -> tuple[jax.Array, Any]:  # noqa: FBT001
        def loss(variables: Any) -> tuple[jax.Array, jax.Array]:
            y = apply(runs, lambda: layer.apply(variables, x))
            return jnp.sum(y), y

        with mode():
            grads, y = jax.grad(loss, has_aux=True)(variables)
        return y, {**variables, name: grads[name]}

    variables, outputs = variables_of(kernel, dict.fromkeys(TENSORS, initial_meta(length))), []
    for given in runs:
        y, variables = step(variables, given)
        outputs.append(y)
    return outputs


def twos() -> tuple[jax.Array, Array]:
    """Input and kernel of an amax of 2, in float32: gradients of two branches have to be of one dtype."""
    return on_device(with_amax(2.0, SHAPES["x"], 0)), with_amax(2.0, SHAPES["kernel"], 1)


def assert_outputs_of_twos(outputs: Sequence[jax.Array], steps: Sequence[int]) -> None:
    """The outputs of some steps are as exact as FP8."""
    __tracebackhide__ = True
    (x, kernel), (_, tolerance) = twos(), fp8_error_band("float8_e4m3fn", "float8_e4m3fn")
    expected = np.asarray(x, np.float64) @ kernel
    for step in steps:
        assert_close_norm(where=f"step {step}", actual=outputs[step], expected=expected, tolerance=tolerance)


def test_layer_bridged_into_nnx_returns_the_same_metadata() -> None:
    """There they are variables of a module, and arrive as a gradient where the state to differentiate includes them."""
    layer, mode = dense_layer(features=FEATURES, use_bias=False), fp8(amax_history_len=4)
    x, _ = batch_of({"x": 4.0, "grad": 1.0})
    name = te.metadata_collection()
    wanted = nnx.DiffState(0, nnx.Not(nnx.RngState))

    def loss(model: Any) -> jax.Array:
        return jnp.sum(model(x).astype(jnp.float32))

    with mode():
        model = nnx.bridge.ToNNX(layer, rngs=nnx.Rngs(0)).lazy_init(x)
        grads = nnx.to_flat_state(nnx.grad(loss, argnums=wanted)(model))
    found = {path[-1]: leaf.get_value() for path, leaf in grads}
    variables = {"params": {"kernel": model.kernel.get_value()}, name: initial_metadata(layer, mode, x)}
    step = dense_step(layer, mode, variables, x, on_device(np.ones((ROWS, FEATURES)), x.dtype))
    assert_equal(where="kernel gradient", actual=found.pop("kernel"), expected=step.grads["params"]["kernel"])
    assert_trees_equal(where="metadata", actual=found, expected=step.metadata)
    assert newest(read_meta(found, "x")) == 4, "Control: the amax of the input should have been recorded"


def test_rematerialisation_does_not_record_twice() -> None:
    layer = dense_layer(features=FEATURES, use_bias=False)
    mode, name = fp8(amax_history_len=4), te.metadata_collection()
    x, grad = batch_of({"x": 2.0, "grad": 2.0})
    variables = variables_of(with_amax(2.0, SHAPES["kernel"], 0), settled_metas())
    with mode():
        _, pull_back = jax.vjp(jax.checkpoint(layer.apply), variables, x)
        remade, _ = pull_back(grad)
    plain = dense_step(layer, mode, variables, x, grad)
    assert_trees_equal(where="metadata under jax.checkpoint", actual=remade[name], expected=plain.metadata)


def test_amaxes_that_would_not_be_reduced_are_refused() -> None:
    """TE documents that it supports only ``reduce_amax=True`` in JAX."""
    recipe: Any = te.make_recipe(RecipeConfig())
    recipe.reduce_amax = False
    layer = dense_layer(features=FEATURES)
    with pytest.raises(AssertionError, match="reduce_amax"), te.autocast(enabled=True, recipe=recipe):
        layer.init(jax.random.key(0), x_of_ones())


def test_recipe_counts_that_is_in_force_and_not_the_first_of_the_process() -> None:
    """Traced twice, each time under a recipe of its own; nothing but the margin differs, and with it the scales."""
    name = "autocast" if te.has_name("autocast") else "fp8_autocast"
    layer = dense_layer(features=FEATURES, use_bias=False)
    amaxes = {"x": 1.5, "kernel": 2.5, "grad": 4.0}
    variables = variables_of(with_amax(amaxes["kernel"], SHAPES["kernel"], 0), settled_metas())
    x, grad = batch_of(amaxes)
    for margin in (0, 3):
        recipe = te.make_recipe(RecipeConfig(margin=margin, amax_history_len=4))
        with te.raw_autocast(name, True, recipe, te.mesh_resource()):  # noqa: FBT003
            _, pull_back = jax.vjp(lambda variables: layer.apply(variables, x), variables)
            metadata = pull_back(grad)[0][te.metadata_collection()]
        expected = next_metas(settled_metas(), amaxes, {"margin": margin})
        assert_metas(metadata, expected, where=f"margin {margin}")


def test_metadata_collection_has_the_name_that_checkpoints_know() -> None:
    found = te.metadata_collection()
    assert found == "fp8_metas", f"collection={found!r}, but should be 'fp8_metas', as in checkpoints since 1.8"


# --- under a recipe without metadata -------------------------------------------------------------------------------


def test_autocast_without_metadata_is_an_error_that_names_them() -> None:
    """TE documents that variables come from an initialisation under autocast; there is no silent fallback."""
    layer = dense_layer(features=FEATURES, use_bias=False)
    x = x_of_ones()
    with fp8()(), pytest.raises(flax.errors.FlaxError, match=te.metadata_collection()):
        layer.apply(variables_of(with_amax(1.0, SHAPES["kernel"], 0), {}), x)


def test_autocast_creates_missing_metadata_when_they_are_mutable() -> None:
    layer = dense_layer(features=FEATURES, use_bias=False)
    name = te.metadata_collection()
    variables = variables_of(with_amax(1.0, SHAPES["kernel"], 0), {})
    with fp8(amax_history_len=4)():
        _, created = layer.apply(variables, x_of_ones(), mutable=[name])
    assert_metas(created[name], dict.fromkeys(TENSORS, initial_meta(4)), where="created metadata")


# --- update_collections --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", [False, True], ids=["dict", "FrozenDict"])
def test_update_collections_replaces_named_collections_whole(frozen: bool) -> None:  # noqa: FBT001
    original = {"params": {"w": 1}, "fp8_metas": {"a": 1, "b": 2}}
    given = flax.core.freeze(original) if frozen else original
    updated = te.update_collections({"fp8_metas": {"a": 3}, "added": {"c": 4}}, given)
    expected = {"params": {"w": 1}, "fp8_metas": {"a": 3}, "added": {"c": 4}}
    assert dict(updated) == expected, f"updated collections={dict(updated)}, but should be {expected}"
    assert isinstance(updated, flax.core.FrozenDict) is frozen, f"type={type(updated).__name__}, should follow original"
    assert original == {"params": {"w": 1}, "fp8_metas": {"a": 1, "b": 2}}, "the original collections were changed"


# --- in the training loop ------------------------------------------------------------------------------------------


def _batch(seed: int) -> tuple[Any, Any]:
    drawn = np.random.default_rng(seed)
    return drawn.random((16, 9, 9, 1), np.float32), drawn.integers(0, 10, 16).astype(np.int32)


@pytest.mark.parametrize("interval", [1, 3])
def test_training_replaces_metadata_at_each_interval_and_nothing_else_touches_them(interval: int) -> None:
    """Never averaged, decayed or passed through the optimizer, whose momentum would show after two steps."""
    config = TrainConfig(precision=Precision.TE_FP8, fp8_update_interval=interval, batch_size=16, pooling=3)
    state, metadata = train.create_train_state(config)
    name = te.metadata_collection()
    expected = metadata[name]
    for step in range(4):
        rngs = {"dropout": jax.random.key(step)}
        grads, _, _ = train.apply_model(state, *_batch(step), metadata, rngs)
        state, metadata = train.update_model(state, grads, metadata)
        if (step + 1) % interval == 0:
            expected = grads[name]
        assert_trees_equal(where=f"metadata after step {step}", actual=metadata[name], expected=expected)
    optimized = {path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(state.opt_state)}
    assert optimized == {"kernel", "bias"}, f"optimizer keeps state for {sorted(optimized)}, but should for params only"


def test_every_layer_of_the_network_has_its_own_moving_metadata() -> None:
    state, metadata = train.create_train_state(TrainConfig(precision=Precision.TE_FP8, batch_size=16, pooling=3))
    name = te.metadata_collection()
    after = metadata
    for _ in range(2):  # with the second step, the stored scale has moved in every release
        kernels = {layer: state.params[layer]["kernel"] for layer in ("dense1", "dense2", "dense3")}
        grads, _, _ = train.apply_model(state, *_batch(0), after, {"dropout": jax.random.key(0)})
        state, after = train.update_model(state, grads, after)
    for layer, kernel in kernels.items():
        for tensor in TENSORS:
            old, new = (read_meta(m[name][layer], tensor) for m in (metadata, after))
            assert newest(new) > 0, f"{layer}: {tensor} recorded amax={newest(new)}, but should be above 0"
            assert new.scale != old.scale, f"{layer}: {tensor} scale stayed {old.scale}"
        recorded = newest(read_meta(after[name][layer], "kernel"))
        assert_equal(where=f"{layer}: kernel amax", actual=recorded, expected=np.max(np.abs(kernel)))
