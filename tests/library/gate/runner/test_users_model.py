"""A user's model: where its package is found, what a run is told of it, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mnist_fp8.core.errors import ConfigError, EnvError
from mnist_fp8.core.model import CONTENTS, FOLDER, VARIABLE
from mnist_fp8.gate.releases.editions import Edition, EditionKind
from mnist_fp8.gate.runner import model
from mnist_fp8.gate.runner.model import Model, check_unedited, find_model
from support.arranged import RELEASE

NAME = "ours.model:case"
INTERPRETER = Edition(EditionKind.INTERPRETER, "/python", "2.4.0")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: it has the package, and a module beside it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    home = tmp_path / "home"
    (home / "ours").mkdir(parents=True)
    for name in ("ours/__init__.py", "ours/model.py", "layers.py"):
        (home / name).write_text("raise SystemExit('it was imported')")
    monkeypatch.chdir(home)
    return home


def found(*, name: str = NAME, at: Path | None = None, needs: str = "", edition: Edition = RELEASE) -> Model:
    return find_model(name, at, Path(needs) if needs else None, [edition])


def test_package_is_found_in_the_current_folder_or_in_the_one_that_is_named(folder: Path, tmp_path: Path) -> None:
    here = found()
    assert here.variables == {VARIABLE: NAME, FOLDER: str(folder), CONTENTS: here.contents}
    assert here.contents
    assert (here.imported, here.packages) == ((), ())
    (tmp_path / "elsewhere").mkdir()
    assert found(at=Path("../home")) == here
    (tmp_path / "elsewhere" / "linked").symlink_to(folder)
    assert found(at=tmp_path / "elsewhere" / "linked") == here


@pytest.mark.parametrize("file", ["one.py", "one.cpython-311-x86_64-linux-gnu.so", "one/model.py"])
def test_module_of_one_file_and_package_without_init_are_found(folder: Path, file: str) -> None:
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).touch()
    assert found(name="one:Net.case").folder == folder


@pytest.mark.parametrize(
    "edit",
    [
        lambda home: (home / "ours/model.py").write_text("edited"),
        lambda home: (home / "ours/new.py").touch(),
        lambda home: (home / "layers.py").write_text("edited"),
        lambda home: (home / "layers.py").rename(home / "parts.py"),
        lambda home: (home / "configs").mkdir() or (home / "configs/base.yaml").touch(),
        lambda home: (home / "pyproject.toml").touch(),
    ],
    ids=["module", "new module", "module beside the package", "other name", "settings", "project"],
)
def test_contents_follow_every_module_and_setting_that_it_may_read(
    folder: Path, edit: Callable[[Path], object]
) -> None:
    before = found()
    edit(folder)
    assert found().contents != before.contents


@pytest.mark.parametrize("file", ["data.npz", ".git/hook.py", "venv/lib/x.py", "ours/__pycache__/model.pyc"])
def test_contents_are_those_of_modules_alone(folder: Path, file: str) -> None:
    (folder / "venv").mkdir()
    (folder / "venv" / "pyvenv.cfg").touch()
    before = found()
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).touch()
    assert found() == before


def test_package_that_is_installed_counts_with_what_it_is_installed_in() -> None:
    for installed in (found(name="others:case", edition=INTERPRETER), Model("others:case")):
        assert installed == Model("others:case")
        assert installed.variables == {VARIABLE: "others:case"}
        assert installed.imported == ("others",)


def test_package_may_come_with_the_packages_that_are_asked_for(folder: Path) -> None:
    (folder / "needs.txt").write_text("others==1.0\n")
    assert found(name="others:case", needs="needs.txt") == Model("others:case", packages=("others==1.0",))
    assert found(needs="needs.txt") == Model(NAME, folder, found().contents, ("others==1.0",))


LIES_NOWHERE = (
    r"^model others:case lies in a package others, but there is no others/ and no others\.py in /.*: expected"
)


def test_package_that_lies_nowhere_is_one_line_that_says_where_it_was_looked_for(folder: Path) -> None:
    with pytest.raises(ConfigError, match=f"{LIES_NOWHERE} --model-path with the folder that has it$") as refused:
        found(name="others:case")
    assert str(folder) in str(refused.value)
    with pytest.raises(ConfigError, match=LIES_NOWHERE):
        found(name="others:case", at=folder, edition=INTERPRETER)
    with pytest.raises(ConfigError, match=LIES_NOWHERE):
        find_model("others:case", None, None, [RELEASE, INTERPRETER])


@pytest.mark.parametrize("name", ["ours", "ours:", ":case", "ours/model.py:case", "ours.model:case()", "1:case"])
def test_name_that_is_none_is_one_line(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^model is '.*'; expected PACKAGE:FACTORY, such as ours\.model:case$"):
        found(name=name)


@pytest.mark.parametrize("path", ["gone", "layers.py", "x" * 300])
def test_folder_that_is_none_is_one_line(path: str) -> None:
    says = rf"^model path {path} is no folder; expected the one that has ours/ or ours\.py$"
    with pytest.raises(ConfigError, match=says):
        found(at=Path(path))


def test_packages_of_an_interpreter_are_its_own(folder: Path) -> None:
    (folder / "needs.txt").touch()
    says = r"^python /python is judged with the packages that it has: install those of needs\.txt there, and leave out"
    with pytest.raises(ConfigError, match=says):
        find_model(NAME, None, Path("needs.txt"), [RELEASE, INTERPRETER])


def test_folder_with_too_many_folders_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "MOST_FOLDERS", 1)
    with pytest.raises(ConfigError, match="there are more than 1 folders to look into; expected --model-path"):
        found()
    (folder / "layers.py").rename(folder / "ours" / "layers.py")
    assert found(name="layers:case", at=folder / "ours").contents


def test_folder_that_cannot_be_read_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied", "/x/ours")

    monkeypatch.setattr(model, "digests", refuse)
    with pytest.raises(ConfigError, match=r"^model path /.*: /x/ours cannot be read: Permission denied$"):
        found()


def test_model_that_is_edited_while_it_is_judged_gives_no_result(folder: Path) -> None:
    told = found().variables
    (folder / "weights.npz").touch()
    check_unedited(told)
    check_unedited({VARIABLE: "installed:case"})
    (folder / "layers.py").write_text("edited")
    with pytest.raises(EnvError, match=r"^code in /.* changed while the model was judged: no result counts; run"):
        check_unedited(told)
