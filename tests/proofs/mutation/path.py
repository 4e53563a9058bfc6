"""The path: the lines of Transformer Engine that its layers execute, and the faults that stand on them."""

import ast
import contextlib
import dataclasses
import random
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import coverage

from proofs.mutation import claims, probe, subject
from proofs.mutation.operators import Edit, edits

Lines = Mapping[str, frozenset[int]]
"""Executed lines by file, named from the package's folder."""
Reached = Mapping[str, Lines]
"""Executed lines by what executes them: a scenario of the probe, or a test."""


@dataclasses.dataclass(frozen=True, order=True)
class Mutant:
    """Transformer Engine with one small fault.

    Attributes:
        file: the file that holds it.
        edit: the fault.
    """

    file: str
    edit: Edit

    @property
    def name(self) -> str:
        """Names the fault for people and for files: stays the same as long as the file does."""
        return f"{self.file}:{self.edit.line}:{self.edit.start}-{self.edit.end}:{self.edit.text}"


def executed(names: Collection[str]) -> Reached:
    """Import TE in this process, run scenarios of the probe, and say which lines inside functions each executes.

    Lines of a module's or class's body count where a function of that module or class was executed.
    """
    with _recorder() as recorder:
        scenarios = list(probe.observe(names, recorder.switch_context))
    return {scenario: _lines(recorder, scenario) for scenario in scenarios}


def executed_by_tests(tests: Sequence[str]) -> tuple[claims.Verdict, Reached]:
    """What tests say, in a process into which TE has not been imported yet, and which lines each executes."""
    with _recorder() as recorder:
        verdict = claims.judge_tests(tests, recorder.switch_context)
    return verdict, {test: _lines(recorder, test) for test in tests}


@contextlib.contextmanager
def _recorder() -> Iterator[coverage.Coverage]:
    recorder = coverage.Coverage(data_file=None, source=[str(subject.folder())], config_file=False, messages=False)
    recorder.start()
    try:
        yield recorder
    finally:
        recorder.stop()


def _lines(recorder: coverage.Coverage, context: str) -> Lines:
    folder, data = subject.folder(), recorder.get_data()
    data.set_query_context(context)
    found = {str(Path(name).relative_to(folder)): frozenset(data.lines(name) or ()) for name in data.measured_files()}
    return {file: lines for file, lines in found.items() if lines}


def union(reached: Reached) -> Lines:
    """The lines that anything executes."""
    files = {file for lines in reached.values() for file in lines}
    return {file: frozenset().union(*(lines.get(file, ()) for lines in reached.values())) for file in files}


def of_scenarios(reached: Reached, beginnings: Sequence[str]) -> Lines:
    """The lines that scenarios execute whose names begin in one of some ways, and that no others do."""
    own = {name for name in reached if name.startswith(tuple(beginnings))}
    others = union({name: lines for name, lines in reached.items() if name not in own})
    lines = union({name: reached[name] for name in own})
    return {file: numbers - others.get(file, frozenset()) for file, numbers in lines.items()}


def reaching(mutant: Mutant, reached: Reached) -> tuple[str, ...]:
    """What executes the statement of a fault: everything, where that is done at the import."""
    statement = range(mutant.edit.statement, mutant.edit.line + 1)
    names = tuple(
        name for name, lines in reached.items() if lines.get(mutant.file, frozenset()).intersection(statement)
    )
    return tuple(reached) if not names or probe.IMPORT in names else names


def mutants(lines: Lines) -> list[Mutant]:
    """Every fault on the path that Python compiles, in the order of files and lines."""
    found = []
    for file, executed_lines in sorted(lines.items()):
        source = subject.read(file)
        reached = _reached(ast.parse(source), executed_lines)
        found += [Mutant(file, edit) for edit in edits(source) if edit.statement in reached and _compiles(edit, source)]
    return found


def sample(mutants: list[Mutant], size: int | None, seed: int, files: Collection[str] = ()) -> list[Mutant]:
    """Mutants spread over all functions: one of each in turn, in an order that the seed decides."""
    drawn = random.Random(seed)  # noqa: S311 - nothing secret
    groups: dict[tuple[str, str], list[Mutant]] = defaultdict(list)
    for mutant in mutants:
        if not files or mutant.file in files:
            groups[mutant.file, mutant.edit.scope].append(mutant)
    ordered = list(groups.values())
    drawn.shuffle(ordered)
    for group in ordered:
        drawn.shuffle(group)
    rounds = range(max(map(len, ordered), default=0))
    return sorted([group[turn] for turn in rounds for group in ordered if turn < len(group)][:size])


def _reached(tree: ast.Module, executed_lines: frozenset[int]) -> set[int]:
    """First lines of the statements that are on the path.

    A function's statements are if they were executed, and so are its defaults then. What stands in a module or a class
    is executed when it is imported: it counts unless all of its functions stayed unused.
    """
    return set(_reached_in(tree, executed_lines))


def _reached_in(scope: Any, executed_lines: frozenset[int]) -> Iterator[int]:
    functions = [node for node in ast.walk(scope) if isinstance(node, ast.FunctionDef)]
    if not isinstance(scope, ast.FunctionDef) and functions and not any(_ran(f, executed_lines) for f in functions):
        return
    for statement in _statements(scope):
        if isinstance(statement, ast.ClassDef):
            yield from _reached_in(statement, executed_lines)
        elif isinstance(statement, ast.FunctionDef):
            if _ran(statement, executed_lines):
                yield statement.lineno
                yield from _reached_in(statement, executed_lines)
        elif executed_lines.intersection(_header(statement)):
            yield statement.lineno


def _statements(scope: ast.AST) -> Iterator[ast.stmt]:
    """Statements of a scope, those inside of conditions, loops and the like included, inner scopes' own not."""
    for child in ast.iter_child_nodes(scope):
        if isinstance(child, ast.stmt):
            yield child
        if not isinstance(child, ast.FunctionDef | ast.ClassDef):
            yield from _statements(child)


def _header(statement: ast.stmt) -> range:
    """Lines of a statement without those of the statements in it."""
    inner = [part.lineno for part in ast.walk(statement) if isinstance(part, ast.stmt) and part is not statement]
    return range(statement.lineno, min(inner, default=statement.end_lineno + 1))  # type: ignore[operator]


def _ran(function: ast.FunctionDef, executed_lines: frozenset[int]) -> bool:
    return any(executed_lines.intersection(_header(statement)) for statement in function.body)


def _compiles(edit: Edit, source: str) -> bool:
    try:
        compile(edit.apply(source), "mutant", "exec")
    except SyntaxError:
        return False
    return True
