"""What the import of an edited Transformer Engine does to its process, and the rule that this comes under."""

import os
import tempfile
import time
from pathlib import Path

from mnist_fp8.gate.reports.values import texts
from mnist_fp8.gate.verdict.compare import compare
from mnist_fp8.measure import imports
from mnist_fp8.record.entries import Text, Value
from mnist_fp8.record.record import Record
from proofs.mutation import subject
from proofs.mutation.claims import ROOT, Verdict

NOTHING: dict[str, Value] = {"import/end/exit code": Text("0")}
"""What is measured of an import that leaves its process as it was and uses no package.

Releases leave it so too, but use packages: their entries differ from these as well, and come under other rules."""


def judge(rule: str, file: str, source: str) -> Verdict:
    """Import an edited copy of the installed Transformer Engine, and compare what that does with doing nothing.

    Args:
        rule: the one that should apply.
        file: what is edited, named from the package's folder.
        source: what is in it.

    Returns:
        The entries that the rule applies to, as a message; without any, all that differ, as a message of no test.
    """
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        (subject.copy(Path(scratch)) / file).write_text(source)
        path = os.pathsep.join([scratch, str(ROOT)])
        os.environ.update({"MNIST_FP8_TE": "host", "JAX_PLATFORMS": "cpu", "PYTHONPATH": path})
        edited = imports.effects()
    old, new = (Record(te, "", "host", {}, "", (), each, 0.0) for te, each in (("old", NOTHING), ("new", edited)))
    lines = {
        f"{entry.key}: {' → '.join(texts(entry.old, entry.new))}": difference.rule.id
        for difference in compare(old, new, only=("import",)).differences
        for entry in difference.entries
    }
    caught = [line for line, name in lines.items() if name == rule]
    message = "; ".join(caught or lines)
    return Verdict("", rule if caught else "", message, silent=True, seconds=time.monotonic() - begin)
