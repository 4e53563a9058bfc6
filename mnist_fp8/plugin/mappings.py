"""Compiled programs of a long run: forgotten before there are more than the system has room for.

Each program that XLA compiles for a CPU lies in mappings of memory of its own. Linux allows a process 65,530 of them;
beyond, XLA ends the process with a segmentation fault. All claims in one process come that far.
"""

import gc
from pathlib import Path

MAPPINGS = Path("/proc/self/maps")
"""A line for each mapping of this process; Linux alone has it."""
LIMIT = Path("/proc/sys/vm/max_map_count")
FULL = 0.5
"""Share of the limit at which programs are forgotten: forty tests took up to a tenth of it."""
EVERY = 20
"""Tests after which the mappings are counted, which takes some milliseconds."""


def forget_programs() -> None:
    """Have JAX forget all programs if they fill half of what there is; those that are needed again lie in the cache."""
    try:
        full = MAPPINGS.read_bytes().count(b"\n") > FULL * int(LIMIT.read_text())
    except (OSError, ValueError):
        return
    if full:
        import jax  # noqa: PLC0415 - half a second

        jax.clear_caches()
        gc.collect()
