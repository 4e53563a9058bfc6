"""Upgrades whose answer is known, and whether ``mnist-fp8 upgrade`` gives it.

``PYTHONPATH=.:tests python -m proofs.verdicts`` prints ``docs/evidence/verdicts.md``: pairs of releases whose changes
are known, copies of Transformer Engine with a fault in them, copies with a harmless edit, and a release against itself.
It exits 1 if a verdict is wrong, or a known change is not named.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mnist_fp8.gate.reports.markup import generated_by
from proofs.faults import FOLDER, Fault, load, parse_pattern
from proofs.mutation import subject

INTRODUCTION = f"""\
# Verdicts on upgrades whose answer is known

{generated_by("PYTHONPATH=.:tests python -m proofs.verdicts > docs/evidence/verdicts.md")}

Each row is one run of `mnist-fp8 upgrade`: a pair of releases whose changes are known, a release against itself
(measured once for each side), a copy of Transformer Engine with a harmless edit, or a copy with a fault. A wrong
verdict fails, and so does a known change that the report does not name (the patterns are in
`tests/proofs/verdicts.py`). A fault has to be named by its own claim. "Differences" lists every area with a difference,
also those that do not affect the verdict, and "roots" counts what a reader has to look at. Host runs with Python
{{python}} on {{cores}} cores.

