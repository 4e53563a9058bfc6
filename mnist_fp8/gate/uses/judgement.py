"""What becomes of one use when Transformer Engine changes: plain data."""

import dataclasses
import enum

from mnist_fp8.gate.uses.use import Use


class Outcome(enum.Enum):
    """What becomes of a use."""

    SAME = "as before"
    BREAKS = "breaks"
    CHANGES = "changes"
    BETTER = "works now"
    BROKEN_ALREADY = "broken already"
    GUARDED = "guarded"
    UNKNOWN = "not known"


class Cause(enum.Enum):
    """Why a use does not stay as it is. All but `NOT_READ` have rules in `mnist_fp8.gate.verdict.rules.uses`."""

    NAME_GONE = "name gone"
    NOT_IMPORTABLE = "module gone"
    KIND = "kind of name changed"
    BASE = "base class changed"
    MISSING_ARGUMENT = "argument now needed"
    UNKNOWN_KEYWORD = "argument not taken"
    TOO_MANY_POSITIONAL = "too many arguments by position"
    MOVED_ARGUMENT = "argument by position means something else"
    DEFAULT = "default of an argument that is left out"
    OVERRIDE_ARGUMENT = "override lacks an argument that is passed"
    HOOK_GONE = "overridden method is no longer called"
    RETURNS = "number of returned values"
    VALUE = "value of a constant"
    MEMBER = "member of an enumeration"
    EXCEPTION = "exception no longer raised"
    NOT_READ = "not read from source"


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What becomes of a use.

    Attributes:
        use: the use.
        outcome: what becomes of it.
        cause: why; ``None`` where it stays as it is.
        subject: what it is about, by cause: the shortest dotted path that is gone, the parameter, base class, exception
            or member; empty for the name as a whole.
        old: what it was, as source has it, by cause: the name with its parameters (``from_seqlens(seqlens)``), the kind
            (``function``), the default, the value, the number of returned values; empty where it was not there.
        new: what it is now.
        instead: what can be written now: a dotted path, or a parameter for one that is gone; empty where none is known.
    """

    use: Use
    outcome: Outcome
    cause: Cause | None = None
    subject: str = ""
    old: str = ""
    new: str = ""
    instead: str = ""

    @property
    def is_unread(self) -> bool:
        """Whether it is not known because source does not say what the name is."""
        return self.outcome is Outcome.UNKNOWN and self.cause is Cause.NOT_READ
