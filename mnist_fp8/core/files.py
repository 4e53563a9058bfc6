"""The cache folder, and files that are never seen half-written."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnist_fp8.core.errors import ConfigError, EnvError


def replace_file(path: Path, content: bytes) -> None:
    """Write a file, and the folders that it is in, so that it is never seen half-written.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the project keeps what it can make again: ``$XDG_CACHE_HOME/mnist_fp8``.

    Raises:
        ConfigError: there is no home folder to put it into, or the variable names no absolute path.
    """
    base = environ.get("XDG_CACHE_HOME", "")
    if base and not Path(base).is_absolute():  # runs work in folders of their own, where it would be another one
        raise ConfigError(f"XDG_CACHE_HOME is {base!r}; expected an absolute path, or leave it unset")
    try:
        return Path(base or Path.home() / ".cache") / "mnist_fp8"
    except RuntimeError:  # no HOME, and a user id that the system does not know
        raise ConfigError("this user has no home folder: set HOME, or XDG_CACHE_HOME to an absolute path") from None


def digest_of(value: object) -> str:
    """Digest of what JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def keep(file: Path, document: Mapping[str, Any]) -> None:
    """Keep a result, so that it is never seen half-written.

    Raises:
        EnvError: it cannot be written.
    """
    try:
        replace_file(file, json.dumps(document, indent=1).encode())
    except OSError as error:
        raise EnvError(
            f"the result cannot be kept in {file.parent}: {error.strerror}; make room or set XDG_CACHE_HOME"
        ) from error
