"""Judging one Transformer Engine: real pytest runs of tiny suites that crash, hang and break, and what is kept."""

import dataclasses
import json
import os
import re
import signal
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from mnist_fp8.core.errors import ConfigError, EnvError
from mnist_fp8.gate.releases import processes
from mnist_fp8.gate.releases.environments import Environment
from mnist_fp8.gate.releases.processes import Ended
from mnist_fp8.gate.releases.subjects import Subject, SubjectKind
from mnist_fp8.gate.runner import execution, pytest_log, verification
from mnist_fp8.record.claims import ClaimResult, ClaimStatus, Outcome, SuiteResult, TestResult
from support.subprocesses import ROOT

PASSED, FAILED, SKIPPED, KNOWN = Outcome.PASSED, Outcome.FAILED, Outcome.SKIPPED, Outcome.KNOWN


OPTION = """
    def pytest_addoption(parser):
        parser.addoption("--mnist-fp8-json")
"""


def environment(python: str = sys.executable, digest: str = "d", **variables: str) -> Environment:
    """This interpreter, as if it were made for a release; plugins of it that the suite does not need stay out."""
    subject = Subject(SubjectKind.RELEASE, "2.3.0", "2.3.0")
    variables = {"PYTEST_ADDOPTS": "-p no:randomly", "OMP_NUM_THREADS": "1"} | variables
    return Environment(subject, Path(python), "0.5.0", "0.10.4", digest, variables, Path("/te"))


def suite(folder: Path, conftest: str = "", **claims: str) -> Path:
    """Write a suite of those claims, whose conftest.py knows the option of the real one."""
    (folder / "tests" / "claims").mkdir(parents=True)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -ra --strict-config\n")
    (folder / "conftest.py").write_text(textwrap.dedent(OPTION) + textwrap.dedent(conftest))
    for name, code in claims.items():
        (folder / "tests" / "claims" / f"test_{name}.py").write_text(textwrap.dedent(code))
    return folder


def judged(folder: Path, *claims: str, timeout: float = 60.0) -> SuiteResult:
    return verification.judge(environment(), folder, claims, timeout=timeout)


def outcomes(claim: ClaimResult) -> dict[str, Outcome]:
    return {test.name.rpartition("::")[2]: test.outcome for test in claim.tests}


def reason(claim: ClaimResult, name: str) -> str:
    return next(test.reason for test in claim.tests if test.name.endswith(f"::{name}"))


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
HEADER = """
    import json, pathlib
    def pytest_sessionstart(session):
        versions = {"jax": "0.5.1", "flax": "0.9", "python": "3.11.0"}
        header = {"run": "host run: here", "environment": versions}
        if not hasattr(session.config, "workerinput"):
            pathlib.Path(session.config.option.mnist_fp8_json).write_text(json.dumps(header))
"""


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> SuiteResult:
    folder = suite(
        tmp_path_factory.mktemp("everything"),
        HEADER,
        all=EVERYTHING,
        unreadable="import nonsense",
        skipped="import pytest\npytest.skip('needs Z; found none', allow_module_level=True)",
        good="def test_good(): pass",
    )
    return judged(folder, "all", "unreadable", "skipped", "good")


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


def test_header_is_what_the_run_said(everything: SuiteResult) -> None:
    assert (everything.te, everything.version) == ("2.3.0", "2.3.0")
    assert (everything.run, everything.jax, everything.flax) == ("host run: here", "0.5.1", "0.9")
    assert everything.python == "3.11.0"


def test_command_runs_one_test_in_the_same_environment(everything: SuiteResult) -> None:
    folder = re.match(r"cd (\S+) && env ", everything.command)
    assert folder
    assert (Path(folder[1]) / "tests" / "claims" / "test_all.py").exists()
    assert "HYPOTHESIS_PROFILE=ci" in everything.command
    assert everything.command.endswith(f"{sys.executable} -m pytest -p no:cacheprovider")


# --- runs that break off -------------------------------------------------------------------------------------------


def test_run_that_hangs_is_ended_and_what_it_left_is_broken(tmp_path: Path) -> None:
    folder = suite(
        tmp_path,
        first="import time\ndef test_good(): pass\ndef test_hangs(): time.sleep(600)\ndef test_later(): pass",
        second="def test_never(): pass",
    )
    found = judged(folder, "first", "second", timeout=5)
    assert found.problem == "it hung: not done after 5 s"
    assert outcomes(found.claim("first")) == {"test_good": PASSED, "test_hangs": FAILED, "test_later": FAILED}
    assert reason(found.claim("second"), "test_never") == found.problem


