"""What becomes of each use when Transformer Engine changes: pure."""

from collections.abc import Iterable, Iterator

from mnist_fp8.gate.uses.binding import Misfit, renamed
from mnist_fp8.gate.uses.changes import Change, Pair, changes
from mnist_fp8.gate.uses.fit import Fit, fit
from mnist_fp8.gate.uses.guards import Guards
from mnist_fp8.gate.uses.judgement import Cause, Judgement, Outcome
from mnist_fp8.gate.uses.places import moved_to, was_there
from mnist_fp8.gate.uses.use import Use, UseKind
from mnist_fp8.record.entries import CALLED
from mnist_fp8.record.names import Names

_COUNTS = {Outcome.BREAKS, Outcome.BROKEN_ALREADY, Outcome.UNKNOWN}
"""Outcomes that a guard takes the harm from."""


def judge(uses: Iterable[Use], old: Names, new: Names) -> tuple[Judgement, ...]:
    """What becomes of uses.

    Args:
        uses: all of the same sources: a guarded import protects what it imports.
        old: names of the Transformer Engine in use.
        new: names of the one to move to.

    Returns:
        In the order of the uses, one judgement of each, or several with different causes. There is none of an override
        or a text that names nothing of Transformer Engine: a method of the user's own, or words that look like a name.
    """
    uses = tuple(uses)
    guards = Guards(uses)
    return tuple(judgement for use in uses for judgement in _judgements(use, old, new, guards))


def _judgements(use: Use, old: Names, new: Names, guards: Guards) -> Iterator[Judgement]:
    before = fit(use, old)
    pair = Pair(use, before, fit(use, new, before.call if before.parameters else None), old, new)
    if _names_nothing(pair):
        return
    found = list(_changes(pair))
    for outcome, misfit in found:
        yield _judgement(pair, outcome, misfit, guards)
    if not found:
        yield Judgement(use, Outcome.SAME)


def _names_nothing(pair: Pair) -> bool:
    if pair.use.kind is UseKind.TEXT:
        return pair.old.found is None
    return pair.use.kind is UseKind.OVERRIDE and not (pair.old.definition or pair.new.definition)


def _changes(pair: Pair) -> Iterator[Change]:
    old, new = pair.old, pair.new
    if not (old.is_read and new.is_read):
        yield Outcome.UNKNOWN, Misfit(Cause.NOT_READ)
    elif new.found is None and old.found:
        yield _gone(pair)
    elif new.misfits:
        outcome = Outcome.BROKEN_ALREADY if old.misfits else Outcome.BREAKS
        yield from ((outcome, misfit) for misfit in new.misfits)
    elif old.misfits:
        yield from ((Outcome.BETTER, misfit) for misfit in old.misfits)
    elif old.definition and new.definition:
        yield from changes(pair)
    elif old.found != new.found:  # one of them comes from elsewhere
        yield Outcome.UNKNOWN, Misfit(Cause.NOT_READ)


def _gone(pair: Pair) -> Change:
    """That a name leads nowhere now."""
    use, path = pair.use, pair.new.misfits[0].subject
    instead = moved_to(path, pair.old_names, pair.new_names)
    if use.kind is UseKind.OVERRIDE and path == use.path:
        is_called = pair.old.definition and pair.old.definition.passed
        return Outcome.BREAKS if is_called else Outcome.CHANGES, Misfit(Cause.HOOK_GONE, "", instead)
    there = pair.old_names.find(path)
    what = there.definition.signature.what if there and there.definition else ""
    cause = {"module": Cause.NOT_IMPORTABLE, "member": Cause.MEMBER}.get(what, Cause.NAME_GONE)
    outcome = Outcome.BREAKS if was_there(path, pair.old_names) else Outcome.UNKNOWN
    return outcome, Misfit(cause, path, instead)


def _judgement(pair: Pair, outcome: Outcome, misfit: Misfit, guards: Guards) -> Judgement:
    cause, instead = misfit.cause, misfit.instead
    is_certain = all(side.found is None or side.found.is_certain for side in (pair.old, pair.new))
    if outcome in _COUNTS and not is_certain and pair.new.found:
        outcome = Outcome.UNKNOWN
    if outcome in _COUNTS and guards.cover(pair.use, cause, misfit.subject):
        outcome = Outcome.GUARDED
    if cause is Cause.UNKNOWN_KEYWORD and pair.old.parameters and pair.new.parameters:
        instead = renamed(misfit.subject, pair.old.parameters, pair.new.parameters)
    old, new = (_text(side, misfit, pair.use) for side in (pair.old, pair.new))
    return Judgement(pair.use, outcome, cause, misfit.subject, old, new, instead)


def _text(side: Fit, misfit: Misfit, use: Use) -> str:
    """What a judgement is about, on one side, as source has it."""
    definition = side.definition
    if definition is None:
        return side.found.path if side.found and misfit.cause is Cause.NOT_READ else ""
    signature = definition.signature
    parameter = next((each for each in signature.parameters if each.name == misfit.subject), None)
    texts = {
        Cause.KIND: signature.what,
        Cause.VALUE: signature.value,
        Cause.MEMBER: signature.value,
        Cause.RETURNS: str(definition.returns or ""),
        Cause.EXCEPTION: ", ".join(definition.raises),
        Cause.BASE: ", ".join(definition.bases),
        Cause.DEFAULT: (parameter and parameter.default) or "",
    }
    name = use.path.rpartition(".")[2]
    return texts.get(misfit.cause, f"{name}{signature.as_source}" if signature.what in CALLED else name)
