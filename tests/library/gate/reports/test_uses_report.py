"""What a user gets to see of their own code: what to change, where, and which releases the code fits."""

import dataclasses
import json
import re
from collections.abc import Callable
from xml.etree import ElementTree as ET

import pytest

from mnist_fp8.gate.reports.uses import words
from mnist_fp8.gate.reports.uses.view import CodeView
from mnist_fp8.gate.reports.verdict import files, markdown
from mnist_fp8.gate.reports.verdict.view import View
from mnist_fp8.gate.uses.judgement import Cause, Judgement, Outcome
from mnist_fp8.gate.uses.use import Call, Guard, Place, Unread, Use, UseKind
from mnist_fp8.gate.verdict.changes import EntryChange
from mnist_fp8.gate.verdict.comparison import Comparison
from mnist_fp8.gate.verdict.coverage import Effect, Gap, GapKind
from mnist_fp8.gate.verdict.rules.rule import Difference, Rule, Severity
from mnist_fp8.gate.verdict.uses import JudgedUses
from mnist_fp8.record.entries import Text
from support.comparing import WHOLE, compared
from support.own_code import (
    BETTER,
    CODE,
    DESCRIPTOR,
    IN_CELL,
    JAX,
    NEITHER,
    OPEN,
    OVERRIDE,
    PACKED,
    PROTECTED,
    SAME,
    accepted,
    judged,
    use,
)
from support.reports import (
    CLEAN,
    FORMS,
    NASTY,
    lacks,
    of_html,
    of_json,
    of_junit,
    of_markdown,
    of_terminal,
    printed,
    rendered,
    without_pictures,
)

every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
NOTHING = compared(WHOLE, WHOLE)


def with_code(code: JudgedUses | None) -> Comparison:
    coverage = code.in_coverage(NOTHING.coverage) if code else NOTHING.coverage
    return dataclasses.replace(NOTHING, uses=code, coverage=coverage)


# --- every form ----------------------------------------------------------------------------------------------------

HEADLINE = (
    "Your code uses 8 names of Transformer Engine in 5 files: 1 as before, 1 works now, 1 guarded, 1 not known,"
    " 1 changes, 1 is broken already, 2 break."
)
TO_CHANGE = {
    "src/attention.py:41": (
        "d = SequenceDescriptor.from_segment_ids_and_pos(ids, pos)",
        "SequenceDescriptor.from_segment_ids_and_pos now needs is_thd and is_segment_ids_reordered.",
        "Pass is_thd=… and is_segment_ids_reordered=….",
    ),
    "src/quant.py:77": (
        "def generate_quantizer_set(self, postfix):",
        (
            "Transformer Engine now passes n_groups to TransformerEngineBase.generate_quantizer_set, and this override"
            " does not take it."
        ),
        "Have the override take n_groups, and pass it on to the base class.",
    ),
}


def said(form: Callable[[Comparison], str], comparison: Comparison) -> str:
    """What a form says; how it marks pieces of source is its own affair."""
    return form(comparison).replace("`", "")


@every_form
def test_what_breaks_is_told_with_its_place_line_reason_and_remedy(form: Callable[[Comparison], str]) -> None:
    text = said(form, with_code(CODE))
    for where, told in TO_CHANGE.items():
        assert not lacks(text, *told)
        assert form is of_json or not lacks(text, where)
    assert form is of_json or not lacks(text, "src/packed.py:108")


@every_form
def test_code_comes_first_with_the_releases_that_it_fits(form: Callable[[Comparison], str]) -> None:
    text = said(form, with_code(CODE))
    assert not lacks(text, HEADLINE)
    assert form is of_junit or not lacks(text, ">=2.9,<2.12")
    if form in (of_terminal, of_markdown, of_html):
        first = text.index("Transformer Engine 1.0.0 → 2.0.0")
        assert (
            first
            < text.index("Your code uses")
            < text.index("src/attention.py:41")
            < text.index("no difference in" if form is of_terminal else "what it is")
        )
        none = said(form, with_code(dataclasses.replace(CODE, fitting=dataclasses.replace(CODE.fitting, fits=()))))
        assert not lacks(none, "No known release of Transformer Engine fits all of it.")


@every_form
def test_what_does_not_break_is_told_as_well(form: Callable[[Comparison], str]) -> None:
    text = said(form, with_code(CODE))
    assert not lacks(
        text,
        "fused_attn has another default for what is left out here: dropout was 0.0 and is now 0.1.",
        "grouped_dense now needs n_groups. It is not known what comes by **kwargs.",
        "QuantizerFactory does not take 2 arguments by position.",
    )
    if form is of_terminal:
        assert not lacks(text, "Guarded: your code expects that it may fail: dense", "did not before: ep_bootstrap")
    else:
        assert not lacks(text, "dense no longer takes mask. Your code allows for it: except TypeError.")
        assert not lacks(text, "ep_bootstrap fits the new release, and did not fit the old one.")
    if form is not of_json:
        assert "cell 4, line 2" in text


