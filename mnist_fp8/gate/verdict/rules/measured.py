"""What a difference of measured entries means, area by area."""

import math
import re
from collections.abc import Sequence

from mnist_fp8.gate.verdict.changes import Change, words
from mnist_fp8.gate.verdict.rules.rule import Difference, Meaning, breaks, changes, failed, grouped, measured, note
from mnist_fp8.record.entries import (
    AGAINST_ORACLE,
    AGREES,
    DISTRIBUTION,
    IN_TOLERANCES,
    OUTSIDE,
    RUNS,
    Curves,
    Numbers,
)


def of_support(*, ran: bool, runs: bool) -> Meaning:
    """A recipe's support."""
    if ran and not runs:
        return breaks("Training with this recipe fails on this machine.", "Choose another recipe, or stay.")
    if runs and not ran:
        return note("The recipe runs on this machine now.")
    return note("It runs as little as before; the reason is another.")


def of_variables(collection: str) -> Meaning:
    """Names, shapes or dtypes of variables."""
    if collection == "params":
        return breaks(
            "Checkpoints of the old release do not fit the new one's parameters.",
            "Convert them: rename, reshape or box each leaf as listed; restore and compare before you train on.",
        )
    if collection.endswith("_axes"):
        return breaks(
            "Code that reads how parameters are sharded from this collection finds another.",
            "Since 2.4 parameters are boxes that say it: flax.core.meta.unbox, nn.get_partition_spec.",
        )
    return breaks(
        "FP8 metadata of old checkpoints are not found under these names, and code that reads them fails.",
        "Restore parameters only and let FP8 metadata be made anew, or rename the leaves as listed.",
    )


def of_metadata(name: str, *, wrong: bool) -> Meaning:
    """Trajectories of metadata."""
    if wrong:
        return breaks(
            "Scales or histories no longer follow the recipe as documented.", "Do not upgrade; the claims say more."
        )
    if "used" in name:
        return breaks(
            "Another scale is used for the same tensors: FP8 training takes another course.", "Do not upgrade unseen."
        )
    return changes(
        "What is stored of a step is another step's value, or stands elsewhere.",
        "Code that reads or converts metadata has to follow; training itself uses the same scales.",
    )


def of_float8(*, lost: bool, subject: str) -> Meaning:
    """Float8 in programs."""
    if lost and subject == OUTSIDE:
        return breaks("BF16 layers compute in float8 without autocast.", "Do not upgrade.")
    if lost:
        return breaks(
            "Products or tensors are no longer in the float8 format that they were in.",
            "Do not upgrade: FP8 is not computed as the recipe says.",
        )
    return changes(
        "The program is written in another way: other products, operands or custom calls.",
        "Nothing for correctness; checks of yours that read jaxprs or HLO have to follow. Measure speed on a GPU.",
    )


def of_numerics(worse: bool) -> Meaning:  # noqa: FBT001 - the one thing that matters
    """Errors of outputs and gradients."""
    if worse:
        return breaks(
            "Results are wrong or less accurate than the formats and scales allow.",
            "Do not upgrade; the claims say more.",
        )
    return changes(
        "Results are rounded in another place: as accurate, but not the same numbers.",
        "Make golden values and bitwise comparisons anew; a run continued from a checkpoint takes another path.",
    )


def of_bits(*, wrong: bool) -> Meaning:
    """Quantized tensors."""
    if wrong:
        return breaks("Tensors are not quantized as scale and format say.", "Do not upgrade; the claims say more.")
    return changes("The same tensors are quantized to other codes.", "Expect results that are not bitwise the same.")


def of_special(*, worse: bool) -> Meaning:
    """Zeros, infinities, NaN, tiny and huge numbers."""
    if worse:
        return breaks(
            "NaN appears where there was none.", "Do not upgrade before you know whether your tensors do that."
        )
    return changes("Unusual numbers are treated in another way.", "See whether your code relies on the old one.")


_BEHAVIOUR: dict[str, tuple[str, str]] = {
    "output of a float32 layer for BF16": (
        "A layer's dtype means something else: since 2.1 it is that of the parameters, and the output has the input's.",
        "Set dtype to what parameters should be stored in, and cast inputs to what should be computed in.",
    ),
    "kernel of a BF16 layer": (
        "A layer with dtype=bfloat16 stores its kernel in another dtype: without a float32 master copy, or with one.",
        "Pass dtype=jnp.float32 to keep float32 parameters.",
    ),
    "kernel over axes of 4 and 8": (
        "Kernels of layers over several axes have another shape.",
        "Reshape these kernels in checkpoints.",
    ),
    "kernel after init": (
        "Parameters come in another container.",
        "flax.core.meta.unbox makes plain arrays of boxes; state-dict paths gain a level.",
    ),
    "collections after init": (
        "init returns other collections.",
        "Pass on and store what is there; do not look for a collection by a name that is gone.",
    ),
    "axes without a mesh resource": (
        "A layer with named axes needs a mesh resource, or no longer does.",
        "Pass MeshResource() to autocast always.",
    ),
    "recipe in force": (
        "Whether a second recipe in a process is honoured has changed.",
        "Before 2.10 use one recipe a process.",
    ),
    "precision of FP8 products": (
        "Backward products ask for another precision.",
        "Set the precision yourself if you rely on it (NVTE_FP8_GEMM_HIGH_PRECISION_ACCUMULATION since 2.14).",
    ),
}


def of_behaviour(name: str, new: str) -> Meaning:
    """What layers and contexts do."""
    means, do = _BEHAVIOUR.get(
        name, ("Something that a user can see is different.", "See whether your code relies on it.")
    )
    if "Error" in new:
        return breaks("This raises where it worked before.", "Look at the message, and at each use of yours.")
    return changes(means, do)


