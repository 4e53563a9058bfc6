"""The claims on models, on models in the styles of real users, under many releases; and what real mistakes come to.

``PYTHONPATH=.:tests python -m proofs.models > docs/evidence/models.md`` runs `proofs.judged_models` in the environment
of each release: every claim on every correct model in two recipes, and the train step of every wrong one. What ended is
kept, release by release, so that an interrupted command goes on where it stopped, and ``--releases`` may be made one by
one. With ``--seeds N``, the correct models have N times other parameters, inputs and metadata. It exits 1 if a correct
model is blamed, or a wrong one is not.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from mnist_fp8.core.files import cache_dir
from mnist_fp8.gate.releases.editions import parse_edition
from mnist_fp8.gate.releases.environments import prepare
from mnist_fp8.gate.reports.markup import generated_by
from proofs.mutation.results import Notes, digest

ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("judged_models.py")
TIMEOUT_S = 7200
RELEASES = ("2.4.0", "2.8.0", "2.10.0", "2.16.1", "2.20.2")

INTRODUCTION = f"""\
# Models and train steps of users

{generated_by("PYTHONPATH=.:tests python -m proofs.models > docs/evidence/models.md")}

`tests/models/` has models in the styles of real users: two transformer layers, a stack with scan, rematerialisation and
`make_dot_general_cls`, an NNX model with a bridged layer, one that accumulates microbatches, one with frozen,
conditional and unused branches, and one of pure functions around TE's `dense`. Each is correct, and has variants with
one thing wrong, as it was in real ones.

**{{alarms}} of {{claims}} claims on correct models were blamed; {{caught}} of {{bugs}} mistakes were named**, in host
runs. Each claim was tried with `Float8CurrentScaling` and `DelayedScaling`, on each model that the release has, with
{{seeds}} of its parameters, inputs and metadata. Among the mistakes are recipes of the model's own that differ from the
one asked for in an option alone: the length of the history, the margin, the amax that counts, or the format.
"""


@dataclasses.dataclass(frozen=True)
class Judged:
    """What came of all models under a release.

    Attributes:
        release: of Transformer Engine.
        claims: results of claims on correct models, by model, claim and recipe: the problems.
        bugs: by name of a mistake: whether it was named as it should be.
        absent: by model: why this release does not have it.
    """

    release: str
    claims: Mapping[str, Sequence[str]]
    bugs: Mapping[str, bool]
    absent: Mapping[str, str]


def judged(release: str, seeds: int) -> Judged:
    """All models in the environment of a release, the correct ones with some seeds.

    Raises:
        RuntimeError: the run failed.
    """
    environment = prepare(parse_edition(release))
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "judged.json"
        ended = environment.run(["python", str(WORKER), str(file), str(seeds)], cwd=WORKER.parent, timeout=TIMEOUT_S)
        if ended.code:
            raise RuntimeError(f"{release}: {ended.err[-2000:]}")
        return Judged(release, **json.loads(file.read_text()))


def noted(release: str, seeds: int, notes: Notes) -> Judged:
    """`judged`, unless its outcome is kept."""
    key = f"{release}, {_of_seeds(seeds)}"
    if key not in notes:
        found = judged(release, seeds)
        notes.add(key, dataclasses.asdict(found))
        print(_row(found), file=sys.stderr, flush=True)
    return Judged(**notes[key])


def _of_seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds"


def _of_the_models() -> str:
    """Changes with whatever decides what comes of the models."""
    return digest([*(ROOT / "mnist_fp8").rglob("*.py"), *(ROOT / "tests" / "models").rglob("*.py"), WORKER])


def page(found: Sequence[Judged], seeds: int) -> str:
    """The page, in Markdown."""
    blamed = [(each, name, problems) for each in found for name, problems in each.claims.items() if problems]
    introduction = INTRODUCTION.format(
        alarms=len(blamed),
        claims=sum(len(each.claims) for each in found),
        caught=sum(sum(each.bugs.values()) for each in found),
        bugs=sum(len(each.bugs) for each in found),
        seeds=_of_seeds(seeds),
    )
    rows = [
        "| release | claims on correct models | blamed | mistakes | named | models that it lacks |",
        "|---|---|---|---|---|---|",
    ]
    rows += [_row(each) for each in found]
    named = [f"- {each.release}, {name}: {problems[0]}" for each, name, problems in blamed]
    missed = [
        f"- {each.release}, {name}: not named" for each in found for name, right in each.bugs.items() if not right
    ]
    bugs = [
        "",
        "## The mistakes",
        "",
        *(f"- {name}" for name in dict.fromkeys(name for each in found for name in each.bugs)),
    ]
    return "\n".join([introduction, *rows, *(["", *named, *missed] if named or missed else []), *bugs]) + "\n"


def _row(each: Judged) -> str:
    blamed = sum(bool(problems) for problems in each.claims.values())
    lacks = "; ".join(f"{model}: {reason}" for model, reason in each.absent.items())
    return (
        f"| {each.release} | {len(each.claims)} | {blamed} | {len(each.bugs)} | {sum(each.bugs.values())} | {lacks} |"
    )


def main() -> None:
    """Judge under all releases and print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--releases", nargs="+", default=RELEASES, help="versions of TE (default: five of them)")
    parser.add_argument("--seeds", type=int, default=1, help="of the correct models (default: 1)")
    asked = parser.parse_args()
    notes = Notes(cache_dir() / "models" / f"{_of_the_models()}.jsonl")
    found = [noted(release, asked.seeds, notes) for release in asked.releases]
    print(page(found, asked.seeds), end="")
    sys.exit(any(any(each.claims.values()) or not all(each.bugs.values()) for each in found))


if __name__ == "__main__":
    main()