@pytest.mark.parametrize("form", [of_terminal, of_markdown, of_html, of_json])
def test_what_was_looked_at_and_what_was_not_is_told(form: Callable[[Comparison], str]) -> None:
    text = said(form, with_code(CODE))
    assert not lacks(text, "it does not parse", "it is no JSON")
    if form is not of_json:
        assert not lacks(
            text, "Looked at src, nb: 120 files, 30,211 lines; 3 folders of environments, caches and builds"
        )
        assert not lacks(text, "2 places not looked at", "src/bad.py:3", "nb/x.ipynb")
        assert text.index("it does not parse") < text.index("it is no JSON"), "what may use it first"


@every_form
def test_without_sources_nothing_is_said_of_them(form: Callable[[Comparison], str]) -> None:
    assert "our code" not in form(NOTHING)


@every_form
def test_code_without_transformer_engine_says_so(form: Callable[[Comparison], str]) -> None:
    assert not lacks(form(with_code(judged())), "Your code uses no name of Transformer Engine.")


def test_alike_breaks_are_one_thing_to_read() -> None:
    text = printed(with_code(CODE), 200)
    assert text.count("now needs") == 2, "one is of another name"
    assert "also at src/packed.py:108" in text
    alike = judged(
        *(
            Judgement(dataclasses.replace(PACKED, place=Place("a.py", line)), Outcome.BREAKS, Cause.NAME_GONE)
            for line in range(1, 9)
        )
    )
    assert "also at a.py:2, a.py:3, a.py:4, and 4 more" in printed(with_code(alike), 200)


def test_uses_of_a_notebook_are_in_the_order_of_its_cells() -> None:
    places = [Place("nb.ipynb", line, cell=cell) for cell, line in ((2, 1), (1, 9), (1, 2))]
    uses = [Judgement(dataclasses.replace(PACKED, place=place), Outcome.SAME) for place in places]
    unread = tuple(Unread(place, "it does not parse", may_use=True) for place in places)
    view = CodeView.of(judged(*uses, unread=unread), ())
    assert [(fate.use.place.cell, fate.use.place.line) for fate in view.fates] == [(1, 2), (1, 9), (2, 1)]
    assert [line.partition(":")[0] for line in view.not_looked_at] == [
        "nb.ipynb, cell 1, line 2",
        "nb.ipynb, cell 1, line 9",
        "nb.ipynb, cell 2, line 1",
    ]


def test_worst_of_several_judgements_is_what_becomes_of_a_use() -> None:
    both = judged(
        Judgement(PACKED, Outcome.CHANGES, Cause.RETURNS, "", "2", "3"),
        Judgement(PACKED, Outcome.BREAKS, Cause.MISSING_ARGUMENT, "is_thd"),
    )
    (fate,) = CodeView.of(both, ()).fates
    assert fate.outcome is Outcome.BREAKS
    assert words.joined(fate.happens) == "`SequenceDescriptor.from_segment_ids_and_pos` now needs `is_thd`."


@every_form
def test_accepted_break_is_told_as_that(form: Callable[[Comparison], str]) -> None:
    code = judged(Judgement(PACKED, Outcome.BREAKS, Cause.MISSING_ARGUMENT, "is_thd"), Judgement(SAME, Outcome.SAME))
    with_policy = dataclasses.replace(with_code(code), differences=(accepted("we are on it (until 2027-01-31)"),))
    text = form(with_policy)
    assert not lacks(text, "Your code uses 2 names of Transformer Engine in 2 files: 1 as before, 1 accepted.")
    assert form is of_terminal or not lacks(text, "we are on it (until 2027-01-31)")
    half = dataclasses.replace(with_policy, differences=(accepted(""), *with_policy.differences))
    assert not lacks(form(half), "1 as before, 1 breaks."), "another cause is not accepted"


@every_form
def test_records_without_names_are_no_judgement(form: Callable[[Comparison], str]) -> None:
    text = form(with_code(dataclasses.replace(CODE, judgements=None)))
    assert not lacks(text, "What becomes of your code is not known: a record has no names of its release.")
    assert "as before" not in text


# --- sentences -----------------------------------------------------------------------------------------------------

