"""The door to Transformer Engine: what it chooses, builds and refuses."""

import contextlib
import itertools
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from mnist_fp8 import te
from mnist_fp8.core.errors import ConfigError, TeUnavailableError
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.machine import driver as machine_driver
from mnist_fp8.machine import libraries
from mnist_fp8.machine.driver import Driver
from mnist_fp8.programs import jaxprs
from mnist_fp8.te import dense, host, loading, supports

EXTENSION = Path("/somewhere/transformer_engine_jax.so")
NO_GPU = "a JAX without CUDA"
KERNEL, HOST = RunKind.KERNEL, RunKind.HOST

CHOICES: dict[tuple[RunKind | None, str, Path | None], RunKind | str] = {
    (None, NO_GPU, None): HOST,
    (None, NO_GPU, EXTENSION): HOST,
    (None, "", None): "install the extension (tox -e gpu shows how), or ask for a host run with MNIST_FP8_TE=host",
    (None, "", EXTENSION): KERNEL,
    (HOST, NO_GPU, None): HOST,
    (HOST, NO_GPU, EXTENSION): HOST,
    (HOST, "", None): "a host run needs JAX on the CPU; found a GPU, and no CUDA extension of TE",
    (HOST, "", EXTENSION): "set JAX_PLATFORMS=cpu as well",
    (KERNEL, NO_GPU, None): f"MNIST_FP8_TE=kernel needs a GPU and TE's CUDA extension; found {NO_GPU}, and no CUDA",
    (KERNEL, NO_GPU, EXTENSION): f"found {NO_GPU}, and {EXTENSION}",
    (KERNEL, "", None): "MNIST_FP8_TE=kernel needs a GPU and TE's CUDA extension; found a GPU, and no CUDA extension",
    (KERNEL, "", EXTENSION): KERNEL,
}


def only_configured(platforms: str) -> SimpleNamespace:
    """A JAX that has a setting, in both ways to read it, and nothing that could be started."""
    return SimpleNamespace(config=SimpleNamespace(jax_platforms=platforms, values={"jax_platforms": platforms}))


def test_table_of_choices_is_full() -> None:
    assert set(CHOICES) == set(itertools.product([None, HOST, KERNEL], [NO_GPU, ""], [None, EXTENSION]))


@pytest.mark.parametrize(
    ("requested", "no_gpu", "extension", "expected"),
    [
        pytest.param(
            *(requested, no_gpu, extension, expected),
            id=f"{requested.value if requested else 'nothing'} asked, {'no GPU' if no_gpu else 'GPU'},"
            f" {'extension' if extension else 'no extension'}",
        )
        for (requested, no_gpu, extension), expected in CHOICES.items()
    ],
)
def test_kind_of_run_follows_request_gpu_and_extension(
    requested: RunKind | None, no_gpu: str, extension: Path | None, expected: RunKind | str
) -> None:
    if isinstance(expected, RunKind):
        assert te.choose_run_kind(requested, no_gpu=no_gpu, extension=extension) is expected
        return
    with pytest.raises(TeUnavailableError) as error:
        te.choose_run_kind(requested, no_gpu=no_gpu, extension=extension)
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("platforms", "plugin", "driver", "expected"),
    [
        ("cpu", True, "", "JAX restricted to cpu (JAX_PLATFORMS)"),
        ("", False, "", "a JAX without CUDA"),
        ("", True, "no NVIDIA driver", "no NVIDIA driver"),
        ("", True, "", ""),
        ("cuda,cpu", True, "", ""),
        ("gpu", True, "", ""),
    ],
    ids=["JAX on a CPU", "no plugin", "no driver", "a GPU", "JAX on CUDA", "JAX on a GPU"],
)
def test_gpu_is_looked_for_without_starting_jax(
    monkeypatch: pytest.MonkeyPatch, platforms: str, *, plugin: bool, driver: str, expected: str
) -> None:
    monkeypatch.setattr(loading, "jax", only_configured(platforms))
    monkeypatch.setattr(machine_driver, "find_driver", lambda: Driver(error=driver))
    found_package(monkeypatch, object() if plugin else None)
    assert te.why_no_gpu() == expected


# --- loading -------------------------------------------------------------------------------------------------------


