"""The wall: what judges is no part of what a kept result depends on."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mnist_fp8.gate.releases import staging
from support.subprocesses import ROOT

Keys = tuple[str, str]


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Keys]]:
    """The keys of suite results and of entries, for a copy of the project that may be edited."""
    left_out = shutil.ignore_patterns("__pycache__", "mnist_files", "library", "meta", "proofs", "project")
    for name in ("mnist_fp8", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=left_out)
    for name in ("conftest.py", "pytest.ini"):
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.setattr(staging, "PACKAGE_FOLDER", tmp_path / "mnist_fp8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def found() -> Keys:
        staging.stage.cache_clear()
        staging.measuring_digest.cache_clear()
        return staging.stage().name, staging.measuring_digest()

    yield found
    staging.stage.cache_clear()
    staging.measuring_digest.cache_clear()


def edit(file: Path) -> None:
    text = file.read_text()
    assert '"""' in text
    file.write_text(text.replace('"""', '"""Really: ', 1))


@pytest.mark.parametrize(
    "file",
    [
        "doctor/checks.py",
        "gate/reports/values.py",
        "gate/reports/verdict/terminal.py",
        "gate/verdict/rules/numbers.py",
        "gate/runner/upgrade.py",
        "benchmark/report.py",
        "cli/main.py",
    ],
)
def test_editing_what_judges_changes_no_key(keys: Callable[[], Keys], tmp_path: Path, file: str) -> None:
    before = keys()
    edit(tmp_path / "mnist_fp8" / file)
    assert keys() == before


@pytest.mark.parametrize("file", ["oracle/dense.py", "te/recipes.py", "measure/numerics.py", "record/entries.py"])
def test_editing_what_measures_changes_both_keys(keys: Callable[[], Keys], tmp_path: Path, file: str) -> None:
    before = keys()
    edit(tmp_path / "mnist_fp8" / file)
    assert all(new != old for new, old in zip(keys(), before, strict=True))


def test_editing_a_claim_changes_the_key_of_suite_results_alone(keys: Callable[[], Keys], tmp_path: Path) -> None:
    before = keys()
    edit(tmp_path / "tests" / "claims" / "test_fp8_numerics.py")
    after = keys()
    assert after[0] != before[0]
    assert after[1] == before[1]
