"""Roots: what is one difference, where it begins, and whether numbers drifted or are damaged."""

import dataclasses
import datetime as dt
import math
from collections import Counter
from collections.abc import Mapping

import pytest

from mnist_fp8.gate.reports import values
from mnist_fp8.gate.verdict.compare import compare
from mnist_fp8.gate.verdict.measures import Gauge, Measure
from mnist_fp8.gate.verdict.policy import Acceptance
from mnist_fp8.gate.verdict.roots import Effect, Root
from mnist_fp8.record.entries import (
    Agreement,
    Codes,
    Contents,
    Curves,
    Failure,
    Formats,
    Numbers,
    Parameter,
    Quantity,
    Signature,
    Special,
    Text,
    Value,
)
from support.comparing import TODAY, F, changed, compared, curves, record

JAX = "api/transformer_engine.jax"
CLASS = Signature("class")
METHOD = Signature("method", (Parameter("x", "either", None),))
OTHER = dataclasses.replace(METHOD, parameters=(Parameter("y", "either", None),))
MODULE = Signature("module")


def roots(old: Mapping[str, Value], new: Mapping[str, Value]) -> tuple[Root, ...]:
    return compared(old, new).roots


def only(old: Mapping[str, Value], new: Mapping[str, Value]) -> Root:
    (root,) = roots(old, new)
    return root


def entries(root: Root) -> list[str]:
    return [entry.key for one in root.differences for entry in one.entries]


def of(quantity: Quantity, *found: float) -> Numbers:
    return Numbers(found, tuple(f"step {index}" for index in range(len(found))), quantity=quantity)


# --- names ---------------------------------------------------------------------------------------------------------


def test_class_under_many_paths_with_its_methods_is_one() -> None:
    paths = [f"{JAX}.flax.A", f"{JAX}.flax.module.A", f"{JAX}.A"]
    old = {**dict.fromkeys(paths, CLASS), **{f"{path}.{name}": METHOD for path in paths for name in "fg"}}
    root = only(old, {})
    assert root.subjects == ("transformer_engine.jax.A",)
    assert sorted(entries(root)) == sorted(old)
    assert root.first.key == f"{JAX}.A"


def test_module_that_went_holds_its_names() -> None:
    old = {f"{JAX}.dot": MODULE, f"{JAX}.dot.A": CLASS, f"{JAX}.dot.A.f": METHOD, f"{JAX}.dot.g": F}
    root = only(old, {})
    assert root.subjects == ("transformer_engine.jax.dot",)
    assert [(one.rule.id, len(one.entries)) for one in root.differences] == [
        ("api-name-removed", 1),
        ("api-name-removed-undocumented", 3),
    ]
    assert root.main.rule.id == "api-name-removed", "the worst"


def test_method_that_classes_inherit_is_one_and_stands_for_itself() -> None:
    classes = {f"{JAX}.flax.{name}": CLASS for name in "ABC"}
    root = only(classes | {f"{name}.f": METHOD for name in classes}, classes)
    assert root.subjects == ("transformer_engine.jax.flax.A.f",)
    assert len(entries(root)) == 3


def test_members_of_a_class_are_one_whatever_happens_to_them() -> None:
    whole = {f"{JAX}.flax.A": CLASS, f"{JAX}.flax.A.f": METHOD, f"{JAX}.flax.A.g": METHOD}
    root = only(whole, {f"{JAX}.flax.A": CLASS, f"{JAX}.flax.A.f": OTHER, f"{JAX}.flax.A.h": METHOD})
    assert {entry.rpartition(".")[2] for entry in entries(root)} == {"f", "g", "h"}
    assert root.subjects == ("transformer_engine.jax.flax.A.f",)


def test_one_change_of_a_function_is_one_under_its_worst_rule() -> None:
    new = changed(parameters=(F.parameters[0], Parameter("size", "either", None), F.parameters[1]))
    root = only({f"{JAX}.f": F}, {f"{JAX}.f": new})
    assert [one.rule.id for one in root.differences] == ["api-required-parameter-added", "api-parameter-moved"]


@pytest.mark.parametrize(
    ("key", "signature"),
    [("api/transformer_engine.common.recipe.f", F), (f"{JAX}.flax.f", OTHER)],
    ids=["another package", "another signature"],
)
def test_names_that_are_called_alike_need_not_be_one(key: str, signature: Signature) -> None:
    root = only({f"{JAX}.f": F, key: signature}, {})
    assert len(root.subjects) == 2, "of two definitions to which the same happened"


