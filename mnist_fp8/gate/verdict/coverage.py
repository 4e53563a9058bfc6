"""What two records say of: layers and modes that were looked at on both sides, and what was not, by its reason."""

import dataclasses
import enum
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from mnist_fp8.core.modes import RECIPES, Mode
from mnist_fp8.core.subjects import ALWAYS, SUBJECTS
from mnist_fp8.gate.verdict.scope import OneSided, Scope, is_named_by_release, running, supported
from mnist_fp8.record.checkpoints import CHECKPOINTS
from mnist_fp8.record.claims import ClaimStatus, Outcome, SuiteResult, TestResult
from mnist_fp8.record.entries import Failure, Numbers, Signature, Support
from mnist_fp8.record.keys import AREAS, BF16, LAYERS, OUTSIDE, Key
from mnist_fp8.record.record import Record

ENOUGH = 2
"""One in so many entries, subjects or claims of an area that nothing is known of on either side is too many."""
_TRAINED = {mode.recipe.name if mode.recipe else BF16: mode for mode in Mode if mode is not Mode.FLAX_BF16}
_MODE_AREAS = ("variables", "float8", "numerics", "special", "training", "bits")
"""Areas that every mode is measured in; ``bits`` only where it quantizes, ``training`` as far as it is trained in."""
_WHOLE_AREAS = {**dict.fromkeys(("api", "recipes", "behaviour", "import", LAYERS)), "metadata": "DelayedScaling"}
"""The other areas that a whole record has entries of, and the recipe that has to run for it."""
NOT_ASKED_FOR = "of layers that were not asked for"
"""Why the tests of a layer are skipped that is not judged, whichever it is."""
_CLASSES = "api/transformer_engine.jax.flax."


class Effect(enum.Enum):
    """What a gap does to the verdict; what is noted does nothing."""

    UNVERIFIED = "unverified"
    PARTIAL = "partial"
    NOTED = "noted"


class GapKind(enum.Enum):
    """Why something was not looked at; the value is its name in JSON."""

    OLD_PROBLEM = "old side not measured"
    NOTHING_IN_COMMON = "no entry in common"
    ENTRIES_LOST = "entries of the old side only"
    CLAIMS_LOST = "claims no longer verified"
    TESTS_LOST = "tests of the old side only"
    SUITE_BROKE_OFF = "claims broke off"
    NO_CLAIM = "no claim verified"
    FAILING = "fails on both sides"
    OLD_FAILING = "fails on the old side"
    ONLY = "asked for in part"
    NO_CLAIMS = "claims of one side at most"
    AREAS = "areas without entries"
    MODES = "modes not measured"
    ENTRIES_NEW = "entries of the new side only"
    TESTS_MISSING = "tests of the suite without an outcome"
    RUN = "kind of run not known"
    SKIPPED_CLAIMS = "claims skipped"
    SKIPPED_TESTS = "tests skipped"
    SPARED_TESTS = "tests run with the new side alone"
    NOT_RUN = "tests not run and not passed by the new side"
    RECIPES = "recipes that do not run here"
    UNKNOWN_RECIPES = "recipes that no claim looks at"
    LAYERS = "layers that are not looked at"
    CHECKPOINTS = "checkpoints not tried"
    USES = "uses not judged"
    USES_UNREAD = "sources that were not looked at"
    USES_NOT_READ = "used names that are not read"


@dataclasses.dataclass(frozen=True)
class Gap:
    """Something that was not looked at on both sides.

    Attributes:
        kind: why.
        effect: on the verdict.
        names: keys, areas, claims, tests, recipes, layers, places in the user's sources, or names that they use.
        reason: in the words of whoever gave it; empty where the kind says it all.
    """

    kind: GapKind
    effect: Effect
    names: tuple[str, ...] = ()
    reason: str = ""


def by_reason(kind: GapKind, effect: Effect, found: Iterable[tuple[str, str]]) -> Iterator[Gap]:
    """A gap for each reason, in their order.

    Args:
        kind: of the gaps.
        effect: on the verdict.
        found: the reason and the name of what was not looked at.
    """
    names: dict[str, list[str]] = {}
    for reason, name in found:
        names.setdefault(reason, []).append(name)
    return (Gap(kind, effect, tuple(some), reason) for reason, some in names.items())


@dataclasses.dataclass(frozen=True)
class Coverage:
    """What was looked at on both sides, and what was not.

    Attributes:
        layers: in which of these modes each layer was measured.
        modes: BF16, and the recipes that every area has measurements of.
        gaps: the rest.
    """

    layers: Mapping[str, tuple[str, ...]]
    modes: tuple[str, ...]
    gaps: tuple[Gap, ...]

    def of(self, effect: Effect) -> tuple[Gap, ...]:
        """The gaps that do this to the verdict."""
        return tuple(gap for gap in self.gaps if gap.effect is effect)