def test_engine_loads_once() -> None:
    assert te.engine() is te.engine()


def test_import_error_becomes_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> ModuleType:
        raise ImportError("no such enum")

    monkeypatch.setattr(loading, "choose_run_kind", lambda *_args, **_kwargs: HOST)
    monkeypatch.setattr(host, "load", fail)
    with pytest.raises(TeUnavailableError) as error:
        te.engine.__wrapped__()
    assert str(error.value) == "Transformer Engine does not import (host run): ImportError: no such enum"


@pytest.mark.parametrize("folder", ["transformer_engine/wheel_lib", "transformer_engine", "."])
def test_extension_is_found_in_and_beside_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    library = tmp_path / folder / "transformer_engine_jax.cpython-311.so"
    library.parent.mkdir(parents=True, exist_ok=True)
    library.touch()
    found_package(monkeypatch, SimpleNamespace(origin=str(tmp_path / "transformer_engine" / "__init__.py")))
    assert te.find_extension() == library


def test_other_libraries_are_no_extension(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "transformer_engine_torch.so").touch()
    found_package(monkeypatch, SimpleNamespace(origin=str(tmp_path / "transformer_engine" / "__init__.py")))
    assert te.find_extension() is None


@pytest.mark.parametrize("spec", [None, SimpleNamespace(origin=None)], ids=["no package", "namespace package"])
def test_without_the_package_there_is_no_extension(monkeypatch: pytest.MonkeyPatch, spec: object) -> None:
    found_package(monkeypatch, spec)
    assert te.find_extension() is None


def found_package(monkeypatch: pytest.MonkeyPatch, spec: object) -> None:
    """Let only that package be found."""
    fake = SimpleNamespace(util=SimpleNamespace(find_spec=lambda _name: spec))
    for module in (loading, libraries):
        monkeypatch.setattr(module, "importlib", fake)


