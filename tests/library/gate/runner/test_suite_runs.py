"""Runs of the suite: real pytest runs of tiny suites that crash, hang and break."""

import dataclasses
import json
import os
import re
import signal
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest

from mnist_fp8.core import limits
from mnist_fp8.core.capability import Capability, refuse_on_kernels
from mnist_fp8.core.errors import ConfigError, EnvError
from mnist_fp8.gate.releases import processes
from mnist_fp8.gate.releases.editions import Edition, EditionKind
from mnist_fp8.gate.releases.environments import Environment
from mnist_fp8.gate.releases.processes import Ended
from mnist_fp8.gate.runner import execution, pytest_log, suite
from mnist_fp8.record.claims import ClaimResult, ClaimStatus, Outcome, SuiteResult, TestResult
from mnist_fp8.record.record import Record
from support.subprocesses import ROOT

PASSED, FAILED, SKIPPED, KNOWN = Outcome.PASSED, Outcome.FAILED, Outcome.SKIPPED, Outcome.KNOWN


PLUGIN = """\
import json
from pathlib import Path

HERE = Path(__file__).parent
IMPORTED = {"transformer_engine": "/te/__init__.py", "mnist_fp8": str(HERE / "mnist_fp8" / "__init__.py")}
HEADER = {"run": "host run: here", "environment": {"jax": "0.5.1", "flax": "0.9", "python": "3.11.0"}}

def pytest_addoption(parser):
    parser.addoption("--mnist-fp8-json", type=Path)
    parser.addoption("--mnist-fp8-spare", type=Path)

def pytest_sessionstart(session):
    if not hasattr(session.config, "workerinput") and session.config.option.mnist_fp8_json:
        session.config.option.mnist_fp8_json.write_text(json.dumps(HEADER | {"imported": IMPORTED}))

def pytest_collection_modifyitems(config, items):
    spared = [item for item in items if item.nodeid in json.loads(config.option.mnist_fp8_spare.read_text())]
    if hasattr(config, "workerinput"):
        file = config.option.mnist_fp8_json
        account = {"imported": IMPORTED, "tests": [item.nodeid for item in items]}
        account["spared"] = [item.nodeid for item in spared]
        account["subjects"] = {item.nodeid: mark.args[0] for item in items for mark in item.iter_markers("subject")}
        file.with_name(f"{file.stem}-{config.workerinput['workerid']}.json").write_text(json.dumps(account))
    items[:] = [item for item in items if item not in spared]
"""
"""What a suite's plugin does, whatever its suite is."""


def environment(python: str = sys.executable, digest: str = "d", **variables: str) -> Environment:
    """This interpreter, as if it were made for a release."""
    edition = Edition(EditionKind.RELEASE, "2.3.0", "2.3.0")
    variables = {"OMP_NUM_THREADS": "1"} | variables
    return Environment(edition, Path(python), "0.5.0", "0.10.4", digest, variables, Path("/te"))


def write_suite(folder: Path, conftest: str = "", **claims: str) -> Path:
    """Write a suite of those claims."""
    (folder / "tests" / "claims").mkdir(parents=True)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -ra --strict-config\n")
    (folder / "conftest.py").write_text(PLUGIN + textwrap.dedent(conftest))
    for name, code in claims.items():
        (folder / "tests" / "claims" / f"test_{name}.py").write_text(textwrap.dedent(code))
    return folder


def judged(folder: Path, *claims: str, timeout: float = 60.0) -> SuiteResult:
    return result_of(suite.judge(environment(), folder, claims, timeout=timeout).record)


def result_of(record: Record) -> SuiteResult:
    assert record.suite is not None
    return record.suite


def outcomes(claim: ClaimResult) -> dict[str, Outcome]:
    return {test.name.rpartition("::")[2]: test.outcome for test in claim.tests}


def reason(claim: ClaimResult, name: str) -> str:
    return next(test.reason for test in claim.tests if test.name.endswith(f"::{name}"))