def coverage(
    old: Record, new: Record, scope: Scope, only: Sequence[str], tests: Mapping[str, Collection[str]]
) -> Coverage:
    """What two records were looked at for.

    Args:
        old: of the release in use.
        new: of the release to move to.
        scope: what of them can be compared.
        only: keys of what was asked for; empty if everything was.
        tests: the test functions of each claim of the suite; empty if they are not known.
    """
    if old.problem or new.problem:  # what there is of the other side is no gap: this side says all
        problem = (Gap(GapKind.OLD_PROBLEM, Effect.UNVERIFIED, (), old.problem),) if old.problem else ()
        return Coverage({}, (), problem)
    measured = _measured(old, new, scope)
    runs = (BF16, *sorted(running(old) & running(new)))
    missing = {
        mode: [area for area in _areas_of(mode) if (area, _subject(area, mode)) not in measured] for mode in runs
    }
    modes = tuple(mode for mode in runs if not missing[mode])
    gaps = [
        *_of_entries(old, new, scope),
        *_of_claims(old.suite, new.suite, tests, _judged_layers(old, new)),
        *(_of_request([*only, *old.only, *new.only]) or _of_whole(old, new, measured, missing, scope)),
        *_never_seen(old, new),
    ]
    return Coverage(_layers(old, new, modes), modes, tuple(gaps))


def _measured(old: Record, new: Record, scope: Scope) -> set[tuple[str, str]]:
    """Area and subject of what both sides could measure and is compared."""
    keys = [
        key for key in old.entries.keys() & new.entries.keys()
        if not any(isinstance(record.entries[key], Failure) for record in (old, new))
    ]  # fmt: skip
    pairs = {(key.split("/")[0], key.split("/")[1]) for key in keys}
    return {(area, subject) for area, subject in pairs if area not in scope.left_out}


def _areas_of(mode: str) -> tuple[str, ...]:
    left_out = {"bits"} if mode == BF16 else set() if mode in _TRAINED else {"training"}
    return tuple(area for area in _MODE_AREAS if area not in left_out)


def _subject(area: str, mode: str) -> str:
    """What a mode is called in the keys of an area."""
    if mode == BF16:
        return {"float8": OUTSIDE, "training": Mode.TE_BF16.value}.get(area, mode)
    return mode


# --- what is not known ---------------------------------------------------------------------------------------------


def _of_entries(old: Record, new: Record, scope: Scope) -> Iterator[Gap]:
    if not (old.entries.keys() & new.entries.keys() or (old.suite and new.suite) or (old.names and new.names)):
        yield Gap(GapKind.NOTHING_IN_COMMON, Effect.UNVERIFIED)
    lost = [*_of_one_side(old, new), *_without_labels(old, new)]
    if lost:
        yield Gap(GapKind.ENTRIES_LOST, Effect.UNVERIFIED, tuple(lost))
    added = [key for key in _of_one_side(new, old) if not isinstance(new.entries[key], Failure)]
    if added:
        yield Gap(GapKind.ENTRIES_NEW, Effect.PARTIAL, tuple(added))
    for area in AREAS:
        if area not in ("costs", *scope.left_out):
            yield from _failing(area, old, new)


def _of_one_side(here: Record, there: Record) -> Iterator[str]:
    """Keys that one side has, and that the other side should have: neither fails there, nor comes from the release."""
    one_sided = OneSided(here, there)
    failing = tuple(key for key, value in there.entries.items() if isinstance(value, Failure))
    subjects = {tuple(key.split("/")[:2]) for key in there.entries}
    for key, value in here.entries.items():
        area, subject = key.split("/")[:2]
        named_by_release = is_named_by_release(key, here, there) or (area == "bits" and (area, subject) in subjects)
        fails = any(key == each or key.startswith(f"{each}/") for each in failing)
        whole_probe = isinstance(value, Failure) and any(other.startswith(f"{key}/") for other in there.entries)
        if not (key in there.entries or named_by_release or one_sided.has(key) or fails or whole_probe):
            yield key


def _without_labels(old: Record, new: Record) -> Iterator[str]:
    for key, value in old.entries.items():
        other = new.entries.get(key)
        if isinstance(value, Numbers) and isinstance(other, Numbers) and set(value.labels) - set(other.labels):
            yield key


