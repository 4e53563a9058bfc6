"""The record of an installation, brought up to what is asked: from what is kept, or anew."""

import dataclasses
from collections.abc import Collection, Sequence

from mnist_fp8.core.files import digest_of
from mnist_fp8.core.subjects import VARIABLE
from mnist_fp8.gate.releases import environments, staging
from mnist_fp8.gate.releases.environments import Environment
from mnist_fp8.gate.releases.subjects import Subject, SubjectKind
from mnist_fp8.gate.runner import measuring, package, suite
from mnist_fp8.gate.runner.measuring import EVERYTHING
from mnist_fp8.gate.runner.names import asks_for_names, with_names
from mnist_fp8.gate.runner.store import kept_part, unexamined
from mnist_fp8.record.entries import Value, covered
from mnist_fp8.record.record import Record


@dataclasses.dataclass(frozen=True)
class Installation:
    """A Transformer Engine with what it runs on.

    Attributes:
        subject: Transformer Engine.
        jax: version of JAX asked for; ``None`` is the newest that it works with.
        flax: version of Flax asked for; ``None`` is the one that goes with that JAX.
        layers: the subjects that are judged; all if there is none.
    """

    subject: Subject
    jax: str | None = None
    flax: str | None = None
    layers: tuple[str, ...] = ()

    def prepare(self) -> Environment:
        """Make its environment, or find it in the cache; see `environments.prepare`."""
        environment = environments.prepare(self.subject, jax=self.jax, flax=self.flax)
        asked = {VARIABLE: ",".join(self.layers)} if self.layers else {}
        return dataclasses.replace(environment, variables={**environment.variables, **asked})


def examine(
    environment: Environment,
    known: Record | None = None,
    *,
    entries: Sequence[str] = (),
    claims: Sequence[str] = (),
    passed: Collection[str] = (),
    workers: int = 1,
    rerun: bool = False,
) -> Record:
    """Measure an installation and hold it to claims, as far as that was not done before.

    Entries are kept for the code that measures, names for the code that reads them, and claims for the whole suite: a
    claim that is edited leaves the entries valid.

    Args:
        environment: where it is installed.
        known: a record of it that is to be completed.
        entries: keys of what to measure, or patterns; `EVERYTHING` is all.
        claims: names of the claims.
        passed: names of tests that need not run; see `suite.judge`. They ran where a whole run is kept.
        workers: processes that run tests at the same time.
        rerun: do again what was done before.

    Raises:
        EnvError: the environment failed, not Transformer Engine; nothing is kept of that part.
    """
    record = known or unexamined(environment)
    if entries:
        measured = _measured(environment, entries, rerun=rerun)
        if asks_for_names(entries):
            measured = with_names(measured, environment, entries, rerun=rerun)
        record = dataclasses.replace(
            measured, suite=record.suite, entries=_with_package(measured, environment, entries)
        )
    if claims:
        judged = _judged(environment, claims, passed, workers, rerun=rerun)
        record = dataclasses.replace(record if record.settings else judged, suite=judged.suite)
    subject = environment.subject
    return dataclasses.replace(record, te=subject.label, arguments=words(subject))


def _with_package(measured: Record, environment: Environment, keys: Sequence[str]) -> dict[str, Value]:
    """What was measured, and what the package says of itself. That is read anew each time: no code depends on it."""
    said = {} if measured.problem else package.metadata_entries(environment.package, measured.environment)
    return {**measured.entries, **covered(said, keys)}


def words(subject: Subject) -> tuple[str, ...]:
    """What names it on a command line."""
    return (subject.version if subject.kind is SubjectKind.RELEASE else subject.where,)


def _measured(environment: Environment, keys: Sequence[str], *, rerun: bool) -> Record:
    def cut(whole: Record) -> Record:
        return dataclasses.replace(whole, entries=covered(whole.entries, keys))

    record = kept_part(
        environment,
        staging.measuring_digest(),
        keys,
        EVERYTHING,
        cut=cut,
        work=lambda log: measuring.measure(environment, keys, log),
        rerun=rerun,
    )
    return dataclasses.replace(record, only=() if tuple(keys) == EVERYTHING else tuple(keys))


def _judged(
    environment: Environment, claims: Sequence[str], passed: Collection[str], workers: int, *, rerun: bool
) -> Record:
    stage = staging.stage()

    def cut(whole: Record) -> Record | None:
        """A run that did not come to its end says nothing of claims that are run alone."""
        if whole.suite is None or whole.suite.problem:
            return None
        return dataclasses.replace(whole, suite=whole.suite.only(claims))

    return kept_part(
        environment,
        stage.name,
        (*claims, *([digest_of(sorted(passed))] if passed else [])),
        suite.known_claims(),
        cut=cut,
        work=lambda log: suite.judge(environment, stage, claims, passed=passed, workers=workers, log=log),
        rerun=rerun,
    )
