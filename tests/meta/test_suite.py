"""The suite as a user meets it: what it refuses, what it skips and how it says so."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import conftest

ROOT = Path(__file__).resolve().parents[2]


def run_pytest(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in a process of its own, in the project's folder."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(  # noqa: S603 - our own command
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.host
def test_asking_for_a_gpu_where_there_is_none_ends_with_one_line() -> None:
    run = run_pytest("-m", "gpu")
    lines = [line for line in (run.stdout + run.stderr).splitlines() if line.strip()]
    assert run.returncode == pytest.ExitCode.USAGE_ERROR, run.stdout
    assert len(lines) == 1, f"output is {len(lines)} lines: {lines}"
    assert "-m gpu needs a kernel run: a GPU and TE's CUDA extension; found " in lines[0]


def test_an_unknown_kind_of_run_ends_with_one_line() -> None:
    run = run_pytest(MNIST_FP8_TE="cuda")
    assert run.returncode == pytest.ExitCode.USAGE_ERROR, run.stdout
    assert "MNIST_FP8_TE is 'cuda'; expected 'kernel' or 'host'" in run.stderr


@pytest.mark.host
def test_a_skip_names_what_is_needed_and_found_and_counts_as_not_verified() -> None:
    run = run_pytest("tests/claims/test_kernels.py", "-q")
    assert run.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, run.stdout
    assert "needs a kernel run on a GPU; found a host run" in run.stdout
    assert "tests were NOT VERIFIED" in run.stdout
    assert " passed" not in run.stdout


def test_header_names_the_subject_and_the_kind_of_run() -> None:
    run = run_pytest("tests/library/test_oracles.py", "-k", "tiny")
    assert run.returncode == pytest.ExitCode.OK, run.stdout
    for fact in ("run: ", "transformer-engine: 2.", "jax: ", "flax: ", "python: 3.", "device: ", "recipes: Delayed"):
        assert f"\n{fact}" in run.stdout, f"the header does not say {fact!r}"


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
    assert conftest.selects_gpu(expression) is selects


def test_needs_of_every_mark_are_known() -> None:
    """A mark that the hook does not know would need nothing, and its test would run where it cannot."""
    declared = (ROOT / "pytest.ini").read_text().partition("markers =")[2].partition("filterwarnings")[0]
    marks = {line.split("(")[0].split(":")[0].strip() for line in declared.splitlines() if ":" in line}
    assert marks == set(conftest.NEEDS), f"marks={sorted(marks)}, needs={sorted(conftest.NEEDS)}"


def test_needs_say_what_was_found() -> None:
    assert conftest.NEEDS["devices"](1) is None
    assert "needs 4096 devices; found " in str(conftest.NEEDS["devices"](4096))
    assert conftest.NEEDS["recipe"]("DelayedScaling") is None
    assert "needs recipe Float8BlockScaling; found: Unsupported" in str(conftest.NEEDS["recipe"]("Float8BlockScaling"))
    assert (conftest.NEEDS["gpu"]() is None) is not (conftest.NEEDS["host"]() is None)


def test_header_survives_a_transformer_engine_that_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from mnist_fp8 import te_api  # noqa: PLC0415

    def broken() -> tuple[str, ...]:
        raise TypeError("on purpose")

    monkeypatch.setattr(te_api, "recipe_names", broken)
    facts = conftest._describe_recipes()
    assert facts == {"recipes": "Transformer Engine cannot be asked: TypeError: on purpose"}
