"""Rules: which one a change comes under, and what each says."""

import dataclasses
import math

import pytest

from mnist_fp8.gate.reports.rules import page
from mnist_fp8.gate.verdict.rules import api
from mnist_fp8.gate.verdict.rules.apply import RULES
from mnist_fp8.gate.verdict.rules.layers import _BEHAVIOUR
from mnist_fp8.gate.verdict.rules.rule import Rule, Severity
from mnist_fp8.gate.verdict.signatures import ApiChange
from mnist_fp8.measure import behaviour
from mnist_fp8.record.checkpoints import Unrestored
from mnist_fp8.record.entries import (
    UNFUSED,
    Agreement,
    Call,
    Codes,
    Compiled,
    Contents,
    Curves,
    Failure,
    Formats,
    NamedNumber,
    Numbers,
    Parameter,
    Product,
    Products,
    Quantity,
    Special,
    Support,
    Text,
    Value,
)
from mnist_fp8.record.packages import Imported
from support.comparing import EVERY_KIND, F, changed, compared, curves, numbers, one
from support.subprocesses import ROOT

AUTOCAST = "transformer_engine.jax.autocast"
PRODUCTS = "float8/R/forward and backward: products"
E4, E5, BF16 = "float8_e4m3fn", "float8_e5m2", "bfloat16"
LAYER = "layers/LayerNormMLP/gelu"
CHECKPOINT = "checkpoints/R/Orbax"
COMMAND = ("mnist-fp8", "migrate", "CHECKPOINT", "-o", "NEW", "--from", "2.2.0", "--to", "2.3.0", "--like", "SHAPES")
UNRESTORED = Unrestored("ValueError", "no such name", COMMAND, problem="nor now")
RUNS, RUNS_NOT = Support(ok=True), Support(ok=False, reason="x")


def products(*operands: tuple[str, str, int], primitive: str = "dot_general") -> Products:
    return Products(
        tuple(
            Product(lhs, rhs, primitive, quantized=lhs.startswith("float8") and rhs.startswith("float8"), count=count)
            for lhs, rhs, count in operands
        )
    )


def special(*counts: tuple[int, int], scale: float = 1.0) -> Special:
    """Output and gradients with that many NaN and infinities."""
    contents = tuple(Contents(f"tensor {index}", nan, inf, 1.0) for index, (nan, inf) in enumerate(counts))
    return Special(contents, (NamedNumber("x", scale),))


def of(quantity: Quantity, *values: float) -> Numbers:
    return Numbers(values, tuple(f"step {index}" for index in range(len(values))), quantity=quantity)


def accuracy(*ends: float) -> Curves:
    return Curves((1, 2), tuple((3.0, end) for end in ends), higher_is_better=True)


