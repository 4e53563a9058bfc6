"""Measurements: what is asked for is measured, what fails is told, and a Transformer Engine that does wrong shows."""

import functools
import json
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_fp8 import te
from mnist_fp8.core import model as users_model
from mnist_fp8.core.capability import Capability, refuse_on_kernels
from mnist_fp8.core.errors import ConfigError, TeUnavailableError
from mnist_fp8.core.modes import BLOCK_SCALED, TENSOR_SCALED
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.core.subjects import VARIABLE
from mnist_fp8.core.xla_flags import REPEATABLE
from mnist_fp8.measure import __main__ as command
from mnist_fp8.measure import (
    behaviour,
    common,
    costs,
    imports,
    layers,
    measure,
    metadata,
    model,
    numerics,
    programs,
    training,
    variables,
)
from mnist_fp8.measure.costs import _COMPILED
from mnist_fp8.measure.metadata import AMAXES, RECIPES
from mnist_fp8.measure.numerics import RANGES, SHAPES
from mnist_fp8.measure.training import EVERY, STEPS
from mnist_fp8.oracle.arithmetic import Passes
from mnist_fp8.programs import cache
from mnist_fp8.record.entries import (
    Agreement,
    Codes,
    Compiled,
    Contents,
    Cost,
    Curves,
    Failure,
    Formats,
    Numbers,
    Product,
    Products,
    Quantity,
    Special,
    Support,
    Text,
    Value,
)
from mnist_fp8.record.keys import AREAS, Key
from mnist_fp8.subjects import attention, attention_backends, layer
from mnist_fp8.subjects.subject import Case, NotInReleaseError
from mnist_fp8.te import recipes
from mnist_fp8.te.dense_step import Step

MODULES = (imports, costs, variables, programs, numerics, metadata, behaviour, layers, training)
DELAYED = "DelayedScaling"
MINE = "--xla_cpu_enable_fast_math=false"
"""A flag that XLA knows: it ends the process at another, if it has not started before."""


def probe(module: Any, prefix: str) -> Mapping[str, Value]:
    found: Mapping[str, Value] = module.probes()[prefix]()
    return found


def texts(entries: Mapping[str, Value]) -> dict[str, str]:
    assert all(isinstance(value, Text) for value in entries.values())
    return {key: value.text for key, value in entries.items() if isinstance(value, Text)}


# --- what is measured ------------------------------------------------------------------------------------------------


def test_model_that_cannot_be_loaded_is_not_said_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(users_model.VARIABLE, "mnist_fp8.training.case:mnist")
    key = "layers/mnist_fp8.training.case:mnist/model/support"
    assert probe(model, key) == {key: Support(ok=True)}
    monkeypatch.setenv(users_model.VARIABLE, "mnist_fp8.training.case:gone")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        probe(model, key.replace("mnist/", "gone/"))


