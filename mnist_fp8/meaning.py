"""What a difference between two releases means for a user, and what to do about it: the words of the verdict."""

import dataclasses
import enum
import re

from mnist_fp8.api import ApiChange
from mnist_fp8.measurements import OUTSIDE


class Severity(enum.Enum):
    """What a difference does to the verdict."""

    BREAKS = "breaks"
    CHANGES = "changes"
    NOTE = "note"


@dataclasses.dataclass(frozen=True)
class Meaning:
    """What a kind of difference means."""

    severity: Severity
    means: str
    do: str


def _breaks(means: str, do: str) -> Meaning:
    return Meaning(Severity.BREAKS, means, do)


def _changes(means: str, do: str) -> Meaning:
    return Meaning(Severity.CHANGES, means, do)


def _note(means: str, do: str = "Nothing.") -> Meaning:
    return Meaning(Severity.NOTE, means, do)


# --- names and signatures --------------------------------------------------------------------------------------------

_API: dict[ApiChange, tuple[str, Meaning]] = {
    ApiChange.REMOVED: (
        "name removed",
        _breaks("Code that imports the name fails.", "Search your code for it; move to what replaced it."),
    ),
    ApiChange.ADDED: ("name added", _note("A new name to use.")),
    ApiChange.KIND: (
        "name of another kind",
        _breaks(
            "What was a function is a class, or the like: calls and isinstance checks may fail.", "Look at each use."
        ),
    ),
    ApiChange.PARAMETER_REMOVED: (
        "parameter removed",
        _breaks("Calls that pass the argument raise TypeError.", "Leave the argument out, or pass what replaced it."),
    ),
    ApiChange.PARAMETER_RENAMED: (
        "parameter renamed",
        _breaks("Calls that pass the argument by name raise TypeError.", "Rename it in your calls."),
    ),
    ApiChange.PARAMETER_ADDED_REQUIRED: (
        "required parameter added",
        _breaks("Every call without it raises TypeError.", "Pass it."),
    ),
    ApiChange.PARAMETER_NOW_REQUIRED: (
        "parameter now required",
        _breaks("Calls that leave it out raise TypeError.", "Pass it; the old default is the old behaviour."),
    ),
    ApiChange.PARAMETER_MOVED: (
        "parameter moved",
        _changes("Positional arguments from there on mean something else, silently.", "Pass them by name."),
    ),
    ApiChange.PARAMETER_KIND: (
        "parameter passed in another way",
        _changes("Positional became keyword-only, or the reverse.", "Pass it by name."),
    ),
    ApiChange.DEFAULT_CHANGED: (
        "default changed",
        _changes("Calls that leave the argument out do something else.", "Pass the old value if you rely on it."),
    ),
    ApiChange.VALUE_CHANGED: (
        "value changed",
        _changes("Code that uses the constant sees another value.", "Look at each use."),
    ),
    ApiChange.PARAMETER_ADDED_OPTIONAL: ("optional parameter added", _note("A new option; its default is used.")),
}
_OVERRIDABLE = _changes(
    "Transformer Engine may pass the new argument to the method: an override of yours without it raises TypeError.",
    "Accept the argument if you override the method, and hand it on.",
)


_DOCUMENTED = re.compile(
    r"transformer_engine\.(common\.recipe|jax\.flax|jax\.[A-Z]\w*)\b|transformer_engine\.jax\.\w+$"
)
"""Names that TE documents for JAX: those of the package itself, of its Flax layers and of recipes."""


def of_api(change: ApiChange, name: str, *, is_method: bool) -> tuple[str, Meaning]:
    """Title and meaning of a change of a signature.

    Args:
        change: what changed.
        name: the dotted name.
        is_method: whether it is a method, which a user's class may override.
    """
    title, means = _API[change]
    if is_method and change is ApiChange.PARAMETER_ADDED_OPTIONAL:
        return "optional parameter of a method added", _OVERRIDABLE
    if means.severity is Severity.BREAKS and not _DOCUMENTED.match(name):
        concerned = (
            f"{means.means} Only code that imports from this module is concerned: the documentation has no such name."
        )
        return f"{title} (not documented)", _changes(concerned, means.do)
    return title, means


# --- what a user computes with ---------------------------------------------------------------------------------------


def of_support(*, ran: bool, runs: bool) -> Meaning:
    """A recipe's support."""
    if ran and not runs:
        return _breaks("Training with this recipe fails on this machine.", "Choose another recipe, or stay.")
    if runs and not ran:
        return _note("The recipe runs on this machine now.")
    return _note("It runs as little as before; the reason is another.")