CASES: list[tuple[str, Value | None, Value | None, str]] = [
    ("api/transformer_engine.jax.f", F, None, "api-name-removed"),
    ("api/transformer_engine.jax.f", None, F, "api-name-added"),
    ("api/transformer_engine.jax.f", F, changed(parameters=F.parameters[:1]), "api-parameter-removed"),
    (
        "api/transformer_engine.jax.f",
        F,
        changed(parameters=(*F.parameters, Parameter("new", "either", "0"))),
        "api-optional-parameter-added",
    ),
    (
        "api/transformer_engine.jax.C.m",
        changed(what="method"),
        changed(what="method", parameters=(*F.parameters, Parameter("n", "either", "0"))),
        "api-method-parameter-added",
    ),
    ("recipes/R/support", RUNS, RUNS_NOT, "recipe-unsupported"),
    ("recipes/R/support", RUNS_NOT, RUNS, "recipe-supported"),
    ("recipes/R/support", RUNS_NOT, Support(ok=False, reason="y"), "recipe-reason-changed"),
    ("recipes/R/support", RUNS, None, "recipe-unsupported"),
    (f"{LAYER}/support", RUNS, RUNS_NOT, "layer-gone"),
    (f"{LAYER}/support", RUNS_NOT, RUNS, "layer-new"),
    (f"{LAYER}/support", RUNS_NOT, Support(ok=False, reason="y"), "layer-still-absent"),
    (f"{LAYER}/support", RUNS, Failure("E", "no"), "fails-now"),
    (f"{LAYER}/backend", Text("fused"), Text(UNFUSED), "attention-unfused"),
    (f"{LAYER}/backend", Text("fused"), Text("fused: F16_arbitrary_seqlen"), "attention-backend-changed"),
    (f"{LAYER}/backend", Text(UNFUSED), Text("fused"), "attention-backend-changed"),
    (f"{LAYER}/backend", RUNS_NOT, Text(UNFUSED), "layer-new"),
    (f"{LAYER}/backend", Text("fused"), RUNS_NOT, "layer-gone"),
    (f"{LAYER}/R/variables/params/scale", Text("f32[2]"), Text("f32[3]"), "parameters-changed"),
    (f"{LAYER}/R/variables/fp8_metas/x_scale", Text("f32[1]"), Text("f32[2]"), "metadata-variables-changed"),
    (f"{LAYER}/R/float8/forward: products", products((E4, E4, 1)), products((BF16, E4, 1)), "float8-product-lost"),
    (f"{LAYER}/BF16/float8/quantized types", Formats(()), Formats((E4,)), "float8-outside-autocast"),
    (f"{LAYER}/R/metadata/wi x amax against the oracle", Agreement(), Agreement(1, 1.0, 2.0), "scale-wrong"),
    (
        f"{LAYER}/BF16/numerics/errors in tolerances",
        of(Quantity.IN_TOLERANCES, 0, 0.2),
        of(Quantity.IN_TOLERANCES, 0.9, 0.2),
        "results-rounded-differently",
    ),
    (
        f"{LAYER}/BF16/numerics/errors in tolerances",
        of(Quantity.IN_TOLERANCES, 0, 0.2),
        of(Quantity.IN_TOLERANCES, 0, 1.01),
        "results-less-accurate",
    ),
    (
        f"{LAYER}/R/numerics/errors in tolerances",
        of(Quantity.IN_TOLERANCES, 0, 0.2),
        of(Quantity.IN_TOLERANCES, 0, math.nan),
        "results-less-accurate",
    ),
    (f"{CHECKPOINT}/in further steps", numbers(1, 2), UNRESTORED, "checkpoint-not-restored"),
    (
        f"{CHECKPOINT}/in further steps",
        numbers(1, 2),
        dataclasses.replace(UNRESTORED, problem=""),
        "checkpoint-needs-migration",
    ),
    (f"{CHECKPOINT}/as restored", numbers(1, 2), numbers(1, 2.5), "checkpoint-restored-otherwise"),
    (f"{CHECKPOINT}/as restored", numbers(1, 2), numbers(1, math.nan), "checkpoint-restored-otherwise"),
    (f"{CHECKPOINT}/in further steps", numbers(1, 2), numbers(1, 2.5), "checkpoint-trains-on-differently"),
    (f"{CHECKPOINT}/in further steps", numbers(1, 2), numbers(1, math.nan), "checkpoint-trains-on-differently"),
    (f"{CHECKPOINT}/after migration", numbers(1, 2), numbers(1, 2.5), "checkpoint-trains-on-differently"),
    (f"{CHECKPOINT}/in further steps", numbers(1, 2), Unrestored("E", "never tried"), "checkpoint-not-restored"),
    (f"{CHECKPOINT}/as restored", numbers(1, 2), Failure("E", "no"), "fails-now"),
    ("variables/R/params/kernel", Text("f32[2]"), Text("f32[3]"), "parameters-changed"),
    ("variables/R/fp8_metas/x_scale", Text("f32[1]"), None, "metadata-variables-changed"),
    ("variables/R/params_axes/k", Text("x"), None, "axes-collection-changed"),
    (
        "metadata/max/x scale stored",
        of(Quantity.STORED, 1, 2, 3),
        of(Quantity.STORED, 2, 3, 3),
        "metadata-stored-differently",
    ),
    ("metadata/max/x scale used", of(Quantity.SCALE_USED, 1, 2), of(Quantity.SCALE_USED, 1, 3), "scale-used-changed"),
    ("metadata/max/x used scales against the oracle", Agreement(), Agreement(3, 1.0, 2.0), "scale-wrong"),
    (
        "metadata/max/x used scales against the oracle",
        Agreement(3, 1.0, 2.0),
        Agreement(4, 1.0, 2.0),
        "metadata-stored-differently",
    ),
    ("metadata/max/x used scales against the oracle", Agreement(3, 1.0, 2.0), Agreement(), "scale-right-now"),
    ("metadata/max/x used scales against the oracle", Agreement(3, 1.0, 2.0), Agreement(2, 1.0, 2.0), "scale-wrong"),
    (PRODUCTS, products((E4, E4, 1)), products((E4, E4, 1), primitive="te_gemm"), "program-rewritten"),
    (PRODUCTS, products((E4, E5, 1)), products((E5, E4, 1)), "program-rewritten"),
    (PRODUCTS, products((E4, E4, 1)), products((BF16, E4, 1)), "float8-product-lost"),
    (PRODUCTS, products((E4, E4, 1), (E4, E5, 2)), products((E4, E4, 3)), "float8-product-lost"),
    (PRODUCTS, products((E4, E4, 1)), products((E4, E4, 1), (BF16, BF16, 1)), "float8-product-lost"),
    (PRODUCTS, products((BF16, BF16, 2)), products((BF16, BF16, 1)), "program-rewritten"),
    ("float8/R/forward: quantized types", Formats((E4, E5)), Formats((E4,)), "float8-format-lost"),
    ("float8/R/forward: quantized types", Formats((E4,)), Formats((E4, E5)), "program-rewritten"),
    (
        "float8/R/forward: compiled program",
        Compiled((), ("f8e4m3fn", "f8e5m2")),
        Compiled((), ("f8e4m3fn",)),
        "float8-format-lost",
    ),
    (
        "float8/R/forward: compiled program",
        Compiled((Call("a", 1),), ("f8e4m3fn",)),
        Compiled((Call("a", 2),), ("f8e4m3fn",)),
        "program-rewritten",
    ),
    ("float8/outside autocast/f", products((BF16, BF16, 1)), products((E4, E4, 1)), "float8-outside-autocast"),
    ("float8/outside autocast/f", Formats(()), Formats((E4,)), "float8-outside-autocast"),
    ("float8/outside autocast/f", products((BF16, BF16, 2)), products((BF16, BF16, 1)), "program-rewritten"),
    (
        "numerics/R/output against float64",
        of(Quantity.ERROR, 0.04),
        of(Quantity.ERROR, 0.039),
        "results-rounded-differently",
    ),
    ("numerics/R/output against float64", of(Quantity.ERROR, 0.04), of(Quantity.ERROR, 0.06), "results-less-accurate"),
    ("numerics/R/output against float64", of(Quantity.ERROR, 0.04), of(Quantity.ERROR, 0.01), "results-more-accurate"),
    (
        "numerics/R/output against float64",
        of(Quantity.ERROR, 0.04),
        of(Quantity.ERROR, math.nan),
        "results-less-accurate",
    ),
    (
        "numerics/R/output in tolerances",
        of(Quantity.IN_TOLERANCES, 0.5),
        of(Quantity.IN_TOLERANCES, 1.1),
        "results-less-accurate",
    ),
    (
        "numerics/R/output in tolerances",
        of(Quantity.IN_TOLERANCES, 0.5),
        of(Quantity.IN_TOLERANCES, 0.9),
        "results-rounded-differently",
    ),
    (
        "numerics/R/output in tolerances",
        of(Quantity.IN_TOLERANCES, 924.0),
        of(Quantity.IN_TOLERANCES, 0.5),
        "results-more-accurate",
    ),
    (
        "numerics/R/output in tolerances",
        of(Quantity.IN_TOLERANCES, 924.0, 0.5, 0.4),
        of(Quantity.IN_TOLERANCES, 0.5, 0.5, 0.41),
        "results-more-accurate",
    ),
    (
        "numerics/R/output in tolerances",
        of(Quantity.IN_TOLERANCES, 924.0, 2.0),
        of(Quantity.IN_TOLERANCES, 0.5, 900.0),
        "results-less-accurate",
    ),
    (
        "numerics/R/output against float64",
        of(Quantity.ERROR, math.inf, 0.1, math.nan),
        of(Quantity.ERROR, 0.01, 0.1, math.nan),
        "results-more-accurate",
    ),
    ("numerics/R/output against float64", numbers(1.0), numbers(1.0, noise=1e-9), "noise-grew"),
    ("numerics/R/distribution", of(Quantity.SHARE, 0.1), of(Quantity.SHARE, 0.9), "results-rounded-differently"),
    ("bits/R/t", Codes("a", 9, 0), Codes("b", 9, 3), "codes-wrong"),
    ("bits/R/t", Codes("a", 9, 3), Codes("b", 9, 5), "codes-wrong"),
    ("bits/R/t", Codes("a", 9, 3), Codes("b", 9, 0), "codes-closer"),
    ("bits/R/t", Codes("a", 9, 0), Codes("b", 9, 0), "codes-changed"),
    ("bits/R/t", Codes("a", 9, None), Codes("b", 9, None), "codes-changed"),
    ("special/R/zeros", special((0, 0)), special((3, 0)), "not-finite"),
    ("special/R/zeros", special((0, 0)), special((0, 2)), "not-finite"),
    ("special/R/zeros", special((3, 0)), special((0, 0)), "special-numbers-better"),
    ("special/R/zeros", special((0, 0), scale=math.inf), special((0, 0)), "special-numbers-better"),
    ("special/R/zeros", special((3, 0)), special((0, 3)), "special-numbers-changed"),
    ("special/R/zeros", special((0, 0)), special((0, 0), scale=0.0), "scale-unusable"),
    ("special/R/zeros", special((0, 0)), special((0, 0), scale=math.inf), "scale-unusable"),
    ("special/R/zeros", special((0, 0)), Failure("ValueError", "x"), "fails-now"),
    ("special/R/zeros", Failure("ValueError", "x"), special((0, 0)), "works-now"),
    ("special/R/zeros", Failure("ValueError", "x"), Failure("TypeError", "x"), "fails-as-before"),
    ("special/R", None, Failure("ValueError", "x"), "fails-now"),
    ("behaviour/layers/kernel of a BF16 layer", Text("float32"), Text("bfloat16"), "layer-kernel-dtype-changed"),
    ("behaviour/layers/anything else", Text("a"), Text("b"), "behaviour-changed"),
    ("behaviour/layers/anything else", Text("a"), Failure("ValueError", "b"), "fails-now"),
    ("import/packages/x", None, Imported(declared=True), "import-uses-package"),
    ("import/packages/x", None, Imported(declared=False), "import-needs-undeclared-package"),
    ("import/packages/x", None, Imported(declared=None), "import-needs-undeclared-package"),
    ("import/packages/x", Imported(declared=True), Imported(declared=False), "import-needs-undeclared-package"),
    ("import/packages/x", Imported(declared=False), Imported(declared=True), "import-uses-package"),
    ("import/packages/x", Imported(declared=False), None, "import-effect-gone"),
    ("import/JAX configuration/jax_enable_x64", None, Text("True"), "import-changes-jax-config"),
    ("import/JAX configuration/jax_enable_x64", Text("a"), Text("b"), "import-changes-jax-config"),
    ("import/JAX configuration/jax_enable_x64", Text("True"), None, "import-effect-gone"),
    ("import/JAX/has started", None, Text("True"), "import-starts-jax"),
    ("import/libraries/flax.linen.linear.Dense", None, Text("x"), "import-patches-library"),
    ("import/environment variables/XLA_FLAGS", None, Text("x"), "import-sets-environment-variables"),
    ("import/warning filters/ignore Warning", None, Text("in force"), "import-filters-warnings"),
    ("import/logging/root", None, Text("level 10"), "import-changes-logging"),
    ("import/signal handlers/SIGINT", None, Text("SIG_IGN"), "import-handles-signals"),
    ("import/threads/telemetry", None, Text("runs"), "import-starts-threads"),
    ("import/exit handlers/number", None, Text("3"), "import-registers-exit-handlers"),
    ("import/import system/sys.path x", None, Text("there"), "import-changes-import-system"),
    ("import/settings/umask", None, Text("0"), "import-changes-process"),
    ("import/output/stdout", None, Text("Welcome"), "import-prints"),
    ("import/output/stdout", Text("Welcome"), Text("Welcome!"), "import-prints-other-words"),
    ("import/end/output", None, Text("Goodbye"), "import-prints-at-exit"),
    ("import/end/exit code", Text("0"), Text("1"), "import-changes-exit-code"),
    ("import/all", None, Failure("RuntimeError", "x"), "fails-now"),
    ("warnings/DeprecationWarning/x", None, Text("x"), "warning-new"),
    ("warnings/DeprecationWarning/x", Text("x"), None, "warning-gone"),
    ("training/TE/loss", curves(1.0, 1.1, 0.9), curves(1.01, 1.1, 0.9), "training-path-changed"),
    ("training/TE/loss", curves(1.0, 1.1, 0.9), curves(2.0, 2.1, 1.9), "training-worse"),
    ("training/TE/loss", curves(2.0, 2.1, 1.9), curves(1.0, 1.1, 0.9), "training-better"),
    ("training/TE/loss", curves(1.0, 1.1, math.nan), curves(1.0, 1.1, 0.9), "training-better"),
    ("training/Flax BF16/loss", curves(1.0, 1.1, 0.9), curves(1.01, 1.1, 0.9), "flax-alone-changed"),
    ("training/TE/loss", curves(1.0, noise=0.01), curves(1.0, noise=0.05), "noise-grew"),
    ("training/TE/loss", curves(1.0, 1.1, 0.9), curves(1.0, 1.1, math.nan), "training-worse"),
    ("training/TE/loss", curves(1.0, 1.1, 0.9), curves(1.0, 1.1), "training-worse"),
    ("training/TE/test accuracy", accuracy(0.9, 0.91, 0.89), accuracy(0.5, 0.51, 0.49), "training-worse"),
    ("training/TE/test accuracy", accuracy(0.5, 0.51, 0.49), accuracy(0.9, 0.91, 0.89), "training-better"),
    ("training/TE/test accuracy", accuracy(0.5, 0.51, 0.49), accuracy(0.5, 0.51, math.nan), "training-worse"),
]


