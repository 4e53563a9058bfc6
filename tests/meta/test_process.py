"""The process that runs the tests: a GPU of its own for each worker, and how a test that hangs ends."""

import argparse
import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from xml.etree import ElementTree as ET

import jax
import pytest

from mnist_fp8 import te
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.machine import driver
from mnist_fp8.machine.driver import Driver, Gpu
from mnist_fp8.plugin import gpus, hooks, mappings, process
from support.subprocesses import ROOT, run_python

# --- options of JAX that a shell carries ----------------------------------------------------------------------------


def test_options_that_the_tests_are_not_made_for_are_left_out_by_name(tmp_path: Path) -> None:
    test = "import os, jax\ndef test_a(): assert not jax.config.jax_enable_x64 and jax.config.jax_platforms == 'cpu'"
    test += "\ndef test_b(): assert 'NVTE_NVFP4_DISABLE_RHT' not in os.environ and os.environ['NVTE_FUSED_ATTN'] == '0'"
    (tmp_path / "test_options.py").write_text(test)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "expectations.toml").touch()
    (tmp_path / "conftest.py").write_text("pytest_plugins = ['mnist_fp8.plugin.hooks']")
    options = {"JAX_ENABLE_X64": "1", "FLAX_PROFILE": "1", "JAX_PLATFORMS": "cpu", "NVTE_FUSED_ATTN": "0"}
    options["NVTE_NVFP4_DISABLE_RHT"] = "1"
    options["XLA_FLAGS"] = "--xla_cpu_enable_fast_math=true --xla_cpu_multi_thread_eigen=false"
    command = ["-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]
    said = run_python(*command, cwd=tmp_path, first_on_path=ROOT, variables=options)
    left_out = "FLAX_PROFILE=1 JAX_ENABLE_X64=1 XLA_FLAGS=--xla_cpu_enable_fast_math=true NVTE_NVFP4_DISABLE_RHT=1"
    assert f"left out of this run: {left_out}\n" in said
    assert "2 passed" in said, said


def test_options_that_jax_has_read_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_DEBUG_NANS", "1")
    with pytest.raises(pytest.UsageError, match=r"JAX was imported before .*; unset JAX_DEBUG_NANS$"):
        process.leave_out_options()


# --- programs of a long run ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("allowed", "kept"), [(100, 0), (10**9, 1)], ids=["more than half is full", "there is room"])
def test_programs_are_forgotten_before_memory_has_no_place_for_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, allowed: int, kept: int
) -> None:
    (tmp_path / "limit").write_text(f"{allowed}\n")
    (tmp_path / "maps").write_text("a mapping\n" * 51)
    monkeypatch.setattr(mappings, "LIMIT", tmp_path / "limit")
    monkeypatch.setattr(mappings, "MAPPINGS", tmp_path / "maps")
    program = jax.jit(lambda x: x + 1)
    program(1)
    mappings.forget_programs()
    assert program._cache_size() == kept  # type: ignore[attr-defined]


def test_system_without_such_a_limit_forgets_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(mappings, "LIMIT", tmp_path / "none")
    program = jax.jit(lambda x: x + 1)
    program(1)
    mappings.forget_programs()
    assert program._cache_size() == 1  # type: ignore[attr-defined]


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
    assert gpus.rotated(visible, count, worker) == expected


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
    gpus.put_own_first(workerinput)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == expected


@pytest.mark.parametrize(("kind", "expected"), [(RunKind.KERNEL, {"gpus": 2}), (RunKind.HOST, {})])
def test_workers_are_told_how_many_gpus_there_are(
    monkeypatch: pytest.MonkeyPatch, kind: RunKind, expected: dict[str, int]
) -> None:
    gpu = Gpu("NVIDIA H100", (9, 0))
    monkeypatch.setattr(driver, "find_driver", lambda: Driver((13, 0), (gpu, gpu)))
    engine = dataclasses.replace(te.engine(), kind=kind)
    monkeypatch.setattr(te, "engine", lambda: engine)
    node = SimpleNamespace(workerinput={})
    hooks.pytest_configure_node(node)
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
    """A run whose test has begun to hang, guarded as in that kind of run; all of it is gone afterwards."""
    (folder / "test_hanging.py").write_text(textwrap.dedent(HANGING))
    (folder / "pytest.ini").write_text("[pytest]")
    options = ("-n", "1", "--timeout=2", f"--timeout-method={process.guard_method(kind)}", "--junitxml=junit.xml")
    started = subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options],
        cwd=folder,
        env=os.environ | {"MARKER": marker},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while not (folder / "begun").exists():
            assert started.poll() is None, "it ended before the test that hangs"
            time.sleep(0.05)
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()


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
    with hanging_run(tmp_path, RunKind.KERNEL, marker) as started:
        assert left_over(marker), "Control: processes of the run are seen"
        assert started.wait(timeout=60) == pytest.ExitCode.TESTS_FAILED
        assert left_over(marker) == []
    cases = ET.parse(tmp_path / "junit.xml").iter("testcase")  # noqa: S314 - our own file
    outcomes = {case.get("name"): [child.get("message", "") for child in case] for case in cases}
    assert set(outcomes) == {"test_hangs", "test_next"}
    assert "crashed while running 'test_hanging.py::test_hangs'" in outcomes["test_hangs"][0]
    assert outcomes["test_next"] == []


def test_control_a_signal_does_not_end_it(tmp_path: Path) -> None:
    with hanging_run(tmp_path, RunKind.HOST, "") as started, pytest.raises(subprocess.TimeoutExpired):
        started.wait(timeout=4)  # twice what it has


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
    engine = dataclasses.replace(te.engine(), kind=kind)
    monkeypatch.setattr(te, "engine", lambda: engine)
    monkeypatch.setattr(process, "prepare_jax", lambda _: None)
    option = argparse.Namespace(collectonly=False, markexpr="", timeout_method=asked, capability=None)
    hooks.pytest_configure(cast("pytest.Config", SimpleNamespace(option=option, stash={})))
    assert option.timeout_method == method
