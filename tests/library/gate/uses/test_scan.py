"""Uses are kept as long as no file changes, and found by two processes as by one."""

import concurrent.futures
import os
import time
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from mnist_fp8.gate.uses import scan
from mnist_fp8.gate.uses.scan import find_uses
from mnist_fp8.gate.uses.use import Uses

Write = Callable[[dict[str, str]], Path]
USE = """import transformer_engine.jax as te
te.f(1, x=2, *a)
class A(te.A):
    def g(self, b=3): super().g()
try: te.e
except TypeError: te.h
getattr(te, b)
"""


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One for each time that files are read."""
    monkeypatch.setattr(scan, "_FRESH_NS", 0)
    done: list[object] = []
    real = scan._scan

    def counted(sources: object) -> Uses:
        done.append(sources)
        return real(sources)  # type: ignore[arg-type]

    monkeypatch.setattr(scan, "_scan", counted)
    return done


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many evaluated modules, one number for each scan."""
    used: list[int] = []
    real = scan._evaluated

    def counted(*given: Any) -> Any:
        parts = real(*given)
        used.append(len(parts))
        return parts

    monkeypatch.setattr(scan, "_evaluated", counted)
    return used


def test_what_has_not_changed_is_not_read_again(write: Write, tmp_path: Path, scans: list[object]) -> None:
    folder = write({"a.py": USE, "b.py": "x ="})
    first = find_uses([folder], tmp_path)
    assert find_uses([folder], tmp_path) == first
    assert len(scans) == 1
    assert len(first.uses) == 7


@pytest.mark.parametrize("change", ["edit", "add", "remove", "rename", "secret"])
def test_a_change_is_seen(write: Write, tmp_path: Path, scans: list[object], change: str) -> None:
    folder = write({"a.py": USE, "b.py": USE})
    find_uses([folder], tmp_path)
    match change:
        case "edit":
            write({"a.py": USE + "te.new\n"})
        case "add":
            write({"c.py": USE})
        case "remove":
            (folder / "a.py").unlink()
        case "rename":
            (folder / "a.py").rename(folder / "c.py")
        case "secret":  # of the same size, and with the time of the former content
            before = (folder / "a.py").stat()
            write({"a.py": USE.replace("te.e", "te.i")})
            os.utime(folder / "a.py", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert find_uses([folder], tmp_path) == find_uses([folder])
    assert len(scans) == 3


def test_a_file_that_just_changed_is_read_again(
    write: Write, tmp_path: Path, scans: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write({"a.py": USE})
    monkeypatch.setattr(scan, "_FRESH_NS", 10**12)
    find_uses([folder], tmp_path)
    find_uses([folder], tmp_path)
    assert len(scans) == 2


@pytest.mark.parametrize("damage", [b"", b"\xff", b"[]", b'{"key": 3}', b"[" * 100_000])
def test_what_is_kept_may_be_damaged(write: Write, tmp_path: Path, scans: list[object], damage: bytes) -> None:
    folder = write({"a.py": USE})
    first = find_uses([folder], tmp_path)
    (kept,) = (tmp_path / "uses").iterdir()
    kept.write_bytes(damage)
    assert find_uses([folder], tmp_path) == first
    assert find_uses([folder], tmp_path) == first
    assert len(scans) == 2


def test_nothing_need_be_kept(write: Write, tmp_path: Path, scans: list[object]) -> None:
    folder = write({"a.py": USE})
    (tmp_path / "uses").write_text("no folder")
    assert find_uses([folder], tmp_path) == find_uses([folder])
    assert len(scans) == 2


def test_two_processes_find_what_one_finds(write: Write, monkeypatch: pytest.MonkeyPatch, processes: list[int]) -> None:
    folder = write({f"{n}.py": f"import m{(n + 1) % 9}\n{USE}\nm{(n + 1) % 9}.A(1)" for n in range(9)})
    for n in range(9):
        (folder / f"{n}.py").rename(folder / f"m{n}.py")
    alone = find_uses([folder])
    monkeypatch.setattr(scan, "_SHARED", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert find_uses([folder]) == alone
    assert len(alone.uses) == 9 * 8
    assert processes == [1, 2], "Control"


def test_without_another_process_this_one_does_it(
    write: Write, monkeypatch: pytest.MonkeyPatch, processes: list[int]
) -> None:
    folder = write({"a.py": USE})
    alone = find_uses([folder])
    monkeypatch.setattr(scan, "_SHARED", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})

    def refused(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(concurrent.futures, "ProcessPoolExecutor", refused)
    assert find_uses([folder]) == alone
    assert processes == [1, 1]


def test_twenty_five_thousand_lines_take_seconds(write: Write) -> None:
    """Of 500,000 lines, ten seconds on two cores are promised; this is processor time of one, with room to spare."""
    plain = """
        def step{n}(state, batch):
            for name, value in sorted(state.items()):
                yield name, value + batch[name] * {n}
    """
    used = """
        def attend{n}(q, k):
            layer = te.flax.DotProductAttention(head_dim={n})
            return layer(q, k, mask=None)
    """
    functions = [dedent(used if n % 5 == 0 else plain).format(n=n) for n in range(50)]
    module = "\n".join(["import transformer_engine.jax as te", *functions])
    folder = write({f"p{n // 20}/m{n}.py": module for n in range(110)})
    started = time.process_time()
    uses = find_uses([folder])
    assert uses.lines > 25_000
    assert len(uses.uses) == 110 * 21
    assert time.process_time() - started < 10
