"""Measured values, and how far apart two of them are, as a person reads them: here structure becomes text."""

import math
import statistics

from mnist_fp8.gate.verdict.changes import CurvesApart, EntryChange, NumbersApart
from mnist_fp8.gate.verdict.signatures import shown
from mnist_fp8.record.entries import (
    Agreement,
    Codes,
    Compiled,
    Contents,
    Cost,
    Curves,
    Failure,
    Formats,
    Needs,
    Numbers,
    Product,
    Products,
    Resolved,
    Signature,
    Special,
    Support,
    Text,
    Value,
)

MISSING = "not there"


def text(value: Value | None) -> str:  # noqa: C901, PLR0911, PLR0912 - one line for each kind
    """A value in one line."""
    match value:
        case None:
            return MISSING
        case Text(words):
            return words
        case Failure(kind, message):
            return f"fails: {kind}: {message}"
        case Support(ok, reason):
            return "runs here" if ok else f"does not run here: {reason}"
        case Resolved(ok, reason):
            return "can be installed" if ok else f"cannot be installed: {reason}"
        case Needs(versions, found):
            return f"{versions.strip() or 'any'}{f', with {found}' if found else ''}"
        case Signature() as signature:
            return shown(signature) or signature.what
        case Numbers(values, labels):
            pairs = zip(labels, values, strict=True)
            return ", ".join(f"{label}: {number(item)}".removeprefix(": ") for label, item in pairs)
        case Curves(seeds=seeds):
            return ", ".join(f"seed {index}: {number(seed[-1])}" for index, seed in enumerate(seeds))
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
            return "as the oracle" if step is None else f"step {step}: {number(found)}, expected {number(expected)}"
        case Special(contents, scales):
            parts = [*map(_contents, contents), *(f"scale of {scale.name} {number(scale.value)}" for scale in scales)]
            return "; ".join(parts)


def _product(product: Product) -> str:
    operands = f"{product.lhs} x {product.rhs} ({product.primitive})"
    return f"{product.count} x [{operands}]" if product.count > 1 else operands


def _against_oracle(codes: Codes) -> str:
    if codes.wrong is None:
        return ""
    return f", {codes.wrong} of {codes.size} codes differ from the oracle's" if codes.wrong else ", as the oracle"


def _contents(contents: Contents) -> str:
    counts = [f"{count} {word}" for count, word in ((contents.nan, "NaN"), (contents.infinite, "infinite")) if count]
    amax = "nothing finite" if contents.amax is None else f"up to {contents.amax:.3g}"
    return f"{contents.tensor} {', '.join([*counts, amax])}"


def number(value: float) -> str:
    """A number to five digits."""
    return f"{value:.5g}"


# --- changes -------------------------------------------------------------------------------------------------------


def sides(change: EntryChange) -> tuple[str, str]:
    """What an entry was and is: of many numbers, the one that differs most."""
    match change.apart:
        case NumbersApart(label, old, new):
            return tuple(f"{label}: {number(value)}".removeprefix(": ") for value in (old, new))  # type: ignore[return-value]
        case CurvesApart(old, new):
            return f"ends at {number(old)}", f"ends at {number(new)}"
    return _side(change, change.old), _side(change, change.new)


def _side(change: EntryChange, value: Value | None) -> str:
    """A value; what is there on one side only with its name, which says more than that it is there."""
    if value is None or None not in (change.old, change.new) or change.part:
        return text(value)
    return f"{change.key.rpartition('/')[2]}: {text(value)}"


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
        case CurvesApart(errors=errors, seeds=seeds):
            words = f"{errors:+.1f} standard errors of the {seeds} seeds"
            return words if math.isfinite(errors) else "not finite any more"
    if isinstance(change.old, Curves) and isinstance(change.new, Curves):
        return "not the same steps or seeds"
    return change.part


def _signed(old: float, new: float) -> str:
    if not (math.isfinite(old) and math.isfinite(new) and old):
        return ""
    change = (new - old) / abs(old)
    return f"{change:+.2%}" if abs(change) >= 1e-4 else f"{change:+.1e}"  # noqa: PLR2004 - what two decimals show


def _noise(apart: NumbersApart) -> str:
    return f"{apart.relative / apart.noise:.0f} times the noise" if apart.noise else "exact: noise is 0"
