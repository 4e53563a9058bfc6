"""Measure a Transformer Engine in its environment, and do for two of them what a comparison needs; results are kept."""

import contextlib
import dataclasses
import functools
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mnist_fp8 import api, envs, verify
from mnist_fp8.config import ConfigError, cache_dir
from mnist_fp8.envs import Environment, Subject
from mnist_fp8.measurements import Failure, Record, Value, covers, entries_from_json

TIMEOUT_S = 10 * 60.0
"""For one measurement. Two cores take a minute and a half."""
_SEEN_S = {"environment": 15.0, "measure": 80.0, "claims": 120.0}
"""What a step takes on two cores; the first estimate, until this machine's own times are known."""

T = TypeVar("T")


# --- one -----------------------------------------------------------------------------------------------------------


def record(environment: Environment, *, only: Sequence[str] = (), rerun: bool = False) -> Record:
    """Measure a Transformer Engine, or take what was measured before by the same code in the same environment.

    Args:
        environment: where it is installed.
        only: keys of what to measure, or patterns; all if there is none. What was measured in part is not kept.
        rerun: measure again what was measured before.

    Raises:
        EnvError: the environment failed, not Transformer Engine; nothing is stored.
    """
    file = cache_dir() / "records" / f"{verify.result_key(environment, envs.measuring_digest())}.json"
    stored = None if rerun or only else verify.load(file, Record.from_json)
    if stored is None:
        stored = _measured(environment, only, file.with_suffix(".txt"))
        if not only:
            verify.store(file, stored.to_json())
    return dataclasses.replace(stored, te=environment.subject.label, arguments=_words(environment.subject))


def _words(subject: Subject) -> tuple[str, ...]:
    """What names it on a command line."""
    return (subject.version if subject.kind is envs.SubjectKind.RELEASE else subject.where,)


def _measured(environment: Environment, only: Sequence[str], log: Path) -> Record:
    begin = time.monotonic()
    command = [str(environment.python), "-m", "mnist_fp8.measure", *only]
    ended, printed = verify.run(environment, command, envs.stage(), TIMEOUT_S, log)
    document: Mapping[str, Any] = {}
    with contextlib.suppress(ValueError):
        document = json.loads(ended.out)
    problem = "" if document else _problem(ended, printed)
    entries = entries_from_json(document.get("entries", {}))
    if not problem:
        entries |= _api(environment, only)
    return Record(
        te=environment.subject.label,
        version=environment.subject.version,
        run=document.get("run", ""),
        environment=document.get("environment", {"jax": environment.jax, "flax": environment.flax}),
        settings=envs.measuring_digest(),
        arguments=(),
        entries=entries,
        seconds=time.monotonic() - begin,
        problem=problem,
    )


def _problem(ended: envs.Ended, printed: str) -> str:
    """Why nothing was measured: Transformer Engine's words, where it was its fault."""
    said = verify.problem_of(ended, printed, TIMEOUT_S, started=False)
    last, start = verify.last_line(ended.err), "nothing can be measured: "
    return last.removeprefix(start) if ended.code == 1 and last.startswith(start) else said


def _api(environment: Environment, only: Sequence[str]) -> dict[str, Value]:
    """The public names, from the source; no process is needed for that."""
    if only and not any(each.partition("/")[0].partition("*")[0] in ("", "api") for each in only):
        return {}
    try:
        names = api.public_api(environment.package)
    except ConfigError as error:
        return {"api/source": Failure(str(error))}
    entries: dict[str, Value] = {f"api/{name}": signature for name, signature in names.items()}
    return {key: value for key, value in entries.items() if not only or any(covers(each, key) for each in only)}


# --- two -----------------------------------------------------------------------------------------------------------


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


class Watcher(Protocol):
    """Sees how it goes."""

    def started(self, what: str, left: float) -> None:
        """A step begins; the seconds left are an estimate for it and all that follow."""

    def finished(self, what: str, seconds: float) -> None:
        """A step has ended."""


def sides(old: Subject, new: Subject, jax: Sequence[str | None], flax: Sequence[str | None]) -> tuple[Side, Side]:
    """The two installations. Where nobody asks for a JAX, both get the same one if there is one for both.

    Args:
        old: the Transformer Engine in use.
        new: the one to move to.
        jax: versions of JAX, old and new; ``None`` where none is asked for.
        flax: the same of Flax.
    """
    made = [subject.kind is not envs.SubjectKind.INTERPRETER for subject in (old, new)]
    if all(made) and not any(jax):
        jax = [envs.common_jax(old.version, new.version)] * 2
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
    steps = _Steps(watcher, measured=measured, claims=bool(claims), whole=not only)
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
    judge = functools.partial(verify.verify, workers=verify.default_jobs(), rerun=rerun or bool(only), with_facts=False)
    for position, environment in enumerate(made) if claims else ():
        verification = steps.run(
            "claims", f"claims on {labels[position]}", functools.partial(judge, environment, claims)
        )
        records[position] = dataclasses.replace(records[position], claims=verification)
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
    return envs.prepare(side.subject, jax=side.jax, flax=side.flax)


def _claims(only: Sequence[str]) -> tuple[str, ...]:
    """The claims that are asked for."""
    known = verify.known_claims()
    return tuple(name for name in known if not only or any(covers(each, f"claims/{name}") for each in only))


def _unmeasured(environment: Environment) -> Record:
    """A record of which only the claims are asked."""
    versions = {"jax": environment.jax, "flax": environment.flax}
    subject = environment.subject
    return Record(subject.label, subject.version, "", versions, "", _words(subject), {}, 0.0)


# --- how long it takes -----------------------------------------------------------------------------------------------


class _Steps:
    """Runs steps, tells the watcher, and remembers how long each kind takes if it is not taken from the cache."""

    def __init__(self, watcher: Watcher, *, measured: bool, claims: bool, whole: bool) -> None:
        self._watcher = watcher
        self._whole = whole
        self._left = {"environment": 2, "measure": 2 * measured, "claims": 2 * claims}
        self._file = cache_dir() / "durations.json"
        self._seconds = _SEEN_S | self._remembered()

    def run(self, kind: str, what: str, work: Callable[[], T]) -> T:
        """Run one step."""
        left = sum(self._seconds[each] * count for each, count in self._left.items())
        self._watcher.started(what, left)
        begin = time.monotonic()
        result = work()
        seconds = time.monotonic() - begin
        self._left[kind] -= 1
        if self._whole and seconds > 2:  # noqa: PLR2004 - less is a result that was kept
            self._seconds[kind] = seconds
            self._remember()
        self._watcher.finished(what, seconds)
        return result

    def _remembered(self) -> dict[str, float]:
        try:
            found = json.loads(self._file.read_text())
            return {kind: float(found[kind]) for kind in _SEEN_S if kind in found}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def _remember(self) -> None:
        with contextlib.suppress(OSError):  # an estimate is not worth an error
            self._file.parent.mkdir(parents=True, exist_ok=True)
            partial = self._file.with_suffix(f".partial-{os.getpid()}")
            partial.write_text(json.dumps(self._seconds))
            partial.replace(self._file)
