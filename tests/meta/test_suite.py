"""The suite as a user meets it: what it refuses, what it skips and how it says so."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import pytest

import conftest
from mnist_fp8.core.errors import TeUnavailableError
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.doctor import checks
from mnist_fp8.machine import driver
from mnist_fp8.machine.driver import Driver, Gpu
from mnist_fp8.programs import cache
from mnist_fp8.te import loading

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
    marks.remove("slow")  # needs nothing but time
    assert marks == set(conftest.NEEDS), f"marks={sorted(marks)}, needs={sorted(conftest.NEEDS)}"


def test_needs_say_what_was_found() -> None:
    assert conftest.NEEDS["devices"](1) is None
    assert "needs 4096 devices; found " in str(conftest.NEEDS["devices"](4096))
    assert conftest.NEEDS["recipe"]("DelayedScaling") is None
    assert "needs recipe Float8BlockScaling; found: Unsupported" in str(conftest.NEEDS["recipe"]("Float8BlockScaling"))
    assert (conftest.NEEDS["gpu"]() is None) is not (conftest.NEEDS["host"]() is None)


def test_header_survives_a_transformer_engine_that_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from mnist_fp8.te import recipes  # noqa: PLC0415

    def broken() -> tuple[str, ...]:
        raise TypeError("on purpose")

    monkeypatch.setattr(recipes, "recipe_names", broken)
    facts = conftest._describe_recipes()
    assert facts == {"recipes": "Transformer Engine cannot be asked: TypeError: on purpose"}


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        ("", "it is broken (mnist-fp8 doctor says more)"),
        ("Flax: found none", "it is broken; Flax: found none (mnist-fp8 doctor says more)"),
    ],
)
def test_refusal_names_what_does_not_fit_in_one_line(monkeypatch: pytest.MonkeyPatch, problem: str, line: str) -> None:
    monkeypatch.setattr(checks, "first_problem", lambda: problem)
    assert conftest._explain(TeUnavailableError("it is\n  broken")) == line


@pytest.mark.host
def test_unavailable_te_ends_the_run_with_one_line_that_names_the_piece() -> None:
    run = run_pytest(MNIST_FP8_TE="kernel")
    lines = [line for line in (run.stdout + run.stderr).splitlines() if line.strip()]
    assert run.returncode == pytest.ExitCode.USAGE_ERROR, run.stdout
    assert len(lines) == 1, f"output is {len(lines)} lines: {lines}"
    assert "nothing can be verified: MNIST_FP8_TE=kernel needs a GPU and TE's CUDA extension; found " in lines[0]
    assert "; NVIDIA driver: needed CUDA " in lines[0]
    assert lines[0].endswith(" (mnist-fp8 doctor says more)")


# --- a GPU for each worker -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("visible", "count", "worker", "expected"),
    [
        (None, 4, 0, "0,1,2,3"),
        (None, 4, 1, "1,2,3,0"),
        (None, 4, 3, "3,0,1,2"),
        (None, 4, 4, "0,1,2,3"),
        (None, 4, 9, "1,2,3,0"),
        (None, 1, 5, "0"),
        ("6,2", 2, 1, "2,6"),
        ("GPU-8932f937,GPU-46fd7ca8,MIG-b8c4", 3, 2, "MIG-b8c4,GPU-8932f937,GPU-46fd7ca8"),
        ("3,1,-1,2", 2, 1, "1,3"),
    ],
    ids=[
        *("first", "second", "last", "one more than GPUs", "many more than GPUs", "one GPU"),
        *("some GPUs", "names", "what CUDA does not see"),
    ],
)
def test_each_worker_sees_all_gpus_and_its_own_first(
    visible: str | None, count: int, worker: int, expected: str
) -> None:
    assert conftest.rotated(visible, count, worker) == expected


@pytest.mark.parametrize(
    ("workerinput", "expected"),
    [
        ({"workerid": "gw11", "gpus": 8}, "3,4,5,6,7,0,1,2"),
        ({"workerid": "gw1"}, "unchanged"),
        ({}, "unchanged"),
    ],
    ids=["worker of a kernel run", "worker of a host run", "no worker"],
)
def test_only_workers_of_a_kernel_run_choose_a_gpu(
    monkeypatch: pytest.MonkeyPatch, workerinput: dict[str, object], expected: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "unchanged")
    if "gpus" in workerinput:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    conftest._put_own_gpu_first(workerinput)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == expected


@pytest.mark.parametrize(("kind", "expected"), [(RunKind.KERNEL, {"gpus": 2}), (RunKind.HOST, {})])
def test_workers_are_told_how_many_gpus_there_are(
    monkeypatch: pytest.MonkeyPatch, kind: RunKind, expected: dict[str, int]
) -> None:
    gpu = Gpu("NVIDIA H100", (9, 0))
    monkeypatch.setattr(driver, "find_driver", lambda: Driver((13, 0), (gpu, gpu)))
    monkeypatch.setattr(loading, "engine", lambda: SimpleNamespace(kind=kind))
    node = SimpleNamespace(workerinput={})
    conftest.pytest_configure_node(node)
    assert node.workerinput == expected


# --- tests that hang -----------------------------------------------------------------------------------------------

HANGING = """
    import ctypes
    import pathlib

    def test_hangs():
        pathlib.Path("begun").touch()
        # Waits for itself in C, where no signal handler of Python runs, as a wait for a kernel does.
        mutex, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
        libc.pthread_mutex_lock(mutex)
        libc.pthread_mutex_lock(mutex)

    def test_next():
        pass
