"""Faults put into Transformer Engine by hand, and the claim or rule that has to catch each.

A fault is a file in ``tests/proofs/faults/``: an edit of one place of TE (written for 2.20.2), the claim and what its
failure has to say. ``PYTHONPATH=.:tests python -m proofs.faults > docs/evidence/faults.md`` makes one edit at a time,
for one process and not on disk, runs the claim's own tests there and writes the page: each fault has to turn its claim
red with a message that matches. A fault whose place is not found in the source is an error, not a pass.

What an import does to its process breaks no claim. Such a fault names a rule of verdicts instead: a copy of TE with the
edit is imported, and what that does has to come under the rule.

The run is a host run: the faults are in TE's Python. With ``--gpu``, those faults are made that only a GPU shows, the
claims run on kernels, and the page is ``docs/evidence/faults-gpu.md``.
"""

import argparse
import dataclasses
import importlib.metadata
import os
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from mnist_fp8.cli.options import parse_count
from mnist_fp8.core.model import VARIABLE
from mnist_fp8.gate.reports.markup import generated_by
from mnist_fp8.gate.verdict.rules.apply import RULES
from mnist_fp8.machine import driver
from mnist_fp8.machine.driver import Gpu
from proofs import effects
from proofs.mutation import claims, farm, subject
from proofs.mutation.claims import Verdict

FOLDER = Path(__file__).with_name("faults")
TIMEOUT_S = 900.0
_FOLDERS = re.compile(r"(?<![\w.])/(?:[\w.+-]+/){2,}")
"""Folders of the machine before the name of a file, which mean nothing elsewhere."""
"""For one fault. The slowest claim, the training runs, takes two minutes on two cores."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
    """One edit of TE.

    Attributes:
        name: of its file, without the ending.
        what: the fault in a few words.
        claim: the claim that has to catch it, as the file ``tests/claims/test_<claim>.py``.
        rule: the rule that has to apply, where no claim has to catch it.
        file: the file in TE.
        message: pattern that the failure's message has to match.
        old: text that stands in the file; its first occurrence is replaced.
        new: what replaces it.
        gpus: how many GPUs it takes to see it; none for a host run.
        model: what the claims on models judge, such as ``models.fused:fused``; this project's network by default.

    Raises:
        ValueError: there is no such claim or rule, the pattern is none, or there is no text to replace.
    """

    name: str
    what: str
    claim: str = ""
    rule: str = ""
    file: str
    message: str
    old: str
    new: str
    gpus: int = 0
    model: str = ""

    def __post_init__(self) -> None:
        if bool(self.claim) is bool(self.rule):
            raise ValueError("one of the fields 'claim' and 'rule' is needed")
        if self.rule and self.rule not in {rule.id for rule in RULES}:
            raise ValueError(f"there is no rule {self.rule!r}")
        if self.claim and not Path(*claims.files((self.claim,))).exists():
            raise ValueError(f"claim {self.claim!r} has no file tests/claims/test_{self.claim}.py")
        if not self.old:
            raise ValueError("field 'old' is empty; expected the text to replace")
        try:
            re.compile(self.message)
        except re.error as error:
            raise ValueError(f"message {self.message!r} is no pattern: {error}") from error

    @property
    def catcher(self) -> str:
        """The claim or the rule that has to catch it."""
        return self.claim or self.rule


_Fault = TypeVar("_Fault", bound=Fault)


# --- the files -----------------------------------------------------------------------------------------------------


def load(folder: Path, kind: type[_Fault]) -> tuple[_Fault, ...]:
    """The faults in the files of a folder, by claim or rule, and name.

    Args:
        folder: holds a TOML file for each fault.
        kind: the class whose attributes are the fields of the files.

    Raises:
        ValueError: a file is not as it should be; the message is one line that begins with its name.
    """
    faults = [_read(file, kind) for file in folder.glob("*.toml")]
    return tuple(sorted(faults, key=lambda fault: (fault.catcher, fault.name)))


def _read(file: Path, kind: type[_Fault]) -> _Fault:
    try:
        return kind(name=file.stem, **_fields(tomllib.loads(file.read_text()), kind))
    except ValueError as error:
        raise ValueError(f"{file.parent.name}/{file.name}: {error}") from error


def _fields(document: Mapping[str, Any], kind: type[Fault]) -> dict[str, Any]:
    """The fields of a file, each of its attribute's type."""
    known = {field.name: field for field in dataclasses.fields(kind) if field.name != "name"}
    needed = {name for name, field in known.items() if field.default is dataclasses.MISSING}
    for problem, names in (("unknown", document.keys() - known), ("missing", needed - document.keys())):
        if names:
            raise ValueError(f"{problem} field {min(names)!r}; the fields are {', '.join(known)}")
    return {name: _typed(name, value, known[name].type) for name, value in document.items()}