HOOK_IS_GONE = (
    "Transformer Engine no longer calls `TransformerEngineBase.generate_quantizer_set`: this override does nothing."
)
BASE = f"{JAX}.flax.module.TransformerEngineBase"
CALL = use(f"{JAX}.dense.dense", "a.py", 1, "dense(x, w, b)", call=Call(3, unpacked=2))
SENTENCES: list[tuple[Use, Cause, tuple[str, ...], str, str]] = [
    (
        CALL,
        Cause.NAME_GONE,
        (f"{JAX}.dense.dense", "", "", f"{JAX}.gemm.dense"),
        "`dense` is no longer in `transformer_engine.jax.dense`.",
        "Write `from transformer_engine.jax.gemm import dense`.",
    ),
    (
        PACKED,
        Cause.NAME_GONE,
        (DESCRIPTOR, "", "", f"{JAX}.attention.SequenceDescriptor.from_ids"),
        "`from_segment_ids_and_pos` is no longer in `transformer_engine.jax.attention.SequenceDescriptor`.",
        "Write `SequenceDescriptor.from_ids`.",
    ),
    (
        CALL,
        Cause.NAME_GONE,
        (f"{JAX}.dense",),
        "`dense` is no longer in `transformer_engine.jax`.",
        "Move to what replaced it, or keep to a release that has it.",
    ),
    (
        CALL,
        Cause.NOT_IMPORTABLE,
        (f"{JAX}.dense",),
        "Module `transformer_engine.jax.dense` no longer exists.",
        "Move to what replaced it, or keep to a release that has it.",
    ),
    (
        CALL,
        Cause.KIND,
        ("", "module", "module"),
        "`dense` is a `module`, and cannot be used like this.",
        "Look at what this code does with it.",
    ),
    (
        CALL,
        Cause.KIND,
        ("", "function", "class"),
        "`dense` was a `function` and is now a `class`.",
        "Look at what this code does with it.",
    ),
    (
        CALL,
        Cause.BASE,
        ("flax.linen.Module", "", ""),
        "`dense` no longer derives from `Module`.",
        "Look at what this code does with it.",
    ),
    (CALL, Cause.MISSING_ARGUMENT, ("c",), "`dense` now needs `c`.", "Pass `c=…`."),
    (
        OVERRIDE,
        Cause.MISSING_ARGUMENT,
        ("postfix",),
        (
            "Transformer Engine no longer passes `postfix` to `TransformerEngineBase.generate_quantizer_set`, and this"
            " override needs it."
        ),
        "Give a default to `postfix`.",
    ),
    (CALL, Cause.UNKNOWN_KEYWORD, ("c",), "`dense` no longer takes `c`.", "Leave out `c=`."),
    (CALL, Cause.UNKNOWN_KEYWORD, ("c", "", "", "d"), "`dense` no longer takes `c`.", "Write `d=` for `c=`."),
    (CALL, Cause.TOO_MANY_POSITIONAL, ("c",), "`dense` no longer takes 3 arguments by position.", "Pass `c` by name."),
    (
        CALL,
        Cause.MOVED_ARGUMENT,
        ("b",),
        "`dense` takes another argument at the position where this gives `b`.",
        "Pass `b=…` by name.",
    ),
    (
        CALL,
        Cause.DEFAULT,
        ("c", "0.0", "0.1"),
        "`dense` has another default for what is left out here: `c` was `0.0` and is now `0.1`.",
        "To keep what it did, pass `c=0.0`.",
    ),
    (
        OVERRIDE,
        Cause.OVERRIDE_ARGUMENT,
        ("n_groups",),
        (
            "Transformer Engine now passes `n_groups` to `TransformerEngineBase.generate_quantizer_set`, and this"
            " override does not take it."
        ),
        "Have the override take `n_groups`, and pass it on to the base class.",
    ),
    (
        OVERRIDE,
        Cause.HOOK_GONE,
        ("", "", "", f"{BASE}.make_set"),
        HOOK_IS_GONE,
        "Override `TransformerEngineBase.make_set` instead.",
    ),
    (
        OVERRIDE,
        Cause.HOOK_GONE,
        (),
        HOOK_IS_GONE,
        "Look for what the base class calls now.",
    ),
    (CALL, Cause.RETURNS, ("", "2", "3"), "`dense` returns 3 values, and 2 are taken here.", "Take 3 values."),
    (
        PACKED,
        Cause.RETURNS,
        ("", "2", "3"),
        "`SequenceDescriptor.from_segment_ids_and_pos` returned 2 values and now returns 3.",
        "Take 3 values.",
    ),
    (
        CALL,
        Cause.RETURNS,
        ("", "2", ""),
        "`dense` returned 2 values, which is not sure any more.",
        "Look at what this code does with it.",
    ),
    (CALL, Cause.VALUE, ("", "1", "2"), "`dense` was `1` and is now `2`.", "Look at what this code does with it."),
    (CALL, Cause.MEMBER, ("MAX", "1", "2"), "`dense` was `1` and is now `2`.", "Look at what this code does with it."),
    (
        CALL,
        Cause.MEMBER,
        (f"{JAX}.quantize.Layout.MAX", "1", "", f"{JAX}.quantize.Layout.AMAX"),
        "`MAX` is no longer in `transformer_engine.jax.quantize.Layout`.",
        "Write `Layout.AMAX`.",
    ),
    (
        CALL,
        Cause.EXCEPTION,
        ("builtins.ValueError", "", "TypeError"),
        "`dense` no longer raises `ValueError`, which is caught here.",
        "Catch `TypeError`.",
    ),
    (CALL, Cause.NOT_READ, (), "What `dense` is cannot be read from its source.", "Try it with the new one."),
]


