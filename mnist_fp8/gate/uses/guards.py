"""What protects a use from failing when it no longer fits."""

from collections.abc import Iterable, Mapping

from mnist_fp8.gate.uses.judgement import Cause
from mnist_fp8.gate.uses.use import Guard, Use, UseKind

_ALWAYS = frozenset({Guard.VERSION, Guard.PROBE, Guard.TYPE_CHECKING})
"""What was tested before, or never runs."""
_ERRORS: Mapping[Cause, frozenset[Guard]] = {
    Cause.MISSING_ARGUMENT: frozenset({Guard.TYPE_ERROR, Guard.EXCEPTION}),
    Cause.UNKNOWN_KEYWORD: frozenset({Guard.TYPE_ERROR, Guard.EXCEPTION}),
    Cause.TOO_MANY_POSITIONAL: frozenset({Guard.TYPE_ERROR, Guard.EXCEPTION}),
    Cause.KIND: frozenset({Guard.TYPE_ERROR, Guard.EXCEPTION}),
    Cause.RETURNS: frozenset({Guard.EXCEPTION}),
}
"""What catches the error that is raised, by cause; nothing catches what goes wrong in silence, or in other code."""
_GONE = {Cause.NAME_GONE, Cause.NOT_IMPORTABLE, Cause.MEMBER}
_IMPORTS = {UseKind.IMPORT, UseKind.STAR}


class Guards:
    """The guards of some uses."""

    def __init__(self, uses: Iterable[Use]) -> None:
        """Those of all uses of the same sources."""
        self._imports: dict[str, list[Use]] = {}
        for use in uses:
            if use.kind in _IMPORTS:
                self._imports.setdefault(use.place.file, []).append(use)

    def cover(self, use: Use, cause: Cause, subject: str) -> bool:
        """Whether a use is protected from what would fail.

        Args:
            use: the use.
            cause: why it fails.
            subject: where a name is gone, the shortest path that is.
        """
        if cause not in _GONE:
            return bool(use.guards & (_ALWAYS | _ERRORS.get(cause, frozenset())))
        if use.kind in _IMPORTS:
            return _is_caught(use, Guard.IMPORT_ERROR)
        imports = [
            each
            for each in self._imports.get(use.place.file, ())
            if _is_below(each.path, subject) and _is_below(use.path, each.path)
        ]
        if imports:  # which fails first
            return any(_is_caught(each, Guard.IMPORT_ERROR) for each in imports)
        of_import = {Guard.IMPORT_ERROR} if use.kind is UseKind.DYNAMIC else set()
        return _is_caught(use, Guard.ATTRIBUTE_ERROR, *of_import)


def _is_caught(use: Use, *errors: Guard) -> bool:
    return bool(use.guards & {*_ALWAYS, Guard.EXCEPTION, *errors})


def _is_below(path: str, above: str) -> bool:
    return path == above or path.startswith(f"{above}.")
