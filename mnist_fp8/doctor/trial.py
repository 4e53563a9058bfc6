"""Whether Transformer Engine runs here, tried in a process of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.doctor import symbols
from mnist_fp8.doctor.components import TE, Check, version
from mnist_fp8.doctor.cuda_checks import where_to_get
from mnist_fp8.machine.survey import Machine

TIMEOUT_S = 300
"""The attempt takes seconds on a CPU, and less than a minute on a GPU."""


@dataclass(frozen=True)
class Attempt:
    """What came of running TE.

    Attributes:
        error: why it does not run, in one line; empty if it does.
        kind: the kind of run that it was.
        recipes: TE's reason against each of its recipes; empty for those that run here.
    """

    error: str = ""
    kind: RunKind = RunKind.HOST
    recipes: Mapping[str, str] = field(default_factory=dict)

    def as_check(self, machine: Machine) -> Check:
        """The attempt as the last component."""
        found = f"an error: {self.error}" if self.error else f"done in a {self.kind.value} run"
        advice = _remedy(machine, self.error) if self.error else ""
        return Check("FP8 step of a layer", found, "finite numbers, out of float8", fits=not self.error, advice=advice)


def attempt(timeout_s: float = TIMEOUT_S) -> Attempt:
    """Load TE in a new interpreter and have it train a dense layer in FP8 for one step."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"  # a file: what TE prints when it is imported is no answer
        try:
            done = _run_step(answer, timeout_s)
        except subprocess.TimeoutExpired:
            return Attempt(f"it did not end within {timeout_s:g} s")
        if answer.exists():
            document = json.loads(answer.read_text())
            return Attempt(document["error"], RunKind(document["kind"]), document["recipes"])
    last_line = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "nothing was said")
    return Attempt(f"{_ended(done.returncode)}: {last_line.strip()}")


def _run_step(answer: Path, timeout_s: float) -> subprocess.CompletedProcess[str]:
    # Just what can be imported here, whatever lies in the working directory.
    code = (
        f"import pathlib, sys; sys.path[:] = {sys.path!r}; from mnist_fp8.te import smoke;"
        f" smoke.report_step(pathlib.Path({str(answer)!r}))"
    )
    return subprocess.run(  # noqa: S603 - our own interpreter and code
        [sys.executable, "-c", code],
        env=os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},  # others may be using the GPU
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        errors="replace",
    )


def _ended(code: int) -> str:
    return f"the process was ended by {signal.Signals(-code).name}" if code < 0 else f"the process ended with {code}"


def _remedy(machine: Machine, error: str) -> str:
    """What to do about an error that is known to come from pieces that do not fit."""
    if missing := re.search(r"(lib\S+\.so[.\d]*): cannot open shared object file", error):
        return where_to_get(machine, missing[1])
    if undefined := symbols.remedy(machine, error):
        return undefined
    if re.search(r"undefined symbol|API version", error):
        return "the extension was compiled for other versions of JAX or CUDA: compile it again"
    if re.search(r"cudnn", error, re.IGNORECASE):
        return "see which cuDNN is loaded first, and LD_LIBRARY_PATH"
    if re.search(r"cannot import name .* from 'jax|'jax\S*' has no attribute|No module named 'jax\.", error):
        return f"mnist-fp8 stacks --search {version(machine, TE)} finds the newest JAX that it works with"
    return ""
