"""Claim: every option of ``te.DenseGeneral`` does what is documented, in BF16 and FP8, and wrong use is refused.

Promised by the docstring of ``transformer_engine.jax.flax.DenseGeneral``: which axes are contracted, which parameters
there are, how they start and in which dtype they are kept, low-rank adaptation, and the name under which quantized
tensors are checkpointed. (Options about sharding are the claim of ``test_sharding_options.py``.)

What a failure means for an upgrade: a model that sets more than ``features`` has other parameters, other results, or
needs more memory than before; checkpoints may no longer load.
"""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_fp8 import te
from mnist_fp8.oracle.dense import TENSORS, Array, Meta
from mnist_fp8.oracle.tolerances import exact_tolerance
from mnist_fp8.programs import jaxprs
from mnist_fp8.te.dense_step import (
    BF16,
    Step,
    dense_layer,
    dense_step,
    exact,
    fp8,
    init,
    init_shapes,
    on_device,
    variables_of,
)
from support.assertions import assert_close, assert_equal, assert_same_structure, assert_trees_equal
from support.metadata import meta_of
from support.programs import equations

ROWS, CONTRACTED, FEATURES = 16, 32, 16
MODES = {"bf16": BF16, "delayed": fp8(amax_history_len=4), "current": fp8("Float8CurrentScaling")}
SCALES = {"x": np.float32(128), "kernel": np.float32(32), "grad": np.float32(256)}
"""Scales of delayed scaling at which the tensors below are exact."""


def metas_for(mode: str) -> dict[str, Meta]:
    """Metadata for a mode: none, but for delayed scaling."""
    return {name: meta_of(SCALES[name]) for name in TENSORS} if mode == "delayed" else {}


def assert_exact(*, where: str, actual: Any, expected: Array) -> None:
    """Compare a product of tensors that no mode rounds."""
    __tracebackhide__ = True
    tolerance = exact_tolerance(expected, te.engine().kind)
    assert_close(where=where, actual=actual, expected=expected, tolerance=tolerance)


# --- which axes are contracted, and what replaces them ---------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Layout:
    """A way to lay the same 16 rows of 32 by 16 features out.

    Attributes:
        x: shape of the input.
        contracted: how many of its last axes are contracted.
        out: the feature axes.
        fields: how the layer is asked for that.
    """

    x: tuple[int, ...]
    contracted: int
    out: tuple[int, ...]
    fields: dict[str, Any]

    @property
    def kernel(self) -> tuple[int, ...]:
        """Shape of the kernel."""
        return te.kernel_shape(self.x[-self.contracted :], self.out)

    @property
    def y(self) -> tuple[int, ...]:
        """Shape of the output."""
        return self.x[: -self.contracted] + self.out


LAYOUTS = {
    "features 16": Layout((16, 32), 1, (16,), {"features": 16}),
    "features (16,)": Layout((16, 32), 1, (16,), {"features": (16,)}),
    "features (2, 8)": Layout((16, 32), 1, (2, 8), {"features": (2, 8)}),
    "axis 1 of 2": Layout((16, 32), 1, (16,), {"features": 16, "axis": 1}),
    "axis 2 of 3": Layout((2, 8, 32), 1, (16,), {"features": 16, "axis": 2}),
    "axis (-1,) of 4": Layout((2, 2, 4, 32), 1, (16,), {"features": 16, "axis": (-1,)}),
    "axes (1, 2) of 3": Layout((16, 4, 8), 2, (16,), {"features": 16, "axis": (1, 2)}),
    "axes (-2, 3) of 4": Layout((2, 8, 4, 8), 2, (2, 8), {"features": (2, 8), "axis": (-2, 3)}),
    "axes (1, 2, 3) of 4": Layout((16, 2, 4, 4), 3, (2, 2, 4), {"features": (2, 2, 4), "axis": (1, 2, 3)}),
}

CASES = [(mode, name) for mode in ("bf16", "delayed") for name in LAYOUTS] + [
    ("current", "axis 1 of 2"),
    ("current", "axes (-2, 3) of 4"),
]