def test_test_says_which_layer_it_is_about_however_it_ends(tmp_path: Path) -> None:
    code = """
        import os, pytest

        pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnknownMarkWarning")

        @pytest.mark.subject("LayerNorm", "a case")
        def test_good(): pass

        @pytest.mark.subject("LayerNormMLP", "a case")
        def test_crashes(): os.kill(os.getpid(), 11)

        def test_of_none(): pass
    """
    (claim,) = judged(write_suite(tmp_path, mine=code), "mine").claims
    subjects = {test.name.rpartition("::")[2]: test.subject for test in claim.tests}
    assert subjects == {"test_good": "LayerNorm", "test_crashes": "LayerNormMLP", "test_of_none": ""}
    assert outcomes(claim)["test_crashes"] is FAILED


@pytest.mark.parametrize("spared", [["test_a"], ["test_a", "test_wrong"]], ids=["one", "all"])
def test_what_the_new_side_passes_is_spared(tmp_path: Path, spared: list[str]) -> None:
    folder = write_suite(tmp_path, mine="def test_a(): pass\ndef test_wrong(): assert 0")
    names = [f"tests/claims/test_mine.py::{name}" for name in (*spared, "test_of_no_suite")]
    (claim,) = result_of(suite.judge(environment(), folder, ["mine"], passed=names).record).claims
    assert outcomes(claim) == {"test_a": FAILED, "test_wrong": FAILED} | dict.fromkeys(spared, Outcome.SPARED)


def test_what_is_left_out_without_being_asked_for_has_failed(tmp_path: Path) -> None:
    """Whatever a run writes of what it was spared: the list is ours."""
    left_out = "def pytest_itemcollected(item): item.session.config.option.mnist_fp8_spare.write_text('[\"{}\"]')"
    name = "tests/claims/test_mine.py::test_wrong"
    folder = write_suite(tmp_path, left_out.format(name), mine="def test_a(): pass\ndef test_wrong(): assert 0")
    (claim,) = judged(folder, "mine").claims
    assert outcomes(claim) == {"test_a": PASSED, "test_wrong": FAILED}
    assert reason(claim, "test_wrong") == "it was collected, but did not run"


# --- a run with everything in it -----------------------------------------------------------------------------------

