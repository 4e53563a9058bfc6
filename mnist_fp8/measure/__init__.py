"""What a Transformer Engine installation does, as the entries of a record: ``python -m mnist_fp8.measure``.

A module for each kind of measurement. Each has ``probes()``: functions by the beginning of the keys of what they
measure, so that some can be measured alone, and one that fails leaves the others. Nothing here says what is right but
where the oracle is named; entries of two releases are compared to find what changed.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence

from mnist_fp8 import te
from mnist_fp8.core import garbage
from mnist_fp8.measure import (
    behaviour,
    costs,
    imports,
    layers,
    metadata,
    model,
    numerics,
    programs,
    training,
    variables,
)
from mnist_fp8.programs import cache
from mnist_fp8.record.entries import Failure, Text, Value
from mnist_fp8.record.keys import covered

Probe = Callable[[], Mapping[str, Value]]


def measure(only: Sequence[str] = ()) -> dict[str, Value]:
    """Measure the installed Transformer Engine.

    Args:
        only: keys, or patterns with ``*``; what begins with one is measured, too. All if there is none.

    Raises:
        TeUnavailableError: there is nothing to measure.
    """
    entries: dict[str, Value] = {}
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        te.engine()
        garbage.collect_seldom()
        first = {**imports.probes(), **costs.probes()}
        for prefix, probe in first.items():  # what costs compile must not come from a cache
            entries |= _guarded(prefix, probe) if _may_hold(prefix, only) else {}
        cache.keep_programs()
        for module in (variables, programs, numerics, metadata, behaviour, layers, model, training):
            for prefix, probe in module.probes().items():
                entries |= _guarded(prefix, probe) if _may_hold(prefix, only) else {}
        entries |= _warnings(raised)
    return covered(entries, only) if only else entries


def _guarded(prefix: str, probe: Probe) -> Mapping[str, Value]:
    try:
        return probe()
    except Exception as error:  # noqa: BLE001 - what a release raises is what it does
        return {prefix if "/" in prefix else f"{prefix}/all": Failure.of(error)}


def _may_hold(prefix: str, only: Sequence[str]) -> bool:
    """Whether one of the keys that begin so may be asked for; whatever may raise a warning, if warnings are."""
    return not only or any(_overlap(prefix, each) for each in only)


def _overlap(prefix: str, pattern: str) -> bool:
    literal = pattern.partition("*")[0]
    return literal.startswith(("warnings", prefix)) or prefix.startswith(literal.rstrip("/"))


def _warnings(raised: Sequence[warnings.WarningMessage]) -> dict[str, Value]:
    """Each kind of warning once, by its first words."""
    entries: dict[str, Value] = {}
    for kind, message in sorted({(each.category.__name__, " ".join(str(each.message).split())) for each in raised}):
        entries.setdefault(f"warnings/{kind}/{' '.join(message.split()[:8])}", Text(message))
    return entries
