"""What protects a use from failing when it no longer fits."""

from collections.abc import Iterable, Mapping

from mnist_fp8.gate.uses.binding import Misfit
from mnist_fp8.gate.uses.fit import fit
from mnist_fp8.gate.uses.judgement import Cause, Outcome
from mnist_fp8.gate.uses.use import Guard, Use, UseKind
from mnist_fp8.record.names import Names

_CHOSEN = frozenset({Guard.VERSION, Guard.TYPE_CHECKING})
"""What is written for some releases, or never runs."""
_TESTED = _CHOSEN | {Guard.PROBE}
"""What runs only where it fits."""
_TYPE_ERROR = frozenset({Guard.TYPE_ERROR, Guard.EXCEPTION})
_CHOOSING = frozenset({Guard.VERSION, Guard.PROBE})
"""Tests that choose from calls."""
_CAUGHT: Mapping[Cause, frozenset[Guard]] = {
    Cause.MISSING_ARGUMENT: _TYPE_ERROR,
    Cause.UNKNOWN_KEYWORD: _TYPE_ERROR,
    Cause.TOO_MANY_POSITIONAL: _TYPE_ERROR,
    Cause.KIND: _TYPE_ERROR,
    Cause.RETURNS: frozenset({Guard.EXCEPTION}),
}
"""What catches the error, by cause; nothing catches what goes wrong in silence, or in code of Transformer Engine's."""
_GONE = {Cause.NAME_GONE, Cause.NOT_IMPORTABLE, Cause.MEMBER}
_IMPORTS = {UseKind.IMPORT, UseKind.STAR}


def is_covered(use: Use, outcome: Outcome, misfit: Misfit, uses: Iterable[Use], names: Names) -> bool:
    """Whether a use is protected from what becomes of it.

    Args:
        use: the use.
        outcome: what becomes of it without protection.
        misfit: why.
        uses: all of the same sources.
        names: of the Transformer Engine that it runs with.
    """
    if outcome is Outcome.CHANGES:
        return bool(use.guards & _CHOSEN)
    if misfit.cause not in _GONE:
        is_caught = use.guards & (_CAUGHT.get(misfit.cause, frozenset()) | {Guard.TYPE_CHECKING})
        return bool(is_caught or (use.guards & _CHOOSING and _has_way(use, uses, names)))
    if is_below(use.optional, misfit.subject):
        return True
    errors = {Guard.EXCEPTION}
    if use.kind in _IMPORTS | {UseKind.DYNAMIC}:
        errors.add(Guard.IMPORT_ERROR)
    if use.kind not in _IMPORTS:
        errors.add(Guard.ATTRIBUTE_ERROR)
    return bool(use.guards & (_TESTED | errors))


def _has_way(use: Use, uses: Iterable[Use], names: Names) -> bool:
    """Whether one of the calls that tests choose from fits, if the file has more than one of the same name."""
    ways = [
        each
        for each in uses
        if (each.path, each.place.file) == (use.path, use.place.file) and each.call and each.guards & _CHOOSING
    ]
    return len(ways) == 1 or any(not fit(way, names).misfits for way in ways)


def is_reached(use: Use, uses: Iterable[Use], names: Names) -> bool:
    """Whether code comes to a use: whether one of those fails for which it is the fallback, if it is one.

    Args:
        use: the use.
        uses: all of the same sources.
        names: of the Transformer Engine that it runs with.
    """
    if not use.fallback_for:
        return True
    first = [
        each
        for each in uses
        if each.path in use.fallback_for and each.place.file == use.place.file and not each.fallback_for
    ]
    absent = any(names.find(path) is None for path in use.fallback_for)
    return absent or any(fit(each, names).misfits for each in first)


def is_below(path: str, above: str) -> bool:
    """Whether a dotted path is another one, or goes on from it."""
    return path == above or path.startswith(f"{above}.")
