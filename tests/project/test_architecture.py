"""The arrows between the modules, and what is imported when."""

import ast
from pathlib import Path

from support.subprocesses import ROOT, broken_package, run_code, run_python, was_imported

PACKAGE = ROOT / "mnist_fp8"
MODULES = sorted(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in PACKAGE.rglob("[!_]*.py"))


def test_judging_imports_neither_jax_nor_transformer_engine() -> None:
    """What is judged runs in processes of its own; the one that judges stays apart from it."""
    code = f"""
        import sys
        import importlib
        GATE = {[name for name in MODULES if name.startswith("mnist_fp8.gate")]!r}
        for name in GATE: importlib.import_module(name)
        print([name for name in ("jax", "flax", "numpy", "transformer_engine") if name in sys.modules])
    """
    assert run_code(code).strip() == "[]"


def test_command_line_and_config_import_nothing_heavy() -> None:
    """``mnist-fp8 --help`` and a wrong command line answer at once."""
    heavy = (
        "jax",
        "flax",
        "matplotlib",
        "tensorflow_datasets",
        "rich",
        "numpy",
        "transformer_engine",
        "jinja2",
        "filelock",
        "msgspec",
        "griffe",
    )
    code = f"""
        import sys
        import mnist_fp8.cli.main, mnist_fp8.core.modes
        print([name for name in {heavy!r} if name in sys.modules])
    """
    assert run_code(code).strip() == "[]"


def test_no_module_imports_transformer_engine_when_it_is_imported(tmp_path: Path) -> None:
    broken = broken_package(tmp_path, "transformer_engine")
    run_code(f"import importlib\nfor name in {MODULES!r}: importlib.import_module(name)", first_on_path=broken)
    assert not was_imported(tmp_path, "transformer_engine")


def test_collecting_the_suite_needs_no_transformer_engine_and_starts_no_device(tmp_path: Path) -> None:
    broken = broken_package(tmp_path, "transformer_engine")
    arguments = ("-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider")
    printed = run_python(*arguments, first_on_path=broken, variables={"JAX_PLATFORMS": "no-such-platform"})
    assert "tests/claims/test_float8_in_jaxpr.py::" in printed, "Control: the claims were collected"
    assert not was_imported(tmp_path, "transformer_engine")


def test_test_bodies_do_not_skip() -> None:
    """What a test needs is a mark; one hook of the plugin decides."""
    marks = ("pytest.skip", "skipif", "importorskip")
    found = [
        f"{path.name}: {ast.unparse(node)}"
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node).endswith(marks)
    ]
    assert not found