def test_test_that_hangs_is_one_broken_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "TEST_TIMEOUT_S", 1)
    folder = suite(tmp_path, a="import time\ndef test_hangs(): time.sleep(60)\ndef test_later(): pass")
    found = judged(folder, "a")
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
    folder = suite(tmp_path, conftest, a="def test_a(): pass", b="def test_b(): pass")
    found = judged(folder, "a", "b")
    assert says in found.problem
    assert "\n" not in found.problem
    assert [claim.status for claim in found.claims] == [ClaimStatus.BROKEN, ClaimStatus.BROKEN]
    assert {test.reason for claim in found.claims for test in claim.tests} == {found.problem}
    assert found.run == ""


def test_run_keeps_what_pytest_printed(tmp_path: Path) -> None:
    folder = suite(tmp_path / "suite", a="def test_a(): assert 0, 'look here'")
    log = tmp_path / "kept" / "log.txt"
    verification.judge(environment(), folder, ["a"], log=log)
    assert "look here" in log.read_text()


# --- what is ours --------------------------------------------------------------------------------------------------


def ended(code: int = 1, out: str = "", err: str = "", *, timed_out: bool = False) -> Ended:
    return Ended(code, out, err, 1.0, timed_out=timed_out)


def problem(how: Ended, *, started: bool = True) -> str:
    return execution.problem_of(how, f"{how.out}\n{how.err}", 9.0, started=started)


@pytest.mark.parametrize("code", [0, 1, 5])
def test_run_that_came_to_its_end_has_no_problem(code: int) -> None:
    assert problem(ended(code)) == ""


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
        (ended(-signal.SIGKILL), "perhaps memory ran out"),
        (ended(1, err="/x/bin/python: No module named pytest\n"), "/x/bin/python: No module named pytest"),
        (ended(4, err="__main__.py: error: unrecognized arguments: --report-log=x"), "unrecognized arguments"),
        (ended(3, err="a\nOSError: [Errno 28] No space left on device: 'y'\nb"), "OSError: [Errno 28] No space left"),
    ],
    ids=["killed", "no pytest", "no plugin", "disk full"],
)
def test_failure_of_the_environment_is_not_blamed_on_te(how: Ended, says: str) -> None:
    with pytest.raises(EnvError, match=re.escape(says)):
        problem(how, started=False)


def test_environment_that_is_gone_is_one_line(tmp_path: Path) -> None:
    folder = suite(tmp_path, a="def test_a(): pass")
    with pytest.raises(EnvError, match=r"^the claims cannot be run for 2\.3\.0: .*run it again"):
        verification.judge(environment("/no/such/python"), folder, ["a"])


