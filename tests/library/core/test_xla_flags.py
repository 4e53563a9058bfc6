"""The flags that we set: before the user's, only where XLA knows them, and not for another JAX."""

import importlib.util
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from mnist_fp8 import te
from mnist_fp8.core import xla_flags
from mnist_fp8.core.xla_flags import FLOAT32_SUMS, NO_GRAPHS, ON_A_CPU
from mnist_fp8.te import loading
from support.subprocesses import run_code

SUMS = FLOAT32_SUMS
THEIRS = "--xla_cpu_enable_fast_math=false"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", SUMS),
        (THEIRS, f"{SUMS} {THEIRS}"),
        (f"{SUMS}dot", f"{SUMS} {SUMS}dot"),
        (f"{THEIRS} {SUMS}", f"{THEIRS} {SUMS}"),
        ("/a/file of flags", "/a/file of flags"),
    ],
    ids=["none", "another flag", "another value of the same", "the same", "file"],
)
def test_flags_of_the_user_come_last(given: str, expected: str) -> None:
    environ = {"XLA_FLAGS": given}
    xla_flags.put_first(SUMS, environ=environ)
    xla_flags.put_first(SUMS, environ=environ)
    assert environ == {"XLA_FLAGS": expected}


def test_own_flags_are_told_from_the_users() -> None:
    assert xla_flags.ours({"XLA_FLAGS": f"{SUMS} {THEIRS}"}) == (SUMS,)
    assert xla_flags.ours({"XLA_FLAGS": f"{THEIRS} {SUMS}"}) == ()
    assert xla_flags.ours({}) == ()


def test_another_jax_gets_the_users_flags_only() -> None:
    assert xla_flags.without_ours({"XLA_FLAGS": f"{SUMS} {THEIRS}", "A": "b"}) == {"XLA_FLAGS": THEIRS, "A": "b"}
    assert xla_flags.without_ours({"XLA_FLAGS": SUMS}) == {}


def test_a_flag_is_known_where_xla_has_it() -> None:
    assert xla_flags.is_known("--xla_force_host_platform_device_count=2")
    assert not xla_flags.is_known("--xla_force_host_platform_device_coun=2")
    assert not xla_flags.is_known("--xla_no_such_flag=")


@pytest.mark.parametrize("library", ["libjax_common.so", "xla_extension.so"])
def test_a_name_in_a_description_is_no_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    (tmp_path / library).write_bytes(b"..\n\x10xla_of_a_message\x18..\0xla_of_the_table\0")
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: spec)
    xla_flags.is_known.cache_clear()
    try:
        assert xla_flags.is_known("--xla_of_the_table=")
        assert not xla_flags.is_known("--xla_of_a_message=")
    finally:
        xla_flags.is_known.cache_clear()


@pytest.mark.parametrize(
    ("no_gpu", "known", "expected"),
    [("none", True, " ".join(ON_A_CPU)), ("none", False, ""), ("", True, NO_GRAPHS)],
    ids=["on a CPU", "by an XLA without the flags", "on a GPU"],
)
def test_flags_for_the_device_are_set(
    monkeypatch: pytest.MonkeyPatch,
    no_gpu: str,
    known: bool,  # noqa: FBT001
    expected: str,
) -> None:
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(loading, "why_no_gpu", lambda: no_gpu)
    monkeypatch.setattr(xla_flags, "is_known", lambda _flag: known)
    te.prepare_xla()
    assert os.environ["XLA_FLAGS"] == expected


@pytest.mark.host
@pytest.mark.parametrize(
    "prepared", ["te.engine()", "feasible.check_feasible(TrainConfig())"], ids=["TE", "Flax alone"]
)
def test_jax_starts_with_the_flags_for_a_cpu(prepared: str) -> None:
    """In a process of its own, where JAX has not started: with an unknown flag it would end there."""
    code = f"""
        import jax
        from mnist_fp8 import te
        from mnist_fp8.core import xla_flags
        from mnist_fp8.training import feasible
        from mnist_fp8.training.config import TrainConfig
        {prepared}
        jax.devices()
        print(xla_flags.ours() == tuple(filter(xla_flags.is_known, xla_flags.ON_A_CPU)))
    """
    assert run_code(code, variables={"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu", "MNIST_FP8_TE": "host"}).strip() == "True"
