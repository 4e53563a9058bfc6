"""Evaluates the modules of a user's project, each after those that it takes names from."""

import contextlib
import gc
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

from mnist_fp8.gate.uses.parsing import Broken, Part, parse
from mnist_fp8.gate.uses.project import Facts, Project
from mnist_fp8.gate.uses.sources import Source, UnreadableError, read_source
from mnist_fp8.gate.uses.statements import Statements
from mnist_fp8.gate.uses.use import Place, Unread, Use
from mnist_fp8.record.names import PACKAGE

_DEEPEST = 4000
"""Python's own frames, of which an expression takes about five for each level that it is nested."""

Evaluated = tuple[list[Use], list[Unread]]


def candidates(project: Project) -> list[str]:
    """Locations of the modules that name Transformer Engine, or import such a one in some steps."""
    importers: dict[str, list[str]] = {}
    for location in project.files:
        for module in project.dependencies(location):
            importers.setdefault(module, []).append(location)
    found = dict.fromkeys(location for location in project.files if project.names_package(location))
    pending = [*found]
    while pending:
        for importer in importers.get(pending.pop(), ()):
            if importer not in found:
                found[importer] = None
                pending.append(importer)
    return sorted(found)


def evaluate_apart(sources: Sequence[Source], facts: Mapping[str, Facts], targets: Iterable[str]) -> Evaluated:
    """The same of a project that nothing was evaluated of, in a process of its own.

    Args:
        sources: all files of the project.
        facts: what a glance at each of them told, by its path.
        targets: locations of the modules to find uses in.
    """
    return evaluate(Project(sources, facts), targets)


def evaluate(project: Project, targets: Iterable[str]) -> Evaluated:
    """The uses in some modules, by their locations; once for a project."""
    order = _in_order(project, targets)
    project.pending = set(order)
    found: dict[str, Evaluated] = {}
    with _deep(), _without_collections():
        early = [location for location in order if _evaluate(project, location, found)]
        for location in early:  # they import each other
            _evaluate(project, location, found)
    chosen = [found[location] for location in targets if location in found]
    return [use for uses, _ in chosen for use in uses], [each for _, unread in chosen for each in unread]


def _in_order(project: Project, targets: Iterable[str]) -> list[str]:
    """Some modules and what they import, each after what it imports where that is possible."""
    order: dict[str, None] = {}
    entered: set[str] = set()
    pending = [(target, iter([target])) for target in targets]
    while pending:
        location, following = pending[-1]
        module = next(following, None)
        if module is None:
            pending.pop()
            if location in entered:
                order[location] = None
        elif module not in entered:
            entered.add(module)
            pending.append((module, project.dependencies(module)))
    return [*order]


def _evaluate(project: Project, location: str, found: dict[str, Evaluated]) -> bool:
    """Evaluate a module, and tell whether it has asked for one that is still to be evaluated."""
    project.was_early = False
    if project.may_use(location):
        statements = Statements(project, location)
        parts, unread = _parts(project.files[location])
        try:
            exports = statements.execute(parts)
        except RecursionError:
            exports = statements.scope.values
            unread.append(Unread(Place(project.files[location].shown, 0), "it is nested too deeply", may_use=True))
        project.keep(location, exports)
        found[location] = statements.findings.uses, unread + statements.findings.unread_places
    project.pending.discard(location)
    return project.was_early


def _parts(source: Source) -> tuple[list[Part], list[Unread]]:
    """The trees of a file, and what of it cannot be parsed."""
    parts: list[Part] = []
    unread: list[Unread] = []
    try:
        for part in parse(source, read_source(source)):
            if isinstance(part, Broken):
                unread.append(Unread(part.place, part.reason, PACKAGE in part.text))
            else:
                parts.append(part)
    except UnreadableError as error:
        unread.append(Unread(Place(source.shown, error.line), error.reason, may_use=True))
    return parts, unread


@contextlib.contextmanager
def _deep() -> Iterator[None]:
    """Let expressions be nested deeply."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, _DEEPEST))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """Evaluate without looking for garbage in trees, which takes a third of the time and finds none."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
