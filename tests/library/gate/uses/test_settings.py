"""The table in a user's ``pyproject.toml``."""

from pathlib import Path

import pytest

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.subjects import SUBJECTS
from mnist_fp8.gate.uses import settings


def written(folder: Path, text: str | bytes) -> Path:
    file = folder / "pyproject.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_sources_are_relative_to_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, '[tool.mnist-fp8]\nuses = ["src", "train.py", "/abs"]\n')
    assert settings.sources(file) == (tmp_path / "src", tmp_path / "train.py", Path("/abs"))


NOTHING = (
    "",
    "[project]\nname = 'x'",
    "[tool.ruff]\nline-length = 1",
    "[tool.mnist-fp8]",
    "[tool.mnist-fp8]\nuses=[]",
)


@pytest.mark.parametrize("text", NOTHING)
def test_file_without_sources_names_none(tmp_path: Path, text: str) -> None:
    assert settings.sources(written(tmp_path, text)) == ()
    assert settings.sources(tmp_path / "missing.toml") == ()


def test_file_is_read_in_the_encoding_of_its_mark(tmp_path: Path) -> None:
    file = written(tmp_path, '[tool.mnist-fp8]\nuses = ["ü"]\n'.encode("utf-16"))
    assert settings.sources(file) == (tmp_path / "ü",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("uses = [", "pyproject.toml is no TOML file: "),
        (b"\xff", "pyproject.toml is no TOML file: it is no text in UTF-8"),
        ("x = " + "[" * 100_000, "pyproject.toml is no TOML file: it is nested too deeply"),
        ('[tool.mnist-fp8]\nuse = ["src"]', "has 'use'; expected nothing but uses, subjects, model, model-path"),
        ('[tool.mnist-fp8]\nuses = "src"', "is 'src'; expected a list of paths"),
        ("[tool.mnist-fp8]\nuses = [1]", "is [1]; expected a list of paths"),
        ('[tool.mnist-fp8]\nuses = [""]', "is ['']; expected a list of paths"),
        ("tool = 3", "is 3; expected a table"),
        ("[tool]\nmnist-fp8 = 3", "is 3; expected a table"),
        ("[[tool.mnist-fp8]]\nuses = []", "is [{'uses': []}]; expected a table"),
    ],
    ids=str,
)
def test_other_contents_are_one_line_that_names_what_is_wrong(tmp_path: Path, text: str | bytes, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        settings.sources(written(tmp_path, text))
    assert says in str(refused.value)
    assert "pyproject.toml" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_folder_of_that_name_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").mkdir()
    with pytest.raises(ConfigError, match=r"pyproject.toml cannot be read: Is a directory"):
        settings.sources(tmp_path / "pyproject.toml")


def test_layers_are_read_beside_the_sources(tmp_path: Path) -> None:
    file = written(tmp_path, '[tool.mnist-fp8]\nuses = ["src"]\nsubjects = ["LayerNormMLP"]\n')
    assert settings.subjects(file) == ("DenseGeneral", "LayerNormMLP")
    assert settings.sources(file) == (tmp_path / "src",)
    assert settings.subjects(written(tmp_path, '[tool.mnist-fp8]\nsubjects = ["all"]')) == tuple(SUBJECTS)
    assert settings.subjects(written(tmp_path, "[tool.mnist-fp8]\nsubjects = []")) == ()
    assert settings.subjects(tmp_path / "missing.toml") == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('subjects = "all"', "is 'all'; expected a list of layers, such as"),
        ('subjects = ["LayerNormMPL"]', "subjects in [tool.mnist-fp8] of "),
        ('subjects = ["LayerNormMPL"]', "pyproject.toml: there is no subject 'LayerNormMPL'; there are DenseGeneral, "),
    ],
)
def test_other_layers_are_one_line_that_names_what_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        settings.subjects(written(tmp_path, f"[tool.mnist-fp8]\n{text}"))
    assert says in str(refused.value)


def test_model_is_named_with_a_folder_relative_to_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, '[tool.mnist-fp8]\nmodel = "ours.model:case"\nmodel-path = "src"\n')
    assert (settings.model(file), settings.model_path(file)) == ("ours.model:case", tmp_path / "src")
    assert settings.sources(file) == ()
    for other in (written(tmp_path, "[tool.mnist-fp8]"), tmp_path / "missing.toml"):
        assert (settings.model(other), settings.model_path(other)) == (None, None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model = ['a:b']", "model in [tool.mnist-fp8] of "),
        ("model = ['a:b']", "is ['a:b']; expected a factory, such as \"ours.model:case\""),
        ("model = ''", "is ''; expected a factory"),
        ("model = 'ours'", "pyproject.toml: model is 'ours'; expected PACKAGE:FACTORY"),
        ("models = 'a:b'", "has 'models'; expected nothing but uses, subjects, model, model-path"),
    ],
)
def test_other_model_is_one_line_that_names_what_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        settings.model(written(tmp_path, f"[tool.mnist-fp8]\n{text}"))
    assert says in str(refused.value)


def test_other_folder_of_a_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model-path in \[tool\.mnist-fp8\] of .* is 1; expected a folder, such as"):
        settings.model_path(written(tmp_path, "[tool.mnist-fp8]\nmodel-path = 1"))
