"""What a process may use of its machine."""

import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from mnist_fp8.core import limits

Groups = Callable[..., None]
GIGABYTE = 10**9


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Groups:
    """A machine of 8 cores and 64 GB, with files of control groups by their path; ``own`` says which is the own one."""
    sizes = {"SC_PAGE_SIZE": 1000, "SC_PHYS_PAGES": 64 * 10**6}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(limits, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(limits, "_OWN", tmp_path / "own")

    def write(own: str, **files: str) -> None:
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            file = tmp_path / "groups" / name.replace("__", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    return write


@pytest.mark.usefixtures("groups")
def test_machine_without_control_groups_may_be_used_whole() -> None:
    assert (limits.cores(), limits.memory()) == (8, 64 * GIGABYTE)


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("20000 100000", 1), ("", 8)]
)
def test_share_of_time_is_as_many_cores(groups: Groups, quota: str, cores: int) -> None:
    groups("0::/a/b\n", **{"a__b__cpu.max": quota, "a__b__memory.max": "max"})
    assert (limits.cores(), limits.memory()) == (cores, 64 * GIGABYTE)


def test_limits_of_groups_around_count(groups: Groups) -> None:
    files = {"a__cpu.max": "300000 100000", "a__b__cpu.max": "max 100000", "memory.max": "9000000000\n"}
    groups("0::/a/b\n", **files)
    assert (limits.cores(), limits.memory()) == (3, 9 * GIGABYTE)


def test_container_sees_its_limits_at_the_top(groups: Groups) -> None:
    """The path is that of the machine, where the container has not that folder."""
    groups("0::/kubepods/pod1\n", **{"cpu.max": "400000 100000", "memory.max": "8000000000"})
    assert (limits.cores(), limits.memory()) == (4, 8 * GIGABYTE)


@pytest.mark.parametrize(("quota", "cores"), [("-1", 8), ("250000", 3)])
def test_limits_of_the_first_control_groups_count(groups: Groups, quota: str, cores: int) -> None:
    own = "5:memory:/docker/1\n2:cpu,cpuacct:/docker/1\n1:name=systemd:/\n0::/\n"
    files = {"cpu__cpu.cfs_quota_us": quota, "cpu__cpu.cfs_period_us": "100000"}
    groups(own, **files, **{"memory__docker__1__memory.limit_in_bytes": "7000000000"})
    assert (limits.cores(), limits.memory()) == (cores, 7 * GIGABYTE)


def test_limits_of_the_shell_are_those_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    found = dict.fromkeys((resource.RLIMIT_AS, resource.RLIMIT_DATA, resource.RLIMIT_CPU), resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (found[kind], resource.RLIM_INFINITY))
    assert limits.of_shell() == ()
    found[resource.RLIMIT_AS] = 9 * GIGABYTE
    found[resource.RLIMIT_CPU] = 60
    assert limits.of_shell() == ("ulimit -v", "ulimit -t")


def test_processes_that_linux_killed_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_EVENTS", tmp_path / "vmstat")
    assert limits.kills_for_memory() == 0
    (tmp_path / "vmstat").write_text("nr_free_pages 7\noom_kill 3\ndrop_slab 1\n")
    assert limits.kills_for_memory() == 3