@pytest.mark.parametrize(("mode", "name"), CASES)
def test_axes_and_features_in_every_form_multiply_the_flattened_tensors(mode: str, name: str) -> None:
    layout = LAYOUTS[name]
    x, kernel, grad, bias = exact((16, 32), 1), exact((32, 16), 2, 3.5), exact((16, 16), 3, 7.0), exact((16,), 4)
    step = dense_step(
        te.dense_general(**layout.fields),
        MODES[mode],
        variables_of(kernel.reshape(layout.kernel), metas_for(mode), bias.reshape(layout.out)),
        on_device(x.reshape(layout.x)),
        on_device(grad.reshape(layout.y)),
    )
    expected = {
        "output": (step.y, (x @ kernel + bias).reshape(layout.y)),
        "input gradient": (step.dx, (grad @ kernel.T).reshape(layout.x)),
        "kernel gradient": (step.grads["params"]["kernel"], (x.T @ grad).reshape(layout.kernel)),
        "bias gradient": (step.grads["params"]["bias"], grad.sum(axis=0).reshape(layout.out)),
    }
    for where, (found, wanted) in expected.items():
        assert_exact(where=f"{mode}, {name}: {where}", actual=found, expected=wanted)


@pytest.mark.parametrize(("features", "axis"), [([2, 3], [-2, -1]), (range(2, 4), range(-2, 0))], ids=["list", "range"])
def test_any_iterable_of_axes_and_features_is_taken(features: Any, axis: Any) -> None:
    x = jax.ShapeDtypeStruct((2, 8, 4, 8), jnp.bfloat16)
    layer = te.dense_general(features=features, axis=axis)
    y, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
    assert y.shape == (2, 8, 2, 3), f"output shape={y.shape}, but should be (2, 8, 2, 3)"
    expected = {"kernel": (te.kernel_shape((4, 8), (2, 3)), "float32"), "bias": ((2, 3), "float32")}
    assert_same_structure(where="parameters", actual=te.unbox(variables)["params"], expected=expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("shape", "axis"), [((16, 32), 0), ((16, 32), -2), ((2, 16, 32), (0, 1)), ((2, 16, 32), 1)])
def test_contraction_that_leaves_out_the_last_axis_is_refused(mode: str, shape: Any, axis: Any) -> None:
    layer = te.dense_general(features=16, axis=axis)
    with pytest.raises(AssertionError, match="Dense layer only supports `NN` layout"):
        init_shapes(layer, MODES[mode], jax.ShapeDtypeStruct(shape, jnp.bfloat16))


AXES = {"not the last": ((2, 5, 5, 3), (1, 3)), "not in order": ((2, 5, 3, 3), (-1, -2))}


@pytest.mark.parametrize("mode", ["bf16", "delayed"])
@pytest.mark.parametrize("name", AXES)
def test_axes_in_any_place_and_order_mean_what_they_mean_to_flax(name: str, mode: str) -> None:
    """Or they are refused, like those that leave out the last axis."""
    shape, axis = AXES[name]
    contracted = [shape[i] for i in sorted(i % len(shape) for i in axis)]
    x, kernel, y = exact(shape, 1), exact((*contracted, 4), 2, 3.5), exact((2, 5, 4), 3, 7.0)
    layer, reference = (make(features=4, axis=axis, use_bias=False) for make in (te.dense_general, nn.DenseGeneral))
    if is_refused(layer, MODES[mode], x):
        return
    stored = kernel.reshape(te.kernel_shape(tuple(contracted), (4,)))
    found = dense_step(layer, MODES[mode], variables_of(stored, metas_for(mode)), on_device(x), on_device(y))
    expected = dense_step(reference, BF16, variables_of(kernel, {}), on_device(x), on_device(y))
    assert_exact(where=f"{mode}: output", actual=found.y, expected=expected.y)
    assert_exact(where=f"{mode}: input gradient", actual=found.dx, expected=expected.dx)
    dkernel = found.grads["params"]["kernel"].reshape(kernel.shape)
    assert_exact(where=f"{mode}: kernel gradient", actual=dkernel, expected=expected.grads["params"]["kernel"])


def is_refused(layer: Any, mode: te.Autocast, x: Array) -> bool:
    """Whether a layer says at its initialisation that it cannot do what it is asked for."""
    try:
        init_shapes(layer, mode, on_device(x))
    except (AssertionError, NotImplementedError, ValueError):
        return True
    return False


def test_axis_beyond_the_input_is_refused() -> None:
    with pytest.raises(IndexError):
        init_shapes(te.dense_general(features=16, axis=2), BF16, jax.ShapeDtypeStruct((16, 32), jnp.bfloat16))


# --- inputs without a batch axis --------------------------------------------------------------------------------------

