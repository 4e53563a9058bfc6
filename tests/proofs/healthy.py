"""Healthy releases must stay green: run the claims again and again, and report every red one.

``PYTHONPATH=.:tests python -m proofs.healthy`` fetches released versions of Transformer Engine, and runs the claims
without training runs against each: every run with another Hypothesis seed and the tests in another order. What ended
is kept, so that an interrupted command goes on where it stopped. It prints ``docs/evidence/healthy.md`` and exits 1 if
a run was not green.
"""

import argparse
import concurrent.futures
import dataclasses
import importlib.metadata
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import scipy.stats

from mnist_fp8.core.errors import EnvError
from mnist_fp8.core.files import cache_dir, digest_of
from mnist_fp8.gate.releases import uv
from mnist_fp8.gate.reports.markup import generated_by
from proofs.mutation import claims
from proofs.mutation.results import Notes, of_the_claims

INTRODUCTION = f"""\
# Healthy releases stay green

{generated_by("PYTHONPATH=.:tests python -m proofs.healthy > docs/evidence/healthy.md")}

**{{red}} of {{count}} runs were red**: with 95% confidence, fewer than {{most:.0%}} of all runs are.

A gate with false alarms gets switched off. So the claims, without training runs, are run again and again on releases
that are known to be healthy. Every run has another Hypothesis seed and another order of the tests, and runs with one
seed after the other use {{workers}} workers in turn. Host runs of all layers with JAX {{jax}}.
{{claims}}
The claims grow. Runs of earlier claims stay in the count: what a run shows of a test that did not change, it still
shows. {{present}} of the runs are of the claims as they are.
"""
RELEASES = ("2.16.1", "2.17.1", "2.18.0", "2.19.0", "2.20.2")


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of the claims.

    Attributes:
        release: of Transformer Engine.
        seed: of Hypothesis and of the order.
        workers: of pytest-xdist; 0 is none.
    """

    release: str
    seed: int
    workers: int

    @property
    def name(self) -> str:
        """What its outcome is kept under."""
        return f"{self.release} seed {self.seed} workers {self.workers}"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended: pytest's exit code, its last line, what failed, and the seconds it took."""

    code: int
    counts: str
    failed: list[str]
    seconds: float


@dataclasses.dataclass(frozen=True)
class Series:
    """Runs of the same claims.

    Attributes:
        suite: digest of the claims and of what decides what they say.
        outcomes: by run.
    """

    suite: str
    outcomes: dict[Run, Outcome]


def fetch(release: str, folder: Path) -> Path:
    """Install a release's Python, without dependencies, into a folder of its own, if it is not there yet.

    Raises:
        EnvError: it cannot be had.
    """
    target = folder / release
    if not (target / "transformer_engine").exists():
        into = ("--python", sys.executable, "--no-deps", "--no-build", "--target", str(target))
        uv.run("pip", "install", *into, f"transformer-engine=={release}", what=f"the folder of {release}")
    return target


