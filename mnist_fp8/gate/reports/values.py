"""Measured values, and how far apart two of them are, as a person reads them: here structure becomes text."""

import math
import shlex
import statistics
from collections.abc import Callable

from mnist_fp8.gate.verdict.changes import CurvesApart, EntryChange, NoiseApart, NumbersApart
from mnist_fp8.gate.verdict.measures import Gauge, Measure
from mnist_fp8.gate.verdict.rules.rule import Difference
from mnist_fp8.record.calls import LayerCalls
from mnist_fp8.record.checkpoints import Unrestored
from mnist_fp8.record.entries import (
    Agreement,
    Codes,
    Compiled,
    Contents,
    Cost,
    Curves,
    Failure,
    Formats,
    Numbers,
    Product,
    Products,
    Signature,
    Special,
    Support,
    Text,
    Value,
)
from mnist_fp8.record.packages import Imported, Needs, Resolved

MISSING = "not there"
_DIGITS = (5, 9, 17)


def texts(old: Value | None, new: Value | None) -> tuple[str, str]:
    """Two values in one line each, with as many digits as it takes to tell them apart."""
    return _apart(lambda digits: (text(old, digits), text(new, digits)))


def _apart(pair: Callable[[int], tuple[str, str]]) -> tuple[str, str]:
    return next((each for each in map(pair, _DIGITS) if each[0] != each[1]), pair(_DIGITS[0]))


def text(value: Value | None, digits: int = 5) -> str:  # noqa: C901, PLR0911, PLR0912 - one line for each kind
    """A value in one line, numbers to that many digits."""
    match value:
        case None:
            return MISSING
        case Text(words):
            return words
        case Failure(kind, message):
            return f"fails: {kind}: {message}"
        case Unrestored(kind, message, _, problem):
            as_it_is = f"{kind}: {message}"
            if value.is_mended:
                return f"restored after migration; as it is: {as_it_is}"
            return f"not restored: {as_it_is}; nor after migration: {problem}"
        case Support(ok, reason):
            return "runs here" if ok else f"does not run here: {reason}"
        case Resolved(ok, reason):
            return "can be installed" if ok else f"cannot be installed: {reason}"
        case Imported(declared):
            return {True: "asked for", False: "not asked for", None: "no metadata say"}[declared]
        case Needs(versions, found):
            return f"{versions.strip() or 'any'}{f', with {found}' if found else ''}"
        case Signature() as signature:
            return signature.as_source or signature.what
        case Numbers(values, labels):
            pairs = zip(labels, values, strict=True)
            return ", ".join(f"{label}: {number(item, digits)}".removeprefix(": ") for label, item in pairs)
        case Curves(seeds=seeds):
            return ", ".join(f"seed {index}: {number(seed[-1], digits)}" for index, seed in enumerate(seeds))
        case Cost(values, unit):
            return f"{number(statistics.median(values))} {unit}"
        case Products(products):
            return ", ".join(map(_product, products)) or "none"
        case Formats(names):
            return ", ".join(names) or "none"
        case Compiled(calls, formats):
            counted = ", ".join(f"{call.count} x {call.name}" if call.count > 1 else call.name for call in calls)
            return f"custom calls: {counted or 'none'}; types: {', '.join(formats) or 'none'}"
        case Codes() as codes:
            return f"{codes.digest}{_against_oracle(codes)}"
        case Agreement(step, found, expected):
            return (
                "as the oracle"
                if step is None
                else f"step {step}: {number(found, digits)}, expected {number(expected, digits)}"
            )
        case LayerCalls(calls):
            return f"{len(calls):,} calls of layers"
        case Special(contents, scales):
            parts = [
                *(_contents(each, digits) for each in contents),
                *(f"scale of {scale.name} {number(scale.value, digits)}" for scale in scales),
            ]
            return "; ".join(parts)


def _product(product: Product) -> str:
    operands = f"{product.lhs} x {product.rhs} ({product.primitive})"
    return f"{product.count} x [{operands}]" if product.count > 1 else operands


def _against_oracle(codes: Codes) -> str:
    if codes.wrong is None:
        return ""
    return f", {codes.wrong} of {codes.size} codes differ from the oracle's" if codes.wrong else ", as the oracle"