@pytest.mark.parametrize(("of_use", "cause", "fields", "happens", "write"), SENTENCES)
def test_each_cause_has_a_sentence_and_a_remedy(
    of_use: Use, cause: Cause, fields: tuple[str, ...], happens: str, write: str
) -> None:
    judgement = Judgement(of_use, Outcome.BREAKS, cause, *fields)
    assert words.joined(words.what_happens([judgement])) == happens
    assert words.joined(words.what_to_write([judgement])) == write


def test_no_cause_is_without_a_sentence() -> None:
    assert {cause for _, cause, *_ in SENTENCES} == set(Cause)


@pytest.mark.parametrize("cause", Cause)
def test_what_was_broken_before_is_not_said_to_be_new(cause: Cause) -> None:
    judgement = Judgement(OVERRIDE, Outcome.BROKEN_ALREADY, cause, "x", instead="y")
    assert not re.search(r"\bnow\b|no longer", words.joined(words.what_happens([judgement])).replace("and is now", ""))


@pytest.mark.parametrize(
    ("of_use", "outcome", "ends"),
    [
        (
            use(f"{JAX}.f", "a.py", 1, "f()", guards=frozenset({Guard.VERSION})),
            Outcome.GUARDED,
            "Your code allows for it: a test of the version.",
        ),
        (
            use(f"{JAX}.f", "a.py", 1, "f()", fallback_for=(f"{JAX}.g",)),
            Outcome.GUARDED,
            "It is a fallback, which is not reached.",
        ),
        (use(f"{JAX}.f", "a.py", 1, "f()", optional=f"{JAX}.f"), Outcome.GUARDED, "Your code can do without it."),
        (
            use(f"{JAX}.f", "a.py", 1, "f(*a, **k)", call=Call(0, has_args=True, has_kwargs=True)),
            Outcome.UNKNOWN,
            "It is not known what comes by `*args` and `**kwargs`.",
        ),
        (
            use(f"{JAX}.f", "a.py", 1, "class A(f)", UseKind.SUBCLASS),
            Outcome.UNKNOWN,
            "Whether this code meets that is not known.",
        ),
    ],
)
def test_why_a_use_does_not_break_is_said(of_use: Use, outcome: Outcome, ends: str) -> None:
    assert words.joined(words.what_happens([Judgement(of_use, outcome, Cause.MISSING_ARGUMENT, "x")])).endswith(
        f"`x`. {ends}"
    )


# --- for programs --------------------------------------------------------------------------------------------------


def test_junit_has_a_case_for_each_name() -> None:
    root = ET.fromstring(files.junit(View.of(with_code(CODE))))  # noqa: S314 - our own
    cases = {
        case.attrib["name"]: [child.tag for child in case]
        for case in root.iter("testcase")
        if case.attrib["classname"] == "uses"
    }
    assert cases == {
        PACKED.path: ["failure"],
        OVERRIDE.path: ["failure"],
        IN_CELL.path: ["skipped"],
        OPEN.path: ["skipped"],
        NEITHER.path: ["skipped"],
        PROTECTED.path: ["system-out"],
        BETTER.path: ["system-out"],
        SAME.path: ["system-out"],
    }


