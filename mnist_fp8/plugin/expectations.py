"""What is known of single releases: which tests they cannot pass, and why. The suite's ``expectations.toml`` says it.

Two kinds. *absent*: the release lacks what a test needs; the test is skipped, its claim not verified there. *defect*:
the release has a known defect; the test has to fail there, and passing is an error (``strict``). An entry with a
``run`` is about that kind of run only: ``host`` or ``kernel``.
"""

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from mnist_fp8.core.patterns import matches

FILE_NAME = "expectations.toml"
"""In the folder with the tests."""

_KEYS = {"tests", "releases", "kind", "reason", "remove"}
_RUNS = ("host", "kernel")


@dataclasses.dataclass(frozen=True)
class Expectation:
    """One entry.

    Attributes:
        tests: patterns of test names, such as ``test_file.py::test_name[*current*]``; ``*`` stands for anything.
        releases: of Transformer Engine that it is about.
        kind: ``absent`` or ``defect``.
        reason: what the release lacks, or its defect, with the pull request or issue.
        remove: when the entry is of no use any more.
        run: the kind of run that it is about; empty for both.
    """

    tests: tuple[str, ...]
    releases: SpecifierSet
    kind: str
    reason: str
    remove: str
    run: str = ""

    def concerns(self, release: str, run: str) -> bool:
        """Whether it is about a release in a kind of run; a version such as an unknown one is no release."""
        try:
            return self.run in ("", run) and self.releases.contains(release, prereleases=True)
        except ValueError:
            return False

    def mark(self, release: str) -> pytest.MarkDecorator:
        """What it does to a test in a release that it concerns."""
        if self.kind == "absent":
            return pytest.mark.skip(reason=f"needs {self.reason}; found Transformer Engine {release}")
        return pytest.mark.xfail(reason=self.reason, strict=True)


def apply(file: Path, claims: Mapping[pytest.Item, str], release: str, run: str, *, whole: bool) -> None:
    """Mark what the installed release is known to lack or to do wrong.

    Args:
        file: what is known.
        claims: the collected tests of claims, with their names.
        release: of Transformer Engine that is installed.
        run: the kind of run; empty where nothing is run.
        whole: whether those are all there are; an entry that fits none of them is wrong then.

    Raises:
        UsageError: an entry is wrong.
    """
    try:
        known = load(file)
    except (OSError, ValueError) as error:
        raise pytest.UsageError(f"{file}: {error}") from error
    stray = unmatched(known, claims.values()) if whole else []
    if stray:
        raise pytest.UsageError(f"{file}: these patterns fit no test: {', '.join(stray)}")
    concerned = [expectation for expectation in known if expectation.concerns(release, run)]
    for item, name in claims.items():
        for mark in marks_for(name, release, run, concerned):
            item.add_marker(mark)


def load(path: Path) -> list[Expectation]:
    """Read the entries.

    Raises:
        ValueError: an entry is wrong; the message says which and how.
    """
    entries = tomllib.loads(path.read_text(encoding="utf-8")).get("expect", [])
    return [_entry(number, raw) for number, raw in enumerate(entries, start=1)]


def _entry(number: int, raw: dict[str, Any]) -> Expectation:
    where = f"expectation {number} ({raw.get('reason', 'without a reason')})"
    if set(raw) - {"run"} != _KEYS:
        raise ValueError(f"{where}: keys are {', '.join(sorted(raw))}; expected {', '.join(sorted(_KEYS))}")
    if raw["kind"] not in ("absent", "defect"):
        raise ValueError(f"{where}: kind is {raw['kind']!r}; expected 'absent' or 'defect'")
    if raw.get("run", "host") not in _RUNS:
        raise ValueError(f"{where}: run is {raw['run']!r}; expected 'host' or 'kernel'")
    try:
        releases = SpecifierSet(raw["releases"])
    except InvalidSpecifier as error:
        raise ValueError(f"{where}: {error}") from error
    return Expectation(tuple(raw["tests"]), releases, raw["kind"], raw["reason"], raw["remove"], raw.get("run", ""))


def unmatched(expectations: Iterable[Expectation], names: Iterable[str]) -> list[str]:
    """Patterns that fit none of the names: typing errors, or left over from a test that is gone."""
    known = list(names)
    patterns = {pattern for expectation in expectations for pattern in expectation.tests}
    return sorted(pattern for pattern in patterns if not any(matches(pattern, name) for name in known))


def marks_for(name: str, release: str, run: str, expectations: Iterable[Expectation]) -> list[pytest.MarkDecorator]:
    """The marks that a test gets in a release and a kind of run; only what it lacks, where something is absent."""
    found = [
        expectation
        for expectation in expectations
        if expectation.concerns(release, run) and any(matches(pattern, name) for pattern in expectation.tests)
    ]
    absent = [expectation for expectation in found if expectation.kind == "absent"]
    return [expectation.mark(release) for expectation in absent or found]
