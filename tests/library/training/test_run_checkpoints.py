"""A run that goes on from a checkpoint is the run that was not interrupted; what does not belong to it is refused."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.modes import Precision, RecipeConfig
from mnist_fp8.training import checkpoints, runs
from mnist_fp8.training.checkpoints import Checkpoint, opened
from mnist_fp8.training.config import TrainConfig
from mnist_fp8.training.runs import EpochMetrics, TrainResult, Watcher, train_and_evaluate

CONFIG = TrainConfig(
    precision=Precision.TE_FP8,
    recipe=RecipeConfig(amax_history_len=4),
    batch_size=16,
    test_batch_size=16,
    epochs=3,
    train_size=40,
    test_size=32,
    pooling=4,
)
STATE = {"params": {"kernel": np.arange(4, dtype=np.float32)}, "step": np.int32(7)}


def metrics(epoch: int) -> EpochMetrics:
    return EpochMetrics(epoch, 2.0, 0.5, 1.5, 0.75, 1.25)


def asked(**options: Any) -> TrainConfig:
    return dataclasses.replace(CONFIG, **options)


def kept(folder: Path, epochs: int = 2) -> Path:
    """A checkpoint after some epochs."""
    with opened(folder, CONFIG) as checkpoint:
        for number in range(1, epochs + 1):
            checkpoint.keep(list(map(metrics, range(1, number + 1))), {**STATE, "step": jnp.int32(number)})
    return folder


# --- a run -----------------------------------------------------------------------------------------------------------


class Notebook(Watcher):
    """Writes down which epochs it was told of."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def on_resumed(self, epochs: Any) -> None:
        self.told.append([each.epoch for each in epochs])

    def on_epoch(self, metrics: EpochMetrics) -> None:
        self.told.append(metrics.epoch)


@pytest.fixture(scope="module")
def whole() -> TrainResult:
    """A run that nothing interrupts."""
    return train_and_evaluate(CONFIG)


def numbers(result: TrainResult) -> list[Any]:
    """All that the training came to, but for its time."""
    figures = [dataclasses.replace(each, seconds=0.0) for each in result.epochs]
    return [figures, *(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves((result.state, result.metadata)))]


def run(folder: Path, **options: Any) -> tuple[TrainResult, list[Any]]:
    notebook = Notebook()
    with opened(folder, asked(**options)) as checkpoint:
        return train_and_evaluate(asked(**options), notebook, checkpoint), notebook.told


def test_run_that_goes_on_is_the_one_that_was_not_interrupted(whole: TrainResult, tmp_path: Path) -> None:
    first, told = run(tmp_path / "run", epochs=1)
    assert told == [1]
    assert numbers(first) != numbers(whole), "Control"
    again, told = run(tmp_path / "run")
    assert told == [[1], 2, 3]
    assert numbers(again) == numbers(whole)
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == ["epoch-3.msgpack", "run.json"]
    done, told = run(tmp_path / "run")
    assert told == [[1, 2, 3]]
    assert numbers(done) == numbers(whole)
    assert done.status == "complete"