def test_every_probe_belongs_to_an_area() -> None:
    prefixes = [prefix for module in MODULES for prefix in module.probes()]
    assert {prefix.partition("/")[0] for prefix in prefixes} <= AREAS.keys()
    assert len(prefixes) == len(set(prefixes))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The probes that are run, instead of the real ones."""
    made: list[str] = []

    def probes(*names: str) -> Callable[[], Mapping[str, Callable[[], Mapping[str, Value]]]]:
        def run(name: str) -> Mapping[str, Value]:
            made.append(name)
            if name == "special/bad":
                raise ValueError("no such thing\nand more")
            if name == "bits/warns":
                warnings.warn("old\nand more", DeprecationWarning, stacklevel=1)
            return {f"{name}/a": Text("1"), f"{name}/b": Text("2")}

        return lambda: {name: functools.partial(run, name) for name in names}

    for module in MODULES:
        monkeypatch.setattr(module, "probes", probes())
    monkeypatch.setattr(numerics, "probes", probes("numerics/one", "special/bad"))
    monkeypatch.setattr(programs, "probes", probes("bits/warns"))
    monkeypatch.setattr(costs, "probes", probes("costs/one"))
    monkeypatch.setattr(cache, "keep_programs", lambda: made.append("(programs are kept from here)"))
    return made


def test_everything_is_measured_and_what_fails_says_why(asked: list[str]) -> None:
    found = measure()
    # What costs compile must not come from a cache.
    assert asked == ["costs/one", "(programs are kept from here)", "bits/warns", "numerics/one", "special/bad"]
    assert found["special/bad"] == Failure("ValueError", "no such thing")
    assert found["numerics/one/a"] == Text("1")
    assert found["warnings/DeprecationWarning/old and more"] == Text("old and more")


def test_one_import_is_measured_for_what_it_does_and_for_what_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    does, costs_ = {"import/JAX/has started": Text("True")}, {"costs/import/time": Cost((1.0,), "s")}
    made = []

    def effects() -> dict[str, Value]:
        made.append("process")
        return {**does, **costs_}

    monkeypatch.setattr(imports, "effects", effects)
    assert {prefix: probe() for prefix, probe in imports.probes().items()} == {"import": does, "costs/import": costs_}
    assert made == ["process"]


def measured_by_command(monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    """What the command writes into its file."""
    monkeypatch.setattr("sys.argv", ["measure", str(folder / "measured.json")])
    try:
        command.main()
    finally:
        document: dict[str, Any] = json.loads((folder / "measured.json").read_text())
    return document


@pytest.mark.parametrize(
    ("no_gpu", "flags"),
    [("none", MINE), ("", f"{' '.join(REPEATABLE)} {MINE}")],
    ids=["without a GPU", "with a GPU"],
)
def test_xla_is_repeatable_on_a_gpu_unless_the_user_has_it_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_gpu: str, flags: str
) -> None:
    monkeypatch.setenv("XLA_FLAGS", MINE)
    monkeypatch.setattr(te, "why_no_gpu", lambda: no_gpu)
    monkeypatch.setattr(command, "measure", lambda _only: {"bits/x": Text("1")})
    document = measured_by_command(monkeypatch, tmp_path)
    assert document["environment"]["XLA_FLAGS"] == flags
    assert document["entries"] == {"bits/x": {"kind": "text", "text": "1"}}
    assert document["run"] == te.engine().kind.value


def test_result_is_in_a_file_whatever_is_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(_only: object) -> dict[str, Text]:
        print("Transformer Engine")  # noqa: T201 - as a release may when it is imported
        return {"bits/x": Text("1")}

    monkeypatch.setattr(command, "measure", measure)
    assert measured_by_command(monkeypatch, tmp_path)["entries"]
    assert capsys.readouterr().out == "Transformer Engine\n"


def test_measuring_process_says_what_it_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(command, "measure", lambda _only: {"bits/x": Text("1")})
    imported = measured_by_command(monkeypatch, tmp_path)["imported"]
    assert imported["transformer_engine.jax"] == te.engine().module.__file__
    assert imported["jax"] == jax.__file__
    assert "pytest" in imported, "all packages"


def test_transformer_engine_that_does_not_load_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(_only: object) -> None:
        raise TeUnavailableError("no libfoo")

    monkeypatch.setattr(command, "measure", fail)
    with pytest.raises(SystemExit, match=r"^nothing can be measured: no libfoo$"):
        measured_by_command(monkeypatch, tmp_path)
    assert json.loads((tmp_path / "measured.json").read_text()) == {"problem": "no libfoo"}


def test_request_that_cannot_be_met_is_one_line_and_says_nothing_of_transformer_engine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "measured.json"
    monkeypatch.setattr(sys, "argv", ["measure", str(file)])
    monkeypatch.setattr(command, "measure", lambda _only: refuse_on_kernels(Capability.BLACKWELL))
    with pytest.raises(SystemExit, match=r"^nothing can be measured: compute capability 10\.0 can only be pretended"):
        command.main()
    assert not file.exists()


@pytest.mark.parametrize(
    ("only", "run", "keys"),
    [
        (["numerics"], ["numerics/one"], ["numerics/one/a", "numerics/one/b"]),
        (["numerics/one/b"], ["numerics/one"], ["numerics/one/b"]),
        (
            ["*/b"],
            ["costs/one", "bits/warns", "numerics/one", "special/bad"],
            ["costs/one/b", "bits/warns/b", "numerics/one/b"],
        ),
        (["numerics/o*/a"], ["numerics/one"], ["numerics/one/a"]),
        (["special", "bits/warns/a"], ["bits/warns", "special/bad"], ["bits/warns/a", "special/bad"]),
        (
            ["warnings"],
            ["costs/one", "bits/warns", "numerics/one", "special/bad"],
            ["warnings/DeprecationWarning/old and more"],
        ),
        (["nothing"], [], []),
    ],
)
def test_only_what_is_asked_for_is_measured(asked: list[str], only: list[str], run: list[str], keys: list[str]) -> None:
    assert list(measure(only)) == keys
    assert [name for name in asked if "/" in name] == run


# --- the real ones, on the installed Transformer Engine --------------------------------------------------------------


def test_support_is_said_of_every_recipe() -> None:
    found = probe(variables, "recipes")
    assert found[f"recipes/{DELAYED}/support"] == Support(ok=True)
    assert set(found) == {f"recipes/{name}/support" for name in recipes.needed_arguments()}
    custom = found["recipes/CustomRecipe/support"]
    assert custom == Support(ok=False, reason="it has to be given qfactory")


def test_variables_are_those_of_a_checkpoint() -> None:
    found = texts(probe(variables, f"variables/{DELAYED}"))
    assert found[f"variables/{DELAYED}/params/dense over two axes/kernel/value"] == "float32[2, 32, 32]"
    assert found[f"variables/{DELAYED}/fp8_metas/dense/x_amax_history"] == "float32[1024]"
    assert not any("fp8_metas" in key for key in probe(variables, "variables/BF16")), "Control: BF16"


def test_what_holds_no_array_is_a_variable_too() -> None:
    """Before 2.4 the names of a parameter's axes are such."""
    tree = {"params": {"kernel": jnp.ones((2, 3))}, "params_axes": {"kernel_axes": {}}}
    assert dict(variables._leaves(tree)) == {"params/kernel": "float32[2, 3]", "params_axes/kernel_axes": "{}"}