EVERYTHING = """
    import os, pytest

    def test_good(): pass
    def test_wrong(): assert 1 == 2, "step 0: scale is wrong"
    def test_crashes(): os.kill(os.getpid(), 11)

    @pytest.mark.xfail(reason="defect 7", strict=True)
    def test_known(): assert 0

    @pytest.mark.xfail(reason="defect 8", strict=True)
    def test_repaired(): pass

    @pytest.fixture
    def broken(): raise ValueError("in the fixture")
    def test_fixture(broken): pass

    @pytest.fixture
    def leaves_badly():
        yield
        raise ValueError("after the test")
    def test_left(leaves_badly): pass

    @pytest.mark.skip(reason="needs X; found Y")
    def test_skipped(): pass
    def test_after(): assert os.environ["HYPOTHESIS_PROFILE"] == "ci"
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Record:
    folder = write_suite(
        tmp_path_factory.mktemp("everything"),
        all=EVERYTHING,
        unreadable="import nonsense",
        skipped="import pytest\npytest.skip('needs Z; found none', allow_module_level=True)",
        good="def test_good(): pass",
    )
    return suite.judge(environment(), folder, ["all", "unreadable", "skipped", "good"]).record


@pytest.fixture(scope="module")
def everything(whole: Record) -> SuiteResult:
    return result_of(whole)


def test_every_test_has_its_outcome_and_a_crash_is_one_of_them(everything: SuiteResult) -> None:
    assert outcomes(everything.claim("all")) == {
        "test_good": PASSED,
        "test_wrong": FAILED,
        "test_crashes": FAILED,
        "test_known": KNOWN,
        "test_repaired": FAILED,
        "test_fixture": FAILED,
        "test_left": FAILED,
        "test_skipped": SKIPPED,
        "test_after": PASSED,
    }
    assert everything.problem == ""


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("test_wrong", "AssertionError: step 0: scale is wrong\nassert 1 == 2"),
        ("test_crashes", "its process died: Segmentation fault"),
        ("test_known", "defect 7"),
        ("test_repaired", "[XPASS(strict)] defect 8"),
        ("test_fixture", "ValueError: in the fixture"),
        ("test_left", "ValueError: after the test"),
        ("test_skipped", "needs X; found Y"),
        ("test_good", ""),
    ],
)
def test_every_outcome_has_its_reason(everything: SuiteResult, name: str, says: str) -> None:
    assert reason(everything.claim("all"), name) == says


def test_file_that_cannot_be_collected_is_broken_and_the_others_are_judged(everything: SuiteResult) -> None:
    (only,) = everything.claim("unreadable").tests
    assert (only.outcome, only.headline) == (FAILED, "ModuleNotFoundError: No module named 'nonsense'")
    assert everything.claim("good").status is ClaimStatus.HOLDS


def test_file_that_is_skipped_is_not_verified(everything: SuiteResult) -> None:
    (only,) = everything.claim("skipped").tests
    assert (only.outcome, only.reason) == (SKIPPED, "needs Z; found none")


def test_header_is_what_the_run_said(whole: Record) -> None:
    assert (whole.te, whole.version) == ("2.3.0", "2.3.0")
    assert result_of(whole).run == "host run: here"
    assert whole.environment == {"run": "host run: here", "jax": "0.5.1", "flax": "0.9", "python": "3.11.0"}
    assert whole.settings == "", "nothing was measured"


def test_command_runs_one_test_in_the_same_environment(everything: SuiteResult) -> None:
    folder = re.match(r"cd (\S+) && env ", everything.command)
    assert folder
    assert (Path(folder[1]) / "tests" / "claims" / "test_all.py").exists()
    assert "HYPOTHESIS_PROFILE=ci" in everything.command
    assert f"{sys.executable} -m pytest -p no:cacheprovider -p xdist.plugin" in everything.command
    assert "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1" in everything.command


# --- what ran is what should have run ------------------------------------------------------------------------------

TWO = "def test_a(): pass\ndef test_b(): pass"


@pytest.mark.parametrize(
    ("conftest", "options"),
    [
        ("", "--deselect=tests/claims/test_a.py::test_b"),
        ("def pytest_runtest_protocol(item): return item.name == 'test_b' or None", ""),
    ],
    ids=["deselected", "not run"],
)
def test_test_that_was_left_out_has_not_been_verified(tmp_path: Path, conftest: str, options: str) -> None:
    folder = write_suite(tmp_path, conftest, a=TWO)
    claim = result_of(suite.judge(environment(PYTEST_ADDOPTS=options), folder, ["a"]).record).claim("a")
    assert outcomes(claim) == {"test_a": PASSED, "test_b": FAILED}
    assert reason(claim, "test_b") == "it was collected, but did not run"


def test_claim_without_tests_does_not_hold(tmp_path: Path) -> None:
    found = judged(write_suite(tmp_path, a=TWO, b="def helper(): pass"), "a", "b")
    assert found.claim("a").status is ClaimStatus.HOLDS
    (only,) = found.claim("b").tests
    assert (only.outcome, only.reason) == (FAILED, "none of its tests was collected")


def test_results_of_a_run_that_lists_no_tests_are_no_results(tmp_path: Path) -> None:
    folder = write_suite(tmp_path, "del pytest_collection_modifyitems", a=TWO)
    with pytest.raises(EnvError, match=r"the suite does not say which tests there are for 2\.3\.0"):
        judged(folder, "a")


def log_of(tmp_path: Path, *reports: tuple[str, str, str]) -> Path:
    lines = [json.dumps({"nodeid": name, "when": when, "outcome": outcome}) for name, when, outcome in reports]
    (tmp_path / "log").write_text("\n".join(lines))
    return tmp_path / "log"


def test_test_that_ran_twice_has_failed(tmp_path: Path) -> None:
    once = [("f::t", "setup", "passed"), ("f::t", "call", "passed"), ("f::t", "teardown", "passed")]
    assert pytest_log.read_results(log_of(tmp_path, *once))["f::t"].outcome is PASSED, "Control"
    found = pytest_log.read_results(log_of(tmp_path, *once, *once))
    assert found == {"f::t": TestResult("f::t", FAILED, "it ran twice")}


def test_test_that_nobody_collected_has_failed() -> None:
    results = {name: TestResult(name, PASSED) for name in ("f::t", "f::stranger")}
    found = pytest_log.complete(results, ["f::t", "f::gone"], "")
    assert {name: test.reason for name, test in found.items()} == {
        "f::t": "",
        "f::stranger": "it ran, but was not collected",
        "f::gone": "it was collected, but did not run",
    }
    assert pytest_log.complete({"f": TestResult("f", SKIPPED)}, [], "") == {"f": TestResult("f", SKIPPED)}


@pytest.mark.parametrize(
    ("code", "outcomes", "agrees"),
    [
        (0, [PASSED, SKIPPED, KNOWN], True),
        (0, [KNOWN], True),
        (0, [PASSED, FAILED], False),
        (1, [PASSED, FAILED], True),
        (1, [PASSED], False),
        (1, [], False),
        (5, [SKIPPED], True),
        (5, [PASSED], False),
        (5, [FAILED], False),
    ],
)
def test_exit_code_and_outcomes_agree(code: int, outcomes: list[Outcome], *, agrees: bool) -> None:
    results = {str(number): TestResult(str(number), outcome) for number, outcome in enumerate(outcomes)}
    assert (pytest_log.contradiction(code, results) == "") is agrees


EXITS = """
    import atexit, os
    atexit.register(lambda: os._exit(1))