@pytest.mark.parametrize(("key", "old", "new", "rule"), CASES)
def test_change_comes_under_its_rule(key: str, old: Value | None, new: Value | None, rule: str) -> None:
    difference = one(old, new, key)
    assert difference.rule.id == rule
    assert difference.area == key.partition("/")[0]
    assert difference.entries[0].key == key


# --- values, not prose: verdicts that searching words got wrong ------------------------------------------------------


def test_more_nan_than_before_breaks() -> None:
    """The number counts, and not how often the word is there."""
    assert one(special((16, 0)), special((256, 0)), "special/R/zeros").rule.severity is Severity.BREAKS


def test_package_of_what_has_no_metadata_is_no_difference() -> None:
    entries: list[dict[str, Value]] = [{"import/packages/x": Imported(declared)} for declared in (True, None, False)]
    assert compared(entries[0], entries[1]).differences == compared(entries[1], entries[2]).differences == ()
    assert compared(entries[0], entries[2]).differences, "Control"


def test_container_named_like_an_error_is_none() -> None:
    difference = one(Text("Partitioned"), Text("ErrorCheckedArray"), "behaviour/layers/kernel after init")
    assert difference.rule.id == "parameter-container-changed"
    assert difference.rule.severity is Severity.CHANGES


def test_step_that_loses_some_of_its_float8_products_breaks() -> None:
    difference = one(products((E4, E4, 1), (E4, E5, 4)), products((E4, E4, 1), (E4, E5, 1)), PRODUCTS)
    assert difference.rule.severity is Severity.BREAKS


