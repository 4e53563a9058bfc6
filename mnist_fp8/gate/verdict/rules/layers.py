"""What it means that recipes, variables, behaviour or warnings of a release differ."""

from mnist_fp8.gate.verdict.changes import EntryChange
from mnist_fp8.gate.verdict.rules.rule import Rule, breaks, changes, note
from mnist_fp8.record.entries import UNFUSED, Support, Text

RECIPE_LOST = breaks(
    "recipe-unsupported",
    "no longer runs here",
    "Training with this recipe fails on this machine.",
    "Choose another recipe, or stay.",
)
RECIPE_GAINED = note("recipe-supported", "runs here now", "The recipe runs on this machine now.")
RECIPE_REASON = note("recipe-reason-changed", "still does not run here", "The recipe still does not run here.")

GONE = breaks(
    "layer-gone",
    "layer or option gone",
    "The new release does not have this layer, or an option of it.",
    "Replace it, or stay.",
)
NEW = note("layer-new", "layer or option new", "The new release has this layer, or an option of it.")
STILL_ABSENT = note("layer-still-absent", "layer or option still absent", "Neither release has it here.")
UNFUSED_NOW = breaks(
    "attention-unfused",
    "attention no longer fused",
    "No fused kernel answers for this attention any more: its memory grows with the square of the sequence's length.",
    "Do not upgrade before you have seen your longest sequences train.",
)
BACKEND = changes(
    "attention-backend-changed",
    "another attention kernel",
    "Another kernel answers for this attention: as right as before, but not the same numbers.",
    "Renew golden values; measure speed and memory.",
)

PARAMETERS = breaks(
    "parameters-changed",
    "parameters changed",
    "Checkpoints of the old release do not fit the new one's parameters.",
    "Convert them: rename, reshape or box each leaf as listed; restore and compare before you train on.",
)
AXES = breaks(
    "axes-collection-changed",
    "names of axes changed",
    "Code that reads from this collection how parameters are sharded finds something else.",
    "Since 2.4 parameters are boxes that say it: flax.core.meta.unbox, nn.get_partition_spec.",
)
METADATA_VARIABLES = breaks(
    "metadata-variables-changed",
    "metadata variables changed",
    "FP8 metadata in old checkpoints are not found under these names, and code that reads them fails.",
    "Restore parameters only and let FP8 metadata be created anew, or rename the leaves as listed.",
)

BEHAVIOUR = changes(
    "behaviour-changed",
    "behaviour changed",
    "Something that a user can see is different.",
    "Check whether your code relies on it.",
)
KERNEL_DTYPE = changes(
    "layer-kernel-dtype-changed",
    "kernel dtype changed",
    "A layer with dtype=bfloat16 stores its kernel in another dtype: without a float32 master copy, or with one.",
    "Pass dtype=jnp.float32 to keep float32 parameters.",
)
KERNEL_SHAPE = changes(
    "layer-kernel-shape-changed",
    "kernel shape changed",
    "Kernels of layers over several axes have another shape.",
    "Reshape these kernels in checkpoints.",
)
CONTAINER = changes(
    "parameter-container-changed",
    "parameter container changed",
    "Parameters come in another container.",
    "flax.core.meta.unbox turns boxes into plain arrays; state-dict paths gain a level.",
)
COLLECTIONS = changes(
    "collections-changed",
    "collections changed",
    "init returns other collections.",
    "Pass on and store what init returns; do not look for a collection by a name that is gone.",
)
PRECISION = changes(
    "product-precision-changed",
    "precision of products changed",
    "Backward products ask for another precision.",
    "Set the precision yourself if you rely on it (NVTE_FP8_GEMM_HIGH_PRECISION_ACCUMULATION since 2.14).",
)
_BEHAVIOUR = {
    "output of a float32 layer for BF16": changes(
        "layer-output-dtype-changed",
        "output dtype changed",
        "A layer's dtype has another meaning: since 2.1 it is the parameters' dtype, and the output has the input's.",
        "Set dtype to the parameters' dtype, and cast inputs to the dtype to compute in.",
    ),
    "kernel of a BF16 layer": KERNEL_DTYPE,
    "kernel over axes of 4 and 8": KERNEL_SHAPE,
    "kernel after init": CONTAINER,
    "collections after init": COLLECTIONS,
    "axes without a mesh resource": changes(
        "mesh-resource-need-changed",
        "need for a mesh resource changed",
        "A layer with named axes needs a mesh resource, or no longer does.",
        "Always pass MeshResource() to autocast.",
    ),
    "recipe in force": changes(
        "recipe-in-force-changed",
        "recipe in force changed",
        "Whether a second recipe in a process is honoured has changed.",
        "Before 2.10 use one recipe per process.",
    ),
    "precision of FP8 products": PRECISION,
}

WARNING_NEW = changes(
    "warning-new",
    "new warning",
    "Transformer Engine warns where it did not: of what will be removed, or that it does something else than asked.",
    "Read it, and change your code where it says so.",
)
WARNING_GONE = note("warning-gone", "warning gone", "There are fewer warnings.")

RULES = (
    *(RECIPE_LOST, RECIPE_GAINED, RECIPE_REASON, GONE, NEW, STILL_ABSENT, UNFUSED_NOW, BACKEND),
    *(PARAMETERS, AXES, METADATA_VARIABLES),
    *(*_BEHAVIOUR.values(), BEHAVIOUR, WARNING_NEW, WARNING_GONE),
)


def rule_of_recipe(change: EntryChange) -> Rule:
    """The rule for a recipe's support."""
    ran, runs = (isinstance(side, Support) and side.ok for side in (change.old, change.new))
    if ran == runs:  # on neither side
        return RECIPE_REASON
    return RECIPE_GAINED if runs else RECIPE_LOST


def rule_of_layer(change: EntryChange) -> Rule:
    """The rule for whether a release has a layer, or for what computes it."""
    if isinstance(change.old, Text) and isinstance(change.new, Text):
        return UNFUSED_NOW if change.new.text == UNFUSED else BACKEND
    had, has = (not isinstance(side, Support) or side.ok for side in (change.old, change.new))
    if had == has:
        return STILL_ABSENT
    return NEW if has else GONE


def rule_of_variables(change: EntryChange) -> Rule:
    """The rule for names, shapes or dtypes of variables."""
    collection = change.name.partition("/")[0]
    if collection == "params":
        return PARAMETERS
    return AXES if collection.endswith("_axes") else METADATA_VARIABLES


def rule_of_behaviour(change: EntryChange) -> Rule:
    """The rule for what a layer or a context does."""
    return _BEHAVIOUR.get(change.name, BEHAVIOUR)


def rule_of_warning(change: EntryChange) -> Rule:
    """The rule for a warning that came or went."""
    return WARNING_NEW if change.old is None else WARNING_GONE
