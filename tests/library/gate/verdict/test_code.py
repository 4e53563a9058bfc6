"""What a user's own sources do to the verdict."""

import pytest

from mnist_fp8.gate.uses.use import UseKind, Uses
from mnist_fp8.gate.verdict.compare import compare
from mnist_fp8.gate.verdict.comparison import UpgradeVerdict
from mnist_fp8.record.entries import Parameter, Signature
from support.comparing import TODAY, WHOLE, record
from support.own_code import HISTORY, of_api, use

DENSE = "api/transformer_engine.jax.dense"
OLD = WHOLE | {DENSE: Signature("function", (Parameter("x", "either", None),))}
WORDS = use("transformer_engine.jax.words", "a.py", 1, "", UseKind.TEXT)
NEW = WHOLE | {DENSE: Signature("function")}


@pytest.mark.parametrize(
    ("uses", "verdict"),
    [
        (Uses((of_api("dense", 1, "x"),), (), 1, 1), UpgradeVerdict.BROKEN),
        (Uses((of_api("cast", 1),), (), 1, 1), UpgradeVerdict.SAFE),
        (Uses((WORDS,), (), 1, 1), UpgradeVerdict.BROKEN),
        (None, UpgradeVerdict.BROKEN),
    ],
    ids=["used", "not used", "only words", "no sources"],
)
def test_difference_of_a_name_counts_unless_other_names_are_used(uses: Uses | None, verdict: UpgradeVerdict) -> None:
    old, new = (record(te, entries, names=HISTORY[te]) for te, entries in (("2.1.0", OLD), ("2.3.0", NEW)))
    assert compare(old, new, (), TODAY, uses=uses, releases=HISTORY).verdict is verdict


def test_look_at_the_code_alone_is_a_part() -> None:
    """As with ``--only uses``: the records hold names and nothing else."""
    old, new = (record(te, {}, names=HISTORY[te], suite=None) for te in ("2.1.0", "2.3.0"))
    for one, verdict in ((of_api("dense", 1, "x"), UpgradeVerdict.BROKEN), (of_api("cast", 1), UpgradeVerdict.PARTIAL)):
        uses = Uses((one,), (), 1, 1)
        assert compare(old, new, (), TODAY, only=("uses",), uses=uses, releases=HISTORY).verdict is verdict


def test_command_for_a_use_names_the_sources() -> None:
    old, new = (record(te, WHOLE, names=HISTORY[te]) for te in ("2.1.0", "2.3.0"))
    uses = Uses((of_api("dense", 1, "x"),), (), 1, 1, paths=("src", "my code.py"))
    comparison = compare(old, new, (), TODAY, uses=uses, releases=HISTORY)
    ((key, *_),) = ([entry.key for entry in each.entries] for each in comparison.of("uses"))
    assert comparison.command(key) == f"mnist-fp8 upgrade 2.1.0 2.3.0 --uses src --uses 'my code.py' --only {key}"
    assert "--uses" not in comparison.command("bits/R/t"), "Control"