def test_quantizers_among_variables_have_the_names_of_their_metadata() -> None:
    """And no text of TE's, which is another one in each release."""
    with te.autocast(enabled=True):
        quantizers = te.quantization().QuantizerFactory.create_set()
    found = variables.leaves({"quantizers": {"inner": quantizers}})
    assert len(found) == 6
    assert found["quantizers/inner/x_scale"] == "float32[1]"
    assert variables.leaves({"quantizers": te.quantization().QuantizerFactory.create_set()}) == {"quantizers": "{}"}


def test_autocast_that_is_to_go_warns() -> None:
    with pytest.warns(DeprecationWarning, match="fp8_autocast"):
        entries = probe(behaviour, "behaviour/contexts/fp8_autocast")
    assert entries == {"behaviour/contexts/fp8_autocast": Text("can be entered")}


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("layers/kernel after init", "LogicallyPartitioned"),
        ("layers/output of a float32 layer for BF16", "bfloat16"),
        ("layers/kernel of a BF16 layer", "bfloat16"),
        ("layers/kernel over axes of 4 and 8", "(4, 8, 16)"),
        ("contexts/recipe in force", "its own"),
        ("contexts/autocast around another", "goes on"),
    ],
)
def test_behaviour_is_that_of_the_installed_release(key: str, expected: str) -> None:
    assert probe(behaviour, f"behaviour/{key}") == {f"behaviour/{key}": Text(expected)}


def test_axes_without_a_mesh_resource_work_and_warn() -> None:
    with pytest.warns(DeprecationWarning, match="logical axes, such as BATCH_AXES"):
        entries = probe(behaviour, "behaviour/contexts/axes without a mesh resource")
    assert entries == {"behaviour/contexts/axes without a mesh resource": Text("works")}


