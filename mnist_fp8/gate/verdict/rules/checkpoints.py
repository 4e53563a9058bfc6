"""What it means that checkpoints of the old release are not restored by the new one, or otherwise than they were."""

from mnist_fp8.gate.verdict.changes import EntryChange
from mnist_fp8.gate.verdict.rules.rule import Rule, breaks, changes
from mnist_fp8.record.checkpoints import AS_RESTORED, Unrestored

NOT_RESTORED = breaks(
    "checkpoint-not-restored",
    "checkpoints not restored",
    "Checkpoints of the old release cannot be restored, and mnist-fp8 migrate does not mend that.",
    "Finish under the old release what has to go on, or convert its checkpoints yourself: restore, compare, and only"
    " then train on.",
)
NEEDS_MIGRATION = changes(
    "checkpoint-needs-migration",
    "checkpoints restored after migration only",
    "Checkpoints of the old release cannot be restored as they are. Those that mnist-fp8 migrate writes anew can.",
    "Migrate each that has to go on, by the command that is named; docs/guide/migrate.md says what it needs.",
)
RESTORED_OTHERWISE = breaks(
    "checkpoint-restored-otherwise",
    "checkpoints restored to other numbers",
    "Checkpoints of the old release are restored without an error, but not to the numbers that were saved.",
    "Do not go on from them before you know why.",
)
TRAINS_ON_DIFFERENTLY = changes(
    "checkpoint-trains-on-differently",
    "checkpoints train on differently",
    "Checkpoints are restored, but further steps compute other numbers than under the old release.",
    "Where results are rounded differently as well, expect it; else compare the curves before you go on.",
)
RULES = (NOT_RESTORED, NEEDS_MIGRATION, RESTORED_OTHERWISE, TRAINS_ON_DIFFERENTLY)


def rule_of_checkpoint(change: EntryChange) -> Rule:
    """The rule for a checkpoint under the new release."""
    if isinstance(change.new, Unrestored):
        return NEEDS_MIGRATION if change.new.is_mended else NOT_RESTORED
    return RESTORED_OTHERWISE if change.name.endswith(AS_RESTORED) else TRAINS_ON_DIFFERENTLY
