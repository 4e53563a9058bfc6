"""Defects that happened in FP8 training with JAX, put into Transformer Engine again, and what catches them.

A defect is a file in ``tests/proofs/regressions/``: a fault as in `proofs.faults`, with its origin and story.
``PYTHONPATH=.:tests python -m proofs.regressions > docs/evidence/regressions.md`` runs every one of them on a host run
and writes the page that tells their stories; it exits 1 if a claim did not turn red with a message that matches. The
edits are written for TE 2.20.2.

Some of the defects were in TE's own Python and come back as they were; others were in a library around it (MaxText,
Flax, levanter) or in its CUDA calls, and TE is edited so that the same thing happens. Where the defect was in a *test*,
the edit is a fault that this test lets through: ``test_regressions.py`` writes its comparison out and shows that.
"""

import dataclasses
import difflib
import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from mnist_fp8.gate.reports.markup import generated_by
from proofs.faults import Fault, Outcome, arguments, faulty, load_or_exit, select, try_all
from proofs.mutation import subject

FOLDER = Path(__file__).with_name("regressions")

REPOSITORIES = {
    "TransformerEngine": "NVIDIA/TransformerEngine",
    "MaxText": "AI-Hypercomputer/maxtext",
    "Flax": "google/flax",
    "marin": "marin-community/marin",
}
"""Where the references of the origins lead."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regression(Fault):
    """A defect that happened, as an edit of TE.

    Attributes:
        origin: issues, pull requests (``TransformerEngine#1901``) and commits (``MaxText 5ecfd7d82``) to read about it.
        story: what happened, for how long, and who noticed.
    """

    origin: tuple[str, ...]
    story: str


def edited(fault: Fault) -> tuple[str, str]:
    """The file of the installed TE that a fault edits, before and after.

    Raises:
        LookupError: TE is not installed, or the place to edit is not there.
    """
    return subject.read(fault.file), faulty(fault)


# --- the page ------------------------------------------------------------------------------------------------------

INTRODUCTION = f"""\
# Defects that happened

{generated_by("PYTHONPATH=.:tests python -m proofs.regressions > docs/evidence/regressions.md")}

Each of these defects was in Transformer Engine (TE), in a library around it or in their tests. Each is put into TE
2.20.2 as a small edit, on a host run. The tests of its claim have to fail, with a message that names what is wrong.
Where the defect was in a test, the edit is a fault that this test accepts: `tests/meta/test_regressions.py` contains
the test's comparison and shows that it passes.
"""


def page(outcomes: Sequence[Outcome[Regression]]) -> str:
    """The page that tells the regressions' stories, in Markdown."""
    caught = sum(outcome.caught for outcome in outcomes)
    parts = [INTRODUCTION, f"{caught} of {len(outcomes)} are caught.\n", _table(outcomes)]
    return "\n".join(parts + [_section(outcome) for outcome in outcomes])


def _table(outcomes: Sequence[Outcome[Regression]]) -> str:
    rows = ["| defect | origin | claim |", "|---|---|---|"]
    for outcome in outcomes:
        claim = outcome.fault.claim + ("" if outcome.caught else " (**missed**)")
        rows.append(f"| {outcome.fault.what} | {', '.join(outcome.fault.origin)} | {claim} |")
    return "\n".join(rows) + "\n"


def _section(outcome: Outcome[Regression]) -> str:
    fault = outcome.fault
    verdict = "Caught by" if outcome.caught else "**Missed** by"
    return f"""\
## {fault.what[0].upper()}{fault.what[1:]}

{linked(fault.origin)}

{textwrap.fill(fault.story, 120, break_on_hyphens=False)}

`{fault.file}`, in `{place(fault)}`:

```diff
{diff(fault)}
```

{verdict} `{outcome.test or "all tests"}` in `tests/claims/test_{fault.claim}.py`:

```text
{shortened(outcome.message)}
```
"""


def linked(origin: Sequence[str]) -> str:
    """The references of an origin, as Markdown links."""

    def link(found: re.Match[str]) -> str:
        project, number, commit = found.groups()
        target = f"issues/{number}" if number else f"commit/{commit}"
        return f"[{found[0]}](https://github.com/{REPOSITORIES[project]}/{target})"

    return re.sub(r"\b(\w+)(?:#(\d+)| ([0-9a-f]{9})\b)", link, ", ".join(origin))


def place(fault: Fault) -> str:
    """Name of the function or method that a fault edits."""
    source, _ = edited(fault)
    above = source[: source.index(fault.old)]
    indent, name = re.findall(r"^( *)def (\w+)", above, re.MULTILINE)[-1]
    classes = re.findall(r"^class (\w+)", above, re.MULTILINE)
    return f"{classes[-1]}.{name}" if indent else str(name)


def diff(fault: Fault) -> str:
    """The edit, as the lines that it replaces and those it puts there."""
    source, changed = edited(fault)
    first = source.count("\n", 0, source.index(fault.old))
    before, after = (text.splitlines()[first:] for text in (source, changed))
    last = fault.old.rstrip("\n").count("\n") + 1
    grown = len(after) - len(before)
    lines = difflib.ndiff(before[:last], after[: last + grown])
    return textwrap.dedent("\n".join(line[0] + line[2:] for line in lines if line[0] != "?"))


def shortened(message: str, most: int = 360) -> str:
    """The beginning of a message, without what pytest, Hypothesis and JAX add, wrapped."""
    line = re.split(r" (?:assert|Failing|-{5,}) ", " ".join(message.split()), maxsplit=1)[0]
    line = line.removeprefix("AssertionError: ")
    return textwrap.fill(textwrap.shorten(line, most, placeholder=" ..."), 120, break_on_hyphens=False)


# --- the command ---------------------------------------------------------------------------------------------------


def main() -> None:
    """Run the regressions and print the page; exits 1 if one was not caught as it should be."""
    args = arguments(__doc__).parse_args()
    outcomes = try_all(select(load_or_exit(FOLDER, Regression), args.only), args.jobs)
    print(page(outcomes), end="")
    sys.exit(not all(outcome.caught for outcome in outcomes))


if __name__ == "__main__":
    main()