_EXPECTED = {str: "a string", int: "a whole number", tuple[str, ...]: "a list of strings"}


def _typed(name: str, value: Any, kind: Any) -> Any:
    if kind == tuple[str, ...] and isinstance(value, list) and all(isinstance(part, str) for part in value):
        return tuple(value)
    if type(value) is not kind:
        raise ValueError(f"field {name!r} is {value!r}; expected {_EXPECTED[kind]}")
    return value


# --- the runs ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Outcome(Generic[_Fault]):
    """What the claim or the rule said to a fault.

    Attributes:
        fault: the fault.
        test: the first test that failed, or the rule; empty if there is none.
        message: its message.
    """

    fault: _Fault
    test: str
    message: str

    @property
    def caught(self) -> bool:
        """Whether the claim turned red, or the rule applied, with the message that was asked for."""
        return bool(self.test) and re.search(self.fault.message, self.message) is not None


def faulty(fault: Fault) -> str:
    """The installed TE's file with the fault in it.

    Raises:
        LookupError: the place to edit is not there, so that nothing would be tested.
    """
    source = subject.read(fault.file)
    if fault.old not in source:
        raise LookupError(f"{fault.what}: the text to replace is not in {fault.file}")
    return source.replace(fault.old, fault.new, 1)


def judge(fault: Fault) -> Verdict:
    """Run the fault's claim in this process, with the fault in place; or import a copy that has it."""
    if fault.rule:
        return effects.judge(fault.rule, fault.file, faulty(fault))
    subject.replace(fault.file, faulty(fault))
    if fault.model:
        os.environ[VARIABLE] = fault.model
    return claims.judge((fault.claim,), on_gpu=fault.gpus > 0)


def run(faults: Sequence[_Fault], jobs: int) -> Iterator[Outcome[_Fault]]:
    """Run the claims against the faults, some side by side; outcomes come as they end."""
    for ended in farm.run(judge, faults, jobs=jobs, timeout=TIMEOUT_S):
        verdict = ended.result
        yield Outcome(ended.task, *((verdict.test, verdict.message) if verdict else ("(process)", ended.failure)))


def try_all(faults: Sequence[_Fault], jobs: int) -> list[Outcome[_Fault]]:
    """Run the claims against the faults, and say on standard error how far it is; outcomes in the faults' order."""
    outcomes: list[Outcome[_Fault]] = []
    for outcome in run(faults, jobs):
        outcomes.append(outcome)
        print(f"{len(outcomes)}/{len(faults)} {_progress(outcome)}", file=sys.stderr, flush=True)
    return sorted(outcomes, key=lambda outcome: faults.index(outcome.fault))


def _progress(outcome: Outcome[Any]) -> str:
    found = "caught by" if outcome.caught else "MISSED:"
    said = "" if outcome.caught else f": {outcome.message or 'all tests passed'}"
    return f"{outcome.fault.catcher}/{outcome.fault.name}: {found} {outcome.test or 'no test'}{said}"


# --- the page ------------------------------------------------------------------------------------------------------

_COMMAND = "PYTHONPATH=.:tests python -m proofs.faults{} > docs/evidence/faults{}.md"
INTRODUCTION = """\
# {title}

{generated}

**{caught} of {count} were caught**, in {conditions}.

Each row is one edit of Transformer Engine's Python, stored as a file in `tests/proofs/faults/`. The row shows the first
test of the claim that failed, and the start of its message; or the rule of a verdict that applies to what the import
does. A harmless edit in the same place leaves the claim green
(`tests/meta/test_faults.py`). `--only PATTERN` tries the faults whose claim or file name matches.
"""