def test_definitions_to_which_the_same_happened_are_one_those_outside_first() -> None:
    old = {f"{JAX}.dot": MODULE, f"{JAX}.dot.f": F, f"{JAX}.flax.A": CLASS, f"{JAX}.praxis": MODULE}
    assert only(old, {}).subjects == tuple(f"transformer_engine.jax.{name}" for name in ("dot", "praxis", "flax.A"))


def test_what_is_new_does_not_count_as_what_went() -> None:
    assert [root.main.rule.id for root in roots({f"{JAX}.a": F}, {f"{JAX}.b": OTHER})] == [
        "api-name-removed",
        "api-name-added",
    ]


# --- numbers -------------------------------------------------------------------------------------------------------

R = "DelayedScaling"


def chain(recipe: str, *, scale: float = 0.0, error: float = 0.01, end: float = 1.0) -> dict[str, Value]:
    """All that is measured of a recipe's numbers."""
    found: dict[str, Value] = {
        f"training/{recipe}/loss": curves(end, end + 0.1, end - 0.1),
        f"numerics/{recipe}/output against float64": of(Quantity.ERROR, 0.01, error, 0.01),
        f"bits/{recipe}/tensor 1": Codes(str(error), 9, 0),
    }
    if scale:
        found["metadata/amax max/x scale used"] = of(Quantity.SCALE_USED, 1.0, 2.0, 2 * scale, 9 * scale**9)
    return found


def test_numbers_of_a_recipe_begin_with_its_metadata_at_the_first_step() -> None:
    root = only(chain(R, scale=1.0), chain(R, scale=1.5, error=0.011, end=1.01))
    assert root.subjects == (R,)
    assert root.first.key == "metadata/amax max/x scale used"
    assert values.sides(root.first) == ("step 2: 2", "step 2: 3"), "not step 3, which differs most"
    assert [one.area for one in root.differences] == ["metadata", "bits", "numerics", "training"], "by cause"


def test_programs_come_before_codes_and_codes_before_results() -> None:
    programs: list[dict[str, Value]] = [{f"float8/{R}/types": Formats(("a",) * number)} for number in (1, 2)]
    root = only(chain(R) | programs[0], chain(R, error=0.011) | programs[1])
    assert [one.area for one in root.differences] == ["float8", "bits", "numerics"]
    assert root.first.key == f"float8/{R}/types"


def test_recipes_that_diverge_alike_are_one() -> None:
    recipes = (R, "Float8CurrentScaling")
    old, new = (chain(recipes[0], error=error) | chain(recipes[1], error=error) for error in (0.01, 0.011))
    assert only(old, new).subjects == recipes


def test_recipe_that_is_damaged_is_apart_from_one_that_drifts() -> None:
    old = chain(R) | chain("B")
    found = roots(old, chain(R, error=0.011) | chain("B", error=0.02))
    assert [(root.subjects, root.effect and root.effect.value) for root in found] == [
        (("B",), "damage"),
        ((R,), "drift"),
    ]


def test_bf16_is_one_in_and_outside_of_autocast() -> None:
    sides: list[dict[str, Value]] = [
        {
            "float8/outside autocast/forward: products": Text(text),
            "numerics/BF16/output against float64": of(Quantity.ERROR, number),
            "training/TE BF16/loss": curves(number),
        }
        for text, number in (("a", 0.01), ("b", 0.011))
    ]
    assert only(*sides).subjects == ("BF16",)


def test_metadata_that_are_stored_differently_explain_no_numbers() -> None:
    stored: list[dict[str, Value]] = [
        {
            "metadata/amax max/x scale stored": of(Quantity.STORED, *found),
            f"variables/{R}/fp8_metas/dense/{name}": Text("float32[1]"),
            f"variables/{R}/fp8_metas_axes/dense/{name}_axes": Text("{}"),
            "behaviour/layers/collections after init": Text(name),
        }
        for found, name in (((1.0, 2.0, 3.0), "a"), ((2.0, 3.0, 4.0), "b"))
    ]
    state, drift = roots(chain(R) | stored[0], chain(R, error=0.011) | stored[1])
    assert [one.area for one in state.differences] == ["variables", "variables", "metadata", "behaviour"]
    assert (state.effect, drift.first.area) == (None, "bits")