@pytest.mark.parametrize("words", ["runs here", "as the oracle", "float8_e4m3fn", "3 NaN", "Error: fails"])
def test_words_of_a_text_decide_nothing(words: str) -> None:
    for key in ("behaviour/layers/x", "variables/R/params/x"):
        rules = {one(Text(old), Text(new), key).rule for old, new in (("a", words), (words, "a"), ("a", "b"))}
        assert len(rules) == 1


# --- all rules -------------------------------------------------------------------------------------------------------


def test_ids_are_their_own_and_of_one_form() -> None:
    ids = [rule.id for rule in RULES]
    assert len(set(ids)) == len(ids)
    assert all(part.isalnum() and part.islower() for rule in ids for part in rule.split("-"))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_rule_says_what_it_means_and_what_to_do(rule: Rule) -> None:
    assert rule.title
    assert rule.meaning.endswith(".")
    assert rule.action.endswith(".")
    assert (rule.action == "Nothing.") == (rule.severity is Severity.NOTE)


def test_every_rule_of_measured_areas_has_a_case() -> None:
    tried = {rule for *_, rule in CASES}
    of_measured = {
        rule.id for rule in RULES if not rule.id.startswith(("api-", "claim-", "does-not-start", "package-", "use-"))
    }
    assert of_measured - tried == {rule.id for rule in _BEHAVIOUR.values()} - tried


