"""What is done with a mutant, each in a process of its own: look for a difference, and let the claims judge."""

import dataclasses
import os
from pathlib import Path
from typing import Any

from proofs.mutation import claims, farm, path, probe, subject
from proofs.mutation.claims import Verdict
from proofs.mutation.path import Mutant, Reached
from proofs.mutation.probe import Observations

TIMEOUT = 600.0
"""Seconds that a process may take. The claims that catch nothing take five minutes of a processor."""


class UnhealthyError(RuntimeError):
    """The installed TE is not fit to be compared with: it is red, or does not show the same twice."""


@dataclasses.dataclass(frozen=True)
class Healthy:
    """The installed TE as it is.

    Attributes:
        shown: what is seen of it.
        scenarios: the lines that each scenario of the probe executes.
        claims: the lines that each claim executes.
    """

    shown: Observations
    scenarios: Reached
    claims: Reached

    def task(self, mutant: Mutant) -> "Task":
        """A mutant, with what may tell it from this."""
        scenarios = path.reaching(mutant, self.scenarios)
        return Task(mutant, {name: self.shown[name] for name in scenarios}, path.reaching(mutant, self.claims))


@dataclasses.dataclass(frozen=True)
class Task:
    """A mutant; what the healthy TE shows where its statement is executed, and the claims that execute it."""

    mutant: Mutant
    expected: Observations = dataclasses.field(repr=False, compare=False)
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
    """What the claims that are about the mutant's file say of it. Most mutants end here."""
    _load(task.mutant)
    return claims.judge(claims.home_of(task.mutant.file))


def judge(task: Task) -> Verdict:
    """What the other claims say of a mutant that execute its statement."""
    home = claims.home_of(task.mutant.file)
    _load(task.mutant)
    return claims.judge(tuple(claim for claim in task.claims if claim not in home))


def healthy(jobs: int) -> Healthy:
    """What the installed TE shows, and what executes which of its lines.

    Raises:
        UnhealthyError: a claim is red, or two looks differ, so that nothing could be said about mutants.
    """
    looks = ["observed", "observed again", "executed"]
    seen = {ended.task: ended for ended in farm.run(_look, [*looks, *claims.ORDER], jobs=jobs, timeout=TIMEOUT)}
    for task, ended in seen.items():
        if ended.failure:
            raise UnhealthyError(f"the installed TE cannot be looked at: {task}: {ended.failure}")
    first, second, scenarios = (seen[look].result for look in looks)
    if first != second:
        names = [name for name in first if first[name] != second.get(name)]
        raise UnhealthyError(f"two looks at the installed TE differ in {len(names)} scenarios: {names[:3]}")
    reached = {}
    for claim in claims.ORDER:
        verdict, reached[claim] = seen[claim].result
        if verdict.caught:
            raise UnhealthyError(f"the installed TE is red: {claim}: {verdict.test}: {verdict.message}")
    return Healthy(first, scenarios, reached)


def _look(at: str) -> Any:
    """What is seen of the installed TE: observations, executed lines, or what a claim says and executes."""
    if at == "executed":
        return path.executed()
    return path.executed_by(lambda: claims.judge((at,))) if at in claims.ORDER else probe.observe()


def _load(mutant: Mutant) -> None:
    subject.replace(mutant.file, mutant.edit.apply(subject.read(mutant.file)))
