"""The oracle of layers that fuse a layer norm or an MLP with products, inside a model."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_fp8 import te
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.model import require_none
from mnist_fp8.model.fused_calls import is_fused
from mnist_fp8.model.numerics import (
    call_problems,
    layers_without_oracle,
    metadata_problems,
    metadata_problems_of,
    numerics_problems,
)
from mnist_fp8.model.run import CURRENT, DELAYED, passes
from mnist_fp8.te.calls import Call
from models.fused import Fused, dense, mlp
from models.small import factory

E4M3 = dataclasses.replace(DELAYED, fp8_format="E4M3", margin=1)


@functools.cache
def model(layer: tuple[str, tuple[tuple[str, Any], ...]]) -> Any:
    return factory(Fused(((layer[0], dict(layer[1])),)))


def model_of(layer: tuple[str, Mapping[str, Any]]) -> Any:
    """The factory of a model of one layer, the same each time."""
    return model((layer[0], tuple(layer[1].items())))


@pytest.mark.parametrize(
    ("layer", "recipe"),
    [
        (dense(), CURRENT),
        (dense(zero_centered_gamma=True, epsilon=1e-2, use_bias=True), E4M3),
        (dense(layernorm_type="rmsnorm"), DELAYED),
        (mlp(activations=("silu", "linear"), layernorm_type="rmsnorm"), DELAYED),
        (mlp(activations=("gelu", "linear"), use_bias=True, epsilon=1e-2), CURRENT),
        (mlp(activations=("squared_relu",), zero_centered_gamma=True), E4M3),
    ],
)
def test_fused_layers_compute_and_keep_what_the_oracle_says(layer: Any, recipe: RecipeConfig) -> None:
    made = model_of(layer)
    assert any(map(is_fused, passes(made, recipe).calls))
    assert not layers_without_oracle(made, recipe)
    require_none(numerics_problems(made, recipe))
    require_none(metadata_problems(made, recipe))


@pytest.mark.parametrize("recipe", [CURRENT, DELAYED], ids=lambda recipe: recipe.name)
def test_layers_that_are_not_to_be_quantized_are_those_of_bf16(recipe: RecipeConfig) -> None:
    """TE's functions in a place that leaves autocast, a fused one among them."""

    class Leaves(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            with te.autocast(enabled=False):
                x = te.dense_general(features=32, name="before")(x)
                kernel = self.param("kernel", nn.initializers.lecun_normal(), (32, 32))
                gamma = self.param("gamma", nn.initializers.ones, (32,)).astype(x.dtype)
                normal = te.find_name("layernorm_dense", "layernorm_dense")
                x = normal(x, kernel, gamma, None, norm_type="rmsnorm")
            return te.dense_general(features=32, name="after")(x)

    made = factory(Leaves())
    functions = {call.site.function for call in passes(made, recipe).calls}
    assert functions == {"dense", "layernorm_dense"}
    assert not layers_without_oracle(made, recipe)
    require_none(numerics_problems(made, recipe))
    require_none(metadata_problems(made, recipe))


# --- it can fail -------------------------------------------------------------------------------------------------


GATED = model_of(mlp(activations=("silu", "linear"), use_bias=True))


def call_of(recipe: RecipeConfig) -> Call:
    (call,) = passes(GATED, recipe).calls
    return call


def with_array(call: Call, side: str, name: str, change: Callable[[Any], Any]) -> Call:
    """A call of which one array is another one: of an argument, or its gradient."""
    arrays = list(getattr(call, side))
    position = call.names.index(name) if side != "outputs" else 0
    arrays[position] = np.asarray(change(arrays[position].astype(np.float32)), arrays[position].dtype)
    changed: dict[str, Any] = {side: tuple(arrays)}
    return dataclasses.replace(call, **changed)


@pytest.mark.parametrize("recipe", [CURRENT, DELAYED], ids=lambda recipe: recipe.name)
@pytest.mark.parametrize(
    ("side", "name", "said"),
    [
        ("outputs", "", "output"),
        ("d_inputs", "x", "gradient of the input"),
        ("d_inputs", "gamma", "gradient of scale"),
        ("d_inputs", "beta", "gradient of ln_bias"),
        ("d_inputs", "kernel_1", "gradient of wi_kernel"),
        ("d_inputs", "kernel_2", "gradient of wo_kernel"),
    ],
)
def test_tensor_that_is_a_percent_off_is_named(recipe: RecipeConfig, side: str, name: str, said: str) -> None:
    wrong = with_array(call_of(recipe), side, name, lambda values: values * 1.01)
    (problem,) = call_problems(wrong, recipe)
    assert problem.what.startswith(f"{said} is off by a norm of")


@pytest.mark.parametrize("name", ["bias_1", "bias_2"])
def test_gradient_of_a_bias_that_is_a_tenth_off_is_named(name: str) -> None:
    wrong = with_array(call_of(DELAYED), "d_inputs", name, lambda values: values * 1.1)
    (problem,) = call_problems(wrong, DELAYED)
    assert "_bias is off" in problem.what


@pytest.mark.parametrize("recipe", [CURRENT, DELAYED], ids=lambda recipe: recipe.name)
@pytest.mark.parametrize(
    "options",
    [{"epsilon": 0.3}, {"zero_centered_gamma": True}, {"activation_type": ("gelu", "linear")}],
    ids=str,
)
def test_call_by_other_options_than_it_was_given_is_named(recipe: RecipeConfig, options: Mapping[str, Any]) -> None:
    call = call_of(recipe)
    problems = list(call_problems(dataclasses.replace(call, options={**call.options, **options}), recipe))
    assert any("output" in problem.what for problem in problems)


@pytest.mark.parametrize("operand", ["x of wi", "kernel of wi", "grad of wo", "x of wo", "kernel of wo", "grad of wi"])
def test_amax_of_a_neighbour_is_named(operand: str) -> None:
    """By a two-hundredth: the least that separates two amaxes in BF16."""
    call = call_of(DELAYED)
    metadata = [n for n, name in enumerate(call.names) if name == "quantizer_sets" and call.inputs[n].size > 1]
    order = ["x of wi", "kernel of wi", "grad of wo", "x of wo", "kernel of wo", "grad of wi"]
    arrays = list(call.d_inputs)
    position = metadata[order.index(operand)]
    arrays[position] = np.append(arrays[position][:-1], arrays[position][-1] * np.float32(1.005))
    problems = list(metadata_problems_of(dataclasses.replace(call, d_inputs=tuple(arrays)), DELAYED))
    assert [problem.what.split(" is ")[0] for problem in problems] == [f"amax history of {operand}"]


# --- what is not predicted is named ------------------------------------------------------------------------------


def test_activation_of_a_user_s_own_has_no_oracle_but_kernels_have_an_amax() -> None:
    call = call_of(DELAYED)
    own = dataclasses.replace(call, options={**call.options, "activation_type": (jnp.tanh, "linear")})
    assert not list(call_problems(own, DELAYED))
    require_none(metadata_problems_of(own, DELAYED))
    wrong = with_array(own, "inputs", "kernel_2", lambda values: values * 2)
    assert "amax history of kernel of wo" in str(*list(metadata_problems_of(wrong, DELAYED))[:1])
