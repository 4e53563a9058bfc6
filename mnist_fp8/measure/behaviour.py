"""What layers and contexts do that a user can see: dtypes, shapes, containers, and what is in force where."""

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
from mnist_fp8.record.entries import Text, Value
from mnist_fp8.te.dense_step import BF16, dense_layer, dense_step, fp8, init, on_device


@functools.cache
def _x() -> jax.Array:
    """Return ones of shape ``(16, 32)`` in bfloat16: made when first asked for, as an import starts no device."""
    return on_device(np.ones((16, 32)), "bfloat16")


def probes() -> Mapping[str, Callable[[], Mapping[str, Value]]]:
    """Measurements by the beginning of their keys."""
    return {key: functools.partial(_observe, key, observation) for key, observation in _OBSERVATIONS.items()}


def _observe(key: str, observation: Callable[[], object]) -> dict[str, Value]:
    return {key: Text(str(observation()))}


# --- layers --------------------------------------------------------------------------------------------------------


@functools.cache
def _boxed_variables() -> Any:  # noqa: ANN401
    """Variables as TE makes them, boxes included."""
    with fp8(amax_history_len=4)():
        return te.dense_general(features=16).init(jax.random.key(0), _x())


def _raw_layer(**fields: Any) -> tuple[Any, Mapping[str, Any]]:  # noqa: ANN401
    """A dense layer as TE's users write it: its output and its parameters, as shapes and dtypes."""
    layer = te.engine().module.flax.DenseGeneral(features=16, **fields)
    x = jax.ShapeDtypeStruct((16, 4, 8), jnp.bfloat16)
    y, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
    return y, te.unbox(variables)["params"]


def _precision_of_products() -> str:
    """Whether a step's products ask for more than the default precision."""
    layer = dense_layer(features=16, use_bias=False)
    jaxpr = jax.make_jaxpr(dense_step, static_argnums=(0, 1))(
        layer, fp8(), init(layer, fp8(), _x()), _x(), _x()[:, :16]
    )
    return "HIGHEST" if "HIGHEST" in str(jaxpr) else "default"


# --- contexts ------------------------------------------------------------------------------------------------------


def _name_of_autocast() -> str:
    return "autocast" if te.has_name("autocast") else "fp8_autocast"


def _axes_without_mesh_resource() -> str:
    layer = te.engine().module.flax.DenseGeneral(features=16, kernel_axes=("a", "b"))
    with te.raw_autocast(_name_of_autocast(), enabled=False):
        layer.init(jax.random.key(0), _x())
    return "works"


def _autocast_around_another() -> str:
    """Whether an autocast goes on after another one inside it has ended."""
    layer = te.dense_general(features=16)
    with fp8()():
        variables = te.unbox(layer.init(jax.random.key(0), _x()))
        with BF16():
            pass
        jaxpr = jax.make_jaxpr(lambda x: layer.apply(variables, x))(_x())
    return "goes on" if jaxprs.quantized_dtypes(jaxpr) else "has ended"


def _second_recipe() -> str:
    """Whether a recipe is that of its own autocast, where another was traced before it."""
    scales = [_scale_with_margin(margin) for margin in (0, 3, 3)]
    return "its own" if scales[0] == 8 * scales[1] else "the first one's"


def _scale_with_margin(margin: int) -> float:
    """Stored scale of a constant input after two steps, without what `te.autocast` does against stale recipes."""
    layer, x = te.dense_general(features=16, use_bias=False), 2 * _x()
    recipe, collection = te.make_recipe(RecipeConfig(margin=margin)), te.metadata_collection()
    with contextlib.ExitStack() as stack:
        stack.enter_context(te.raw_autocast(_name_of_autocast(), True, recipe, te.mesh_resource()))  # noqa: FBT003
        variables = te.unbox(layer.init(jax.random.key(0), x))
        for _ in range(2):
            grads = jax.grad(lambda variables: jnp.sum(layer.apply(variables, x).astype(jnp.float32)))(variables)
            variables = {**variables, collection: grads[collection]}
    return float(variables[collection][te.scale_leaf("x")][0])


def _former_autocast() -> str:
    """Whether ``fp8_autocast`` is still there; if it is to go, it raises a warning."""
    if not te.has_name("fp8_autocast"):
        return "none"
    with te.former_autocast(te.make_recipe(RecipeConfig())):
        return "can be entered"


_OBSERVATIONS: dict[str, Callable[[], object]] = {
    "behaviour/layers/collections after init": lambda: ", ".join(sorted(_boxed_variables())),
    "behaviour/layers/kernel after init": lambda: type(_boxed_variables()["params"]["kernel"]).__name__.removesuffix(
        "Impl"  # jax.Array is ArrayImpl
    ),
    "behaviour/layers/output of a float32 layer for BF16": lambda: _raw_layer(dtype=jnp.float32)[0].dtype,
    "behaviour/layers/kernel of a BF16 layer": lambda: _raw_layer(dtype=jnp.bfloat16)[1]["kernel"].dtype,
    "behaviour/layers/kernel over axes of 4 and 8": lambda: _raw_layer(axis=(-2, -1))[1]["kernel"].shape,
    "behaviour/layers/precision of FP8 products": _precision_of_products,
    "behaviour/contexts/axes without a mesh resource": _axes_without_mesh_resource,
    "behaviour/contexts/autocast around another": _autocast_around_another,
    "behaviour/contexts/recipe in force": _second_recipe,
    "behaviour/contexts/jax.set_mesh is seen": lambda: hasattr(te.engine().module.sharding, "is_mesh_available"),
    "behaviour/contexts/fp8_autocast": _former_autocast,
}