"""
CRASHES_LATE = """
    import atexit, os
    def pytest_configure(config):
        if not hasattr(config, "workerinput"):
            atexit.register(lambda: os.kill(os.getpid(), 11))
"""
HIDES = """
    import pytest
    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(session):
        session.exitstatus = 0
"""


@pytest.mark.parametrize(
    ("conftest", "test", "says"),
    [
        (EXITS, "pass", "its processes end with exit code 1, but 1 tests passed and 0 failed"),
        (CRASHES_LATE, "pass", "it crashed: "),
        (HIDES, "assert 0", "its processes end with exit code 0, but 0 tests passed and 1 failed"),
    ],
    ids=["exit code", "crash", "hidden failure"],
)
def test_run_whose_end_contradicts_its_results_has_a_problem(
    tmp_path: Path, conftest: str, test: str, says: str
) -> None:
    found = judged(write_suite(tmp_path, conftest, a=f"def test_a(): {test}"), "a")
    assert found.problem.startswith(says)
    assert found.claim("a").status is ClaimStatus.BROKEN


def test_nothing_from_outside_thins_out_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "sitecustomize.py").write_text("raise SystemExit('it was imported')")
    others = {
        "PYTEST_ADDOPTS": "-k nothing",
        "PYTEST_PLUGINS": "no_such_plugin",
        "PYTHONOPTIMIZE": "1",
        "PYTHONPATH": str(tmp_path / "else"),
        "PYTHONWARNINGS": "error",
        "HYPOTHESIS_PROFILE": "nonsense",
        "COVERAGE_PROCESS_START": "x",
        "LD_PRELOAD": "/no/such/library.so",
        "OF_NOBODY": "1",
    }
    for name, value in others.items():
        monkeypatch.setenv(name, value)
    code = f"""
        import os, sys
        def test_a(): assert not {set(others) - {"HYPOTHESIS_PROFILE"}!r} & set(os.environ)
        def test_b(): assert __debug__ and sys.flags.safe_path and not sys.warnoptions
        def test_c(): assert 0
    """
    found = judged(write_suite(tmp_path / "suite", a=code), "a")
    assert outcomes(found.claim("a")) == {"test_a": PASSED, "test_b": PASSED, "test_c": FAILED}


@pytest.mark.parametrize(
    ("imported", "says"),
    [
        ({"transformer_engine": "/clone/transformer_engine/__init__.py"}, "imported transformer_engine from /clone/"),
        (
            {"transformer_engine.jax": "/clone/jax.py"},
            "imported transformer_engine.jax from /clone/jax.py, and not from",
        ),
        ({"mnist_fp8": "/else/mnist_fp8/__init__.py"}, "imported mnist_fp8 from /else/"),
        ({"test_a": "/else/test_a.py"}, "imported test_a from /else/test_a.py"),
        ({"jax": "/clone/jax/__init__.py"}, "imported jax from /clone/jax/__init__.py, and not from /site"),
        ({"transformer_engine": None}, "does not say where its transformer_engine was"),
    ],
)
def test_run_that_imported_something_else_is_no_verdict(imported: dict[str, str | None], says: str) -> None:
    stage = Path("/stage")
    right = {
        "transformer_engine": "/te/__init__.py",
        "mnist_fp8": "/stage/mnist_fp8/__init__.py",
        "jax": "/site/jax.py",
    }
    where = dataclasses.replace(environment(), folders=(Path("/site"),))
    execution.check_imports(where, stage, right | {"test_a": "/stage/tests/test_a.py", "other": "/anywhere.py"})
    wrong = {name: place for name, place in (right | imported).items() if place is not None}
    with pytest.raises(EnvError) as caught:
        execution.check_imports(where, stage, wrong)
    assert says in str(caught.value)


def test_suite_that_is_made_anew_while_it_runs_is_no_verdict(tmp_path: Path) -> None:
    code = """
        import os, shutil
        from pathlib import Path

        def test_of_another_command():
            here = Path.cwd()
            shutil.copytree(here, here.with_name("new"))
            here.rename(here.with_name("old"))
            here.with_name("new").rename(here)
    """
    folder = write_suite(tmp_path / "suite", mine=code)
    with pytest.raises(
        EnvError, match=r"was not judged: \S+suite was made anew by another command.*run the same again"
    ):
        judged(folder, "mine")


def test_installation_that_is_edited_while_it_runs_is_no_verdict(tmp_path: Path) -> None:
    package = tmp_path / "te"
    package.write_text("d")
    where = dataclasses.replace(environment(digest="d"), identify=package.read_text)
    folder = write_suite(tmp_path / "suite", mine="def test_a(): pass")
    (claim,) = result_of(suite.judge(where, folder, ["mine"]).record).claims
    assert claim.status is ClaimStatus.HOLDS, "Control"
    folder = write_suite(tmp_path / "other", mine=f"def test_a(): open({str(package)!r}, 'w').write('other')")
    with pytest.raises(EnvError, match="was edited while it was judged"):
        suite.judge(where, folder, ["mine"])


@pytest.mark.parametrize("code", ["MARKER.write_text('new')", "MARKER.unlink()"], ids=["made", "removed"])
def test_environment_that_is_made_anew_while_it_runs_is_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    marker = tmp_path / "environment" / "complete.json"
    marker.parent.mkdir()
    marker.write_text("old")
    os.utime(marker, (0, 0))
    monkeypatch.setattr(Environment, "marker", marker)
    mine = f"from pathlib import Path\n\ndef test_a(): pass\n\nMARKER = Path({str(marker)!r})\n"
    folder = write_suite(tmp_path / "suite", mine=mine)
    assert [claim.status for claim in judged(folder, "mine").claims] == [ClaimStatus.HOLDS], "Control"
    folder = write_suite(tmp_path / "other", mine=f"{mine}{code}\n")
    with pytest.raises(EnvError, match=r"was not judged: \S+environment was made anew by another command"):
        judged(folder, "mine")


@pytest.mark.parametrize("of", ["HEADER", "account"])
def test_every_process_of_a_run_is_asked(tmp_path: Path, of: str) -> None:
    other = 'IMPORTED | {"transformer_engine": "/clone/transformer_engine/__init__.py"}'
    edit = {
        "HEADER": ('HEADER | {"imported": IMPORTED}', f'HEADER | {{"imported": {other}}}'),
        "account": ('account = {"imported": IMPORTED', f'account = {{"imported": {other}'),
    }[of]
    folder = write_suite(tmp_path, a=TWO)
    assert edit[0] in PLUGIN
    (folder / "conftest.py").write_text(PLUGIN.replace(*edit))
    with pytest.raises(EnvError, match="imported transformer_engine from /clone/"):
        judged(folder, "a")


@pytest.mark.parametrize(
    "error", ["OSError: [Errno 28] No space left on device", "MemoryError", "RESOURCE_EXHAUSTED: Out of memory"]
)
def test_want_of_room_is_not_blamed_on_te(tmp_path: Path, error: str) -> None:
    folder = write_suite(tmp_path, a=f"def test_a(): raise RuntimeError({error!r})")
    with pytest.raises(EnvError, match="disk or memory ran out: "):
        judged(folder, "a")


NO_THREADS = "LLVM ERROR: pthread_create failed: Resource temporarily unavailable"
CRASHES_SAYING = "import os\ndef test_a():\n    os.write(2, b'{}\\n')\n    os.abort()"


@pytest.mark.parametrize("words", [NO_THREADS, "LLVM ERROR: out of memory", "what():  std::bad_alloc"])
def test_crash_for_want_of_room_is_not_blamed_on_te(tmp_path: Path, words: str) -> None:
    """What ends a process for that is no exception, but a line before the end."""
    with pytest.raises(EnvError, match=f"disk or memory ran out: .*{re.escape(words)}"):
        problem(ended(-signal.SIGABRT, err=f"{words}\n"))
    with pytest.raises(EnvError, match="disk or memory ran out: "):
        judged(write_suite(tmp_path, a=CRASHES_SAYING.format(words)), "a")


def test_death_under_a_limit_of_the_shell_is_not_blamed_on_te(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """XLA does not look whether it was given memory: it ends with a segmentation fault, and says nothing."""
    monkeypatch.setattr(limits, "of_shell", lambda: ("ulimit -v", "ulimit -t"))
    says = r"^a process of the run died under ulimit -v and ulimit -t, which may be why: lift that limit"
    with pytest.raises(EnvError, match=says):
        problem(ended(-signal.SIGSEGV))
    killed = "import os, signal\ndef test_a(): os.kill(os.getpid(), signal.SIGXCPU)"
    for number, code in enumerate((CRASHES_SAYING.format("nothing"), killed)):
        with pytest.raises(EnvError, match=says):
            judged(write_suite(tmp_path / str(number), a=code), "a")


def test_worker_that_linux_kills_for_memory_is_not_blamed_on_te(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once more, alone, is not enough where one process is too large."""
    code = "import os, signal\ndef test_a(): os.kill(os.getpid(), signal.SIGKILL)"
    attempt = suite.judge(environment(), write_suite(tmp_path / "one", a=code), ["a"])
    assert not attempt.lasting, "Control: who killed it is not known"
    monkeypatch.setattr(limits, "kills_for_memory", iter([4, 5]).__next__)
    with pytest.raises(EnvError, match=r"^memory ran out, and Linux killed a process of the run: make room"):
        judged(write_suite(tmp_path / "other", a=code), "a")


