"""Which JAX and Flax a release of Transformer Engine is judged with."""

import dataclasses
import functools
import platform
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.gate.releases.catalogue import is_version, releases

STACKS_FILE = Path(__file__).with_name("stacks.toml")


@dataclass(frozen=True)
class Stack:
    """Versions that a Transformer Engine is judged with.

    Attributes:
        jax: version of JAX.
        flax: version of Flax; empty is the newest that fits this JAX.
        evidence: why not a newer one.
    """

    jax: str
    flax: str
    evidence: str


@functools.cache
def read_stacks() -> dict[str, Any]:
    """What ``stacks.toml`` says, read once."""
    return tomllib.loads(STACKS_FILE.read_text(encoding="utf-8"))


def stack_for(te_version: str, jax: str | None = None, flax: str | None = None) -> Stack:
    """The newest JAX that works with a Transformer Engine and the running Python.

    Args:
        te_version: of Transformer Engine.
        jax: version that a person wants instead.
        flax: version of Flax that a person wants instead of the one that goes with it.

    Raises:
        ConfigError: none is known to work, or what a person wants is no version.
    """
    for name, wanted, example in (("JAX", jax, "0.10.2"), ("Flax", flax, "0.12.8")):
        if wanted is not None and not is_version(wanted):
            raise ConfigError(f"{name} version is {wanted!r}; expected one such as {example}")
    found = _newest_stack(te_version, stacks_for(te_version), jax)
    return dataclasses.replace(found, flax=flax) if flax else found


def common_jax(one: str, other: str) -> str | None:
    """The newest JAX that is known to work with both of two versions of Transformer Engine: only they differ then."""
    with_other = {stack.jax for stack in stacks_for(other)}
    return next((stack.jax for stack in stacks_for(one) if stack.jax in with_other), None)


def stacks_for(te_version: str) -> list[Stack]:
    """The stacks that are known to work with a Transformer Engine and the running Python, the newest first."""
    return [
        Stack(entry["jax"], entry["flax"], entry["evidence"])
        for entry in read_stacks()["stack"]
        if satisfies(te_version, entry["te"]) and satisfies(platform.python_version(), entry["python"])
    ]


def _newest_stack(te_version: str, stacks: Sequence[Stack], jax: str | None) -> Stack:
    if jax is not None:
        return next((stack for stack in stacks if stack.jax == jax), Stack(jax, "", "asked for"))
    if not stacks:
        raise ConfigError(
            f"no JAX is known to work with Transformer Engine {te_version} on Python {platform.python_version()};"
            f" known are {releases()[0]} to {releases()[-1]}; name a JAX version to try one"
        )
    return stacks[0]


def satisfies(version: str, specifier: str) -> bool:
    """Whether a version, be it a pre-release, lies in a specifier."""
    return SpecifierSet(specifier).contains(version, prereleases=True)
