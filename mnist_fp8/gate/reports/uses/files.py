"""What becomes of a user's code as Markdown, JUnit XML and JSON."""

from collections.abc import Iterator
from typing import Any

from mnist_fp8.core.plain import plain
from mnist_fp8.gate.reports.junit import Case, Mark
from mnist_fp8.gate.reports.markup import bullets, code, counted, cut, fitting, folded, words
from mnist_fp8.gate.reports.uses.view import Block, CodeView, Fate
from mnist_fp8.gate.reports.uses.words import COUNTED, TITLES, Words, is_source, joined
from mnist_fp8.gate.uses.judgement import Judgement, Outcome
from mnist_fp8.gate.uses.use import Place, Unread, Uses

PLACES = 20
"""Places of one name where the same happens."""
_MARKS = {
    Outcome.BREAKS: Mark.FAILURE,
    Outcome.BROKEN_ALREADY: Mark.SKIPPED,
    Outcome.CHANGES: Mark.SKIPPED,
    Outcome.UNKNOWN: Mark.SKIPPED,
    None: Mark.SKIPPED,
}
"""What a viewer shows of a name; passed if it is not here."""


def markdown(view: CodeView, room: int) -> Iterator[str]:
    """The parts of the section, in so many characters: half of them for what breaks."""
    yield "### Your code"
    yield f"**{words(view.headline)}** {marked(view.range)}"
    lines = list(map(block_text, view.of_status(Outcome.BREAKS)))
    kept = fitting(lines, room // 2, 3)
    more = len(lines) - len(kept)
    yield bullets([*kept, *([f"And {counted(more, 'more name')}: see the page."] if more else [])])
    for status, title in TITLES.items():
        found = view.of_status(status)
        if status not in (Outcome.BREAKS, Outcome.SAME):
            number = counted(len(found), "name")
            yield folded(f"{title}: {number}", ["where", "line", "what"], map(_row, found), room // 20)
    yield f"<sub>{words(cut(view.looked_at, 500))}</sub>"


def block_text(block: Block) -> str:
    """Where something happens, the user's own line, what happens and what to write, as an item of a list."""
    first = block.first
    others = block.others(PLACES)
    parts = [
        f"**{code(first.line.where)}** {code(first.line.source)}",
        " ".join([marked(first.happens), *([f"**{marked(first.write)}**"] if first.write else [])]),
        *([f"Also at {words(others)}."] if others else []),
    ]
    return "<br>".join(parts)


def _row(block: Block) -> list[str]:
    first = block.first
    others = block.others(2)
    where = code(first.line.where) + (f", {words(others)}" if others else "")
    accepted = f"**Accepted:** {words(first.accepted)}. " if first.accepted else ""
    return [where, code(first.line.source), f"{accepted}{marked(first.happens)} {marked(first.write)}"]


def marked(sentences: Words) -> str:
    """Sentences in Markdown."""
    return "".join(code(each) if is_source(each) else words(each) for each in sentences)


def cases(view: CodeView) -> Iterator[Case]:
    """A test case for each name, by the worst that becomes of it."""
    by_name: dict[str, list[Fate]] = {}
    for fate in view.fates:
        by_name.setdefault(fate.use.path, []).append(fate)
    for path, fates in by_name.items():
        status = view.by_name[path]
        worst = [fate for fate in fates if fate.status is status]
        message = f"{COUNTED[status][0]}: {_said(worst[0])}"
        text = "\n".join(f"{fate.line.where}: {fate.line.source}\n    {_said(fate)}" for fate in worst)
        yield Case("uses", path, _MARKS.get(status, Mark.PASSED), message, text)


def _said(fate: Fate) -> str:
    accepted = f"Accepted: {fate.accepted}." if fate.accepted else ""
    return " ".join(filter(None, [accepted, joined(fate.happens), joined(fate.write)]))


def as_json(view: CodeView) -> dict[str, Any]:
    """Everything about the code, for programs."""
    return {
        "means": view.headline,
        **plain_scan(view.judged.found),
        "ranges": view.judged.fitting.ranges,
        "names": {path: status.value if status else "accepted" for path, status in view.by_name.items()},
        "uses": [plain_fate(fate) for fate in view.fates],
        "unread": [plain_unread(each) for each in view.judged.found.unread],
    }


def plain_scan(uses: Uses) -> dict[str, Any]:
    """What was looked at, for programs."""
    return {"paths": uses.paths, "files": uses.files, "lines": uses.lines, "left_out": uses.left_out}


def plain_fate(fate: Fate) -> dict[str, Any]:
    """A use and what becomes of it, for programs."""
    use = fate.use
    fields = {
        "name": use.path,
        "kind": use.kind,
        **_plain_place(use.place),
        "guards": sorted(guard.value for guard in use.guards),
        "outcome": fate.outcome,
        "accepted": fate.accepted,
        "causes": [_plain_cause(each) for each in fate.judgements if each.cause],
        "meaning": joined(fate.happens),
        "action": joined(fate.write),
    }
    return plain(fields)


def _plain_place(place: Place) -> dict[str, Any]:
    return {"file": place.file, "line": place.line, "column": place.column, "cell": place.cell, "source": place.source}


def _plain_cause(judgement: Judgement) -> dict[str, Any]:
    names = ("cause", "subject", "old", "new", "instead")
    return {name: getattr(judgement, name) for name in names}


def plain_unread(unread: Unread) -> dict[str, Any]:
    """What was not looked at, for programs."""
    return {**_plain_place(unread.place), "reason": unread.reason, "may_use": unread.may_use}