def test_version_of_a_missing_package_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    assert te.version()[0].isdigit(), "Control: it is installed"

    def fail(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    error = metadata.PackageNotFoundError
    monkeypatch.setattr(loading, "metadata", SimpleNamespace(version=fail, PackageNotFoundError=error))
    assert te.version() == "not installed"


# --- recipes -------------------------------------------------------------------------------------------------------


def test_recipes_have_their_names_from_transformer_engine() -> None:
    names = te.recipe_names()
    assert {"DelayedScaling", "Float8CurrentScaling", "MXFP8BlockScaling"} <= set(names)
    assert "Recipe" not in names
    assert "CustomRecipe" not in names, "it needs an argument that no option gives"
    assert list(names) == sorted(names)


def test_recipe_that_has_to_be_given_something_is_said_not_to_be_supported() -> None:
    found = te.support_by_recipe()
    assert found["CustomRecipe"] == te.Support(ok=False, reason="it has to be given qfactory")
    assert found["DelayedScaling"].ok, "Control"


def test_recipe_that_refuses_its_defaults_is_said_not_to_be_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where ``NVTE_BACKWARD_OVERRIDE`` decides them; the others are asked all the same."""
    usual = te.support_by_recipe()

    def refuse(_recipe: object) -> None:
        raise AssertionError("not in this shell")

    monkeypatch.setattr(te.engine().recipes.DelayedScaling, "__init__", refuse)
    reason = "recipe DelayedScaling refuses its defaults: not in this shell"
    assert te.support_by_recipe() == usual | {"DelayedScaling": te.Support(ok=False, reason=reason)}


def test_recipe_is_made_with_the_options_asked_for() -> None:
    asked = {"margin": 3, "fp8_format": "E4M3", "amax_history_len": 7, "amax_compute_algo": "most_recent"}
    made: Any = te.make_recipe(RecipeConfig("DelayedScaling", **asked))  # type: ignore[arg-type]
    assert type(made).__name__ == "DelayedScaling"
    assert (made.margin, made.amax_history_len, made.amax_compute_algo) == (3, 7, "most_recent")
    assert made.fp8_format.name == "E4M3"


def test_recipe_without_options_is_transformer_engines_own() -> None:
    made: Any = te.make_recipe(RecipeConfig("DelayedScaling"))
    assert made == type(made)()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (RecipeConfig("Foo"), "recipe 'Foo' is not in Transformer Engine "),
        (RecipeConfig("Recipe"), "recipe 'Recipe' is not in Transformer Engine "),
        (
            RecipeConfig("Float8CurrentScaling", amax_history_len=4),
            "recipe Float8CurrentScaling has no option amax_history_len; it is one of DelayedScaling",
        ),
        (RecipeConfig(fp8_format="FOO"), "FP8 format is 'FOO'; expected E4M3 or HYBRID"),
        (RecipeConfig(fp8_format="E2M1"), "FP8 format is 'E2M1'; expected E4M3 or HYBRID"),
    ],
    ids=["unknown recipe", "base class", "option of another recipe", "unknown format", "format of four bits"],
)
def test_recipe_that_cannot_be_made_is_refused(config: RecipeConfig, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        te.make_recipe(config)
    assert str(error.value).startswith(message)


def test_refusal_of_transformer_engine_becomes_an_answer() -> None:
    with pytest.raises(ConfigError, match=r"^recipe DelayedScaling refuses .*E5M2(.|\n)*Pure E5M2 training"):
        te.make_recipe(RecipeConfig(fp8_format="E5M2"))


def test_unsupported_recipe_comes_with_the_reason() -> None:
    class Unknown(te.engine().recipes.Recipe):  # type: ignore[misc]
        """A recipe that no release knows."""

    found = te.support(Unknown())
    assert not found.ok
    assert found.reason
    assert te.support(te.make_recipe(RecipeConfig("DelayedScaling"))) == te.Support(ok=True)


@pytest.mark.host
def test_recipe_that_cannot_run_here_is_refused_with_those_that_can() -> None:
    with pytest.raises(ConfigError) as error:
        te.require_support(RecipeConfig("Float8BlockScaling"))
    message = str(error.value)
    assert message.startswith("recipe Float8BlockScaling cannot run here (host run: ")
    assert "Possible here: DelayedScaling, Float8CurrentScaling" in message


def test_supported_recipe_is_not_refused() -> None:
    te.require_support(RecipeConfig("DelayedScaling"))


def test_only_a_recipe_with_a_history_keeps_metadata() -> None:
    assert te.keeps_metadata(RecipeConfig("DelayedScaling"))
    assert not te.keeps_metadata(RecipeConfig("Float8CurrentScaling"))


@pytest.mark.parametrize(
    ("name", "multiple"),
    [("DelayedScaling", 16), ("Float8CurrentScaling", 16), ("MXFP8BlockScaling", 32), ("NVFP4BlockScaling", 32)],
)
def test_sizes_must_be_multiples_of_the_block(name: str, multiple: int) -> None:
    assert te.size_multiple(RecipeConfig(name)) == multiple


# --- autocast ------------------------------------------------------------------------------------------------------


def test_modes_are_equal_by_what_they_do() -> None:
    """``jax.jit`` traces once for each mode, and not more often."""
    asked = RecipeConfig("DelayedScaling", amax_history_len=4)
    assert hash(te.Autocast(asked)) == hash(te.Autocast(RecipeConfig("DelayedScaling", amax_history_len=4)))
    modes = {
        te.Autocast(asked),
        te.Autocast(RecipeConfig()),
        te.Autocast(),
        te.Autocast(asked, ("dp",)),
    }
    assert len(modes) == 4


def test_mode_can_be_entered_again_and_ends_with_its_block() -> None:
    layer, x = te.dense_general(features=16), jnp.ones((16, 16), jnp.bfloat16)
    mode = te.Autocast(RecipeConfig("Float8CurrentScaling"))

    def found() -> set[str]:
        return jaxprs.quantized_dtypes(jax.make_jaxpr(lambda x: layer.init(jax.random.key(0), x))(x))

    for _ in range(2):
        with mode():
            assert found() == {"float8_e4m3fn"}
        assert found() == set()
    with te.Autocast()():
        assert found() == set()


class OldModule(SimpleNamespace):
    """The names of an older release: ``fp8_autocast`` and its ``fp8_recipe``."""

    def __init__(self, calls: list[tuple[Any, ...]]) -> None:
        @contextlib.contextmanager
        def fp8_autocast(*, enabled: bool, fp8_recipe: object, mesh_resource: object) -> Iterator[None]:
            calls.append((enabled, fp8_recipe, mesh_resource))
            yield

        helper = SimpleNamespace(update_fp8_scale=jax.jit(lambda amax: amax))
        fp8 = SimpleNamespace(FP8Helper=helper)
        super().__init__(fp8_autocast=fp8_autocast, MeshResource=lambda **axes: axes, fp8=fp8)


def test_older_name_of_autocast_serves_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    old = te.Engine(HOST, OldModule(calls), ModuleType("recipes"))  # type: ignore[arg-type]
    monkeypatch.setattr(loading, "engine", lambda: old)
    with te.autocast(enabled=True, recipe="a recipe"):
        pass
    assert calls == [(True, "a recipe", {})]


def test_former_autocast_is_the_older_name(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    old = te.Engine(HOST, OldModule(calls), ModuleType("recipes"))  # type: ignore[arg-type]
    monkeypatch.setattr(loading, "engine", lambda: old)
    assert (te.has_name("fp8_autocast"), te.has_name("autocast")) == (True, False)
    with te.former_autocast("a recipe"):
        pass
    assert calls == [(True, "a recipe", {})]


def test_raw_autocast_hands_on_just_what_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    @contextlib.contextmanager
    def autocast(*arguments: object, **options: object) -> Iterator[None]:
        calls.append((arguments, options))
        yield

    new = te.Engine(HOST, SimpleNamespace(autocast=autocast), ModuleType("recipes"))  # type: ignore[arg-type]
    monkeypatch.setattr(loading, "engine", lambda: new)
    with te.raw_autocast("autocast", True, recipe="a recipe"):  # noqa: FBT003 - by position
        pass
    assert calls == [((True,), {"recipe": "a recipe"})]


def test_quantization_is_transformer_engines_module() -> None:
    found = te.quantization()
    assert found.__name__ == "transformer_engine.jax.quantize"
    with te.Autocast(RecipeConfig("Float8CurrentScaling"))():
        assert type(found.get_global_quantize_recipe()).__name__ == "Float8CurrentScaling"


def test_mesh_resource_in_force_is_that_of_autocast() -> None:
    with te.Autocast(axes=("dp",))():
        assert te.global_mesh_resource() == te.mesh_resource(dp_resource="dp")
    with pytest.raises(AssertionError, match="mesh resource"):
        te.global_mesh_resource()


def test_logical_axis_rules_are_extended_by_transformer_engine() -> None:
    given = (("mine", "dp"),)
    assert te.extend_logical_axis_rules(given) == given, "without a mesh"
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:1]), ("dp",))
    with te.mesh_context(mesh), te.Autocast(axes=("dp",))():
        found = te.extend_logical_axis_rules(given)
    assert found[0] == given[0]
    assert ("nvte_batch", "dp") in found


def test_mesh_axes_are_those_of_transformer_engine() -> None:
    assert {"dp", "fsdp", "tp"} <= set(te.mesh_axes())
    resource = te.mesh_resource(dp_resource="data")
    assert (resource.dp_resource, resource.fsdp_resource) == ("data", None)


# --- variables -----------------------------------------------------------------------------------------------------


def test_unboxed_variables_are_plain_arrays() -> None:
    boxed = {"params": {"kernel": meta.Partitioned(jnp.ones(3), names=("a",)), "bias": jnp.zeros(2)}}
    plain = te.unbox(boxed)
    assert isinstance(plain["params"]["kernel"], jax.Array)
    np.testing.assert_array_equal(plain["params"]["kernel"], np.ones(3))
    assert isinstance(boxed["params"]["kernel"], meta.Partitioned), "the original stays as it is"


def test_collections_are_replaced_by_name() -> None:
    original = {"params": {"w": 1}, "fp8_metas": {"scale": 2}}
    assert te.update_collections({"fp8_metas": {"scale": 3}}, original) == {
        "params": {"w": 1},
        "fp8_metas": {"scale": 3},
    }


@pytest.mark.parametrize(
    ("interval", "updated_after"),
    [(1, [0, 1, 2, 3, 4, 5]), (2, [1, 3, 5]), (3, [2, 5])],
)
def test_metadata_are_replaced_at_every_interval(interval: int, updated_after: list[int]) -> None:
    name = te.metadata_collection()
    old, new = {name: {"scale": jnp.float32(2)}}, {name: {"scale": jnp.float32(3)}, "params": {}}
    steps = range(6)
    found = [float(te.update_fp8_metas(old, new, step, interval)["scale"]) for step in steps]
    assert found == [3.0 if step in updated_after else 2.0 for step in steps]


def test_step_may_be_traced() -> None:
    name = te.metadata_collection()
    old, new = {name: {"scale": jnp.float32(2)}}, {name: {"scale": jnp.float32(3)}}
    update = jax.jit(lambda step: te.update_fp8_metas(old, new, step, 2))
    assert [float(update(step)["scale"]) for step in (0, 1)] == [2.0, 3.0]


def test_recipe_without_metadata_has_none_to_replace() -> None:
    assert te.update_fp8_metas({"params": {}}, {"params": {}}, 0) == {}


# --- releases with other words ---------------------------------------------------------------------------------------


class ReleaseUntil17(SimpleNamespace):
    """The contract of releases up to 1.7: metadata in their own collection, made by a function that users call."""

    def __init__(self) -> None:
        def update_fp8_metas(state: dict[str, Any]) -> dict[str, Any]:
            return {
                **state,
                "fp8_meta_collection": {"fp8_meta_scale": state["fp8_meta_collection"]["fp8_meta_amax"] * 2},
            }

        @contextlib.contextmanager
        def fp8_autocast(enabled: bool, fp8_recipe: object, sharding_resource: object) -> Iterator[None]:  # noqa: FBT001
            self.calls.append((enabled, fp8_recipe, sharding_resource))
            yield

        made = jax.jit(lambda metas: metas)
        helper = SimpleNamespace(FP8_COLLECTION_NAME="fp8_meta_collection", _update_fp8_metas_impl=made)
        fp8 = SimpleNamespace(FP8Helper=helper)
        self.calls: list[tuple[Any, ...]] = []
        super().__init__(
            fp8=fp8,
            update_fp8_metas=update_fp8_metas,
            DenseGeneral="the layer",
            fp8_autocast=fp8_autocast,
            ShardingResource=lambda **axes: axes,
        )


@pytest.fixture
def until_1_7(monkeypatch: pytest.MonkeyPatch) -> None:
    release = te.Engine(HOST, ReleaseUntil17(), ModuleType("recipes"))  # type: ignore[arg-type]
    monkeypatch.setattr(loading, "engine", lambda: release)


@pytest.mark.usefixtures("until_1_7")
def test_until_1_7_metadata_are_made_by_the_function_that_users_call() -> None:
    assert te.metadata_collection() == "fp8_meta_collection"
    variables = {"fp8_meta_collection": {"fp8_meta_scale": jnp.float32(1)}}
    grads = {"params": {}, "fp8_meta_collection": {"fp8_meta_amax": jnp.float32(21)}}
    assert te.update_fp8_metas(variables, grads, 0) == {"fp8_meta_scale": 42}
    kept, updated = (te.update_fp8_metas(variables, grads, step, interval=3) for step in (1, 2))
    assert (kept, updated) == ({"fp8_meta_scale": 1}, {"fp8_meta_scale": 42})


@pytest.mark.usefixtures("until_1_7")
def test_until_1_0_autocast_takes_a_sharding_resource() -> None:
    with te.autocast(enabled=True, recipe="a recipe", resource=te.mesh_resource(dp_resource="dp")):
        pass
    assert loading.engine().module.calls == [(True, "a recipe", {"dp_resource": "dp"})]


@pytest.mark.usefixtures("until_1_7")
def test_until_0_8_the_layer_stands_in_the_package_itself() -> None:
    assert dense._dense_class() == "the layer"


class OldDense(nn.Module):
    """What `dense_general` has to understand of a layer before 2.1: ``dtype`` is what it computes in."""

    features: int
    dtype: Any = jnp.float32
    axis: Any = -1

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Flatten the last two axes, if both are contracted."""
        x = jnp.asarray(inputs, self.dtype)
        x = x if self.axis == -1 else x.reshape(x.shape[0], -1)
        kernel = self.param("kernel", nn.initializers.ones, (x.shape[-1], self.features), jnp.float32)
        return x @ kernel.astype(self.dtype)


@pytest.fixture
def before_2_1(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module = SimpleNamespace(flax=SimpleNamespace(DenseGeneral=OldDense))
    release = te.Engine(HOST, module, ModuleType("recipes"))  # type: ignore[arg-type]
    monkeypatch.setattr(loading, "engine", lambda: release)
    te.dense_dialect.cache_clear()
    yield
    te.dense_dialect.cache_clear()


def test_dialect_is_found_under_a_mesh_as_well() -> None:
    te.dense_dialect.cache_clear()
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:1]), ("tp",))
    with te.mesh_context(mesh), nn.logical_axis_rules((("hidden", "tp"),)):
        found = te.dense_dialect()
    te.dense_dialect.cache_clear()
    assert found == te.dense_dialect()


