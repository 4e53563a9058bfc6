"""What a difference of a public name means."""

import dataclasses
import re
from collections.abc import Iterator

from mnist_fp8.gate.verdict.changes import EntryChange
from mnist_fp8.gate.verdict.rules.rule import Rule, Severity, breaks, changes, note
from mnist_fp8.gate.verdict.signatures import ApiChange, SignatureDifference, signature_differences
from mnist_fp8.record.entries import Signature, Text, Value

_RULES: dict[ApiChange, Rule] = {
    ApiChange.REMOVED: breaks(
        "api-name-removed",
        "name removed",
        "Code that imports the name fails.",
        "Search your code for it; move to what replaced it.",
    ),
    ApiChange.ADDED: note("api-name-added", "name added", "There is a new name to use."),
    ApiChange.KIND: breaks(
        "api-kind-changed",
        "kind of name changed",
        "A function became a class, or the like: calls and isinstance checks may fail.",
        "Look at each use.",
    ),
    ApiChange.PARAMETER_REMOVED: breaks(
        "api-parameter-removed",
        "parameter removed",
        "Calls that pass the argument raise TypeError.",
        "Leave the argument out, or pass what replaced it.",
    ),
    ApiChange.PARAMETER_RENAMED: breaks(
        "api-parameter-renamed",
        "parameter renamed",
        "Calls that pass the argument by name raise TypeError.",
        "Rename it in your calls.",
    ),
    ApiChange.PARAMETER_ADDED_REQUIRED: breaks(
        "api-required-parameter-added",
        "required parameter added",
        "Every call without it raises TypeError.",
        "Pass it.",
    ),
    ApiChange.PARAMETER_NOW_REQUIRED: breaks(
        "api-parameter-now-required",
        "parameter now required",
        "Calls that leave it out raise TypeError.",
        "Pass it; the old default gives the old behaviour.",
    ),
    ApiChange.PARAMETER_MOVED: changes(
        "api-parameter-moved",
        "parameter moved",
        "Positional arguments from there on silently mean something else.",
        "Pass them by name.",
    ),
    ApiChange.PARAMETER_KIND: changes(
        "api-parameter-kind-changed",
        "parameter passed differently",
        "A positional parameter became keyword-only, or the reverse.",
        "Pass it by name.",
    ),
    ApiChange.DEFAULT_CHANGED: changes(
        "api-default-changed",
        "default changed",
        "Calls that leave the argument out do something else.",
        "Pass the old value if you rely on it.",
    ),
    ApiChange.VALUE_CHANGED: changes(
        "api-value-changed", "value changed", "Code that uses the constant sees another value.", "Look at each use."
    ),
    ApiChange.PARAMETER_ADDED_OPTIONAL: note(
        "api-optional-parameter-added", "optional parameter added", "There is a new option; its default is used."
    ),
}
_METHOD_PARAMETER_ADDED = changes(
    "api-method-parameter-added",
    "optional parameter of a method added",
    "Transformer Engine may pass the new argument to the method: an override of yours without it raises TypeError.",
    "Accept the argument if you override the method, and pass it on.",
)
_DOCUMENTED = re.compile(
    r"transformer_engine\.(common\.recipe|jax\.flax|jax\.[A-Z]\w*)\b|transformer_engine\.jax\.\w+$"
)
"""Names that TE documents for JAX: those of the package itself, of its Flax layers and of recipes."""


def _undocumented(rule: Rule) -> Rule:
    return dataclasses.replace(
        rule,
        id=f"{rule.id}-undocumented",
        severity=Severity.CHANGES,
        title=f"{rule.title} (not documented)",
        meaning=f"{rule.meaning} Only code that imports from this module is affected: the documentation has no such"
        " name.",
    )


_UNDOCUMENTED = {kind: _undocumented(rule) for kind, rule in _RULES.items() if rule.severity is Severity.BREAKS}
RULES = (*_RULES.values(), _METHOD_PARAMETER_ADDED, *_UNDOCUMENTED.values())


def rule_of(kind: ApiChange, name: str, *, is_method: bool) -> Rule:
    """The rule for a change of a signature.

    Args:
        kind: what changed.
        name: the dotted name.
        is_method: whether it is a method, which a user's class may override.
    """
    if is_method and kind is ApiChange.PARAMETER_ADDED_OPTIONAL:
        return _METHOD_PARAMETER_ADDED
    return _RULES[kind] if _DOCUMENTED.match(name) else _UNDOCUMENTED.get(kind, _RULES[kind])


def ruled(change: EntryChange) -> Iterator[tuple[Rule, EntryChange]]:
    """Each thing that differs about a public name, with its rule."""
    is_method = any(isinstance(side, Signature) and side.what == "method" for side in (change.old, change.new))
    # The shorter the path to a name, the more users import it.
    weight = 1 / (1 + change.key.count("."))
    for found in _differences(change):
        rule = rule_of(found.change, change.key.removeprefix("api/"), is_method=is_method)
        whole = not (found.old or found.new)  # the name came or went
        sides = (change.old, change.new) if whole else (_text(found.old), _text(found.new))
        yield rule, EntryChange(change.key, *sides, part=found.parameter, weight=weight)


def _text(source: str) -> Value | None:
    return Text(source) if source else None


def _differences(change: EntryChange) -> Iterator[SignatureDifference]:
    match change.old, change.new:
        case Signature(), None:
            yield SignatureDifference(ApiChange.REMOVED, "", "", "")
        case None, Signature():
            yield SignatureDifference(ApiChange.ADDED, "", "", "")
        case Signature() as old, Signature() as new:
            yield from signature_differences(old, new)
        case old, new:  # something that is no name
            yield SignatureDifference(ApiChange.KIND, "", "", "")