| upgrade | old | new | verdict | differences | roots | named | seconds |
|---|---|---|---|---|---|---|---|"""
CODES = {0: "SAFE", 1: "BROKEN", 2: "(could not be done)", 3: "UNVERIFIED", 4: "CHANGED", 5: "PARTIAL"}
ALTERED = {"CHANGED", "BROKEN"}
FAULTY = "2.20.2"
"""The release that the faults are written for."""


@dataclasses.dataclass(frozen=True)
class Edit:
    """Text that stands in a file of Transformer Engine, and what replaces it."""

    file: str
    old: str
    new: str


@dataclasses.dataclass(frozen=True)
class Case:
    """An upgrade whose answer is known.

    Attributes:
        what: it in a few words.
        old: the release in use.
        new: the release to move to, or that of which a copy is edited.
        verdicts: the answers that are right.
        named: patterns that have to be found among the areas, titles and details of what counts.
        roots: the most differences by their root that a reader may have to look at; ``None`` where it does not matter.
        edits: what is changed in a copy of ``new``, one after the other.
    """

    what: str
    old: str
    new: str
    verdicts: set[str]
    named: tuple[str, ...] = ()
    edits: tuple[Edit, ...] = ()
    roots: int | None = None


PAIRS = [
    Case("next release", "2.19.0", "2.20.2", {"SAFE", "CHANGED"}),
    Case(
        "2.3 rewrote quantization",
        "2.2.0",
        "2.3.0",
        ALTERED,
        (
            r"variables .*fp8_metas/dense/amax_i_0",
            r"variables .*fp8_metas/dense/x_amax_history",
            r"variables .*fp8_metas_axes",
            r"metadata .*scale stored.*one step earlier",
            r"metadata .*history at the end",
            r"behaviour .*HIGHEST",
            r"numerics .*DelayedScaling/output against float64",
            r"numerics .*DelayedScaling/kernel gradient against float64",
            r"api .*removed.*transformer_engine\.jax\.fp8\b",
            r"api .*removed.*transformer_engine\.jax\.praxis\b",
            r"api .*DenseGeneral .*input_axes",
        ),
        roots=9,  # of nine rules, all true: the last came with claims that know defects which 2.3 brought
    ),
    Case(
        "2.4 boxes parameters",
        "2.3.0",
        "2.4.0",
        ALTERED,
        (
            r"variables .*params/dense/kernel/value",
            r"variables .*params_axes",
            r"behaviour .*LogicallyPartitioned",
            r"recipes .*Float8CurrentScaling.*runs here",
        ),
    ),
    Case(
        "2.9 renames autocast",
        "2.8.0",
        "2.9.0",
        ALTERED,
        (
            r"api .*transformer_engine\.jax\.autocast",
            r"api .*get_delayed_scaling",
            r"api .*is_scaling_mode_supported",
            r"api .*DenseGeneral .*transpose_batch_sequence",
            r"warnings .*fp8_autocast",
        ),
    ),
    Case(
        "1.13 to 2.1",
        "1.13.0",
        "2.1.0",
        ALTERED,
        (
            r"behaviour .*output of a float32 layer for BF16.*float32.*bfloat16",
            r"behaviour .*kernel of a BF16 layer.*float32.*bfloat16",
            r"variables .*dense over two axes/kernel.*\[64, 32\].*\[2, 32, 32\]",
            r"numerics .*DelayedScaling/output against float64",
            r"recipes .*MXFP8BlockScaling",
        ),
    ),
]

HARMLESS = [
    Edit(
        "jax/quantize/quantizer.py",
        "    sf = jnp.where(amax > 0.0, sf, scale)",
        "    # Zero leaves it.\n    sf = jnp.where(amax > 0.0, sf, scale)",
    ),
    Edit(
        "jax/dense.py",
        "return dgrad, wgrad, dbias, quantizer_set",
        "input_gradient = dgrad\n    return input_gradient, wgrad, dbias, quantizer_set",
    ),
    Edit(
        "jax/flax/module.py",
        "import numpy as np",
        "import logging\n\nimport numpy as np\n\n_LOGGER = logging.getLogger(__name__)",
    ),
]

CHOSEN = (
    "autocast-does-nothing",
    "kernel-gradient-negated",
    "layers-of-a-model-share-their-metadata",
    "metadata-alone-switch-fp8-on",
    "metadata-overwritten-with-their-old-values",
    "metadata-returned-in-bf16",
    "product-doubled",
    "scales-a-thousand-times-too-large",
    "small-number-added-to-the-amax",
    "reciprocal-scale-not-inverted",
)
"""Faults, by their names, that are tried as whole upgrades: at least one of each claim that a host run can verify."""


def cases(repetitions: int) -> Iterator[Case]:
    """All cases."""
    yield from PAIRS
    for edit in HARMLESS:
        yield Case(f"harmless edit of {edit.file}", FAULTY, FAULTY, {"SAFE"}, (), (edit,))
    faults = load(FOLDER, Fault)
    for fault in (fault for fault in faults if fault.name in CHOSEN):
        claim = (rf"claims .*{fault.claim}",)
        yield Case(f"fault: {fault.what}", FAULTY, FAULTY, {"BROKEN"}, claim, (_edit(fault),))
    for what, catcher in (("of the import ", "rule"), ("", "claim")):
        edits = together(_edit(fault) for fault in faults if getattr(fault, catcher) and not fault.gpus)
        yield Case(f"{len(edits)} faults {what}in one copy", FAULTY, FAULTY, ALTERED, (), edits)
    for number in range(1, repetitions + 1):
        yield Case(f"itself, run {number} of {repetitions}", FAULTY, FAULTY, {"SAFE"})


def _edit(fault: Fault) -> Edit:
    return Edit(fault.file, fault.old, fault.new)


def together(edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """Those of some edits that can be made one after the other, and leave Python that compiles."""
    sources, made = dict[str, str](), []
    for edit in edits:
        before = sources.get(edit.file) or subject.read(edit.file)
        after = before.replace(edit.old, edit.new, 1)
        with contextlib.suppress(SyntaxError):
            compile(after, edit.file, "exec")
            if after != before:
                sources[edit.file] = after
                made.append(edit)
    return tuple(made)


def edited(edits: Iterable[Edit], folder: Path) -> Path:
    """A folder with a copy of the installed Transformer Engine with some edits in it, one after the other.

    It has the package's metadata, as a wheel that is unpacked has: without them a verdict is PARTIAL.

    Raises:
        LookupError: the text to edit is not there, so that nothing would be tried.
    """
    package = subject.copy(folder)
    for metadata in subject.folder().parent.glob(f"{package.name}-*.dist-info"):
        shutil.copytree(metadata, folder / metadata.name)
    for edit in edits:
        file = package / edit.file
        source = file.read_text()
        if edit.old not in source:
            raise LookupError(f"the text to replace is not in {edit.file}")
        file.write_text(source.replace(edit.old, edit.new, 1))
    return folder


def upgrade(*arguments: str, variables: Mapping[str, str] = MappingProxyType({})) -> tuple[str, str]:
    """Run ``mnist-fp8 upgrade`` with some variables beside those of this process.

    Returns:
        What it answers, by `CODES`, and what it says on standard error.
    """
    command = [sys.executable, "-m", "mnist_fp8", "upgrade", *arguments]
    # Python reads its own variables when it starts: they reach the command, as they would a user's.
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)  # noqa: S603
    return CODES.get(done.returncode, f"exit code {done.returncode}"), done.stderr.strip()


def run(case: Case) -> tuple[str, dict[str, Any], float]:
    """The verdict, the report and the seconds that an upgrade took."""
    with tempfile.TemporaryDirectory() as scratch:
        new = str(edited(case.edits, Path(scratch) / "te")) if case.edits else case.new
        output = Path(scratch) / "report"
        begin = time.monotonic()
        answer, words = upgrade(case.old, new, "-o", str(output))
        seconds = time.monotonic() - begin
        file = output / "upgrade.json"
        if not file.exists():
            return f"{answer}: {words[-200:]}", {}, seconds
        return answer, json.loads(file.read_text()), seconds


def told(report: dict[str, Any]) -> list[str]:
    """What a report says of each entry that differs, in one line each."""
    return [
        " ".join([f"{difference['area']} {difference['title']} {detail['key']}", *map(str, detail.values())])
        for difference in report.get("differences", [])
        for detail in difference["entries"]
    ]


def main() -> None:
    """Run the cases and print the page; exits 1 if an answer is not the known one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=parse_pattern, default="", help="only cases whose name matches this pattern")
    parser.add_argument(
        "--repetitions", type=int, default=10, help="of a release against itself (default: %(default)s)"
    )
    args = parser.parse_args()
    chosen = [case for case in cases(args.repetitions) if re.search(args.only, case.what)]
    if not chosen:
        sys.exit(f"nothing to try: no case matches {args.only!r}")
    print(INTRODUCTION.format(python=platform.python_version(), cores=os.cpu_count()), flush=True)
    wrong = 0
    for case in chosen:
        verdict, report, seconds = run(case)
        lines = told(report)
        missing = [pattern for pattern in case.named if not any(re.search(pattern, line) for line in lines)]
        areas = sorted({difference["area"] for difference in report.get("differences", [])})
        roots = sum(root["counts"] for root in report.get("roots", []))
        right = verdict in case.verdicts and not missing and (case.roots is None or roots <= case.roots)
        wrong += not right
        named = f"not named: {', '.join(missing)}" if missing else f"{len(case.named)} of {len(case.named)}"
        shown = verdict if right else f"**{verdict}**, expected {' or '.join(sorted(case.verdicts))}"
        most = "" if case.roots is None else f" of {case.roots} at most"
        new = f"{case.new}{', edited' if case.edits else ''}"
        cells = (case.what, case.old, new, shown, ", ".join(areas) or "none", f"{roots}{most}", named)
        print("|", " | ".join(cells).replace("||", ""), f"| {seconds:.0f} |", flush=True)
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