ROWLESS = {
    "axis": Layout((32,), 1, (16,), {"features": 16}),
    "axis, features (2, 8)": Layout((32,), 1, (2, 8), {"features": (2, 8)}),
    "axis 0, features (2, 2, 4)": Layout((32,), 1, (2, 2, 4), {"features": (2, 2, 4), "axis": 0}),
    "axes (0, 1)": Layout((4, 8), 2, (16,), {"features": 16, "axis": (0, 1)}),
    "axes (-2, -1), features (2, 8)": Layout((4, 8), 2, (2, 8), {"features": (2, 8), "axis": (-2, -1)}),
    "axes (0, 1, 2)": Layout((2, 4, 4), 3, (16,), {"features": 16, "axis": (0, 1, 2)}),
}
"""Every axis is contracted: what ``vmap`` over examples shows a layer."""

rowless = pytest.mark.parametrize("layout", ROWLESS.values(), ids=ROWLESS)
with_and_without_bias = pytest.mark.parametrize("use_bias", [True, False], ids=["bias", "no bias"])


def rowless_step(step: Callable[..., Step], layout: Layout, x: Array, grad: Array, *, use_bias: bool) -> Step:
    """A BF16 step of a layer on inputs without a batch axis, whose kernel and bias are `rowless_parameters`."""
    kernel, bias = rowless_parameters()
    variables = variables_of(kernel.reshape(layout.kernel), {}, bias.reshape(layout.out) if use_bias else None)
    layer = te.dense_general(**layout.fields, use_bias=use_bias)
    shape = jax.eval_shape(layer.apply, variables, jax.ShapeDtypeStruct(layout.x, x.dtype)).shape
    assert shape == layout.y, f"one row: output shape={shape}, but should be {layout.y}"
    return step(layer, BF16, variables, on_device(x), on_device(grad))


def rowless_parameters() -> tuple[Array, Array]:
    """Kernel and bias, flattened."""
    return exact((32, 16), 2, 3.5), exact((16,), 4)


def assert_row(step: Step, layout: Layout, x: Array, grad: Array, *, use_bias: bool, where: str) -> None:
    """Compare a step on an input without a batch axis with the products of the one row that it is."""
    __tracebackhide__ = True
    kernel, bias = rowless_parameters()
    expected = {
        "output": (step.y, (x @ kernel + use_bias * bias).reshape(layout.y)),
        "input gradient": (step.dx, (kernel @ grad).reshape(layout.x)),
        "kernel gradient": (step.grads["params"]["kernel"], np.outer(x, grad).reshape(layout.kernel)),
    }
    if use_bias:
        expected["bias gradient"] = (step.grads["params"]["bias"], grad.reshape(layout.out))
    for name, (found, wanted) in expected.items():
        assert_exact(where=f"{where}: {name}", actual=found, expected=wanted)


@pytest.mark.host
@rowless
@with_and_without_bias
def test_input_without_a_batch_axis_is_one_row(layout: Layout, use_bias: bool) -> None:  # noqa: FBT001
    x, grad = exact((32,), 1), exact((16,), 3, 7.0)
    step = rowless_step(dense_step, layout, x.reshape(layout.x), grad.reshape(layout.y), use_bias=use_bias)
    assert_row(step, layout, x, grad, use_bias=use_bias, where="one row")


@pytest.mark.host  # TE's custom calls have no batching rule (docs/explanation/te-findings.md), its JAX path does
@rowless
@with_and_without_bias
def test_mapped_inputs_without_a_batch_axis_are_one_row_each(layout: Layout, use_bias: bool) -> None:  # noqa: FBT001
    """``vmap`` over examples, as for gradients of single examples."""
    x, grad = exact((3, 32), 1), exact((3, 16), 3, 7.0)

    def mapped(layer: Any, mode: te.Autocast, variables: Any, x: jax.Array, grad: jax.Array) -> Step:
        step = functools.partial(inspect.unwrap(dense_step), layer, mode, variables)
        return jax.jit(jax.vmap(step))(x, grad)

    shapes = (3, *layout.x), (3, *layout.y)
    steps = rowless_step(mapped, layout, x.reshape(shapes[0]), grad.reshape(shapes[1]), use_bias=use_bias)
    for row in range(3):
        step = jax.tree.map(lambda leaf, row=row: leaf[row], steps)
        assert_row(step, layout, x[row], grad[row], use_bias=use_bias, where=f"row {row}")


