"""What is known of releases: read, matched to tests, and refused where it is wrong."""

from pathlib import Path

import pytest

from mnist_fp8.plugin import expectations
from support.subprocesses import ROOT, run_python

FILE = ROOT / "tests" / expectations.FILE_NAME

ENTRY = """
[[expect]]
tests = ["test_a.py::test_*[one*]"]
releases = ">=2.3,<2.9"
kind = "defect"
reason = "it rounds twice (TE#1)"
remove = "never"
"""


def written(folder: Path, text: str) -> Path:
    """A file of expectations."""
    path = folder / "expectations.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("release", "concerned"),
    [("2.2.0", False), ("2.3.0", True), ("2.6.0.post1", True), ("2.9.0.dev1", False), ("2.9.0", False), ("?", False)],
)
def test_entry_concerns_its_releases(tmp_path: Path, release: str, concerned: bool) -> None:  # noqa: FBT001
    (entry,) = expectations.load(written(tmp_path, ENTRY))
    assert entry.concerns(release, "host") is concerned


@pytest.mark.parametrize(("run", "concerned"), [("kernel", True), ("host", False), ("", False)])
def test_entry_with_a_run_concerns_that_kind_only(tmp_path: Path, run: str, concerned: bool) -> None:  # noqa: FBT001
    (entry,) = expectations.load(written(tmp_path, ENTRY + 'run = "kernel"'))
    assert entry.concerns("2.4.0", run) is concerned
    marks = expectations.marks_for("test_a.py::test_x[one]", "2.4.0", run, [entry])
    assert bool(marks) is concerned


def test_defect_is_a_strict_expected_failure_and_absence_a_skip_with_need_and_finding(tmp_path: Path) -> None:
    absent = ENTRY.replace('"defect"', '"absent"').replace("it rounds twice", "a current scaling")
    known = expectations.load(written(tmp_path, ENTRY + absent))
    (mark,) = expectations.marks_for("test_a.py::test_x[one]", "2.4.0", "host", known[:1])
    assert (mark.name, mark.kwargs) == ("xfail", {"reason": "it rounds twice (TE#1)", "strict": True})
    (mark,) = expectations.marks_for("test_a.py::test_x[one]", "2.4.0", "host", known)
    reason = "needs a current scaling (TE#1); found Transformer Engine 2.4.0"
    assert (mark.name, mark.kwargs) == ("skip", {"reason": reason})
    assert not expectations.marks_for("test_a.py::test_x[one]", "2.9.0", "host", known), "Control: another release"
    assert not expectations.marks_for("test_a.py::test_x[two]", "2.4.0", "host", known), "Control: another test"


def test_pattern_that_fits_nothing_is_found(tmp_path: Path) -> None:
    known = expectations.load(written(tmp_path, ENTRY))
    assert expectations.unmatched(known, ["test_a.py::test_x[two]"]) == ["test_a.py::test_*[one*]"]
    assert expectations.unmatched(known, ["test_a.py::test_x[one]"]) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('kind = "defect"', 'kind = "flaky"', "kind is 'flaky'; expected 'absent' or 'defect'"),
        ('remove = "never"', "", "keys are kind, reason, releases, tests; expected kind, reason, releases, remove"),
        ('remove = "never"', 'remove = "never"\nrun = "gpu"', "run is 'gpu'; expected 'host' or 'kernel'"),
        ('">=2.3,<2.9"', '"2.3 to 2.9"', "Invalid specifier"),
    ],
)
def test_wrong_entry_is_refused_by_its_number_and_reason(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"expectation 1 \(it rounds twice \(TE#1\)\): " + message):
        expectations.load(written(tmp_path, ENTRY.replace(old, new)))


def test_all_entries_of_the_project_fit_a_test() -> None:
    """Collecting all claims checks it; this names the file if it does not."""
    collected = run_python("-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "tests/claims")
    names = [line.removeprefix("tests/claims/") for line in collected.splitlines() if "::" in line]
    assert not expectations.unmatched(expectations.load(FILE), names)


def test_entries_give_their_reason_with_where_it_can_be_read() -> None:
    vague = [entry.reason for entry in expectations.load(FILE) if not entry.reason or not entry.remove]
    assert not vague