@pytest.mark.host
def test_programs_show_float8_forward_and_backward_and_none_outside() -> None:
    entries = probe(programs, f"float8/{DELAYED}")
    whole = entries[f"float8/{DELAYED}/forward and backward: products"]
    assert isinstance(whole, Products)
    assert sum(product.count for product in whole.products if "float8_e5m2" in (product.lhs, product.rhs)) == 2
    forward = entries[f"float8/{DELAYED}/forward: products"]
    assert forward == Products((Product("float8_e4m3fn", "float8_e4m3fn", "dot_general", quantized=True, count=1),))
    assert entries[f"float8/{DELAYED}/forward: quantized types"] == Formats(("float8_e4m3fn",))
    compiled = entries[f"float8/{DELAYED}/forward: compiled program"]
    assert isinstance(compiled, Compiled)
    assert "f8e4m3fn" in compiled.formats
    outside = probe(programs, "float8/outside autocast").values()
    assert all(not value.formats for value in outside if isinstance(value, Compiled))
    assert not any(product.quantized for value in outside if isinstance(value, Products) for product in value.products)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.recipe(name), id=name) for name in (*TENSOR_SCALED, *BLOCK_SCALED)]
)
def test_quantized_tensors_are_those_of_the_oracle(name: str) -> None:
    tensors = [codes for key, codes in probe(programs, f"bits/{name}").items() if "/tensor " in key]
    assert len(tensors) >= 3
    assert all(isinstance(codes, Codes) and codes.wrong == 0 for codes in tensors)


@pytest.mark.recipe("NVFP4BlockScaling")
def test_codes_that_are_drawn_under_a_key_show_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    grad = common.tensors((64, 128, 32))["grad"]
    first, again = (programs._draws("NVFP4BlockScaling", grad) for _ in range(2))
    assert first == again
    key = jax.random.key
    monkeypatch.setattr(jax.random, "key", lambda seed: key(seed + 1))
    assert programs._draws("NVFP4BlockScaling", grad) != first


def test_quantized_tensor_that_is_not_the_oracles_says_how_many_codes_differ() -> None:
    codes = np.array([[1.0, 2.0], [3.0, 4.0]])
    wrong = codes.copy()
    wrong[1, 1] = 5.0
    assert programs._codes(codes, [codes]).wrong == 0
    assert programs._codes(codes.T, [codes]).wrong == 0, "laid out the other way round"
    assert programs._codes(wrong, [codes]).wrong == 1
    assert programs._codes(np.ones((3, 3)), [codes]).wrong is None, "the oracle knows no such tensor"
    assert programs._codes(codes, []).wrong is None


@pytest.mark.xla_sums_in_float32
@pytest.mark.parametrize("name", ["BF16", DELAYED, "Float8CurrentScaling"])
def test_errors_are_within_the_oracles_tolerance_and_have_no_noise(name: str) -> None:
    found = probe(numerics, f"numerics/{name}")
    for key, value in found.items():
        assert isinstance(value, Numbers)
        if "in tolerances" in key:
            assert len(value.values) == len(SHAPES) * len(RANGES)
            assert max(value.values) <= 1, key
        if "distribution" in key:
            assert sum(value.values) == pytest.approx(1), key


def test_step_that_is_wrong_is_beyond_the_tolerance(monkeypatch: pytest.MonkeyPatch) -> None:
    real = common.step

    def wrong(*arguments: Any, **options: Any) -> tuple[Step, dict[str, Any]]:
        found, used = real(*arguments, **options)
        return found._replace(y=found.y.at[0, 0].add(jnp.abs(found.y).max() / 8)), used

    monkeypatch.setattr(numerics, "step", wrong)
    monkeypatch.setattr(numerics, "SHAPES", SHAPES[:1] * 3)
    found = probe(numerics, f"numerics/{DELAYED}")
    excess = found[f"numerics/{DELAYED}/output in tolerances"]
    assert isinstance(excess, Numbers)
    assert min(excess.values) > 1


def test_nan_is_beyond_every_tolerance() -> None:
    expected = numerics._predicted("BF16", (16, 16, 16), "normal")
    assert expected is not None
    found = expected.y.value.copy()
    found[1, 1] = np.nan
    assert not numerics._in_tolerances("BF16", found, expected.y) <= 1


def test_special_numbers_are_counted() -> None:
    entries = probe(numerics, f"special/{DELAYED}")
    zeros, nan = (entries[f"special/{DELAYED}/{case}"] for case in ("input of zeros", "a NaN in the input"))
    assert isinstance(zeros, Special)
    assert isinstance(nan, Special)
    assert zeros.contents[0] == Contents("output", 0, 0, 0.0)
    assert nan.contents[0].nan == 32, "the row of the output that the NaN is in"
    assert [scale.name for scale in zeros.scales] == ["x", "kernel", "grad"]
    outside = probe(numerics, "special/BF16").values()
    assert all(isinstance(value, Special) and not value.scales for value in outside)


