"""What files contain: every change is seen, and what did not change is not read again."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.gate.releases import contents


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(contents, "_FRESH_NS", 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    for name in ("te/__init__.py", "te/data.json", "te/lib.so", "te/sub/b.py", "te/__pycache__/b.pyc", ".git/c.py"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(name)
    return home


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read."""
    names: list[str] = []
    real = contents._digest

    def digest(file: Path) -> str:
        names.append(file.name)
        return real(file)

    monkeypatch.setattr(contents, "_digest", digest)
    return names


def test_all_files_count_but_for_bytecode(folder: Path) -> None:
    assert set(contents.digests(folder)) == {".git/c.py", "te/__init__.py", "te/data.json", "te/lib.so", "te/sub/b.py"}
    assert set(contents.digests(folder, endings=contents.MODULES)) == {"te/__init__.py", "te/lib.so", "te/sub/b.py"}


def test_environments_in_a_folder_have_no_modules_of_it(folder: Path) -> None:
    modules, files = contents.digests(folder, endings=contents.MODULES), contents.digests(folder)
    for mark in ("venv/pyvenv.cfg", "conda/conda-meta/history"):
        (folder / mark).parent.mkdir(parents=True)
        (folder / mark).touch()
        (folder / mark).with_name("x.py").touch()
    assert contents.digests(folder, endings=contents.MODULES) == modules
    assert len(contents.digests(folder)) == len(files) + 4, "Control: they are files"


def test_no_more_folders_are_looked_into_than_are_asked_for(folder: Path) -> None:
    """Home, ``te`` and ``te/sub``; the link leads to one of them."""
    (folder / "te" / "again").symlink_to(folder)
    assert contents.digests(folder, endings=contents.MODULES, most_folders=3) == contents.digests(
        folder, endings=contents.MODULES
    )
    with pytest.raises(ConfigError, match=r"^there are more than 2 folders to look into$"):
        contents.digests(folder, endings=contents.MODULES, most_folders=2)


def test_what_has_not_changed_is_not_read_again(folder: Path, read: list[str]) -> None:
    first = contents.digests(folder)
    assert len(read) == len(first)
    assert contents.digests(folder) == first
    assert len(read) == len(first)


def _edit_in_secret(home: Path) -> None:
    """The same size, and the time of the former content, as `cp -p` and archives have it."""
    file = home / "te/lib.so"
    before = file.stat()
    file.write_text("te/lib.SO")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        _edit_in_secret,
        lambda home: (home / "te/data.json").write_text("{}"),
        lambda home: (home / "te/sub/b.py").unlink(),
        lambda home: (home / "te/new.bin").touch(),
        lambda home: (home / "te/sub").rename(home / "te/other"),
    ],
    ids=["same size and time", "data", "removed", "added", "renamed"],
)
def test_every_change_is_seen(folder: Path, change: Callable[[Path], object]) -> None:
    first = contents.digests(folder)
    time.sleep(0.02)  # a tick of the file system's clock
    change(folder)
    assert contents.digests(folder) != first


def test_file_that_has_just_changed_is_read_again(
    folder: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a tick of the clock, another change of the same size would not show."""
    monkeypatch.setattr(contents, "_FRESH_NS", 10**12)
    first = contents.digests(folder)
    assert contents.digests(folder) == first
    assert len(read) == 2 * len(first)


@pytest.mark.parametrize("kept", ["", "[]", "{", '{"te/lib.so": 1}', '{"te/lib.so": []}', "\0"])
def test_damaged_note_is_no_error(folder: Path, tmp_path: Path, kept: str) -> None:
    first = contents.digests(folder)
    (file,) = (tmp_path / "cache").rglob("*.json")
    file.write_text(kept)
    assert contents.digests(folder) == first


def test_links_count_as_what_they_lead_to(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x.py").write_text("1")
    (folder / "linked").symlink_to(tmp_path / "outside")
    (folder / "dangling").symlink_to(tmp_path / "nowhere")
    (folder / "te" / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe")
    first = contents.digests(folder)
    assert "linked/x.py" in first
    assert first["dangling"] == first["pipe"] == "no file"
    (tmp_path / "outside" / "x.py").write_text("22")
    assert contents.digests(folder) != first