def _contents(contents: Contents, digits: int) -> str:
    counts = [f"{count} {word}" for count, word in ((contents.nan, "NaN"), (contents.infinite, "infinite")) if count]
    amax = "nothing finite" if contents.amax is None else f"up to {number(contents.amax, digits)}"
    return f"{contents.tensor} {', '.join([*counts, amax])}"


def number(value: float, digits: int = 5) -> str:
    """A number to so many digits."""
    return f"{value:.{digits}g}"


# --- differences ---------------------------------------------------------------------------------------------------


def action(difference: Difference) -> str:
    """What to do, and the commands that do it."""
    new = (entry.new for entry in difference.entries)
    commands = [shlex.join(each.command) for each in new if isinstance(each, Unrestored) and each.command]
    return " ".join([difference.rule.action, *dict.fromkeys(commands)])


# --- changes -------------------------------------------------------------------------------------------------------


def sides(change: EntryChange) -> tuple[str, str]:
    """What an entry was and is, told apart: of many numbers, the one that differs most."""
    return _apart(lambda digits: (_side(change, 0, digits), _side(change, 1, digits)))


def _side(change: EntryChange, side: int, digits: int) -> str:
    """A value; what is there on one side only with its name, which says more than that it is there."""
    value = (change.old, change.new)[side]
    if isinstance(change.new, Unrestored) and not side:
        return "restored"
    match change.apart:
        case NumbersApart(label) as apart:
            return f"{label}: {number((apart.old, apart.new)[side], digits)}".removeprefix(": ")
        case CurvesApart(old, new):
            return f"ends at {number((old, new)[side], digits)}"
        case NoiseApart(old, new):
            return f"noise {number((old, new)[side], digits)}"
    if value is None or None not in (change.old, change.new) or change.part:
        return text(value, digits)
    return f"{change.key.rpartition('/')[2]}: {text(value, digits)}"


def size(change: EntryChange) -> str:
    """How much that is against the noise; or the parameter or test that it is about."""
    match change.apart:
        case NumbersApart(shift=-1):
            return "the same values, one step earlier"
        case NumbersApart(shift=1):
            return "the same values, one step later"
        case NumbersApart() as apart:
            of_all = f"{apart.beyond} of {apart.total} numbers" if apart.total > 1 else ""
            return ", ".join(filter(None, [_signed(apart.old, apart.new), of_all, _noise(apart)]))
        case CurvesApart(errors=errors, seeds=seeds, first=first):
            words = f"{errors:+.1f} standard errors of the {seeds} seeds"
            return f"{words if math.isfinite(errors) else 'not finite any more'}, from step {first} on"
    if change.apart is None and isinstance(change.old, Curves) and isinstance(change.new, Curves):
        return "not the same steps or seeds"
    return change.part


def measured(measure: Measure) -> str:
    """A number by which damage is told from drift, and how large it may be."""
    name = ", ".join(filter(None, [measure.key.partition("/")[2], measure.label]))
    old, new = _apart(lambda digits: (number(measure.old, digits), number(measure.new, digits)))
    match measure.gauge:
        case Gauge.TRAINING if not math.isfinite(measure.new):
            said = "ends in no finite number"
        case Gauge.TRAINING:
            said = f"ends {number(abs(measure.new), 2)} standard errors {'worse' if measure.new > 0 else 'better'}"
        case Gauge.CODES | Gauge.NOT_FINITE:
            said = f"{old} → {new} {measure.gauge.value}"
        case _:
            said = f"{old} → {new}"
    return f"{name}: {said}; damage above {number(measure.limit)}"


def _signed(old: float, new: float) -> str:
    if not (math.isfinite(old) and math.isfinite(new) and old):
        return ""
    change = (new - old) / abs(old)
    return f"{change:+.2%}" if abs(change) >= 1e-4 else f"{change:+.1e}"  # noqa: PLR2004 - what two decimals show


def _noise(apart: NumbersApart) -> str:
    return f"{apart.relative / apart.noise:.0f} times the noise" if apart.noise else "exact: noise is 0"
