"""A user's code over all known releases: the view, and the terminal."""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import filterfalse

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from mnist_fp8.core.plain import clean
from mnist_fp8.gate.reports.markup import at_most
from mnist_fp8.gate.reports.uses import terminal, words
from mnist_fp8.gate.reports.uses.view import Block, Fate, blocks, fates, not_looked_at
from mnist_fp8.gate.reports.uses.words import Words, joined
from mnist_fp8.gate.uses.by_name import UsedName, UsedNames
from mnist_fp8.gate.uses.judgement import Cause, Judgement, Outcome
from mnist_fp8.gate.uses.ranges import ranges, runs, short
from mnist_fp8.gate.uses.use import Uses
from mnist_fp8.record.names import PACKAGE

COLUMNS = ("name", "there", "changed", "fits")
"""Of the table of names."""
PRIVATE = 8
"""Lines in the terminal for names that are not public."""
UNREAD = 5
"""Lines in the terminal for what was not looked at."""
WIDE = 100
"""Columns of a terminal that has room for the table of names."""
STEPS = 6
"""Things that releases broke, in the terminal; the others are counted."""


@dataclasses.dataclass(frozen=True)
class ReleasesView:
    """A user's code over all known releases.

    Attributes:
        uses: what was found, and what was not looked at.
        used: its names, and which releases it fits.
    """

    uses: Uses
    used: UsedNames

    @property
    def headline(self) -> str:
        """How many names it uses, and where."""
        files = {each.use.place.file for each in self.used.fitting.histories}
        return words.headline(len(self.used.names), len(files))

    @property
    def range(self) -> Words:
        """Which releases it fits."""
        return words.releases(self.used.fitting)

    def cells(self, name: UsedName) -> list[str]:
        """What the table says of a name, by `COLUMNS`."""
        return [
            _short(name.path) + (" *" if _is_private(name) else ""),
            _runs(self.releases, name.there),
            ", ".join(map(short, name.changed)),
            "; ".join(ranges(self.releases, name.fits)) or ("none" if name.there else ""),
        ]

    def changes(self, outcome: Outcome | None = None) -> list[tuple[str, list[Block]]]:
        """What each release changed for the code, the newest first; only what came to that, if an outcome is named."""
        chosen = (
            (release, [fate for fate in found if outcome in (None, fate.outcome)]) for release, found in self._fates
        )
        return [(release, blocks(found)) for release, found in chosen if found]

    @cached_property
    def _fates(self) -> list[tuple[str, tuple[Fate, ...]]]:
        """What each release changed, use by use: their texts are made once for all forms."""
        judged: dict[str, list[Judgement]] = {}
        for history in self.used.fitting.histories:
            for release, found in history.changes.items():
                judged.setdefault(release, []).extend(filterfalse(_came, found))
        return [(release, fates(judged.get(release, ()))) for release in reversed(self.releases)]

    @property
    def sections(self) -> list[tuple[str, list[Block]]]:
        """What fits no release, and what each release changed, the newest first, each with a title."""
        misfits = blocks(fates(self.used.misfits))
        changed = [(f"What {release} changed for your code", found) for release, found in self.changes()]
        return [*([("Fits no release", misfits)] if misfits else []), *changed]

    @property
    def releases(self) -> tuple[str, ...]:
        """All known releases, the oldest first."""
        return self.used.fitting.releases

    @property
    def private(self) -> list[str]:
        """What is not public, and under which path it is, a line each; members of what is told are not."""
        used = {name.path for name in self.used.names}
        names = [name for name in self.used.names if _is_private(name) and name.path.rpartition(".")[0] not in used]
        return [words.not_public(_short(name.path), _short(name.public)) for name in names]

    @property
    def not_looked_at(self) -> list[str]:
        """What was not looked at, a line each."""
        return not_looked_at(self.uses)


def _came(judgement: Judgement) -> bool:
    """Whether it is only that a name came, which the table says."""
    return judgement.outcome is Outcome.BETTER and judgement.cause in (Cause.NAME_GONE, Cause.NOT_IMPORTABLE)


def _is_private(name: UsedName) -> bool:
    return bool(name.there) and name.public != name.path


def _short(path: str) -> str:
    return clean(path).removeprefix(f"{PACKAGE}.")


def _runs(releases: Sequence[str], some: Sequence[str]) -> str:
    """Some of the releases in a few words, such as ``2.1 to 2.11, 2.14 on``."""
    return ", ".join(_run(run[0], run[-1], releases[-1]) for run in runs(releases, some)) or "in no release"


def _run(first: str, last: str, newest: str) -> str:
    if last == newest:
        return f"{short(first)} on"
    return short(first) if first == last else f"{short(first)} to {short(last)}"


def table(view: ReleasesView, width: int) -> Iterator[RenderableType]:
    """The code over all releases, for a terminal."""
    yield Text.assemble((view.headline, "bold"), f" {joined(view.range)}")
    if view.used.names:
        yield Text()
        yield from [_names(view)] if width >= WIDE else _names_in_lines(view, width)
    yield from (terminal.indented(each, width, "yellow", "  * ") for each in at_most(view.private, PRIVATE))
    broken = [(release, block) for release, of_release in view.changes(Outcome.BREAKS) for block in of_release]
    if broken:
        yield Text()
        yield Text("What releases broke, the newest first", "bold")
    for release, block in broken[:STEPS]:
        yield terminal.indented(
            f"{block.first.line.where}: {joined(block.first.happens)}", width, first=f"  {release}  "
        )
    if len(broken) > STEPS:
        yield Text(f"  and {len(broken) - STEPS:,} more: see the page", "dim")
    for block in blocks(fates(view.used.misfits)):
        yield from terminal.whole(block, width)
    yield Text()
    yield terminal.indented(words.looked_at(view.uses), width, "dim", "")
    for each in at_most(view.not_looked_at, UNREAD):
        yield terminal.indented(each, width, "yellow", "  not looked at: ")


def _names(view: ReleasesView) -> Table:
    made = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name in COLUMNS:
        made.add_column(name, overflow="fold")
    for each in view.used.names:
        style = "red" if each.there and not each.fits else ""
        made.add_row(*(Text(cell, style) for cell in view.cells(each)))
    return made


def _names_in_lines(view: ReleasesView, width: int) -> Iterator[Text]:
    for each in view.used.names:
        path, *cells = view.cells(each)
        yield Text(path, "red" if each.there and not each.fits else "", overflow="fold")
        said = (f"{heading} {cell}" for heading, cell in zip(COLUMNS[1:], cells, strict=True) if cell)
        yield terminal.indented("; ".join(said), width, "dim")
