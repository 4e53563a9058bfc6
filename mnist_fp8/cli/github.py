"""What a verdict is to a GitHub job: its summary, an annotation, an output, and whether it passes."""

# ruff: noqa: T201 - a command prints
import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mnist_fp8.cli.output import CHANGED, OK, verdict_code

if TYPE_CHECKING:
    from mnist_fp8.gate.reports.uses.view import CodeView
    from mnist_fp8.gate.reports.verdict.view import View

POLICY = Path(".mnist-fp8/policy.toml")
_ANNOTATIONS = {
    "SAFE": ("notice", "nothing that was verified has changed for the worse"),
    "CHANGED": ("warning", "it works, but not as before. Read the report before you merge"),
    "BROKEN": ("error", "the new Transformer Engine does not do what it has to"),
    "UNVERIFIED": ("error", "too little could be verified. This is no pass"),
    "PARTIAL": ("error", "only a part was looked at. This is no pass"),
}


class _InGithub(argparse.Action):
    """Notes the option, and takes the repository's policy unless another one is named."""

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        args: argparse.Namespace,
        _values: str | Sequence[Any] | None,
        *_: object,
    ) -> None:
        args.github = True
        if args.policy is None and POLICY.is_file():
            args.policy = POLICY


def add_github(parser: argparse.ArgumentParser) -> None:
    """Add ``--github``."""
    parser.add_argument(
        "--github",
        action=_InGithub,
        nargs=0,
        default=False,
        help="for a GitHub job: write its summary, an annotation and the output verdict; CHANGED passes as SAFE"
        f" does, unless only a part was looked at;"
        f" {POLICY} is the policy, if it is there",
    )


def conclude(view: "View", *, github: bool) -> int:
    """The exit code of a verdict, after the job of a workflow was told, if it is one."""
    code = verdict_code(view)
    if not github:
        return code
    from mnist_fp8.gate.reports.verdict.markdown import markdown  # noqa: PLC0415 - `--help` needs none of it

    verdict = view.verdict.value
    _append("GITHUB_STEP_SUMMARY", markdown(view))
    _append("GITHUB_OUTPUT", f"verdict={verdict}\n")
    level, meaning = _ANNOTATIONS[verdict]
    annotate(level, f"{verdict}: {meaning}")
    if view.code:
        _annotate_code(view.code)
    return OK if code == CHANGED and not view.comparison.is_partial else code


def _annotate_code(of_code: "CodeView") -> None:
    """Have GitHub show at the user's own lines what becomes of them. It shows the first ten of each level."""
    from mnist_fp8.gate.reports.uses import words  # noqa: PLC0415 - `--help` needs none of these
    from mnist_fp8.gate.uses.judgement import Outcome  # noqa: PLC0415

    levels = {Outcome.BREAKS: "error", Outcome.BROKEN_ALREADY: "warning", Outcome.CHANGES: "warning"}
    for fate in of_code.fates:
        if fate.status in levels:
            place = fate.use.place
            at: dict[str, str | int] = {"file": place.file}
            if not place.cell:  # its line is none of the file
                at |= {"line": place.line, "col": place.column}
            what = f"{words.joined(fate.happens)} {words.joined(fate.write)}"
            annotate(levels[fate.status], f"{fate.line.number}: {what}" if place.cell else what, at)


def annotate(level: str, message: str, at: Mapping[str, str | int] = MappingProxyType({})) -> None:
    """Print an annotation, which GitHub shows above the log, or at a line of a file.

    Args:
        level: ``error``, ``warning`` or ``notice``.
        message: what it says.
        at: ``file``, ``line`` and ``col``, as far as it has a place.
    """
    place = ",".join(f"{name}={_escaped(str(value), ':,')}" for name, value in at.items())
    print(f"::{level}{' ' if place else ''}{place}::{_escaped(message)}")


def _escaped(text: str, separators: str = "") -> str:
    """Without what would end a message, or a property of it."""
    return "".join(f"%{ord(each):02X}" if each in f"%\r\n{separators}" else each for each in text)


def _append(variable: str, text: str) -> None:
    """Add to the file that a runner names."""
    if name := os.environ.get(variable):
        with Path(name).open("a", encoding="utf-8") as file:
            file.write(text)
