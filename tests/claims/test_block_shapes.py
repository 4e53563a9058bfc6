"""Claim: block-scaled recipes take what divides into blocks and refuse the rest, and are one function however traced.

Promised by the docstrings of ``MXFP8BlockScaling`` and ``NVFP4BlockScaling`` (blocks of 32 and of 16 consecutive
values), by TE's own assertions, which name the shape and the block, and by JAX, whose transformations and divisions
over devices change no values. All of it is rounded to the nearest here: the options of NVFP4 are off.

What a failure means for an upgrade: a batch or layer size that trained no longer does, or without a word differently;
or a model computes something else under scan, remat or vmap, or on more devices.
"""

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mnist_fp8 import te
from mnist_fp8.core.modes import BLOCK_SCALED, RecipeConfig
from mnist_fp8.oracle.blocks import FP4_BLOCK, MX_BLOCK
from mnist_fp8.te.dense_step import Step, dense_layer, dense_step, init_shapes, on_device, variables_of
from support.assertions import assert_close_norm, assert_equal, assert_trees_close_norm
from support.blocks import expected_passes
from support.layers import MXFP8, NVFP4

RECIPES = {mode.recipe.name: mode.recipe for mode in (MXFP8, NVFP4) if mode.recipe}
BLOCKS = {"MXFP8BlockScaling": MX_BLOCK, "NVFP4BlockScaling": FP4_BLOCK}
AGREEMENT = {"MXFP8BlockScaling": 2.0**-20, "NVFP4BlockScaling": 2.0**-6}
"""Largest relative norm of a difference between two programs: sums in another order, and in NVFP4 a few codes.

XLA on a CPU casts float32 to E2M1 by way of float16 in a loop, and outside of it directly: a number that lies closer to
a tie than float16 can tell gets another code. Seen: two of three thousand, 0.0049. One block of 32 x 32 numbers under
twice its scale is 0.12.
"""
recipes = pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.recipe(name)) for name in BLOCK_SCALED])


def tensors(name: str, *sizes: int, seed: int = 0) -> dict[str, Any]:
    """Tensors x, kernel and grad of some rows, inputs and features, in blocks; their blocks have unlike scales."""
    rows, contracted, features = (size * BLOCKS[name] for size in sizes)
    drawn = np.random.default_rng(seed)
    shapes = {"x": (rows, contracted), "kernel": (contracted, features), "grad": (rows, features)}
    return {
        tensor: np.float32(
            drawn.normal(0, 1, shape) * 2.0 ** (drawn.integers(-3, 4, (shape[0], 1)) + drawn.integers(-3, 4, shape[1]))
        )
        for tensor, shape in shapes.items()
    }


def layer_for(values: Mapping[str, Any]) -> Any:
    """A layer of the kernel's features, without a bias."""
    return dense_layer(features=values["kernel"].shape[-1], use_bias=False)


def step_in(recipe: RecipeConfig, layer: Any, kernel: jax.Array, x: jax.Array, grad: jax.Array) -> Step:
    """Output and gradients of one layer, traced where it is called."""
    step: Step = inspect.unwrap(dense_step)(layer, te.Autocast(recipe), {"params": {"kernel": kernel}}, x, grad)
    return step


def on_one_device(name: str, values: Mapping[str, Any]) -> Step:
    """The same, compiled."""
    x, grad = on_device(values["x"]), on_device(values["grad"])
    return dense_step(layer_for(values), te.Autocast(RECIPES[name]), variables_of(values["kernel"], {}), x, grad)


def assert_same(name: str, found: Any, expected: Any, *, where: str) -> None:
    """Compare what two programs compute."""
    __tracebackhide__ = True
    assert_trees_close_norm(where=f"{name}, {where}", actual=found, expected=expected, tolerance=AGREEMENT[name])


# --- shapes -----------------------------------------------------------------------------------------------------------


