"""What is wrong with a model's name or factory is said in one line."""

import sys
import types
from pathlib import Path
from typing import Any

import jax
import jax.extend
import pytest

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.model import FOLDER, VARIABLE, parse_model
from mnist_fp8.model import Case
from mnist_fp8.model.loading import NoCaseError, load, make


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module in a folder, as a user has it."""
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("their_model", "their_broken_model"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "their_model.py").write_text("number = 1\nclass Ours:\n    @staticmethod\n    def case(recipe): ...\n")
    (tmp_path / "their_broken_model.py").write_text("import nothing_of_that_name\n")
    return tmp_path


def named(monkeypatch: pytest.MonkeyPatch, name: str) -> Any:
    """What is loaded under a name."""
    monkeypatch.setenv(VARIABLE, name)
    return load()


@pytest.mark.usefixtures("package")
def test_factory_is_found_in_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    assert named(monkeypatch, "their_model:Ours.case").__name__ == "case"


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("their_model:other", "model 'their_model:other' cannot be loaded: AttributeError: .*has no attribute 'other'"),
        ("their_other_model:case", "cannot be loaded: ModuleNotFoundError: No module named 'their_other_model'"),
        ("their_broken_model:case", r"No module named 'nothing_of_that_name' \(their_broken_model.py:1\)"),
        ("their_model:number", "model 'their_model:number' is int; expected a function"),
    ],
)
def test_what_cannot_be_loaded_is_said(monkeypatch: pytest.MonkeyPatch, name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        named(monkeypatch, name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["ours", "ours:", ":case", "ours.model:case()", "ours/model.py:case", ""])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="expected PACKAGE:FACTORY"):
        parse_model(name)


def test_factory_that_raises_is_said() -> None:
    def factory(_: object) -> Case:
        raise ValueError("no\nsuch \x1b\udcfflayer")

    with pytest.raises(
        ConfigError, match=r"factory raises for recipe None: ValueError: no such \ufffd{2}layer \(test_loading"
    ):
        make(factory, None)


def test_factory_that_ends_the_process_is_said(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def factory(_: object) -> Case:
        sys.exit(0)

    with pytest.raises(ConfigError, match=r"factory raises for recipe None: SystemExit: 0 \(test_loading"):
        make(factory, None)
    (package / "their_broken_model.py").write_text("raise SystemExit(0)\n")
    with pytest.raises(ConfigError, match=r"cannot be loaded: SystemExit: 0 \(their_broken_model.py:1\)"):
        named(monkeypatch, "their_broken_model:case")


def test_recipe_that_the_factory_itself_has_no_case_for_is_told_from_what_its_libraries_lack() -> None:
    def none(_: object) -> Case:
        raise NotImplementedError("no BF16")

    def lowered(_: object) -> Case:
        primitive = jax.extend.core.Primitive("their_primitive")
        primitive.def_abstract_eval(lambda x: x)
        jax.jit(primitive.bind)(1.0)
        raise AssertionError("it was not computed")

    with pytest.raises(NoCaseError, match=r"^no BF16$"):
        make(none, None)
    with pytest.raises(ConfigError, match="factory raises for recipe None: NotImplementedError: MLIR translation rule"):
        make(lowered, None)
    with pytest.raises(ConfigError, match="factory raises for recipe None: NotImplementedError"):
        make(lambda _: FakeTe.missing(), None)


class FakeTe:
    """A function as Transformer Engine's own code would have it."""

    missing: Any = types.FunctionType(
        compile("raise NotImplementedError('not on this device')", "te.py", "exec"),
        {"__name__": "transformer_engine.jax.dense"},
    )


def test_factory_that_gives_something_else_is_said() -> None:
    with pytest.raises(ConfigError, match=r"factory gives dict; expected mnist_fp8\.model\.Case"):
        make(lambda _: {}, None)  # type: ignore[arg-type,return-value]


def test_half_a_train_step_is_refused() -> None:
    with pytest.raises(ValueError, match="state is missing"):
        Case(apply=print, variables={}, inputs=(), train_step=print)
