"""Where records are kept, under which name, and what a record is before anything is asked of an installation."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from mnist_fp8.core.errors import RecordError
from mnist_fp8.core.files import cache_dir, keep
from mnist_fp8.gate.releases import staging
from mnist_fp8.gate.releases.environments import Environment
from mnist_fp8.record.record import Record, read_record

PREFIXES = ("NVTE_", "XLA_", "JAX_", "MNIST_FP8_", "CUDA_VISIBLE_DEVICES")
"""Environment variables that change what a run sees."""


def record_file(environment: Environment, *parts: str) -> Path:
    """The file of a kept record: its name is a digest of the environment, what changes a run, and some words."""
    variables = {name: value for name, value in os.environ.items() if name.startswith(PREFIXES)}
    # What lies in the stage is named by the parts, as far as the result depends on it.
    own = {name: value.replace(str(staging.stage()), "") for name, value in environment.variables.items()}
    whole = (environment.digest, parts, sorted((variables | own).items()))
    name = hashlib.sha256(repr(whole).encode()).hexdigest()[:16]
    return cache_dir() / "records" / f"{name}.json"


def kept(file: Path) -> Record | None:
    """The record in a file; nothing if there is none, it is of another version, or was damaged."""
    with contextlib.suppress(RecordError):
        return read_record(file)
    return None


def kept_part(
    environment: Environment,
    digest: str,
    asked: Sequence[str],
    everything: Sequence[str],
    *,
    cut: Callable[[Record], Record | None],
    work: Callable[[Path], Record],
    rerun: bool,
) -> Record:
    """What is kept, be it as a part of the whole; else what some work comes to, which is kept.

    Args:
        environment: where the installation is.
        digest: of the code on which the result rests.
        asked: names of what is asked for.
        everything: names of all that could be asked for.
        cut: takes what is asked for out of the whole; ``None`` if it is not in it.
        work: does it; it is given the file for the log.
        rerun: do again what was done before.

    Raises:
        EnvError: it cannot be kept.
    """
    file = record_file(environment, digest, *sorted(asked))
    found = None
    if not rerun:
        whole = kept(record_file(environment, digest, *sorted(everything)))
        found = (whole and cut(whole)) or kept(file)
    if found is None:
        found = work(file.with_suffix(".txt"))
        keep(file, found.to_json())
    return found


def unexamined(environment: Environment) -> Record:
    """The record of an installation of which nothing is known yet."""
    versions = {"jax": environment.jax, "flax": environment.flax}
    return Record(environment.subject.label, environment.subject.version, "", versions, "", (), {}, 0.0)
