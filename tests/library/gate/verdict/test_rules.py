"""What changes of each area come to: how severe they are, and what they mean."""

import math

import pytest

from mnist_fp8.gate.verdict.rules.rule import Severity
from mnist_fp8.record.entries import AGREES, RUNS, Failure, Parameter, Text, Value
from support.comparing import EVERY_KIND, F, changed, compared, curves, numbers, one

BREAKS, CHANGES, NOTE = Severity.BREAKS, Severity.CHANGES, Severity.NOTE


@pytest.mark.parametrize(
    ("key", "old", "new", "severity", "says"),
    [
        ("api/transformer_engine.jax.f", F, None, BREAKS, "imports the name fails"),
        ("api/transformer_engine.jax.f", None, F, NOTE, "A new name"),
        ("api/transformer_engine.jax.f", F, changed(parameters=F.parameters[:1]), BREAKS, "raise TypeError"),
        (
            "api/transformer_engine.jax.f",
            F,
            changed(parameters=(*F.parameters, Parameter("new", "either", "0"))),
            NOTE,
            "A new option",
        ),
        ("recipes/R/support", Text(RUNS), Text("does not run here: x"), BREAKS, "fails on this machine"),
        ("recipes/R/support", Text("does not run here: x"), Text(RUNS), NOTE, "runs on this machine now"),
        ("recipes/R/support", Text("does not run here: x"), Text("does not run here: y"), NOTE, "another"),
        ("variables/R/params/kernel", Text("f32[2]"), Text("f32[3]"), BREAKS, "Checkpoints"),
        ("variables/R/fp8_metas/x_scale", Text("f32[1]"), None, BREAKS, "FP8 metadata of old checkpoints"),
        ("variables/R/params_axes/k", Text("x"), None, BREAKS, "sharded"),
        ("metadata/max/x scale stored", numbers(1, 2, 3), numbers(2, 3, 3), CHANGES, "another step's value"),
        ("metadata/max/x scale used", numbers(1, 2), numbers(1, 3), BREAKS, "Another scale"),
        (
            "metadata/max/x used scales against the oracle",
            Text(AGREES),
            Text("step 3: 1, expected 2"),
            BREAKS,
            "no longer follow the recipe",
        ),
        (
            "float8/R/forward: products",
            Text("float8_e4m3fn x float8_e4m3fn (a)"),
            Text("float8_e4m3fn x float8_e4m3fn (b)"),
            CHANGES,
            "written in another way",
        ),
        (
            "float8/R/forward: products",
            Text("float8_e4m3fn x float8_e4m3fn (a)"),
            Text("bfloat16 x float8_e4m3fn (a)"),
            BREAKS,
            "no longer",
        ),
        (
            "float8/R/forward and backward: products",
            Text("float8_e4m3fn x float8_e4m3fn (a), 2 x [float8_e4m3fn x float8_e5m2 (a)]"),
            Text("3 x [float8_e4m3fn x float8_e4m3fn (a)]"),
            BREAKS,
            "no longer in the float8 format",
        ),
        (
            "float8/R/forward and backward: products",
            Text("2 x [bfloat16 x bfloat16 (a)]"),
            Text("bfloat16 x bfloat16 (a), bfloat16 x float32 (a)"),
            CHANGES,
            "written in another way",
        ),
        (
            "float8/R/forward: compiled program",
            Text("custom calls: none; types: f8e4m3fn, f8e5m2"),
            Text("custom calls: none; types: f8e4m3fn"),
            BREAKS,
            "no longer",
        ),
        ("float8/outside autocast/f", Text("bfloat16"), Text("float8_e4m3fn"), BREAKS, "without autocast"),
        ("numerics/R/output against float64", numbers(0.04), numbers(0.039), CHANGES, "another place"),
        ("numerics/R/output against float64", numbers(0.04), numbers(0.06), BREAKS, "less accurate"),
        ("numerics/R/output against float64", numbers(0.04), numbers(math.nan), BREAKS, "wrong"),
        ("numerics/R/output in tolerances", numbers(0.5), numbers(1.1), BREAKS, "wrong"),
        ("numerics/R/output in tolerances", numbers(0.5), numbers(0.9), CHANGES, "another"),
        ("numerics/R/output in tolerances", numbers(3.0), numbers(9.0), CHANGES, "another"),
        ("numerics/R/distribution of output errors", numbers(0.1), numbers(0.9), CHANGES, "another"),
        ("bits/R/t", Text(f"a, {AGREES}"), Text("b, 3 of 9 codes differ"), BREAKS, "not quantized as"),
        ("bits/R/t", Text(f"a, {AGREES}"), Text(f"b, {AGREES}"), CHANGES, "other codes"),
        ("special/R/zeros", Text("output up to 0"), Text("output 3 NaN"), BREAKS, "NaN appears"),
        ("special/R/zeros", Text("output 3 NaN"), Text("output up to 0"), CHANGES, "in another way"),
        ("special/R/zeros", Text("a"), Failure("ValueError"), BREAKS, "fails, where it worked"),
        ("special/R/zeros", Failure("ValueError"), Text("a"), NOTE, "works now"),
        ("special/R/zeros", Failure("ValueError"), Failure("TypeError"), NOTE, "in other words"),
        ("behaviour/layers/kernel of a BF16 layer", Text("float32"), Text("bfloat16"), CHANGES, "master copy"),
        ("warnings/DeprecationWarning/x", None, Text("x"), CHANGES, "announced to go"),
        ("warnings/DeprecationWarning/x", Text("x"), None, NOTE, "Fewer"),
        ("training/TE/loss", curves(1.0, 1.1, 0.9), curves(1.01, 1.1, 0.9), CHANGES, "of the same quality"),
        ("training/TE/loss", curves(1.0, 1.1, 0.9), curves(2.0, 2.1, 1.9), BREAKS, "ends worse"),
        ("training/TE/loss", curves(2.0, 2.1, 1.9), curves(1.0, 1.1, 0.9), CHANGES, "of the same quality"),
        ("training/TE/loss", curves(1.0, 1.1, 0.9), curves(1.0, 1.1, math.nan), BREAKS, "ends worse"),
        ("training/TE/test accuracy", curves(0.9, 0.91, 0.89), curves(0.5, 0.51, 0.49), BREAKS, "ends worse"),
        ("training/TE/test accuracy", curves(0.5, 0.51, 0.49), curves(0.9, 0.91, 0.89), CHANGES, "same quality"),
        ("training/TE/test accuracy", curves(0.5, 0.51, 0.49), curves(0.5, 0.51, math.nan), BREAKS, "ends worse"),
    ],
)
def test_difference_says_what_it_means(
    key: str, old: Value | None, new: Value | None, severity: Severity, says: str
) -> None:
    found = one(old, new, key)
    assert found.severity is severity
    assert says in found.means
    assert found.do
    assert found.area == key.partition("/")[0]
    assert found.details[0].key == key


