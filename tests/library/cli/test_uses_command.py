"""The user's own sources on the command line: which they are, and what comes of them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mnist_fp8.cli import compare, main, output, uses
from mnist_fp8.cli.own_code import layers_to_judge
from mnist_fp8.core.subjects import DEFAULT
from mnist_fp8.gate.runner import suite_tests
from mnist_fp8.gate.uses.use import Place, Use, UseKind, Uses
from support import comparing
from support.comparing import WHOLE
from support.own_code import HISTORY

Captured = pytest.CaptureFixture[str]

FITS = "from transformer_engine.jax.api import cast\n\ncast()\n"
BREAKS = "from transformer_engine.jax.api import dense\n\ndense(x=1)\n"
NOWHERE = "from transformer_engine.jax.api import cast\n\ncast(z=1)\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's, where three releases are known; with records of the first and the last."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(suite_tests, "suite_tests", dict)
    for module in (uses, compare):
        monkeypatch.setattr(module, "known_names", lambda: HISTORY)
    (tmp_path / "src").mkdir()
    for name, release in (("old.json", "2.1.0"), ("new.json", "2.3.0")):
        record = comparing.record(release, WHOLE, names=HISTORY[release])
        Path(name).write_text(json.dumps(record.to_json()))
    return tmp_path


def write(**sources: str) -> None:
    for name, text in sources.items():
        Path("src", f"{name}.py").write_text(text)


def settings(text: str) -> None:
    Path("pyproject.toml").write_text(f"[tool.mnist-fp8]\n{text}\n")


@pytest.mark.parametrize(
    ("sources", "code"),
    [
        ({"a": FITS}, output.OK),
        ({"a": BREAKS}, output.OK),
        ({"a": NOWHERE}, output.DID_NOT_HOLD),
        ({"a": "import numpy\n"}, output.NOTHING_VERIFIED),
        ({"a": FITS, "b": "transformer_engine = (\n"}, output.NOTHING_VERIFIED),
        ({"a": NOWHERE, "b": "transformer_engine = (\n"}, output.DID_NOT_HOLD),
        ({"a": FITS, "b": "x = (\n"}, output.OK),
    ],
    ids=["fits", "fits some", "fits none", "no use", "cannot be read", "fits none, cannot be read", "is not concerned"],
)
def test_exit_code_says_whether_a_release_fits(sources: Mapping[str, str], code: int, capsys: Captured) -> None:
    write(**sources)
    assert main.main(["uses", "src"]) == code
    assert capsys.readouterr().out.startswith("Your code uses ")
    assert not Path("runs").exists(), "nothing is written unless a folder is named"


def test_uses_writes_all_forms(capsys: Captured) -> None:
    write(a=BREAKS)
    assert main.main(["uses", "src", "-o", "out"]) == 0
    written = [line.split()[-1] for line in capsys.readouterr().out.splitlines() if line.startswith("written")]
    assert written == ["out/uses.md", "out/uses.html", "out/uses.json"]
    document = json.loads(Path("out/uses.json").read_text())
    assert (document["paths"], document["ranges"]) == (["src"], [">=2.1,<2.3"])


def compared(*options: str) -> Any:
    """What the report of a comparison says of the code."""
    main.main(["compare", "old.json", "new.json", "-o", "out", *options])
    return json.loads(Path("out/upgrade.json").read_text())


def test_verdict_rests_on_the_code_that_is_named(capsys: Captured) -> None:
    write(a=BREAKS, b=FITS)
    found = compared("--uses", "src/a.py", "--uses", "src/b.py")
    assert found["uses"]["paths"] == ["src/a.py", "src/b.py"]
    assert found["verdict"] == "BROKEN"
    assert "src/a.py:3" in capsys.readouterr().out
    assert compared("--uses", "src/b.py")["verdict"] == "SAFE"
    assert compared()["uses"] is None, "Control"


def test_sources_of_the_file_count_unless_others_are_named() -> None:
    write(a=BREAKS, b=FITS)
    settings('uses = ["src"]')
    assert compared()["uses"]["paths"] == ["src"]
    assert compared("--uses", "src/b.py")["uses"]["paths"] == ["src/b.py"]
    assert main.main(["uses"]) == 0
    settings("uses = 1")
    assert compared("--uses", "src/b.py")["uses"]["paths"] == ["src/b.py"], "the file is not read then"


@pytest.mark.parametrize("command", [["uses"], ["compare", "old.json", "new.json"], ["upgrade", "2.1.0", "2.3.0"]])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("use = []", "[tool.mnist-fp8] of pyproject.toml has 'use'; expected nothing but uses"),
        ('uses = ["gone"]', "there is no file or folder gone; expected your sources"),
    ],
    ids=["other key", "no folder"],
)
def test_wrong_file_is_one_line_before_any_work(command: list[str], text: str, says: str, capsys: Captured) -> None:
    settings(text)
    assert main.main(command) == output.COULD_NOT_RUN
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert says in printed.err
    assert printed.out == ""


@pytest.mark.parametrize("command", [["compare", "old.json", "new.json"], ["upgrade", "2.1.0", "2.3.0"]])
def test_verdict_on_sources_without_uses_is_refused_before_any_work(command: list[str], capsys: Captured) -> None:
    write(a="import numpy\n")
    assert main.main([*command, "--uses", "src"]) == output.COULD_NOT_RUN
    assert "your code uses nothing of Transformer Engine" in capsys.readouterr().err


def test_uses_that_a_part_leaves_out_are_refused(capsys: Captured) -> None:
    write(a=FITS)
    assert main.main(["upgrade", "2.1.0", "2.3.0", "--uses", "src", "--only", "numerics"]) == output.COULD_NOT_RUN
    assert "--uses has no part in what --only names; expected uses" in capsys.readouterr().err


# --- layers ----------------------------------------------------------------------------------------------------------


def used(*paths: str) -> Uses:
    return Uses(tuple(Use(path, UseKind.CALL, Place("train.py", 1)) for path in paths), (), 1, 1)


def test_layers_that_the_code_uses_are_judged_unless_others_are_asked_for() -> None:
    uses = used("transformer_engine.jax.flax.LayerNormMLP", "transformer_engine.jax.autocast")
    assert layers_to_judge(None, uses) == ("DenseGeneral", "LayerNormMLP")
    assert layers_to_judge("LayerNorm", uses) == ("DenseGeneral", "LayerNorm")
    Path("pyproject.toml").write_text('[tool.mnist-fp8]\nsubjects = ["dense.dense"]')
    assert layers_to_judge(None, uses) == ("DenseGeneral", "dense.dense")


def test_code_that_uses_no_layer_is_judged_by_those_that_a_verdict_has_time_for() -> None:
    assert layers_to_judge(None, used("transformer_engine.jax.autocast")) == DEFAULT
