"""The suite as a user meets it: what it refuses, what it skips, how it says so, and what it knows of releases."""

import dataclasses
import inspect
import json
import os
import shutil
import subprocess
import sys
import textwrap
import types
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from mnist_fp8 import te
from mnist_fp8.core import model
from mnist_fp8.core.capability import VARIABLE as VARIABLE_OF_CAPABILITY
from mnist_fp8.core.capability import Capability
from mnist_fp8.core.errors import ConfigError, TeUnavailableError
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.core.subjects import VARIABLE
from mnist_fp8.doctor import checks
from mnist_fp8.gate.releases import staging
from mnist_fp8.plugin import header, hooks, mappings, needs, selection
from mnist_fp8.te import recipes
from support.subprocesses import ROOT, run_code

pytest_plugins = ["pytester"]

CONFTEST = 'pytest_plugins = ["mnist_fp8.plugin.hooks"]'
SETTINGS = """
[pytest]
addopts = -ra --strict-markers
xfail_strict = true
markers =
"""


class Suite:
    """A suite of one file of claims that loads the plugin. It runs in this process: what is patched here is there."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester = pytester
        pytester.makeconftest(CONFTEST)
        pytester.makefile(".ini", pytest=SETTINGS + "\n".join(f"    {name}" for name in needs.NEEDS))
        (pytester.path / "tests" / "claims").mkdir(parents=True)
        self.expectations = pytester.path / "tests" / "expectations.toml"
        self.expectations.touch()

    def run(self, claims: str, *arguments: str) -> pytest.RunResult:
        """Run pytest with these claims."""
        self._write(claims)
        return self._pytester.runpytest_inprocess(*arguments)

    def run_apart(self, claims: str, *arguments: str) -> pytest.RunResult:
        """Run pytest with these claims in a process of its own."""
        self._write(claims)
        return self._pytester.runpytest_subprocess(*arguments)

    def _write(self, claims: str) -> None:
        (self._pytester.path / "tests" / "claims" / "test_a.py").write_text(textwrap.dedent(claims))


@pytest.fixture
def suite(pytester: pytest.Pytester) -> Suite:
    return Suite(pytester)


def become(monkeypatch: pytest.MonkeyPatch, kind: RunKind) -> None:
    """Have all that ask for the kind of run see this one."""
    engine = dataclasses.replace(te.engine(), kind=kind)
    monkeypatch.setattr(te, "engine", lambda: engine)


def refuse_to_load(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Have Transformer Engine not load."""

    def load() -> te.Engine:
        raise error

    monkeypatch.setattr(te, "engine", load)


def only_line(run: pytest.RunResult) -> str:
    """The one line that a refused run prints."""
    lines = [line for line in (*run.outlines, *run.errlines) if line.strip()]
    assert run.ret == pytest.ExitCode.USAGE_ERROR, run.outlines
    assert len(lines) == 1, f"output is {len(lines)} lines: {lines}"
    return lines[0]


def run_pytest(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in a process of its own, in the project's folder."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(  # noqa: S603 - our own command
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=120
    )


# --- the suite of the project --------------------------------------------------------------------------------------