@pytest.mark.host
@rowless
@with_and_without_bias
@pytest.mark.parametrize("mode", ["delayed", "current"])
def test_fp8_layer_without_a_batch_axis_is_refused(mode: str, layout: Layout, use_bias: bool) -> None:  # noqa: FBT001
    """By ``vmap`` over examples as well: it shows the layer the same shape."""
    layer = te.dense_general(**layout.fields, use_bias=use_bias)
    one, mapped = (jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in (layout.x, (1, *layout.x)))
    initialised = functools.partial(init, layer, MODES[mode])
    for function, x in ((initialised, one), (jax.vmap(initialised), mapped)):
        with pytest.raises(AssertionError, match="flatten_axis is out of bounds"):
            jax.eval_shape(function, x)


# --- parameters: which, how they start, their dtype -------------------------------------------------------------------

DEFAULTS = {
    "kernel_axes": (),
    "use_bias": True,  # TE's docstring says False, unlike its signature and Flax's layer
    "bias_init": nn.initializers.zeros,
    "bias_axes": (),
    "enable_low_rank_adaptation": False,
    "low_rank_adaptation_dim": 32,
    "low_rank_adaptation_alpha": None,
    "axis": -1,
    "dtype": jnp.float32,
    "input_axes": (),
    "transpose_batch_sequence": False,
    "quantization_checkpoint_name": None,
}


def test_options_have_their_defaults() -> None:
    layer = te.dense_general(features=3)
    found = {name: getattr(layer, name, "missing") for name in DEFAULTS}
    wrong = {name: found[name] for name, default in DEFAULTS.items() if found[name] != default}
    assert not wrong, f"defaults={wrong}, but should be { {name: DEFAULTS[name] for name in wrong} }"


def test_features_are_the_first_positional_option() -> None:
    first = dataclasses.fields(type(te.dense_general(features=3)))[0].name
    assert first == "features", f"first option={first}, but should be features"


class Recorder:
    """Initialisers that note how they were called and return a number of their own."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Array, tuple[int, ...], str]] = []

    def initializer(self, name: str, value: float) -> Callable[..., jax.Array]:
        """An initialiser of that name that fills with that number."""

        def fill(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
            self.calls.append((name, np.asarray(jax.random.key_data(key)), tuple(shape), str(jnp.dtype(dtype))))
            return jnp.full(shape, value, dtype)

        return fill

    def fields(self) -> dict[str, Any]:
        """Both initialisers, as the fields of TE's and Flax's layers."""
        return {"kernel_init": self.initializer("kernel", 2.0), "bias_init": self.initializer("bias", 3.0)}


@pytest.mark.parametrize("mode", ["bf16", "delayed"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_initialisers_are_called_with_flax_keys_the_shape_and_the_dtype(dtype: str, mode: str) -> None:
    ours, reference = Recorder(), Recorder()
    x, shape = on_device(np.ones((2, 8, 4, 8)), "bfloat16"), {"features": (2, 8), "axis": (-2, -1)}
    variables = init(te.dense_general(**shape, **ours.fields(), dtype=jnp.dtype(dtype)), MODES[mode], x)
    nn.DenseGeneral(**shape, **reference.fields(), param_dtype=jnp.dtype(dtype)).init(jax.random.key(0), x)
    found = [(name, shape, dtype) for name, _, shape, dtype in ours.calls]
    wanted = [("kernel", te.kernel_shape((4, 8), (2, 8)), dtype), ("bias", (2, 8), dtype)]
    assert found == wanted, f"initialisers were called for {found}, but should be for {wanted}"
    for (name, key, *_), (_, flax_key, *_) in zip(ours.calls, reference.calls, strict=True):
        assert_equal(where=f"key of the {name}'s initialiser", actual=key, expected=flax_key)
    for name, value in (("kernel", 2.0), ("bias", 3.0)):
        parameter = variables["params"][name]
        assert_equal(where=name, actual=parameter, expected=np.full(parameter.shape, value))


@pytest.mark.parametrize("mode", MODES)
def test_layer_without_bias_has_none(mode: str) -> None:
    recorder = Recorder()
    layer = te.dense_general(features=FEATURES, use_bias=False, **recorder.fields())
    variables = init(layer, MODES[mode], on_device(np.ones((ROWS, CONTRACTED)), "bfloat16"))
    expected = {"kernel": ((CONTRACTED, FEATURES), "float32")}
    assert_same_structure(where=f"{mode}: parameters", actual=variables["params"], expected=expected)
    assert [name for name, *_ in recorder.calls] == ["kernel"], "the bias was initialised although there is none"


def shapes_of_step(layer: Any, mode: te.Autocast, x: jax.ShapeDtypeStruct) -> tuple[dict[str, Any], Step]:
    """Variables and results of a layer as shapes and dtypes: traced, not computed."""
    variables = init_shapes(layer, mode, x)
    grad = jax.eval_shape(lambda variables, x: _apply(layer, mode, variables, x), variables, x)
    return variables, jax.eval_shape(functools.partial(dense_step, layer, mode), variables, x, grad)


def _apply(layer: Any, mode: te.Autocast, variables: Any, x: Any) -> jax.Array:
    with mode():
        return layer.apply(variables, x)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("x_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_parameters_keep_their_dtype_and_results_take_the_inputs(dtype: str, x_dtype: str, mode: str) -> None:
    """All but the kernel's gradient: the next test is about that."""
    layer = te.dense_general(
        features=FEATURES, dtype=jnp.dtype(dtype), enable_low_rank_adaptation=True, low_rank_adaptation_dim=4
    )
    x = jax.ShapeDtypeStruct((ROWS, CONTRACTED), x_dtype)
    variables, step = shapes_of_step(layer, MODES[mode], x)
    shapes = {
        "kernel": (CONTRACTED, FEATURES),
        "bias": (FEATURES,),
        "lora_a_kernel": (CONTRACTED, 4),
        "lora_b_kernel": (4, FEATURES),
    }
    expected = {name: (shape, dtype) for name, shape in shapes.items()}
    assert_same_structure(where="parameters", actual=variables["params"], expected=expected)
    kernel = step.grads["params"].pop("kernel")
    assert kernel.shape == expected.pop("kernel")[0], f"kernel gradient: shape={kernel.shape}"
    assert_same_structure(where="gradients", actual=step.grads["params"], expected=expected)
    results = {"y": ((ROWS, FEATURES), x_dtype), "dx": ((ROWS, CONTRACTED), x_dtype)}
    assert_same_structure(where="results", actual={"y": step.y, "dx": step.dx}, expected=results)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("x_dtype", ["float32", "bfloat16"])
