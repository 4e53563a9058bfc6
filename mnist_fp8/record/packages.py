"""What a package asks for, as typed values of entries."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Needs:
    """The versions of another package, or of Python, that a package asks for.

    Attributes:
        versions: a specifier, such as ``>=0.5``; empty for any.
        found: the version that is installed with it; no part of what is compared.
    """

    versions: str
    found: str = dataclasses.field(default="", compare=False)


@dataclasses.dataclass(frozen=True)
class Resolved:
    """Whether a resolver can install a package beside others, and its words where it cannot."""

    ok: bool
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Imported:
    """A package that another one imports.

    Attributes:
        declared: whether what the other asks for brings it; ``None`` where it has no metadata.
    """

    declared: bool | None