def trace(name: str, batch: tuple[int, ...], contracted: tuple[int, ...], features: tuple[int, ...], what: str) -> None:
    """Trace the initialisation or a step of a layer on tensors of some shapes."""
    layer = dense_layer(features=features, axis=tuple(range(-len(contracted), 0)), use_bias=False)
    x, kernel, grad = (
        jax.ShapeDtypeStruct(shape, jnp.bfloat16)
        for shape in (batch + contracted, te.kernel_shape(contracted, features), batch + features)
    )
    if what == "initialisation":
        init_shapes(layer, te.Autocast(RECIPES[name]), x)
    else:
        jax.eval_shape(functools.partial(step_in, RECIPES[name], layer), kernel, x, grad)


in_init_and_step = pytest.mark.parametrize("what", ["initialisation", "step"])
Sizes = Callable[[int], tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]
LEGAL: dict[str, Sizes] = {
    "one block": lambda block: ((block,), (block,), (block,)),
    "three blocks of rows": lambda block: ((3 * block,), (block,), (block,)),
    "many sequences of a block": lambda block: ((3, block), (block,), (block,)),
    "two axes of inputs": lambda block: ((block,), (3, block), (block,)),
    "two axes of features": lambda block: ((block,), (block,), (3, block)),
}
REFUSED: dict[str, tuple[Sizes, str]] = {
    # sizes, and the one that does not divide
    "half a block of rows": (lambda block: ((block // 2,), (block,), (block,)), "rows"),
    "a block and a row": (lambda block: ((block + 1,), (block,), (block,)), "rows"),
    "one row": (lambda block: ((1,), (block,), (block,)), "rows"),
    "sequences of half a block": (lambda block: ((2, block // 2), (block,), (block,)), "rows"),
    "a block of sequences of two": (lambda block: ((block, 2), (block,), (block,)), "rows"),
    "half a block of inputs": (lambda block: ((block,), (block // 2,), (block,)), "contracted"),
    "inputs of two halves": (lambda block: ((block,), (2, block // 2), (block,)), "contracted"),
    "half a block of features": (lambda block: ((block,), (block,), (block // 2,)), "features"),
    "features of two halves": (lambda block: ((block,), (block,), (2, block // 2)), "features"),
}


@in_init_and_step
@pytest.mark.parametrize("case", LEGAL)
@recipes
def test_last_axis_of_each_kind_that_divides_into_blocks_suffices(name: str, case: str, what: str) -> None:
    trace(name, *LEGAL[case](BLOCKS[name]), what)


@in_init_and_step
@pytest.mark.parametrize("case", REFUSED)
@recipes
def test_other_sizes_are_refused_with_shape_and_block(name: str, case: str, what: str) -> None:
    """The last axis of the rows, of the inputs and of the features: not their products."""
    sizes, wrong = REFUSED[case]
    block = BLOCKS[name]
    batch, contracted, features = sizes(block)
    size = {"rows": batch, "contracted": contracted, "features": features}[wrong][-1]
    with pytest.raises(
        AssertionError, match=rf"Data shape \(.*\b{size}\b.*\) should be divisible by block_\w {block} "
    ):
        trace(name, batch, contracted, features, what)


@recipes
def test_vector_is_refused_with_its_shape(name: str) -> None:
    """There is no axis along which the gradient of the kernel is summed."""
    with pytest.raises(AssertionError, match=rf"flatten_axis 0 is out of bounds for shape \({BLOCKS[name]},\)"):
        trace(name, (), (BLOCKS[name],), (BLOCKS[name],), "step")


@recipes
def test_empty_batch_gives_an_empty_output_and_a_kernel_gradient_of_zeros(name: str) -> None:
    """As in BF16."""
    values = tensors(name, 0, 1, 1)
    step = on_one_device(name, values)
    assert step.y.shape == values["grad"].shape, f"output={step.y.shape}, but should be {values['grad'].shape}"
    assert_equal(where="kernel gradient", actual=step.grads["params"]["kernel"], expected=0 * values["kernel"])


@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 2, 4)])
@recipes
def test_values_are_the_oracles_whatever_the_number_of_blocks(name: str, sizes: tuple[int, int, int]) -> None:
    values = tensors(name, *sizes)
    step, expected = on_one_device(name, values), expected_passes(RECIPES[name], values, "float32")
    assert_same(
        name,
        {"output": step.y, "input gradient": step.dx, "kernel gradient": step.grads["params"]["kernel"]},
        {passed: product.value for passed, product in expected.items()},
        where=f"blocks of rows, inputs and features: {sizes}",
    )


# --- transformations --------------------------------------------------------------------------------------------------


@recipes
def test_step_outside_of_jit_is_the_compiled_one(name: str) -> None:
    """Of numbers with many digits. Of bfloat16 numbers, many lie at ties: there, NVFP4 differs."""
    values = tensors(name, 1, 1, 1, seed=1)
    given = (on_device(values[tensor]) for tensor in ("kernel", "x", "grad"))
    found = step_in(RECIPES[name], layer_for(values), *given)
    assert_same(name, found, on_one_device(name, values), where="outside of jit")


class Stacked:
    """Two layers with kernels and inputs of unlike sizes, one after the other or side by side."""

    def __init__(self, name: str) -> None:
        self.recipe = RECIPES[name]
        self.each = [{t: v * (1 + 6 * i) for t, v in tensors(name, 2, 2, 2, seed=i).items()} for i in range(2)]
        self.layer = layer_for(self.each[0])
        self.arrays = {t: on_device(np.stack([values[t] for values in self.each])) for t in self.each[0]}

    def apply(self, kernel: jax.Array, x: jax.Array) -> jax.Array:
        """One layer."""
        y: jax.Array = self.layer.apply({"params": {"kernel": kernel}}, x)
        return y

    def loop(self, kernels: jax.Array, x: jax.Array) -> jax.Array:
        """Both layers, in a loop of Python."""
        with te.Autocast(self.recipe)():
            return functools.reduce(lambda y, kernel: self.apply(kernel, y), kernels, x)

    def scan(self, kernels: jax.Array, x: jax.Array) -> jax.Array:
        """Both layers, in a loop of the program."""
        with te.Autocast(self.recipe)():
            return jax.lax.scan(lambda y, kernel: (self.apply(kernel, y), None), x, kernels)[0]

    def gradients(self, model: Callable[..., jax.Array]) -> Any:
        """Loss and gradients of a model of both layers."""

        def loss(kernels: jax.Array, x: jax.Array) -> jax.Array:
            return jnp.sum(model(kernels, x) * self.arrays["grad"][0])

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(self.arrays["kernel"], self.arrays["x"][0])


@pytest.mark.parametrize("how", ["scan", "remat", "remat of scan"])
@recipes
def test_stack_of_layers_is_a_loop(name: str, how: str) -> None:
    stacked = Stacked(name)
    model = stacked.scan if "scan" in how else stacked.loop
    found = stacked.gradients(jax.checkpoint(model) if "remat" in how else model)
    assert_same(name, found, stacked.gradients(stacked.loop), where=how)


@recipes
def test_steps_in_a_scan_are_steps(name: str) -> None:
    """Gradients taken inside, as of micro-batches."""
    stacked = Stacked(name)
    layer, kernel = stacked.layer, stacked.arrays["kernel"][0]

    def body(count: int, given: tuple[jax.Array, jax.Array]) -> tuple[int, Step]:
        return count, step_in(stacked.recipe, layer, kernel, *given)

    _, found = jax.jit(lambda *given: jax.lax.scan(body, 0, given))(stacked.arrays["x"], stacked.arrays["grad"])
    alone = [on_one_device(name, {**values, "kernel": stacked.each[0]["kernel"]}) for values in stacked.each]
    assert_same(name, found, jax.tree.map(lambda *parts: np.stack(parts), *alone), where="scan")


# TE's custom calls have no batching rule (docs/explanation/te-findings.md); before 0.11, JAX maps no block-scaled
# product over one operand alone.
@pytest.mark.host
@pytest.mark.parametrize("mapped", ["variables", pytest.param("batches", marks=pytest.mark.jax("0.11"))])
@recipes
def test_mapped_steps_are_steps(name: str, mapped: str) -> None:
    """Each with scales of its own, over batches alone or over variables as well."""
    stacked = Stacked(name)
    layer, kernels = stacked.layer, stacked.arrays["kernel"]
    over = 0 if mapped == "variables" else None
    found = jax.jit(jax.vmap(functools.partial(step_in, stacked.recipe, layer), in_axes=(over, 0, 0)))(
        kernels if mapped == "variables" else kernels[0], stacked.arrays["x"], stacked.arrays["grad"]
    )
    given = stacked.each if over == 0 else [{**each, "kernel": stacked.each[0]["kernel"]} for each in stacked.each]
    alone = [on_one_device(name, values) for values in given]
    assert_same(name, found, jax.tree.map(lambda *parts: np.stack(parts), *alone), where=f"vmap over {mapped}")


@recipes
def test_recipe_counts_that_is_in_force_whichever_came_before(name: str) -> None:
    """In one process, each recipe once more after all of the others: traced anew, it is the same program."""
    values = tensors("MXFP8BlockScaling", 1, 1, 1)
    others = [RecipeConfig(), RecipeConfig("Float8CurrentScaling"), *RECIPES.values()]
    able = {name for name, support in te.support_by_recipe().items() if support.ok}
    runs = [config for config in others if config.name in able]

    def program(config: RecipeConfig) -> str:
        x, grad = on_device(values["x"]), on_device(values["grad"])
        with te.Autocast(config)():
            variables = te.unbox(jax.eval_shape(layer_for(values).init, jax.random.key(0), x))
        step = functools.partial(inspect.unwrap(dense_step), layer_for(values), te.Autocast(config))
        return str(jax.make_jaxpr(step)(variables, x, grad))

    first = program(RECIPES[name])
    programs = [program(config) for config in runs]
    assert len(set(programs)) == len(runs), "two recipes have the same program"
    assert program(RECIPES[name]) == first, f"the program of {name} is another one after {[c.name for c in runs]}"
    assert first in programs, f"the program of {name} is another one after those of {runs[:2]}"


# --- several devices --------------------------------------------------------------------------------------------------

DIVISIONS: dict[str, tuple[str, dict[str, tuple[str | None, ...]]]] = {
    # the kind of parallelism, and how each tensor is divided
    "rows": ("dp", {"x": ("dp",), "kernel": (), "grad": ("dp",)}),
    "features": ("tp", {"x": (), "kernel": (None, "tp"), "grad": (None, "tp")}),
    "inputs": ("tp", {"x": (None, "tp"), "kernel": ("tp",), "grad": ()}),
}


def on_devices(name: str, values: Mapping[str, Any], division: str, mesh: Mesh) -> Step:
    """A step whose tensors are divided over the devices of a mesh."""
    axis, specs = DIVISIONS[division]
    with te.mesh_context(mesh), te.Autocast(axes=(axis,))():
        put = {
            tensor: jax.device_put(on_device(values[tensor]), NamedSharding(mesh, PartitionSpec(*spec)))
            for tensor, spec in specs.items()
        }
        mode, variables = te.Autocast(RECIPES[name], (axis,)), {"params": {"kernel": put["kernel"]}}
        return dense_step(layer_for(values), mode, variables, put["x"], put["grad"])


devices = pytest.mark.parametrize("count", [pytest.param(count, marks=pytest.mark.devices(count)) for count in (2, 4)])


@pytest.mark.parametrize("borders", ["of blocks", pytest.param("inside blocks", marks=pytest.mark.shardy)])
@devices
@pytest.mark.parametrize("division", DIVISIONS)
@recipes
def test_divided_step_is_that_of_one_device(name: str, division: str, count: int, borders: str) -> None:
    """Also where a device gets half a block: the scale is that of the whole block."""
    blocks = count if borders == "of blocks" else count // 2
    values, axis = tensors(name, blocks, blocks, blocks), DIVISIONS[division][0]
    found = on_devices(name, values, division, Mesh(np.asarray(jax.devices()[:count]), (axis,)))
    assert_same(
        name, found, on_one_device(name, values), where=f"{division} divided over {count} devices, borders {borders}"
    )


@pytest.mark.devices(2)
@pytest.mark.parametrize("division", DIVISIONS)
@recipes
def test_step_divided_along_an_explicit_axis_is_that_of_one_device(name: str, division: str) -> None:
    """As `jax.make_mesh` makes axes since JAX 0.9: how arrays lie is part of their type."""
    values, axis = tensors(name, 2, 2, 2), DIVISIONS[division][0]
    mesh = jax.make_mesh((2,), (axis,), axis_types=(jax.sharding.AxisType.Explicit,), devices=jax.devices()[:2])
    found = on_devices(name, values, division, mesh)
    assert_same(name, found, on_one_device(name, values), where=f"{division} divided along an explicit axis")


@pytest.mark.devices(4)
@recipes
def test_names_of_axes_divide_codes_and_scales(name: str) -> None:
    """By Flax's logical axis rules, over two axes at once: rows of sequences and features."""
    values = tensors(name, 4, 2, 2)
    rules = (("batch", "dp"), ("sequence", None), ("inputs", None), ("features", "tp"))
    axes = {"input_axes": ("batch", "sequence", "inputs"), "kernel_axes": ("inputs", "features")}
    layer = dense_layer(features=values["kernel"].shape[1], use_bias=False, **axes)
    mesh = Mesh(np.asarray(jax.devices()[:4]).reshape(2, 2), ("dp", "tp"))
    given = {tensor: on_device(v) for tensor, v in values.items()}
    folded = [given[tensor].reshape(2, -1, given[tensor].shape[1]) for tensor in ("x", "grad")]
    with te.mesh_context(mesh), te.Autocast(axes=("dp", "tp"))(), nn.logical_axis_rules(rules):
        whole = jax.device_put((given["kernel"], *folded), NamedSharding(mesh, PartitionSpec()))
        mode = te.Autocast(RECIPES[name], ("dp", "tp"))

        def step(kernel: jax.Array, x: jax.Array, grad: jax.Array) -> Any:
            with mode():
                y, pull_back = jax.vjp(lambda k, x: layer.apply({"params": {"kernel": k}}, x), kernel, x)
                return y, pull_back(grad)

        y, (dkernel, dx) = jax.jit(step)(*whole)
    assert math.prod(y.sharding.shard_shape(y.shape)) == y.size / 4, f"Control: the output lies as {y.sharding}"
    one = on_one_device(name, values)
    found = {"y": y.reshape(one.y.shape), "dx": dx.reshape(one.dx.shape), "dkernel": dkernel}
    expected = {"y": one.y, "dx": one.dx, "dkernel": one.grads["params"]["kernel"]}
    assert_same(name, found, expected, where="divided by names of axes")


def test_agreement_is_less_than_one_wrong_scale() -> None:
    # Control.
    matrix = np.random.default_rng(0).normal(0, 1, (32, 32))
    wrong = matrix.copy()
    wrong[3, :16] *= 2
    with pytest.raises(AssertionError, match=r"relative difference=0\.1"):
        assert_close_norm(where="x", actual=wrong, expected=matrix, tolerance=max(AGREEMENT.values()))
