"""Sentences about a use: what becomes of it, and what to write instead. Nothing else words them."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeAlias

from mnist_fp8.core.plain import clean
from mnist_fp8.gate.reports.markup import counted, cut
from mnist_fp8.gate.uses.judgement import Cause, Judgement, Outcome
from mnist_fp8.gate.uses.ranges import Fitting, ranges
from mnist_fp8.gate.uses.use import Use, UseKind, Uses

Status: TypeAlias = Outcome | None
"""What a use is counted as: what becomes of it, or ``None`` if that is accepted."""
COUNTED: Mapping[Status, tuple[str, str]] = {
    Outcome.BREAKS: ("breaks", "break"),
    Outcome.BROKEN_ALREADY: ("is broken already", "are broken already"),
    Outcome.CHANGES: ("changes", "change"),
    Outcome.UNKNOWN: ("not known", "not known"),
    Outcome.GUARDED: ("guarded", "guarded"),
    None: ("accepted", "accepted"),
    Outcome.BETTER: ("works now", "work now"),
    Outcome.SAME: ("as before", "as before"),
}
"""What one name is counted as, and several; the worst first."""
TITLES: Mapping[Status, str] = {
    Outcome.BREAKS: "Breaks",
    Outcome.BROKEN_ALREADY: "Broken already: fits neither the old nor the new one",
    Outcome.CHANGES: "Changes",
    Outcome.UNKNOWN: "Not known",
    Outcome.GUARDED: "Guarded: your code expects that it may fail",
    None: "Accepted by the policy",
    Outcome.BETTER: "Works now, and did not before",
    Outcome.SAME: "As before",
}
ROOM = 120
"""Characters of a piece of source."""
ORDER = list(COUNTED)
"""The worst first."""


class Code(str):
    """A piece of source within a sentence."""

    __slots__ = ()


def _code(text: str) -> Code:
    return Code(cut(clean(text), ROOM))


Words: TypeAlias = tuple[str, ...]
"""Sentences, with their `Code`."""


def is_source(piece: str) -> bool:
    """Whether a piece of a sentence is `Code`."""
    return isinstance(piece, Code)


def joined(words: Words) -> str:
    """Sentences as plain text, source between backticks."""
    return "".join(f"`{each}`" if is_source(each) else each for each in words)


NOT_JUDGED = "What becomes of your code is not known: a record has no names of its release. Measure it again."


def headline(names: int, files: int, found: Collection[Status] = ()) -> str:
    """How many names the code uses, and what becomes of them.

    Args:
        names: how many there are.
        files: how many files use any.
        found: the worst that becomes of each; empty where that is not asked.
    """
    if not names:
        return "Your code uses no name of Transformer Engine."
    used = f"Your code uses {counted(names, 'name')} of Transformer Engine in {counted(files, 'file')}"
    return f"{used}: {counts(found)}." if found else f"{used}."


def counts(found: Iterable[Status]) -> str:
    """How many there are of each, the worst last, such as ``15 as before, 2 break``."""
    numbers = Counter(found)
    return ", ".join(f"{numbers[one]:,} {COUNTED[one][numbers[one] > 1]}" for one in reversed(ORDER) if numbers[one])


def releases(fitting: Fitting) -> Words:
    """Which releases the code fits."""
    if not fitting.fits:
        return ("No known release of Transformer Engine fits all of it.",)
    fits = _listed((f"transformer-engine{each}" for each in fitting.ranges), last=" or ")
    if not fitting.unknown:
        return "It fits ", *fits, "."
    if fitting.unknown == fitting.fits:
        return "It may fit ", *fits, ": of a use that is not known."
    unknown = _listed(ranges(fitting.releases, fitting.unknown), last=" or ")
    return "It fits ", *fits, "; of ", *unknown, " that is not certain."


def not_public(name: str, public: str) -> str:
    """That a name is used by a path that is not public."""
    return f"{name} is not public: {f'import {public}' if public else 'any release may change it'}"


def looked_at(uses: Uses) -> str:
    """What was looked at, and how much of it was not."""
    said = (
        f"Looked at {', '.join(map(clean, uses.paths))}: {counted(uses.files, 'file')}, {counted(uses.lines, 'line')}"
    )
    if uses.left_out:
        said += f"; {counted(uses.left_out, 'folder')} of environments, caches and builds left out"
    if uses.unread:
        said += f"; {counted(len(uses.unread), 'place')} not looked at"
    return f"{said}. Nothing of it was run."


def name_of(path: str) -> str:
    """The last part of a dotted path, with its class if it is a member of one: classes begin with a capital letter."""
    owner, _, name = clean(path).rpartition(".")
    last = owner.rpartition(".")[2]
    return f"{last}.{name}" if last[:1].isupper() else name


def what_happens(judgements: Sequence[Judgement]) -> Words:
    """What becomes of one use: a sentence for each cause, and what protects it."""
    use, outcome = judgements[0].use, judgements[0].outcome
    if outcome is Outcome.BETTER:
        return _code(name_of(use.path)), " fits the new release, and did not fit the old one."
    said = [_SENTENCES[cause](of_cause) for cause, of_cause in _by_cause(judgements)]
    if outcome is Outcome.GUARDED:
        said.append(_protection(use))
    if outcome is Outcome.UNKNOWN and any(each.cause is not Cause.NOT_READ for each in judgements):
        said.append(_doubt(use))
    return _sentences(said)


def what_to_write(judgements: Sequence[Judgement]) -> Words:
    """What to write instead: a sentence for each cause; none where it is better than before."""
    if judgements[0].outcome is Outcome.BETTER:
        return ()
    return _sentences(_ADVICE[cause](of_cause) for cause, of_cause in _by_cause(judgements))


def _by_cause(judgements: Iterable[Judgement]) -> Iterable[tuple[Cause, Sequence[Judgement]]]:
    found: dict[Cause, list[Judgement]] = {}
    for each in judgements:
        if each.cause:
            found.setdefault(each.cause, []).append(each)
    return found.items()


def _sentences(parts: Iterable[Words]) -> Words:
    said: list[str] = []
    for words in parts:
        said += [*([" "] if said else []), *words, "."]
    return tuple(said)


def _protection(use: Use) -> Words:
    if use.fallback_for:
        return ("It is a fallback, which is not reached",)
    if use.guards:
        return "Your code allows for it: ", ", ".join(sorted(guard.value for guard in use.guards))
    return ("Your code can do without it",)


def _doubt(use: Use) -> Words:
    """Why it is not known whether a use fails."""
    call = use.call
    given = [*(["*args"] if call and call.has_args else []), *(["**kwargs"] if call and call.has_kwargs else [])]
    if given:
        return "It is not known what comes by ", *_listed(given)
    return ("Whether this code meets that is not known",)


def _listed(names: Iterable[str], form: Callable[[str], str] = str, last: str = " and ") -> Words:
    """``a``, ``b`` and ``c``."""
    codes = [_code(form(each)) for each in dict.fromkeys(names) if each]
    words: list[str] = []
    for index, code in enumerate(codes):
        words += [] if not index else [last if index == len(codes) - 1 else ", "]
        words.append(code)
    return tuple(words)


_Sentence: TypeAlias = Callable[[Sequence[Judgement]], Words]


def _name(found: Sequence[Judgement]) -> Code:
    return _code(name_of(found[0].use.path))


def _subjects(found: Sequence[Judgement], form: Callable[[str], str] = str) -> Words:
    return _listed((each.subject for each in found), form)


def _now(found: Sequence[Judgement], now: str, always: str) -> str:
    """Words for what is so in the new release only, or in both."""
    first = found[0]
    is_old = first.outcome is Outcome.BROKEN_ALREADY or (first.outcome is Outcome.GUARDED and first.old == first.new)
    return always if is_old else now


def _values(found: Sequence[Judgement]) -> Words:
    return " was ", _code(found[0].old), " and is now ", _code(found[0].new)


def _name_gone(found: Sequence[Judgement]) -> Words:
    owner, _, name = clean(found[0].subject or found[0].use.path).rpartition(".")
    return _code(name), _now(found, " is no longer in ", " is not in "), _code(owner)


def _module_gone(found: Sequence[Judgement]) -> Words:
    return (
        "Module ",
        _code(found[0].subject or found[0].use.path),
        _now(found, " no longer exists", " does not exist"),
    )


def _kind(found: Sequence[Judgement]) -> Words:
    old, new = _code(found[0].old), _code(found[0].new)
    if old == new:
        return _name(found), " is a ", new, ", and cannot be used like this"
    return _name(found), " was a ", old, " and is now a ", new


def _base(found: Sequence[Judgement]) -> Words:
    return _name(found), _now(found, " no longer derives from ", " does not derive from "), *_subjects(found, name_of)


def _missing(found: Sequence[Judgement]) -> Words:
    if found[0].use.kind is UseKind.OVERRIDE:
        passes = _now(found, "Transformer Engine no longer passes ", "Transformer Engine does not pass ")
        return passes, *_subjects(found), " to ", _name(found), ", and this override needs it"
    return _name(found), _now(found, " now needs ", " needs "), *_subjects(found)


def _unknown_keyword(found: Sequence[Judgement]) -> Words:
    return _name(found), _now(found, " no longer takes ", " does not take "), *_subjects(found)


def _too_many(found: Sequence[Judgement]) -> Words:
    given = counted(found[0].use.call.positional, "argument") if found[0].use.call else "so many arguments"
    return _name(found), _now(found, " no longer takes ", " does not take "), f"{given} by position"


def _moved(found: Sequence[Judgement]) -> Words:
    return _name(found), " takes another argument at the position where this gives ", *_subjects(found)


def _default(found: Sequence[Judgement]) -> Words:
    words: list[str] = [_name(found), " has another default for what is left out here: "]
    for index, each in enumerate(found):
        words += [*([", "] if index else []), _code(each.subject), *_values([each])]
    return tuple(words)


def _override_argument(found: Sequence[Judgement]) -> Words:
    given = _now(found, "Transformer Engine now passes ", "Transformer Engine passes ")
    return given, *_subjects(found), " to ", _name(found), ", and this override does not take it"


def _hook_gone(found: Sequence[Judgement]) -> Words:
    calls = _now(found, "Transformer Engine no longer calls ", "Transformer Engine does not call ")
    return calls, _name(found), ": this override does nothing"


def _returns(found: Sequence[Judgement]) -> Words:
    old, new, call = clean(found[0].old), clean(found[0].new), found[0].use.call
    if new and call and call.unpacked:
        return _name(found), f" returns {new} values, and {call.unpacked} are taken here"
    return _name(found), f" returned {old} values" + (
        f" and now returns {new}" if new else ", which is not sure any more"
    )


def _member(found: Sequence[Judgement]) -> Words:
    return (_name(found), *_values(found)) if found[0].new else _name_gone(found)


def _exception(found: Sequence[Judgement]) -> Words:
    return (
        _name(found),
        _now(found, " no longer raises ", " does not raise "),
        *_subjects(found, name_of),
        ", which is caught here",
    )


_SENTENCES: Mapping[Cause, _Sentence] = {
    Cause.NAME_GONE: _name_gone,
    Cause.NOT_IMPORTABLE: _module_gone,
    Cause.KIND: _kind,
    Cause.BASE: _base,
    Cause.MISSING_ARGUMENT: _missing,
    Cause.UNKNOWN_KEYWORD: _unknown_keyword,
    Cause.TOO_MANY_POSITIONAL: _too_many,
    Cause.MOVED_ARGUMENT: _moved,
    Cause.DEFAULT: _default,
    Cause.OVERRIDE_ARGUMENT: _override_argument,
    Cause.HOOK_GONE: _hook_gone,
    Cause.RETURNS: _returns,
    Cause.VALUE: lambda found: (_name(found), *_values(found)),
    Cause.MEMBER: _member,
    Cause.EXCEPTION: _exception,
    Cause.NOT_READ: lambda found: ("What ", _name(found), " is cannot be read from its source"),
}


def _move(found: Sequence[Judgement]) -> Words:
    """To where the name is found now."""
    owner, _, name = clean(found[0].instead).rpartition(".")
    if not name:
        return ("Move to what replaced it, or keep to a release that has it",)
    is_member = owner.rpartition(".")[2][:1].isupper()
    return "Write ", _code(name_of(found[0].instead) if is_member else f"from {owner} import {name}")


def _other_keyword(found: Sequence[Judgement]) -> Words:
    renamed = {each.subject: each.instead for each in found if each.instead}
    gone = [each.subject for each in found if not each.instead]
    words: list[str] = []
    for old, new in renamed.items():
        words += [" and " if words else "Write ", _code(f"{new}="), " for ", _code(f"{old}=")]
    if gone:
        words += ["; leave out " if words else "Leave out ", *_listed(gone, "{}=".format)]
    return tuple(words)


def _accept(found: Sequence[Judgement]) -> Words:
    return "Have the override take ", *_subjects(found), ", and pass it on to the base class"


_LOOK = "Look at what this code does with it"
_ADVICE: Mapping[Cause, _Sentence] = {
    Cause.NAME_GONE: _move,
    Cause.NOT_IMPORTABLE: _move,
    Cause.KIND: lambda _: (_LOOK,),
    Cause.BASE: lambda _: (_LOOK,),
    Cause.MISSING_ARGUMENT: lambda found: (
        ("Give a default to ", *_subjects(found))
        if found[0].use.kind is UseKind.OVERRIDE
        else ("Pass ", *_subjects(found, "{}=…".format))
    ),
    Cause.UNKNOWN_KEYWORD: _other_keyword,
    Cause.TOO_MANY_POSITIONAL: lambda found: ("Pass ", *(_subjects(found) or ("them",)), " by name"),
    Cause.MOVED_ARGUMENT: lambda found: ("Pass ", *_subjects(found, "{}=…".format), " by name"),
    Cause.DEFAULT: lambda found: (
        "To keep what it did, pass ",
        *_listed(f"{each.subject}={each.old}" for each in found),
    ),
    Cause.OVERRIDE_ARGUMENT: _accept,
    Cause.HOOK_GONE: lambda found: (
        ("Override ", _code(name_of(found[0].instead)), " instead")
        if found[0].instead
        else ("Look for what the base class calls now",)
    ),
    Cause.RETURNS: lambda found: (f"Take {clean(found[0].new)} values" if found[0].new else _LOOK,),
    Cause.VALUE: lambda _: (_LOOK,),
    Cause.MEMBER: lambda found: (_LOOK,) if found[0].new else _move(found),
    Cause.EXCEPTION: lambda found: ("Catch ", _code(found[0].new)) if found[0].new else ("Look at what it raises now",),
    Cause.NOT_READ: lambda _: ("Try it with the new one",),
}
