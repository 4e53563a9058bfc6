"""The command: what it prints, what it leaves, and what it refuses in one line."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from mnist_fp8.cli import main, output
from support.checkpoints import STORES, flat, old_state, restored_by_flax, save_flax

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a checkpoint."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    save_flax(tmp_path / "old", old_state())
    return tmp_path


def migrate(*options: str, releases: tuple[str, str] = ("1.13", "2.20.2"), mlp: str = "fused") -> int:
    words = ["migrate", "old", "-o", "new", "--from", releases[0], "--to", releases[1]]
    return main.main([*words, f"--{mlp}-mlp", "fp8_metas/*", *options])


def test_it_says_leaf_by_leaf_what_changed(capsys: Captured) -> None:
    assert migrate("--kernel", "out/kernel=4x16x32", "--boxed") == output.OK
    printed = capsys.readouterr().out
    for line in (
        "fp8_metas/out/amax_i_0",
        "../x_amax_history",
        "renamed, rolled",
        "renamed, the next scale, the other product's number",
        "(64, 32) reshaped to (4, 16, 32), into a box",
        "dropped: gone since 2.4",
        "27 changed, 1 dropped, 4 untouched",
        "written  new.migration.json",
    ):
        assert line in printed
    report = json.loads(Path("new.migration.json").read_text())
    assert len(report["changed"]) == 27
    assert report["recipe"] == {"fp8_format": "HYBRID", "margin": 0, "algo": "max"}
    assert restored_by_flax(Path("new"))["params"]["out"]["kernel"]["value"].shape == (4, 16, 32)


def test_the_recipe_decides_the_scale() -> None:
    assert migrate("--fp8-format", "E4M3", "--margin", "1", "--amax-compute-algo", "most_recent") == output.OK
    old, new = flat(old_state()), flat(restored_by_flax(Path("new")))
    assert new["fp8_metas/out/grad_scale"] == 448 / old["fp8_metas/out/amax_g_0"][0] / 2


def test_shapes_are_read_from_a_file() -> None:
    Path("like.json").write_text(json.dumps({"params/out/kernel": [4, 16, 32], "params/out/bias": [32]}))
    assert migrate("--like", "like.json") == output.OK
    assert restored_by_flax(Path("new"))["opt_state"]["0"]["mu"]["out"]["kernel"].shape == (4, 16, 32)


def test_a_layer_that_is_not_one_function_keeps_its_numbers() -> None:
    assert migrate(mlp="separate") == output.OK
    old, new = flat(old_state()), flat(restored_by_flax(Path("new")))
    assert new["fp8_metas/mlp/grad_0_amax_history"][0, -1] == old["fp8_metas/mlp/amax_g_0"][0, 0]


def test_nothing_to_change_is_a_copy(capsys: Captured) -> None:
    save_flax(Path("old"), {"params": {"a": 1}})
    assert migrate(releases=("2.8.0", "2.20.2")) == output.OK
    assert "nothing to change" in capsys.readouterr().out
    assert Path("old").read_bytes() == Path("new").read_bytes()


@pytest.mark.parametrize(
    ("options", "releases", "line"),
    [
        (["--kernel", "out/kernel"], ("1.13", "2.4"), "is no PATH=AxBxC"),
        (["--like", "nowhere"], ("1.13", "2.4"), "--like nowhere cannot be read: No such file"),
        (["--like", "old"], ("1.13", "2.4"), "--like old is no JSON file of paths with shapes"),
        ([], ("2.3.0", "2.4.0"), "is --from right?"),
        ([], ("2.20.2", "2.2.0"), "cannot be made one of 2.2.0"),
        (["--recipe", "MXFP8BlockScaling"], ("2.2", "2.3"), "invalid choice"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    capsys: Captured, options: list[str], releases: tuple[str, str], line: str
) -> None:
    try:
        code = migrate(*options, releases=releases)
    except SystemExit as end:  # what argparse refuses
        code = int(end.code or 0)
    assert code == output.COULD_NOT_RUN
    printed = capsys.readouterr()
    assert line in printed.err
    assert len(printed.err.splitlines()) == 1
    assert not Path("new").exists()


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("name", STORES)
@pytest.mark.parametrize(
    ("leaf", "values", "line"),
    [
        ("x_scale", np.ones(1, np.int32), "is int32, but TE keeps FP8 metadata in float32"),
        ("x_scale", np.ones(1, jnp.bfloat16), "is bfloat16, but TE keeps FP8 metadata in float32"),
        ("x_amax_history", np.ones(8, jnp.bfloat16), "is bfloat16, but TE keeps FP8 metadata in float32"),
        ("x_scale", np.array([NAN], np.float32), "has nan, but a scale is a finite number above zero"),
        ("x_scale", np.array([INF], np.float32), "has inf, but a scale is a finite number above zero"),
        ("x_scale", np.array([0], np.float32), "has 0, but a scale is a finite number above zero"),
    ],
)
def test_metadata_that_no_run_leaves_are_refused(
    capsys: Captured, name: str, leaf: str, values: Any, line: str
) -> None:
    def saved(**leaves: Any) -> None:
        layer = {"x_scale": np.ones(1, np.float32), "x_amax_history": np.ones(8, np.float32)}
        flax_own = {"input_scale": np.zeros(1, jnp.bfloat16)}
        others = {"params": {"x_scale": np.array([0])}, "_overwrite_with_gradient": {"flax": flax_own}}
        STORES[name][0](Path("saved"), {**others, "fp8_metas": {"out": layer | leaves}})

    command = ["migrate", "saved", "-o", "new", "--from", "2.8.0", "--to", "2.20.2"]
    saved(**{leaf: values})
    assert main.main(command) == output.COULD_NOT_RUN
    assert capsys.readouterr().err.startswith(f"mnist-fp8: error: fp8_metas/out/{leaf} {line}")
    assert not Path("new").exists()
    shutil.rmtree("saved") if Path("saved").is_dir() else Path("saved").unlink()
    saved()
    assert main.main(command) == output.OK, "Control: what is not TE's may be anything"


def test_amaxes_that_overflowed_are_named(capsys: Captured) -> None:
    """A run has such histories, and both releases keep the scale while it does."""
    state = old_state()
    state["fp8_metas"]["out"]["amax_g_0"][3] = np.nan
    save_flax(Path("with-nan"), {"fp8_metas": {"out": state["fp8_metas"]["out"]}})
    assert main.main(["migrate", "with-nan", "-o", "new", "--from", "2.2.0", "--to", "2.3.0"]) == output.OK
    note = "note: amax histories with infinities or NaN: 1 (such as fp8_metas/out/amax_g_0)"
    assert note in capsys.readouterr().out
    new = restored_by_flax(Path("new"))["fp8_metas"]["out"]
    assert new["grad_scale"] == state["fp8_metas"]["out"]["scale_g_0"]


def test_an_output_that_exists_is_refused(capsys: Captured) -> None:
    Path("new").mkdir()
    assert migrate() == output.COULD_NOT_RUN
    assert "new exists: name a new place" in capsys.readouterr().err


def test_an_output_inside_of_the_checkpoint_is_refused(capsys: Captured) -> None:
    """What is read is only read; and a folder that is copied into itself has no end."""
    Path("folder").mkdir()
    assert (
        main.main(["migrate", "folder", "-o", "folder/d/new", "--from", "2.2", "--to", "2.3"]) == output.COULD_NOT_RUN
    )
    assert "folder/d/new is inside of folder, which is only read: name a place outside" in capsys.readouterr().err
