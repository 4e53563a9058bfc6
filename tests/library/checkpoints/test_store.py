"""Both stores: what stays is the same to the bit, what is new is restored, and nothing is seen half-written."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import serialization

from mnist_fp8.checkpoints import migration, store
from mnist_fp8.checkpoints.formats import Crossing
from mnist_fp8.checkpoints.metadata import Mlps
from mnist_fp8.checkpoints.migration import Wishes
from mnist_fp8.core.errors import ConfigError
from support.checkpoints import STORES, boxed, flat, is_same, numbers, old_state
from support.subprocesses import ROOT, run_code

pytestmark = pytest.mark.filterwarnings("ignore:Sharding info not provided when restoring")

KERNEL = {("out", "kernel"): (4, 16, 32)}


def migrated(place: Path, new: Path, old: str = "1.13", to: str = "2.20.2", **wishes: Any) -> Path:
    opened = store.opened(place)
    plan = migration.plan(opened.leaves, Crossing(old, to), Wishes(mlps=Mlps(fused=("*",)), **wishes))
    return store.migrate(opened, new, plan, b"{}\n")


@pytest.mark.parametrize("name", STORES)
def test_all_of_a_state_is_made_over(tmp_path: Path, name: str) -> None:
    save, restored = STORES[name]
    state = old_state()
    save(tmp_path / "old", state)
    report = migrated(tmp_path / "old", tmp_path / "new", kernels=KERNEL, boxed=True)
    assert report.read_bytes() == b"{}\n"
    old, new = flat(state), flat(restored(tmp_path / "new"))
    for place, kernel in (("params", "params/out/kernel"), ("opt_state/0/mu", "opt_state/0/mu/out/kernel")):
        assert is_same(new[f"{kernel}/value"], old[kernel].reshape(4, 16, 32))
        assert is_same(new[f"{place}/norm/scale/value"], old[f"{place}/norm/scale"])
    amaxes = old["fp8_metas/mlp/amax_g_1"]
    assert is_same(
        new["fp8_metas/mlp/grad_0_amax_history"], np.concatenate([amaxes[:, :1] * 0, amaxes[:, 2:], amaxes[:, :1]], 1)
    )
    assert is_same(new["fp8_metas/mlp/grad_0_scale"], np.float32(57344) / amaxes.max(-1, keepdims=True))
    for path in ("step", "mine/amax_i_0", "opt_state/0/count"):
        assert is_same(new[path], old[path]), path
    assert not any("axes" in path or "fp8_metas/out/amax" in path for path in new)
    assert len(new) == len(old) - 1


@pytest.mark.parametrize("name", STORES)
def test_the_same_format_is_copied_to_the_bit(tmp_path: Path, name: str) -> None:
    save, restored = STORES[name]
    state = {"params": boxed({"a": numbers(3, 4)}), "key": np.arange(3), "f": 0.5, "none": None, "deep": {"e": {}}}
    save(tmp_path / "old", state)
    migrated(tmp_path / "old", tmp_path / "new", "2.8.0")
    before, after = flat(restored(tmp_path / "old")), flat(restored(tmp_path / "new"))
    assert before.keys() == after.keys()
    assert all(is_same(before[path], after[path]) for path in before)
    if name == "flax":
        assert (tmp_path / "old").read_bytes() == (tmp_path / "new").read_bytes()


@pytest.mark.parametrize("options", [{"use_ocdbt": False}, {"use_zarr3": True}], ids=str)
def test_other_ways_of_orbax_are_read(tmp_path: Path, options: dict[str, bool]) -> None:
    import orbax.checkpoint as ocp  # noqa: PLC0415

    state = {**old_state(), "random": jax.random.key(3), "with/slash": numbers(2), "with": numbers(4)}
    ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**options)).save(tmp_path / "old", state)
    migrated(tmp_path / "old", tmp_path / "new", kernels=KERNEL)
    restored = ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**options)).restore(tmp_path / "new")
    assert restored["params"]["out"]["kernel"].shape == (4, 16, 32)
    assert is_same(jax.random.key_data(restored["random"]), jax.random.key_data(state["random"]))
    assert is_same(restored["with/slash"], state["with/slash"])
    assert is_same(restored["with"], state["with"])


def test_leaves_in_several_chunks_go_over(tmp_path: Path) -> None:
    import orbax.checkpoint as ocp  # noqa: PLC0415

    state = {"params": {"a": numbers(64, 64), "out": {"kernel": numbers(64, 32)}}}
    arguments = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=1024), state)
    ocp.PyTreeCheckpointer().save(tmp_path / "old", state, save_args=arguments)
    migrated(tmp_path / "old", tmp_path / "new", "2.0", kernels=KERNEL)
    restored = ocp.PyTreeCheckpointer().restore(tmp_path / "new")
    assert is_same(restored["params"]["a"], state["params"]["a"])
    assert is_same(restored["params"]["out"]["kernel"], state["params"]["out"]["kernel"].reshape(4, 16, 32))


def test_leaves_of_several_devices_are_restored_to_them(tmp_path: Path) -> None:
    """In a process of its own, since JAX counts its devices once."""
    code = """
        from pathlib import Path
        import jax, numpy as np
        from jax.sharding import NamedSharding, PartitionSpec
        from orbax.checkpoint import StandardCheckpointer
        from mnist_fp8.cli.main import main

        mesh = jax.make_mesh((2,), ("data",))
        array = np.arange(2048, dtype=np.float32).reshape(64, 32)
        divided = jax.device_put(array, NamedSharding(mesh, PartitionSpec("data")))
        with StandardCheckpointer() as checkpointer:
            checkpointer.save(Path("old").resolve(), {"params": {"out": {"kernel": divided, "bias": divided}}})
        words = ["migrate", "old", "-o", "new", "--from", "2.0", "--to", "2.20.2"]
        assert main([*words, "--kernel", "out/kernel=4x16x32"]) == 0
        with StandardCheckpointer() as checkpointer:
            out = checkpointer.restore(Path("new").resolve())["params"]["out"]
        assert out["bias"].sharding.spec == PartitionSpec("data")
        assert out["kernel"].sharding.is_fully_replicated
        np.testing.assert_array_equal(out["kernel"], array.reshape(4, 16, 32))
        np.testing.assert_array_equal(out["bias"], array)
    """
    two_devices = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    run_code(code, cwd=tmp_path, first_on_path=ROOT, variables=two_devices)


def test_arrays_that_flax_writes_in_chunks_are_one_leaf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", 1000)
    state = {"params": {"out": {"kernel": numbers(64, 32)}, "a": numbers(10)}}
    (tmp_path / "old").write_bytes(serialization.to_bytes(state))
    assert {leaf.shape for leaf in store.opened(tmp_path / "old").leaves.values()} == {(64, 32), (10,)}
    migrated(tmp_path / "old", tmp_path / "new", "2.0", kernels=KERNEL)
    restored = serialization.msgpack_restore((tmp_path / "new").read_bytes())
    assert is_same(restored["params"]["out"]["kernel"], state["params"]["out"]["kernel"].reshape(4, 16, 32))


@pytest.mark.parametrize("content", [b"", b"\x80", b"text", b"\x81\xa1a", b"\xc1", b"\x81\x01\x02", b"\x80\x80"])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    if content == b"\x80":  # an empty state is one
        assert store.opened(tmp_path / "file").leaves == {(): store.opened(tmp_path / "file").leaves[()]}
        return
    with pytest.raises(ConfigError, match=r"is no checkpoint"):
        store.opened(tmp_path / "file")


def test_folders_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: No such file"):
        store.opened(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"it has no file _METADATA$"):
        store.opened(tmp_path)
    STORES["orbax"][0](tmp_path / "step" / "default", {"params": {"a": numbers(2)}})
    with pytest.raises(ConfigError, match=r"name one of its items, such as .*/step/default"):
        store.opened(tmp_path / "step")
    notes = tmp_path / "step" / "default" / "_METADATA"
    document = json.loads(notes.read_text())
    document["tree_metadata"]["('params', 'b')"] = {
        "key_metadata": [{"key": "params", "key_type": 2}, {"key": "b", "key_type": 2}],
        "value_metadata": {"value_type": "jax.Array", "skip_deserialize": False},
    }
    notes.write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=r"params/b is not in .*: the checkpoint is not complete"):
        store.opened(tmp_path / "step" / "default")
    notes.write_text("{")
    with pytest.raises(ConfigError, match=r"the checkpoint is damaged"):
        store.opened(tmp_path / "step" / "default")


@pytest.mark.parametrize("name", STORES)
def test_nothing_is_written_over(tmp_path: Path, name: str) -> None:
    STORES[name][0](tmp_path / "old", old_state())
    (tmp_path / "new").touch()
    with pytest.raises(ConfigError, match=r"exists: name a new place"):
        migrated(tmp_path / "old", tmp_path / "new")
    with pytest.raises(ConfigError, match=r"exists"):
        migrated(tmp_path / "old", tmp_path / "old")
    assert {file.name for file in tmp_path.iterdir()} == {"old", "new"}


def test_two_runs_do_not_write_at_once(tmp_path: Path) -> None:
    STORES["flax"][0](tmp_path / "old", old_state())
    (tmp_path / ".new.partial").mkdir()
    held = os.open(tmp_path / ".new.partial", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        with pytest.raises(ConfigError, match=r"is being written by another run"):
            migrated(tmp_path / "old", tmp_path / "new")
    finally:
        os.close(held)
    migrated(tmp_path / "old", tmp_path / "new")
    assert {file.name for file in tmp_path.iterdir()} == {"old", "new", "new.migration.json"}


KILLED = """
import os, signal, sys
from pathlib import Path
from mnist_fp8.checkpoints import flax_file, orbax_folder, store
from mnist_fp8.cli.main import main