def _failing(area: str, old: Record, new: Record) -> Iterator[Gap]:
    """Entries that fail on both sides, and those that fail on the old one where that leaves too few to compare."""
    keys = [key for key in {**old.entries, **new.entries} if key.startswith(f"{area}/")]
    failing = [key for key in keys if isinstance(old.entries.get(key), Failure) and key in new.entries]
    both = [key for key in failing if isinstance(new.entries[key], Failure)]
    if both:
        error = new.entries[both[0]]
        reason = f"{error.type}: {error.message}" if isinstance(error, Failure) else ""
        effect = Effect.UNVERIFIED if _are_too_many(both, keys) else Effect.NOTED
        yield Gap(GapKind.FAILING, effect, tuple(both), reason)
    if len(failing) > len(both) and _are_too_many(failing, keys):
        yield Gap(GapKind.OLD_FAILING, Effect.PARTIAL, tuple(key for key in failing if key not in both))


def _are_too_many(some: Collection[str], keys: Collection[str]) -> bool:
    """Whether they are half of an area's entries, or all entries of half of its subjects."""
    subjects = {key.split("/")[1] for key in keys}
    without = subjects - {key.split("/")[1] for key in keys if key not in some}
    return ENOUGH * len(some) >= len(keys) or ENOUGH * len(without) >= len(subjects)


def _judged_layers(old: Record, new: Record) -> Collection[str]:
    """The layers that both sides were asked for: of each, the record says at least whether it is there."""
    sides = ({Key.of(key).subject for key in each.entries if key.startswith(f"{LAYERS}/")} for each in (old, new))
    found = set.intersection(*sides)
    return found | {ALWAYS} if found else SUBJECTS


def _of_claims(
    old: SuiteResult | None,
    new: SuiteResult | None,
    tests: Mapping[str, Collection[str]],
    layers: Collection[str],
) -> Iterator[Gap]:
    if old is None or new is None:
        lost = () if old is None else tuple(claim.name for claim in old.claims)
        if lost:
            yield Gap(GapKind.CLAIMS_LOST, Effect.UNVERIFIED, lost)
        return
    for suite in (old, new):
        if suite.problem:
            yield Gap(GapKind.SUITE_BROKE_OFF, Effect.UNVERIFIED, (), suite.problem)
    if not any(claim.status is not ClaimStatus.NOT_VERIFIED for claim in new.claims):
        yield Gap(GapKind.NO_CLAIM, Effect.UNVERIFIED)
    yield from _lost_claims(old, new)
    yield from _without_outcome(old, new, tests)
    yield from _skipped(old, new, layers)
    yield from _spared(old, new)


def _lost_claims(old: SuiteResult, new: SuiteResult) -> Iterator[Gap]:
    verified = {claim.name for claim in new.claims if claim.status is not ClaimStatus.NOT_VERIFIED}
    lost = [
        claim.name
        for claim in old.claims
        if claim.name not in verified and (claim.status is not ClaimStatus.NOT_VERIFIED or not new.find(claim.name))
    ]
    if lost:
        yield Gap(GapKind.CLAIMS_LOST, Effect.UNVERIFIED, tuple(lost))
    names = {test.name for claim in new.claims for test in claim.tests}
    gone = [test.name for claim in old.claims if new.find(claim.name) for test in claim.tests if test.name not in names]
    if gone:
        yield Gap(GapKind.TESTS_LOST, Effect.UNVERIFIED, tuple(gone))


def _without_outcome(old: SuiteResult, new: SuiteResult, tests: Mapping[str, Collection[str]]) -> Iterator[Gap]:
    """Tests of the suite, and those of the new side, that a side says nothing of."""
    sides = [{(claim.name, test.name.partition("::")[2]) for claim in each.claims for test in claim.tests}
             for each in (old, new)]  # fmt: skip
    functions = [{(claim, test.partition("[")[0]) for claim, test in side} for side in sides]
    expected = {(claim, name) for claim, names in tests.items() for name in names}
    missing = (expected - (functions[0] & functions[1])) | (sides[1] - sides[0])
    if missing:
        yield Gap(GapKind.TESTS_MISSING, Effect.PARTIAL, tuple(f"{claim}: {name}" for claim, name in sorted(missing)))


def _spared(old: SuiteResult, new: SuiteResult) -> Iterator[Gap]:
    """What was not run because the new side passes it; it has to."""
    passed = {test.name for claim in new.claims for test in claim.of(Outcome.PASSED)}
    spared = [test.name for suite in (old, new) for claim in suite.claims for test in claim.of(Outcome.SPARED)]
    if wrongly := tuple(name for name in spared if name not in passed):
        yield Gap(GapKind.NOT_RUN, Effect.UNVERIFIED, wrongly)
    if rightly := tuple(name for name in spared if name in passed):
        yield Gap(GapKind.SPARED_TESTS, Effect.NOTED, rightly)


