"""The verdict on an upgrade as a page, with plots."""

import statistics

from mnist_fp8 import __version__
from mnist_fp8.gate.reports.markup import counted, template
from mnist_fp8.gate.reports.verdict.markdown import commands
from mnist_fp8.gate.reports.verdict.view import (
    COLUMNS,
    ENTRIES_SHOWN,
    NO_VERDICT_RESTS_ON,
    accepted,
    apart,
    api_changes,
    cleaned,
    cost_cells,
    counting,
    counts,
    entries,
    environment,
    headline,
    noted,
    number,
    rows,
    scope,
    sentence,
    stack,
)
from mnist_fp8.gate.verdict import changes
from mnist_fp8.gate.verdict.comparison import Comparison
from mnist_fp8.record.entries import Curves, Value
from mnist_fp8.record.record import Record


def html(comparison: Comparison) -> str:
    """The whole page as one HTML file that needs nothing else."""
    from mnist_fp8.gate.reports.verdict import pictures  # noqa: PLC0415 - needed for the page only

    comparison = cleaned(comparison)
    old, new = comparison.old, comparison.new
    drawings = {
        "Training": pictures.training_curves,
        "Scales and amax, step by step": pictures.trajectories,
        "Errors by shape and range of values": pictures.errors_by_case,
        "How large errors are": pictures.error_distributions,
    }
    return template("verdict.html").render(
        comparison=comparison,
        verdict=comparison.verdict.value,
        headline=headline(comparison),
        sentence=sentence(comparison),
        scope=scope(comparison),
        stack=stack(comparison),
        limits=comparison.limits,
        columns=list(COLUMNS),
        rows=rows(comparison),
        counting=counting(comparison),
        noted=noted(comparison),
        accepted=accepted(comparison),
        pictures={title: panels for title, draw in drawings.items() if (panels := draw(old, new))},
        differing={detail.key for each in comparison.differences for detail in each.details},
        noted_number=number(noted(comparison)),
        accepted_number=number(accepted(comparison)),
        training=_training_ends(old, new),
        api=api_changes(comparison),
        costs=[cost_cells(cost) for cost in comparison.costs],
        no_verdict=NO_VERDICT_RESTS_ON,
        environment=environment(comparison),
        entries_shown=ENTRIES_SHOWN,
        commands=commands,
        apart=apart,
        entries=entries,
        counted=counted,
        counts=counts,
        version=__version__,
    )


def _training_ends(old: Record, new: Record) -> list[list[str]]:
    """Where the training curves end: name, old and new."""
    keys = [key for key in dict.fromkeys([*old.entries, *new.entries]) if key.startswith("training/")]
    return [[key.partition("/")[2], *(_end_of(record.entries.get(key)) for record in (old, new))] for key in keys]


def _end_of(value: Value | None) -> str:
    if not isinstance(value, Curves):
        return changes.text(value)
    ends = [seed[-1] for seed in value.seeds]
    mean, lowest, highest = map(changes.number, (statistics.fmean(ends), min(ends), max(ends)))
    return f"{mean} ({lowest} to {highest})"
