"""What is measured of a checkpoint under another release: the keys of its entries, and a kind of value of theirs."""

import dataclasses

CHECKPOINTS = "checkpoints"
"""The area of what is measured of the new release with what the old one wrote."""
CHECKPOINT_FILES = f"{CHECKPOINTS}/written/files"
"""The key of the digest of what it wrote: results of other files say nothing of each other."""
AS_RESTORED, FURTHER, MIGRATED = "as restored", "in further steps", "after migration"
"""The ends of the keys of each kind of checkpoint: what is restored; what it becomes in further steps, or that it could
not be restored; and what it becomes once it was migrated."""


@dataclasses.dataclass(frozen=True)
class Unrestored:
    """A checkpoint that a release cannot restore as it is, and whether ``mnist-fp8 migrate`` mends that.

    Attributes:
        type: of what is raised.
        message: the beginning of it, in one line.
        command: the command that migrates it, its words; none where that was not tried.
        problem: why it cannot be migrated, or is not restored then; empty if it is.
    """

    type: str
    message: str
    command: tuple[str, ...] = ()
    problem: str = ""

    @property
    def is_mended(self) -> bool:
        """Whether it is restored once it was migrated."""
        return bool(self.command) and not self.problem