def of_training(*, worse: bool) -> Meaning:
    """Training curves."""
    if worse:
        return breaks("Training ends worse, by more than seeds explain.", "Do not upgrade.")
    return changes(
        "Training takes another path of the same quality: the difference is within what seeds explain.",
        "Nothing, unless you compare runs bit by bit.",
    )


WARNING = changes(
    "Something that you may use is announced to go, or to change.",
    "Read it and change your code before the next upgrade.",
)
QUIET = note("Fewer warnings.")


LESS_ACCURATE = 1.25
"""An error that grew by more than this factor is no matter of rounding in another place."""
SPREADS = 5
"""A training curve is worse if its end lies this many standard errors of the seeds beyond the old one."""


def judge_recipes(changes: Sequence[Change]) -> list[Difference]:
    """What changes of the recipes that run come to."""

    def judged(change: Change) -> tuple[str, Meaning]:
        ran, runs = (words(value).startswith(RUNS) for value in (change.old, change.new))
        return f"recipe {change.subject}", of_support(ran=ran, runs=runs)

    return grouped(changes, judged)


def judge_variables(changes: Sequence[Change]) -> list[Difference]:
    """What changes of a model's variables come to."""

    def judged(change: Change) -> tuple[str, Meaning]:
        collection = change.name.partition("/")[0]
        return f"{change.subject}: variables in {collection}", of_variables(collection)

    return grouped(changes, judged)


def judge_metadata(changes: Sequence[Change]) -> list[Difference]:
    """What changes of amax histories and scales come to."""

    def judged(change: Change) -> tuple[str, Meaning]:
        what = change.name.partition(" ")[2]  # without the tensor
        wrong = AGAINST_ORACLE in what and words(change.old) == AGREES
        return what, of_metadata(what, wrong=wrong)

    return failed(changes) + grouped(measured(changes), judged)


def judge_float8(changes: Sequence[Change]) -> list[Difference]:
    """What changes of the float8 in programs come to."""

    def judged(change: Change) -> tuple[str, Meaning]:
        lost = _lost_float8(words(change.old), words(change.new), outside=change.subject == OUTSIDE)
        return f"{change.subject}: float8 in programs", of_float8(lost=lost, subject=change.subject)

    return failed(changes) + grouped(measured(changes), judged)


def _lost_float8(old: str, new: str, *, outside: bool) -> bool:
    """Whether a float8 type is gone, or an operand is none where all were; outside autocast, whether there is one."""
    if outside:
        return "float8" in new and "float8" not in old
    before, after = (set(re.findall(r"\b(?:float8|f8)\w+", each)) for each in (old, new))
    plain_before, plain_after = (re.search(r"\b(?:b?float16|float32)\b", each) for each in (old, new))
    return not before <= after or (plain_after is not None and plain_before is None)


def judge_numerics(changes: Sequence[Change]) -> list[Difference]:
    """What changes of errors come to."""

    def judged(change: Change) -> tuple[str, Meaning]:
        return f"{change.subject}: numbers", of_numerics(_worse(change))

    return failed(changes) + grouped(measured(changes), judged)


def _worse(change: Change) -> bool:
    """Whether new numbers are wrong where the old ones were right: beyond the oracle's tolerance, or less accurate."""
    if not (isinstance(change.old, Numbers) and isinstance(change.new, Numbers)):
        return True
    old = dict(zip(change.old.labels, change.old.values, strict=True))
    new = dict(zip(change.new.labels, change.new.values, strict=True))
    pairs = [(old[label], new[label]) for label in old.keys() & new.keys()]
    if IN_TOLERANCES in change.name:
        return any(not b <= 1 and a <= 1 for a, b in pairs)
    if DISTRIBUTION in change.name:
        return False
    return any(math.isfinite(a) and not b <= LESS_ACCURATE * a for a, b in pairs)


def judge_bits(changes: Sequence[Change]) -> list[Difference]:
    """What changes of quantized tensors come to."""

    def judged(change: Change) -> tuple[str, Meaning]:
        wrong = AGREES in words(change.old) and AGREES not in words(change.new)
        return f"{change.subject}: quantized tensors", of_bits(wrong=wrong)

    return failed(changes) + grouped(measured(changes), judged)


def judge_special(changes: Sequence[Change]) -> list[Difference]:
    """What changes of special numbers come to."""

    def judged(change: Change) -> tuple[str, Meaning]:
        worse = words(change.new).count("NaN") > words(change.old).count("NaN")
        return f"{change.subject}: special numbers", of_special(worse=worse)

    return failed(changes) + grouped(measured(changes), judged)


def judge_behaviour(changes: Sequence[Change]) -> list[Difference]:
    """What changes of layers and contexts come to."""

    def judged(change: Change) -> tuple[str, Meaning]:
        return change.name, of_behaviour(change.name, words(change.new))

    return failed(changes) + grouped(measured(changes), judged)


def judge_training(changes: Sequence[Change]) -> list[Difference]:
    """What changes of training curves come to."""

    def judged(change: Change) -> tuple[str, Meaning]:
        distance = -change.weight if "accuracy" in change.name else change.weight
        worse = isinstance(change.new, Curves) and (math.isnan(distance) or distance > SPREADS)
        return f"{change.subject}: training", of_training(worse=worse)

    return failed(changes) + grouped(measured(changes), judged)


def judge_warnings(changes: Sequence[Change]) -> list[Difference]:
    """What changes of warnings come to."""

    def judged(change: Change) -> tuple[str, Meaning]:
        return ("warnings that are new", WARNING) if change.old is None else ("warnings gone", QUIET)

    return grouped(changes, judged)