def test_source_that_cannot_be_read_any_more_breaks() -> None:
    found = one(None, Failure("x.py cannot be read by Python 3.11"), "api/source")
    assert found.severity is BREAKS
    assert found.details[0].new == "source: fails: x.py cannot be read by Python 3.11"


def test_curve_that_is_not_finite_any_more_is_the_worst() -> None:
    old, new = {}, {}
    for name, ends in (("loss", (5.0, 5.1, 4.9)), ("test loss", (1.0, 1.1, math.nan))):
        old[f"training/TE/{name}"], new[f"training/TE/{name}"] = curves(1.0, 1.1, 0.9), curves(*ends)
    (difference,) = compared(old, new).differences
    assert difference.severity is BREAKS
    assert [detail.key for detail in difference.details] == ["training/TE/test loss", "training/TE/loss"]
    assert difference.details[0].size == "not finite any more"


def test_added_option_of_a_method_concerns_who_overrides_it() -> None:
    method = changed(what="method")
    found = one(
        method,
        changed(what="method", parameters=(*F.parameters, Parameter("n", "either", "0"))),
        "api/transformer_engine.jax.C.m",
    )
    assert found.severity is CHANGES
    assert "override" in found.means


def test_entries_of_one_reason_are_one_difference() -> None:
    old = {f"variables/R/params/{name}": Text("f32[1]") for name in "abc"}
    (difference,) = compared(old | EVERY_KIND, EVERY_KIND).differences
    assert [detail.key for detail in difference.details] == list(old)


def test_recipe_that_runs_on_one_side_only_is_told_once() -> None:
    """What its entries are, there and not there, follows from that."""
    old = {"recipes/R/support": Text("does not run here: x"), "recipes/S/support": Text(RUNS)}
    new = {**old, "recipes/R/support": Text(RUNS), "bits/R/t": Text("1"), "training/TE FP8 R/loss": curves(1)}
    (difference,) = compared(old, new).differences
    assert difference.area == "recipes"