"""


@contextlib.contextmanager
def hanging_run(folder: Path, kind: RunKind, marker: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a run with a test that hangs, guarded as in that kind of run; all of it is gone afterwards."""
    (folder / "test_hanging.py").write_text(textwrap.dedent(HANGING))
    (folder / "pytest.ini").write_text("[pytest]")
    options = ("-n", "1", "--timeout=2", f"--timeout-method={conftest.guard_method(kind)}", "--junitxml=junit.xml")
    process = subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options],
        cwd=folder,
        env=os.environ | {"MARKER": marker},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def left_over(marker: str) -> list[str]:
    """Processes that inherited a marker in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if marker.encode() in (path / "environ").read_bytes():
                found.append(path.name)
    return found


def test_test_that_hangs_in_a_kernel_fails_and_the_run_goes_on(tmp_path: Path) -> None:
    marker = str(uuid.uuid4())
    with hanging_run(tmp_path, RunKind.KERNEL, marker) as process:
        assert left_over(marker), "Control: processes of the run are seen"
        assert process.wait(timeout=60) == pytest.ExitCode.TESTS_FAILED
        assert left_over(marker) == []
    cases = ET.parse(tmp_path / "junit.xml").iter("testcase")  # noqa: S314 - our own file
    outcomes = {case.get("name"): [child.get("message", "") for child in case] for case in cases}
    assert set(outcomes) == {"test_hangs", "test_next"}
    assert "crashed while running 'test_hanging.py::test_hangs'" in outcomes["test_hangs"][0]
    assert outcomes["test_next"] == []


def test_control_a_signal_does_not_end_it(tmp_path: Path) -> None:
    with hanging_run(tmp_path, RunKind.HOST, "") as process, pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=8)
    assert (tmp_path / "begun").exists()


@pytest.mark.parametrize(
    ("kind", "asked", "method"),
    [
        (RunKind.KERNEL, None, "thread"),
        (RunKind.HOST, None, "signal"),
        (RunKind.KERNEL, "signal", "signal"),
    ],
    ids=["kernel run", "host run", "asked for"],
)
def test_guard_follows_the_kind_of_run(
    monkeypatch: pytest.MonkeyPatch, kind: RunKind, asked: str | None, method: str
) -> None:
    monkeypatch.setattr(loading, "engine", lambda: SimpleNamespace(kind=kind))
    monkeypatch.setattr(conftest, "_divide_cpu", lambda: None)
    monkeypatch.setattr(cache, "keep_programs", lambda **_: None)
    option = SimpleNamespace(collectonly=False, markexpr="", timeout_method=asked)
    conftest.pytest_configure(SimpleNamespace(option=option))
    assert option.timeout_method == method