def test_parameters_and_metadata_are_two() -> None:
    sides: list[dict[str, Value]] = [
        {
            f"variables/{R}/params/dense/{name}": Text("float32[1]"),
            f"variables/{R}/params_axes/dense/{name}": Text("{}"),
            f"variables/{R}/fp8_metas/dense/{name}": Text("float32[1]"),
            "behaviour/layers/kernel after init": Text(name),
        }
        for name in "ab"
    ]
    found = roots(*sides)
    assert [[one.rule.id for one in root.differences] for root in found] == [
        ["parameters-changed", "axes-collection-changed", "parameter-container-changed"],
        ["metadata-variables-changed"],
    ]


def test_collections_alone_are_told() -> None:
    key = "behaviour/layers/collections after init"
    assert only({key: Text("a")}, {key: Text("b")}).first.key == key


def test_flax_alone_is_apart_and_may_be_as_good_as_before() -> None:
    old, new = ({f"training/{mode}/loss": curves(end) for mode in ("Flax BF16", R)} for end in (1.0, 1.01))
    first, other = roots(old, new)
    assert (first.main.rule.id, first.effect) == ("flax-alone-changed", Effect.DRIFT)
    assert other.subjects == (R,)


def test_results_come_first_of_one_severity_and_flax_before_them() -> None:
    flax = [{"training/Flax BF16/loss": Curves((step,), ((1.0,),))} for step in (1, 2)]
    old, new = chain(R) | {f"{JAX}.f": F, **flax[0]}, chain(R, error=0.02) | flax[1]
    assert [root.main.rule.id for root in roots(old, new)] == [
        "flax-alone-changed",
        "results-less-accurate",
        "api-name-removed",
    ]


def test_program_without_another_number_is_apart_from_one_with() -> None:
    programs: list[dict[str, Value]] = [
        {f"float8/{one}/types": Formats(("a",) * number) for one in (R, "B")} for number in (1, 2)
    ]
    found = roots(chain(R) | programs[0], chain(R, error=0.011) | programs[1])
    assert {root.subjects: root.effect for root in found} == {(R,): Effect.DRIFT, ("B",): None}


def test_what_is_better_now_says_what_a_root_means() -> None:
    special = f"special/{R}/zeros"
    root = only(chain(R) | {special: NAN}, chain(R, error=0.011) | {special: FINE})
    assert (root.main.rule.id, root.first.area) == ("special-numbers-better", "bits")


# --- drift and damage ----------------------------------------------------------------------------------------------

NAN = Special((Contents("output", 1, 0, 1.0),))
INFINITE, TWICE = (Special((Contents("output", 0, number, 1.0),)) for number in (1, 2))
FINE, LARGER = (Special((Contents("output", 0, 0, amax),)) for amax in (1.0, 2.0))


@pytest.mark.parametrize(
    ("key", "old", "new", "effect", "measure"),
    [
        ("numerics/R/e", of(Quantity.ERROR, 0.1, 0.1), of(Quantity.ERROR, 0.1, 0.11), "drift", (0.1, 0.11, 0.125)),
        ("numerics/R/e", of(Quantity.ERROR, 0.2, 0.1), of(Quantity.ERROR, 0.2, 0.13), "damage", (0.1, 0.13, 0.125)),
        ("numerics/R/e", of(Quantity.ERROR, 0.1, 0.2), of(Quantity.ERROR, 0.05, 0.2), "gain", (0.1, 0.05, 0.125)),
        ("numerics/R/e", of(Quantity.ERROR, 0.1), of(Quantity.ERROR, math.nan), "damage", (0.1, math.nan, 0.125)),
        ("numerics/R/t", of(Quantity.IN_TOLERANCES, 0.61), of(Quantity.IN_TOLERANCES, 0.63), "drift", (0.61, 0.63, 1)),
        ("numerics/R/t", of(Quantity.IN_TOLERANCES, 0.61), of(Quantity.IN_TOLERANCES, 1.1), "damage", (0.61, 1.1, 1)),
        ("numerics/R/t", of(Quantity.IN_TOLERANCES, 28.0), of(Quantity.IN_TOLERANCES, 134.0), "damage", (28, 134, 35)),
        ("bits/R/t", Codes("a", 9, 0), Codes("b", 9, 0), "drift", (0, 0, 0)),
        ("bits/R/t", Codes("a", 9, 2), Codes("b", 9, 3), "damage", (2, 3, 2)),
        ("bits/R/t", Codes("a", 9, 2), Codes("b", 9, 0), "gain", (2, 0, 2)),
        ("training/R/loss", curves(1.0, 1.1, 0.9), curves(1.1, 1.2, 1.0), "drift", (0, 1.2247, 5)),
        ("training/R/loss", curves(1.0, 1.1, 0.9), curves(2.0, 2.1, 1.9), "damage", (0, 12.247, 5)),
        ("training/R/loss", curves(1.0, 1.1, 0.9), curves(0.2, 0.3, 0.1), "gain", (0, -9.798, 5)),
        ("special/R/zeros", FINE, NAN, "damage", (0, 1, 0)),
        ("special/R/zeros", NAN, FINE, "gain", (1, 0, 1)),
        ("special/R/zeros", INFINITE, NAN, "damage", None),
        ("special/R/zeros", TWICE, NAN, "damage", None),
        ("special/R/zeros", FINE, LARGER, None, None),
        ("metadata/R/x used", Agreement(), Agreement(3, 1.0, 2.0), "damage", None),
        ("numerics/R/e", of(Quantity.ERROR, 0.1), Failure("ValueError", "no"), None, None),
        ("float8/R/types", Formats(("a",)), Formats(("a", "b")), None, None),
        ("metadata/R/x stored", of(Quantity.STORED, 1.0), of(Quantity.STORED, 2.0), None, None),
    ],
)  # fmt: skip
def test_drift_gain_and_damage_are_told_apart_by_a_number(
    key: str, old: Value, new: Value, effect: str | None, measure: tuple[float, float, float] | None
) -> None:
    root = only({key: old}, {key: new})
    assert (root.effect and root.effect.value) == effect
    found = [(each.old, each.new, each.limit) for each in root.measures]
    assert found == ([pytest.approx(measure, rel=1e-3, nan_ok=True)] if measure else [])


