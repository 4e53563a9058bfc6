"""What is done with a mutant, each in a process of its own: look for a difference, and let the claims judge."""

import dataclasses
import os
from pathlib import Path
from typing import Any

from proofs.mutation import claims, farm, path, probe, subject
from proofs.mutation.claims import Verdict
from proofs.mutation.path import Lines, Mutant
from proofs.mutation.probe import Observations

TIMEOUT = 300.0
"""Seconds that a process may take. On two cores the claims take about 30."""


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


def judge(task: Task) -> Verdict:
    """What the claims say of a mutant."""
    _load(task.mutant)
    return claims.judge(claims.order_for(task.mutant.file))


def healthy() -> tuple[Observations, Lines]:
    """What the installed TE shows, and the lines that it executes for that.

    Raises:
        UnhealthyError: a claim is red, or two looks differ, so that nothing could be said about mutants.
    """
    first, second = _alone(_observe), _alone(_observe)
    if first != second:
        names = [name for name in first if first[name] != second.get(name)]
        raise UnhealthyError(f"two looks at the installed TE differ in {len(names)} observations: {names[:3]}")
    verdict: Verdict = _alone(_judge_installed)
    if verdict.caught:
        raise UnhealthyError(f"the installed TE is red: {verdict.claim}: {verdict.test}: {verdict.message}")
    return first, _alone(_executed)


def _observe(_: str) -> Observations:
    return probe.observe()


def _executed(_: str) -> Lines:
    return path.executed()


def _judge_installed(_: str) -> Verdict:
    return claims.judge()


def _alone(function: Any) -> Any:
    (ended,) = farm.run(function, ["installed"], jobs=1, timeout=TIMEOUT)
    if ended.failure:
        raise UnhealthyError(f"the installed TE cannot be looked at: {ended.failure}")
    return ended.result


def _load(mutant: Mutant) -> None:
    subject.replace(mutant.file, mutant.edit.apply(subject.read(mutant.file)))