def test_gradient_of_the_kernel_has_its_dtype(x_dtype: str, mode: str) -> None:
    """Whoever adds gradients up relies on it: JAX does, in a scan."""
    layer, x = te.dense_general(features=FEATURES), jax.ShapeDtypeStruct((ROWS, CONTRACTED), x_dtype)
    _, step = shapes_of_step(layer, MODES[mode], x)
    expected = {"kernel": ((CONTRACTED, FEATURES), "float32"), "bias": ((FEATURES,), "float32")}
    assert_same_structure(where="gradients", actual=step.grads["params"], expected=expected)


# --- metadata: one set for each layer -------------------------------------------------------------------------------


class Block(nn.Module):
    """A named and an unnamed layer, and one that is used twice."""

    dtype: Any

    def setup(self) -> None:
        """Make the layer that is used twice."""
        self.shared = te.dense_general(features=CONTRACTED, dtype=self.dtype)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply all of them."""
        x = te.dense_general(features=CONTRACTED, dtype=self.dtype, name="own")(self.shared(x))
        return te.dense_general(features=CONTRACTED, dtype=self.dtype)(self.shared(x))


class Model(nn.Module):
    """A block inside a model, beside a layer of the model's own."""

    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply both."""
        x = Block(self.dtype, name="block")(x)
        return te.dense_general(features=FEATURES, dtype=self.dtype, name="head")(x)


LAYERS = ["['block']['DenseGeneral_0']", "['block']['own']", "['block']['shared']", "['head']"]


@pytest.mark.parametrize("x_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_each_layer_has_one_set_of_float32_metadata_under_its_own_name(dtype: str, x_dtype: str) -> None:
    x = jax.ShapeDtypeStruct((ROWS, CONTRACTED), x_dtype)
    variables = init_shapes(Model(jnp.dtype(dtype)), MODES["delayed"], x)
    leaves = jax.tree_util.tree_leaves_with_path(variables[te.metadata_collection()])
    found = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
    scales, histories = ([leaf(t) for t in TENSORS] for leaf in (te.scale_leaf, te.history_leaf))
    expected = {f"{layer}['{scale}']": ((1,), "float32") for layer in LAYERS for scale in scales}
    expected |= {f"{layer}['{history}']": ((4,), "float32") for layer in LAYERS for history in histories}
    assert_same_structure(where="metadata", actual=found, expected=expected)


# --- low-rank adaptation --------------------------------------------------------------------------------------------


def lora_layer(alpha: float | None, **fields: Any) -> Any:
    """A layer with low-rank adaptation of rank 4."""
    return dense_layer(
        enable_low_rank_adaptation=True, low_rank_adaptation_dim=4, low_rank_adaptation_alpha=alpha, **fields
    )


def ternary(shape: tuple[int, ...], seed: int, size: float = 1.0) -> Array:
    """A tensor of -size, 0 and size: products of three tensors stay exact."""
    return np.float32(size) * np.random.default_rng(seed).integers(-1, 2, shape).astype(np.float32)


NOT_FP8 = 1.0625
"""A number of five significant bits: quantization would round it, in E4M3 to 1."""


@pytest.mark.parametrize(("alpha", "factor"), [(None, 1.0), (1.5, 0.375), (8.0, 2.0), (0.0, 0.0)])
@pytest.mark.parametrize("mode", MODES)
def test_low_rank_adaptation_adds_its_scaled_product(mode: str, alpha: float | None, factor: float) -> None:
    """The output gains ``alpha / rank * x A B``, and ``x A B`` where alpha is ``None``; nothing of it is quantized."""
    x, kernel, grad, bias = exact((16, 32), 1), exact((32, 16), 2, 3.5), exact((16, 16), 3, 7.0), exact((16,), 4)
    a, b = ternary((32, 4), 5, NOT_FP8), ternary((4, 16), 6)
    variables = variables_of(kernel, metas_for(mode), bias)
    variables["params"] |= {"lora_a_kernel": on_device(a), "lora_b_kernel": on_device(b)}
    layer = lora_layer(alpha, features=16)
    step = dense_step(layer, MODES[mode], variables, on_device(x), on_device(grad))
    expected = {
        "kernel": x.T @ grad,
        "bias": grad.sum(axis=0),
        "lora_a_kernel": factor * x.T @ grad @ b.T,
        "lora_b_kernel": factor * a.T @ x.T @ grad,
    }
    where = f"{mode}, alpha {alpha}"
    assert_exact(where=f"{where}: output", actual=step.y, expected=x @ kernel + bias + factor * x @ a @ b)
    dx = grad @ kernel.T + factor * grad @ b.T @ a.T
    assert_exact(where=f"{where}: input gradient", actual=step.dx, expected=dx)
    for name, wanted in expected.items():
        assert_exact(where=f"{where}: gradient of {name}", actual=step.grads["params"][name], expected=wanted)


@pytest.mark.parametrize("mode", ["bf16", "delayed"])
def test_low_rank_adaptation_has_one_pair_of_matrices_for_each_leading_feature(mode: str) -> None:
    """Two contracted axes, features (2, 8): A is (4, 8, 2, rank) and B is (2, rank, 8)."""
    x, kernel, grad = exact((16, 32), 1), exact((32, 16), 2, 3.5), exact((16, 16), 3, 7.0)
    a, b = ternary((32, 2, 4), 5), ternary((2, 4, 8), 6)
    variables = variables_of(kernel.reshape(4, 8, 2, 8), metas_for(mode))
    variables["params"] |= {"lora_a_kernel": on_device(a.reshape(4, 8, 2, 4)), "lora_b_kernel": on_device(b)}
    layer = lora_layer(8.0, features=(2, 8), axis=(-2, -1), use_bias=False)
    step = dense_step(layer, MODES[mode], variables, on_device(x.reshape(16, 4, 8)), on_device(grad.reshape(16, 2, 8)))
    added = np.stack([2 * x @ a[:, i] @ b[i] for i in range(2)], axis=1)
    expected = (x @ kernel).reshape(16, 2, 8) + added
    assert_exact(where=f"{mode}: output", actual=step.y, expected=expected)
    halves = grad.reshape(16, 2, 8)
    da = np.stack([2 * x.T @ halves[:, i] @ b[i].T for i in range(2)], axis=1).reshape(4, 8, 2, 4)
    db = np.stack([2 * a[:, i].T @ x.T @ halves[:, i] for i in range(2)])
    assert_exact(where=f"{mode}: gradient of A", actual=step.grads["params"]["lora_a_kernel"], expected=da)
    assert_exact(where=f"{mode}: gradient of B", actual=step.grads["params"]["lora_b_kernel"], expected=db)


def shape_with_lora(contracted: int, features: int) -> tuple[int, ...]:
    """Shape of the output of a layer with that many contracted and feature axes, each of two elements."""
    layer = lora_layer(None, features=(2,) * features, axis=tuple(range(-contracted, 0)))
    x = jax.ShapeDtypeStruct((3,) + (2,) * contracted, jnp.bfloat16)
    y, _ = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
    return y.shape


def test_low_rank_adaptation_takes_up_to_five_axes_and_refuses_more() -> None:
    found = shape_with_lora(5, 5)
    assert found == (3, 2, 2, 2, 2, 2), f"output shape={found}, but should be (3, 2, 2, 2, 2, 2)"
    for contracted, features in ((6, 1), (1, 6)):
        with pytest.raises(AssertionError):
            shape_with_lora(contracted, features)


@pytest.mark.parametrize("mode", MODES)
def test_low_rank_adaptation_starts_without_an_effect(mode: str) -> None:
    """A starts like a kernel and B at zero, and the layer's other parameters are as ever."""
    x, plain = on_device(exact((ROWS, CONTRACTED), 1)), dense_layer(features=FEATURES)
    layer = lora_layer(8.0, features=FEATURES)
    with_lora, without = init(layer, MODES[mode], x), init(plain, MODES[mode], x)
    expected = {"lora_a_kernel": ((CONTRACTED, 4), "float32"), "lora_b_kernel": ((4, FEATURES), "float32")}
    added = {name: value for name, value in with_lora["params"].items() if name not in without["params"]}
    assert_same_structure(where="added parameters", actual=added, expected=expected)
    kept = {name: with_lora["params"][name] for name in without["params"]}
    assert_trees_equal(where="other parameters", actual=kept, expected=without["params"])
    assert_equal(where="initial B", actual=added["lora_b_kernel"], expected=np.zeros((4, FEATURES)))
    grad = on_device(np.zeros((ROWS, FEATURES)))
    found, wanted = (
        dense_step(*args, x, grad).y for args in ((layer, MODES[mode], with_lora), (plain, MODES[mode], without))
    )
    assert_equal(where="initial output", actual=found, expected=wanted)


