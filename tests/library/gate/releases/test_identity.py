"""The identity of an installation: it follows all that is imported and loaded, and nothing else."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mnist_fp8.gate.releases import identity
from mnist_fp8.gate.releases.interpreters import Facts

SITE = "lib/python3.11/site-packages"
FILES = {"bin/python": "0", f"{SITE}/jax/a.py": "1", f"{SITE}/jax-1.dist-info/RECORD": "2", "pyvenv.cfg": "3"}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("bin/python", True),
        (f"{SITE}/jax/a.py", True),
        (f"{SITE}/jax/new.so", True),
        (f"{SITE}/sitecustomize.py", True),
        (f"{SITE}/x.pth", True),
        (f"{SITE}/jax-1.dist-info/METADATA", True),
        (f"{SITE}/jax-1.dist-info/RECORD", False),
        ("pyvenv.cfg", False),
        ("bin/pytest", False),
    ],
)
def test_made_environment_is_what_it_holds(name: str, *, counts: bool) -> None:
    first = identity.of_made(FILES, None)
    assert identity.of_made(dict(FILES), None) == first
    assert (identity.of_made(FILES | {name: "changed"}, None) != first) is counts


def _write(name: str) -> Callable[[Path], object]:
    def write(home: Path) -> None:
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_text("changed")

    return write


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("te/a.py", True),
        ("te/lib/native.so", True),
        ("te/data.json", True),
        ("te/pytorch/x.py", True),
        ("sitecustomize.py", True),
        ("te_jax.so", True),
        ("jax/__init__.py", True),
        ("helpers/without_init.py", True),
        ("helper.pyc", True),
        ("te-2.20.2.dist-info/METADATA", True),
        ("other-1.dist-info/entry_points.txt", True),
        ("README.md", False),
        ("notes/data.json", False),
    ],
)
def test_folder_is_all_that_can_be_imported_from_it(tmp_path: Path, name: str, *, counts: bool) -> None:
    for file in ("te/__init__.py", name):
        (tmp_path / "first" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "first" / file).touch()
    first = identity.of_made(FILES, tmp_path / "first")
    _write(name)(tmp_path / "first")
    assert (identity.of_made(FILES, tmp_path / "first") != first) is counts


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    """An interpreter with packages, a folder on PYTHONPATH, and two packages that lie elsewhere."""
    for name in (
        "site/flax/__init__.py",
        "site/te/lib.so",
        "site/te/data.json",
        "path/mine.py",
        "path/notes.txt",
        "archive.zip",
        "src/jax/__init__.py",
        "src/jax/b.py",
        "std/sitecustomize.py",
        "std/os.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    places = ("site/flax/__init__.py", "src/jax/__init__.py", "std/sitecustomize.py")
    return Facts(
        package=tmp_path / "site" / "te",
        distributions={},
        requires={},
        base="",
        sites=(str(tmp_path / "site"),),
        path=(str(tmp_path / "path"), str(tmp_path / "archive.zip"), str(tmp_path / "site")),
        places=tuple(str(tmp_path / place) for place in places),
        python="3.11.9 (GCC 13)",
        device="an H100",
    )


def of(facts: Facts) -> str:
    assert facts.package is not None
    return identity.of_adopted(facts, facts.sites, facts.package)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("site/flax/__init__.py", True),
        ("site/te/lib.so", True),
        ("site/te/data.json", True),
        ("site/new.pth", True),
        ("path/mine.py", True),
        ("path/sitecustomize.py", True),
        ("path/notes.txt", False),
        ("path/te-2.20.2.dist-info/METADATA", True),
        ("archive.zip", True),
        ("src/jax/b.py", True),
        ("std/sitecustomize.py", True),
        ("std/os.py", False),
    ],
)
def test_interpreter_is_all_that_it_can_import(tmp_path: Path, facts: Facts, name: str, *, counts: bool) -> None:
    first = of(facts)
    assert of(facts) == first
    _write(name)(tmp_path)
    assert (of(facts) != first) is counts


def test_interpreter_is_its_python_its_device_and_its_libraries(
    tmp_path: Path, facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {of(facts), of(dataclasses.replace(facts, python="3.12")), of(dataclasses.replace(facts, device="an H200"))}
    found.add(of(dataclasses.replace(facts, path=facts.path[::-1])))
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{tmp_path / 'cuda'}{os.pathsep}")
    (tmp_path / "cuda").mkdir()
    for size in (1, 2):
        (tmp_path / "cuda" / "libcudnn.so.9").write_bytes(bytes(size))
        found.add(of(facts))
    monkeypatch.setattr(identity, "describe_processor", lambda: "another")
    found.add(of(facts))
    assert len(found) == 7