def test_behaviour_with_a_rule_of_its_own_is_measured() -> None:
    measured = {key.rpartition("/")[2] for key in behaviour.probes()}
    assert _BEHAVIOUR.keys() <= measured


def test_what_makes_calls_fail_breaks() -> None:
    severities = {kind: api.rule_of(kind, AUTOCAST, is_method=False).severity for kind in ApiChange}
    assert {kind for kind, severity in severities.items() if severity is Severity.BREAKS} == {
        ApiChange.REMOVED,
        ApiChange.KIND,
        ApiChange.PARAMETER_REMOVED,
        ApiChange.PARAMETER_RENAMED,
        ApiChange.PARAMETER_ADDED_REQUIRED,
        ApiChange.PARAMETER_NOW_REQUIRED,
    }


@pytest.mark.parametrize(
    ("name", "severity"),
    [
        (AUTOCAST, Severity.BREAKS),
        ("transformer_engine.jax.MeshResource.dp_resource", Severity.BREAKS),
        ("transformer_engine.jax.flax.DenseGeneral", Severity.BREAKS),
        ("transformer_engine.jax.flax.DenseGeneral.__call__", Severity.BREAKS),
        ("transformer_engine.common.recipe.DelayedScaling", Severity.BREAKS),
        ("transformer_engine.jax.attention.is_fused_attn_kernel_available", Severity.CHANGES),
        ("transformer_engine.jax.quantize.QuantizerFactory.create", Severity.CHANGES),
    ],
)
def test_only_documented_names_break_an_upgrade(name: str, severity: Severity) -> None:
    """In other modules, names come and go with every release; whoever imports from them has to look."""
    rule = api.rule_of(ApiChange.REMOVED, name, is_method=False)
    assert rule.severity is severity
    assert ("Only code that imports from this module" in rule.meaning) == (severity is Severity.CHANGES)


