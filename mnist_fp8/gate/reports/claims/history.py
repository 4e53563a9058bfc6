"""How chosen entries change from release to release."""

import dataclasses
from collections.abc import Sequence

from mnist_fp8.gate.reports.claims.view import Examined, of_any_release, span
from mnist_fp8.gate.reports.values import text, texts
from mnist_fp8.gate.verdict.changes import differ
from mnist_fp8.record.keys import covers

CHOSEN = (
    "api/transformer_engine.jax.autocast",
    "api/transformer_engine.jax.fp8_autocast",
    "api/transformer_engine.jax.MeshResource",
    "api/transformer_engine.jax.flax.DenseGeneral",
    "api/transformer_engine.common.recipe.DelayedScaling",
    "recipes/*/support",
    "variables/BF16/params/dense/kernel*",
    "variables/DelayedScaling/*/dense/x_amax_history",
    "metadata/amax max/x scale stored",
    "metadata/amax max/x history at the end",
    "float8/DelayedScaling/forward and backward: products",
    "float8/Float8CurrentScaling/forward and backward: products",
    "numerics/BF16/output against float64",
    "numerics/DelayedScaling/output against float64",
    "numerics/Float8CurrentScaling/output against float64",
    "special/Float8CurrentScaling/input of zeros",
    "behaviour",
)
"""Keys of what a matrix measures beside the claims, in the order of its rows."""


@dataclasses.dataclass(frozen=True)
class History:
    """An entry that changes: its values from the first release to the last, each with the releases that share it."""

    key: str
    values: tuple[tuple[str, str], ...]


def histories(examined: Sequence[Examined], patterns: Sequence[str] = CHOSEN) -> list[History]:
    """The entries under some keys that are not the same in all releases.

    Args:
        examined: in the order of their releases; those of which nothing was measured are left out.
        patterns: keys, beginnings of keys, or patterns, in the order of the answer.
    """
    measured = [each for each in examined if each.record.entries]
    keys = dict.fromkeys(key for each in measured for key in each.record.entries)
    chosen = dict.fromkeys(key for pattern in patterns for key in sorted(keys) if covers(pattern, key))
    found = [History(key, _values(key, measured)) for key in chosen]
    return [history for history in found if len(history.values) > 1]


def _values(key: str, measured: Sequence[Examined]) -> tuple[tuple[str, str], ...]:
    """Neighbours whose values do not differ together, each in digits enough to differ from the one before."""
    groups: list[list[Examined]] = []
    for each in measured:
        if groups and not _differs(key, groups[-1][0], each):
            groups[-1].append(each)
        else:
            groups.append([each])
    firsts = [group[0].record.entries.get(key) for group in groups]
    shown = [texts(firsts[max(0, index - 1)], value)[1] for index, value in enumerate(firsts)]
    names = [_release(group[0]) for group in groups]
    labels = [span([each.label for each in group]) for group in groups]
    return tuple((of_any_release(*pair), label) for *pair, label in zip(shown, names, labels, strict=True))


def _differs(key: str, one: Examined, other: Examined) -> bool:
    old, new = (each.record.entries.get(key) for each in (one, other))
    if not differ(key, old, new):
        return False
    # A message may name the release that it comes from.
    sides = [of_any_release(text(value, 17), _release(each)) for value, each in ((old, one), (new, other))]
    return sides[0] != sides[1]


def _release(each: Examined) -> str:
    return f"Transformer Engine {each.record.version}"