def test_run_that_ends_in_an_epoch_loses_that_epoch_alone(
    whole: TrainResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is killed: while it trains, while it writes the state, or before that counts."""
    killed = [0]
    for place, module, name in (
        ("training", runs, "train_epoch"),
        ("state", serialization, "to_bytes"),
        ("run", checkpoints, "replace_file"),
    ):
        folder = tmp_path / place
        run(folder, epochs=1)

        def kill(*arguments: Any, place: str = place) -> Any:
            if place == "run":
                arguments[0].write_bytes(arguments[1][:100])  # half-written, in the worst case
            killed[0] += 1
            raise SystemExit

        with monkeypatch.context() as patched:
            patched.setattr(module, name, kill)
            with pytest.raises(SystemExit):
                run(folder)
        assert numbers(run(folder)[0]) == numbers(whole)
    assert killed == [3]


def test_metadata_of_the_checkpoint_count(whole: TrainResult, tmp_path: Path) -> None:
    """A control: a run that goes on with other FP8 metadata is another one."""
    run(tmp_path, epochs=2)
    original = Checkpoint.restored

    class Forgetful(Checkpoint):
        def restored(self, first: Any) -> Any:
            return original(self, first)[0], first[1]

    forgetful = Forgetful(tmp_path, CONFIG)
    assert numbers(train_and_evaluate(CONFIG, None, forgetful)) != numbers(whole)


# --- a folder --------------------------------------------------------------------------------------------------------


def test_what_is_kept_is_given_back(tmp_path: Path) -> None:
    with opened(kept(tmp_path / "new" / "run"), CONFIG) as checkpoint:
        assert checkpoint.epochs == (metrics(1), metrics(2))
        restored = checkpoint.restored(jax.tree.map(jnp.zeros_like, STATE))
    assert jax.tree.map(np.asarray, restored)["params"]["kernel"].tolist() == [0, 1, 2, 3]
    assert restored["step"] == 2
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(restored))


def test_state_is_a_file_of_flax(tmp_path: Path) -> None:
    assert serialization.msgpack_restore((kept(tmp_path) / "epoch-2.msgpack").read_bytes())["step"] == 2


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"learning_rate": 0.02}, "is of a run with learning rate 0.01, and asked for is 0.02"),
        ({"precision": Precision.TE_BF16}, "is of a run with precision te-fp8, and asked for is te-bf16"),
        ({"seed": 2}, "is of a run with seed 1, and asked for is 2"),
        ({"train_size": None}, "is of a run with train size 40, and asked for is null"),
        ({"data_dir": Path("/data")}, "is of a run with data dir null, and asked for is /data"),
        ({"recipe": RecipeConfig()}, "is of a run with recipe .*4.*, and asked for is"),
        ({"epochs": 1}, "has 2 epochs, and asked for are 1"),
    ],
)
def test_another_run_is_refused(tmp_path: Path, options: dict[str, Any], line: str) -> None:
    kept(tmp_path)
    with pytest.raises(ConfigError, match=f"^checkpoint {tmp_path} {line}.*: name another folder$"):
        Checkpoint(tmp_path, asked(**options))
    assert len(Checkpoint(tmp_path, asked(epochs=9)).epochs) == 2, "Control: it may go on for longer"


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """An edit of what is noted."""

    def edited(folder: Path) -> None:
        noted = json.loads((folder / "run.json").read_text())
        change(noted)
        (folder / "run.json").write_text(json.dumps(noted))

    return edited


def flip(folder: Path) -> None:
    file = folder / "epoch-2.msgpack"
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        lambda folder: (folder / "epoch-2.msgpack").write_bytes((folder / "epoch-2.msgpack").read_bytes()[:-1]),
        lambda folder: (folder / "epoch-2.msgpack").unlink(),
        lambda folder: (folder / "run.json").write_text((folder / "run.json").read_text()[:-9]),
        lambda folder: (folder / "run.json").write_text(""),
        lambda folder: (folder / "run.json").write_text("[]"),
        lambda folder: (folder / "run.json").write_bytes(b"\xff\xfe\x00"),
        lambda folder: ((folder / "run.json").unlink(), (folder / "run.json").mkdir()),
        edit(lambda noted: noted.pop("epochs")),
        edit(lambda noted: noted.update(epochs=[{}])),
        edit(lambda noted: noted.update(config=3)),
        edit(lambda noted: noted["state"].update(sha256="0")),
        edit(lambda noted: noted["state"].update(file=3)),
    ],
)
def test_damage_is_one_line(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    kept(tmp_path)
    assert Checkpoint(tmp_path, CONFIG).epochs, "Control"
    damage(tmp_path)
    with pytest.raises(ConfigError, match=rf"^checkpoint {tmp_path} is damaged \([^\n]*\): remove it to begin anew$"):
        Checkpoint(tmp_path, CONFIG)


def test_another_form_of_it_is_refused(tmp_path: Path) -> None:
    edit(lambda noted: noted.update(schema_version=2))(kept(tmp_path))
    with pytest.raises(ConfigError, match=r"is of schema version 2, and this reads 1: name another folder$"):
        Checkpoint(tmp_path, CONFIG)


@pytest.mark.parametrize(
    "other",
    [
        {"params": {"kernel": np.arange(4, dtype=np.float32)}},
        {**STATE, "more": np.int32(7)},
        {"params": {"kernel": np.arange(5, dtype=np.float32)}, "step": np.int32(7)},
        {"params": {"kernel": np.arange(4, dtype=jnp.bfloat16)}, "step": np.int32(7)},
        {"params": {"kernel": {"value": np.arange(4, dtype=np.float32)}}, "step": np.int32(7)},
    ],
    ids=["a leaf less", "a leaf more", "another shape", "another dtype", "a box"],
)
def test_state_that_does_not_fit_is_refused(tmp_path: Path, other: Any) -> None:
    with pytest.raises(ConfigError, match="has a state of another model, or of a Transformer Engine that keeps it"):
        Checkpoint(kept(tmp_path), CONFIG).restored(other)


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        opened(tmp_path, CONFIG),
        pytest.raises(ConfigError, match="is in use by another run"),
        opened(tmp_path, CONFIG),
    ):
        pass
    with opened(tmp_path, CONFIG):
        pass


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_folder_that_cannot_be_is_one_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=rf"^checkpoint {tmp_path / place} cannot be a folder: \w"):
        opened(tmp_path / place, CONFIG).__enter__()


def test_disk_that_is_full_is_one_line_and_leaves_what_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    kept(tmp_path)
    monkeypatch.setattr(checkpoints, "replace_file", full)
    with pytest.raises(ConfigError, match=f"^checkpoint {tmp_path} cannot be written: No space left on device$"):
        Checkpoint(tmp_path, CONFIG).keep(list(map(metrics, (1, 2, 3))), STATE)
    assert len(Checkpoint(tmp_path, CONFIG).epochs) == 2


def test_figures_that_are_no_numbers_are_not_kept(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        Checkpoint(tmp_path, CONFIG).keep([dataclasses.replace(metrics(1), train_loss=math.nan)], STATE)
