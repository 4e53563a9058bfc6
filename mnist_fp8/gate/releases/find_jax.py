"""Find the newest JAX that a Transformer Engine works with: ``mnist-fp8 stacks --search 2.19.0`` tries releases."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from packaging.version import Version

from mnist_fp8.core.errors import ConfigError, EnvError
from mnist_fp8.gate.releases import catalogue, editions, environments, staging, uv
from mnist_fp8.gate.releases.catalogue import DISTRIBUTION
from mnist_fp8.gate.releases.editions import Edition, EditionKind
from mnist_fp8.gate.releases.processes import Ended

_OLDEST_JAX = Version("0.4.31")
"""JAX when Transformer Engine 1.10, the oldest known, was released."""
_SMOKE = ("python", "-c", "from mnist_fp8.te import smoke; smoke.fp8_step()")
_SMOKE_TIMEOUT_S = 300


@dataclass(frozen=True)
class Attempt:
    """A JAX that was tried.

    Attributes:
        jax: its version.
        flax: version of Flax that came with it; ``-`` where there is none.
        error: what failed, in one line; empty if Transformer Engine works.
    """

    jax: str
    flax: str
    error: str


def main(te: str) -> int:
    """Try JAX releases with a Transformer Engine until one works, and print each; the exit code is 1 if none does.

    Raises:
        ConfigError: it is no Transformer Engine that an environment can be made for.
        EnvError: the list of JAX releases cannot be had.
    """
    edition = editions.parse_edition(te)
    if edition.kind is EditionKind.INTERPRETER:
        raise ConfigError(f"{edition.label} has its own JAX; a search needs a release, a wheel or a folder")
    if edition.kind is EditionKind.RELEASE and edition.version not in catalogue.releases():
        editions.newest_release(f"{DISTRIBUTION}=={edition.version}")  # else each JAX would be blamed for it
    print(f"Transformer Engine {edition.label}\n{'JAX':10} {'Flax':10} result")
    for jax in candidates():
        attempt = try_jax(edition, jax)
        print(f"{attempt.jax:10} {attempt.flax:10} {attempt.error or 'works'}", flush=True)
        if not attempt.error:
            return 0
    return 1


def candidates() -> Iterator[str]:
    """JAX releases for the running Python, the newest first: the last patch of each minor, and each patch of 0.4."""
    version = _newest("jax")
    while version and Version(version) >= _OLDEST_JAX:
        yield version
        version = _newest(f"jax<{_bound_below(version)}")


def _bound_below(version: str) -> str:
    """Below what the next candidate is. In 0.4 each patch was a release as a minor is today."""
    major, minor, *_ = Version(version).release
    return version if (major, minor) == (0, 4) else f"{major}.{minor}"


def _newest(requirement: str) -> str:
    """The newest JAX that fits; empty if none does."""
    printed = uv.resolve([requirement], "--no-deps", what="the list of JAX releases")
    return printed.strip().removeprefix("jax==")


def try_jax(edition: Edition, jax: str) -> Attempt:
    """See whether a Transformer Engine takes one step of training in FP8 with a JAX."""
    try:
        environment = environments.prepare(edition, jax=jax)
    except EnvError as error:
        return Attempt(jax, "-", str(error))
    ended = environment.run(_SMOKE, cwd=staging.stage(), timeout=_SMOKE_TIMEOUT_S)
    return Attempt(jax, environment.flax, _what_failed(ended))


def _what_failed(ended: Ended) -> str:
    if ended.timed_out:
        return f"did not end within {_SMOKE_TIMEOUT_S} s"
    if not ended.code:
        return ""
    # The line that names the error; what follows it goes on with its text.
    lines = ended.err.split("\n")
    named = [line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)] or lines
    return re.sub(r"^(\w+\.)+(?=\w+: )", "", named[-1]) or f"ended with exit code {ended.code}"
