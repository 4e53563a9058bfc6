"""What a package asks for and says of itself: read from made-up metadata, judged, and asked of a resolver."""

import dataclasses
from pathlib import Path

import pytest

from mnist_fp8.core.errors import EnvError
from mnist_fp8.gate.releases import uv
from mnist_fp8.gate.releases.editions import Edition, EditionKind
from mnist_fp8.gate.releases.environments import Environment
from mnist_fp8.gate.releases.uv import NoSolutionError
from mnist_fp8.gate.runner import package
from mnist_fp8.gate.runner.store import unexamined
from mnist_fp8.gate.verdict import compare
from mnist_fp8.gate.verdict.changes import EntryChange
from mnist_fp8.gate.verdict.comparison import Comparison
from mnist_fp8.gate.verdict.rules.package import RULES, rule_of_package
from mnist_fp8.record.entries import Failure, Text, Value
from mnist_fp8.record.entries_json import entries_from_json, entries_to_json
from mnist_fp8.record.keys import RESOLVER
from mnist_fp8.record.packages import Needs, Resolved
from mnist_fp8.record.record import Record
from support.comparing import SUITE, WHOLE

VERSIONS = {"python": "3.11.7", "jax": "0.10.2", "jaxlib": "0.10.2", "flax": "0.12.8", "numpy": "2.4.6"}
EXTRA = 'Provides-Extra: jax\nRequires-Dist: transformer_engine_jax==VERSION; extra == "jax"\n'
REAL = f"""Requires-Python: >=3.10.0
License-File: LICENSE
Provides-Extra: core-cu13
Requires-Dist: transformer_engine_cu13==VERSION; extra == "core-cu13"
{EXTRA}"""
"""As releases 2.19.0 and 2.20.2 have it, without what is alike."""


def installed(folder: Path, fields: str, version: str = "2.20.2", tag: str = "py3-none-any") -> Path:
    """A ``transformer_engine`` with metadata beside it; returns its folder."""
    about = folder / f"transformer_engine-{version}.dist-info"
    about.mkdir(parents=True)
    head = f"Metadata-Version: 2.4\nName: transformer-engine\nVersion: {version}\n"
    (about / "METADATA").write_text(head + fields.replace("VERSION", version))
    (about / "WHEEL").write_text(f"Wheel-Version: 1.0\nTag: {tag}\n")
    return folder / "transformer_engine"


def side(package_: Path) -> tuple[Environment, Record]:
    """An environment with a package, and its record."""
    edition = Edition(EditionKind.RELEASE, "2.20.2", "2.20.2")
    made = Environment(edition, Path("/python"), "0.10.2", "0.12.8", "digest", {}, package_)
    entries = package.metadata_entries(package_, VERSIONS)
    record = dataclasses.replace(
        unexamined(made), environment=VERSIONS, entries=WHOLE | entries, settings="s", run="host", suite=SUITE
    )
    return made, record


def judged(tmp_path: Path, old: str, new: str, **of_new: str) -> Comparison:
    """The comparison of two packages, a resolver asked."""
    sides = [
        side(installed(tmp_path / "old", old, "2.19.0")),
        side(installed(tmp_path / "new", new, "2.20.2", **of_new)),
    ]
    records = package.with_answers([made for made, _ in sides], [record for _, record in sides])
    return compare.compare(*records, ())


def rules(comparison: Comparison) -> set[str]:
    """The rules of its differences."""
    return {each.rule.id for each in comparison.differences}