def test_contents_of_an_array_count_what_is_not_finite() -> None:
    assert numerics._contents("y", np.array([1.0, -2.5])) == Contents("y", 0, 0, 2.5)
    assert numerics._contents("y", np.array([np.nan, np.inf, -np.inf, 1.0])) == Contents("y", 1, 2, 1.0)
    assert numerics._contents("y", np.array([np.nan])) == Contents("y", 1, 0, None)


@pytest.mark.parametrize("name", RECIPES)
def test_metadata_follow_the_oracle(name: str) -> None:
    found = probe(metadata, f"metadata/{name}")
    agreeing = [value for key, value in found.items() if "against the oracle" in key]
    assert agreeing == [Agreement()] * 3
    series = [value for key, value in found.items() if isinstance(value, Numbers) and "history" not in key]
    assert {len(value.values) for value in series} == {len(AMAXES)}
    assert all(len(set(value.values)) > 4 for value in series), "Control: they move"


def test_metadata_that_do_not_follow_the_oracle_say_from_which_step() -> None:
    used = probe(metadata, "metadata/amax max")["metadata/amax max/x scale used"]
    assert isinstance(used, Numbers)
    wrong = [*used.values[:7], 3.0, *used.values[8:]]
    assert metadata._against_oracle("amax max", "x", list(used.values)) == Agreement()
    agreement = metadata._against_oracle("amax max", "x", wrong)
    assert (agreement.step, agreement.value) == (7, 3.0)
    assert agreement.expected == used.values[7]


def test_training_learns_over_all_seeds_and_repeats_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "SEEDS", (1, 2))
    found = probe(training, "training/DelayedScaling")
    loss = found["training/DelayedScaling/loss"]
    assert isinstance(loss, Curves)
    assert len(loss.seeds) == 2
    assert len(loss.steps) == len(loss.seeds[0]) == STEPS // EVERY
    assert all(seed[-1] < 0.7 * seed[0] for seed in loss.seeds)
    assert loss.seeds[0] != loss.seeds[1]
    accuracy = found["training/DelayedScaling/test accuracy"]
    assert isinstance(accuracy, Curves)
    assert all(0.3 < end < 1 for (end,) in accuracy.seeds)


def test_data_are_told_by_their_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    told = training.describe_data()
    assert told == training.describe_data()
    one, other = training._data()
    changed = {"image": one["image"] + 1, "label": one["label"]}
    monkeypatch.setattr(training, "_data", lambda: (changed, other))
    assert training.describe_data() != told


def test_costs_are_repeated_measurements() -> None:
    found = {**probe(costs, "costs/BF16"), **probe(costs, "costs/process")}
    assert all(isinstance(value, Cost) and min(value.values) > 0 for value in found.values())
    compiled = found["costs/BF16/trace and compile a step"]
    assert isinstance(compiled, Cost)
    assert len(compiled.values) == _COMPILED


# --- layers ----------------------------------------------------------------------------------------------------------


def layer_entries(monkeypatch: pytest.MonkeyPatch, *names: str) -> dict[str, Value]:
    """Entries of some subjects, traced anew."""
    monkeypatch.setenv(VARIABLE, ",".join(names))
    jax.clear_caches()
    layer.why_not.cache_clear()
    entries: dict[str, Value] = {}
    for key, found in layers.probes().items():
        entries |= found() if Key.of(key).subject in names else {}
    jax.clear_caches()
    layer.why_not.cache_clear()
    return entries


