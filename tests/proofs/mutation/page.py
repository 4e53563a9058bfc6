"""The kill table: as a page in Markdown and as a summary for the terminal."""

import dataclasses
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence

from rich.table import Table

from mnist_fp8.gate.reports.markup import generated_by
from proofs.mutation.results import Result
from proofs.mutation.survivors import EXPLAINED

_HEADINGS = ("mutants", "equivalent", "observable", "caught", "share")


@dataclasses.dataclass(frozen=True)
class Conditions:
    """What a table was made with.

    Attributes:
        versions: of Transformer Engine, JAX and so on, by name.
        sample: size of the sample; ``None`` is all mutants.
        seed: of the sample.
        scenarios: how the names of scenarios begin that alone execute the lines of the mutants; empty is all lines.
    """

    versions: dict[str, str]
    sample: int | None
    seed: int
    scenarios: Sequence[str] = ()

    @property
    def command(self) -> str:
        """What generates the page."""
        sample = f" --sample {self.sample} --seed {self.seed}" if self.sample else ""
        scenarios = f" --scenarios {' '.join(self.scenarios)}" if self.scenarios else ""
        return f"tox -e mutants --{sample}{scenarios} --output docs/evidence/{self.page}"

    @property
    def page(self) -> str:
        """The name of the page."""
        return "-".join(["mutants", *map(str.lower, self.scenarios)]) + ".md"


def missed(results: list[Result]) -> list[Result]:
    """Observable mutants that no claim caught."""
    return [each for each in results if each.observable and not each.caught]


def silent(results: list[Result]) -> list[Result]:
    """Observable mutants with which nothing raises: only a value, a dtype or a structure differs."""
    return [each for each in results if each.observable and (each.silent if each.caught else not _raises(each))]


def _raises(result: Result) -> bool:
    return ": raises " in result.evidence


def summary(results: list[Result]) -> Table:
    """How many mutants of each file were caught."""
    table = Table("file", title="faults put into Transformer Engine")
    for heading in _HEADINGS:
        table.add_column(heading, justify="right")
    for name, row in _rows(results):
        table.add_row(name, *row)
    return table


def render(results: list[Result], conditions: Conditions) -> str:
    """The whole page."""
    observable = [each for each in results if each.observable]
    caught = [each for each in observable if each.caught]
    versions = ", ".join(f"{name} {version}" for name, version in conditions.versions.items())
    parts = [
        "# Mutants of Transformer Engine, and what caught them",
        generated_by(conditions.command),
        f"With {versions}.{_lines_of(conditions.scenarios)}",
        _headline(observable, caught),
        _PREFACE,
        "## By file",
        _table(("file", *_HEADINGS), [(name, *row) for name, row in _rows(results)]),
        "## By operator",
        _table(("operator", *_HEADINGS), [(name, *_figures(each)) for name, each in _by(results, "operator")]),
        "## By claim",
        "The claim of the first failing test: the others were not asked any more.",
        _table(("claim", "caught"), _by_claim(caught)),
        "## Survivors",
        _survivors(results),
        "## All observable mutants",
        *(_details(file, each) for file, each in _by(observable, "file")),
    ]
    return "\n\n".join(parts) + "\n"


def _lines_of(scenarios: Sequence[str]) -> str:
    """Which lines the mutants are on, where they are not on all."""
    return f" Only lines that nothing but {' and '.join(scenarios)} executes." if scenarios else ""


def _headline(observable: list[Result], caught: list[Result]) -> str:
    seconds = statistics.median(each.seconds for each in caught) if caught else 0
    return (
        f"**{len(caught)} of {len(observable)} observable faults caught ({_share(caught, observable)})**; of those with"
        f" which nothing raises, {_caught_share(silent(observable))}. Median time to the first failure: {seconds:.1f} s"
        " in a process that has imported JAX."
    )


_PREFACE = """\
A mutant is the installed Transformer Engine with one small edit on a line that a layer executes. It is *observable* if
a probe sees a difference: thousands of bit-exact observations of layers, gradients, metadata, programs, autocasts,
recipes and two devices (`tests/proofs/mutation/probe.py`, which shares no code with the claims), of which those count
that execute the line. If the probe sees none, the mutant counts as equivalent. Most of those are on lines that only
matter on a GPU or for other recipes, or they change nothing (an argument that is the default anyway). The claims that
execute the line then run up to the first failure, without training runs. [How it works, and why no general mutation
tool is used](../explanation/architecture.md#mutants)."""


def _rows(results: list[Result]) -> list[tuple[str, tuple[str, ...]]]:
    rows = [(file, _figures(each)) for file, each in _by(results, "file")]
    return [*rows, ("**all**", _figures(results)), ("nothing raises", _figures(silent(results)))]


def _figures(results: list[Result]) -> tuple[str, ...]:
    observable = [each for each in results if each.observable]
    caught = [each for each in observable if each.caught]
    counts = len(results), len(results) - len(observable), len(observable), len(caught)
    return (*map(str, counts), _share(caught, observable))


def _caught_share(results: list[Result]) -> str:
    caught = [each for each in results if each.caught]
    return f"{len(caught)} of {len(results)} ({_share(caught, results)})"


def _share(part: list[Result], whole: list[Result]) -> str:
    return f"{len(part) / len(whole):.1%}" if whole else "-"


def _by(results: list[Result], attribute: str) -> list[tuple[str, list[Result]]]:
    groups: dict[str, list[Result]] = defaultdict(list)
    for each in results:
        groups[getattr(each, attribute)].append(each)
    return sorted(groups.items())


def _table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [headings, tuple("---" for _ in headings), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _by_claim(caught: list[Result]) -> list[tuple[str, ...]]:
    return [(claim, str(count)) for claim, count in Counter(each.claim for each in caught).most_common()]


def _survivors(results: list[Result]) -> str:
    if not missed(results):
        return "None."
    return "\n".join(
        f"- {_fault(each)} ({each.file}:{each.line}, `{each.scope}`). Seen by the probe: {_short(each.evidence, 160)}. "
        f"{EXPLAINED.get(each.name, '**Not explained.**')}"
        for each in missed(results)
    )


def _details(file: str, results: list[Result]) -> str:
    table = _table(("line", "in", "fault", "caught by", "message"), [_row(each) for each in results])
    return f"<details><summary>{file}: {len(results)}</summary>\n\n{table}\n\n</details>"


def _row(result: Result) -> tuple[str, ...]:
    caught_by = f"{result.claim}: {_short(result.test, 60)}" if result.caught else "**missed**"
    return str(result.line), f"`{result.scope}`", _fault(result), caught_by, _short(result.message, 120)


def _fault(result: Result) -> str:
    return f"{result.operator}: `{_short(result.before, 60)}` → `{_short(result.after, 60)}`"


def _short(text: str, length: int) -> str:
    plain = " ".join(text.split()).replace("|", "\\|").replace("`", "'")
    return plain if len(plain) <= length else plain[: length - 1] + "…"
