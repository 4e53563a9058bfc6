"""What this process may use of its machine: a container, or a service, may have less than all of it.

Linux says so in files of control groups, https://docs.kernel.org/admin-guide/cgroup-v2.html (``cpu.max``,
``memory.max``) and https://docs.kernel.org/admin-guide/cgroup-v1/. Where there are none, nothing is limited.
"""

import contextlib
import math
import os
import resource
from collections.abc import Iterator
from pathlib import Path

from mnist_fp8.core.processor import usable_cores

_GROUPS, _OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_EVENTS = Path("/proc/vmstat")


def cores() -> int:
    """Cores that can be kept busy: those that may be used, or the time of so many that the group may use."""
    return max(1, min([usable_cores(), *(math.ceil(time) for time in _shares())]))


def memory() -> int:
    """Bytes of memory: those of the machine, or of the group."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [limit for name in ("memory.max", "memory.limit_in_bytes") for (limit,) in _read("memory", name)]
    return min([whole, *map(int, limits)])


def of_shell() -> tuple[str, ...]:
    """Limits that a shell sets for each process, and that may end one without a word, as it writes them."""
    kinds = {"-v": resource.RLIMIT_AS, "-d": resource.RLIMIT_DATA, "-t": resource.RLIMIT_CPU}
    found = {option: resource.getrlimit(kind)[0] for option, kind in kinds.items()}
    return tuple(f"ulimit {option}" for option, limit in found.items() if limit != resource.RLIM_INFINITY)


def kills_for_memory() -> int:
    """Processes that Linux has killed since it runs because memory ran out, of the machine or of any group."""
    words = _EVENTS.read_text().split() if _EVENTS.exists() else []
    return int(words[words.index("oom_kill") + 1]) if "oom_kill" in words else 0


def _shares() -> Iterator[float]:
    """Seconds of cores in a second that the group, or one around it, may use."""
    for quota, period in _read("cpu", "cpu.max"):
        yield quota / period
    periods = _read("cpu", "cpu.cfs_period_us")
    for (quota,), (period,) in zip(_read("cpu", "cpu.cfs_quota_us"), periods, strict=False):
        if quota > 0:  # -1 is no limit
            yield quota / period


def _read(controller: str, name: str) -> Iterator[tuple[float, ...]]:
    """The numbers in a file of the own group and of those around it; none where it is missing, or says ``max``."""
    for folder in _folders(controller):
        numbers: tuple[float, ...] = ()
        with contextlib.suppress(OSError, ValueError):
            numbers = tuple(map(float, (folder / name).read_text().split()))
        if numbers:
            yield numbers


def _folders(controller: str) -> Iterator[Path]:
    """Folders of the own group and of those around it; in a container, what is around may be all that can be seen."""
    lines = _OWN.read_text().splitlines() if _OWN.exists() else []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers and controller not in controllers.split(","):
            continue
        base = _GROUPS / controller if controllers else _GROUPS
        folder = base / path.lstrip("/")
        yield from (place for place in (folder, *folder.parents) if place.is_relative_to(base))