def test_run_whose_temporary_files_were_removed_is_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    code = f"import shutil\ndef test_a(): shutil.rmtree({str(tmp_path / 'tmp')!r})"
    with pytest.raises(EnvError, match=r"temporary files of the run were removed from \S+tmp meanwhile"):
        judged(write_suite(tmp_path / "suite", a=code), "a")


def test_temporary_files_of_tests_are_those_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder that pytest would take has the user's name, and may be one of somebody else who had it."""
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "run"))
    code = f"def test_a(tmp_path): assert tmp_path.is_relative_to({str(tmp_path / 'run')!r})"
    (claim,) = judged(write_suite(tmp_path / "suite", a=code), "a").claims
    assert claim.status is ClaimStatus.HOLDS


# --- runs that break off -------------------------------------------------------------------------------------------


def test_run_that_hangs_is_ended_and_what_it_left_is_broken(tmp_path: Path) -> None:
    folder = write_suite(
        tmp_path,
        first="import time\ndef test_good(): pass\ndef test_hangs(): time.sleep(600)\ndef test_later(): pass",
        second="def test_never(): pass",
    )
    found = judged(folder, "first", "second", timeout=5)
    assert found.problem == "it hung: not done after 5 s"
    assert outcomes(found.claim("first")) == {"test_good": PASSED, "test_hangs": FAILED, "test_later": FAILED}
    assert reason(found.claim("second"), "test_never") == found.problem


