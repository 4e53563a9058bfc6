"""The workflows in ``.github``: what they may do, and what people see of them.

What a verdict is to a job is for ``mnist_fp8.cli.github``. Their shell scripts are run as a runner runs them, with
stand-ins for ``mnist-fp8``, ``gh`` and others. Whether they are well-formed is for ``tox -e workflows``.
"""

import configparser
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from mnist_fp8.gate.releases.catalogue import releases, select_releases

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "guide" / "ci.md"
PIN = ROOT / "requirements" / "te.txt"
WORKFLOWS = {file.name: file for file in sorted((ROOT / ".github" / "workflows").glob("*.yml"))}
ACTIONS = {file.parent.name: file for file in sorted((ROOT / ".github" / "actions").glob("*/action.yml"))}
JOBS = [(workflow, job) for workflow, file in WORKFLOWS.items() for job in yaml.safe_load(file.read_text())["jobs"]]


def load(name: str) -> dict[Any, Any]:
    """A workflow by its file's name, or an action by its folder's."""
    file = WORKFLOWS.get(name) or ACTIONS[name]
    parsed: dict[Any, Any] = yaml.safe_load(file.read_text())
    return parsed


def steps(name: str) -> Iterator[dict[str, Any]]:
    """All steps of a workflow or an action."""
    parsed = load(name)
    for part in parsed["jobs"].values() if "jobs" in parsed else [parsed["runs"]]:
        yield from part["steps"]