def test_json_has_typed_fields() -> None:
    code = json.loads(files.as_json(View.of(with_code(CODE))))["uses"]
    assert [code[name] for name in ("paths", "files", "lines", "left_out", "ranges")] == [
        ["src", "nb"],
        120,
        30_211,
        3,
        [">=2.9,<2.12"],
    ]
    assert code["names"][DESCRIPTOR] == "breaks"
    assert code["unread"][1] == {
        "file": "src/bad.py",
        "line": 3,
        "column": 1,
        "cell": 0,
        "source": "",
        "reason": "it does not parse",
        "may_use": True,
    }
    packed = next(each for each in code["uses"] if each["file"] == "src/attention.py")
    assert {name: packed[name] for name in ("name", "kind", "line", "column", "cell", "outcome", "guards")} == {
        "name": DESCRIPTOR,
        "kind": "called",
        "line": 41,
        "column": 5,
        "cell": 0,
        "outcome": "breaks",
        "guards": [],
    }
    assert [(each["cause"], each["subject"]) for each in packed["causes"]] == [
        ("argument now needed", "is_thd"),
        ("argument now needed", "is_segment_ids_reordered"),
    ]
    assert json.loads(files.as_json(View.of(NOTHING)))["uses"] is None


def test_page_folds_uses_by_file() -> None:
    page = without_pictures(with_code(CODE))
    folded = re.findall(r"<summary><code>(.*?)</code>\s*(.*?)</summary>", page)
    assert folded == [
        ("nb/try.ipynb", "1 use: 1 changes"),
        ("src/attention.py", "1 use: 1 breaks"),
        ("src/g.py", "5 uses: 1 as before, 1 works now, 1 guarded, 1 not known, 1 is broken already"),
        ("src/packed.py", "1 use: 1 breaks"),
        ("src/quant.py", "1 use: 1 breaks"),
    ]


# --- hostile and many ----------------------------------------------------------------------------------------------

HOSTILE = dataclasses.replace(PACKED, path=f"transformer_engine.{NASTY}", place=Place(NASTY, 1, source=NASTY))


@pytest.mark.parametrize("outcome", [Outcome.BREAKS, Outcome.CHANGES, Outcome.SAME])
def test_texts_do_nothing_to_a_page_or_a_terminal(outcome: Outcome) -> None:
    cause = None if outcome is Outcome.SAME else Cause.DEFAULT
    hostile = judged(
        Judgement(HOSTILE, outcome, cause, NASTY, NASTY, NASTY, NASTY),
        unread=(Unread(Place(NASTY, 1), NASTY, may_use=True),),
    )
    comparison = with_code(dataclasses.replace(hostile, found=dataclasses.replace(hostile.found, paths=(NASTY,))))
    page, comment = without_pictures(comparison), rendered(markdown.markdown(View.of(comparison)))
    assert "<script>alert" not in page + comment
    assert not re.search(r"[@#]\w", re.sub(r"<code.*?</code>", "", comment)), "GitHub makes a mention or a link of it"
    assert "\x1b" not in printed(comparison) + page + files.junit(View.of(comparison))
    assert CLEAN in of_html(comparison)


def test_many_are_counted_where_there_is_no_room() -> None:
    many = judged(
        *(
            Judgement(use(f"{JAX}.f{number}", "a.py", number, "x" * 500), outcome, Cause.NAME_GONE)
            for number in range(1, 2_001)
            for outcome in [(Outcome.BREAKS, Outcome.CHANGES)[number % 2]]
        ),
        unread=tuple(Unread(Place(f"b{number}.py", 0), "it does not parse", may_use=True) for number in range(100)),
    )
    comment, lines = markdown.markdown(View.of(with_code(many))), printed(with_code(many)).splitlines()
    assert len(comment) < 60_000
    shown = comment.count("**`a.py:")
    assert f"And {1_000 - shown:,} more names: see the page." in comment
    assert len(lines) <= 70
    assert max(map(len, lines)) <= 80
    assert "    and 991 more names: see the page" in lines
    page = without_pictures(with_code(many))
    assert page.count('class="card p-broken"') == 1_000


def test_comment_has_room_for_the_code_beside_everything_else() -> None:
    long = "x|" * 8_000
    many = judged(
        *(
            Judgement(use(f"{JAX}.f{number}", "folder/" * 20, number, "x|" * 80), outcome, Cause.NAME_GONE)
            for number in range(1, 300)
            for outcome in [list(Outcome)[number % 7]]
        )
    )
    rule = Rule("long", Severity.BREAKS, long, long, long)
    found = Difference("api", long, rule, (EntryChange(f"api/{long}", Text(long), Text(long), part=long),) * 3)
    gaps = tuple(Gap(kind, effect, (long,) * 9, long) for kind in GapKind for effect in Effect)
    whole = dataclasses.replace(
        with_code(many),
        differences=(found, dataclasses.replace(found, accepted=long)),
        limits=(long,) * 50,
        stale=(long,) * 50,
        coverage=dataclasses.replace(NOTHING.coverage, gaps=gaps),
    )
    assert len(markdown.markdown(View.of(whole))) < 60_000