@pytest.fixture(autouse=True)
def resolver(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A uv that finds what is asked for, unless jax<0.5 is; returns what it was asked."""
    asked: list[list[str]] = []

    def resolve(requirements: list[str], *options: str, what: str, python: Path) -> str:
        assert (options, what, python) == (("--no-build",), "the list of packages", Path("/python"))
        asked.append(list(requirements))
        if "jax<0.5" in requirements:
            raise NoSolutionError(what, "you require jax<0.5 and jax==0.10.2")
        return "jax==0.10.2"

    monkeypatch.setattr(uv, "resolve", resolve)
    return asked


# --- what is read --------------------------------------------------------------------------------------------------


def test_metadata_are_entries(tmp_path: Path) -> None:
    fields = (
        "License-Expression: Apache-2.0\nRequires-Python: >=3.10\nRequires-Dist: NumPy>=2\n"
        "Requires-Dist: jax>=0.5,<0.12; python_version > '3'\nRequires-Dist: flax<0.1; python_version < '3'\n"
        "Provides-Extra: jax\nProvides-Extra: bare\nRequires-Dist: transformer_engine_jax==VERSION; extra == 'jax'\n"
    )
    found = package.metadata_entries(installed(tmp_path, fields), VERSIONS)
    assert found == {
        "package/requires/jax": Needs("<0.12,>=0.5"),
        "package/requires/jaxlib": Needs(""),
        "package/requires/flax": Needs(""),
        "package/requires/numpy": Needs(">=2"),
        "package/python": Needs(">=3.10"),
        "package/extra/jax": Text("transformer-engine-jax of the same version"),
        "package/extra/bare": Text("nothing"),
        "package/tags": Text("py3-none-any"),
        "package/licence": Text("Apache-2.0"),
    }
    assert [each.found for each in found.values() if isinstance(each, Needs)] == [
        *("0.10.2", "0.10.2", "0.12.8", "2.4.6", "3.11.7"),
    ]
    assert entries_from_json(entries_to_json(found)) == found


def test_checkout_has_none_and_broken_ones_are_a_failure(tmp_path: Path) -> None:
    assert package.metadata_entries(tmp_path / "transformer_engine", VERSIONS) == {}
    found = package.metadata_entries(installed(tmp_path, "Requires-Dist: ???\n"), VERSIONS)
    assert list(found) == ["package/metadata"]
    assert isinstance(found["package/metadata"], Failure)


# --- what a difference means ---------------------------------------------------------------------------------------


def test_release_that_asks_for_the_same_is_safe(tmp_path: Path, resolver: list[list[str]]) -> None:
    """The release's own number in its extras is no difference."""
    comparison = judged(tmp_path, REAL, REAL)
    assert (comparison.verdict.value, comparison.differences) == ("SAFE", ())
    assert resolver == [], "it asks for nothing"


@pytest.mark.parametrize(
    ("old", "new", "verdict", "expected"),
    [
        ("", "Requires-Dist: jax<0.5", "BROKEN", {"package-requirement-unmet", "package-not-installable"}),
        ("Requires-Dist: jax>=0.5", "Requires-Dist: jax>=0.11", "BROKEN", {"package-requirement-unmet"}),
        ("", "Requires-Dist: flax>=0.13", "BROKEN", {"package-requirement-unmet"}),
        ("", "Requires-Dist: jaxlib==0.9", "BROKEN", {"package-requirement-unmet"}),
        ("Requires-Python: >=3.10", "Requires-Python: >=3.12", "BROKEN", {"package-requirement-unmet"}),
        ("Requires-Dist: numpy", "Requires-Dist: numpy<2", "BROKEN", {"package-requirement-unmet"}),
        ("Requires-Python: >=3.10", "Requires-Python: >=3.11", "CHANGED", {"package-requirement-changed"}),
        ("", "Requires-Dist: jax>=0.10", "CHANGED", {"package-requirement-changed"}),
        ("", "Requires-Dist: einops", "CHANGED", {"package-requirement-changed"}),
        ("Requires-Dist: einops", "", "CHANGED", {"package-requirement-changed"}),
        ("", "Requires-Dist: jax @ https://example.org/jax.whl", "CHANGED", {"package-requirement-changed"}),
        (EXTRA, "", "BROKEN", {"package-extra-gone"}),
        ("Provides-Extra: tests", "", "CHANGED", {"package-extra-changed"}),
        ("", "Provides-Extra: tests", "SAFE", {"package-extra-new"}),
        (EXTRA, EXTRA + 'Requires-Dist: more; extra == "jax"', "CHANGED", {"package-extra-changed"}),
        ("License: Apache", "License: other", "CHANGED", {"package-metadata-changed"}),
        ("", "Requires-Dist: ???", "CHANGED", {"package-metadata-changed"}),
    ],
)
def test_what_a_package_asks_for_decides(tmp_path: Path, old: str, new: str, verdict: str, expected: set[str]) -> None:
    comparison = judged(tmp_path, old, new)
    assert expected <= rules(comparison)
    assert comparison.verdict.value == verdict


def test_wheel_for_other_platforms_is_a_change(tmp_path: Path) -> None:
    assert rules(judged(tmp_path, REAL, REAL, tag="cp312-cp312-linux_x86_64")) == {"package-metadata-changed"}


# --- the resolver --------------------------------------------------------------------------------------------------


def test_new_side_is_asked_beside_the_jax_and_flax_of_the_old_one(tmp_path: Path, resolver: list[list[str]]) -> None:
    comparison = judged(tmp_path, "Requires-Dist: numpy>=2", "Requires-Dist: jax<0.5\nRequires-Dist: einops")
    assert resolver == [
        ["numpy>=2", "jax==0.10.2", "flax==0.12.8"],
        ["jax<0.5", "einops", "jax==0.10.2", "flax==0.12.8"],
    ]
    assert comparison.new.entries[RESOLVER] == Resolved(ok=False, reason="you require jax<0.5 and jax==0.10.2")


@pytest.mark.parametrize("error", [EnvError("no network"), NoSolutionError("x", "the index has no jax==0.10.2")])
def test_without_an_answer_nothing_is_said_of_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: EnvError
) -> None:
    def fail(*_arguments: object, **_options: object) -> str:
        raise error

    monkeypatch.setattr(uv, "resolve", fail)
    comparison = judged(tmp_path, "Requires-Dist: einops", "Requires-Dist: einops")
    for record in (comparison.old, comparison.new):
        assert record.entries[RESOLVER] == Failure(type(error).__name__, getattr(error, "words", str(error)))


def test_side_without_metadata_is_named_as_not_verified(tmp_path: Path) -> None:
    old, new = side(installed(tmp_path, REAL)), side(tmp_path / "clone" / "transformer_engine")
    records = package.with_answers([old[0], new[0]], [old[1], new[1]])
    comparison = compare.compare(*records, ())
    assert not rules(comparison)
    assert any("whether pip can install the new one is not verified" in limit for limit in comparison.limits)


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        (Resolved(ok=False), Resolved(ok=True), "package-installable"),
        (Resolved(ok=True), Resolved(ok=False), "package-not-installable"),
        (Resolved(ok=True), None, "package-resolver-not-asked"),
        (Failure("EnvError", "no network"), Resolved(ok=True), "package-resolver-not-asked"),
    ],
)
def test_what_a_resolver_says_of_kept_records(old: Value | None, new: Value | None, rule: str) -> None:
    assert rule_of_package(EntryChange(RESOLVER, old, new)).id == rule


def test_every_rule_of_packages_has_a_case() -> None:
    cases = Path(__file__).read_text(encoding="utf-8")
    assert [rule.id for rule in RULES if f'"{rule.id}"' not in cases] == []