def test_initial_low_rank_matrix_is_drawn_like_a_kernel() -> None:
    """With a custom initialiser by it, and by default with the standard deviation of a fan-in of 400."""
    x, recorder = on_device(np.ones((1, 400)), "bfloat16"), Recorder()
    init(lora_layer(None, features=(3, 8), **recorder.fields(), dtype=jnp.bfloat16), BF16, x)
    found = [(name, shape, dtype) for name, _, shape, dtype in recorder.calls]
    kernels = [("kernel", (400, 3, 8), "bfloat16"), ("bias", (3, 8), "bfloat16"), ("kernel", (400, 3, 4), "bfloat16")]
    assert found == kernels, f"initialisers were called for {found}, but should be for {kernels}"
    keys = {key.tobytes() for _, key, *_ in recorder.calls}
    assert len(keys) == 3, "parameters were drawn from the same key"
    layer = dense_layer(features=8, enable_low_rank_adaptation=True, low_rank_adaptation_dim=300)
    drawn = np.asarray(init(layer, BF16, x)["params"]["lora_a_kernel"], np.float64)
    deviation = drawn.std() * math.sqrt(400)
    assert 0.99 < deviation < 1.01, f"standard deviation times sqrt(fan-in)={deviation:.4f}, but should be 1"


# --- the rest ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_transposed_batch_and_sequence_warn_and_change_no_result(mode: str) -> None:
    """The option says how the rows are laid out over devices; on one device the product is the same."""
    x, kernel, grad = exact((2, 8, 32), 1), exact((32, 16), 2, 3.5), exact((2, 8, 16), 3, 7.0)
    layer = te.dense_general(features=16, use_bias=False, transpose_batch_sequence=True)
    with pytest.warns(UserWarning, match="transpose_batch_sequence is not well tested"):
        step = dense_step(layer, MODES[mode], variables_of(kernel, metas_for(mode)), on_device(x), on_device(grad))
    dkernel = x.reshape(16, 32).T @ grad.reshape(16, 16)
    assert_exact(where=f"{mode}: output", actual=step.y, expected=x @ kernel)
    assert_exact(where=f"{mode}: input gradient", actual=step.dx, expected=grad @ kernel.T)
    assert_exact(where=f"{mode}: kernel gradient", actual=step.grads["params"]["kernel"], expected=dkernel)


