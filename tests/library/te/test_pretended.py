"""Tests of the GPU that a host run pretends to have."""

import importlib
from typing import Any

import pytest

from mnist_fp8 import te
from mnist_fp8.core.capability import VARIABLE, Capability
from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.modes import BLOCK_SCALED, RECIPES, RecipeConfig
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.te import host, loading, pretended
from support.subprocesses import run_code

pytestmark = pytest.mark.host


def what_transformer_engine_sees() -> int:
    """The compute capability, as TE's own function has it, which keeps its answer."""
    utilities: Any = importlib.import_module("transformer_engine.jax.quantize.device_utils")
    capability: int = utilities.get_device_compute_capability(0)
    return capability


def test_capability_is_asked_for_again_and_then_as_before() -> None:
    found = [what_transformer_engine_sees()]
    with pretended.pretending(Capability.BLACKWELL):
        found.append(what_transformer_engine_sees())
        with pretended.pretending(Capability.HOPPER):
            found.append(what_transformer_engine_sees())
        found.append(what_transformer_engine_sees())
    found.append(what_transformer_engine_sees())
    assert found == [90, 100, 90, 100, 90]


def test_capability_is_as_before_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), pretended.pretending(Capability.BLACKWELL):
        raise ZeroDivisionError
    assert what_transformer_engine_sees() == Capability.HOPPER


@pytest.mark.parametrize("name", BLOCK_SCALED)
def test_block_scaled_recipe_sees_a_blackwell(name: str) -> None:
    with te.autocast(enabled=True, recipe=te.make_recipe(RecipeConfig(name))):
        assert what_transformer_engine_sees() == Capability.BLACKWELL
    assert what_transformer_engine_sees() == Capability.HOPPER


def test_other_recipes_and_none_see_a_hopper() -> None:
    for recipe in (RecipeConfig(), RecipeConfig("Float8CurrentScaling"), None):
        with te.Autocast(recipe)():
            assert what_transformer_engine_sees() == Capability.HOPPER


def test_recipe_that_is_not_in_force_changes_nothing() -> None:
    with te.autocast(enabled=False, recipe=te.make_recipe(RecipeConfig("MXFP8BlockScaling"))):
        assert what_transformer_engine_sees() == Capability.HOPPER


def test_layout_of_codes_is_asked_for_again() -> None:
    """It is kept by a method of TE's, and not by a function."""

    def layout() -> str:
        modes: Any = importlib.import_module("transformer_engine.jax.quantize.scaling_modes")
        return str(modes.ScalingMode.DELAYED_TENSOR_SCALING.get_quantize_layout(modes.TensorUsage.RHS))

    found = [layout()]
    with pretended.pretending(Capability.BLACKWELL):
        found.append(layout())
    found.append(layout())
    assert found[0] != found[1]
    assert found[0] == found[2]


# --- a capability that is asked for --------------------------------------------------------------------------------


@pytest.mark.parametrize("capability", Capability)
def test_capability_that_is_asked_for_is_seen_in_every_recipe_and_without_one(
    monkeypatch: pytest.MonkeyPatch, capability: Capability
) -> None:
    monkeypatch.setattr(host.DEVICE, "asked", capability)
    with pretended.pretending(capability):
        for recipe in ("", *RECIPES):
            with te.device_for(recipe):
                assert what_transformer_engine_sees() == capability, recipe
    assert (
        te.engine()
        .description.partition("It pretends ")[2]
        .startswith(f"compute capability {capability} for all recipes")
    )


@pytest.mark.parametrize("name", BLOCK_SCALED)
def test_hopper_that_is_asked_for_lacks_the_recipes_of_a_blackwell(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    recipe = te.make_recipe(RecipeConfig(name))
    assert te.support(recipe).ok, "Control: it is left to the recipe"
    monkeypatch.setattr(host.DEVICE, "asked", Capability.HOPPER)
    assert "compute capability" in te.support(recipe).reason


SEEN = """
from mnist_fp8 import te
print(te.engine().description)
from transformer_engine_jax import get_device_compute_capability
print(get_device_compute_capability(0))
"""


@pytest.mark.parametrize(
    ("value", "says", "number"),
    [
        ("", "compute capability 9.0, and 10.0 for MXFP8 and NVFP4; products of", "90"),
        ("9.0", "compute capability 9.0 for all recipes, so that MXFP8 and NVFP4 do not run", "90"),
        ("10.0", "compute capability 10.0 for all recipes; products of MXFP8 and NVFP4 are computed by", "100"),
    ],
)
def test_variable_reaches_transformer_engine_and_what_is_said(value: str, says: str, number: str) -> None:
    variables = {VARIABLE: value, "JAX_PLATFORMS": "cpu", "MNIST_FP8_TE": "host"}
    said, seen = run_code(SEEN, variables=variables).splitlines()
    assert says in said
    assert seen == number


def test_kernel_run_refuses_to_pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "10.0")
    monkeypatch.setattr(loading, "kind_of_run", lambda: RunKind.KERNEL)
    with pytest.raises(ConfigError, match="this is a kernel run: its GPU has its own; leave out --capability"):
        loading.engine.__wrapped__()
