"""Two installations, measured and held to the claims."""

import functools
from collections.abc import Sequence

from mnist_fp8.core.capability import Capability
from mnist_fp8.gate.releases import stacks
from mnist_fp8.gate.releases.editions import Edition, EditionKind
from mnist_fp8.gate.releases.environments import Environment
from mnist_fp8.gate.runner import checkpoints, package, suite
from mnist_fp8.gate.runner.at_once import all_of
from mnist_fp8.gate.runner.installation import Installation, examine
from mnist_fp8.gate.runner.measuring import EVERYTHING
from mnist_fp8.gate.runner.model import Model
from mnist_fp8.gate.runner.steps import Steps, Watcher
from mnist_fp8.record.checkpoints import CHECKPOINTS
from mnist_fp8.record.claims import Outcome
from mnist_fp8.record.keys import RESOLVER, covers
from mnist_fp8.record.record import Record, may_be_under


def sides(
    old: Edition,
    new: Edition,
    jax: Sequence[str | None],
    flax: Sequence[str | None],
    layers: tuple[str, ...] = (),
    model: Model | None = None,
    capability: Capability | None = None,
) -> tuple[Installation, Installation]:
    """The two installations. Where nobody asks for a JAX, both get the same one if there is one for both.

    Args:
        old: the Transformer Engine in use.
        new: the one to move to.
        jax: versions of JAX, old and new; ``None`` where none is asked for.
        flax: the same of Flax.
        layers: the subjects that are judged; all if there is none.
        model: a user's, which is measured and held to the claims on models; ``None`` if there is none.
        capability: the compute capability that host runs pretend; ``None`` leaves it to the recipe.
    """
    made = [edition.kind is not EditionKind.INTERPRETER for edition in (old, new)]
    if all(made) and not any(jax):
        jax = [stacks.common_jax(old.version, new.version)] * 2
    asked = layers, model, capability
    return Installation(old, jax[0], flax[0], *asked), Installation(new, jax[1], flax[1], *asked)


def measure_both(
    pair: tuple[Installation, Installation], *, only: Sequence[str], rerun: bool, watcher: Watcher
) -> tuple[Record, Record]:
    """Measure both sides, and hold them to the claims.

    A test that the new side passes cannot speak against the upgrade. So the old side runs the others, and those that
    have to fail there, unless all of its results are kept.

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
    making = [
        functools.partial(steps.run, "environment", f"environment of {label}", side.prepare)
        for label, side in zip(labels, pair, strict=True)
    ]
    made = all_of(making, 1 if pair[0] == pair[1] else 2)
    records = [examine(environment) for environment in made]
    again = rerun or bool(only)
    if measured:
        records = _measured(made, only or EVERYTHING, steps, labels, rerun=again)
    if measured and any(covers(each, RESOLVER) for each in only or EVERYTHING):
        records = list(package.with_answers(made, records))
    if measured and may_be_under((CHECKPOINTS,), only or EVERYTHING):
        restore = functools.partial(checkpoints.with_restored, made, records, only or EVERYTHING, rerun=again)
        records = list(steps.run("checkpoints", f"checkpoints of {labels[0]} under {labels[1]}", restore))
    if claims:
        judge = functools.partial(examine, claims=claims, workers=suite.default_jobs(), rerun=again)
        records[1] = steps.run("claims", f"claims on {labels[1]}", lambda: judge(made[1], records[1]))
        passed = _passed(records[1])
        records[0] = steps.run("rest", f"claims on {labels[0]}", lambda: judge(made[0], records[0], passed=passed))
    return records[0], records[1]


def _measured(
    made: Sequence[Environment], keys: Sequence[str], steps: Steps, labels: Sequence[str], *, rerun: bool
) -> list[Record]:
    """Measure both sides: at the same time, unless they share a GPU or are the same.

    The same one on both sides is measured twice: what differs then is noise, and has to be seen as such.
    """
    same = made[0] == made[1]
    may_share_a_gpu = any(each.edition.kind is EditionKind.INTERPRETER for each in made)

    def measure(position: int) -> Record:
        again = rerun or (same and position == 1)
        work = functools.partial(examine, made[position], entries=keys, rerun=again)
        return steps.run("measure", f"measuring {labels[position]}", work)

    jobs = 1 if same or may_share_a_gpu else min(suite.default_jobs(), 2)
    return all_of([functools.partial(measure, position) for position in range(2)], jobs)


def _passed(record: Record) -> tuple[str, ...]:
    """The names of the tests that an installation passes; none where its run says that something is wrong with it."""
    if record.suite is None or record.suite.problem:
        return ()
    return tuple(test.name for claim in record.suite.claims for test in claim.of(Outcome.PASSED))


def _labels(pair: tuple[Installation, Installation]) -> list[str]:
    """What progress calls the two: by what they differ in."""
    if pair[0].edition != pair[1].edition:
        return [side.edition.label for side in pair]
    asked = [[("JAX", side.jax), ("Flax", side.flax)] for side in pair]
    return [
        ", ".join([side.edition.label, *(f"{name} {version}" for name, version in versions if version)])
        for side, versions in zip(pair, asked, strict=True)
    ]


def _claims(only: Sequence[str]) -> tuple[str, ...]:
    """The claims that are asked for."""
    known = suite.known_claims()
    return tuple(name for name in known if not only or any(covers(each, f"claims/{name}") for each in only))
