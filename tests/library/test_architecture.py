"""The arrows between the modules, and what is imported when."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.subprocesses import ROOT, broken_package, run_code, run_python, was_imported

PACKAGE = ROOT / "mnist_fp8"
PACKAGES = ("measure",)
"""Packages inside the package that have a test file as a module has."""
MODULES = sorted([path.stem for path in PACKAGE.glob("*.py")] + list(PACKAGES))
COMMANDS = sorted(path.stem for path in (PACKAGE / "commands").glob("*.py") if path.stem != "__init__")
SOURCES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py"), ROOT / "conftest.py"])
IMPORTING_CALLS = ("import_module", "__import__")


def imports(path: Path) -> set[str]:
    """Full names of everything a file imports, at its top, inside functions or by name through ``importlib``."""
    return {name for node in ast.walk(ast.parse(path.read_text())) for name in _imported(node)}


def _imported(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=module, names=names):
            yield from (f"{module}.{alias.name}" for alias in names)
        case ast.Call(func=ast.Attribute(attr=called) | ast.Name(id=called), args=[ast.Constant(value=str(name)), *_]):
            if called in IMPORTING_CALLS:
                yield name


def importers(prefix: str) -> set[str]:
    """Files of the project that import something of that name, relative to the repository."""
    return {
        str(path.relative_to(ROOT))
        for path in SOURCES
        if any(name == prefix or name.startswith(prefix + ".") for name in imports(path))
    }


def test_only_two_modules_import_transformer_engine() -> None:
    assert importers("transformer_engine") == {"mnist_fp8/te_api.py", "mnist_fp8/te_host.py"}


def test_nothing_in_the_package_imports_cli_except_main() -> None:
    assert {path for path in importers("mnist_fp8.cli") if path.startswith("mnist_fp8")} == {"mnist_fp8/__main__.py"}


def test_support_imports_neither_cli_nor_console_nor_plots() -> None:
    """What the claims rest on does not depend on what a person sees."""
    above = importers("mnist_fp8.cli") | importers("mnist_fp8.console") | importers("mnist_fp8.plots")
    assert not {path for path in above if path.startswith("tests/support")}


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        ("config", {"te_api", "data", "float8", "model", "train", "environment", "console", "plots"}),
        ("xla_flags", {"machine", "te_host", "te_api", "xla_products", "environment", "envs", "verify", "console"}),
        ("xla_products", {"te_api", "layers", "measure", "train", "model", "data", "environment", "console", "plots"}),
        ("machine", {"te_host", "te_api", "doctor", "layers", "float8", "environment", "envs", "verify", "console"}),
        ("doctor", {"te_host", "environment", "train", "envs", "verify", "console", "plots", "search"}),
        ("te_host", {"te_api", "data", "float8", "model", "train", "environment", "console", "plots"}),
        ("te_api", {"data", "float8", "model", "train", "environment", "console", "plots"}),
        ("float8", {"te_api", "data", "model", "train", "environment", "console", "plots"}),
        ("data", {"te_api", "float8", "model", "train", "environment", "console", "plots"}),
        ("model", {"train", "environment", "console", "plots"}),
        ("train", {"environment", "console", "plots"}),
        ("oracles", {"te_api", "layers", "tolerances", "measure", "train", "data", "float8", "model"}),
        ("tolerances", {"te_api", "layers", "measure", "train", "data", "float8", "model"}),
        ("layers", {"measure", "train", "data", "model", "facts"}),
        ("measurements", {"measure", "api", "meaning", "compare", "upgrade", "verdict_report", "envs", "verify"}),
        ("measure", {"api", "meaning", "compare", "policy", "upgrade", "verdict_report", "envs", "verify", "plots"}),
        ("api", {"meaning", "compare", "policy", "upgrade", "verdict_report", "envs", "verify", "measure"}),
        ("changes", {"meaning", "judgement", "compare", "policy", "upgrade", "verdict_report", "envs", "measure"}),
        ("judgement", {"compare", "policy", "upgrade", "verdict_report", "envs", "verify", "measure", "plots"}),
        (
            "meaning",
            {"changes", "judgement", "compare", "policy", "upgrade", "verdict_report", "envs", "verify", "measure"},
        ),
        ("policy", {"compare", "upgrade", "verdict_report", "envs", "verify", "measure"}),
        ("compare", {"upgrade", "verdict_report", "envs", "verify", "measure", "plots"}),
        ("upgrade", {"compare", "meaning", "policy", "verdict_report", "report", "plots", "measure"}),
        ("verdict_report", {"envs", "verify", "upgrade", "measure", "policy"}),
        ("config", {"records", "envs", "verify", "matrix", "bisect", "report"}),
        ("records", {"envs", "verify", "matrix", "bisect", "report"}),
        ("envs", {"records", "verify", "matrix", "bisect", "report"}),
        ("verify", {"matrix", "bisect", "report"}),
        ("matrix", {"bisect", "report"}),
        ("bisect", {"matrix", "report"}),
        ("report", {"envs", "verify", "matrix", "bisect"}),
        ("roofline", {"te_api", "train", "benchmark_results", "benchmark", "benchmark_report", "benchmark_plots"}),
        ("benchmark_results", {"te_api", "train", "benchmark", "benchmark_report", "benchmark_plots", "plots"}),
        ("benchmark", {"benchmark_report", "benchmark_plots", "plots", "envs", "verify", "upgrade", "measure"}),
        ("benchmark_plots", {"te_api", "train", "benchmark", "benchmark_report"}),
        ("benchmark_report", {"te_api", "train", "benchmark"}),
    ],
)
def test_lower_module_knows_nothing_of_a_higher_one(lower: str, higher: set[str]) -> None:
    file = PACKAGE / f"{lower}.py"
    sources = [file] if file.exists() else sorted((PACKAGE / lower).glob("*.py"))
    found = {name for source in sources for name in imports(source)}
    assert found, "Control: there is something to look at"
    above = {f"mnist_fp8.{name}" for name in (*higher, "commands", "cli")}
    assert not {name for name in found if any(name == each or name.startswith(f"{each}.") for each in above)}


def test_no_command_knows_another() -> None:
    found = {name: imports(PACKAGE / "commands" / f"{name}.py") for name in COMMANDS}
    others = {f"mnist_fp8.commands.{name}" for name in COMMANDS if name != "common"}
    assert not {name for name in COMMANDS if {each.rpartition(".")[0] for each in found[name]} & others}


def test_judging_imports_neither_jax_nor_transformer_engine() -> None:
    """What is judged runs in processes of its own; the one that judges stays apart from it."""
    code = """
        import sys
        import mnist_fp8.bisect, mnist_fp8.matrix, mnist_fp8.report, mnist_fp8.verify
        import mnist_fp8.compare, mnist_fp8.upgrade, mnist_fp8.verdict_report
        print([name for name in ("jax", "flax", "numpy", "transformer_engine") if name in sys.modules])
    """
    assert run_code(code).strip() == "[]"


def test_each_module_has_its_test_file() -> None:
    mirrored = {name for name in MODULES if not name.startswith("__")}
    there = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    assert mirrored - there == set(), "modules without a test file"
    assert there - mirrored == {"architecture"}, "test files without a module"


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
    )
    code = f"""
        import sys
        import mnist_fp8.cli, mnist_fp8.config
        print([name for name in {heavy!r} if name in sys.modules])
    """
    assert run_code(code).strip() == "[]"


def test_no_module_imports_transformer_engine_when_it_is_imported(tmp_path: Path) -> None:
    names = [f"mnist_fp8.{name}" for name in MODULES if name != "__main__"]
    broken = broken_package(tmp_path, "transformer_engine")
    run_code(f"import importlib\nfor name in {names!r}: importlib.import_module(name)", first_on_path=broken)
    assert not was_imported(tmp_path, "transformer_engine")


def test_collecting_the_suite_needs_no_transformer_engine(tmp_path: Path) -> None:
    broken = broken_package(tmp_path, "transformer_engine")
    arguments = ("-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider")
    printed = run_python(*arguments, first_on_path=broken)
    assert "tests/claims/test_float8_in_jaxpr.py::" in printed, "Control: the claims were collected"
    assert not was_imported(tmp_path, "transformer_engine")


def test_collecting_the_suite_starts_no_device() -> None:
    run_python("-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", JAX_PLATFORMS="no-such-platform")


def test_test_bodies_do_not_skip() -> None:
    """What a test needs is a mark; one hook in conftest.py decides."""
    marks = ("pytest.skip", "skipif", "importorskip")
    found = [
        f"{path.name}: {ast.unparse(node)}"
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node).endswith(marks)
    ]
    assert not found


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("import a.b", "a.b"),
        ("from a import b", "a.b"),
        ("def f():\n    import a.b", "a.b"),
        ("importlib.import_module('a.b')", "a.b"),
        ("import_module('a.b')", "a.b"),
    ],
)
def test_imports_of_every_form_are_seen(tmp_path: Path, line: str, name: str) -> None:
    """The tester tested: the rules above rest on this."""
    source = tmp_path / "source.py"
    source.write_text(line)
    assert name in imports(source)
