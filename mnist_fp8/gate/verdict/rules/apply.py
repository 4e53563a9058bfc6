"""All rules, and which of them a change comes under."""

from collections.abc import Callable, Iterator, Sequence

from mnist_fp8.core.modes import Mode
from mnist_fp8.gate.verdict.changes import EntryChange, NoiseApart
from mnist_fp8.gate.verdict.rules import api, checkpoints, claims, imports, layers, numbers, package, programs, uses
from mnist_fp8.gate.verdict.rules.rule import Difference, Rule, difference
from mnist_fp8.gate.verdict.scope import TES_OWN_KEYS
from mnist_fp8.record.checkpoints import CHECKPOINTS
from mnist_fp8.record.entries import Failure
from mnist_fp8.record.keys import LAYERS

RULES: tuple[Rule, ...] = (
    *(*claims.RULES, *uses.RULES, *api.RULES, *package.RULES),
    *(*layers.RULES, *checkpoints.RULES, *imports.RULES, *programs.RULES, *numbers.RULES),
)
"""Every rule; its id is its own."""
_AREAS: dict[str, Callable[[EntryChange], Rule]] = {
    "package": package.rule_of_package,
    "recipes": layers.rule_of_recipe,
    "variables": layers.rule_of_variables,
    CHECKPOINTS: checkpoints.rule_of_checkpoint,
    "metadata": numbers.rule_of_metadata,
    "float8": programs.rule_of_float8,
    "numerics": numbers.rule_of_numerics,
    "bits": programs.rule_of_codes,
    "special": numbers.rule_of_special,
    "behaviour": layers.rule_of_behaviour,
    LAYERS: layers.rule_of_layer,
    "training": numbers.rule_of_training,
    "warnings": layers.rule_of_warning,
    "import": imports.rule_of_import,
}
_OF_FLAX_ALONE = f"training/{Mode.FLAX_BF16.value}/"


def judge(changes: Sequence[EntryChange], *, same_stack: bool) -> list[Difference]:
    """The differences that changes come to: those of one subject under one rule together.

    Args:
        changes: what differs.
        same_stack: whether nothing but Transformer Engine is another one.
    """
    groups: dict[tuple[str, str, Rule], list[EntryChange]] = {}
    for change in changes:
        for rule, entry in _ruled(change, same_stack=same_stack):
            groups.setdefault((change.area, _subject(change), rule), []).append(entry)
    return [difference(area, subject, rule, entries) for (area, subject, rule), entries in groups.items()]


def _ruled(change: EntryChange, *, same_stack: bool) -> Iterator[tuple[Rule, EntryChange]]:
    is_failure = change.area != "package" and any(isinstance(side, Failure) for side in (change.old, change.new))
    of_failure = claims.rule_of_failure(change) if is_failure or change.kind not in TES_OWN_KEYS else None
    if of_failure:
        yield of_failure, change
    elif change.area == "api":
        yield from api.ruled(change)
    elif isinstance(change.apart, NoiseApart):
        yield numbers.NOISE_GREW, change
    elif same_stack and change.key.startswith(_OF_FLAX_ALONE) and change.old is not None:
        yield numbers.FLAX_ALONE, change
    else:
        yield _AREAS[change.kind](change), change


def _subject(change: EntryChange) -> str:
    """What a difference is about, as far as its area does not say it."""
    match change.area:
        case "api" | "warnings":
            return ""
        case "behaviour":
            return change.name
        case "package":
            return change.name or change.subject
        case "metadata":
            return change.name.partition(" ")[2]  # without the tensor
    return change.subject
