"""What an import of Transformer Engine does to its process, found out in a process of its own."""

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from mnist_fp8.record.entries import Text, Value
from mnist_fp8.record.entries_json import entries_from_json
from mnist_fp8.record.keys import covered


def probes() -> Mapping[str, Callable[[], Mapping[str, Value]]]:
    """Measurements by the beginning of their keys."""
    once = functools.cache(effects)
    return {prefix: functools.partial(_of, prefix, once) for prefix in ("import", "costs/import")}


def _of(prefix: str, measured: Callable[[], Mapping[str, Value]]) -> Mapping[str, Value]:
    return covered(measured(), [prefix])


def effects() -> dict[str, Value]:
    """What such a process says, and how it ended.

    Raises:
        RuntimeError: it says nothing.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "effects.json"
        command = [sys.executable, "-m", "mnist_fp8.te.importing", str(file)]
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)  # noqa: S603
        if ended.returncode < 0:  # as if it had been this process: whoever started it knows who ends processes
            os.kill(os.getpid(), -ended.returncode)
        printed = "\n".join(filter(None, [ended.stdout.strip(), ended.stderr.strip()]))
        if not file.exists():
            raise RuntimeError(printed.splitlines()[-1] if printed else f"exit code {ended.returncode}, without a word")
        entries = entries_from_json(json.loads(file.read_text()))
    entries["import/end/exit code"] = Text(str(ended.returncode))
    return entries | ({"import/end/output": Text(printed)} if printed else {})
