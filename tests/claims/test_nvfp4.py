"""Claim: a dense layer in NVFP4 multiplies what its recipe says, and needs nothing else.

Promised by TE's recipe (``NVFP4BlockScaling``) and the paper that it cites, NVIDIA's "Pretraining Large Language Models
with NVFP4" (2025). Output and gradients are compared with the product of codes and scales that an oracle in NumPy makes
(`mnist_fp8.oracle.blocks`), rounded once. ``test_nvfp4_codes.py`` is about codes and scales themselves, and
``test_nvfp4_rounding.py`` about stochastic rounding. Here are the options as well, the random numbers that the layer
asks for, that it keeps no metadata, and that its parameters work without the recipe. The claim has not run on a GPU
that has NVFP4.

What a failure means for an upgrade: training in NVFP4 computes something else, or does not run as it did.
"""

import functools
from typing import Any

import flax
import flax.linen as nn
import jax
import numpy as np
import pytest

from mnist_fp8 import te
from mnist_fp8.oracle.dense import Array, Product
from mnist_fp8.oracle.tolerances import product_tolerance
from mnist_fp8.te.dense_step import BF16, Step, dense_layer, dense_step, fp8, init, on_device, variables_of
from support.assertions import assert_close, assert_equal, assert_trees_equal
from support.blocks import expected_passes
from support.layers import NVFP4

pytestmark = pytest.mark.recipe("NVFP4BlockScaling")

ROWS, CONTRACTED, FEATURES = 32, 64, 48
SHAPES = {"x": (ROWS, CONTRACTED), "kernel": (CONTRACTED, FEATURES), "grad": (ROWS, FEATURES)}
NEAREST = {"disable_stochastic_rounding": True}
MODES = {
    "no option": NVFP4,
    "square": fp8("NVFP4BlockScaling", disable_rht=True, **NEAREST),
    "square, rotated": fp8("NVFP4BlockScaling", **NEAREST),
}
DEFAULT = fp8("NVFP4BlockScaling")
WIDER = ("float32", "float16")
"""On kernels, a rotation is of BF16 alone."""
CASES = [
    ("no option", "bfloat16"),
    ("square", "bfloat16"),
    ("square, rotated", "bfloat16"),
    *(pytest.param("square, rotated", dtype, marks=pytest.mark.host) for dtype in WIDER),
]


def rngs(seed: int) -> dict[str, jax.Array]:
    """A key for the stream that stochastic rounding draws from."""
    return {"sr_rng": jax.random.key(seed)}


def tensors(seed: int, dtype: str = "bfloat16") -> dict[str, Array]:
    """Numbers of few bits, rounded to a dtype; all 16 x 16 blocks of the kernel have the same amax."""
    drawn = np.random.default_rng(seed)
    values = {name: np.round(drawn.normal(size=shape) * 2**9) / 2**9 for name, shape in SHAPES.items()}
    values["kernel"] = np.clip(values["kernel"] / 4, -0.75, 0.75)
    values["kernel"][5::16, 3::16] = -0.875
    return {name: np.array(on_device(value, dtype), np.float32) for name, value in values.items()}


