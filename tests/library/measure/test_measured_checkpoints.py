"""Checkpoints of the installed release, restored by it: what is measured, and what is not taken for a success."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import serialization

from mnist_fp8.measure import checkpoints
from mnist_fp8.measure.checkpoints import restore, write
from mnist_fp8.model.case import Case
from mnist_fp8.record.checkpoints import AS_RESTORED, FURTHER, Unrestored
from mnist_fp8.record.entries import Numbers, Value
from mnist_fp8.training.case import mnist

KIND = "checkpoints/DelayedScaling/msgpack"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[str, Value]]:
    """Checkpoints of the network of this project, and what was measured of them."""
    folder = tmp_path_factory.mktemp("written")
    return folder, write(folder)


def test_what_is_restored_is_what_was_saved_and_trains_on_alike(
    made: tuple[Path, Mapping[str, Value]], tmp_path: Path
) -> None:
    folder, written = made
    restored = restore(folder, tmp_path / "shapes")
    assert restored == written, "to the bit, since each step is"
    kinds = [f"checkpoints/DelayedScaling/{name}" for name in ("msgpack", "Orbax", "msgpack boxed", "Orbax boxed")]
    assert list(written) == [f"{kind}/{what}" for kind in kinds for what in (AS_RESTORED, FURTHER)]
    assert not (tmp_path / "shapes").exists()
    for value in written.values():
        assert isinstance(value, Numbers)
        assert value.noise == 0
    labels = written[f"{KIND}/{FURTHER}"].labels  # type: ignore[union-attr]
    assert "step 3 train_state/params/dense1/kernel" in labels
    assert not any("scale" in label for label in labels)
    assert any("kernel_scale" in label for label in written[f"{KIND}/{AS_RESTORED}"].labels)  # type: ignore[union-attr]


def edited(
    made: tuple[Path, Mapping[str, Value]], tmp_path: Path, edit: Callable[[Any], object]
) -> Mapping[str, Value]:
    """What becomes of the MessagePack file after an edit."""
    tree = serialization.msgpack_restore((made[0] / "DelayedScaling" / "msgpack").read_bytes())
    edit(tree)
    (tmp_path / "edited" / "DelayedScaling").mkdir(parents=True)
    (tmp_path / "edited" / "DelayedScaling" / "msgpack").write_bytes(serialization.msgpack_serialize(tree))
    return restore(tmp_path / "edited", tmp_path / "shapes")


def test_numbers_that_are_lost_on_the_way_show(made: tuple[Path, Mapping[str, Value]], tmp_path: Path) -> None:
    """A control: the FP8 metadata of another run are restored without an error."""

    def edit(tree: Any) -> None:
        metadata = tree["metadata"]["fp8_metas"]["dense1"]
        metadata["kernel_scale"] = metadata["kernel_scale"] / 16

    found = edited(made, tmp_path, edit)
    assert found.keys() == {f"{KIND}/{AS_RESTORED}", f"{KIND}/{FURTHER}"}
    assert all(found[key] != made[1][key] for key in found)


def rename(tree: Any) -> None:
    metadata = tree["metadata"]["fp8_metas"]["dense1"]
    metadata["scale_w_0"] = metadata.pop("kernel_scale")


def reshape(tree: Any) -> None:
    kernel = tree["train_state"]["params"]["dense1"]["kernel"]
    tree["train_state"]["params"]["dense1"]["kernel"] = np.asarray(kernel).reshape(-1, 2, kernel.shape[1] // 2)


def box(tree: Any) -> None:
    params = tree["train_state"]["params"]["dense1"]
    params["kernel"] = {"value": params["kernel"]}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (rename, "kernel_scale"),
        (
            reshape,
            r"no error, but train_state/params/dense1/kernel is \(\d+, 2, \d+\), and \(\d+, \d+\) in a new state",
        ),
        (box, "no error, but train_state/params/dense1/kernel is None, and .* in a new state"),
    ],
)
def test_what_is_not_restored_says_why_and_what_was_wanted(
    made: tuple[Path, Mapping[str, Value]], tmp_path: Path, edit: Callable[[Any], None], message: str
) -> None:
    ((key, value),) = edited(made, tmp_path, edit).items()
    assert key == f"{KIND}/{FURTHER}"
    assert isinstance(value, Unrestored)
    assert re.search(message, value.message)
    shapes = json.loads((tmp_path / "shapes" / "DelayedScaling" / "msgpack").read_text())
    assert len(shapes["train_state/params/dense1/kernel"]) == 2


def test_model_without_a_train_step_is_restored_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def factory(recipe: Any) -> Case:
        case = mnist(recipe)
        return Case(apply=case.apply, variables=case.variables, inputs=case.inputs)

    monkeypatch.setattr(checkpoints, "_forms", lambda: {"": factory})
    written = write(tmp_path / "written")
    further = written[f"{KIND}/{FURTHER}"]
    assert isinstance(further, Numbers)
    assert "params/dense1/kernel" in further.labels
    assert not any("scale" in label for label in further.labels), "what releases call otherwise is not compared"
    assert restore(tmp_path / "written", tmp_path / "shapes") == written


def test_model_without_a_case_for_delayed_scaling_is_tried_in_bf16(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def factory(recipe: Any) -> Case:
        if recipe:
            raise NotImplementedError
        return Case(apply=lambda v, _: v["params"]["a"], variables={"params": {"a": jax.numpy.ones(2)}}, inputs=(1,))

    monkeypatch.setattr(checkpoints, "_forms", lambda: {"": factory})
    kinds = ("checkpoints/BF16/msgpack", "checkpoints/BF16/Orbax")
    assert list(write(tmp_path)) == [f"{kind}/{what}" for kind in kinds for what in (AS_RESTORED, FURTHER)]
