"""What layers and contexts do, in words."""

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mnist_fp8 import te
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.programs import jaxprs
from mnist_fp8.record.entries import Failure, Text, Value

_DELAYED = te.Autocast(RecipeConfig())
_BF16 = te.Autocast()
_SHORT = te.Autocast(RecipeConfig(amax_history_len=4))


def probes() -> Mapping[str, Callable[[], Mapping[str, Value]]]:
    """Measurements by the beginning of their keys."""
    found: dict[str, Callable[[], Mapping[str, Value]]]
    found = {f"behaviour/layers/{name}": functools.partial(_fact, name) for name in _FACTS}
    return {**found, "behaviour/contexts": _former_autocast}


def _fact(name: str) -> dict[str, Value]:
    """One fact, or why it cannot be had."""
    key = f"behaviour/layers/{name}"
    try:
        return {key: Text(str(_FACTS[name]()))}
    except Exception as error:  # noqa: BLE001 - what a release raises is what it does
        return {key: Failure.of(error)}


def _former_autocast() -> dict[str, Value]:
    """Whether ``fp8_autocast`` is still there; if it is to go, it raises a warning."""
    key = "behaviour/contexts/fp8_autocast"
    if not te.has_name("fp8_autocast"):
        return {key: Text("none")}
    with te.former_autocast(te.make_recipe(RecipeConfig())):
        return {key: Text("can be entered")}


@functools.cache
def _boxed_variables() -> Any:  # noqa: ANN401
    with _SHORT():
        return te.dense_general(features=16).init(jax.random.key(0), jnp.ones((16, 32), jnp.bfloat16))


def _raw_layer(**fields: Any) -> tuple[jax.Array, Mapping[str, Any]]:  # noqa: ANN401
    """A dense layer as TE's users write it: its output and its parameters, as shapes and dtypes."""
    layer = te.engine().module.flax.DenseGeneral(features=16, **fields)
    x = jax.ShapeDtypeStruct((16, 4, 8), jnp.bfloat16)
    y, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
    return y, te.unbox(variables)["params"]


def _tensors(shape: tuple[int, int, int] = (64, 128, 32)) -> tuple[np.ndarray, ...]:
    rows, contracted, features = shape
    drawn = np.random.default_rng(0)
    sizes = ((rows, contracted), (contracted, features), (rows, features))
    return tuple(drawn.normal(0, 1, size).astype(np.float32) for size in sizes)


def _passes(mode: te.Autocast, x: Any, kernel: Any, grad: Any) -> tuple[Any, Any, Any]:  # noqa: ANN401
    """Output and gradients of ``x`` and ``kernel``: the second step, so that delayed scaling has a scale."""
    layer = te.dense_general(features=kernel.shape[-1], use_bias=False)
    x, grad = jnp.asarray(x, jnp.bfloat16), jnp.asarray(grad, jnp.bfloat16)
    with mode():
        variables = te.unbox(layer.init(jax.random.key(0), x)) | {"params": {"kernel": jnp.asarray(kernel)}}
        for _ in range(2):
            y, pull_back = jax.vjp(layer.apply, variables, x)
            grads, dx = pull_back(grad)
            variables = {name: variables[name] if name == "params" else grads[name] for name in variables}
    return y, dx, grads["params"]["kernel"]


@functools.cache
def _gradient_program(mode: te.Autocast) -> Any:  # noqa: ANN401
    x, kernel, grad = (jnp.asarray(tensor, jnp.bfloat16) for tensor in _tensors((16, 32, 16)))
    return jax.make_jaxpr(lambda x, kernel, grad: _passes(mode, x, kernel.astype(jnp.float32), grad))(x, kernel, grad)


def _precisions() -> str:
    return "HIGHEST" if "HIGHEST" in str(_gradient_program(_DELAYED)) else "default"


def _name_of_autocast() -> str:
    return "autocast" if te.has_name("autocast") else "fp8_autocast"


def _axes_without_mesh_resource() -> str:
    layer = te.engine().module.flax.DenseGeneral(features=16, kernel_axes=("a", "b"))
    with te.raw_autocast(_name_of_autocast(), enabled=False):
        layer.init(jax.random.key(0), jnp.ones((16, 32), jnp.bfloat16))
    return "works"


def _float8_after_inner_autocast() -> str:
    """Whether an autocast goes on after another one inside it has ended."""
    layer, x = te.dense_general(features=16), jnp.ones((16, 32), jnp.bfloat16)
    with _DELAYED():
        variables = te.unbox(layer.init(jax.random.key(0), x))
        with _BF16():
            pass
        program = jax.make_jaxpr(lambda x: layer.apply(variables, x))(x)
    return "goes on" if jaxprs.quantized_dtypes(program) else "has ended"


def _second_recipe() -> str:
    """Whether a recipe is that of its own autocast, where another was traced before it."""
    layer, x = te.dense_general(features=16, use_bias=False), jnp.full((16, 32), 2, jnp.bfloat16)
    scales = []
    for margin in (0, 3, 3):
        recipe = te.make_recipe(RecipeConfig(margin=margin))
        with contextlib.ExitStack() as stack:
            stack.enter_context(te.raw_autocast(_name_of_autocast(), True, recipe, te.mesh_resource()))  # noqa: FBT003
            variables = te.unbox(layer.init(jax.random.key(0), x))
            name = te.metadata_collection()
            for _ in range(2):
                grads = jax.grad(lambda variables: jnp.sum(layer.apply(variables, x).astype(jnp.float32)))(variables)
                variables = {**variables, name: grads[name]}
        scales.append(float(variables[name][te.scale_leaf("x")][0]))
    return "its own" if scales[0] == 8 * scales[1] else "the first one's"


_FACTS: dict[str, Callable[[], object]] = {
    "collections after init": lambda: ", ".join(sorted(_boxed_variables())),
    "kernel after init": lambda: type(_boxed_variables()["params"]["kernel"]).__name__.removesuffix("Impl"),
    "output of a float32 layer for BF16": lambda: _raw_layer(dtype=jnp.float32)[0].dtype,
    "kernel of a BF16 layer": lambda: _raw_layer(dtype=jnp.bfloat16)[1]["kernel"].dtype,
    "kernel over axes of 4 and 8": lambda: _raw_layer(axis=(-2, -1))[1]["kernel"].shape,
    "precision of FP8 products": _precisions,
    "axes without a mesh resource": _axes_without_mesh_resource,
    "autocast after one inside it": _float8_after_inner_autocast,
    "recipe in force": _second_recipe,
    "sees jax.set_mesh": lambda: hasattr(te.engine().module.sharding, "is_mesh_available"),
}