def gradient_jaxpr(name: str | None, mode: te.Autocast, policy: Any = None) -> Any:
    """The jaxpr of a layer's gradient, with a checkpoint name and rematerialised with a policy if there are any."""
    layer = te.dense_general(features=FEATURES, **({"quantization_checkpoint_name": name} if name else {}))
    x = on_device(np.ones((48, CONTRACTED)), "bfloat16")

    def loss(variables: Any, x: jax.Array) -> jax.Array:
        return jnp.sum(layer.apply(variables, x).astype(jnp.float32))

    variables = init_shapes(layer, mode, x)
    with mode():
        return jax.make_jaxpr(jax.grad(jax.checkpoint(loss, policy=policy) if policy else loss))(variables, x)


def float8_sizes(variables: Any) -> list[int]:
    """Sizes of the float8 tensors among variables of a jaxpr; their layout is the recipe's business."""
    return sorted(v.aval.size for v in variables if jaxprs.is_quantized(str(getattr(v.aval, "dtype", ""))))


QUANTIZED = [CONTRACTED * FEATURES, 48 * CONTRACTED]
"""Sizes of the quantized kernel and input."""


@pytest.mark.parametrize("mode", ["delayed", "current"])
def test_checkpoint_name_marks_the_quantized_input_and_kernel(mode: str) -> None:
    found = list(equations(gradient_jaxpr("mine", MODES[mode]), "name"))
    names = {e.params["name"] for e in found}
    assert names == {"mine"}, f"checkpoint names={sorted(names)}, but should be 'mine' only"
    sizes = float8_sizes(v for e in found for v in e.invars)
    assert sizes == QUANTIZED, f"named float8 tensors have {sizes} elements, but should have {QUANTIZED}"


