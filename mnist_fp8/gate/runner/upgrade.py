"""Two installations, measured and held to the claims."""

import dataclasses
import functools
from collections.abc import Sequence

from mnist_fp8.gate.releases import environments, stacks
from mnist_fp8.gate.releases.environments import Environment
from mnist_fp8.gate.releases.subjects import Subject, SubjectKind
from mnist_fp8.gate.runner import verification
from mnist_fp8.gate.runner.measuring import record, words
from mnist_fp8.gate.runner.steps import Steps, Watcher
from mnist_fp8.record.entries import covers
from mnist_fp8.record.record import Record


@dataclasses.dataclass(frozen=True)
class Side:
    """One of the two installations.

    Attributes:
        subject: Transformer Engine.
        jax: version of JAX asked for; ``None`` is the newest that it works with.
        flax: version of Flax asked for.
    """

    subject: Subject
    jax: str | None = None
    flax: str | None = None


def sides(old: Subject, new: Subject, jax: Sequence[str | None], flax: Sequence[str | None]) -> tuple[Side, Side]:
    """The two installations. Where nobody asks for a JAX, both get the same one if there is one for both.

    Args:
        old: the Transformer Engine in use.
        new: the one to move to.
        jax: versions of JAX, old and new; ``None`` where none is asked for.
        flax: the same of Flax.
    """
    made = [subject.kind is not SubjectKind.INTERPRETER for subject in (old, new)]
    if all(made) and not any(jax):
        jax = [stacks.common_jax(old.version, new.version)] * 2
    return Side(old, jax[0], flax[0]), Side(new, jax[1], flax[1])


def measure_both(
    pair: tuple[Side, Side], *, only: Sequence[str], rerun: bool, watcher: Watcher
) -> tuple[Record, Record]:
    """Measure both sides, and hold them to the claims.

    Args:
        pair: old and new.
        only: keys of what to look at, claims included, always anew; all if there is none.
        rerun: measure and judge again what was measured and judged before.
        watcher: sees how it goes.

    Raises:
        ConfigError: what is asked for contradicts itself.
        EnvError: an environment cannot be made, or failed; run it again to go on.
    """
    claims = _claims(only)
    measured = not only or any(not each.startswith("claims") for each in only)
    steps = Steps(watcher, measured=measured, claims=bool(claims), whole=not only)
    labels = _labels(pair)
    made = [
        steps.run("environment", f"environment of {label}", functools.partial(_prepare, side))
        for label, side in zip(labels, pair, strict=True)
    ]
    records = [_unmeasured(environment) for environment in made]
    for position, environment in enumerate(made) if measured else ():
        # The same one on both sides is measured twice: what differs then is noise, and has to be seen as such.
        again = rerun or (position == 1 and made[0] == made[1])
        measure = functools.partial(record, environment, only=only, rerun=again)
        records[position] = steps.run("measure", f"measuring {labels[position]}", measure)
    judge = functools.partial(
        verification.verify, workers=verification.default_jobs(), rerun=rerun or bool(only), with_facts=False
    )
    for position, environment in enumerate(made) if claims else ():
        judged = steps.run("claims", f"claims on {labels[position]}", functools.partial(judge, environment, claims))
        records[position] = dataclasses.replace(records[position], suite=judged)
    return records[0], records[1]


def _labels(pair: tuple[Side, Side]) -> list[str]:
    """What progress calls the two: by what they differ in."""
    if pair[0].subject != pair[1].subject:
        return [side.subject.label for side in pair]
    asked = [[("JAX", side.jax), ("Flax", side.flax)] for side in pair]
    return [
        ", ".join([side.subject.label, *(f"{name} {version}" for name, version in versions if version)])
        for side, versions in zip(pair, asked, strict=True)
    ]


def _prepare(side: Side) -> Environment:
    return environments.prepare(side.subject, jax=side.jax, flax=side.flax)


def _claims(only: Sequence[str]) -> tuple[str, ...]:
    """The claims that are asked for."""
    known = verification.known_claims()
    return tuple(name for name in known if not only or any(covers(each, f"claims/{name}") for each in only))


def _unmeasured(environment: Environment) -> Record:
    """A record of which only the claims are asked."""
    versions = {"jax": environment.jax, "flax": environment.flax}
    subject = environment.subject
    return Record(subject.label, subject.version, "", versions, "", words(subject), {}, 0.0)
