"""What becomes of each use when Transformer Engine changes: pure."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from mnist_fp8.gate.uses.binding import Misfit, given_by_position, moved, renamed
from mnist_fp8.gate.uses.changes import Change, Pair, changes
from mnist_fp8.gate.uses.fit import Fit, fit
from mnist_fp8.gate.uses.judgement import Cause, Judgement, Outcome
from mnist_fp8.gate.uses.places import Moves, was_there
from mnist_fp8.gate.uses.protection import is_covered, is_reached
from mnist_fp8.gate.uses.use import Place, Use, UseKind
from mnist_fp8.record.entries import CALLED
from mnist_fp8.record.names import Names

_ANYWHERE = Place("", 0)


def judge(uses: Iterable[Use], old: Names, new: Names) -> tuple[Judgement, ...]:
    """What becomes of uses.

    Args:
        uses: all of the same sources: a guarded import protects what it imports.
        old: names of the Transformer Engine in use.
        new: names of the one to move to.

    Returns:
        In the order of the uses, one judgement of each, or several with different causes. There is none of an override,
        a text or a member that names nothing of Transformer Engine: a method of the user's own, words that look like a
        name, or what an instance has whose class is not the one that an annotation says.
    """
    uses, moves = tuple(uses), Moves(old, new)
    judged: dict[Use, tuple[Judgement, ...]] = {}
    found: list[Judgement] = []
    for use in uses:
        # The same at many places is judged once; which file it is in matters for what protects it only.
        alike = use if use.fallback_for or use.guards else dataclasses.replace(use, place=_ANYWHERE)
        if alike not in judged:
            pair = Pair(alike, fit(alike, old), fit(alike, new), old, new)
            judged[alike] = () if _names_nothing(pair) else tuple(_judgements(pair, uses, moves))
        found += (dataclasses.replace(each, use=use) for each in judged[alike])
    return tuple(found)


def _judgements(pair: Pair, uses: Sequence[Use], moves: Moves) -> Iterator[Judgement]:
    was_reached, is_reached_now = (is_reached(pair.use, uses, names) for names in (pair.old_names, pair.new_names))
    found = list(_changes(pair, was_reached=was_reached))
    for outcome, misfit in found:
        is_guarded = not is_reached_now or is_covered(pair.use, outcome, misfit, uses, pair.new_names)
        result = Outcome.GUARDED if is_guarded and outcome is not Outcome.BETTER else outcome
        old, new = (_text(side, misfit, pair.use) for side in (pair.old, pair.new))
        yield Judgement(pair.use, result, misfit.cause, misfit.subject, old, new, _instead(pair, misfit, moves))
    if not found:
        yield Judgement(pair.use, Outcome.SAME)


def _names_nothing(pair: Pair) -> bool:
    use = pair.use
    if use.kind is UseKind.TEXT:
        return pair.old.found is None
    if use.kind is UseKind.OVERRIDE:
        return not (pair.old.definition or pair.new.definition)
    return use.on_instance and all(
        side.misfits == (Misfit(Cause.NAME_GONE, use.path),) for side in (pair.old, pair.new)
    )


def _changes(pair: Pair, *, was_reached: bool) -> Iterator[Change]:
    old, new = pair.old, pair.new
    failed = was_reached and bool(old.misfits)
    if not (old.is_read and new.is_read):
        yield Outcome.UNKNOWN, Misfit(Cause.NOT_READ)
    elif new.found is None and old.found:
        outcome, misfit = _gone(pair)
        yield Outcome.BROKEN_ALREADY if failed else outcome, misfit
    elif new.misfits:
        outcome = Outcome.BROKEN_ALREADY if failed else pair.breaks
        yield from ((outcome, misfit) for misfit in (new.misfits if failed else _told(pair)))
    elif old.misfits:
        yield from ((Outcome.BETTER, misfit) for misfit in old.misfits if failed)
    elif old.definition and new.definition:
        yield from list(changes(pair)) or _doubts(pair)
    elif old.found != new.found:  # one of them comes from elsewhere
        yield Outcome.UNKNOWN, Misfit(Cause.NOT_READ)


def _doubts(pair: Pair) -> Iterator[Change]:
    """That it was certain what a name is, and is not now."""
    is_certain = [bool(side.found and side.found.is_certain) for side in (pair.old, pair.new)]
    if is_certain == [True, False]:
        yield Outcome.UNKNOWN, Misfit(Cause.NOT_READ)


def _told(pair: Pair) -> Iterator[Misfit]:
    """Why a use does not fit now: what it gives by another name, or at another position, it does not lack."""
    old, new = pair.old, pair.new
    given = {_new_name(pair, each) for each in new.misfits}
    if old.parameters and new.parameters:
        yield from moved(old.call, old.parameters, new.parameters)
        given |= given_by_position(old.call, old.parameters) | {*old.call.keywords}
    for misfit in new.misfits:
        if misfit.cause is not Cause.MISSING_ARGUMENT or misfit.subject not in given:
            yield misfit


def _new_name(pair: Pair, misfit: Misfit) -> str:
    """The new name of an argument that is given by name and not taken; empty if there is none."""
    if misfit.cause is not Cause.UNKNOWN_KEYWORD or not (pair.old.parameters and pair.new.parameters):
        return ""
    return renamed(misfit.subject, pair.old.parameters, pair.new.parameters)


def _gone(pair: Pair) -> Change:
    """That a name leads nowhere now."""
    use, path = pair.use, pair.new.misfits[0].subject
    if use.kind is UseKind.OVERRIDE and path == use.path:
        return Outcome.BREAKS if pair.old.is_called else Outcome.CHANGES, Misfit(Cause.HOOK_GONE)
    there = pair.old_names.find(path)
    what = there.definition.signature.what if there and there.definition else ""
    cause = {"module": Cause.NOT_IMPORTABLE, "member": Cause.MEMBER}.get(what, Cause.NAME_GONE)
    outcome = Outcome.BREAKS if was_there(path, pair.old_names) else Outcome.UNKNOWN
    return outcome, Misfit(cause, path)


def _instead(pair: Pair, misfit: Misfit, moves: Moves) -> str:
    """What can be written now."""
    if pair.old.found and pair.new.found is None:
        return moves.of(misfit.subject or pair.use.path)
    return _new_name(pair, misfit)


def _text(side: Fit, misfit: Misfit, use: Use) -> str:
    """What a judgement is about, on one side, as source has it."""
    definition = side.definition
    if definition is None:
        return side.found.path if side.found and misfit.cause is Cause.NOT_READ else ""
    signature = definition.signature
    parameter = next((each for each in signature.parameters if each.name == misfit.subject), None)
    texts = {
        Cause.KIND: signature.what,
        Cause.VALUE: side.value,
        Cause.MEMBER: side.value,
        Cause.RETURNS: str(definition.returns or ""),
        Cause.EXCEPTION: ", ".join(definition.raises),
        Cause.BASE: ", ".join(definition.bases),
        Cause.DEFAULT: (parameter and parameter.default) or "",
    }
    name = use.path.rpartition(".")[2]
    return texts.get(misfit.cause, f"{name}{signature.as_source}" if signature.what in CALLED else name)