# --- grouping --------------------------------------------------------------------------------------------------------


def test_source_that_cannot_be_read_any_more_breaks() -> None:
    difference = one(None, Failure("ConfigError", "x.py cannot be read by Python 3.11"), "api/source")
    assert difference.rule.id == "fails-now"


def test_curve_that_is_not_finite_any_more_is_the_worst() -> None:
    old: dict[str, Value] = {}
    new: dict[str, Value] = {}
    for name, ends in (("loss", (5.0, 5.1, 4.9)), ("test loss", (1.0, 1.1, math.nan))):
        old[f"training/TE/{name}"], new[f"training/TE/{name}"] = curves(1.0, 1.1, 0.9), curves(*ends)
    (difference,) = compared(old, new).differences
    assert [entry.key for entry in difference.entries] == ["training/TE/test loss", "training/TE/loss"]


def test_entries_of_one_subject_and_rule_are_one_difference() -> None:
    old = {f"variables/R/params/{name}": Text("f32[1]") for name in "abc"}
    (difference,) = compared(old | EVERY_KIND, EVERY_KIND).differences
    assert [entry.key for entry in difference.entries] == list(old)


def test_recipe_that_runs_on_one_side_only_is_reported_once() -> None:
    """What its entries are, there and not there, follows from that."""
    old: dict[str, Value] = {"recipes/R/support": RUNS_NOT, "recipes/S/support": RUNS}
    new = {**old, "recipes/R/support": RUNS, "bits/R/t": Codes("1", 1, 0), "training/R/loss": curves(1)}
    (difference,) = compared(old, new).differences
    assert difference.area == "recipes"


def test_entry_of_a_recipe_with_a_longer_name_is_no_entry_of_the_shorter_one() -> None:
    old: dict[str, Value] = {"recipes/Scaling/support": RUNS_NOT, "numerics/CurrentScaling/x": numbers(1.0)}
    new: dict[str, Value] = {"recipes/Scaling/support": RUNS}
    found = compared(old, new)
    assert {difference.area for difference in found.differences} == {"recipes"}
    assert found.coverage.gaps[0].names == ("numerics/CurrentScaling/x",)


def test_reference_page_is_that_of_the_rules() -> None:
    written = (ROOT / "docs" / "reference" / "rules.md").read_text()
    assert written == page(), "make it again: python -m mnist_fp8.gate.reports.rules > docs/reference/rules.md"