@pytest.mark.usefixtures("before_2_1")
def test_before_2_1_a_layer_computes_in_the_dtype_of_its_input_all_the_same() -> None:
    layer = te.dense_general(features=16, dtype=jnp.float32)
    for dtype in (jnp.bfloat16, jnp.float32):
        y, variables = layer.init_with_output(jax.random.key(0), jnp.ones((2, 32), dtype))
        assert (y.dtype, variables["params"]["kernel"].dtype) == (dtype, jnp.float32)


@pytest.mark.usefixtures("before_2_1")
def test_before_2_1_parameters_in_another_dtype_are_refused() -> None:
    with pytest.raises(ConfigError, match="stores the parameters of a dense layer in float32 only"):
        te.dense_general(features=16, dtype=jnp.bfloat16)


@pytest.mark.usefixtures("before_2_1")
def test_before_2_1_kernels_are_flat() -> None:
    assert te.kernel_shape((4, 8), (2, 3)) == (32, 2, 3)


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ({"quantize": None}, ["x_scale", "kernel_amax_history", True, True, False]),
        ({}, ["scale_i_0", "amax_w_0", False, False, True]),
    ],
    ids=["since 2.3", "before"],
)
def test_metadata_and_arithmetic_are_those_of_the_release(
    monkeypatch: pytest.MonkeyPatch, module: dict[str, Any], names: list[object]
) -> None:
    release = te.Engine(HOST, SimpleNamespace(**module), ModuleType("recipes"))  # type: ignore[arg-type]
    monkeypatch.setattr(loading, "engine", lambda: release)
    dialect = te.metadata_dialect()
    found = [te.scale_leaf("x"), te.history_leaf("kernel"), dialect.stores_next_scale, dialect.crosses_grads]
    assert [*found, te.computes_more_in_bf16()] == names


