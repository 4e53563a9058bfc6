"""What is done with a mutant, each in a process of its own: look for a difference, and let the claims judge."""

import dataclasses
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from proofs.mutation import claims, farm, path, probe, subject
from proofs.mutation.claims import Verdict
from proofs.mutation.path import Mutant, Reached
from proofs.mutation.probe import Observations

TIMEOUT = 1800.0
"""Seconds that a process may take. Claims that catch nothing take up to fifteen minutes of a processor."""
PART = 10
"""Scenarios, or tests, that a process looks at in the healthy TE."""
GLANCED = 40
"""Tests that judge a mutant first: those that execute its statement, the smallest to the largest."""


class UnhealthyError(RuntimeError):
    """The installed TE is not fit to be compared with: it is red, or does not show the same twice."""


@dataclasses.dataclass(frozen=True)
class Healthy:
    """The installed TE as it is.

    Attributes:
        shown: what is seen of it.
        scenarios: the lines that each scenario of the probe executes.
        tests: the lines that each test executes.
    """

    shown: Observations
    scenarios: Reached
    tests: Reached

    def task(self, mutant: Mutant) -> "Task":
        """A mutant, with what may tell it from this."""
        scenarios = path.reaching(mutant, self.scenarios)
        home = [claims.path_of(claim) for claim in claims.home_of(mutant.file)]
        tests = path.reaching(mutant, self.tests)
        near = [test for test in tests if test.partition("::")[0] in home] or tests
        by_size = sorted(near, key=lambda test: sum(map(len, self.tests[test].values())))
        spread = by_size[:: -(-len(by_size) // GLANCED)]
        reached = {test.partition("::")[0] for test in tests}
        return Task(
            mutant,
            {name: self.shown[name] for name in (probe.IMPORT, *scenarios)},  # what an import warns of, it does once
            tuple(spread),
            tuple(claim for claim in claims.ORDER if claims.path_of(claim) in reached),
        )


@dataclasses.dataclass(frozen=True)
class Task:
    """A mutant, and what may tell it from the healthy TE.

    Attributes:
        mutant: the fault.
        expected: what the healthy TE shows in the scenarios that execute the statement.
        tests: some tests that execute it, of the claims that are about its file if there are such.
        claims: all claims that do.
    """

    mutant: Mutant
    expected: Observations = dataclasses.field(repr=False, compare=False)
    tests: tuple[str, ...] = dataclasses.field(repr=False, compare=False)
    claims: tuple[str, ...] = dataclasses.field(repr=False, compare=False)


def prepare(programs: Path) -> None:
    """Set what the processes to come inherit: a host run, and a folder for compiled programs.

    In the usual one, the programs of mutants would push out those of healthy runs.
    """
    os.environ |= {
        "MNIST_FP8_TE": "host",
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "2",
        "JAX_COMPILATION_CACHE_DIR": str(programs),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def look(task: Task) -> str:
    """The first observation in which a mutant differs, where its statement is executed; empty if there is none."""
    _load(task.mutant)
    return probe.difference(task.expected)


def glance(task: Task) -> Verdict:
    """What some tests say of a mutant. Most end here."""
    _load(task.mutant)
    return claims.judge_tests(task.tests)


def judge(task: Task) -> Verdict:
    """What the claims say of a mutant that execute its statement.

    All of their tests: one that shares a compiled program with another does not execute the statement again.
    """
    _load(task.mutant)
    return claims.judge(task.claims)


def healthy(jobs: int) -> Healthy:
    """What the installed TE shows, and what executes which of its lines.

    Raises:
        UnhealthyError: a claim is red, or two looks differ, so that nothing could be said about mutants.
    """
    (tests,) = _all_of([_Look("collected")], jobs)
    names = {"observed": probe.scenarios(), "observed again": probe.scenarios(), "executed": probe.scenarios()}
    looks = {what: [_Look(what, part) for part in _parts(of)] for what, of in {**names, "judged": tests}.items()}
    everything = [*itertools.chain(*looks.values())]
    results = dict(zip(everything, _all_of(everything, jobs), strict=True))
    first, second, scenarios = (_merged(results[look] for look in looks[what]) for what in names)
    if first != second:
        differ = [name for name in first if first[name] != second.get(name)]
        raise UnhealthyError(f"two looks at the installed TE differ in {len(differ)} scenarios: {differ[:3]}")
    verdicts, reached = zip(*(results[look] for look in looks["judged"]), strict=True)
    for verdict in verdicts:
        if verdict.caught:
            raise UnhealthyError(f"the installed TE is red: {verdict.claim}: {verdict.test}: {verdict.message}")
    return Healthy(first, scenarios, _merged(reached))


@dataclasses.dataclass(frozen=True)
class _Look:
    """A look at a part of the installed TE: what is done, with which scenarios or tests."""

    what: str
    part: tuple[str, ...] = ()


def _parts(names: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(names[start : start + PART]) for start in range(0, len(names), PART)]


def _merged(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: value for part in parts for name, value in part.items()}


def _all_of(looks: Sequence[_Look], jobs: int) -> list[Any]:
    """The results in the order of the looks."""
    results = {}
    for ended in farm.run(_look, looks, jobs=jobs, timeout=TIMEOUT):
        if ended.failure:
            raise UnhealthyError(f"the installed TE cannot be looked at: {ended.task}: {ended.failure}")
        results[ended.task] = ended.result
    return [results[look] for look in looks]


def _look(at: _Look) -> Any:
    """What is seen of the installed TE: its tests, observations, executed lines, or what tests say and execute."""
    match at.what:
        case "collected":
            return claims.collected()
        case "executed":
            return path.executed(at.part)
        case "judged":
            return path.executed_by_tests(at.part)
    return probe.observe(at.part)


def _load(mutant: Mutant) -> None:
    subject.replace(mutant.file, mutant.edit.apply(subject.read(mutant.file)))