def run_step(name: str, step: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the script of a step as a runner does, in a folder where ``bin`` comes first on the path."""
    (script,) = (each["run"] for each in steps(name) if each.get("id") == step)
    defaults = {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "RUNNER_TEMP": str(folder / "temp"),
        "CALLS": str(folder / "calls"),
        "GITHUB_OUTPUT": str(folder / "output"),
        "GITHUB_STEP_SUMMARY": str(folder / "summary"),
        "GITHUB_SERVER_URL": "https://github.example",
        "GITHUB_REPOSITORY": "owner/repository",
        "GITHUB_RUN_ID": "7",
    }
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    return subprocess.run(  # noqa: S603 - a script of ours
        command, cwd=folder, env=defaults | environ, capture_output=True, text=True, check=False, timeout=60
    )


def stand_in(folder: Path, program: str, script: str) -> None:
    """Put a program on the path of `run_step` that notes how it was called, and then does what a script says."""
    path = folder / "bin" / program
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'#!/usr/bin/env bash\nprintf "%s\\n" "${{0##*/}} $*" >> "$CALLS"\n{script}\n')
    path.chmod(0o755)


def calls(folder: Path) -> list[str]:
    """How the stand-ins were called."""
    return (folder / "calls").read_text().splitlines()


def write_report(folder: Path, text: str, verdict: str = "SAFE") -> None:
    """What ``mnist-fp8 upgrade`` leaves behind."""
    (folder / "upgrade").mkdir()
    (folder / "upgrade" / "upgrade.md").write_text(text)
    (folder / "upgrade" / "upgrade.json").write_text(json.dumps({"verdict": verdict}))


# --- what they run -------------------------------------------------------------------------------------------------


def test_every_known_release_is_held_to_the_claims_once() -> None:
    parts = load("te-releases.yml")["jobs"]["matrix"]["strategy"]["matrix"]["releases"]
    assert sorted(release for part in parts for release in select_releases(part)) == sorted(releases())


# --- what they may do ----------------------------------------------------------------------------------------------


def test_there_is_something_to_look_at() -> None:
    """Control: the rules below rest on it."""
    assert {"te-upgrade.yml", "te-newest.yml", "te-gpu.yml", "te-releases.yml"} < set(WORKFLOWS)
    assert all(any("run" in step for step in steps(name)) for name in [*WORKFLOWS, *ACTIONS])


@pytest.mark.parametrize("name", [*WORKFLOWS, *ACTIONS])
def test_scripts_take_values_from_their_environment_only(name: str) -> None:
    """An expression in a script is put into its text: a branch's name could be a command."""
    scripts = [step["run"] for step in steps(name) if "run" in step]
    assert not [script for script in scripts if "${{" in script]


@pytest.mark.parametrize("name", [*WORKFLOWS, *ACTIONS])
def test_actions_of_others_are_pinned_to_a_commit_and_leave_no_token_behind(name: str) -> None:
    used = [step for step in steps(name) if not step.get("uses", "./").startswith("./")]
    assert not [step["uses"] for step in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", step["uses"])]
    checkouts = [step for step in used if step["uses"].startswith("actions/checkout@")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_no_workflow_has_a_permission_that_a_job_does_not_ask_for(name: str) -> None:
    workflow = load(name)
    assert workflow["permissions"] == {}
    triggers = workflow[True]  # YAML reads `on` as a truth value
    assert "pull_request_target" not in triggers
    assert "group" in workflow["concurrency"]


@pytest.mark.parametrize(("name", "job"), JOBS)
def test_job_that_may_write_runs_nothing_but_its_own_script(name: str, job: str) -> None:
    found = load(name)["jobs"][job]
    assert found["timeout-minutes"] <= 120
    if set(found["permissions"].values()) == {"read"}:
        return
    assert len(found["permissions"]) == 1
    used = [step["uses"].partition("@")[0] for step in found["steps"] if "uses" in step]
    assert used == ["actions/download-artifact"]


def test_code_of_a_fork_does_not_reach_the_runner_of_our_own() -> None:
    own = [job for name in WORKFLOWS for job in load(name)["jobs"].values() if "self-hosted" in job["runs-on"]]
    assert own
    for job in own:
        assert job["if"].split(" || ") == [
            "github.event_name == 'workflow_dispatch'",
            "(vars.TE_GPU_RUNNER == 'true' && github.event.pull_request.head.repo.full_name == github.repository)",
        ]


@pytest.mark.parametrize("name", ["te-upgrade", "te-gpu.yml"])
def test_verdict_decides_in_the_program_and_reports_are_kept_whatever_it_is(name: str) -> None:
    """And a release that nobody accepted leaves nothing in a cache that other runs restore."""
    (judging,) = (step["run"] for step in steps(name) if step.get("id") == "upgrade")
    assert judging.splitlines()[-1].endswith(" -o upgrade --github")
    (upload,) = (step for step in steps(name) if step.get("uses", "").startswith("actions/upload-artifact@"))
    assert upload["if"] == "always()"


@pytest.mark.parametrize(("uses", "options"), [("", ""), ("src\nmy code.py\n", " --uses src --uses my code.py")])
def test_action_hands_on_the_sources_that_it_is_given(tmp_path: Path, uses: str, options: str) -> None:
    stand_in(tmp_path, "mnist-fp8", "exit 3")
    assert run_step("te-upgrade", "upgrade", tmp_path, OLD="a.txt", NEW="newest", USES=uses).returncode == 3
    assert calls(tmp_path) == [f"mnist-fp8 upgrade a.txt newest{options} -o upgrade --github"]


def test_cache_is_saved_for_the_pull_request_alone() -> None:
    saves = [
        step
        for name in [*WORKFLOWS, *ACTIONS]
        for step in steps(name)
        if re.match(r"actions/cache(/save)?@", step.get("uses", ""))
    ]
    assert len(saves) == 1
    assert saves[0]["if"].startswith("always() && github.event_name == 'pull_request' && ")


def test_no_cache_is_restored_in_which_another_release_has_run() -> None:
    (restored,) = (
        step["with"] for step in steps("te-upgrade") if step.get("uses", "").startswith("actions/cache/restore@")
    )
    assert set(restored) == {"path", "key"}, "restore-keys would take that of another pair of pins"
    expressions = re.findall(r"\$\{\{ (.*?) \}\}", restored["key"])
    assert {"github.event_name", "hashFiles(inputs.old)", "hashFiles(inputs.new)"} < set(expressions)


def test_changes_of_the_workflows_have_a_reviewer_or_the_guide_says_that_they_have_none() -> None:
    """An owner that GitHub does not know makes the file invalid, so there is none as long as nobody is named."""
    owners = ROOT / ".github" / "CODEOWNERS"
    if owners.exists():
        assert re.search(r"^/\.github/ +@\S+", owners.read_text(), re.MULTILINE)
    else:
        assert "no `.github/CODEOWNERS`" in GUIDE.read_text()


# --- what people see -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("comment", "request_"),
    [
        ("", "gh api --silent --method POST repos/owner/repository/issues/5/comments -F body=@comment.md"),
        ("12", "gh api --silent --method PATCH repos/owner/repository/issues/comments/12 -F body=@comment.md"),
    ],
)
def test_pull_request_gets_one_comment(tmp_path: Path, comment: str, request_: str) -> None:
    stand_in(tmp_path, "gh", f"case $* in *paginate*) echo {comment} ;; esac")
    write_report(tmp_path, "<!-- mnist-fp8 upgrade -->\nSAFE\n")
    assert run_step("te-upgrade.yml", "comment", tmp_path, NUMBER="5").returncode == 0
    looked_for, made = calls(tmp_path)
    assert 'startswith("<!-- mnist-fp8 upgrade -->")' in looked_for
    assert made == request_
    link = "\n[All reports and the log](https://github.example/owner/repository/actions/runs/7)\n"
    assert (tmp_path / "comment.md").read_text() == f"<!-- mnist-fp8 upgrade -->\nSAFE\n{link}"


def test_comment_of_an_earlier_verdict_does_not_stay_when_there_is_none(tmp_path: Path) -> None:
    stand_in(tmp_path, "gh", "case $* in *paginate*) echo 12 ;; esac")
    assert run_step("te-upgrade.yml", "comment", tmp_path, NUMBER="5").returncode == 0
    said = (tmp_path / "comment.md").read_text()
    assert said.startswith("<!-- mnist-fp8 upgrade -->\nThe upgrade of Transformer Engine could not be judged.\n")
    assert "--method PATCH" in calls(tmp_path)[-1]


def test_comment_is_found_by_the_first_line_of_the_report() -> None:
    from mnist_fp8.gate.reports.verdict.markdown import MARKER  # noqa: PLC0415 - it is known when a workflow is wrong, and that first

    (script,) = (step["run"] for step in steps("te-upgrade.yml") if step.get("id") == "comment")
    assert f"marker='{MARKER}'" in script


@pytest.mark.parametrize(
    ("verdict", "number", "begins"),
    [
        ("BROKEN", "", ["gh label create te-newest", "gh issue create --label te-newest --title {}: BROKEN "]),
        ("CHANGED", "", ["gh label create te-newest", "gh issue create --label te-newest --title {}: CHANGED "]),
        ("BROKEN", "8", ["gh issue edit 8 --title {}: BROKEN "]),
        ("CHANGED", "8", ["gh issue edit 8 --title {}: CHANGED "]),
        ("SAFE", "8", ["gh issue close 8 --comment SAFE now: https://github.example/owner/repository/actions/runs/7"]),
        ("SAFE", "", []),
        ("UNVERIFIED", "8", []),
        (None, "8", []),
    ],
)
def test_newest_release_has_one_issue_as_long_as_it_is_not_safe(
    tmp_path: Path, verdict: str | None, number: str, begins: list[str]
) -> None:
    stand_in(tmp_path, "gh", f"case $* in *list*) echo {number} ;; esac")
    if verdict:
        write_report(tmp_path, "report\n", verdict)
    assert run_step("te-newest.yml", "issue", tmp_path).returncode == 0
    listed, *changes = calls(tmp_path)
    assert listed.startswith("gh issue list --app github-actions --label te-newest --state open ")
    expected = [begin.format("The newest Transformer Engine") for begin in begins]
    assert [change[: len(begin)] for change, begin in zip(changes, expected, strict=True)] == expected


# --- what they share with other files ------------------------------------------------------------------------------


def pin() -> Requirement:
    """The accepted release."""
    (line,) = (line for line in PIN.read_text().splitlines() if not line.startswith("#"))
    return Requirement(line)


def test_accepted_pin_is_one_release_that_the_package_allows() -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (allowed,) = (each for each in map(Requirement, dependencies) if each.name == "transformer-engine")
    (specifier,) = pin().specifier
    assert (pin().name, specifier.operator) == (allowed.name, "==")
    assert specifier.version in allowed.specifier


def test_changed_pin_is_compared_with_the_one_of_the_base(tmp_path: Path) -> None:
    """And a base without one is an error, not a comparison with nothing."""
    stand_in(tmp_path, "git", '[ "$2" = abc:requirements/te.txt ] && echo transformer-engine==2.19.0')
    assert run_step("base-pin", "pin", tmp_path, BASE="abc").returncode == 0
    assert (tmp_path / "base-te.txt").read_text() == "transformer-engine==2.19.0\n"
    missing = run_step("base-pin", "pin", tmp_path, BASE="abd")
    assert (missing.returncode, "::error::abd has no requirements/te.txt" in missing.stdout) == (2, True)
    for name in ("te-upgrade.yml", "te-gpu.yml"):
        assert load(name)[True]["pull_request"]["paths"] == [str(PIN.relative_to(ROOT))]
        assert load(name)["jobs"]["judge"]["steps"][0]["with"]["fetch-depth"] == 0


def test_gpu_workflow_builds_what_tox_builds(tmp_path: Path) -> None:
    tox = configparser.RawConfigParser()
    tox.read(ROOT / "tox.ini")
    release = next(iter(pin().specifier)).version
    built = tox["testenv:gpu"]["commands_pre"].replace("{env:TE_VERSION}", release)
    expected = [" ".join(shlex.split(line)) for line in built.splitlines() if line]

    make = 'if [ "$1 $2" = "-m venv" ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; fi'
    program = f'if [ "$1" = -c ]; then PYTHONPATH={ROOT} exec {sys.executable} "$@"; fi'
    stand_in(tmp_path, "python", f"{make}; {program}")
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "te.txt").write_text(PIN.read_text())
    (tmp_path / "base-te.txt").write_text("# older\ntransformer_engine[jax]==2.19.0  # accepted\n")
    assert run_step("te-gpu.yml", "build", tmp_path, PACKAGE=".").returncode == 0
    temp = f"{tmp_path}/temp"
    commands = [call for call in calls(tmp_path) if not call.startswith("python -c ")]
    judge, old, new = (commands.index(f"python -m venv {temp}/{name}") for name in ("judge", "old", "new"))
    assert commands[judge + 1 : old] == ["python -m pip install ."]
    assert commands[new + 1 : new + 3] == expected
    assert commands[old + 1 : new] == [command.replace(release, "2.19.0") for command in commands[new + 1 :]]


@pytest.mark.parametrize("code", [0, 1])
def test_gpu_workflow_compares_what_it_measured_even_if_that_failed(tmp_path: Path, code: int) -> None:
    stand_in(tmp_path, "mnist-fp8", f"if [ $1 = measure ]; then exit {code}; fi; exit 3")
    assert run_step("te-gpu.yml", "upgrade", tmp_path).returncode == 3
    temp = f"{tmp_path}/temp"
    assert calls(tmp_path) == [
        f"mnist-fp8 measure --python {temp}/old/bin/python --claims -o measured/old.json",
        f"mnist-fp8 measure --python {temp}/new/bin/python --claims -o measured/new.json",
        "mnist-fp8 compare measured/old.json measured/new.json -o upgrade --github",
    ]


@pytest.mark.parametrize("name", [*WORKFLOWS, *ACTIONS])
def test_documentation_explains_each_file(name: str) -> None:
    assert f"`{name}`" in GUIDE.read_text()
