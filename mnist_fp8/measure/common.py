"""What the measurements share: the modes to look at, and a dense layer's step on given tensors."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mnist_fp8 import te
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.oracle.dense import Array
from mnist_fp8.record.entries import Numbers, Quantity
from mnist_fp8.record.keys import BF16
from mnist_fp8.te.dense_step import Step, dense_layer, dense_step, init, on_device

_PREDICTED = {"NVFP4BlockScaling": RecipeConfig("NVFP4BlockScaling", disable_stochastic_rounding=True)}
"""In the place of recipes that are random by default: a record has what can be predicted."""


@functools.cache
def modes() -> dict[str, te.Autocast]:
    """BF16, and each recipe that runs here, by name."""
    names = [name for name, support in te.support_by_recipe().items() if support.ok]
    recipes = {name: te.Autocast(_PREDICTED.get(name, RecipeConfig(name))) for name in names}
    return {BF16: te.Autocast(), **recipes}


def step(mode: te.Autocast, tensors: Mapping[str, Array], *, steps: int = 2) -> tuple[Step, dict[str, Any]]:
    """Run a dense layer without bias on BF16 tensors ``x``, ``kernel`` and ``grad``.

    Args:
        mode: what to compute in.
        tensors: ``x`` (M, K), ``kernel`` (K, N) and ``grad`` (M, N), the gradient of the output.
        steps: how often; delayed scaling has a scale of these tensors from the second on.

    Returns:
        The last step, and the variables that it used.
    """
    layer, variables, x, grad = _layer_on(mode, tensors)
    for _ in range(steps):
        used = variables
        found = dense_step(layer, mode, used, x, grad)
        variables = {name: used[name] if name == "params" else found.grads[name] for name in used}
    return found, used


def _layer_on(mode: te.Autocast, tensors: Mapping[str, Array]) -> tuple[Any, dict[str, Any], jax.Array, jax.Array]:
    """A layer without bias, its first variables with the given kernel, input and output gradient."""
    layer = dense_layer(features=tensors["kernel"].shape[1], use_bias=False)
    x, grad = (on_device(tensors[name], "bfloat16") for name in ("x", "grad"))
    kernel = on_device(tensors["kernel"])
    return layer, {**_state(layer, mode, x), "params": {"kernel": kernel}}, x, grad


@functools.partial(jax.jit, static_argnums=(0, 1))
def _state(layer: Any, mode: te.Autocast, x: jax.Array) -> dict[str, Any]:  # noqa: ANN401
    """First variables of a layer but its parameters, whose random numbers would take most of the time to compile."""
    return {**init(layer, mode, x), "params": {}}


def repeated(quantity: Quantity, once: Mapping[str, float], again: Mapping[str, float]) -> Numbers:
    """Numbers by name; their noise is how far those of a repetition lie from them."""
    noise = max((abs(once[name] - again[name]) / max(abs(once[name]), 1e-30) for name in once), default=0.0)
    return Numbers(tuple(once.values()), tuple(once), noise, quantity)


def rounded(tensor: Array) -> Array:
    """A tensor whose numbers BF16 has, as float32."""
    return np.array(on_device(tensor, "bfloat16"), np.float32)


def tensors(shape: tuple[int, int, int], seed: int = 0) -> dict[str, Array]:
    """Normally distributed ``x`` (M, K), ``kernel`` (K, N) and ``grad`` (M, N), of numbers that BF16 has."""
    rows, contracted, features = shape
    drawn = np.random.default_rng(seed)
    sizes = {"x": (rows, contracted), "kernel": (contracted, features), "grad": (rows, features)}
    return {name: rounded(drawn.normal(0, 1, size)) for name, size in sizes.items()}


def program(mode: te.Autocast, values: Mapping[str, Array], *, backward: bool) -> tuple[Any, tuple[Any, ...]]:
    """The jaxpr of a dense layer's forward pass, or of a whole step, and its arguments."""
    layer, variables, x, grad = _layer_on(mode, values)

    def forward(variables: Any, x: jax.Array) -> jax.Array:  # noqa: ANN401
        with mode():
            y: jax.Array = layer.apply(variables, x)
            return y

    def whole(variables: Any, x: jax.Array, grad: jax.Array) -> Any:  # noqa: ANN401
        y, pull_back = jax.vjp(forward, variables, x)
        return y, pull_back(grad)

    return (whole, (variables, x, grad)) if backward else (forward, (variables, x))
