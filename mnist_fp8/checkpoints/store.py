"""Where a checkpoint is kept: a folder of Orbax or a file of Flax, told apart by looking."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from mnist_fp8.checkpoints import flax_file, metadata, orbax_folder, tree
from mnist_fp8.checkpoints.tree import Array, Leaves, Plan
from mnist_fp8.core.errors import ConfigError


class Store(Protocol):
    """A checkpoint as it is kept. Nothing is read before it is needed, and no more than a leaf at a time."""

    @property
    def leaves(self) -> Leaves:
        """What is in it."""

    def read(self, path: tree.Path) -> Array:
        """The array of a leaf."""

    def write(self, new: Path, plan: Plan) -> None:
        """Write a new checkpoint made of this one."""

    def report_of(self, new: Path) -> Path:
        """Where a report on a new checkpoint goes."""


def opened(checkpoint: Path) -> Store:
    """A checkpoint, to be read.

    Raises:
        ConfigError: it is none.
    """
    try:
        if checkpoint.is_dir():
            return orbax_folder.OrbaxFolder(checkpoint)
        return flax_file.FlaxFile(checkpoint)
    except OSError as error:
        raise ConfigError(f"checkpoint {checkpoint} cannot be read: {error.strerror or error}") from error


def check_metadata(store: Store) -> list[str]:
    """Refuse FP8 metadata that no run leaves; see `metadata.check_numbers`.

    Raises:
        ConfigError: there are some, or they cannot be read.
    """
    try:
        return metadata.check_numbers(store.leaves, store.read)
    except OSError as error:
        raise ConfigError(f"the checkpoint cannot be read: {error.strerror or error}") from error


def check_outside(new: Path, checkpoint: Path) -> None:
    """Refuse to write into the old checkpoint.

    Raises:
        ConfigError: the place is in it.
    """
    if checkpoint.resolve() in new.resolve().parents:
        raise ConfigError(f"{new} is inside of {checkpoint}, which is only read: name a place outside")


def check_new(new: Path) -> None:
    """Refuse to write a checkpoint over anything.

    Raises:
        ConfigError: there is something.
    """
    if os.path.lexists(new):
        raise ConfigError(f"{new} exists: name a new place, a checkpoint is never written over another")


def migrate(store: Store, new: Path, plan: Plan, report: bytes) -> Path:
    """Write a new checkpoint and a report on it; either is there as a whole or not at all.

    Args:
        store: the old one.
        new: where to.
        plan: how it is made.
        report: JSON that is put into it, or beside it.

    Returns:
        The file of the report.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        with _partial(new) as folder:
            made = folder / new.name
            store.write(made, plan)
            noted = store.report_of(made)
            noted.write_bytes(report)
            _reach_the_disk(folder)
            check_new(new)
            if noted.parent == folder:
                noted.replace(store.report_of(new))
            made.rename(new)  # last: where the checkpoint is, everything is
    except OSError as error:
        raise ConfigError(f"{new} cannot be written: {error.strerror or error}") from error
    return store.report_of(new)


@contextlib.contextmanager
def _partial(new: Path) -> Iterator[Path]:
    """An empty folder beside a new checkpoint, gone at the end; what an interrupted run left there goes at once."""
    folder = new.with_name(f".{new.name}.partial")
    folder.mkdir(parents=True, exist_ok=True)
    held = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it ends with the process, whatever ends that
        except BlockingIOError:
            raise ConfigError(f"{new} is being written by another run: wait for it, or name another place") from None
        try:
            for left in folder.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(held)


def _reach_the_disk(folder: Path) -> None:
    """Have all that is in a folder written to the disk: a machine may lose power after a rename."""
    for file in filter(Path.is_file, folder.rglob("*")):
        with file.open("rb") as opened_file:
            os.fsync(opened_file.fileno())