def test_last_line_of_a_killed_run_may_be_torn(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    whole = {"nodeid": "a::t", "outcome": "passed", "when": "call"}
    file.write_text(json.dumps(whole) + '\n{"nodeid": "a::u", "outc')
    assert pytest_log.read_results(file) == {"a::t": TestResult("a::t", PASSED)}


# --- kept results --------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, ...]]:
    """The claims of each run that was made; the runs themselves are replaced."""
    made: list[tuple[str, ...]] = []

    def judge(where: Environment, _suite: Path, claims: Any, **_options: Any) -> SuiteResult:
        made.append(tuple(claims))
        tests = tuple(ClaimResult(name, (TestResult("t", PASSED),)) for name in claims)
        return SuiteResult(where.subject.label, "2.3.0", "0.5.0", "0.10.4", "3.11", "host run: x", tests, 1.0)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(verification, "stage", lambda: tmp_path / "stage-1")
    monkeypatch.setattr(verification, "judge", judge)
    monkeypatch.setattr(verification, "measure", lambda *_args: ({"a": "1"}, ""))
    return made


def test_result_is_taken_from_the_cache_the_second_time(runs: list[Any]) -> None:
    first = verification.verify(environment(), ["a"])
    assert verification.verify(environment(), ["a"]) == first
    assert first.facts == {"a": "1"}
    assert runs == [("a",)]


@pytest.mark.parametrize("change", ["claims", "environment", "suite", "variables", "inherited", "rerun", "damaged"])
def test_result_is_made_again_if_anything_it_rests_on_changed(
    runs: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: str
) -> None:
    verification.verify(environment(), ["a"])
    if change == "suite":
        monkeypatch.setattr(verification, "stage", lambda: tmp_path / "stage-2")
    if change == "inherited":
        monkeypatch.setenv("NVTE_JAX_CUSTOM_CALLS", "x")
    if change == "damaged":
        (file,) = (tmp_path / "cache").rglob("*.json")
        file.write_text(file.read_text()[:40])
    other = {"environment": environment(digest="e"), "variables": environment(MNIST_FP8_TE="host")}
    claims = ["a", "b"] if change == "claims" else ["a"]
    verification.verify(other.get(change, environment()), claims, rerun=change == "rerun")
    assert len(runs) == 2


def test_label_is_that_of_the_subject_asked_for(runs: list[Any]) -> None:
    verification.verify(environment(), ["a"])
    folder = Subject(SubjectKind.FOLDER, "/x", "2.3.0")
    assert verification.verify(dataclasses.replace(environment(), subject=folder), ["a"]).te == "folder /x"
    assert len(runs) == 1


def test_run_that_failed_because_of_us_is_not_kept(
    runs: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_args: Any, **_options: Any) -> None:
        raise EnvError("the disk is full")

    monkeypatch.setattr(verification, "judge", fail)
    with pytest.raises(EnvError):
        verification.verify(environment(), ["a"])
    assert not list(tmp_path.rglob("*.json"))
    assert runs == []


def test_result_that_cannot_be_kept_is_one_line(runs: list[Any], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(EnvError, match=r"^the result cannot be kept in .*: Not a directory; make room"):
        verification.verify(environment(), ["a"])
    assert len(runs) == 1


# --- facts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "facts", "why"),
    [
        (ended(0, '{"history": 1024, "recipe": "D"}', "a warning"), {"history": "1024", "recipe": "D"}, ""),
        (ended(1, "", "Traceback\nValueError: no\n"), {}, "ValueError: no"),
        (ended(0, "nothing of use"), {}, "what was measured is no JSON: nothing of use"),
        (ended(-9, timed_out=True), {}, "measuring took more than 120 s"),
    ],
)
def test_facts_that_cannot_be_measured_are_none_and_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: Ended, facts: dict[str, str], why: str
) -> None:
    commands: list[Any] = []

    def run(_self: Environment, command: Any, **_options: Any) -> Ended:
        commands.append(command)
        return how

    monkeypatch.setattr(Environment, "run", run)
    assert verification.measure(environment(), tmp_path) == (facts, why)
    assert commands == [[sys.executable, "-m", "mnist_fp8.facts"]]


# --- what can be asked for -----------------------------------------------------------------------------------------


def test_claims_are_the_files() -> None:
    files = (ROOT / "tests" / "claims").glob("test_*.py")
    assert verification.select_claims([]) == tuple(sorted(file.stem.removeprefix("test_") for file in files))


def test_claims_keep_their_order_whatever_was_typed() -> None:
    assert verification.select_claims(["kernels", "bf16_parity", "kernels"]) == ("bf16_parity", "kernels")


def test_unknown_claim_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"^claim 'foo' is not known; there are bf16_parity, data_parallel, "):
        verification.select_claims(["kernels", "foo"])


@pytest.mark.parametrize(("cores", "gigabytes", "jobs"), [(8, 64, 8), (8, 10, 3), (8, 1, 1), (None, 64, 1)])
def test_jobs_fit_cores_and_memory(
    monkeypatch: pytest.MonkeyPatch, cores: int | None, gigabytes: int, jobs: int
) -> None:
    sizes = {"SC_PAGE_SIZE": 1000, "SC_PHYS_PAGES": gigabytes * 10**6}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert verification.default_jobs() == jobs


def test_interrupted_run_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stops all runs gets an interrupt from this one, and the test's process is gone."""
    note = tmp_path / "pid"
    code = f"""
        import os, pathlib, time
        def test_a():
            pathlib.Path({str(note)!r}).write_text(str(os.getpid()))
            time.sleep(600)
    """
    folder = suite(tmp_path / "suite", a=code)
    monkeypatch.setattr(processes, "_STOPPED", _StopOnceThere(note))
    with pytest.raises(KeyboardInterrupt):
        judged(folder, "a")
    pid = int(note.read_text())
    assert _ends(pid)


def _ends(pid: int) -> bool:
    """Whether a process has ended within five seconds."""
    for _ in range(50):
        if _gone(pid):
            return True
        time.sleep(0.1)
    return False


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
