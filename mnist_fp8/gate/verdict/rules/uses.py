"""What it means that Transformer Engine changed something that a user's own sources use."""

from collections.abc import Iterable, Iterator

from mnist_fp8.gate.uses.judgement import Cause, Judgement, Outcome
from mnist_fp8.gate.uses.use import Use
from mnist_fp8.gate.verdict.changes import EntryChange
from mnist_fp8.gate.verdict.rules.rule import Difference, Rule, breaks, changes, difference, note
from mnist_fp8.record.entries import Text

_BREAKS = {
    Cause.NAME_GONE: breaks(
        "use-name-gone",
        "name that your code uses is gone",
        "The import or the attribute fails.",
        "Move to where it is now, or to what replaced it.",
    ),
    Cause.NOT_IMPORTABLE: breaks(
        "use-module-gone",
        "module that your code imports is gone",
        "The import fails.",
        "Import the names from where they are now.",
    ),
    Cause.KIND: breaks(
        "use-kind-changed",
        "name is of another kind",
        "A method became a property, a class a function, or the like: this use of it fails, or means something else.",
        "Use it as what it is now.",
    ),
    Cause.BASE: breaks(
        "use-base-class-gone",
        "class that your code derives from lost a base class",
        "What your class inherited from it is missing.",
        "Derive from that base class as well, or from another class.",
    ),
    Cause.MISSING_ARGUMENT: breaks(
        "use-argument-missing",
        "argument needed that your code does not give",
        "The call raises TypeError.",
        "Pass the argument.",
    ),
    Cause.UNKNOWN_KEYWORD: breaks(
        "use-argument-not-taken",
        "argument not taken that your code gives",
        "The call raises TypeError.",
        "Leave the argument out, or pass what replaced it.",
    ),
    Cause.TOO_MANY_POSITIONAL: breaks(
        "use-too-many-by-position",
        "more arguments by position than are taken",
        "The call raises TypeError.",
        "Pass arguments by name.",
    ),
    Cause.MOVED_ARGUMENT: breaks(
        "use-argument-moved",
        "another parameter takes an argument by position",
        "The call silently means something else, or fails later.",
        "Pass the argument by name.",
    ),
    Cause.OVERRIDE_ARGUMENT: breaks(
        "use-override-lacks-argument",
        "override does not take an argument that is passed to it",
        "Transformer Engine's call of your method raises TypeError.",
        "Accept the argument in your method, and pass it on.",
    ),
    Cause.HOOK_GONE: breaks(
        "use-override-not-called",
        "method that your code overrides is no longer called",
        "Your method silently does nothing.",
        "Override what is called now.",
    ),
    Cause.RETURNS: breaks(
        "use-unpacking-fails",
        "other number of returned values than your code takes apart",
        "Taking the result apart raises ValueError.",
        "Take as many values as are returned.",
    ),
    Cause.MEMBER: breaks(
        "use-member-gone",
        "member of an enumeration that your code uses is gone",
        "The attribute raises AttributeError.",
        "Use the member that replaced it.",
    ),
}
_CHANGES = {
    Cause.KIND: changes(
        "use-other-kind",
        "name that your code uses became something else",
        "A function became a class, or the like; this use of it still works.",
        "Look at what your code does with it.",
    ),
    Cause.BASE: changes(
        "use-base-class-changed",
        "class that your code derives from lost a base class of Transformer Engine's",
        "What your class inherited from it may be missing.",
        "Look at what your class takes from it.",
    ),
    Cause.HOOK_GONE: changes(
        "use-overridden-method-gone",
        "method that your code overrides is gone",
        "Your method overrides nothing. Transformer Engine did not call it before, either.",
        "Look at who calls it.",
    ),
    Cause.UNKNOWN_KEYWORD: changes(
        "use-argument-ignored",
        "argument that your code gives is ignored now",
        "The call does not fail: recipes ignore arguments that they do not know. It silently does something else.",
        "Leave the argument out, or pass what replaced it.",
    ),
    Cause.RETURNS: changes(
        "use-returns-changed",
        "other number of returned values",
        "Code that takes the result apart elsewhere fails.",
        "Look at what your code does with the result.",
    ),
    Cause.MEMBER: changes(
        "use-member-changed",
        "other value of a member of an enumeration",
        "Stored or compared numbers mean something else.",
        "Look at what your code does with the value.",
    ),
    Cause.DEFAULT: changes(
        "use-default-changed",
        "other default of an argument that your code leaves out",
        "The call does something else.",
        "Pass the old value if you rely on it.",
    ),
    Cause.VALUE: changes(
        "use-value-changed",
        "other value of a constant that your code reads",
        "Your code sees another value.",
        "Look at what your code does with it.",
    ),
    Cause.EXCEPTION: changes(
        "use-exception-not-raised",
        "exception that your code catches is no longer raised there",
        "The case that your code handles ends in another way.",
        "Look at what is raised now.",
    ),
}
_OTHERS = {
    Outcome.UNKNOWN: changes(
        "use-may-break",
        "use that may not fit any more",
        "The name changed, and source does not say whether this use still fits: there is `*args` or `**kwargs`, it is"
        " called elsewhere, or the name is defined under a condition.",
        "Look at what your code passes.",
    ),
    Outcome.BROKEN_ALREADY: changes(
        "use-broken-already",
        "use that fits neither the old release nor the new one",
        "It fails in both, so this upgrade does not break it.",
        "Look whether the code is run; repair or remove it.",
    ),
    Outcome.GUARDED: note(
        "use-guarded",
        "use that changes, and that your code is prepared for",
        "A test, or an except clause, takes care of it: your code may take another way than before.",
    ),
    Outcome.BETTER: note("use-works-now", "use that works now", "It fits the new release and did not fit the old one."),
}
RULES = (*_BREAKS.values(), *_CHANGES.values(), *_OTHERS.values())


def rule_of_use(judgement: Judgement) -> Rule | None:
    """The rule for what becomes of a use; ``None`` where nothing does, or where that was not looked at."""
    outcome, cause = judgement.outcome, judgement.cause
    if cause is None or judgement.is_unread or (outcome is Outcome.GUARDED and judgement.old == judgement.new):
        return None
    by_cause = {Outcome.BREAKS: _BREAKS, Outcome.CHANGES: _CHANGES}.get(outcome)
    return by_cause[cause] if by_cause else _OTHERS[outcome]


def use_differences(judgements: Iterable[Judgement]) -> Iterator[Difference]:
    """What becomes of uses: those of one name under one rule together."""
    groups: dict[tuple[str, Rule], list[EntryChange]] = {}
    for judgement in judgements:
        if rule := rule_of_use(judgement):
            groups.setdefault((judgement.use.path, rule), []).append(_entry(judgement))
    return (difference("uses", path, rule, entries) for (path, rule), entries in groups.items())


def _entry(judgement: Judgement) -> EntryChange:
    old, new = (Text(text) if text else None for text in (judgement.old, judgement.new))
    return EntryChange(key_of(judgement.use), old, new, part=judgement.subject)


def key_of(use: Use) -> str:
    """The key of what becomes of a use: its path, file and line, and of a notebook the cell."""
    return f"uses/{use.path}/{use.place.where}"
