"""What a verdict is to a GitHub job."""

import dataclasses
import re
import types
from pathlib import Path
from typing import Any

import pytest

from mnist_fp8.cli import github, main
from mnist_fp8.gate.reports.verdict import markdown
from mnist_fp8.gate.reports.verdict.view import View
from mnist_fp8.gate.uses.judgement import Cause, Judgement, Outcome
from mnist_fp8.gate.uses.use import Place
from mnist_fp8.gate.verdict import policy
from support.comparing import WHOLE, compared
from support.own_code import CODE, PACKED, accepted, judged
from support.subprocesses import ROOT


def view(verdict: str, *, is_partial: bool = False) -> Any:
    comparison = types.SimpleNamespace(is_partial=is_partial)
    return types.SimpleNamespace(verdict=types.SimpleNamespace(value=verdict), comparison=comparison, code=None)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what a runner reads afterwards; the report is one line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary")
    monkeypatch.setenv("GITHUB_OUTPUT", "output")
    monkeypatch.setattr(markdown, "markdown", lambda _view: "report\n")
    return tmp_path


@pytest.mark.parametrize(
    ("verdict", "code", "passes", "begins"),
    [
        ("SAFE", 0, 0, "::notice::SAFE: "),
        ("BROKEN", 1, 1, "::error::BROKEN: "),
        ("UNVERIFIED", 3, 3, "::error::UNVERIFIED: "),
        ("CHANGED", 4, 0, "::warning::CHANGED: "),
        ("PARTIAL", 5, 5, "::error::PARTIAL: "),
    ],
)
def test_verdict_passes_or_fails_the_job_as_documented(
    files: Path, capsys: pytest.CaptureFixture[str], verdict: str, code: int, passes: int, begins: str
) -> None:
    (files / "summary").write_text("before\n")
    assert github.conclude(view(verdict), github=True) == passes
    assert capsys.readouterr().out.startswith(begins)
    assert (files / "summary").read_text() == "before\nreport\n"
    assert (files / "output").read_text() == f"verdict={verdict}\n"
    (documented,) = re.findall(
        rf"^\| {code} \|[^|]+\| (\w+)", (ROOT / "docs" / "guide" / "ci.md").read_text(), re.MULTILINE
    )
    assert documented == ("fails" if passes else "passes")


def test_part_that_changed_passes_no_job(files: Path) -> None:
    assert github.conclude(view("CHANGED", is_partial=True), github=True) == 4
    assert (files / "output").read_text() == "verdict=CHANGED\n"


def test_outside_of_a_job_the_exit_code_is_the_verdict(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert github.conclude(view("CHANGED"), github=False) == 4
    assert capsys.readouterr().out == ""
    assert not list(files.iterdir())


def test_job_that_names_no_files_gets_its_annotation(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY")
    monkeypatch.delenv("GITHUB_OUTPUT")
    assert github.conclude(view("SAFE"), github=True) == 0
    assert capsys.readouterr().out.startswith("::notice::")
    assert not list(files.iterdir())


def test_annotation_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    github.annotate("error", "100%\r\nof it")
    assert capsys.readouterr().out == "::error::100%25%0D%0Aof it\n"


@pytest.mark.parametrize("command", ["compare", "upgrade"])
def test_job_that_could_not_run_fails_with_an_annotation(
    files: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    (files / "policy.toml").write_text("accept = 1")
    arguments = [command, "old.json", "new.json", "--policy", "policy.toml"]
    assert main.main([*arguments, "--github"]) == 2
    assert capsys.readouterr().out.startswith("::error::mnist-fp8: error: policy policy.toml ")
    assert main.main(arguments) == 2
    assert capsys.readouterr().out == "", "Control: outside of a job there is none"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--github"], ".mnist-fp8/policy.toml"),
        (["--github", "--policy", "own.toml"], "own.toml"),
        (["--policy", "own.toml", "--github"], "own.toml"),
    ],
)
def test_policy_of_the_repository_is_used_where_there_is_one(
    files: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], expected: str
) -> None:
    loaded: list[Path] = []

    def load(path: Path) -> tuple[()]:
        loaded.append(path)
        return ()

    monkeypatch.setattr(policy, "load", load)
    main.main(["compare", "old.json", "new.json", *options])
    assert loaded == [Path(name) for name in [expected] if name == "own.toml"], "there is none yet"
    (files / ".mnist-fp8").mkdir()
    (files / ".mnist-fp8" / "policy.toml").touch()
    main.main(["compare", "old.json", "new.json", *options])
    assert loaded[-1] == Path(expected)


def test_lines_of_the_users_code_are_annotated(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = dataclasses.replace(PACKED, place=Place("a,b:c%/d.py", 7, 3))
    again = Judgement(odd, Outcome.BREAKS, Cause.MISSING_ARGUMENT, "is_thd")
    code = dataclasses.replace(CODE, judgements=(*(CODE.judgements or ()), again))
    github.conclude(View.of(dataclasses.replace(compared(WHOLE, WHOLE), uses=code)), github=True)
    verdict, *lines = capsys.readouterr().out.splitlines()
    assert verdict.startswith("::notice::SAFE"), "the verdict is the first of those that GitHub shows"
    needs = "`SequenceDescriptor.from_segment_ids_and_pos` now needs `is_thd`"
    both = f"{needs} and `is_segment_ids_reordered`. Pass `is_thd=…` and `is_segment_ids_reordered=…`."
    assert f"::error file=src/attention.py,line=41,col=5::{both}" in lines
    assert f"::error file=a%2Cb%3Ac%25/d.py,line=7,col=3::{needs}. Pass `is_thd=…`." in lines
    (in_cell,) = (line for line in lines if "try.ipynb" in line)
    assert in_cell.startswith("::warning file=nb/try.ipynb::cell 4, line 2: `fused_attn` has another default")
    assert sorted(line.split()[0] for line in lines) == ["::error"] * 4 + ["::warning"] * 2
    assert files


def test_accepted_line_gets_no_annotation(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = judged(Judgement(PACKED, Outcome.BREAKS, Cause.MISSING_ARGUMENT, "is_thd"))
    with_policy = dataclasses.replace(compared(WHOLE, WHOLE), uses=code, differences=(accepted("we know"),))
    github.conclude(View.of(with_policy), github=True)
    assert "attention.py" not in capsys.readouterr().out
    assert files