def page(outcomes: Sequence[Outcome[Fault]], left: Sequence[Fault], conditions: str, *, on_gpu: bool) -> str:
    """The table of faults, in Markdown.

    Args:
        outcomes: of the faults that were tried.
        left: the faults that this machine cannot try.
        conditions: what they were tried with.
        on_gpu: whether on kernels; else on a host run.
    """
    rows = [
        "| claim or rule | fault | caught by | message |",
        "|---|---|---|---|",
        *map(_row, outcomes),
        *map(_left, left),
    ]
    introduction = INTRODUCTION.format(
        title=f"Faults put into Transformer Engine, and what caught them{' on a GPU' if on_gpu else ''}",
        caught=sum(outcome.caught for outcome in outcomes),
        count=len(outcomes),
        generated=generated_by(_COMMAND.format(*((" --gpu", "-gpu") if on_gpu else ("", "")))),
        conditions=conditions,
    )
    return "\n".join([introduction, *rows]) + "\n"


def _row(outcome: Outcome[Fault]) -> str:
    caught_by = outcome.test if outcome.caught else f"**missed** {outcome.test}"
    said = _FOLDERS.sub("…/", " ".join(outcome.message.split()))
    message = said.replace("|", "\\|")[:220]
    return f"| {outcome.fault.catcher} | {outcome.fault.what} | {caught_by} | {message} |"


def _left(fault: Fault) -> str:
    return f"| {fault.catcher} | {fault.what} | not tried | GPUs needed: {fault.gpus} |"


def _conditions(gpus: Sequence[Gpu]) -> str:
    counts = Counter(gpu.name for gpu in gpus)
    where = ", ".join(f"{count} {name}" for name, count in counts.items())
    kind = f"a kernel run on {where}" if gpus else "a host run"
    te, jax = (importlib.metadata.version(name) for name in ("transformer-engine", "jax"))
    return f"{kind} with Transformer Engine {te} and JAX {jax}"


# --- the command ---------------------------------------------------------------------------------------------------


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options that faults and regressions share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only",
        type=parse_pattern,
        default="",
        metavar="PATTERN",
        help="those whose CLAIM/NAME matches, such as fp8_numerics or saturat",
    )
    parser.add_argument(
        "--jobs", type=parse_count, default=2, help="how many to run side by side (default: %(default)s)"
    )
    return parser


def parse_pattern(text: str) -> str:
    """Parse a regular expression.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from error
    return text


def load_or_exit(folder: Path, kind: type[_Fault]) -> tuple[_Fault, ...]:
    """`load` for a command.

    Raises:
        SystemExit: a file is not as it should be.
    """
    try:
        return load(folder, kind)
    except ValueError as error:
        sys.exit(str(error))


def select(faults: Sequence[_Fault], pattern: str) -> list[_Fault]:
    """The faults whose claim or rule and name, with a slash between, match a pattern somewhere.

    Raises:
        SystemExit: none does.
    """
    found = [fault for fault in faults if re.search(pattern, f"{fault.catcher}/{fault.name}")]
    return found or sys.exit(f"nothing to try: no CLAIM/NAME matches {pattern!r}")


def main() -> None:
    """Run the faults and print the page; exits 1 if one was not caught as it should be."""
    parser = arguments(__doc__)
    parser.add_argument("--gpu", action="store_true", help="the faults that only GPUs show, of so many as there are")
    args = parser.parse_args()
    gpus = driver.find_driver().gpus if args.gpu else ()
    chosen = select([fault for fault in load_or_exit(FOLDER, Fault) if bool(fault.gpus) == args.gpu], args.only)
    left = [fault for fault in chosen if fault.gpus > len(gpus)]
    outcomes = try_all([fault for fault in chosen if fault not in left], args.jobs)
    print(page(outcomes, left, _conditions(gpus), on_gpu=args.gpu), end="")
    sys.exit(not outcomes or not all(outcome.caught for outcome in outcomes))


if __name__ == "__main__":
    main()
