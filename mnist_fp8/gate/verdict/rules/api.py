"""What a difference of a public name means."""

import re
from collections.abc import Iterator, Sequence

from mnist_fp8.gate.verdict.changes import MISSING, Change, Detail
from mnist_fp8.gate.verdict.rules import rule
from mnist_fp8.gate.verdict.rules.rule import Difference, Meaning, Severity, breaks, changes, note, together
from mnist_fp8.gate.verdict.signatures import ApiChange, SignatureDifference, signature_differences
from mnist_fp8.record.entries import (
    Failure,
    Signature,
)

_API: dict[ApiChange, tuple[str, Meaning]] = {
    ApiChange.REMOVED: (
        "name removed",
        breaks("Code that imports the name fails.", "Search your code for it; move to what replaced it."),
    ),
    ApiChange.ADDED: ("name added", note("A new name to use.")),
    ApiChange.KIND: (
        "name of another kind",
        breaks(
            "What was a function is a class, or the like: calls and isinstance checks may fail.", "Look at each use."
        ),
    ),
    ApiChange.PARAMETER_REMOVED: (
        "parameter removed",
        breaks("Calls that pass the argument raise TypeError.", "Leave the argument out, or pass what replaced it."),
    ),
    ApiChange.PARAMETER_RENAMED: (
        "parameter renamed",
        breaks("Calls that pass the argument by name raise TypeError.", "Rename it in your calls."),
    ),
    ApiChange.PARAMETER_ADDED_REQUIRED: (
        "required parameter added",
        breaks("Every call without it raises TypeError.", "Pass it."),
    ),
    ApiChange.PARAMETER_NOW_REQUIRED: (
        "parameter now required",
        breaks("Calls that leave it out raise TypeError.", "Pass it; the old default is the old behaviour."),
    ),
    ApiChange.PARAMETER_MOVED: (
        "parameter moved",
        changes("Positional arguments from there on mean something else, silently.", "Pass them by name."),
    ),
    ApiChange.PARAMETER_KIND: (
        "parameter passed in another way",
        changes("Positional became keyword-only, or the reverse.", "Pass it by name."),
    ),
    ApiChange.DEFAULT_CHANGED: (
        "default changed",
        changes("Calls that leave the argument out do something else.", "Pass the old value if you rely on it."),
    ),
    ApiChange.VALUE_CHANGED: (
        "value changed",
        changes("Code that uses the constant sees another value.", "Look at each use."),
    ),
    ApiChange.PARAMETER_ADDED_OPTIONAL: ("optional parameter added", note("A new option; its default is used.")),
}
_OVERRIDABLE = changes(
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
        return f"{title} (not documented)", changes(concerned, means.do)
    return title, means


def judge_api(changes: Sequence[Change]) -> list[Difference]:
    """Public names that changed, by kind of change."""
    groups: dict[tuple[str, Meaning], list[Detail]] = {}
    for change in changes:
        for found in _api_differences(change):
            is_method = "method" in (getattr(change.old, "what", ""), getattr(change.new, "what", ""))
            title, means = of_api(found.change, change.key.removeprefix("api/"), is_method=is_method)
            # The shorter the path to a name, the more users import it.
            detail = Detail(change.key, found.old, found.new, found.parameter, 1 / (1 + change.key.count(".")))
            groups.setdefault((title, means), []).append(detail)
    unreadable = [change.detail for change in changes if isinstance(change.new, Failure)]
    fails = rule.of_failure(failed=False, fails=True)
    return [together("api", "source", fails, unreadable)] * bool(unreadable) + [
        together("api", title if len(details) == 1 else f"{len(details)} x {title}", means, details)
        for (title, means), details in groups.items()
    ]


def _api_differences(change: Change) -> Iterator[SignatureDifference]:
    match change.old, change.new:
        case Signature(), None:
            yield SignatureDifference(ApiChange.REMOVED, "", change.detail.old, MISSING)
        case None, Signature():
            yield SignatureDifference(ApiChange.ADDED, "", MISSING, change.detail.new)
        case Signature() as old, Signature() as new:
            yield from signature_differences(old, new)
