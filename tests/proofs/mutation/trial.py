"""What is done with a mutant, each in a process of its own: look for a difference, and let the claims judge."""

import dataclasses
import os
from pathlib import Path
from typing import Any

from proofs.mutation import claims, farm, path, probe, subject
from proofs.mutation.claims import Verdict
from proofs.mutation.path import Lines, Mutant
from proofs.mutation.probe import Observations

TIMEOUT = 600.0
"""Seconds that a process may take. The claims that catch nothing take five minutes of a processor."""


class UnhealthyError(RuntimeError):
    """The installed TE is not fit to be compared with: it is red, or does not show the same twice."""


@dataclasses.dataclass(frozen=True)
class Task:
    """A mutant, and what the healthy TE shows."""

    mutant: Mutant
    expected: Observations = dataclasses.field(default_factory=dict, repr=False, compare=False)


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
    """The first observation in which a mutant differs; empty if there is none."""
    _load(task.mutant)
    return probe.difference(task.expected)


def glance(task: Task) -> Verdict:
    """What the claims that are about the mutant's file say of it. Most mutants end here."""
    _load(task.mutant)
    return claims.judge(claims.home_of(task.mutant.file))


def judge(task: Task) -> Verdict:
    """What the other claims say of a mutant."""
    _load(task.mutant)
    return claims.judge(claims.others_than(claims.home_of(task.mutant.file)))


def healthy(jobs: int) -> tuple[Observations, Lines]:
    """What the installed TE shows, and the lines that it executes for that.

    Raises:
        UnhealthyError: a claim is red, or two looks differ, so that nothing could be said about mutants.
    """
    looks = ["observed", "observed again", "executed"]
    seen = {ended.task: ended for ended in farm.run(_look, [*looks, *claims.ORDER], jobs=jobs, timeout=TIMEOUT)}
    for task, ended in seen.items():
        if ended.failure:
            raise UnhealthyError(f"the installed TE cannot be looked at: {task}: {ended.failure}")
    first, second, lines = (seen[look].result for look in looks)
    if first != second:
        names = [name for name in first if first[name] != second.get(name)]
        raise UnhealthyError(f"two looks at the installed TE differ in {len(names)} observations: {names[:3]}")
    for claim in claims.ORDER:
        verdict: Verdict = seen[claim].result
        if verdict.caught:
            raise UnhealthyError(f"the installed TE is red: {claim}: {verdict.test}: {verdict.message}")
    return first, lines


def _look(at: str) -> Any:
    """What is seen of the installed TE: observations, executed lines, or what a claim says."""
    if at == "executed":
        return path.executed()
    return claims.judge((at,)) if at in claims.ORDER else probe.observe()


def _load(mutant: Mutant) -> None:
    subject.replace(mutant.file, mutant.edit.apply(subject.read(mutant.file)))
