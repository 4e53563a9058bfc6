"""The verdict on an upgrade as a page, with plots."""

from mnist_fp8 import __version__
from mnist_fp8.gate.reports import values
from mnist_fp8.gate.reports.markup import apart, counted, template
from mnist_fp8.gate.reports.uses import words
from mnist_fp8.gate.reports.verdict.conditions import environment, not_seen, scope, stack
from mnist_fp8.gate.reports.verdict.costs import NO_VERDICT_RESTS_ON, cost_cells
from mnist_fp8.gate.reports.verdict.view import (
    COLUMNS,
    ENTRIES_SHOWN,
    View,
    api_changes,
    counts,
    headline,
    rows,
    sentence,
    word,
)
from mnist_fp8.gate.verdict.changes import mean
from mnist_fp8.record.entries import Curves, Value
from mnist_fp8.record.record import Record


def html(view: View) -> str:
    """The whole page as one HTML file that needs nothing else."""
    from mnist_fp8.gate.reports.verdict import pictures  # noqa: PLC0415 - needed for the page only

    old, new, api = view.old, view.new, api_changes(view)
    drawings = {
        "Training": pictures.training_curves,
        "Scales and amax, step by step": pictures.trajectories,
        "Errors by shape and range of values": pictures.errors_by_case,
        "How large errors are": pictures.error_distributions,
    }
    return template("verdict.html").render(
        comparison=view,
        verdict=view.verdict.value,
        headline=headline(view),
        sentence=sentence(view),
        scope=scope(view),
        stack=stack(view),
        limits=view.limits,
        not_seen=not_seen(view),
        columns=COLUMNS,
        rows=rows(view),
        pictures={title: panels for title, draw in drawings.items() if (panels := draw(old, new))},
        differing={entry.key for shown in view.differences for entry in shown.entries},
        training=_training_ends(old, new),
        api=api,
        api_counts=counts(word(shown) for shown, _ in api),
        word=word,
        costs=[cost_cells(cost) for cost in view.costs],
        no_verdict=NO_VERDICT_RESTS_ON,
        environment=environment(view),
        entries_shown=ENTRIES_SHOWN,
        apart=apart,
        code=view.code,
        status_titles=words.TITLES,
        fate_counts=words.counts,
        is_source=words.is_source,
        counted=counted,
        version=__version__,
    )


def _training_ends(old: Record, new: Record) -> list[list[str]]:
    """Where the training curves end: name, old and new."""
    keys = [key for key in dict.fromkeys([*old.entries, *new.entries]) if key.startswith("training/")]
    return [[key.partition("/")[2], *(_end_of(record.entries.get(key)) for record in (old, new))] for key in keys]


def _end_of(value: Value | None) -> str:
    if not isinstance(value, Curves):
        return values.text(value)
    ends = [seed[-1] for seed in value.seeds]
    middle, lowest, highest = map(values.number, (mean(ends), min(ends), max(ends)))
    return f"{middle} ({lowest} to {highest})"