def test_layers_are_measured_in_every_mode_that_they_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """And each is what the oracle expects, so that a difference of two records has a side that is right."""
    entries = layer_entries(monkeypatch, "LayerNorm", "LayerNormDenseGeneral")
    keys = [Key.of(key) for key in entries]
    assert {(key.subject, key.case, key.mode) for key in keys if key.kind != "layers"} == {
        ("LayerNorm", "layernorm", "BF16"),
        ("LayerNorm", "rmsnorm", "BF16"),
        *(("LayerNormDenseGeneral", case, mode)
          for case in ("layernorm", "normalised as well")
          for mode in ("BF16", DELAYED, "Float8CurrentScaling")),
        *(("LayerNormDenseGeneral", "layernorm", mode) for mode in BLOCK_SCALED),
    }  # fmt: skip
    assert {value for key, value in entries.items() if key.endswith("support")} == {Support(ok=True)}
    agreed = [value for value in entries.values() if isinstance(value, Agreement)]
    assert agreed == [Agreement()] * 2 * 2 * 3, "two cases; amax and scale; x, kernel and grad"
    for key, value in entries.items():
        if isinstance(value, Numbers):
            assert value.noise == 0
            most = 1.0 if value.quantity is Quantity.IN_TOLERANCES else 0.1
            if "NVFP4" not in key:  # its scales of square blocks are those of others, a known defect
                assert max(value.values) <= most, key
            assert min(value.values) > 0 or value.quantity is Quantity.IN_TOLERANCES, key
    key = f"layers/LayerNormDenseGeneral/layernorm/{DELAYED}"
    assert entries[f"{key}/variables/fp8_metas/x_scale"] == Text("float32[1]")
    assert entries[f"{key}/variables/params/kernel/value"] == Text("float32[96, 32]")
    assert entries[f"{key}/float8/quantized types"] == Formats(("float8_e4m3fn", "float8_e5m2"))
    backward = entries[f"{key}/float8/backward: products"]
    assert isinstance(backward, Products)
    assert [(each.lhs, each.rhs) for each in backward.products] == [
        ("float8_e4m3fn", "float8_e5m2"),
        ("float8_e5m2", "float8_e4m3fn"),
    ]


def test_layer_that_is_off_by_a_hundredth_is_out_of_tolerance(monkeypatch: pytest.MonkeyPatch) -> None:
    module = te.engine().module.flax.module
    right = module.layernorm
    monkeypatch.setattr(module, "layernorm", lambda *args, **kw: 1.01 * right(*args, **kw), raising=True)
    entries = layer_entries(monkeypatch, "LayerNorm")
    found = entries["layers/LayerNorm/layernorm/BF16/numerics/errors in tolerances"]
    assert isinstance(found, Numbers)
    assert dict(zip(found.labels, found.values, strict=True))["output 0"] > 1.5


def test_error_of_a_small_gradient_by_chance_does_not_count_as_less_accurate() -> None:
    """In a transformer layer, in which a norm rounds before it quantizes since 2.10, a bias's went up from 0.090."""
    exact = Passes((np.ones(1024),), {"x": np.ones(1024)}, {"ln_bias": np.ones(32)}, {})

    def error_of_all(error: float) -> float:
        grads = {"params": {"ln_bias": np.full(32, 1 + error)}}
        found = layer.Step((jnp.asarray(exact.y[0] * 1.05),), {"x": jnp.asarray(exact.dx["x"] * 0.95)}, grads)
        return layers._error_of_all(found, exact)

    assert error_of_all(0.05) == pytest.approx(0.05)
    assert error_of_all(0.090) < error_of_all(0.121) < error_of_all(0.090) * 1.03
    assert np.isnan(error_of_all(np.nan)), "NaN is no accuracy"


def test_layer_that_a_release_lacks_says_so_and_has_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(te.engine().module.flax, "LayerNorm")
    entries = layer_entries(monkeypatch, "LayerNorm")
    reason = "needs flax.LayerNorm in transformer_engine.jax; found none in this release"
    assert entries == {
        f"layers/LayerNorm/{case}/support": Support(ok=False, reason=reason) for case in ("layernorm", "rmsnorm")
    }


def test_what_computes_attention_is_measured_on_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "DotProductAttention")
    assert not [key for key in layers.probes() if key.endswith("/backend")], "a host run has no kernels"
    monkeypatch.setattr(te, "engine", lambda: SimpleNamespace(kind=RunKind.KERNEL))

    def is_fused(case: Case) -> bool:
        if case.name == "sink":
            raise NotInReleaseError(f"needs softmax_type; found none in {te.version()}")
        return case.name == "causal"

    monkeypatch.setattr(attention_backends, "is_fused", is_fused)
    probes = {key: probe for key, probe in layers.probes().items() if key.endswith("/backend")}
    found = {key.split("/")[2]: value for probe in probes.values() for key, value in probe().items()}
    assert found.keys() == {case.name for case in attention.SUBJECT.cases}
    assert (found["causal"], found["padding"]) == (Text("fused"), Text("unfused"))
    assert found["sink"] == Support(ok=False, reason="needs softmax_type; found none in this release")
