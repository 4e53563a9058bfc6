"""What the verdict says of code in the style of those that use Transformer Engine from JAX, over all known releases.

``tests/corpus`` has one file for each of nine code bases, and variants: before and after a repair, guarded, older.
``expected.toml`` has variants that edits make of another file, and says of each use in which releases it works. That
was not read from source as mnist_fp8 reads it: each release was imported, each name was looked up in it, and each call
was bound by `inspect.signature`. Only what a test or a handler protects, values that are taken apart, and defaults are
judged by reading.
"""

import itertools
import tempfile
import tomllib
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet

from mnist_fp8.gate.names.stored import stored_names, stored_releases
from mnist_fp8.gate.uses.judge import judge
from mnist_fp8.gate.uses.judgement import Judgement, Outcome
from mnist_fp8.gate.uses.ranges import fitting
from mnist_fp8.gate.uses.scan import find_uses
from mnist_fp8.gate.uses.use import Use

CORPUS = Path(__file__).parents[3] / "corpus"
EXPECTED: dict[str, dict[str, Any]] = tomllib.loads((CORPUS / "expected.toml").read_text())
RELEASES = stored_releases()
PAIRS = tuple(itertools.pairwise(RELEASES))
_DECIDED = {Outcome.BREAKS, Outcome.BROKEN_ALREADY, Outcome.BETTER}


def fitting_releases(specifiers: Iterable[str]) -> set[str]:
    """Known releases that one of some specifiers contains; ``all`` contains each."""
    return {
        version
        for version in RELEASES
        for specifier in specifiers
        if specifier == "all" or version in SpecifierSet(specifier)
    }


def source(name: str) -> str:
    """A file of the corpus, or what edits make of another one."""
    text = (CORPUS / f"{EXPECTED[name].get('of', name)}.py").read_text()
    for before, after in EXPECTED[name].get("edits", []):
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    return text


@cache
def uses(name: str) -> tuple[Use, ...]:
    """The uses in it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{name}.py"
        file.write_text(source(name))
        found = find_uses([file])
    assert found.unread == ()
    return found.uses


@cache
def judgements(name: str, old: str, new: str) -> tuple[Judgement, ...]:
    """What becomes of them."""
    return judge(uses(name), stored_names(old), stored_names(new))


def becomes(use: dict[str, Any], old: str, new: str) -> tuple[set[Outcome], set[Outcome]]:
    """What has to be said of a use, and what may be said besides; nothing where it stays as it is, or is protected."""
    works = fitting_releases(use["works"])
    is_safe = [version in fitting_releases(use.get("guarded", use["works"])) for version in (old, new)]
    match old in works, new in works:
        case True, False:
            return (set(), set()) if is_safe[1] else ({Outcome.BREAKS}, set())
        case False, False:
            return (set(), set()) if is_safe[1] else ({Outcome.BROKEN_ALREADY}, set())
        case False, True:
            return (set(), {Outcome.BETTER}) if is_safe[0] else ({Outcome.BETTER}, set())
    return set(), set()


def test_each_file_is_expected() -> None:
    files = {name for name, each in EXPECTED.items() if "of" not in each}
    assert files == {path.stem for path in CORPUS.glob("*.py")}


@pytest.mark.parametrize("name", EXPECTED)
def test_names_that_are_used_are_found_with_their_lines(name: str) -> None:
    found = {(use.place.line, use.path.removeprefix("transformer_engine.")) for use in uses(name)}
    assert {(use["line"], use["name"]) for use in EXPECTED[name]["uses"]} <= found


@pytest.mark.parametrize("name", EXPECTED)
def test_range_of_releases(name: str) -> None:
    assert set(fitting(uses(name), {version: stored_names(version) for version in RELEASES}).fits) == fitting_releases(
        EXPECTED[name]["fits"]
    )


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[0]}-{pair[1]}")
@pytest.mark.parametrize("name", EXPECTED)
def test_outcomes_of_neighbouring_releases(name: str, pair: tuple[str, str]) -> None:
    """Line by line: what breaks, is broken already, or works now, and nothing else."""
    due: dict[int, set[Outcome]] = defaultdict(set)
    allowed: dict[int, set[Outcome]] = defaultdict(set)
    for use in EXPECTED[name]["uses"]:
        has_to, may = becomes(use, *pair)
        due[use["line"]] |= has_to
        allowed[use["line"]] |= has_to | may
    found: dict[int, set[Outcome]] = defaultdict(set)
    for judgement in judgements(name, *pair):
        found[judgement.use.place.line] |= {judgement.outcome} & _DECIDED
    wrong = {line: some for line, some in found.items() if some - allowed[line]}
    missing = {line: some - found[line] for line, some in due.items() if some - found[line]}
    assert (wrong, missing) == ({}, {})


@pytest.mark.parametrize("name", EXPECTED)
def test_changes_that_break_nothing(name: str) -> None:
    """What is told beside: defaults that are left out, and what is not known."""
    told = {Outcome.CHANGES, Outcome.UNKNOWN}
    found = {
        f"{new} {each.use.place.line} {each.outcome.name} {each.cause and each.cause.name} {each.subject}".strip()
        for old, new in PAIRS
        for each in judgements(name, old, new)
        if each.outcome in told
    }
    assert sorted(found) == sorted(EXPECTED[name].get("changes", []))


BREAKAGES = {
    "a descriptor needs arguments": ("maxtext", "2.11.0", "2.12.0", 30, "argument now needed", "is_thd"),
    "and does not take them": ("maxtext_is_thd", "2.13.0", "2.14.0", 30, "argument not taken", "is_thd"),
    "an override lacks an argument": (
        "maxtext",
        "2.13.0",
        "2.14.0",
        92,
        "override lacks an argument that is passed",
        "n_groups",
    ),
    "arguments that older releases do not take": (
        *("maxtext_context_parallel", "1.13.0", "1.12.0", 11),
        *("argument not taken", "context_parallel_axis"),
    ),
    "a mask became a descriptor": ("levanter", "1.13.0", "2.1.0", 35, "argument not taken", "mask"),
    "kernels of gate and up became one": ("marin_grug", "2.18.0", "2.19.0", 54, "number of returned values", ""),
    "a softmax type is needed": ("levanter_descriptor", "2.9.0", "2.10.0", 18, "argument now needed", "softmax_type"),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_breakages_that_happened(breakage: str) -> None:
    name, old, new, line, cause, subject = BREAKAGES[breakage]
    found = {
        (each.use.place.line, each.cause.value if each.cause else "", each.subject)
        for each in judgements(name, old, new)
        if each.outcome is Outcome.BREAKS
    }
    assert (line, cause, subject) in found