@pytest.mark.host
def test_skip_of_the_project_names_what_is_needed_and_found_and_counts_as_not_verified(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    run = run_pytest("tests/claims/test_kernels.py", f"--mnist-fp8-json={file}")
    assert run.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, run.stdout
    assert "needs a kernel run on a GPU; found a host run" in run.stdout
    assert "tests were NOT VERIFIED" in run.stdout
    assert " passed" not in run.stdout
    assert f"\nrun: {RunKind.HOST.describe()}\n" in run.stdout
    assert json.loads(file.read_text())["run"] == RunKind.HOST.describe()


@pytest.mark.host
def test_unavailable_te_ends_the_run_with_one_line_that_names_the_piece() -> None:
    run = run_pytest(MNIST_FP8_TE="kernel", JAX_PLATFORMS="")
    lines = [line for line in (run.stdout + run.stderr).splitlines() if line.strip()]
    assert run.returncode == pytest.ExitCode.USAGE_ERROR, run.stdout
    assert len(lines) == 1, f"output is {len(lines)} lines: {lines}"
    assert "nothing can be verified: MNIST_FP8_TE=kernel needs a GPU and TE's CUDA extension; found " in lines[0]
    assert "; NVIDIA driver: needed CUDA " in lines[0]
    assert lines[0].endswith(" (mnist-fp8 doctor says more)")


PRETENDED = """
from transformer_engine_jax import get_device_compute_capability

def test_pretended(): assert get_device_compute_capability(0) == 100
"""


@pytest.mark.host
@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=["alone", "in a worker"])
def test_capability_that_is_asked_for_is_pretended_and_said(
    suite: Suite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, workers: list[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    file = tmp_path / "run.json"
    run = suite.run_apart(PRETENDED, *workers, "--capability=10.0", f"--mnist-fp8-json={file}")
    run.assert_outcomes(passed=1)
    said = RunKind.HOST.describe(Capability.BLACKWELL)
    run.stdout.fnmatch_lines([f"run: {said}", f"{VARIABLE_OF_CAPABILITY}: 10.0", said])
    written = json.loads(file.read_text())
    assert (written["run"], written["environment"][VARIABLE_OF_CAPABILITY]) == (said, "10.0")


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "found"), [("no NVIDIA driver", "no NVIDIA driver"), ("", "a GPU, but MNIST_FP8_TE=host")]
)
def test_asking_for_a_gpu_on_a_host_run_ends_with_one_line(
    suite: Suite, monkeypatch: pytest.MonkeyPatch, reason: str, found: str
) -> None:
    become(monkeypatch, RunKind.HOST)
    monkeypatch.setattr(te, "why_no_gpu", lambda: reason)
    line = only_line(suite.run("def test_a(): pass", "-m", "gpu"))
    assert line == f"ERROR: -m gpu needs a kernel run: a GPU and TE's CUDA extension; found {found}"


def test_asking_for_a_gpu_on_a_kernel_run_selects_the_claims(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    become(monkeypatch, RunKind.KERNEL)
    run = suite.run("def test_a(): pass", "-m", "gpu")
    run.assert_outcomes(passed=1)


def test_capability_that_cannot_be_pretended_ends_with_one_line(suite: Suite) -> None:
    line = only_line(suite.run("def test_a(): pass", "--capability", "8.9"))
    assert line == "ERROR: nothing can be verified: compute capability is '8.9'; expected 9.0 or 10.0"


def test_unknown_kind_of_run_ends_with_one_line(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_to_load(monkeypatch, ConfigError("MNIST_FP8_TE is 'cuda'; expected 'kernel' or 'host'"))
    line = only_line(suite.run("def test_a(): pass"))
    assert line == "ERROR: nothing can be verified: MNIST_FP8_TE is 'cuda'; expected 'kernel' or 'host'"


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        ("", "it is broken (mnist-fp8 doctor says more)"),
        ("Flax: found none", "it is broken; Flax: found none (mnist-fp8 doctor says more)"),
    ],
)
def test_refusal_names_what_does_not_fit_in_one_line(
    suite: Suite, monkeypatch: pytest.MonkeyPatch, problem: str, line: str
) -> None:
    monkeypatch.setattr(checks, "first_problem", lambda: problem)
    refuse_to_load(monkeypatch, TeUnavailableError("it is\n  broken"))
    assert only_line(suite.run("def test_a(): pass")) == f"ERROR: nothing can be verified: {line}"


def test_refusal_does_without_the_doctor_where_it_is_not_staged(tmp_path: Path) -> None:
    package = staging.PACKAGE_FOLDER

    def judges(folder: str, names: list[str]) -> set[str]:
        return set(names) - set(staging.STAGED) if Path(folder) == package else set()

    shutil.copytree(package, tmp_path / package.name, ignore=judges)
    code = "from mnist_fp8.plugin import refusal; print(refusal.explain(Exception('it is\\n  broken')))"
    assert run_code(code, cwd=tmp_path).strip() == "it is broken"


