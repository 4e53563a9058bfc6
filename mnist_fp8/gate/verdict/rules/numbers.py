"""What it means that errors, metadata, special numbers or training curves differ."""

import math

from mnist_fp8.gate.verdict.changes import CurvesApart, EntryChange
from mnist_fp8.gate.verdict.rules.rule import Rule, breaks, changes
from mnist_fp8.record.entries import (
    Agreement,
    Contents,
    Curves,
    Numbers,
    Quantity,
    Special,
)

LESS_ACCURATE = 1.25
"""An error that grew by more than this factor does not come from rounding in another place."""
SPREADS = 5
"""A training curve is worse if its end lies this many standard errors of the seeds beyond the old one."""

INACCURATE = breaks(
    "results-less-accurate",
    "results wrong or less accurate",
    "Results are wrong, or less accurate than formats and scales allow.",
    "Do not upgrade; the claims say more.",
)
MORE_ACCURATE = changes(
    "results-more-accurate",
    "results more accurate",
    "Errors are smaller than before; results are not the same numbers.",
    "Renew golden values and bitwise comparisons.",
)
ROUNDED = changes(
    "results-rounded-differently",
    "results rounded differently",
    "Results are rounded in another place: as accurate as before, but not the same numbers.",
    "Renew golden values and bitwise comparisons; a run continued from a checkpoint takes another path.",
)
SCALE_WRONG = breaks(
    "scale-wrong",
    "scales wrong",
    "Scales or histories no longer follow the recipe as documented.",
    "Do not upgrade; the claims say more.",
)
SCALE_USED = breaks(
    "scale-used-changed",
    "other scales used",
    "The same tensors are quantized with other scales: FP8 training takes another course.",
    "Do not upgrade before you know why.",
)
STORED = changes(
    "metadata-stored-differently",
    "metadata stored differently",
    "The stored scale or amax now belongs to a different step, or sits at a different index.",
    "Adapt code that reads or converts metadata; training itself uses the same scales.",
)
NOT_FINITE = breaks(
    "not-finite",
    "more numbers not finite",
    "NaN or infinities appear where there were none.",
    "Do not upgrade before you know whether your tensors trigger it.",
)
SCALE_UNUSABLE = breaks(
    "scale-unusable",
    "scale unusable",
    "Unusual numbers leave a scale of zero, or one that is not finite: the next step is NaN.",
    "Do not upgrade before you know whether your tensors trigger it.",
)
SPECIAL = changes(
    "special-numbers-changed",
    "special numbers treated differently",
    "Zeros, infinities, NaN, tiny or huge numbers are handled differently.",
    "Check whether your code relies on it.",
)
SCALE_RIGHT = changes(
    "scale-right-now",
    "scales right now",
    "Scales follow the recipe as documented; they did not before.",
    "Expect FP8 training to take another, better course.",
)
SPECIAL_BETTER = changes(
    "special-numbers-better",
    "special numbers treated better",
    "Fewer NaN or infinities appear than before, or a scale is usable that was not.",
    "Check whether your code works around it.",
)
NOISE_GREW = changes(
    "noise-grew",
    "no longer repeatable",
    "Repetitions on the same machine agree less than with the old release: something became nondeterministic.",
    "Do not rely on runs being the same; small differences can no longer be seen here.",
)
FLAX_ALONE = breaks(
    "flax-alone-changed",
    "Flax alone trains differently",
    "A model without Transformer Engine computes something else, with the same JAX and Flax: importing Transformer"
    " Engine changes them. Every other difference may follow from that.",
    "Do not upgrade before you know what the import changes.",
)
TRAINING_BETTER = changes(
    "training-better",
    "training better",
    "Training ends better, by more than seeds explain.",
    "Renew the accuracies that you compare with.",
)
TRAINING_WORSE = breaks(
    "training-worse", "training worse", "Training ends worse, by more than seeds explain.", "Do not upgrade."
)
TRAINING_PATH = changes(
    "training-path-changed",
    "training takes another path",
    "Training takes another path of the same quality: the difference is within what seeds explain.",
    "Nothing, unless you compare runs bit by bit.",
)
RULES = (
    *(INACCURATE, MORE_ACCURATE, ROUNDED, SCALE_WRONG, SCALE_USED, STORED),
    *(SCALE_RIGHT, NOT_FINITE, SCALE_UNUSABLE, SPECIAL_BETTER, SPECIAL, NOISE_GREW),
    *(FLAX_ALONE, TRAINING_WORSE, TRAINING_BETTER, TRAINING_PATH),
)


