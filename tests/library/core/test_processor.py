"""The processor of this machine."""

import os
from pathlib import Path

import pytest

from mnist_fp8.core import processor
from mnist_fp8.core.processor import describe_processor, usable_cores


def test_processor_is_told_with_the_cores_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not with those of the machine, of which ``taskset`` or a container may give fewer."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 4, 9})
    assert describe_processor().endswith(", 3 cores")
    assert len(describe_processor()) > len(", 3 cores")


def test_machine_without_affinities_may_use_all_of_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 77)
    assert usable_cores() == 77


@pytest.mark.parametrize(
    ("old", "new"), [("avx512f", "avx2"), ("cpu family\t: 26", "cpu family\t: 25"), ("stepping\t: 1", "stepping\t: 2")]
)
def test_processors_of_one_name_are_told_apart_by_what_they_can_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> None:
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(processor, "_CPUINFO", file)
    lines = ("cpu family\t: 26", "model\t\t: 2", "model name\t: AMD EPYC", "stepping\t: 1", "flags\t\t: fpu avx512f")
    one = "\n".join(lines)
    told = []
    for text in (one, one.replace(old, new)):
        file.write_text(f"processor\t: 0\n{text}\n\nprocessor\t: 1\n{text}\n")
        told.append(describe_processor())
    assert all(text.startswith("AMD EPYC (") for text in told)
    assert told[0] != told[1]


def test_clock_and_number_of_a_core_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(processor, "_CPUINFO", file)
    told = set()
    for clock in (2400, 3100):
        file.write_text(f"processor\t: 0\nmodel name\t: AMD EPYC\ncpu MHz\t\t: {clock}\n")
        told.add(describe_processor())
    assert len(told) == 1