@pytest.mark.host
def test_python_without_assertions_is_refused_with_one_line() -> None:
    run = run_pytest("tests/claims/test_kernels.py", PYTHONOPTIMIZE="1")
    (line,) = [line for line in (run.stdout + run.stderr).splitlines() if line.startswith("ERROR")]
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert " tests" not in run.stdout, "none ran"
    assert "Python leaves out the assertions of the suite (-O or PYTHONOPTIMIZE); run it without" in line


# --- needs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "selects"),
    [
        ("gpu", True),
        ("gpu and not slow", True),
        ("slow or gpu", True),
        ("not gpu", False),
        ("", False),
        ("slow", False),
        ("not slow and not gpu", False),
        ("not (gpu)", False),
        ("not(gpu or slow)", False),
        ("gpu and devices", True),
    ],
)
def test_gpu_tests_are_selected_by_asking_for_them(expression: str, selects: bool) -> None:  # noqa: FBT001
    assert selection.selects_gpu(expression) is selects


def test_needs_of_every_mark_are_known() -> None:
    """A mark that the hook does not know would need nothing, and its test would run where it cannot."""
    declared = (ROOT / "pytest.ini").read_text().partition("markers =")[2].partition("filterwarnings")[0]
    marks = {line.split("(")[0].split(":")[0].strip() for line in declared.splitlines() if ":" in line}
    marks -= {"slow", "training_run"}  # need nothing but time
    assert marks == set(needs.NEEDS), f"marks={sorted(marks)}, needs={sorted(needs.NEEDS)}"


def test_layer_that_was_not_asked_for_is_not_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "LayerNorm")
    asked_for = needs.NEEDS["subject"]("LayerNormMLP", "gelu")
    assert asked_for == "needs subject LayerNormMLP among those asked for; found DenseGeneral, LayerNorm"
    assert needs.NEEDS["subject"]("LayerNorm", "layernorm") is None
    monkeypatch.delenv(VARIABLE)
    assert needs.NEEDS["subject"]("LayerNormMLP", "gelu") is None


def test_needs_say_what_was_found() -> None:
    assert needs.NEEDS["devices"](1) is None
    assert "needs 4096 devices; found " in str(needs.NEEDS["devices"](4096))
    assert needs.NEEDS["recipe"]("DelayedScaling") is None
    assert "needs recipe Float8BlockScaling; found: Unsupported" in str(needs.NEEDS["recipe"]("Float8BlockScaling"))
    assert needs.NEEDS["recipe"]("Unheard") == f"needs recipe Unheard; found {', '.join(te.recipe_names())}"
    assert (needs.NEEDS["gpu"]() is None) is not (needs.NEEDS["host"]() is None)


def test_function_that_takes_something_new_is_not_stood_in_for() -> None:
    path = ("dense", "dense")
    known = set(inspect.signature(te.find_name(*path)).parameters)
    assert needs.NEEDS["te_parameters"](path, known | {"former"}) is None
    reason = needs.NEEDS["te_parameters"](path, known - {"kernel"})
    assert reason == "needs dense.dense of parameters that the suite knows; found kernel"
    assert "found none in " in str(needs.NEEDS["te_parameters"](("dense", "gone"), known))


def test_partitioner_that_ends_the_process_is_given_no_block_on_two_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    config = types.SimpleNamespace()
    monkeypatch.setattr(needs, "jax", types.SimpleNamespace(config=config))
    assert needs.NEEDS["shardy"]() is None, "a JAX that has but the one"
    config.jax_use_shardy_partitioner = False
    assert str(needs.NEEDS["shardy"]()).startswith("needs Shardy, JAX's partitioner by default; found GSPMD")
    config.jax_use_shardy_partitioner = True
    assert needs.NEEDS["shardy"]() is None


