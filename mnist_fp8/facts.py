"""What a Transformer Engine installation does, as named facts: ``python -m mnist_fp8.facts`` prints them as JSON.

A fact is what a user of the release can see: a name, a signature, a shape, a number to five digits. Nothing here says
what is right; facts of two releases are compared to find what changed. A fact that cannot be had says why.
"""

import contextlib
import dataclasses
import functools
import inspect
import json
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mnist_fp8 import te
from mnist_fp8.core.errors import TeUnavailableError
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.programs import jaxprs
from mnist_fp8.record.entries import Failure, Text

_DELAYED, _CURRENT = (te.Autocast(RecipeConfig(name)) for name in ("DelayedScaling", "Float8CurrentScaling"))
_BF16 = te.Autocast()
_SHORT = te.Autocast(RecipeConfig(amax_history_len=4))


def names() -> tuple[str, ...]:
    """The names of all facts."""
    return tuple(_FACTS)


def fact(name: str) -> Text | Failure:
    """One fact, or why it cannot be had."""
    try:
        return Text(str(_FACTS[name]()))
    except Exception as error:  # noqa: BLE001 - what a release raises is what it does
        return Failure.of(error)


def all_facts() -> dict[str, str]:
    """All facts as texts, by name.

    Raises:
        TeUnavailableError: there is nothing to measure.
    """
    te.engine()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {name: fact(name) for name in _FACTS}
    return {name: each.text if isinstance(each, Text) else each.error for name, each in found.items()}


# --- names and signatures ------------------------------------------------------------------------------------------


def _parameters(name: str) -> str:
    function = getattr(te.engine().module, name, None)
    return f"{name}({', '.join(inspect.signature(function).parameters)})" if function else "none"


def _fields(cls: Any) -> str:  # noqa: ANN401
    return ", ".join(field.name for field in dataclasses.fields(cls) if field.name not in ("parent", "name"))


def _public_names() -> str:
    module = te.engine().module
    return ", ".join(sorted(getattr(module, "__all__", [])))


def _defaults(recipe: str) -> str:
    parameters = inspect.signature(getattr(te.engine().recipes, recipe)).parameters.values()
    return ", ".join(f"{p.name}={p.default}" for p in parameters if not p.name.startswith("_"))


def _supported() -> str:
    return ", ".join(name for name, support in te.support_by_recipe().items() if support.ok)


# --- variables -----------------------------------------------------------------------------------------------------


@functools.cache
def _boxed_variables() -> Any:  # noqa: ANN401
    with _SHORT():
        return te.dense_general(features=16).init(jax.random.key(0), jnp.ones((16, 32), jnp.bfloat16))


def _leaves() -> str:
    metadata = te.unbox(_boxed_variables())[te.metadata_collection()]
    return ", ".join(f"{name}{list(leaf.shape)}" for name, leaf in sorted(metadata.items()))


def _raw_layer(**fields: Any) -> tuple[jax.Array, Mapping[str, Any]]:  # noqa: ANN401
    """A dense layer as TE's users write it: its output and its parameters, as shapes and dtypes."""
    layer = te.engine().module.flax.DenseGeneral(features=16, **fields)
    x = jax.ShapeDtypeStruct((16, 4, 8), jnp.bfloat16)
    y, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
    return y, te.unbox(variables)["params"]


@functools.cache
def _stored(amaxes: tuple[float, ...]) -> list[tuple[float, list[float]]]:
    """Scale and history of ``x`` after each of some steps, with a history of four."""
    layer = te.dense_general(features=16, use_bias=False)
    variables = te.unbox(_boxed_variables())
    del variables["params"]["bias"]
    name, stored = te.metadata_collection(), []
    with _SHORT():
        for amax in amaxes:
            x = jnp.full((16, 32), amax, jnp.bfloat16)
            grads = jax.grad(lambda variables, x: jnp.sum(layer.apply(variables, x).astype(jnp.float32)))(variables, x)
            variables = {**variables, name: grads[name]}
            leaves = grads[name]
            scale, history = leaves[te.scale_leaf("x")], leaves[te.history_leaf("x")]
            stored.append((float(scale[0]), [float(entry) for entry in history]))
    return stored


# --- numbers -------------------------------------------------------------------------------------------------------


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


def _errors(mode: te.Autocast) -> str:
    """Relative norm of the error of output, input gradient and kernel gradient, against float64."""
    x, kernel, grad = (np.asarray(jnp.asarray(t, jnp.bfloat16), np.float64) for t in _tensors())
    exact = x @ kernel, grad @ kernel.T, x.T @ grad
    found = (np.asarray(array, np.float64) for array in _passes(mode, *_tensors()))
    errors = (np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(found, exact, strict=True))
    return ", ".join(f"{error:.5f}" for error in errors)


