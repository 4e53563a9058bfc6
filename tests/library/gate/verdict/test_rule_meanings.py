"""What differences mean: every kind of change has words, and none is without advice."""

import pytest

from mnist_fp8.gate.verdict.rules import api
from mnist_fp8.gate.verdict.rules.measured import _BEHAVIOUR
from mnist_fp8.gate.verdict.rules.rule import Severity
from mnist_fp8.gate.verdict.signatures import ApiChange
from mnist_fp8.measure import behaviour

AUTOCAST = "transformer_engine.jax.autocast"


@pytest.mark.parametrize("change", ApiChange)
@pytest.mark.parametrize("is_method", [True, False], ids=["method", "function"])
def test_every_change_of_a_signature_has_a_meaning(change: ApiChange, *, is_method: bool) -> None:
    title, means = api.of_api(change, AUTOCAST, is_method=is_method)
    assert title
    assert means.means.endswith(".")
    assert means.do.endswith(".")


def test_what_makes_calls_fail_breaks() -> None:
    severities = {change: api.of_api(change, AUTOCAST, is_method=False)[1].severity for change in ApiChange}
    assert {change for change, severity in severities.items() if severity is Severity.BREAKS} == {
        ApiChange.REMOVED,
        ApiChange.KIND,
        ApiChange.PARAMETER_REMOVED,
        ApiChange.PARAMETER_RENAMED,
        ApiChange.PARAMETER_ADDED_REQUIRED,
        ApiChange.PARAMETER_NOW_REQUIRED,
    }


def test_facts_with_words_of_their_own_are_measured() -> None:
    measured = {key.rpartition("/")[2] for key in behaviour.probes()}
    assert _BEHAVIOUR.keys() <= measured


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
    title, means = api.of_api(ApiChange.REMOVED, name, is_method=False)
    assert means.severity is severity
    assert ("Only code that imports from this module" in means.means) == (severity is Severity.CHANGES)
    assert title.startswith("name removed")