def test_asking_for_a_gpu_leaves_files_without_a_gpu_test_unread(
    suite: Suite, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may import what a GPU machine lacks."""
    become(monkeypatch, RunKind.KERNEL)
    monkeypatch.setitem(needs.NEEDS, "gpu", lambda: None)
    (pytester.path / "tests" / "test_judge.py").write_text("import no_such_package")
    (pytester.path / "tests" / "test_trace.py").write_text("import pytest\n@pytest.mark.gpu\ndef test_b(): pass")
    suite.run("def test_a(): pass", "-m", "gpu").assert_outcomes(passed=2)
    suite.run("def test_a(): pass").assert_outcomes(errors=1)


def test_needs_become_skips_with_what_was_found_and_the_rest_runs(
    suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(monkeypatch, RunKind.HOST)
    claims = """
        import pytest

        @pytest.mark.gpu
        def test_kernel(): pass

        @pytest.mark.te_name("NoSuchName")
        def test_name(): pass

        @pytest.mark.host
        def test_host(): pass
    """
    run = suite.run(claims)
    run.assert_outcomes(passed=1, skipped=2)
    assert run.ret == pytest.ExitCode.OK
    run.stdout.fnmatch_lines_random(
        [
            "SKIPPED * needs a kernel run on a GPU; found a host run",
            f"SKIPPED * needs NoSuchName in transformer_engine.jax; found none in {te.version()}",
            "2 tests were NOT VERIFIED; the reasons are above",
            RunKind.HOST.describe(),
        ]
    )


def test_run_in_which_all_is_skipped_has_verified_nothing(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    become(monkeypatch, RunKind.HOST)
    run = suite.run("import pytest\n@pytest.mark.gpu\ndef test_kernel(): pass")
    run.assert_outcomes(skipped=1)
    assert run.ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_what_is_judged_cannot_excuse_itself(suite: Suite) -> None:
    claims = """
        import pytest

        @pytest.fixture
        def model(): pytest.xfail("known")

        def test_expected_to_fail_from_inside(): pytest.xfail("known")
        def test_skipped_from_inside(): pytest.skip("needs nothing; found none")
        def test_whose_fixture_expects_it(model): pass

        @pytest.mark.skip(reason="control")
        def test_skipped_by_its_mark(): pass

        @pytest.mark.xfail(reason="control")
        def test_expected_to_fail_by_its_mark(): assert 0
    """
    run = suite.run(claims)
    run.assert_outcomes(failed=2, errors=1, skipped=1, xfailed=1)
    run.stdout.fnmatch_lines_random(
        ["E * what is judged ends the test that judges it: XFailed: known", "E * Skipped: needs nothing; found none"]
    )


def test_text_that_no_encoding_has_is_a_failure_and_ends_no_run(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    claims = """
        import pytest

        def test_a(): raise ValueError("half \\udcff")
        def test_b(): pass

        @pytest.mark.skip(reason="control")
        def test_c(): pass
    """
    run = suite.run(claims, "-p", "xdist", "-n", "1")
    run.assert_outcomes(failed=1, passed=1, skipped=1)
    run.stdout.fnmatch_lines(["E*ValueError: half \\udcff"])


REPLACING = """
    import pytest
    from {package} import {owner}

    def test_before(): pass

    def test_that_replaces(monkeypatch):
        monkeypatch.setattr({owner}, "{name}", lambda *_, **__: None, raising=False)
"""


@pytest.mark.parametrize(
    ("package", "owner", "name", "says"),
    [
        ("_pytest.assertion", "util", "assertrepr_compare", "_pytest.assertion.util.assertrepr_compare"),
        ("mnist_fp8.model.problems", "Problem", "__str__", "mnist_fp8.model.problems.Problem.__str__"),
        ("os", "path", "isjunction_", ""),
    ],
)
def test_what_is_judged_cannot_replace_what_judges(
    suite: Suite, monkeypatch: pytest.MonkeyPatch, package: str, owner: str, name: str, says: str
) -> None:
    claims = REPLACING.format(package=package, owner=owner, name=name)
    suite.run(claims).assert_outcomes(passed=2)  # control: nothing but a test is judged
    monkeypatch.setenv(model.VARIABLE, "ours.model:case")
    run = suite.run(claims)
    run.assert_outcomes(passed=1 if says else 2, failed=bool(says))
    if says:
        run.stdout.fnmatch_lines([f"E * what is judged has replaced functions of what judges: {says}"])


# --- what is known of releases -------------------------------------------------------------------------------------

KNOWN = """
[[expect]]
tests = ["test_a.py::test_wrong"]
releases = ">=2"
kind = "defect"
reason = "it rounds twice"
remove = "never"

[[expect]]
tests = ["test_a.py::test_lacks"]
releases = ">=2"
kind = "absent"
reason = "a current scaling"
remove = "never"
"""
CLAIMS = "def test_wrong(): assert 0\ndef test_lacks(): assert 0\ndef test_good(): pass"


def test_known_defect_and_absence_are_marks(suite: Suite) -> None:
    suite.expectations.write_text(KNOWN)
    run = suite.run(CLAIMS)
    run.assert_outcomes(passed=1, xfailed=1, skipped=1)
    run.stdout.fnmatch_lines_random(
        [
            f"SKIPPED * needs a current scaling; found Transformer Engine {te.version()}",
            "XFAIL * it rounds twice",
        ]
    )


def test_known_defect_that_is_gone_is_an_error(suite: Suite) -> None:
    suite.expectations.write_text(KNOWN)
    run = suite.run(CLAIMS.replace("wrong(): assert 0", "wrong(): pass"))
    run.assert_outcomes(passed=1, failed=1, skipped=1)


def test_stray_pattern_is_an_error_where_all_claims_are_collected(suite: Suite) -> None:
    suite.expectations.write_text(KNOWN)
    run = suite.run("def test_wrong(): assert 0")
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    run.stderr.fnmatch_lines([f"ERROR: {suite.expectations}: these patterns fit no test: test_a.py::test_lacks"])


@pytest.mark.parametrize(
    ("text", "problem"),
    [(KNOWN.replace("defect", "flaky"), "*kind is 'flaky'*"), (None, "*No such file*")],
    ids=["wrong entry", "no file"],
)
def test_wrong_file_of_expectations_is_one_line(suite: Suite, text: str | None, problem: str) -> None:
    suite.expectations.write_text(text) if text else suite.expectations.unlink()
    run = suite.run(CLAIMS)
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    run.stderr.fnmatch_lines([f"ERROR: {suite.expectations}: {problem}"])


def test_room_is_made_for_programs_while_tests_run(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[None] = []
    monkeypatch.setattr(mappings, "forget_programs", lambda: made.append(None))
    count = 2 * mappings.EVERY
    claims = f"import pytest\n@pytest.mark.parametrize('n', range({count}))\ndef test_a(n): pass"
    suite.run(claims).assert_outcomes(passed=count)
    assert len(made) == 2


# --- header --------------------------------------------------------------------------------------------------------


def test_header_is_for_people_and_as_json_for_programs(suite: Suite, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    run = suite.run("def test_good(): pass", f"--mnist-fp8-json={file}")
    written = json.loads(file.read_text())
    assert written["run"] == te.engine().description
    facts = {"run": written["run"], **written["environment"]}
    run.stdout.fnmatch_lines([f"{name}: *" for name in facts])
    for fact in ("transformer-engine", "jax", "flax", "python", "device", "recipes"):
        assert f"{fact}: {facts[fact]}" in run.outlines
    assert facts["transformer-engine"] == te.version()


def test_header_names_the_model_that_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(model.VARIABLE, "ours.model:case")
    assert header.facts()["model"] == "ours.model:case"
    monkeypatch.delenv(model.VARIABLE)
    assert "model" not in header.facts()


def test_json_is_written_where_the_header_is_not_shown(suite: Suite, tmp_path: Path) -> None:
    suite.run("def test_good(): pass", "-q", f"--mnist-fp8-json={tmp_path / 'run.json'}")
    assert (tmp_path / "run.json").exists()


@pytest.mark.parametrize(
    ("of_a_worker", "collectonly", "written"), [(False, False, True), (True, False, False), (False, True, False)]
)
def test_only_the_process_that_runs_the_suite_writes_json(
    tmp_path: Path, *, of_a_worker: bool, collectonly: bool, written: bool
) -> None:
    file = tmp_path / "run.json"
    config = SimpleNamespace(option=SimpleNamespace(mnist_fp8_json=file, collectonly=collectonly))
    if of_a_worker:
        config.workerinput = {"workerid": "gw0"}
    hooks.pytest_sessionstart(cast("pytest.Session", SimpleNamespace(config=config)))
    assert file.exists() is written


@pytest.mark.host
def test_worker_says_what_it_imported_and_collected_before_anything_is_left_out(tmp_path: Path) -> None:
    file = "tests/claims/test_kernels.py"
    run = run_pytest(file, "-n1", "-k", "trace", f"--mnist-fp8-json={tmp_path / 'run.json'}")
    assert run.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, run.stdout
    of_worker = json.loads((tmp_path / "run-gw0.json").read_text())
    imported = json.loads((tmp_path / "run.json").read_text())["imported"]
    names = run_pytest(file, "--collect-only", "-q").stdout.splitlines()
    assert len(of_worker["tests"]) > 5
    assert sorted(of_worker["tests"]) == sorted(name for name in names if "::" in name), run.stdout
    assert of_worker["imported"]["test_kernels"] == str(ROOT / file)
    for name in ("transformer_engine", "transformer_engine.jax", "jax", "flax"):
        assert imported[name] == of_worker["imported"][name] == sys.modules[name].__file__


def test_tests_of_a_list_are_spared_unless_they_have_to_fail(suite: Suite, tmp_path: Path) -> None:
    names = [f"tests/claims/test_a.py::test_{name}" for name in ("wrong", "good", "of_no_suite")]
    (tmp_path / "spare.json").write_text(json.dumps(names))
    suite.expectations.write_text(KNOWN)
    run = suite.run(f"{CLAIMS}\ndef test_other(): pass", f"--mnist-fp8-spare={tmp_path / 'spare.json'}")
    run.assert_outcomes(passed=1, xfailed=1, skipped=1, deselected=1)


@pytest.mark.parametrize("content", ["", "7", "[[]]"])
def test_list_of_tests_to_spare_that_cannot_be_read_is_refused(suite: Suite, tmp_path: Path, content: str) -> None:
    (tmp_path / "spare.json").write_text(content)
    run = suite.run("def test_a(): pass", f"--mnist-fp8-spare={tmp_path / 'spare.json'}")
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    run.stderr.fnmatch_lines(["ERROR: --mnist-fp8-spare: *spare.json is no JSON list of names of tests: *"])


def test_training_runs_begin_first(suite: Suite) -> None:
    claims = """
    import pytest

    def test_a(): pass

    @pytest.mark.training_run
    def test_z(): pass
    """
    run = suite.run(claims, "--collect-only", "-q", "-W", "ignore::pytest.PytestUnknownMarkWarning")
    assert [line.rpartition("::")[2] for line in run.outlines[:2]] == ["test_z", "test_a"]


def test_collecting_says_nothing_of_the_run(suite: Suite, tmp_path: Path) -> None:
    run = suite.run("def test_good(): pass", "--collect-only", f"--mnist-fp8-json={tmp_path / 'run.json'}")
    run.stdout.no_fnmatch_line("run: *")
    assert not (tmp_path / "run.json").exists()


def test_header_survives_a_transformer_engine_that_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> tuple[str, ...]:
        raise TypeError("on purpose")

    monkeypatch.setattr(recipes, "recipe_names", broken)
    facts = header.describe_recipes()
    assert facts == {"recipes": "Transformer Engine cannot be asked: TypeError: on purpose"}