def test_what_took_too_long_is_tried_once_more_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that was busy."""
    monkeypatch.setattr(suite, "TEST_TIMEOUT_S", 1)
    code = f"""
        import pathlib, time
        def test_hangs_once():
            note = pathlib.Path({str(tmp_path / "note")!r})
            if not note.exists():
                note.touch()
                time.sleep(60)
        def test_other(): assert 0
    """
    attempt = suite.judge(environment(), write_suite(tmp_path / "suite", a=code), ["a"], timeout=60)
    assert attempt.lasting
    found = result_of(attempt.record)
    assert found.problem == ""
    assert outcomes(found.claim("a")) == {"test_hangs_once": PASSED, "test_other": FAILED}


def test_test_that_hangs_is_one_broken_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "TEST_TIMEOUT_S", 1)
    folder = write_suite(tmp_path, a="import time\ndef test_hangs(): time.sleep(60)\ndef test_later(): pass")
    attempt = suite.judge(environment(), folder, ["a"], timeout=60)
    assert not attempt.lasting
    found = result_of(attempt.record)
    assert outcomes(found.claim("a")) == {"test_hangs": FAILED, "test_later": PASSED}
    assert (
        reason(found.claim("a"), "test_hangs") == "its process died: no word why; its time was over, or it was killed"
    )
    assert found.problem == ""


REFUSES = """
    import pytest
    def pytest_configure(config):
        raise pytest.UsageError("nothing can be verified: TE 2.3.0 does not import")