@pytest.mark.parametrize(("name", "mode"), [(None, "bf16"), (None, "delayed"), (None, "current"), ("mine", "bf16")])
def test_nothing_is_named_by_default_or_outside_fp8(name: str | None, mode: str) -> None:
    # Control.
    found = [e.params["name"] for e in equations(gradient_jaxpr(name, MODES[mode]), "name")]
    assert not found, f"checkpoint names={found}, but should be none"


@pytest.mark.parametrize("mode", ["delayed", "current"])
@pytest.mark.parametrize(("name", "saved"), [("mine", QUANTIZED), ("other", []), (None, [])])
def test_policy_saves_quantized_tensors_by_that_name(name: str | None, saved: list[int], mode: str) -> None:
    """What is saved comes into the rematerialised part from outside."""
    policy = jax.checkpoint_policies.save_only_these_names("mine")
    remade = list(equations(gradient_jaxpr(name, MODES[mode], policy), "remat", "checkpoint"))
    assert remade, "Control: nothing is rematerialised"
    found = float8_sizes(v for e in remade for v in e.invars)
    assert found == saved, f"named {name!r}: saved float8 tensors have {found} elements, but should have {saved}"


_DOTS = ("dots_and_te_gemms_with_no_batch_dims", "checkpoint_dots_and_te_gemms")
SAVED = [
    *((policy, recipe) for policy in _DOTS for recipe in ("DelayedScaling", "MXFP8BlockScaling")),
    ("te_gemms_saveable", "MXFP8BlockScaling"),  # whose products are of JAX, but are taken for TE's
]


@pytest.mark.host
@pytest.mark.parametrize(
    ("policy", "recipe"),
    [
        pytest.param(*both, marks=[pytest.mark.recipe(both[1]), pytest.mark.te_name("checkpoint_policies", both[0])])
        for both in SAVED
    ],
)
def test_policy_of_te_saves_the_product(policy: str, recipe: str) -> None:
    """Where nothing is saved, the product of the forward pass is computed once more."""
    nothing = jax.checkpoint_policies.nothing_saveable
    for rule, wanted in ((te.find_name("checkpoint_policies", policy), 3), (nothing, 4)):
        found = len(list(equations(remade_jaxpr(fp8(recipe), rule), "dot_general", "scaled_matmul_wrapper")))
        assert found == wanted, f"{rule.__name__}: {found} products, but should be {wanted}"


def remade_jaxpr(mode: te.Autocast, policy: Any) -> Any:
    """The jaxpr of the gradient of a layer, and of what needs its output for that, rematerialised with a policy."""
    layer, x = te.dense_general(features=32), on_device(np.ones((64, CONTRACTED)), "bfloat16")
    with mode():
        loss = jax.checkpoint(lambda variables, x: jnp.sin(layer.apply(variables, x)).sum(), policy=policy)
        return jax.make_jaxpr(jax.grad(loss, (0, 1)))(init_shapes(layer, mode, x), x)
