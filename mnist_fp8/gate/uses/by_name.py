"""Some code over all known releases, name by name: pure."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

from mnist_fp8.gate.uses.judge import judge
from mnist_fp8.gate.uses.judgement import Judgement
from mnist_fp8.gate.uses.ranges import Fitting, History, fitting
from mnist_fp8.gate.uses.use import Use
from mnist_fp8.record.names import Names


@dataclasses.dataclass(frozen=True)
class UsedName:
    """One name over all releases.

    Attributes:
        path: as the code reaches it.
        there: releases that have it, the oldest first.
        fits: those of them in which no use of it fails.
        changed: releases that changed it for one of its uses; not those in which it came or went.
        public: the path under which the newest release that has it documents or exports it; empty if it does not.
    """

    path: str
    there: tuple[str, ...]
    fits: tuple[str, ...]
    changed: tuple[str, ...]
    public: str


@dataclasses.dataclass(frozen=True)
class UsedNames:
    """Some code over all releases.

    Attributes:
        fitting: which releases it fits.
        names: what it uses, in the order of their paths.
        misfits: uses that fit no release, held to the newest.
    """

    fitting: Fitting
    names: tuple[UsedName, ...]
    misfits: tuple[Judgement, ...]


def used_names(uses: Sequence[Use], releases: Mapping[str, Names]) -> UsedNames:
    """Hold code to all known releases.

    Args:
        uses: all uses of the code.
        releases: names of each known release, by version.
    """
    found = fitting(uses, releases)
    histories: dict[str, list[History]] = {}
    for history in found.histories:
        histories.setdefault(history.use.path, []).append(history)
    names = tuple(_used_name(path, histories[path], found, releases) for path in sorted(histories))
    nowhere = {history.use for history in found.histories if history.fails == found.releases}
    newest = releases[found.releases[-1]]
    misfits = judge(uses, newest, newest) if nowhere else ()
    return UsedNames(found, names, tuple(each for each in misfits if each.use in nowhere))


def _used_name(path: str, histories: Sequence[History], found: Fitting, releases: Mapping[str, Names]) -> UsedName:
    there = tuple(version for version in found.releases if releases[version].find(path))
    fits = tuple(version for version in there if not any(version in each.fails for each in histories))
    stayed = [version for before, version in itertools.pairwise(found.releases) if {before, version} <= {*there}]
    changed = tuple(version for version in stayed if any(version in each.changes for each in histories))
    return UsedName(path, there, fits, changed, _public_path(path, releases[there[-1]]) if there else "")


def _public_path(path: str, names: Names) -> str:
    """The public path of what a path leads to, or of the class that it is a member of and its own name."""
    if path in names.public:
        return path
    found, (owner, _, name) = names.find(path), path.rpartition(".")
    if found and found.path in names.shortest_public:
        return names.shortest_public[found.path]
    above = names.find(owner) if owner else None
    is_member = above and above.definition and above.definition.signature.what == "class"
    public = _public_path(owner, names) if is_member else ""
    return f"{public}.{name}" if public else ""