def graded(values: dict[str, Array]) -> dict[str, Array]:
    """With a kernel each of whose blocks is smaller than the one before."""
    sizes = 2.0 ** -np.arange(CONTRACTED // 16 * (FEATURES // 16)).reshape(CONTRACTED // 16, -1)
    return values | {"kernel": values["kernel"] * np.kron(sizes, np.ones((16, 16))).astype(np.float32)}


def run(mode: te.Autocast, values: dict[str, Array], dtype: str = "bfloat16", seed: int = 1) -> Step:
    """Forward and backward pass of a layer without bias."""
    layer = dense_layer(features=FEATURES, use_bias=False)
    x, grad = (on_device(values[name], dtype) for name in ("x", "grad"))
    return dense_step(layer, mode, variables_of(values["kernel"], {}), x, grad, rngs(seed))


def results(step: Step) -> dict[str, jax.Array]:
    return {"output": step.y, "input gradient": step.dx, "kernel gradient": step.grads["params"]["kernel"]}


def expected(mode: te.Autocast, values: dict[str, Array], dtype: str = "bfloat16") -> dict[str, Product]:
    """Products of the quantized tensors, each in blocks along the axis that is summed over."""
    assert mode.recipe
    return expected_passes(mode.recipe, values, dtype)


def assert_rounded_once(step: Step, wanted: dict[str, Product], dtype: str, *names: str, where: str) -> None:
    """In BF16 and float16, the right product rounded once; in float32, the scales of the tensors round as well."""
    __tracebackhide__ = True
    roundings = 4 if dtype == "float32" else 1
    for name in names or wanted:
        tolerance = product_tolerance(wanted[name], dtype, te.engine().kind, roundings=roundings, fp8=True)
        found = results(step)[name]
        assert_close(where=f"{where}: {name}", actual=found, expected=wanted[name].value, tolerance=tolerance)
    assert str(step.y.dtype) == dtype, f"{where}: output dtype={step.y.dtype}, but should be {dtype}"
    assert str(step.dx.dtype) == dtype, f"{where}: input gradient dtype={step.dx.dtype}, but should be {dtype}"


# --- products ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "dtype"), CASES)
def test_output_and_gradients_are_products_of_the_quantized_tensors(mode: str, dtype: str) -> None:
    for seed in (1, 2):
        values = tensors(seed, dtype)
        found = run(MODES[mode], values, dtype)
        assert_rounded_once(found, expected(MODES[mode], values, dtype), dtype, where=f"{mode}, seed {seed}")


@pytest.mark.parametrize("name", ["output", "input gradient"])
def test_each_square_block_of_a_kernel_has_its_own_scale(name: str) -> None:
    """A block counts under its own scale, and under no other."""
    values = graded(tensors(3))
    found, wanted = run(MODES["square"], values), expected(MODES["square"], values)
    assert_rounded_once(found, wanted, "bfloat16", name, where="blocks of several sizes")


def test_control_blocks_of_one_row_have_their_own_scales() -> None:
    """And square ones say nothing of the gradient of the kernel."""
    values = graded(tensors(3))
    assert_rounded_once(run(MODES["no option"], values), expected(MODES["no option"], values), "bfloat16", where="rows")
    wanted = expected(MODES["square"], values)
    assert_rounded_once(run(MODES["square"], values), wanted, "bfloat16", "kernel gradient", where="square")


@pytest.mark.parametrize("mode", ["no option", "square, rotated"])
@pytest.mark.parametrize(
    ("batch", "contracted", "features"),
    [((2, 16), (64,), (3, 16)), ((32,), (2, 32), (48,)), ((1, 2, 16), (4, 16), (3, 16))],
)
def test_axes_are_those_of_one_matrix(
    mode: str, batch: tuple[int, ...], contracted: tuple[int, ...], features: tuple[int, ...]
) -> None:
    """Of several axes of a batch, of inputs or of features, each tensor is the matrix that they are in memory."""
    values = tensors(3)
    shapes = {"x": batch + contracted, "kernel": contracted + features, "grad": batch + features}
    x, kernel, grad = (on_device(values[name].reshape(shape), "bfloat16") for name, shape in shapes.items())
    layer = dense_layer(features=features, axis=tuple(range(-len(contracted), 0)), use_bias=False)
    step = dense_step(layer, MODES[mode], {"params": {"kernel": kernel}}, x, grad, rngs(1))
    found = step._replace(
        y=step.y.reshape(ROWS, FEATURES),
        dx=step.dx.reshape(ROWS, CONTRACTED),
        grads={"params": {"kernel": step.grads["params"]["kernel"].reshape(CONTRACTED, FEATURES)}},
    )
    assert_rounded_once(found, expected(MODES[mode], values), "bfloat16", where=f"{batch} {contracted} {features}")


@pytest.mark.parametrize("dtype", ["bfloat16", *(pytest.param(each, marks=pytest.mark.host) for each in WIDER)])
def test_gradient_of_a_kernel_has_its_dtype(dtype: str) -> None:
    values = tensors(4, dtype)
    x, kernel, grad = (on_device(values[name], dtype) for name in SHAPES)
    layer = dense_layer(features=FEATURES, use_bias=False)
    step = dense_step(layer, MODES["square, rotated"], {"params": {"kernel": kernel}}, x, grad, rngs(1))
    found = str(results(step)["kernel gradient"].dtype)
    assert found == dtype, f"kernel gradient dtype={found}, but should be {dtype}"


@pytest.mark.parametrize("option", ["disable_rht", "disable_stochastic_rounding", "disable_2d_quantization"])
def test_option_works_alone(option: str) -> None:
    """With no other option set; what it changes is looked at in the other tests."""
    mode, values = fp8("NVFP4BlockScaling", **{option: True}), tensors(4)
    found = jax.eval_shape(lambda: run(mode, values))
    assert found.y.shape == SHAPES["grad"], f"{option}: output of shape {found.y.shape}"


def test_option_changes_what_it_names_and_nothing_else() -> None:
    """Rounding counts for both gradients, rotation for that of the kernel alone."""
    values = tensors(4)
    plain, unrotated = (results(run(MODES[mode], values)) for mode in ("square, rotated", "square"))
    others = {"rounding": results(run(DEFAULT, values)), "rotation": unrotated}
    wanted = {"output": [], "input gradient": ["rounding"], "kernel gradient": ["rounding", "rotation"]}
    for name, changes in wanted.items():
        found = [
            option for option, other in others.items() if (np.asarray(other[name]) != np.asarray(plain[name])).any()
        ]
        assert found == changes, f"{name} is changed by {found}, but should be by {changes}"


# --- random numbers ---------------------------------------------------------------------------------------------------


def test_key_of_the_stream_decides_gradients_and_nothing_else() -> None:
    values = tensors(5)
    first, again, other = (results(run(DEFAULT, values, seed=seed)) for seed in (1, 1, 2))
    assert_trees_equal(where="the same key", actual=again, expected=first)
    assert_equal(where="output under another key", actual=other["output"], expected=first["output"])
    for name in ("input gradient", "kernel gradient"):
        assert (np.asarray(other[name]) != np.asarray(first[name])).any(), f"{name} is the same under another key"


def test_key_of_the_stream_is_asked_for_where_gradients_are_rounded_stochastically() -> None:
    """By a forward pass alone, too: the layer makes all of its quantizers at once. Initialisation has another key."""
    layer, x = dense_layer(features=FEATURES, use_bias=False), on_device(np.ones(SHAPES["x"]), "bfloat16")
    variables = variables_of(np.ones(SHAPES["kernel"], np.float32), {})

    def trace(mode: te.Autocast, keys: dict[str, jax.Array] | None = None) -> Any:
        with mode():
            return jax.eval_shape(lambda: layer.apply(variables, x, rngs=keys))

    with pytest.raises(flax.errors.InvalidRngError, match="sr_rng"):
        trace(DEFAULT)
    for mode, keys in ((DEFAULT, rngs(1)), (MODES["square, rotated"], None)):
        assert trace(mode, keys).shape == SHAPES["grad"], "Control: with the key, or rounded to the nearest"


class Stack(nn.Module):
    """The same layer for each row of a stack of inputs, in a scan."""

    split: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def body(layer: Any, carry: None, x: jax.Array) -> tuple[None, jax.Array]:
            return carry, layer(x)

        scanned = nn.scan(body, variable_axes={"params": 0}, split_rngs={"params": True, "sr_rng": self.split})
        layer = te.dense_general(features=FEATURES, use_bias=False, name="layer")
        return scanned(layer, None, x)[1]


@pytest.mark.parametrize("split", [True, False], ids=["split", "not split"])
def test_layers_of_a_scan_draw_for_themselves_where_their_keys_are_split(split: bool) -> None:  # noqa: FBT001
    """Two layers of one kernel are given one input and one gradient."""
    values = {name: np.stack([value, value]) for name, value in tensors(6).items()}
    x, grad = (on_device(values[name], "bfloat16") for name in ("x", "grad"))
    variables = {"params": {"layer": {"kernel": on_device(values["kernel"])}}}
    step = dense_step(Stack(split), DEFAULT, variables, x, grad, rngs(1))
    assert_equal(where="outputs", actual=step.y[1], expected=step.y[0])
    differ = bool((np.asarray(step.dx[0]) != np.asarray(step.dx[1])).any())
    assert differ is split, f"the layers' input gradients differ={differ}, but should={split}"


# --- variables, and without the recipe --------------------------------------------------------------------------------


def initialised(mode: te.Autocast) -> Any:
    layer, x = dense_layer(features=FEATURES, use_bias=False), on_device(np.ones(SHAPES["x"]), "bfloat16")
    return jax.jit(functools.partial(init, layer, mode))(x, rngs(1))


def test_recipe_changes_no_parameters_and_keeps_no_metadata() -> None:
    found = initialised(DEFAULT)
    assert set(found) == {"params"}, f"collections={sorted(found)}, but should be the parameters alone"
    assert_trees_equal(where="parameters", actual=found, expected=initialised(BF16))


def test_without_autocast_its_variables_compute_in_bf16() -> None:
    """Bit for bit what a layer computes that never had a recipe, whether or not it is given the key."""
    layer, values = dense_layer(features=FEATURES, use_bias=False), tensors(7)
    x, grad = (on_device(values[name], "bfloat16") for name in ("x", "grad"))
    variables = initialised(DEFAULT)
    wanted = dense_step(layer, BF16, initialised(BF16), x, grad)
    for keys in (None, rngs(1)):
        found = dense_step(layer, BF16, variables, x, grad, keys)
        assert_trees_equal(where="without autocast", actual=results(found), expected=results(wanted))
    quantized = dense_step(layer, DEFAULT, variables, x, grad, rngs(1))
    assert (np.asarray(quantized.y) != np.asarray(wanted.y)).any(), "Control: the recipe changes the output"


# --- special numbers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHAPES)
def test_a_tensor_of_zeros_gives_zeros(name: str) -> None:
    """What it does not touch is as ever."""
    values = tensors(8)
    values[name] = np.zeros_like(values[name])
    mode = MODES["square, rotated"]
    assert_rounded_once(run(mode, values), expected(mode, values), "bfloat16", where=f"{name} of zeros")


@pytest.mark.host
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_is_no_number_is_in_all_that_its_tensor_touches(number: float) -> None:
    """It is in the scale of the whole tensor."""
    values = tensors(9)
    values["x"][3, 5] = number
    found = results(run(DEFAULT, values))
    shares = {name: float(np.isfinite(np.asarray(result, np.float32)).mean()) for name, result in found.items()}
    wanted = {"output": 0, "input gradient": 1, "kernel gradient": 0}
    assert shares == wanted, f"shares of finite numbers={shares}, but should be {wanted}"