def test_collections_that_only_name_axes_are_left_out() -> None:
    assert te.unbox({"params": {"kernel": 1}, "params_axes": {"kernel_axes": ("in", "out")}}) == {
        "params": {"kernel": 1}
    }


def test_recipes_of_a_release_without_a_base_class_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class DelayedScaling:
        """The only recipe before 2.0."""

    recipes = ModuleType("recipes")
    vars(recipes).update(DelayedScaling=DelayedScaling, Format=int)
    release = te.Engine(HOST, ModuleType("jax"), recipes)
    monkeypatch.setattr(loading, "engine", lambda: release)
    assert te.recipe_names() == ("DelayedScaling",)


@pytest.mark.parametrize(("release", "left"), [("2.4.0", True), ("2.5.0", False), ("2.20.2", False)])
def test_float8_is_left_to_xla_before_2_5(monkeypatch: pytest.MonkeyPatch, release: str, left: bool) -> None:  # noqa: FBT001
    monkeypatch.setattr(loading, "version", lambda: release)
    assert te.leaves_float8_to_xla() is left


def test_recipe_that_jax_stumbles_over_is_not_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Strange:
        """A recipe that TE's JAX side takes for another."""

    def stumble(**_arguments: object) -> None:
        raise AttributeError("'Strange' object has no attribute 'amax_compute_algo'")

    monkeypatch.setattr(supports, "autocast", stumble)
    assert te.support(Strange()) == te.Support(ok=False, reason="'Strange' object has no attribute 'amax_compute_algo'")
    with pytest.raises(AttributeError):  # Control: any other is a defect, and not a reason
        te.support(["another"])
