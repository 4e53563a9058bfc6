"""What protects a use from failing when it no longer fits."""

from collections.abc import Mapping

from mnist_fp8.gate.uses.binding import Misfit
from mnist_fp8.gate.uses.fit import Fits
from mnist_fp8.gate.uses.indexed import Indexed
from mnist_fp8.gate.uses.judgement import Cause, Outcome
from mnist_fp8.gate.uses.use import Guard, Use, UseKind, is_below

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


def is_covered(use: Use, outcome: Outcome, misfit: Misfit, uses: Indexed, fits: Fits) -> bool:
    """Whether a use is protected from what becomes of it.

    Args:
        use: the use.
        outcome: what becomes of it without protection.
        misfit: why.
        uses: all of the same sources.
        fits: those in the Transformer Engine that it runs with.
    """
    if outcome is Outcome.CHANGES:
        return bool(use.guards & _CHOSEN)
    if misfit.cause not in _GONE:
        is_caught = use.guards & (_CAUGHT.get(misfit.cause, frozenset()) | {Guard.TYPE_CHECKING})
        return bool(is_caught or (use.guards & _CHOOSING and _has_way(use, uses, fits)))
    if is_below(use.optional, misfit.subject):
        return True
    errors = {Guard.EXCEPTION}
    if use.kind in _IMPORTS | {UseKind.DYNAMIC}:
        errors.add(Guard.IMPORT_ERROR)
    if use.kind not in _IMPORTS:
        errors.add(Guard.ATTRIBUTE_ERROR)
    return bool(use.guards & (_TESTED | errors))


def _has_way(use: Use, uses: Indexed, fits: Fits) -> bool:
    """Whether one of the calls that tests choose from fits, if the file has more than one of the same name."""
    ways = [each for each in uses.of(use.path, use.place.file) if each.call and each.guards & _CHOOSING]
    return len(ways) == 1 or any(not fits.of(way).misfits for way in ways)


def is_reached(use: Use, uses: Indexed, fits: Fits) -> bool:
    """Whether code comes to a use: whether one of those fails for which it is the fallback, if it is one.

    Args:
        use: the use.
        uses: all of the same sources.
        fits: those in the Transformer Engine that it runs with.
    """
    if not use.fallback_for:
        return True
    if any(fits.names.find(path) is None for path in use.fallback_for):
        return True
    first = (each for path in use.fallback_for for each in uses.of(path, use.place.file) if not each.fallback_for)
    return any(fits.of(each).misfits for each in first)