def test_accuracy_is_worse_where_it_falls() -> None:
    high = [dataclasses.replace(curves(end, end + 0.01), higher_is_better=True) for end in (0.9, 0.5)]
    assert only({"training/R/test accuracy": high[0]}, {"training/R/test accuracy": high[1]}).measures[0].new > 5


def test_number_that_comes_nearest_to_damage_decides() -> None:
    old: dict[str, Value] = {
        "numerics/R/output against float64": of(Quantity.ERROR, 0.1, 0.1),
        "numerics/R/output in tolerances": of(Quantity.IN_TOLERANCES, 0.01, 0.9),
        "training/R/loss": curves(1.0, 1.1, 0.9),
    }
    new: dict[str, Value] = {
        "numerics/R/output against float64": of(Quantity.ERROR, 0.1001, 0.1),
        "numerics/R/output in tolerances": of(Quantity.IN_TOLERANCES, 0.1, 0.99),
        "training/R/loss": curves(1.01, 1.11, 0.91),
    }
    root = only(old, new)
    assert [each.gauge for each in root.measures] == [Gauge.IN_TOLERANCES, Gauge.TRAINING, Gauge.ERROR]
    assert root.measures[0].label == "step 1", "0.01 → 0.1 is a larger change, and far from damage"


@pytest.mark.parametrize(
    ("old", "new", "limit", "share"),
    [
        (0.5, 0.75, 1.0, 0.5),
        (0.5, 0.25, 1.0, -0.5),
        (0.5, 1.01, 1.0, math.inf),
        (0.5, math.nan, 1.0, math.inf),
        (4, 2, 4, -0.5),
        (0, 0, 0, 0),
    ],
)
def test_share_is_how_much_of_the_way_to_damage_it_went(old: float, new: float, limit: float, share: float) -> None:
    assert Measure(Gauge.ERROR, "numerics/R/e", "", old, new, limit).share == share


@pytest.mark.parametrize(
    ("measure", "words"),
    [
        (
            Measure(Gauge.IN_TOLERANCES, "numerics/R/output in tolerances", "16x16x16 wide", 0.61, 0.63, 1.0),
            "R/output in tolerances, 16x16x16 wide: 0.61 → 0.63; damage above 1",
        ),
        (
            Measure(Gauge.TRAINING, "training/R/loss", "", 0.0, -0.123, 5),
            "R/loss: ends 0.12 standard errors better; damage above 5",
        ),
        (
            Measure(Gauge.TRAINING, "training/R/loss", "", 0.0, 7.0, 5),
            "R/loss: ends 7 standard errors worse; damage above 5",
        ),
        (
            Measure(Gauge.TRAINING, "training/R/loss", "", 0.0, math.nan, 5),
            "R/loss: ends in no finite number; damage above 5",
        ),
        (
            Measure(Gauge.CODES, "bits/R/tensor 1", "", 238, 0, 238),
            "R/tensor 1: 238 → 0 codes unlike the oracle's; damage above 238",
        ),
    ],
)
def test_measure_says_what_it_is_and_where_damage_begins(measure: Measure, words: str) -> None:
    assert values.measured(measure) == words