def rule_of_numerics(change: EntryChange) -> Rule:
    """The rule for errors: against float64, in tolerances, or how they are distributed."""
    if not (isinstance(change.old, Numbers) and isinstance(change.new, Numbers)):
        return INACCURATE
    new = change.new.by_label
    pairs = [(old, new[label]) for label, old in change.old.by_label.items() if label in new]
    is_lost = any(math.isfinite(a) and not math.isfinite(b) for a, b in pairs)
    if change.old.quantity in (Quantity.SHARE, Quantity.NORM) and not is_lost:  # neither is an error
        return ROUNDED
    if any(math.isfinite(a) and not b <= most_error(change.old.quantity, a) for a, b in pairs):
        return INACCURATE
    return MORE_ACCURATE if any(_is_smaller(a, b) for a, b in pairs) else ROUNDED


def most_error(quantity: Quantity, old: float) -> float:
    """The largest error that comes from rounding in another place.

    Args:
        quantity: what the error is measured in.
        old: what it was.
    """
    right = 1.0 if quantity is Quantity.IN_TOLERANCES else 0.0  # up to that, an error is rounding
    return right if old <= right else LESS_ACCURATE * old


def _is_smaller(old: float, new: float) -> bool:
    """Whether an error fell by more than rounding explains, or can be told at all now."""
    return math.isfinite(new) and (not math.isfinite(old) or (new < old and LESS_ACCURATE * new <= old))


def rule_of_metadata(change: EntryChange) -> Rule:
    """The rule for scales and amaxes, step by step."""
    match change.old, change.new:
        case Agreement(), Agreement(step=None):
            return SCALE_RIGHT
        case Agreement(step=None), Agreement():
            return SCALE_WRONG
        case Agreement(step=int(before)), Agreement(step=int(now)) if now < before:
            return SCALE_WRONG
        case (_, Numbers(quantity=Quantity.SCALE_USED)):
            return SCALE_USED
    return STORED


def rule_of_special(change: EntryChange) -> Rule:
    """The rule for what comes out where something unusual goes in."""
    if not (isinstance(change.old, Special) and isinstance(change.new, Special)):
        return SPECIAL
    before = {contents.tensor: contents for contents in change.old.contents}
    if any(_is_worse(before.get(contents.tensor), contents) for contents in change.new.contents):
        return NOT_FINITE
    usable = {scale.name for scale in change.old.scales if _is_usable(scale.value)}
    if any(scale.name in usable and not _is_usable(scale.value) for scale in change.new.scales):
        return SCALE_UNUSABLE
    after = {contents.tensor: contents.not_finite for contents in change.new.contents}
    mended = any(scale.name not in usable and _is_usable(scale.value) for scale in change.new.scales)
    fewer = any(after.get(tensor, math.inf) < one.not_finite for tensor, one in before.items())
    return SPECIAL_BETTER if mended or fewer else SPECIAL


def _is_worse(old: Contents | None, new: Contents) -> bool:
    """Whether more elements are NaN, or more are not finite."""
    nan, not_finite = (old.nan, old.not_finite) if old else (0, 0)
    return new.nan > nan or new.not_finite > not_finite


def _is_usable(scale: float) -> bool:
    return math.isfinite(scale) and scale > 0


def worse_by(apart: CurvesApart, new: Curves) -> float:
    """By how many standard errors of the seeds a training ends worse; less than 0 where it ends better."""
    return -apart.errors if new.higher_is_better else apart.errors


def rule_of_training(change: EntryChange) -> Rule:
    """The rule for a training curve."""
    if not (isinstance(change.new, Curves) and isinstance(change.apart, CurvesApart)):
        return TRAINING_WORSE if isinstance(change.new, Curves) else TRAINING_PATH
    if not math.isfinite(change.apart.new):
        return TRAINING_WORSE
    if not math.isfinite(change.apart.old):
        return TRAINING_BETTER
    errors = worse_by(change.apart, change.new)
    if abs(errors) <= SPREADS:
        return TRAINING_PATH
    return TRAINING_WORSE if errors > 0 else TRAINING_BETTER
