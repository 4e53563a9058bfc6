"""What becomes of each use when Transformer Engine changes: pure."""

from collections.abc import Iterable, Iterator, Sequence

from mnist_fp8.gate.uses.binding import Misfit, given_by_position, moved, renamed
from mnist_fp8.gate.uses.changes import Change, Pair, changes
from mnist_fp8.gate.uses.fit import Fit, Fits
from mnist_fp8.gate.uses.indexed import Indexed
from mnist_fp8.gate.uses.judgement import Cause, Judgement, Outcome
from mnist_fp8.gate.uses.places import Moves, was_there
from mnist_fp8.gate.uses.protection import is_covered, is_reached
from mnist_fp8.gate.uses.use import Use, UseKind
from mnist_fp8.record.entries import CALLED
from mnist_fp8.record.names import Names


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
    return judgements(Indexed(uses), Fits(old), Fits(new))


def judgements(uses: Indexed, old: Fits, new: Fits) -> tuple[Judgement, ...]:
    """The same, where uses are judged between several Transformer Engines."""
    moves = Moves(old.names, new.names)
    found: list[Judgement] = []
    for use, pair, changed in _judged(uses, old, new):
        for outcome, misfit in changed:
            before, after = (_text(side, misfit, use) for side in (pair.old, pair.new))
            instead = _instead(pair, misfit, moves)
            found.append(Judgement(use, outcome, misfit.cause, misfit.subject, before, after, instead))
        if not changed:
            found.append(Judgement(use, Outcome.SAME))
    return tuple(found)


def outcomes(uses: Indexed, old: Fits, new: Fits) -> dict[Use, set[Outcome]]:
    """The outcomes of those judgements, by use."""
    return {use: {outcome for outcome, _ in found} or {Outcome.SAME} for use, _, found in _judged(uses, old, new)}


def _judged(uses: Indexed, old: Fits, new: Fits) -> Iterator[tuple[Use, Pair, Sequence[Change]]]:
    """Each use that names something, and what becomes of it: nothing where it stays as it is."""
    pairs = [Pair(use, old.of(use), new.of(use), old.names, new.names) for use in uses.alike]
    found = [None if _names_nothing(pair) else list(_outcomes(pair, uses, old, new)) for pair in pairs]
    for use, index in uses.uses:
        changed = found[index]
        if changed is not None:
            yield use, pairs[index], changed


def _outcomes(pair: Pair, uses: Indexed, old: Fits, new: Fits) -> Iterator[Change]:
    """What becomes of a use where it is."""
    is_reached_now = is_reached(pair.use, uses, new)
    for outcome, misfit in _changes(pair, was_reached=is_reached(pair.use, uses, old)):
        is_guarded = not is_reached_now or is_covered(pair.use, outcome, misfit, uses, new)
        yield Outcome.GUARDED if is_guarded and outcome is not Outcome.BETTER else outcome, misfit


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
