"""The processor of this machine, as XLA's programs for a CPU depend on it."""

import hashlib
import os
import platform
import re
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def usable_cores() -> int:
    """Cores that this process may run on: with ``taskset``, or in a container, fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_processor() -> str:
    """The processor, eight digits for what it can do, and how many of its cores this process may use.

    XLA compiles for what the processor can do, which a name such as "AMD EPYC" does not tell, and divides its work
    among the cores: both decide in which order it adds up.
    """
    text = _CPUINFO.read_text() if _CPUINFO.exists() else ""
    first = text.partition("\n\n")[0]
    name = _field("model name", first) or platform.processor() or platform.machine()
    told = [_field(field, first) for field in ("cpu family", "model", "stepping", "flags", "Features", "CPU part")]
    features = hashlib.sha256(repr(told).encode()).hexdigest()[:8]
    return f"{name} ({features}), {usable_cores()} cores"


def _field(name: str, text: str) -> str:
    found = re.search(rf"^{name}\s*: (.*)$", text, re.MULTILINE)
    return found[1] if found else ""
