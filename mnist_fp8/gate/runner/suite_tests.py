"""The claims of the suite and their test functions, read from its files: what a whole record has outcomes of."""

import ast
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from mnist_fp8.gate.releases.staging import suite_source


def claim_files() -> dict[str, Path]:
    """The files of all claims by their names, in the suite's order."""
    files = sorted((suite_source() / "tests" / "claims").glob("test_*.py"))
    return {file.stem.removeprefix("test_"): file for file in files}


def suite_tests() -> Mapping[str, Collection[str]]:
    """The names of the test functions by claim, as pytest writes them after the file's name."""
    return {claim: tuple(_functions(ast.parse(file.read_bytes()))) for claim, file in claim_files().items()}


def _functions(module: ast.Module | ast.ClassDef) -> Iterator[str]:
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node.name
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            yield from (f"{node.name}::{name}" for name in _functions(node))
