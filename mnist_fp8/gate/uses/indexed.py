"""All uses of the same sources, as they are looked up: a guarded import protects what it imports."""

import dataclasses
from collections.abc import Iterable, Sequence

from mnist_fp8.gate.uses.use import Place, Use

_ANYWHERE = Place("", 0)


class Indexed:
    """Uses, and those of them that are alike.

    Attributes:
        uses: in their order, each with its index in `alike`.
        alike: one of those that have the same fate at every place; of what is protected the place matters.
    """

    def __init__(self, uses: Iterable[Use]) -> None:
        indexes: dict[Use, int] = {}
        self._by_name: dict[tuple[str, str], list[Use]] = {}
        self.uses: list[tuple[Use, int]] = []
        for use in uses:
            alike = use if use.fallback_for or use.guards else dataclasses.replace(use, place=_ANYWHERE)
            self.uses.append((use, indexes.setdefault(alike, len(indexes))))
            self._by_name.setdefault((use.path, use.place.file), []).append(use)
        self.alike = tuple(indexes)

    def of(self, path: str, file: str) -> Sequence[Use]:
        """The uses of a path in a file."""
        return self._by_name.get((path, file), ())