"""
CRASHES = """
    import os
    def pytest_configure(config):
        if not config.option.collectonly:
            os.kill(os.getpid(), 11)
"""
RAISES = """
    def pytest_configure(config):
        raise RuntimeError("TE raised when it was loaded")
"""


@pytest.mark.parametrize(
    ("conftest", "says"),
    [
        (REFUSES, "nothing can be verified: TE 2.3.0 does not import"),
        (CRASHES, "it crashed: "),
        (RAISES, "RuntimeError: TE raised when it was loaded"),
    ],
    ids=["refuses", "crashes", "raises"],
)
def test_te_that_does_not_load_breaks_every_claim_with_the_reason(tmp_path: Path, conftest: str, says: str) -> None:
    folder = write_suite(tmp_path, conftest, a="def test_a(): pass", b="def test_b(): pass")
    found = judged(folder, "a", "b")
    assert says in found.problem
    assert "\n" not in found.problem
    assert [claim.status for claim in found.claims] == [ClaimStatus.BROKEN, ClaimStatus.BROKEN]
    assert {test.reason for claim in found.claims for test in claim.tests} == {found.problem}
    assert found.run == ""


def test_kernel_run_that_is_to_pretend_is_no_verdict(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        refuse_on_kernels(Capability.BLACKWELL)
    conftest = REFUSES.replace("TE 2.3.0 does not import", str(refused.value))
    with pytest.raises(EnvError, match="the suite cannot run: ERROR: nothing can be verified: compute capability 10"):
        judged(write_suite(tmp_path, conftest, a="def test_a(): pass"), "a")


def test_run_keeps_what_pytest_printed(tmp_path: Path) -> None:
    folder = write_suite(tmp_path / "suite", a="def test_a(): assert 0, 'look here'")
    log = tmp_path / "kept" / "log.txt"
    suite.judge(environment(), folder, ["a"], log=log)
    assert "look here" in log.read_text()


# --- what is ours --------------------------------------------------------------------------------------------------


def ended(code: int = 1, out: str = "", err: str = "", *, timed_out: bool = False) -> Ended:
    return Ended(code, out, err, 1.0, timed_out=timed_out)


def problem(how: Ended, *, finished: bool = False) -> str:
    return execution.problem_of(how, f"{how.out}\n{how.err}", 9.0, finished=finished)


@pytest.mark.parametrize("code", [0, 1, 5])
def test_run_that_came_to_its_end_has_no_problem(code: int) -> None:
    assert problem(ended(code), finished=True) == ""


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (ended(-signal.SIGTERM, timed_out=True), "it hung: not done after 9 s"),
        (ended(-signal.SIGSEGV, err="Fatal Python error: Segmentation fault\n"), "it crashed: Segmentation fault"),
        (ended(-signal.SIGABRT), "it crashed: SIGABRT"),
        (ended(3, out="INTERNALERROR> oh"), "it did not come to its end (exit code 3): INTERNALERROR> oh"),
        (ended(2), "it did not come to its end (exit code 2): it printed nothing"),
    ],
)
def test_run_that_broke_off_has_its_reason_in_one_line(how: Ended, says: str) -> None:
    assert problem(how) == says


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (ended(-signal.SIGKILL), "ended from outside (SIGKILL); perhaps memory ran out"),
        (ended(-signal.SIGTERM), "ended from outside (SIGTERM)"),
        (ended(-signal.SIGHUP), "ended from outside (SIGHUP)"),
        (ended(-signal.SIGXCPU), "ended from outside (SIGXCPU)"),
        (ended(-signal.SIGRTMIN - 1), "ended from outside (signal 35)"),
        (ended(3, out="RuntimeError: can't start new thread\nINTERNALERROR>"), "can't start new thread"),
        (ended(1, err="/x/bin/python: No module named pytest\n"), "/x/bin/python: No module named pytest"),
        (ended(4, err="__main__.py: error: unrecognized arguments: --report-log=x"), "unrecognized arguments"),
        (ended(3, err="a\nOSError: [Errno 28] No space left on device: 'y'\nb"), "OSError: [Errno 28] No space left"),
    ],
    ids=[
        "killed",
        "terminated",
        "hung up",
        "time of processor",
        "no name",
        "threads",
        "no pytest",
        "no plugin",
        "disk full",
    ],
)
def test_failure_of_the_environment_is_not_blamed_on_te(how: Ended, says: str) -> None:
    with pytest.raises(EnvError, match=re.escape(says)):
        problem(how)


def test_environment_that_is_gone_is_one_line(tmp_path: Path) -> None:
    folder = write_suite(tmp_path, a="def test_a(): pass")
    with pytest.raises(EnvError, match=r"^the claims cannot be run for 2\.3\.0: .*run it again"):
        suite.judge(environment("/no/such/python"), folder, ["a"])


def test_last_line_of_a_killed_run_may_be_torn(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    whole = {"nodeid": "a::t", "outcome": "passed", "when": "call"}
    file.write_text(json.dumps(whole) + '\n{"nodeid": "a::u", "outc')
    assert pytest_log.read_results(file) == {"a::t": TestResult("a::t", PASSED)}


# --- what can be asked for -----------------------------------------------------------------------------------------


def test_claims_are_the_files() -> None:
    files = (ROOT / "tests" / "claims").glob("test_*.py")
    assert suite.select_claims([]) == tuple(sorted(file.stem.removeprefix("test_") for file in files))


def test_claims_keep_their_order_whatever_was_typed() -> None:
    assert suite.select_claims(["kernels", "bf16_parity", "kernels"]) == ("bf16_parity", "kernels")


def test_unknown_claim_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"^claim 'foo' is not known; there are attention, attention_dropout, "):
        suite.select_claims(["kernels", "foo"])


@pytest.mark.parametrize(("cores", "gigabytes", "jobs"), [(8, 64, 8), (8, 10, 3), (8, 1, 1), (1, 64, 1)])
def test_jobs_fit_cores_and_memory(monkeypatch: pytest.MonkeyPatch, cores: int, gigabytes: int, jobs: int) -> None:
    monkeypatch.setattr(limits, "cores", lambda: cores)
    monkeypatch.setattr(limits, "memory", lambda: gigabytes * 10**9)
    assert suite.default_jobs() == jobs


def test_interrupted_run_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stops all runs gets an interrupt from this one, and the test's process is gone."""
    note = tmp_path / "pid"
    code = f"""
        import os, pathlib, time
        def test_a():
            pathlib.Path({str(note)!r}).write_text(str(os.getpid()))
            time.sleep(600)
    """
    folder = write_suite(tmp_path / "suite", a=code)
    monkeypatch.setattr(processes, "_STOPPED", _StopOnceThere(note))
    with pytest.raises(KeyboardInterrupt):
        judged(folder, "a")
    pid = int(note.read_text())
    assert any(_gone(pid) or time.sleep(0.1) for _ in range(50))  # type: ignore[func-returns-value]


def _gone(pid: int) -> bool:
    """Whether a process has ended, buried or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z"
    except FileNotFoundError:
        return True


@dataclasses.dataclass
class _StopOnceThere:
    """An event that is set as soon as a file is there."""

    file: Path

    def is_set(self) -> bool:
        return self.file.exists() and bool(self.file.read_text())
