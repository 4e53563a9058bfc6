"""Which of the tests are claims, and whether GPU tests are asked for."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from _pytest.mark.expression import Expression


def selects_gpu(expression: str) -> bool:
    """Whether a ``-m`` expression asks for GPU tests: a test is selected because of its mark ``gpu``."""
    if not expression:
        return False
    selects = Expression.compile(expression).evaluate

    def selected(*, gpu: bool, others: bool) -> bool:
        return selects(lambda name, /, **_: gpu if name == "gpu" else others)

    return any(selected(gpu=True, others=others) and not selected(gpu=False, others=others) for others in (False, True))


def has_gpu_test(file: Path, claims: Path) -> bool:
    """Whether a test file may hold one: all claims are GPU tests where these are asked for, and others are marked."""
    return claims in file.parents or "mark.gpu" in file.read_text()


def named_claims(items: Iterable[pytest.Item], folder: Path) -> dict[pytest.Item, str]:
    """The tests of claims among some tests, each with its name, such as ``test_file.py::test_name[parameter]``."""
    return {item: f"{item.path.name}::{item.name}" for item in items if folder in item.path.parents}


def are_all(claims: Mapping[pytest.Item, str], folder: Path) -> bool:
    """Whether each file of claims in a folder has one of these tests."""
    return {item.path for item in claims} == set(folder.glob("test_*.py"))


def spared(items: Iterable[pytest.Item], file: Path | None) -> list[pytest.Item]:
    """The tests that a file lists by name, but for those that are expected to fail.

    Args:
        items: tests, with their marks.
        file: a JSON list of names; ``None`` spares none.

    Raises:
        UsageError: it cannot be read.
    """
    if file is None:
        return []
    try:
        names = frozenset(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise pytest.UsageError(f"--mnist-fp8-spare: {file} is no JSON list of names of tests: {error}") from error
    return [item for item in items if item.nodeid in names and not item.get_closest_marker("xfail")]


def add_mark(items: Iterable[pytest.Item], mark: pytest.MarkDecorator) -> None:
    """Add a mark to tests."""
    for item in items:
        item.add_marker(mark)
