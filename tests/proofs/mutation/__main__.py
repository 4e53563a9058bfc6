"""``python -m proofs.mutation``: how many small faults in Transformer Engine do the claims catch?"""

import argparse
import importlib.metadata
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mnist_fp8.core.files import cache_dir, replace_file
from proofs.mutation import claims, farm, page, path, subject, trial
from proofs.mutation.path import Mutant
from proofs.mutation.results import Notes, Result, digest, of_the_claims
from proofs.mutation.survivors import EXPLAINED
from proofs.mutation.trial import Healthy, Task

HERE = Path(__file__).parent


def main() -> None:
    """Try the mutants asked for, write the table, and exit 1 if one that is not explained was missed."""
    args = _arguments()
    console = Console()
    version = importlib.metadata.version("transformer-engine")
    folder = cache_dir() / "mutants" / f"{version}-{_of_the_subject()}"
    trial.prepare(folder.parent / "xla")
    try:
        results = list(_results(args, folder, console))
    except trial.UnhealthyError as error:
        sys.exit(f"mutants: {error}")
    except KeyboardInterrupt:
        sys.exit(f"interrupted; the same command goes on from here ({folder})")
    if not results:
        sys.exit(f"mutants: {args.file} has no line that a layer executes, or is no file of {subject.PACKAGE}")
    versions = {name: importlib.metadata.version(name) for name in ("transformer-engine", "jax", "flax")}
    if args.output:
        args.output.write_text(page.render(results, page.Conditions(versions, args.sample, args.seed, args.scenarios)))
    console.print(page.summary(results))
    for each in page.missed(results):
        console.print(f"missed: {each.name}: {each.evidence}", style="red", highlight=False, markup=False)
    sys.exit(any(each.name not in EXPLAINED for each in page.missed(results)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m proofs.mutation", description=__doc__)
    parser.add_argument("--sample", type=_count, help="how many mutants, spread over all functions (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="which sample (default: %(default)s)")
    parser.add_argument("--file", nargs="+", default=(), help="only mutants of some files, such as jax/dense.py")
    parser.add_argument(
        "--scenarios",
        nargs="+",
        default=(),
        help="only mutants of lines that just those scenarios of the probe execute whose names begin so, such as MXFP8",
    )
    parser.add_argument(
        "--jobs", type=_count, default=os.cpu_count(), help="processes at a time (default: %(default)s)"
    )
    parser.add_argument("-o", "--output", type=Path, help="write the table to this Markdown file")
    return parser.parse_args()


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{count} is no number of things; expected 1 or more")
    return count


def _of_the_subject() -> str:
    """Changes with the installed TE and with the probe."""
    return digest(subject.folder().rglob("*.py"), *(file.read_text() for file in sorted(HERE.glob("probe*.py"))))


def _results(args: argparse.Namespace, folder: Path, console: Console) -> Iterator[Result]:
    console.print("looking at the installed Transformer Engine: observations, executed lines, the claims")
    suite = of_the_claims(claims.ROOT)
    healthy = seen_once(folder / f"healthy-{suite}.pickle", args.jobs)
    lines = path.of_scenarios(healthy.scenarios, args.scenarios) if args.scenarios else path.union(healthy.scenarios)
    mutants = path.sample(path.mutants(lines), args.sample, args.seed, args.file)
    glances, verdicts = Notes(folder / f"glances-{suite}.jsonl"), Notes(folder / f"verdicts-{suite}.jsonl")
    differences = Notes(folder / "differences.jsonl")
    tasks = [healthy.task(mutant) for mutant in mutants]
    for ended in _run(glances, trial.glance, tasks, args.jobs, "letting the nearest tests judge", console):
        glances.add(ended.task.mutant.name, _verdict(ended))
    left = [task for task in tasks if not glances[task.mutant.name]["claim"]]
    for ended in _run(differences, trial.look, left, args.jobs, "looking for a difference", console):
        differences.add(ended.task.mutant.name, _difference(ended))
    observable = [task for task in left if differences[task.mutant.name]]
    for ended in _run(verdicts, trial.judge, observable, args.jobs, "letting the claims judge", console):
        verdicts.add(ended.task.mutant.name, _verdict(ended))
    for mutant in mutants:
        glance = glances[mutant.name]
        if glance["claim"]:  # what a claim sees can be seen
            yield _result(mutant, f"{glance['claim']}: {glance['test']}", glance)
        else:
            evidence = differences[mutant.name]
            yield _result(mutant, evidence, verdicts[mutant.name] if evidence else {})


def seen_once(file: Path, jobs: int) -> Healthy:
    """What the installed TE shows; from a file, where an interrupted run has seen it all.

    Raises:
        UnhealthyError: it is not fit to be compared with.
    """
    if file.exists():
        kept: Healthy = pickle.loads(file.read_bytes())  # noqa: S301 - our own
        return kept
    healthy = trial.healthy(jobs)
    replace_file(file, pickle.dumps(healthy))
    return healthy


def _run(
    notes: Notes, function: Callable[[Task], Any], tasks: list[Task], jobs: int, what: str, console: Console
) -> Iterator[farm.Ended[Task]]:
    """Run a function on each task of which nothing is noted yet, with a progress bar."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(what, total=len(tasks))
        todo = [task for task in tasks if task.mutant.name not in notes]
        progress.update(bar, advance=len(tasks) - len(todo))
        for ended in farm.run(function, todo, jobs=jobs, timeout=trial.TIMEOUT):
            yield ended
            progress.update(bar, advance=1)


def _difference(ended: farm.Ended[Task]) -> str:
    """What differs, in words. A process that died is a difference."""
    return ended.failure or str(ended.result)


def _verdict(ended: farm.Ended[Task]) -> dict[str, Any]:
    """What the claims say. A process that died caught the mutant."""
    died = claims.Verdict("(process)", "(process)", ended.failure, silent=False, seconds=ended.seconds)
    return vars(ended.result or died)


def _result(mutant: Mutant, evidence: str, verdict: dict[str, Any]) -> Result:
    edit, source = mutant.edit, subject.read(mutant.file).encode()
    before = source[edit.start : edit.end].decode()
    return Result(
        mutant.name, mutant.file, edit.line, edit.scope, edit.operator, before, edit.text, evidence, **verdict
    )


if __name__ == "__main__":
    main()