# --- all -----------------------------------------------------------------------------------------------------------


def test_roots_hold_each_entry_of_each_difference_once_and_change_no_verdict() -> None:
    old = chain(R, scale=1.0) | {f"{JAX}.a": MODULE, f"{JAX}.a.f": F, "warnings/w": Text("x"), f"{JAX}.g": F}
    new = chain(R, scale=1.5, error=0.02) | {f"{JAX}.g": changed(parameters=()), "behaviour/layers/x": Text("x")}
    accepted = [Acceptance(f"{JAX}.a.f", "unused", dt.date(2026, 12, 31))]
    found = compare(record("1.0.0", old), record("2.0.0", new), accepted, TODAY)
    listed, folded = (
        Counter((one.title, one.rule.id, one.accepted, entry.key, entry.part) for one in ones for entry in one.entries)
        for ones in (found.differences, [one for root in found.roots for one in root.differences])
    )
    assert listed == folded
    assert {root.main.accepted for root in found.roots} == {"", "unused (until 2026-12-31)"}
    assert [root.main.counts for root in found.roots].index(False) == sum(root.main.counts for root in found.roots)


def test_what_comes_under_one_rule_is_one() -> None:
    sides = [{f"behaviour/layers/{name}": Text(text) for name in "abc"} for text in ("x", "y")]
    root = only(*sides)
    assert (root.subjects, len(root.differences)) == (("a", "b", "c"), 3)


def test_many_entries_that_one_quantizer_changes_are_one() -> None:
    """Of hundreds of entries that differ, a reader sees two roots."""
    old, new = chain(R), chain(R, error=0.011)
    for number in range(300):
        key = f"numerics/{R}/{number} against float64"
        old[key], new[key] = of(Quantity.ERROR, 0.03), of(Quantity.ERROR, 0.03 + number * 1e-6 + 1e-7)
    old |= {f"{JAX}.fp8": MODULE, **{f"{JAX}.fp8.f{number}": F for number in range(200)}}
    found = roots(old, new)
    assert [len(entries(root)) for root in found] == [201, 302]
    assert found[1].first.key == f"bits/{R}/tensor 1"


def test_first_step_of_a_curve_is_said() -> None:
    old, new = Curves((6, 12, 18), ((3.0, 2.0, 1.0),)), Curves((6, 12, 18), ((3.0, 2.5, 1.0),))
    assert values.size(only({f"training/{R}/loss": old}, {f"training/{R}/loss": new}).first).endswith("from step 12 on")


# --- layers ----------------------------------------------------------------------------------------------------------


def test_numbers_of_a_layer_are_one_root_over_its_cases_and_modes_from_its_metadata_on() -> None:
    good, bad = of(Quantity.IN_TOLERANCES, 0.0), of(Quantity.IN_TOLERANCES, 9.0)
    keys = [f"layers/M/{case}/{mode}/numerics/errors in tolerances" for case in "ab" for mode in ("BF16", "R")]
    amax = "layers/M/b/R/metadata/wi x amax against the oracle"
    root = only(dict.fromkeys(keys, good) | {amax: Agreement()}, dict.fromkeys(keys, bad) | {amax: Agreement(1, 1, 2)})
    assert (root.subjects, root.first.key, root.effect) == (("M",), amax, Effect.DAMAGE)
    assert sorted(entries(root)) == sorted([*keys, amax])


def test_layers_that_drift_alike_are_one_root_apart_from_what_is_damaged() -> None:
    keys = [f"layers/{name}/a/BF16/numerics/errors in tolerances" for name in "LMN"]
    old = {key: of(Quantity.IN_TOLERANCES, 0.0) for key in keys}
    damaged, drifted = roots(old, {key: of(Quantity.IN_TOLERANCES, 9.0 if "/M/" in key else 0.5) for key in keys})
    assert (damaged.subjects, damaged.effect) == (("M",), Effect.DAMAGE)
    assert (drifted.subjects, drifted.effect) == (("L", "N"), Effect.DRIFT)
