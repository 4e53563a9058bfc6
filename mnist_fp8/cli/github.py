"""What a verdict is to a GitHub job: its summary, an annotation, an output, and whether it passes."""

# ruff: noqa: T201 - a command prints
import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_fp8.cli.output import CHANGED, OK, verdict_code

if TYPE_CHECKING:
    from mnist_fp8.gate.verdict.comparison import Comparison

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


def conclude(comparison: "Comparison", *, github: bool) -> int:
    """The exit code of a verdict, after the job of a workflow was told, if it is one."""
    code = verdict_code(comparison)
    if not github:
        return code
    from mnist_fp8.gate.reports.verdict.markdown import markdown  # noqa: PLC0415 - `--help` needs none of it

    verdict = comparison.verdict.value
    _append("GITHUB_STEP_SUMMARY", markdown(comparison))
    _append("GITHUB_OUTPUT", f"verdict={verdict}\n")
    level, meaning = _ANNOTATIONS[verdict]
    annotate(level, f"{verdict}: {meaning}")
    return OK if code == CHANGED and not comparison.is_partial else code


def annotate(level: str, message: str) -> None:
    """Print an annotation, which GitHub shows above the log: an ``error``, a ``warning`` or a ``notice``."""
    escaped = message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    print(f"::{level}::{escaped}")


def _append(variable: str, text: str) -> None:
    """Add to the file that a runner names."""
    if name := os.environ.get(variable):
        with Path(name).open("a", encoding="utf-8") as file:
            file.write(text)