def _skipped(old: SuiteResult, new: SuiteResult, layers: Collection[str]) -> Iterator[Gap]:
    """What nothing is known of on either side, by what it would take."""

    def reason(test: TestResult) -> str:
        return NOT_ASKED_FOR if test.subject and test.subject not in layers else test.headline

    known = {test.name for claim in old.claims for test in claim.tests if test.outcome is not Outcome.SKIPPED}
    claims: list[tuple[str, str]] = []
    tests: list[tuple[str, str]] = []
    for claim in new.claims:
        skipped = [test for test in claim.of(Outcome.SKIPPED) if test.name not in known]
        if claim.status is ClaimStatus.NOT_VERIFIED and len(skipped) == len(claim.tests):
            reasons = dict.fromkeys(reason(test) for test in skipped if test.reason)
            claims.append(("; ".join(reasons) or "it has no test", claim.name))
        else:
            tests += [(reason(test), test.name) for test in skipped]
    enough = ENOUGH * len(claims) < len(new.claims)
    yield from by_reason(GapKind.SKIPPED_CLAIMS, Effect.NOTED if enough else Effect.UNVERIFIED, claims)
    yield from by_reason(GapKind.SKIPPED_TESTS, Effect.NOTED, tests)


def _of_request(keys: Sequence[str]) -> list[Gap]:
    """That a part was asked for; what else is missing follows from that."""
    return [Gap(GapKind.ONLY, Effect.PARTIAL, tuple(dict.fromkeys(keys)))] if keys else []


def _of_whole(
    old: Record,
    new: Record,
    measured: Collection[tuple[str, str]],
    missing: Mapping[str, Sequence[str]],
    scope: Scope,
) -> Iterator[Gap]:
    """What two records do not hold of all that they should."""
    if not (old.suite and new.suite):
        yield Gap(GapKind.NO_CLAIMS, Effect.PARTIAL)
    if not (old.run and new.run):
        yield Gap(GapKind.RUN, Effect.PARTIAL)
    if not any(key.startswith(f"{CHECKPOINTS}/") for key in {**old.entries, **new.entries}):
        yield Gap(GapKind.CHECKPOINTS, Effect.NOTED)
    there = {area for area, _ in measured}
    needed = [area for area, recipe in _WHOLE_AREAS.items() if recipe is None or recipe in missing]
    needed += [area for areas in missing.values() for area in areas]
    absent = tuple(area for area in AREAS if area in {*needed, *scope.left_out} - there)
    if absent:
        yield Gap(GapKind.AREAS, Effect.PARTIAL, absent)
    modes = {mode: [area for area in areas if area not in absent] for mode, areas in missing.items()}
    if names := tuple(f"{mode}: {', '.join(areas)}" for mode, areas in modes.items() if areas):
        yield Gap(GapKind.MODES, Effect.PARTIAL, names)


# --- what such a run never sees ------------------------------------------------------------------------------------


def _never_seen(old: Record, new: Record) -> Iterator[Gap]:
    before = supported(old)
    supports = [(key, value) for key, value in new.entries.items() if isinstance(value, Support)]
    lacking = [(Key.of(key), value.reason) for key, value in supports if not value.ok and key not in before]
    recipes = ((reason, key.subject) for key, reason in lacking if key.area != LAYERS)
    yield from by_reason(GapKind.RECIPES, Effect.NOTED, recipes)
    if unknown := tuple(sorted(running(new) - {*RECIPES})):
        yield Gap(GapKind.UNKNOWN_RECIPES, Effect.NOTED, unknown)
    absent = ((reason, f"{key.subject} {key.case}") for key, reason in lacking if key.area == LAYERS)
    yield from by_reason(GapKind.LAYERS, Effect.NOTED, absent)
    entries = {**old.entries, **new.entries}
    classes = {
        key.removeprefix(_CLASSES)
        for key, value in entries.items()
        if key.startswith(_CLASSES) and isinstance(value, Signature) and value.what == "class"
    }
    called = {name for name in classes if f"{_CLASSES}{name}.__call__" in entries}
    said = {Key.of(key).subject for key in entries if key.startswith(f"{LAYERS}/")}
    every = called | (SUBJECTS.keys() if said else set())
    if others := tuple(sorted(every - said - {ALWAYS})):
        yield Gap(GapKind.LAYERS, Effect.NOTED, others)


def _layers(old: Record, new: Record, modes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The modes in which both sides could measure each layer."""
    found: dict[str, set[str]] = {}
    for key, value in old.entries.items():
        parts = Key.of(key)
        if parts.kind != LAYERS and parts.area == LAYERS and not isinstance(value, Failure) and key in new.entries:
            found.setdefault(parts.subject, set()).add(parts.mode)
    return {name: tuple(mode for mode in modes if mode in measured) for name, measured in found.items()}
