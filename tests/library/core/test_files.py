"""Files that are never seen half-written."""

from pathlib import Path

import pytest

from mnist_fp8.core import files
from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.files import replace_file


def test_file_is_replaced_and_its_folder_made(tmp_path: Path) -> None:
    file = tmp_path / "new" / "results.json"
    for content in (b"older", b"newer"):
        replace_file(file, content)
        assert file.read_bytes() == content
    assert list(file.parent.iterdir()) == [file]


def test_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "results.json"
    folder.mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(folder, b"content")
    assert list(tmp_path.iterdir()) == [folder]


def test_older_file_stays_until_the_new_one_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "results.json"
    file.write_bytes(b"older")

    def half(path: Path, content: bytes) -> None:
        with path.open("wb") as partial:
            partial.write(content[:1])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="no space left"):
        replace_file(file, b"newer")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"older"]


def test_cache_needs_a_home_folder_only_where_no_other_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As for a user id without a name in a container."""

    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    assert files.cache_dir({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "mnist_fp8"
    with pytest.raises(ConfigError, match=r"^this user has no home folder: set HOME, or XDG_CACHE_HOME to an absolute"):
        files.cache_dir({})
