"""What a configuration refuses, and what the environment variables mean."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.files import cache_dir
from mnist_fp8.core.modes import Precision, RecipeConfig
from mnist_fp8.core.run_kind import RunKind, requested_run_kind
from mnist_fp8.training.config import TrainConfig

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no images in a batch": ({"batch_size": 0}, "batch size is 0; expected 1 or more"),
    "less than no images": ({"batch_size": -5}, "batch size is -5; expected 1 or more"),
    "no images in a test batch": ({"test_batch_size": 0}, "test batch size is 0; expected 1 or more"),
    "no epochs": ({"epochs": 0}, "epochs is 0; expected 1 or more"),
    "no training images": ({"train_size": 0}, "train size is 0; expected 1 or more"),
    "no test images": ({"test_size": 0}, "test size is 0; expected 1 or more"),
    "no interval": ({"fp8_update_interval": 0}, "FP8 update interval is 0; expected 1 to 2147483647"),
    "negative seed": ({"seed": -1}, "seed is -1; expected 0 to 4294967295"),
    "seed beyond 32 bits": ({"seed": 2**32}, "seed is 4294967296; expected 0 to 4294967295"),
    "rate of zero": ({"learning_rate": 0.0}, "learning rate is 0.0; expected a finite number above 0"),
    "negative rate": ({"learning_rate": -1.0}, "learning rate is -1.0; expected a finite number above 0"),
    "rate not a number": ({"learning_rate": float("nan")}, "learning rate is nan; expected a finite number above 0"),
    "infinite rate": ({"learning_rate": float("inf")}, "learning rate is inf; expected a finite number above 0"),
    "momentum of one": ({"momentum": 1.0}, "momentum is 1.0; expected a number from 0 to below 1"),
    "negative momentum": ({"momentum": -0.1}, "momentum is -0.1; expected a number from 0 to below 1"),
    "momentum not a number": ({"momentum": float("nan")}, "momentum is nan; expected a number from 0 to below 1"),
    "batch that devices cannot share": (
        {"mesh": (("dp", 3),), "batch_size": 64},
        "batch size is 64; expected a multiple of the mesh's 3 devices",
    ),
    "test batch that devices cannot share": (
        {"mesh": (("dp", 2), ("fsdp", 2)), "test_batch_size": 802},
        "test batch size is 802; expected a multiple of the mesh's 4 devices",
    ),
}

REFUSED_BY_RECIPE: dict[str, tuple[dict[str, Any], str]] = {
    "no history": ({"amax_history_len": 0}, "amax history length is 0; expected 1 to 1000000"),
    "unknown algorithm": ({"amax_compute_algo": "foo"}, "amax algorithm is 'foo'; expected 'max' or 'most_recent'"),
    "margin beyond 32 bits": ({"margin": 31}, "FP8 margin is 31; expected -30 to 30"),
    "margin that underflows": ({"margin": -31}, "FP8 margin is -31; expected -30 to 30"),
}

ACCEPTED: list[dict[str, Any]] = [
    {"batch_size": 1, "test_batch_size": 1, "epochs": 1, "train_size": 1, "test_size": 1},
    {"seed": 0, "momentum": 0.0, "learning_rate": 1e-30},
    {"seed": 2**32 - 1, "momentum": 0.999, "learning_rate": 1e30},
    {"mesh": (("dp", 2), ("fsdp", 2)), "batch_size": 4, "test_batch_size": 8},
]


@pytest.mark.parametrize(("values", "message"), REFUSED.values(), ids=REFUSED)
def test_training_refuses_what_no_machine_can_do(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        TrainConfig(**values)
    assert str(error.value) == message


@pytest.mark.parametrize(("values", "message"), REFUSED_BY_RECIPE.values(), ids=REFUSED_BY_RECIPE)
def test_recipe_refuses_what_no_recipe_can_take(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        RecipeConfig(**values)
    assert str(error.value) == message


@pytest.mark.parametrize("values", ACCEPTED, ids=", ".join)
def test_training_accepts_the_values_just_inside_its_limits(values: dict[str, Any]) -> None:
    assert {name: getattr(TrainConfig(**values), name) for name in values} == values


@pytest.mark.parametrize("margin", [-30, 0, 30])
def test_recipe_accepts_margins_within_32_bits(margin: int) -> None:
    assert RecipeConfig(margin=margin).options == {"margin": margin}


def test_defaults_are_those_of_the_example_of_transformer_engine() -> None:
    config = TrainConfig()
    assert (config.batch_size, config.test_batch_size, config.epochs) == (64, 800, 10)
    assert (config.learning_rate, config.momentum, config.seed) == (0.01, 0.9, 1)
    assert config.precision is Precision.FLAX_BF16


def test_configuration_cannot_change_once_made() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("mesh", "devices"), [((), 1), ((("dp", 2),), 2), ((("dp", 2), ("fsdp", 3)), 6)], ids=["none", "dp", "dp and fsdp"]
)
def test_devices_are_the_product_of_the_mesh(mesh: tuple[tuple[str, int], ...], devices: int) -> None:
    assert TrainConfig(mesh=mesh, batch_size=6, test_batch_size=6).devices == devices


def test_options_are_those_that_were_asked_for() -> None:
    assert RecipeConfig("Foo").options == {}
    asked = {"margin": 0, "fp8_format": "E4M3", "amax_history_len": 4, "amax_compute_algo": "max"}
    assert RecipeConfig("Foo", **asked).options == asked  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "mode"),
    [
        (TrainConfig(), "flax-bf16"),
        (TrainConfig(Precision.TE_BF16, RecipeConfig("Foo")), "te-bf16"),
        (TrainConfig(Precision.TE_FP8), "te-fp8: DelayedScaling"),
        (TrainConfig(Precision.TE_FP8, RecipeConfig("Foo", margin=2)), "te-fp8: Foo, margin=2"),
    ],
    ids=["Flax", "TE in BF16", "recipe", "options"],
)
def test_mode_is_the_precision_and_the_recipe_where_one_is_used(config: TrainConfig, mode: str) -> None:
    assert config.mode == mode


def test_only_te_precisions_use_te() -> None:
    assert [precision.uses_te for precision in Precision] == [False, True, True]


@pytest.mark.parametrize(
    ("environ", "kind"),
    [
        ({}, None),
        ({"MNIST_FP8_TE": ""}, None),
        ({"MNIST_FP8_TE": "host"}, RunKind.HOST),
        ({"MNIST_FP8_TE": "kernel"}, RunKind.KERNEL),
    ],
    ids=["unset", "empty", "host", "kernel"],
)
def test_variable_forces_a_kind_of_run(environ: dict[str, str], kind: RunKind | None) -> None:
    assert requested_run_kind(environ) is kind


@pytest.mark.parametrize("value", ["foo", "HOST", "0"])
def test_variable_with_another_value_is_refused(value: str) -> None:
    message = f"MNIST_FP8_TE is '{value}'; expected 'kernel' or 'host', or leave it unset"
    with pytest.raises(ConfigError) as error:
        requested_run_kind({"MNIST_FP8_TE": value})
    assert str(error.value) == message


def test_variable_is_read_from_the_environment_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNIST_FP8_TE", "kernel")
    assert requested_run_kind() is RunKind.KERNEL


def test_cache_is_where_the_desktop_says() -> None:
    assert cache_dir({"XDG_CACHE_HOME": "/elsewhere"}) == Path("/elsewhere/mnist_fp8")


@pytest.mark.parametrize("environ", [{}, {"XDG_CACHE_HOME": ""}], ids=["unset", "empty"])
def test_cache_is_in_the_home_folder_otherwise(environ: dict[str, str]) -> None:
    assert cache_dir(environ) == Path.home() / ".cache" / "mnist_fp8"


@pytest.mark.parametrize(("kind", "word"), [(RunKind.KERNEL, "kernel run"), (RunKind.HOST, "host run")])
def test_description_of_a_run_says_its_kind_first(kind: RunKind, word: str) -> None:
    assert kind.describe().startswith(word)
    assert "\n" not in kind.describe()