def attempt(run: Run, te: Path, names: Sequence[str]) -> Outcome:
    """Run claims once, by their names, in processes of their own."""
    seeds = [f"--hypothesis-seed={run.seed}", f"--randomly-seed={run.seed}"]
    command = [sys.executable, "-m", "pytest", "-q", "--tb=line", "-p", "no:cacheprovider", "-n", str(run.workers)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(te), os.environ.get("PYTHONPATH", "")]),
        "MNIST_FP8_TE": "host",
        "JAX_PLATFORMS": "cpu",
        "HYPOTHESIS_PROFILE": "dev",  # new examples with every seed
    }
    started = time.monotonic()
    done = subprocess.run(  # noqa: S603 - our own command
        [*command, *seeds, *claims.files(names)],
        cwd=claims.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    failed = re.findall(r"^(?:FAILED|ERROR) (.*)$", done.stdout, re.MULTILINE)
    last = done.stdout.strip().splitlines()[-1:] or done.stderr.strip().splitlines()[-1:] or ["no output"]
    return Outcome(done.returncode, last[0], failed, time.monotonic() - started)


def noted(run: Run, te: Path, names: Sequence[str], notes: Notes) -> Outcome:
    """`attempt`, unless its outcome is kept."""
    if run.name not in notes:
        outcome = attempt(run, te, names)
        notes.add(run.name, dataclasses.asdict(outcome))
        said = "; ".join([outcome.counts, *outcome.failed])
        print(f"{run.name}: {outcome.seconds:.0f} s: {said}", file=sys.stderr, flush=True)
    return Outcome(**notes[run.name])


def main() -> None:
    """Run all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="runs of each release (default: %(default)s)")
    parser.add_argument("--first-seed", type=int, default=0, help="to go on after earlier runs (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side (default: %(default)s)")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=(0, 2), help="of one seed after the other, in turn (default: 0 2)"
    )
    parser.add_argument("--releases", nargs="+", default=RELEASES, help="versions of TE (default: five of them)")
    parser.add_argument(
        "--claim", nargs="+", default=claims.ORDER, choices=claims.ORDER, metavar="NAME", help="only these claims"
    )
    args = parser.parse_args()
    try:
        folders = {release: fetch(release, cache_dir() / "releases") for release in args.releases}
    except EnvError as error:
        sys.exit(str(error))
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    turns = args.workers
    runs = [Run(release, seed, turns[seed % len(turns)]) for seed in seeds for release in args.releases]
    names = tuple(args.claim)
    which = "" if names == claims.ORDER else f"-{digest_of(names)[:8]}"
    suite = of_the_claims(claims.ROOT)
    folder = cache_dir() / "healthy"
    notes = Notes(folder / f"{suite}{which}.jsonl")
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        outcomes = dict(
            zip(runs, pool.map(lambda run: noted(run, folders[run.release], names, notes), runs), strict=True)
        )
    print(page(kept(folder, suite, which), names))
    sys.exit(any(outcome.code for outcome in outcomes.values()))


def kept(folder: Path, suite: str, which: str) -> list[Series]:
    """All runs of the same selection of claims, in the order of their last runs, with the claims as they are last."""
    files = [file for file in folder.glob("*.jsonl") if file.stem[8:] == which]
    return [
        Series(file.stem[:8], {_run_of(name): Outcome(**fact) for name, fact in Notes(file).items()})
        for file in sorted(files, key=lambda file: (file.stem.startswith(suite), file.stat().st_mtime))
    ]


def _run_of(name: str) -> Run:
    release, _, seed, _, workers = name.split()
    return Run(release, int(seed), int(workers))


def most_red(red: int, count: int) -> float:
    """Largest share of red runs that as few of them as these do not rule out: one-sided Clopper-Pearson, 95%."""
    return float(scipy.stats.beta.ppf(0.95, red + 1, count - red)) if red < count else 1.0


def page(series: Sequence[Series], names: Sequence[str]) -> str:
    """The page, in Markdown, of runs of some claims; the last series is of the claims as they are."""
    runs = [(run, outcome) for each in series for run, outcome in each.outcomes.items()]
    red = sum(outcome.code != 0 for _, outcome in runs)
    introduction = INTRODUCTION.format(
        red=red,
        count=len(runs),
        most=most_red(red, len(runs)),
        present=len(series[-1].outcomes),
        jax=importlib.metadata.version("jax"),
        claims="" if names == claims.ORDER else f"Only the claims {', '.join(names)}.\n",
        workers=", ".join(str(count) for count in sorted({run.workers for run, _ in runs})),
    )
    return f"{introduction}\n{table(series)}"


def table(series: Sequence[Series]) -> str:
    """One row for each release under the same claims."""
    lines = [
        "| claims | release | runs | red | seconds a run (fastest, slowest) | last run |",
        "|---|---|---|---|---|---|",
    ]
    for each in series:
        for release in dict.fromkeys(run.release for run in each.outcomes):
            own = [outcome for run, outcome in each.outcomes.items() if run.release == release]
            seconds = sorted(outcome.seconds for outcome in own)
            red = sum(outcome.code != 0 for outcome in own)
            times = f"{seconds[0]:.0f}, {seconds[-1]:.0f}"
            lines.append(f"| {each.suite} | {release} | {len(own)} | {red} | {times} | {own[-1].counts} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
