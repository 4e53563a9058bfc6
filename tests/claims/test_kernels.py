"""Claim: on a GPU, TE's kernels run, agree with TE's own JAX path, and train MNIST to 98%.

Only a kernel run can verify this. With ``-m gpu`` all other claims are verified on kernels as well.

What a failure means for an upgrade: the CUDA extension is not used, or computes something else than the Python beside
it says.
"""

import contextlib
import os
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_fp8 import float8, te_api, te_host
from mnist_fp8.config import TrainConfig
from mnist_fp8.layers import BF16, dense_layer, dense_step, fp8, variables_of
from mnist_fp8.oracles import TENSORS
from mnist_fp8.tolerances import KERNEL_AGAINST_JAX
from mnist_fp8.train import train_and_evaluate
from support.assertions import assert_close_norm, assert_trees_equal
from support.metadata import meta_of
from support.short_run import MODES

pytestmark = pytest.mark.gpu

RECIPES = {
    "bf16": BF16,
    "delayed": fp8(amax_history_len=4),
    "current": fp8("Float8CurrentScaling"),
}
SCALES = {"x": 90.0, "kernel": 300.0, "grad": 9000.0}


@contextlib.contextmanager
def custom_calls(*, enabled: bool) -> Iterator[None]:
    """TE with or without its custom calls. It reads the setting when it is traced, so that nothing may be reused."""
    before = os.environ.get("NVTE_JAX_CUSTOM_CALLS")
    os.environ["NVTE_JAX_CUSTOM_CALLS"] = "true" if enabled else "false"
    jax.clear_caches()
    try:
        yield
    finally:
        jax.clear_caches()
        if before is None:
            del os.environ["NVTE_JAX_CUSTOM_CALLS"]
        else:
            os.environ["NVTE_JAX_CUSTOM_CALLS"] = before


def arguments(recipe: str, shape: tuple[int, int, int] = (64, 128, 32)) -> tuple[Any, ...]:
    """Arguments of `dense_step` for a layer of (rows, contracted, features)."""
    rows, contracted, features = shape
    drawn = np.random.default_rng(9)
    x = jnp.asarray(drawn.normal(0, 1, (rows, contracted)), jnp.bfloat16)
    grad = jnp.asarray(drawn.normal(0, 0.01, (rows, features)), jnp.bfloat16)
    kernel = drawn.normal(0, 0.3, (contracted, features))
    metas = {name: meta_of(SCALES[name]) for name in TENSORS} if recipe == "delayed" else {}
    variables = variables_of(kernel, metas, np.linspace(-1, 1, features))
    return dense_layer(features=features), RECIPES[recipe], variables, x, grad


def compiled_calls(recipe: str) -> Counter[str]:
    """Custom calls of a compiled forward and backward pass."""
    return float8.custom_calls(dense_step.lower(*arguments(recipe)).compile().as_text())


@pytest.mark.parametrize("recipe", RECIPES)
def test_compiled_program_calls_te_kernels(recipe: str) -> None:
    calls = compiled_calls(recipe)
    te_calls = {name: count for name, count in calls.items() if name.startswith("te_")}
    gemms = sum(count for name, count in te_calls.items() if name.startswith("te_gemm"))
    assert gemms == 3, f"{recipe}: TE GEMM custom calls={gemms}, but should be 3; custom calls: {dict(calls)}"
    quantizations = sum(count for name, count in te_calls.items() if "quantize" in name)
    expected = 0 if recipe == "bf16" else 3
    assert quantizations == expected, (
        f"{recipe}: TE quantize custom calls={quantizations}, but should be {expected}; custom calls: {dict(calls)}"
    )


@pytest.mark.parametrize("recipe", RECIPES)
def test_disabled_custom_calls_leave_none(recipe: str) -> None:
    # Control.
    with custom_calls(enabled=False):
        calls = compiled_calls(recipe)
    assert not [name for name in calls if name.startswith("te_")], f"{recipe}: custom calls={dict(calls)}"


@pytest.mark.parametrize("recipe", RECIPES)
def test_kernels_agree_with_tes_own_jax_path(recipe: str) -> None:
    kernel = dense_step(*arguments(recipe))
    with custom_calls(enabled=False):
        reference = dense_step(*arguments(recipe))
    pairs = {
        "output": (kernel.y, reference.y),
        "input gradient": (kernel.dx, reference.dx),
        "kernel gradient": (kernel.grads["params"]["kernel"], reference.grads["params"]["kernel"]),
        "bias gradient": (kernel.grads["params"]["bias"], reference.grads["params"]["bias"]),
    }
    for name, (actual, expected) in pairs.items():
        where = f"{recipe}: {name}, kernels against TE's JAX path"
        assert_close_norm(where=where, actual=actual, expected=expected, tolerance=KERNEL_AGAINST_JAX)
    if recipe == "delayed":
        assert_trees_equal(where="metadata", actual=kernel.metadata, expected=reference.metadata)


@pytest.mark.parametrize("mode", MODES)
def test_full_mnist_reaches_98_percent_in_two_epochs(mode: str) -> None:
    precision, recipe = MODES[mode]
    found = train_and_evaluate(TrainConfig(precision=precision, recipe=recipe, epochs=2)).epochs[-1].test_accuracy
    assert found >= 0.98, f"{mode}: test accuracy after two epochs={found:.4f}, but should be at least 0.98"


def test_kernel_run_uses_the_extension() -> None:
    """The module in place is the compiled one, not the host run's stand-in."""
    module = sys.modules["transformer_engine_jax"]
    assert not isinstance(module, te_host.StandInModule), "transformer_engine_jax is the host run's stand-in"
    extension = te_api.find_extension()
    assert extension is not None
    assert extension.suffix == ".so"
