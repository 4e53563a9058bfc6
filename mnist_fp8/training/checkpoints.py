"""What a training run has come to, kept in a folder after each epoch, for the same run to go on from.

``run.json`` has the configuration, the figures of the epochs, and which file beside it has the state: a file of
``flax.serialization``. It is replaced last and at once, so that whatever ends a run leaves an epoch that is whole.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import serialization

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.files import replace_file
from mnist_fp8.core.plain import plain
from mnist_fp8.core.reading import parse_json, read_text
from mnist_fp8.training.config import TrainConfig
from mnist_fp8.training.runs import EpochMetrics

SCHEMA_VERSION = 1
"""Of ``run.json``; raised when a field changes its meaning."""
RUN = "run.json"


class Checkpoint:
    """A folder for one training run.

    Args:
        folder: it need not exist.
        config: of the run. A run may go on for more epochs than it was asked for at first.

    Attributes:
        epochs: figures of those that are kept.

    Raises:
        ConfigError: what is in the folder is of another run, or damaged.
    """

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        self._folder = folder
        self._asked = json.loads(json.dumps(plain(dataclasses.asdict(config)), default=str))
        self.epochs: tuple[EpochMetrics, ...] = ()
        self._state = b""
        if os.path.lexists(folder / RUN):
            self._read()

    def _read(self) -> None:
        file = self._folder / RUN
        try:
            noted = parse_json(read_text(file))
            version, kept, state = noted["schema_version"], dict(noted["config"]), noted["state"]
            self.epochs = tuple(map(_metrics, noted["epochs"]))
            self._state = (self._folder / Path(state["file"]).name).read_bytes()
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise self._damaged(error) from error
        if version != SCHEMA_VERSION:
            raise self._refused(f"is of schema version {version}, and this reads {SCHEMA_VERSION}")
        if hashlib.sha256(self._state).hexdigest() != state["sha256"]:
            raise self._damaged("its state is not what was written")
        self._check(kept)

    def _check(self, kept: Mapping[str, Any]) -> None:
        names = [name for name in {**self._asked, **kept} if name != "epochs"]
        for name in names:
            if kept.get(name) != self._asked.get(name):
                was, asked = (_shown(side.get(name)) for side in (kept, self._asked))
                raise self._refused(f"is of a run with {name.replace('_', ' ')} {was}, and asked for is {asked}")
        if len(self.epochs) > self._asked["epochs"]:
            raise self._refused(f"has {len(self.epochs)} epochs, and asked for are {self._asked['epochs']}")

    def _refused(self, why: str) -> ConfigError:
        return ConfigError(f"checkpoint {self._folder} {why}: name another folder")

    def _damaged(self, why: object) -> ConfigError:
        return ConfigError(f"checkpoint {self._folder} is damaged ({why}): remove it to begin anew")

    def restored(self, first: Any) -> Any:  # noqa: ANN401 - whatever tree is trained
        """The state after the last epoch that is kept, if there is one.

        Args:
            first: the state before the first one.

        Raises:
            ConfigError: what is kept does not fit it.
        """
        kept = serialization.msgpack_restore(self._state)
        if _kinds(kept) != _kinds(serialization.to_state_dict(first)):  # Flax compares neither shapes nor dtypes
            raise self._refused("has a state of another model, or of a Transformer Engine that keeps it otherwise")
        state = serialization.from_state_dict(first, kept)
        return jax.tree.map(lambda old, new: jax.device_put(new, _place(old)), first, state)

    def keep(self, epochs: Sequence[EpochMetrics], state: Any) -> None:  # noqa: ANN401
        """Keep the state after an epoch in place of the one before.

        Raises:
            ConfigError: it cannot be written.
        """
        content = serialization.to_bytes(jax.device_get(state))
        name = f"epoch-{len(epochs)}.msgpack"
        noted = {
            "schema_version": SCHEMA_VERSION,
            "config": self._asked,
            "epochs": [dataclasses.asdict(each) for each in epochs],
            "state": {"file": name, "sha256": hashlib.sha256(content).hexdigest()},
        }
        try:
            replace_file(self._folder / name, content)
            replace_file(self._folder / RUN, json.dumps(noted, indent=2, allow_nan=False).encode())
            for other in self._folder.glob("epoch-*"):
                if other.name != name:
                    other.unlink()
        except OSError as error:
            raise ConfigError(f"checkpoint {self._folder} cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def opened(folder: Path, config: TrainConfig) -> Iterator[Checkpoint]:
    """The checkpoint of a run in a folder, which no other run may use meanwhile.

    Args:
        folder: it need not exist.
        config: of the run.

    Raises:
        ConfigError: as `Checkpoint`; another run has the folder, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        number = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise ConfigError(f"checkpoint {folder} cannot be a folder: {error.strerror}") from error
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it ends with the process, whatever ends that
        except BlockingIOError:
            raise ConfigError(f"checkpoint {folder} is in use by another run: name another folder") from None
        yield Checkpoint(folder, config)
    finally:
        os.close(number)


def _metrics(document: Mapping[str, Any]) -> EpochMetrics:
    """Figures of an epoch, as they are kept."""
    numbers = (float(document[field.name]) for field in dataclasses.fields(EpochMetrics)[1:])
    return EpochMetrics(int(document["epoch"]), *numbers)


def _shown(value: object) -> str:
    return json.dumps(value).strip('"')


def _kinds(tree: Any) -> list[tuple[Any, ...]]:  # noqa: ANN401
    """Path, shape and dtype of each leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(path, jnp.shape(leaf), jnp.result_type(leaf)) for path, leaf in leaves]


def _place(leaf: Any) -> Any:  # noqa: ANN401
    """Where a leaf is, if that is said of it: what a program is compiled for anew."""
    return leaf.sharding if isinstance(leaf, jax.Array) and leaf.committed else None
