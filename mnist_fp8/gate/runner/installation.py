"""The record of an installation, brought up to what is asked: from what is kept, or anew."""

import dataclasses
from collections.abc import Collection, Sequence

from mnist_fp8.core import capability, model
from mnist_fp8.core.capability import Capability
from mnist_fp8.core.files import digest_of
from mnist_fp8.core.subjects import VARIABLE
from mnist_fp8.gate.releases import environments, staging
from mnist_fp8.gate.releases.editions import Edition, EditionKind
from mnist_fp8.gate.releases.environments import Environment
from mnist_fp8.gate.runner import measuring, package, suite
from mnist_fp8.gate.runner.measuring import EVERYTHING
from mnist_fp8.gate.runner.model import Model
from mnist_fp8.gate.runner.names import asks_for_names, with_names
from mnist_fp8.gate.runner.store import kept_part, unexamined
from mnist_fp8.record.claims import joined
from mnist_fp8.record.entries import Failure, Value
from mnist_fp8.record.keys import LAYERS, covered
from mnist_fp8.record.record import Record, may_be_under


@dataclasses.dataclass(frozen=True)
class Installation:
    """A Transformer Engine with what it runs on.

    Attributes:
        edition: Transformer Engine.
        jax: version of JAX asked for; ``None`` is the newest that it works with.
        flax: version of Flax asked for; ``None`` is the one that goes with that JAX.
        layers: the subjects that are judged; all if there is none.
        model: a user's, which is measured and held to the claims on models; ``None`` if there is none.
        capability: the compute capability that a host run pretends; ``None`` leaves it to the recipe.
    """

    edition: Edition
    jax: str | None = None
    flax: str | None = None
    layers: tuple[str, ...] = ()
    model: Model | None = None
    capability: Capability | None = None

    def prepare(self) -> Environment:
        """Make its environment, or find it in the cache; see `environments.prepare`."""
        packages, imported = (self.model.packages, self.model.imported) if self.model else ((), ())
        environment = environments.prepare(
            self.edition, jax=self.jax, flax=self.flax, packages=packages, imported=imported
        )
        layers = {VARIABLE: ",".join(self.layers)} if self.layers else {}
        own = self.model.variables if self.model else {}
        pretended = {capability.VARIABLE: str(self.capability)} if self.capability else {}
        return dataclasses.replace(environment, variables={**environment.variables, **layers, **own, **pretended})


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
    edition = environment.edition
    return dataclasses.replace(record, te=edition.label, arguments=words(edition))


def _with_package(measured: Record, environment: Environment, keys: Sequence[str]) -> dict[str, Value]:
    """What was measured, and what the package says of itself. That is read anew each time: no code depends on it."""
    said = {} if measured.problem else package.metadata_entries(environment.package, measured.environment)
    return {**measured.entries, **covered(said, keys)}


def words(edition: Edition) -> tuple[str, ...]:
    """What names it on a command line."""
    return (edition.version if edition.kind is EditionKind.RELEASE else edition.where,)


def _measured(environment: Environment, keys: Sequence[str], *, rerun: bool) -> Record:
    """Measure; a user's model apart, so that an edit of it leaves all else valid, and its end is not that of all."""
    name = environment.variables.get(model.VARIABLE, "")
    own = f"{LAYERS}/{name}"
    others = tuple(key for key in keys if not name or not key.startswith(own))
    record = _measured_part(_without_model(environment), others, rerun=rerun) if others else None
    if name and may_be_under((own,), keys):
        part = _measured_part(environment, (own,), rerun=rerun)
        record = _joined(record, part, own) if record else part
    assert record is not None  # noqa: S101 - there is a key
    entries = covered(record.entries, keys)
    return dataclasses.replace(record, entries=entries, only=() if tuple(keys) == EVERYTHING else tuple(keys))


def _joined(record: Record, part: Record, key: str) -> Record:
    """A record with the entries of a user's model, or why there are none."""
    failed = {f"{key}/all": Failure("Run", part.problem)} if part.problem else {}
    said = {name: part.environment[name] for name in ("model", *model.VARIABLES) if name in part.environment}
    entries = {**record.entries, **part.entries, **failed}
    return dataclasses.replace(record, entries=entries, environment={**record.environment, **said})


def _without_model(environment: Environment) -> Environment:
    own = {name: value for name, value in environment.variables.items() if name not in model.VARIABLES}
    return dataclasses.replace(environment, variables=own)


def _measured_part(environment: Environment, keys: Sequence[str], *, rerun: bool) -> Record:
    def cut(whole: Record) -> Record:
        return dataclasses.replace(whole, entries=covered(whole.entries, keys))

    return kept_part(
        environment,
        staging.measuring_digest(),
        keys,
        EVERYTHING,
        cut=cut,
        work=lambda log: measuring.measure(environment, keys, log),
        rerun=rerun,
    )


def _judged(
    environment: Environment, claims: Sequence[str], passed: Collection[str], workers: int, *, rerun: bool
) -> Record:
    """Hold to claims; those on models apart where there is a user's, as in `_measured`."""
    if not environment.variables.get(model.VARIABLE):
        return _judged_part(environment, claims, passed, workers, rerun=rerun)
    own = [name for name in claims if name.startswith(model.CLAIMS)]
    others = [name for name in claims if name not in own]
    parts = [(_without_model(environment), others), (environment, own)]
    records = [_judged_part(where, names, passed, workers, rerun=rerun) for where, names in parts if names]
    suites = [record.suite for record in records if record.suite]
    return dataclasses.replace(records[-1], suite=joined(suites, claims))


def _judged_part(
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