def of_variables(collection: str) -> Meaning:
    """Names, shapes or dtypes of variables."""
    if collection == "params":
        return _breaks(
            "Checkpoints of the old release do not fit the new one's parameters.",
            "Convert them: rename, reshape or box each leaf as listed; restore and compare before you train on.",
        )
    if collection.endswith("_axes"):
        return _breaks(
            "Code that reads how parameters are sharded from this collection finds another.",
            "Since 2.4 parameters are boxes that say it: flax.core.meta.unbox, nn.get_partition_spec.",
        )
    return _breaks(
        "FP8 metadata of old checkpoints are not found under these names, and code that reads them fails.",
        "Restore parameters only and let FP8 metadata be made anew, or rename the leaves as listed.",
    )


def of_metadata(name: str, *, wrong: bool) -> Meaning:
    """Trajectories of metadata."""
    if wrong:
        return _breaks(
            "Scales or histories no longer follow the recipe as documented.", "Do not upgrade; the claims say more."
        )
    if "used" in name:
        return _breaks(
            "Another scale is used for the same tensors: FP8 training takes another course.", "Do not upgrade unseen."
        )
    return _changes(
        "What is stored of a step is another step's value, or stands elsewhere.",
        "Code that reads or converts metadata has to follow; training itself uses the same scales.",
    )


def of_float8(*, lost: bool, subject: str) -> Meaning:
    """Float8 in programs."""
    if lost and subject == OUTSIDE:
        return _breaks("BF16 layers compute in float8 without autocast.", "Do not upgrade.")
    if lost:
        return _breaks(
            "Products or tensors are no longer in the float8 format that they were in.",
            "Do not upgrade: FP8 is not computed as the recipe says.",
        )
    return _changes(
        "The program is written in another way: other products, operands or custom calls.",
        "Nothing for correctness; checks of yours that read jaxprs or HLO have to follow. Measure speed on a GPU.",
    )


def of_numerics(worse: bool) -> Meaning:  # noqa: FBT001 - the one thing that matters
    """Errors of outputs and gradients."""
    if worse:
        return _breaks(
            "Results are wrong or less accurate than the formats and scales allow.",
            "Do not upgrade; the claims say more.",
        )
    return _changes(
        "Results are rounded in another place: as accurate, but not the same numbers.",
        "Make golden values and bitwise comparisons anew; a run continued from a checkpoint takes another path.",
    )


def of_bits(*, wrong: bool) -> Meaning:
    """Quantized tensors."""
    if wrong:
        return _breaks("Tensors are not quantized as scale and format say.", "Do not upgrade; the claims say more.")
    return _changes("The same tensors are quantized to other codes.", "Expect results that are not bitwise the same.")


def of_special(*, worse: bool) -> Meaning:
    """Zeros, infinities, NaN, tiny and huge numbers."""
    if worse:
        return _breaks(
            "NaN appears where there was none.", "Do not upgrade before you know whether your tensors do that."
        )
    return _changes("Unusual numbers are treated in another way.", "See whether your code relies on the old one.")


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
        return _breaks("This raises where it worked before.", "Look at the message, and at each use of yours.")
    return _changes(means, do)


def of_training(*, worse: bool) -> Meaning:
    """Training curves."""
    if worse:
        return _breaks("Training ends worse, by more than seeds explain.", "Do not upgrade.")
    return _changes(
        "Training takes another path of the same quality: the difference is within what seeds explain.",
        "Nothing, unless you compare runs bit by bit.",
    )


WARNING = _changes(
    "Something that you may use is announced to go, or to change.",
    "Read it and change your code before the next upgrade.",
)
QUIET = _note("Fewer warnings.")
KNOWN_DEFECT = _changes("A known defect of the new release.", "See docs/te-findings.md, and whether it concerns you.")
SKIPPED = _changes(
    "Tests that passed are not verified with the new release: it lacks what they need.", "See whether you need it, too."
)
DOES_NOT_START = _breaks(
    "Transformer Engine does not come up at all.", "Do not upgrade, or fix the installation first."
)


def of_claim(*, also: bool) -> Meaning:
    """A claim that is broken."""
    if also:
        return _breaks("A promise is not kept; the old release does not keep it either.", "Read the claim's file.")
    return _breaks(
        "A promise that the old release keeps is broken.", "Do not upgrade; the claim's file says what it costs."
    )


def of_failure(*, failed: bool, fails: bool) -> Meaning:
    """Something could not be measured."""
    if failed and fails:
        return _note("It fails as before, in other words.")
    if fails:
        return _breaks("It fails, where it worked before.", "Look at the message; do not upgrade if you use this.")
    return _note("It works now.")