def dying(owner, name, calls):
    real = getattr(owner, name)
    left = [calls]
    def called(*args, **kwargs):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    setattr(owner, name, called)

owner, name, calls = sys.argv[1].split(":")
dying(eval(owner), name, int(calls))
main(["migrate", "old", "-o", "new", "--from", "1.13", "--to", "2.20.2", "--fused-mlp", "*"])
"""

MOMENTS = {
    "flax": ["flax_file:_copy:0", "flax_file:_copy:5", "store:_reach_the_disk:0", "Path:replace:0", "Path:rename:0"],
    "orbax": [
        "orbax_folder._Writes:add:0",
        "orbax_folder._Writes:add:9",
        "orbax_folder._Writes:end:0",
        "Path:rename:0",
    ],
}


@pytest.mark.parametrize(
    ("name", "moment"), [(name, moment) for name, moments in MOMENTS.items() for moment in moments]
)
def test_a_killed_run_leaves_nothing_at_the_target(tmp_path: Path, name: str, moment: str) -> None:
    save, restored = STORES[name]
    save(tmp_path / "old", old_state())
    before = flat(restored(tmp_path / "old"))
    done = subprocess.run(  # noqa: S603 - our own interpreter and code
        [sys.executable, "-c", KILLED, moment],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "new").exists()
    assert all(is_same(value, flat(restored(tmp_path / "old"))[path]) for path, value in before.items())
    migrated(tmp_path / "old", tmp_path / "new")
    assert "fp8_metas/out/x_scale" in flat(restored(tmp_path / "new"))
    assert not list(tmp_path.glob(".*"))


def test_an_error_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    STORES["flax"][0](tmp_path / "old", old_state())

    def full(_folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "_reach_the_disk", full)
    with pytest.raises(ConfigError, match=r"new cannot be written: No space left on device"):
        migrated(tmp_path / "old", tmp_path / "new")
    assert [file.name for file in tmp_path.iterdir()] == ["old"]
