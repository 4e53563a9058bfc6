"""What was not looked at, in words."""

from mnist_fp8.core.plain import clean
from mnist_fp8.gate.reports.markup import at_most
from mnist_fp8.gate.verdict.coverage import Coverage, Effect, Gap, GapKind

NAMES_SHOWN = 4
"""Names in one line; the others are counted."""
_WORDS = {
    GapKind.OLD_PROBLEM: "the old one could not be measured",
    GapKind.NOTHING_IN_COMMON: "the two records have no entry in common",
    GapKind.ENTRIES_LOST: "measured on the old side and not on the new one",
    GapKind.CLAIMS_LOST: "claims that were verified before and are not now",
    GapKind.TESTS_LOST: "tests that the old side has and the new one lacks",
    GapKind.SUITE_BROKE_OFF: "the claims were not run to their end",
    GapKind.NO_CLAIM: "no claim could be verified",
    GapKind.FAILING: "fails on both sides",
    GapKind.OLD_FAILING: "fails with the old one, so that nothing is compared",
    GapKind.ONLY: "only this was asked for",
    GapKind.NO_CLAIMS: "the claims are not part of both records: mnist-fp8 upgrade, or measure --claims, judges them",
    GapKind.AREAS: "areas that are not compared",
    GapKind.MODES: "not measured",
    GapKind.ENTRIES_NEW: "measured on the new side only",
    GapKind.TESTS_MISSING: "tests of the suite without an outcome on both sides",
    GapKind.RUN: "a record does not say in which kind of run it was measured",
    GapKind.SKIPPED_CLAIMS: "claims verified on neither side",
    GapKind.SKIPPED_TESTS: "tests verified on neither side",
    GapKind.SPARED_TESTS: "tests not run with the old one, since the new one passes them",
    GapKind.NOT_RUN: "tests not run, though the new one does not pass them: measure it again",
    GapKind.RECIPES: "recipes that do not run here",
    GapKind.UNKNOWN_RECIPES: "recipes that run here and that no claim looks at",
    GapKind.LAYERS: "layers that were not looked at",
    GapKind.CHECKPOINTS: "whether the new one restores checkpoints of the old one: measuring both together tries it",
    GapKind.USES: "what your code uses: a record has no names of its release; measure it again",
    GapKind.USES_UNREAD: "not looked at in your code",
    GapKind.USES_NOT_READ: "used by your code, and not read from the source of Transformer Engine",
}

_COUNTED = (GapKind.SKIPPED_TESTS, GapKind.SPARED_TESTS)
"""Of these, the number is shown and not the names."""


def texts(coverage: Coverage, effect: Effect) -> tuple[str, ...]:
    """The gaps that do this to the verdict, a line each."""
    return tuple(map(text, coverage.of(effect)))


def text(gap: Gap) -> str:
    """A gap in one line."""
    words, reason = _WORDS[gap.kind], clean(gap.reason)
    if not gap.names:
        return f"{words}: {reason}" if reason else words
    some = ", ".join(at_most([*map(clean, gap.names)], NAMES_SHOWN))
    names = f"{len(gap.names):,}" if gap.kind in _COUNTED else some
    return f"{words}: {names}{f' ({reason})' if reason else ''}"