class _Mlp(nn.Module):
    """Three dense layers."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for features in (64, 32):
            x = nn.relu(te.dense_general(features=features)(x))
        return te.dense_general(features=16)(x)


def _last_loss(mode: te.Autocast, steps: int = 60) -> str:
    """Loss of a small network after some steps of plain gradient descent."""
    drawn = np.random.default_rng(1)
    x = jnp.asarray(drawn.normal(0, 1, (64, 64)), jnp.bfloat16)
    labels = jnp.asarray(drawn.integers(0, 16, 64))
    model = _Mlp()

    @jax.jit
    def step(variables: Any) -> tuple[Any, jax.Array]:  # noqa: ANN401
        def loss(variables: Any) -> jax.Array:  # noqa: ANN401
            logits = model.apply(variables, x).astype(jnp.float32)
            return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1))

        with mode():
            value, grads = jax.value_and_grad(loss)(variables)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, variables["params"], grads["params"])
        return {**grads, "params": params}, value

    with mode():
        variables = te.unbox(model.init(jax.random.key(0), x))
    for _ in range(steps):
        variables, value = step(variables)
    return f"{float(value):.5f}"


def _zeros() -> str:
    x, kernel, grad = _tensors((16, 32, 16))
    y, *_ = _passes(_CURRENT, 0 * x, kernel, grad)
    return "zeros" if not np.asarray(y, np.float32).any() else f"{float(np.asarray(y, np.float32)[0, 0])}"


# --- programs ------------------------------------------------------------------------------------------------------


@functools.cache
def _gradient_program(mode: te.Autocast) -> Any:  # noqa: ANN401
    x, kernel, grad = (jnp.asarray(tensor, jnp.bfloat16) for tensor in _tensors((16, 32, 16)))
    return jax.make_jaxpr(lambda x, kernel, grad: _passes(mode, x, kernel.astype(jnp.float32), grad))(x, kernel, grad)


def _operands() -> str:
    found = {f"{gemm.lhs} x {gemm.rhs} ({gemm.primitive})" for gemm in jaxprs.gemms(_gradient_program(_DELAYED))}
    return ", ".join(sorted(found))


def _precisions() -> str:
    return "HIGHEST" if "HIGHEST" in str(_gradient_program(_DELAYED)) else "default"


# --- contexts ------------------------------------------------------------------------------------------------------


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
    "public names": _public_names,
    "autocast": lambda: _parameters(_name_of_autocast()),
    "fp8_autocast": lambda: _parameters("fp8_autocast"),
    "DenseGeneral": lambda: _fields(te.engine().module.flax.DenseGeneral),
    "MeshResource": lambda: _fields(te.engine().module.MeshResource),
    "recipes": lambda: ", ".join(te.recipe_names()),
    "recipes that run here": _supported,
    "options of DelayedScaling": lambda: _defaults("DelayedScaling"),
    "collections after init": lambda: ", ".join(sorted(_boxed_variables())),
    "kernel after init": lambda: type(_boxed_variables()["params"]["kernel"]).__name__.removesuffix("Impl"),
    "FP8 metadata": _leaves,
    "stored scales after amaxes 1, 2, 4, 0.5": lambda: [scale for scale, _ in _stored((1, 2, 4, 0.5))],
    "stored history after amaxes 1, 2, 4, 0.5": lambda: _stored((1, 2, 4, 0.5))[-1][1],
    "output of a float32 layer for BF16": lambda: _raw_layer(dtype=jnp.float32)[0].dtype,
    "kernel of a BF16 layer": lambda: _raw_layer(dtype=jnp.bfloat16)[1]["kernel"].dtype,
    "kernel over axes of 4 and 8": lambda: _raw_layer(axis=(-2, -1))[1]["kernel"].shape,
    "products under DelayedScaling": _operands,
    "precision of FP8 products": _precisions,
    "errors, BF16": lambda: _errors(_BF16),
    "errors, DelayedScaling": lambda: _errors(_DELAYED),
    "errors, Float8CurrentScaling": lambda: _errors(_CURRENT),
    "loss after 60 steps, BF16": lambda: _last_loss(_BF16),
    "loss after 60 steps, DelayedScaling": lambda: _last_loss(_DELAYED),
    "loss after 60 steps, Float8CurrentScaling": lambda: _last_loss(_CURRENT),
    "Float8CurrentScaling of zeros": _zeros,
    "axes without a mesh resource": _axes_without_mesh_resource,
    "autocast after one inside it": _float8_after_inner_autocast,
    "recipe in force": _second_recipe,
    "sees jax.set_mesh": lambda: hasattr(te.engine().module.sharding, "is_mesh_available"),
}


def main() -> None:
    """Print all facts as one JSON object."""
    try:
        facts = all_facts()
    except TeUnavailableError as error:
        sys.exit(f"nothing can be measured: {error}")
    json.dump(facts, sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
