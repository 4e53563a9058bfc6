"""The processor of this machine."""

import os
import platform
import re
from pathlib import Path


def describe_processor() -> str:
    """The processor and how many of its cores there are: on a CPU they decide in which order XLA adds up."""
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else []
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"
