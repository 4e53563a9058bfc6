"""Which releases some code fits, as pip takes them, and what each release changed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from mnist_fp8.gate.uses.judgement import Cause, Outcome
from mnist_fp8.gate.uses.ranges import fitting, ranges
from mnist_fp8.gate.uses.use import Call, Guard, Place, Use, UseKind
from mnist_fp8.record.entries import Parameter, Signature
from mnist_fp8.record.names import Definition, Found, Names

RELEASES = ["1.13.0", "2.1.0", "2.6.0", "2.6.0.post1", "2.9.0", "2.10.0", "2.12.0", "2.12.1", "2.14.0", "2.14.1"]
F = "transformer_engine.jax.f"
PLACE = Place("a.py", 3)


@pytest.mark.parametrize(
    ("left_out", "expected"),
    [
        ([], [">=1.13"]),
        (RELEASES[:1], [">=2.1"]),
        (RELEASES[-3:], [">=1.13,<2.12.1"]),
        (RELEASES[:4] + RELEASES[6:], [">=2.9,<2.12"]),
        (["2.12.0", "2.12.1"], [">=1.13,!=2.12.*"]),
        (["2.12.0"], [">=1.13,!=2.12.0"]),
        (["2.6.0", "2.9.0"], [">=1.13,!=2.6.0,!=2.9.*"]),
        (["2.6.0.post1"], [">=1.13,!=2.6.0.post1"]),
        (RELEASES[3:4] + RELEASES[6:], [">=1.13,<2.12,!=2.6.0.post1"]),
        (RELEASES[2:6], [">=1.13,<2.6", ">=2.12"]),
        (RELEASES, []),
    ],
)
def test_range_is_written_in_few_words(left_out: list[str], expected: list[str]) -> None:
    assert list(ranges(RELEASES, {*RELEASES} - {*left_out})) == expected


@given(st.sets(st.sampled_from(RELEASES)))
def test_ranges_hold_the_releases_that_fit_and_no_other(fits: set[str]) -> None:
    found = [SpecifierSet(each) for each in ranges(RELEASES, fits)]
    assert {version for version in RELEASES if any(version in each for each in found)} == fits


def names(*parameters: str, value: str = "") -> Names:
    """A function with needed parameters; nothing if its only parameter is ``gone``."""
    signature = Signature("function", tuple(Parameter(each, "either", None) for each in parameters), value)
    definitions = {each: Definition(Signature("module")) for each in ("transformer_engine", "transformer_engine.jax")}
    there = {} if parameters == ("gone",) else {F: Definition(signature)}
    return Names(definitions | there, {}, frozenset(), {})


def call(positional: int = 0, *keywords: str, **fields: object) -> Use:
    return Use(F, UseKind.CALL, call=Call(positional, keywords), **{"place": PLACE, **fields})  # type: ignore[arg-type]


KNOWN = {
    "2.10.0": names("x", "y", "z"),
    "2.9.0": names("x", "y"),
    "2.1.0": names("y", "x"),
    "1.13.0": names("gone"),
    "2.14.0": names("x", "y", "z"),
}
GUARDED = call(2, guards=frozenset({Guard.TYPE_ERROR}), optional=F)


@pytest.mark.parametrize(
    ("use", "used", "fits", "specifiers"),
    [
        (call(0, "x", "y"), "", ("2.1.0", "2.9.0"), (">=2.1,<2.10",)),
        (call(2), "", ("2.9.0",), (">=2.9,<2.10",)),
        (call(2), "2.1.0", ("2.1.0",), (">=2.1,<2.9",)),
        (call(2), "2.14.0", ("2.9.0",), (">=2.9,<2.10",)),
        (call(2), "0.1", ("2.9.0",), (">=2.9,<2.10",)),
        (call(9), "", (), ()),
        (GUARDED, "2.9.0", ("1.13.0", "2.9.0", "2.10.0", "2.14.0"), (">=1.13,!=2.1.*",)),
    ],
    ids=[
        *("by name", "by position: as the newest", "by position: as used", "used does not fit", "used is not known"),
        *("fits nothing", "guarded"),
    ],
)
def test_code_fits_releases(use: Use, used: str, fits: tuple[str, ...], specifiers: tuple[str, ...]) -> None:
    found = fitting([use], KNOWN, used)
    assert found.releases == ("1.13.0", "2.1.0", "2.9.0", "2.10.0", "2.14.0"), "the oldest first"
    assert found.fits == fits
    assert found.ranges == specifiers


def test_history_tells_since_when_until_when_and_what_changed() -> None:
    (history,) = fitting([call(0, "x", "y")], KNOWN).histories
    assert history.fits == ("2.1.0", "2.9.0")
    told = {
        release: [(each.outcome, each.cause, each.subject) for each in found]
        for release, found in history.changes.items()
    }
    assert told == {
        "2.1.0": [(Outcome.BETTER, Cause.NAME_GONE, F)],
        "2.10.0": [(Outcome.BREAKS, Cause.MISSING_ARGUMENT, "z")],
    }


def test_release_of_which_it_is_not_known_fits_and_is_told() -> None:
    use = Use(F, UseKind.CALL, PLACE, Call(0, ("x", "y"), has_kwargs=True))
    found = fitting([use], KNOWN, "2.9.0")
    assert found.fits == ("2.1.0", "2.9.0", "2.10.0", "2.14.0")
    assert found.unknown == ("2.10.0", "2.14.0"), "z may be in **kwargs"


def test_each_release_is_looked_at_once_for_uses_that_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def find(self: Names, path: str) -> Found | None:
        asked.append(path)
        return found(self, path)

    found = Names.find
    monkeypatch.setattr(Names, "find", find)
    code = [call(0, "x", "y", place=Place("a.py", line)) for line in range(1, 30)]
    assert fitting(code, KNOWN, "2.9.0").fits == ("2.1.0", "2.9.0")
    assert len(asked) < 3 * len(KNOWN), "what is gone is asked for again, part by part"


def test_no_known_release_is_no_range() -> None:
    assert fitting([call(2)], {}).ranges == ()
