"""What the owner of an upgrade gets to see: every form says the same, says it whole, and says what was left out."""

import dataclasses
import datetime as dt
import json
import math
import re
from collections.abc import Callable, Mapping
from html import unescape
from xml.etree import ElementTree as ET

import pytest

from mnist_fp8.core.capability import VARIABLE as CAPABILITY
from mnist_fp8.core.model import VARIABLE
from mnist_fp8.core.subjects import SUBJECTS
from mnist_fp8.gate.reports import markup, values
from mnist_fp8.gate.reports.verdict import costs, files, html, markdown, view
from mnist_fp8.gate.reports.verdict.view import View
from mnist_fp8.gate.verdict import compare
from mnist_fp8.gate.verdict.changes import EntryChange
from mnist_fp8.gate.verdict.comparison import Comparison
from mnist_fp8.gate.verdict.costs import CostChange
from mnist_fp8.gate.verdict.coverage import Effect, Gap, GapKind
from mnist_fp8.gate.verdict.policy import Acceptance
from mnist_fp8.gate.verdict.rules.rule import Difference, Rule, Severity
from mnist_fp8.record.checkpoints import Unrestored
from mnist_fp8.record.claims import ClaimResult, Outcome, SuiteResult, TestResult
from mnist_fp8.record.entries import (
    Codes,
    Cost,
    Curves,
    Numbers,
    Parameter,
    Quantity,
    Signature,
    Support,
    Text,
    Value,
)
from mnist_fp8.record.record import Record
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
from support.subprocesses import run_code

TODAY = dt.date(2026, 11, 22)
LABELS = tuple(f"step {step}" for step in range(4))
SAFE: dict[str, Value] = {
    "api/te.jax.old_name": Signature("function", (Parameter("x", "either", None),)),
    "api/te.jax.autocast": Signature("function", (Parameter("enabled", "either", "False"),)),
    "recipes/DelayedScaling/support": Support(ok=True),
    "variables/BF16/params/kernel": Text("float32[32, 16]"),
    "metadata/max/x scale used": Numbers((1.0, 2.0, 4.0, 8.0), LABELS, quantity=Quantity.SCALE_USED),
    "metadata/max/x scale stored": Numbers((1.0, 2.0, 4.0, 8.0), LABELS),
    "numerics/DelayedScaling/output against float64": Numbers((0.01, 0.02), ("16x16x16 normal", "16x16x16 wide")),
    "behaviour/layers/kernel after init": Text("Array"),
    "import/end/exit code": Text("0"),
    "training/TE FP8/loss": Curves((1, 2), ((2.0, 1.0), (2.0, 1.1))),
    "costs/DelayedScaling/step": Cost((0.010, 0.011, 0.010), "s"),
    **dict.fromkeys(
        [
            "variables/BF16/params/dense/kernel",
            "variables/DelayedScaling/params/dense/kernel",
            *(f"float8/{mode}/x" for mode in ("outside autocast", "DelayedScaling")),
            *("numerics/BF16/x", "special/BF16/x", "special/DelayedScaling/x", "bits/DelayedScaling/x"),
            *("training/TE BF16/x", "training/DelayedScaling/x"),
            *(f"layers/DenseGeneral/plain/{mode}/numerics/x" for mode in ("BF16", "DelayedScaling")),
            "layers/LayerNorm/plain/BF16/numerics/x",
        ],
        Text("x"),
    ),
}
CHANGED: dict[str, Value] = {
    "metadata/max/x scale stored": Numbers((2.0, 4.0, 8.0, 16.0), LABELS),
    "numerics/DelayedScaling/output against float64": Numbers((0.01, 0.021), ("16x16x16 normal", "16x16x16 wide")),
    "behaviour/layers/kernel after init": Text("LogicallyPartitioned"),
    "costs/DelayedScaling/step": Cost((0.020, 0.021, 0.020), "s"),
}
BROKEN: dict[str, Value] = {"recipes/DelayedScaling/support": Support(ok=False, reason="no kernel")}
ACCEPTED = Acceptance("behaviour/layers/*", "we unbox parameters ourselves", dt.date(2027, 1, 31))


def claims(*broken: str) -> SuiteResult:
    """Three claims: one with a test that is not verified, and those that are broken."""
    found = []
    for name in ("parity", "jaxpr", "kernels"):
        tests = [TestResult(f"tests/claims/test_{name}.py::test_it", Outcome.PASSED)]
        if name == "kernels":
            tests = [TestResult("tests/claims/test_kernels.py::test_it", Outcome.SKIPPED, "needs a GPU")]
        if name == "parity":
            ended = (Outcome.FAILED, "dW is twice too large") if name in broken else (Outcome.PASSED,)
            tests.append(TestResult(f"tests/claims/test_{name}.py::test_dw", *ended))
        found.append(ClaimResult(name, tuple(tests)))
    return SuiteResult(tuple(found), "host run")


def record(te: str, entries: Mapping[str, Value], *broken: str, run: str = "host", problem: str = "") -> Record:
    environment = {
        "run": f"{run} run",
        "transformer-engine": te,
        "jax": "0.10.2",
        "flax": "0.12.8",
        "device": "1 x cpu",
    }
    return Record(te, te, run, environment, "s", (te,), entries, 1.0, problem, claims(*broken))


def compared(new: Mapping[str, Value] = {}, *broken: str, run: str = "host", accepted: bool = True) -> Comparison:
    sides = record("2.2.0", SAFE, run=run), record("2.3.0", {**SAFE, **new}, *broken, run=run)
    return compare.compare(*sides, [ACCEPTED] if accepted else [], TODAY)


EVERYTHING = compared({**CHANGED, **BROKEN, "api/te.jax.new_name": Signature("function")}, "parity")
EVERYTHING = dataclasses.replace(EVERYTHING, stale=("numerics/x: accepted, but no difference",))
LAYERS = "te.DenseGeneral in BF16, DelayedScaling; te.LayerNorm in BF16"
WHAT = f"26 entries of 13 areas, of {LAYERS}, host run"
PARTIAL = compare.compare(record("2.2.0", SAFE), record("2.3.0", SAFE), (), TODAY, only=("numerics", "bits"))
UNVERIFIED = compare.compare(record("2.2.0", {}, problem="it hung\nfor ever"), record("2.3.0", SAFE), (), TODAY)


def with_values(old: str, new: str) -> Comparison:
    """A comparison whose one difference has those values."""
    changed = SAFE | {"behaviour/layers/x": Text(old)}, SAFE | {"behaviour/layers/x": Text(new)}
    return compare.compare(record("2.2.0", changed[0]), record("2.3.0", changed[1]), (), TODAY)


def many(differences: int, details: int = 1) -> Comparison:
    """A comparison with so many differences, each of its own meaning and with so many entries."""
    made = [
        Difference(
            "behaviour",
            f"thing {number}",
            Rule(
                f"rule-{number}",
                Severity.BREAKS if number < 3 else Severity.CHANGES,
                "changed",
                f"Meaning {number}.",
                "Do this.",
            ),
            tuple(
                EntryChange(f"behaviour/layers/thing {number} {index}", Text("old"), Text("new"))
                for index in range(details)
            ),
        )
        for number in range(differences)
    ]
    return dataclasses.replace(EVERYTHING, differences=tuple(made))


# --- every form --------------------------------------------------------------------------------------------------


every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@pytest.mark.parametrize("form", [of_junit, of_json])
def test_every_difference_that_counts_is_told_whole(form: Callable[[Comparison], str]) -> None:
    counting = [each for each in EVERYTHING.differences if each.counts]
    assert {each.area for each in counting} >= {"claims", "recipes", "metadata", "numerics"}, "Control"
    text = form(EVERYTHING)
    for each in counting:
        worst, rule = each.entries[0], each.rule
        command = EVERYTHING.command(worst.key)
        assert not lacks(text, each.title, *values.sides(worst), values.size(worst), rule.meaning, rule.action, command)
        assert not lacks(text, rule.id) or form is of_junit


@every_form
def test_every_root_that_counts_is_told_whole(form: Callable[[Comparison], str]) -> None:
    counting = [root for root in EVERYTHING.roots if root.main.counts]
    assert {root.main.area for root in counting} >= {"claims", "recipes", "metadata", "numerics"}, "Control"
    text = form(EVERYTHING)
    for root in counting:
        rule, first = root.main.rule, root.first
        said = [*values.sides(first), values.size(first), rule.meaning, rule.action, EVERYTHING.command(first.key)]
        assert not lacks(text, *root.subjects, *(said if form is not of_junit else said[3:]))
        if form is not of_junit:
            assert not lacks(text, rule.id, *([root.effect.value] if root.effect else []))
        if form not in (of_junit, of_json):
            assert not lacks(text, *map(values.measured, root.measures[:1]))


def one_recipe() -> Comparison:
    """What follows in one recipe from another scale."""
    sides = (
        SAFE
        | {
            "metadata/max/x scale used": Numbers((1.0, scale, 4 * scale), LABELS[:3], quantity=Quantity.SCALE_USED),
            "bits/DelayedScaling/x": Codes(str(scale), 9, 0),
            "numerics/DelayedScaling/output in tolerances": Numbers((error,), ("a",), 0.0, Quantity.IN_TOLERANCES),
        }
        for scale, error in ((2.0, 0.61), (2.5, 0.63))
    )
    old, new = (record(te, side) for te, side in zip(("2.2.0", "2.3.0"), sides, strict=True))
    return compare.compare(old, new, (), TODAY)


@pytest.mark.parametrize("form", [of_terminal, of_markdown, of_html, of_json])
def test_root_names_what_diverges_first_and_holds_what_follows(form: Callable[[Comparison], str]) -> None:
    text = form(one_recipe())
    assert not lacks(text, "1 difference can break", "step 1: 2", "step 1: 2.5", "max/x scale used", "damage")
    for one in one_recipe().differences if form is not of_terminal else ():
        assert not lacks(text, one.entries[0].key, one.rule.id, one.rule.meaning, one.rule.action)
    if form is not of_json:
        assert not lacks(text, "3 entries: metadata 1, bits 1, numerics 1", "other scales used: DelayedScaling")


def test_junit_has_a_case_for_each_difference_by_area() -> None:
    assert {"metadata", "bits", "numerics"} <= set(suites(one_recipe()))


@every_form
@pytest.mark.parametrize("run", ["host", "kernel"])
def test_kind_of_run_and_what_it_cannot_see_are_said(form: Callable[[Comparison], str], run: str) -> None:
    kinds = {
        "host": ("ost run: Transformer Engine's own Python on the CPU", "CUDA kernels, cuBLAS and the FFI"),
        "kernel": ("ernel run: Transformer Engine with its CUDA extension, on a GPU", "other kinds of GPU"),
    }
    text = form(compared(run=run))
    other = "kernel" if run == "host" else "host"
    assert not lacks(text, *kinds[run])
    assert len(lacks(text, *kinds[other])) == 2


@every_form
def test_gpu_that_a_host_run_pretends_is_said(form: Callable[[Comparison], str]) -> None:
    def said(*sides: str) -> str:
        records = (record(te, SAFE) for te in ("2.2.0", "2.3.0"))
        old, new = (
            dataclasses.replace(each, environment={**each.environment, CAPABILITY: side})
            for each, side in zip(records, sides, strict=True)
        )
        return form(compare.compare(old, new, (), TODAY))

    default = "compute capability 9.0, and 10.0 for MXFP8 and NVFP4; products of MXFP8 and NVFP4 are computed by their"
    blackwell = "compute capability 10.0 for all recipes; products of MXFP8 and NVFP4 are computed by their definition"
    assert not lacks(said("", ""), f"A host run pretends {default}")
    assert not lacks(said("10.0", "10.0"), f"A host run pretends {blackwell}")
    hopper = "compute capability 9.0 for all recipes, so that MXFP8 and NVFP4 do not run"
    assert not lacks(said("10.0", "9.0"), f"The old side pretends {blackwell}; the new side {hopper}")


@every_form
def test_run_that_is_not_known_is_no_kind(form: Callable[[Comparison], str]) -> None:
    nothing = compare.compare(
        record("2.2.0", {}, run="", problem="no"), record("2.3.0", {}, run="", problem="no"), (), TODAY
    )
    assert not lacks(form(nothing), "The kind of run is not known")


@every_form
@pytest.mark.parametrize(
    ("comparison", "verdict", "means"),
    [
        (compared(), "SAFE", f"Nothing that a user can see differs beyond noise, in {WHAT}."),
        (
            PARTIAL,
            "PARTIAL",
            f"Only a part was looked at. Nothing in it differs beyond noise: {WHAT}. This is no pass.",
        ),
        (compared(CHANGED), "CHANGED", "Nothing breaks, but 2 differences can be seen"),
        (compared(CHANGED), "CHANGED", "Not counted: 1 accepted."),
        (compared(BROKEN), "BROKEN", "1 difference can break what works today: resolve before you upgrade."),
        (
            EVERYTHING,
            "BROKEN",
            "2 differences can break what works today: resolve before you upgrade. 2 more can be seen.",
        ),
        (UNVERIFIED, "UNVERIFIED", "Too little is known for a verdict; this is not a pass."),
    ],
)
def test_verdict_comes_with_what_it_means(
    form: Callable[[Comparison], str], comparison: Comparison, verdict: str, means: str
) -> None:
    assert not lacks(form(comparison), verdict, means)


@every_form
def test_what_is_not_known_or_not_compared_is_said(form: Callable[[Comparison], str]) -> None:
    assert not lacks(form(UNVERIFIED), "the old one could not be measured: it hung for ever")
    assert not lacks(form(PARTIAL), "only this was asked for: numerics, bits")
    assert form is of_json or not lacks(form(compared()), "claims verified on neither side: kernels (needs a GPU)")
    limited = dataclasses.replace(compared(), limits=("trained on different data: training is not compared",))
    assert not lacks(form(limited), *limited.limits)


@pytest.mark.parametrize("form", [of_terminal, of_markdown, of_html, of_json])
def test_costs_and_useless_acceptances_are_said(form: Callable[[Comparison], str]) -> None:
    text = form(EVERYTHING)
    assert not lacks(text, "DelayedScaling/step", *EVERYTHING.stale)
    if form is not of_json:
        assert not lacks(text, "10 ms", "20 ms", "+100%", "± 10%")
        assert "o verdict rests on" in text


@pytest.mark.parametrize("form", [of_markdown, of_html, of_junit, of_json])
def test_accepted_differences_keep_their_reason_and_last_day(form: Callable[[Comparison], str]) -> None:
    assert not lacks(form(EVERYTHING), "kernel after init", "we unbox parameters ourselves (until 2027-01-31)")


@pytest.mark.parametrize("form", [of_markdown, of_html, of_junit, of_json])
def test_noted_differences_are_there_and_count_for_nothing(form: Callable[[Comparison], str]) -> None:
    assert not lacks(form(EVERYTHING), "name added", "te.jax.new_name", "There is a new name to use.")


@every_form
def test_values_stay_what_they_are(form: Callable[[Comparison], str]) -> None:
    text = form(with_values("plain", NASTY))
    assert not lacks(text, "plain", NASTY if form is of_json else CLEAN)


def nasty_tables() -> Comparison:
    """A difference with three entries, so that two or all of them stand in a table."""
    first = many(1).differences[0]
    entries = (dataclasses.replace(first.entries[0], old=Text(NASTY), new=Text(NASTY), part=NASTY),) * 3
    return dataclasses.replace(EVERYTHING, differences=(dataclasses.replace(first, entries=entries),))


@pytest.mark.parametrize("comparison", [with_values("plain", NASTY), nasty_tables()])
def test_values_do_nothing_to_a_page_or_a_terminal(comparison: Comparison) -> None:
    assert "<script>alert" not in without_pictures(comparison)
    assert "<script>alert" not in rendered(markdown.markdown(View.of(comparison)))
    text = re.sub(r"<code.*?</code>", "", rendered(markdown.markdown(View.of(comparison))))
    assert not re.search(r"[@#]\w", text), "GitHub makes a mention or a link of it"
    assert "\x1b" not in printed(comparison)


def test_values_in_tables_of_markdown_stay_in_their_cells() -> None:
    page = rendered(markdown.markdown(View.of(nasty_tables())))
    cells = [unescape(re.sub("<[^>]*>", "", each)) for each in re.findall(r"<td>(.*?)</td>", page)]
    assert cells.count(CLEAN) == 9, "three rows: old, new and size"


# --- what is cut says so -----------------------------------------------------------------------------------------


def test_many_differences_fit_on_a_screen_and_the_others_are_counted() -> None:
    useless = tuple(f"x{number}: accepted, but no difference" for number in range(100))
    text = printed(dataclasses.replace(many(5_000), stale=useless))
    lines = text.splitlines()
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 80
    shown = re.findall(r"^[✗~] (?:breaks|changes) behaviour: changed: thing (\d+)", text, re.MULTILINE)
    assert shown[:3] == ["0", "1", "2"], "the worst first"
    assert f"  and {5_000 - len(shown):,} more: see the page" in lines
    assert "policy: and 95 more" in lines


def test_few_differences_on_a_screen_are_all_there() -> None:
    text = printed(EVERYTHING)
    assert max(map(len, text.splitlines())) <= 80
    assert len(text.splitlines()) <= 45
    assert "see the page" not in text


def test_long_values_on_a_screen_show_where_they_differ() -> None:
    long = with_values(f"{'same ' * 100}old {'same ' * 100}", f"{'same ' * 100}new {'same ' * 100}")
    line = next(line for line in printed(long).splitlines() if "→" in line and "same" in line)
    assert len(line) <= 80
    assert re.search(r"….*same old same.*→ ….*same new same", line)


@pytest.mark.parametrize(("differences", "details"), [(5_000, 1), (1, 5_000), (40, 200)])
def test_markdown_fits_into_a_comment_and_counts_what_does_not(differences: int, details: int) -> None:
    text = markdown.markdown(View.of(many(differences, details)))
    assert len(text) < 60_000
    shown = len(re.findall(r"^#### ", text, re.MULTILINE))
    assert shown >= 1
    if shown < differences:
        assert f"**And {differences - shown:,} more differences:** see the page" in text
    if details > 1:
        table = text.partition(f"<details><summary>{details:,} entries</summary>")[2].partition("</details>")[0]
        rows = table.count("\n| ") - 2
        assert f"And {details - rows:,} more." in table


def test_markdown_fits_whatever_is_long() -> None:
    long = "x|" * 8_000
    rule = Rule("long", Severity.BREAKS, long, long, long)
    huge = Difference("api", long, rule, (EntryChange(f"api/{long}", Text(long), Text(long), part=long),) * 3)
    stale, costs = (long,) * 50, (CostChange(long, 1.0, 2.0, "s", 3, 0.1),) * 50
    noted, accepted = (
        dataclasses.replace(huge, **change)
        for change in ({"rule": dataclasses.replace(rule, severity=Severity.NOTE)}, {"accepted": long})
    )
    gaps = tuple(Gap(kind, effect, (each,) * 9, each) for kind in GapKind for effect in Effect for each in stale[:9])
    everything = dataclasses.replace(
        EVERYTHING,
        differences=(huge, noted, accepted),
        stale=stale,
        costs=costs,
        limits=stale,
        coverage=dataclasses.replace(EVERYTHING.coverage, gaps=gaps),
    )
    text = markdown.markdown(View.of(everything))
    assert len(text) < 60_000
    assert "**And 1 more difference:**" in text


def test_page_and_junit_count_the_entries_that_they_leave_out() -> None:
    comparison = many(1, 5_000)
    page = without_pictures(comparison)
    assert "And 4,900 more: the JSON has them all." in page
    assert page.count("<tr><th>behaviour/layers/thing 0 ") == 100
    assert "and 4,900 more" in files.junit(View.of(comparison))
    assert len(json.loads(files.as_json(View.of(comparison)))["differences"][0]["entries"]) == 5_000


@pytest.mark.parametrize("form", [of_markdown, of_html])
def test_alike_differences_are_explained_once(form: Callable[[Comparison], str]) -> None:
    rule = Rule("same", Severity.CHANGES, "changed", "The same.", "Do this.")
    alike = [dataclasses.replace(each, rule=rule) for each in many(12).differences[3:]]
    text = form(dataclasses.replace(EVERYTHING, differences=tuple(alike)))
    assert not lacks(text, "behaviour: changed: thing 3, thing 4, thing 5 and 6 more", "9 entries")
    assert text.count("The same.") == text.count("mnist-fp8 upgrade") == 1


@pytest.mark.parametrize("form", [of_markdown, of_html, of_json])
def test_entries_under_one_rule_stand_with_the_worst_first(form: Callable[[Comparison], str]) -> None:
    one = many(4, 3).differences[3]
    weighed = tuple(
        dataclasses.replace(entry, weight=weight) for entry, weight in zip(one.entries, (1.0, -3.0, 2.0), strict=True)
    )
    comparison = dataclasses.replace(EVERYTHING, differences=(dataclasses.replace(one, entries=weighed),))
    text = form(comparison) if form is not of_json else str(json.loads(files.as_json(View.of(comparison)))["roots"])
    assert re.findall(r"behaviour/layers/thing 3 (\d)", text)[-3:] == ["1", "2", "0"]


@pytest.mark.parametrize("form", [of_markdown, of_html])
def test_commands_measure_what_diverges_first_and_what_decides(form: Callable[[Comparison], str]) -> None:
    error = "numerics/DelayedScaling/output in tolerances"
    sides = [
        SAFE
        | {
            "bits/DelayedScaling/x": Codes(str(size), 9, 0),
            error: Numbers((size,), ("a",), 0.0, Quantity.IN_TOLERANCES),
        }
        for size in (0.5, 2.0)
    ]
    comparison = compare.compare(record("2.2.0", sides[0]), record("2.3.0", sides[1]), (), TODAY)
    text = form(comparison)
    assert text.count("mnist-fp8 upgrade") == 2
    assert not lacks(text, comparison.command("bits/DelayedScaling/x"), comparison.command(error))


@pytest.mark.parametrize("form", [of_markdown, of_html, of_terminal])
def test_model_that_the_claims_are_about_is_named(form: Callable[[Comparison], str]) -> None:
    def found(*models: str) -> Comparison:
        made = [record(te, SAFE) for te in ("2.2.0", "2.3.0")]
        facts = [{VARIABLE: name} if name else {} for name in models]
        old, new = (
            dataclasses.replace(each, environment={**each.environment, **fact})
            for each, fact in zip(made, facts, strict=True)
        )
        return compare.compare(old, new, (), TODAY)

    assert not lacks(form(found("ours.model:case", "ours.model:case")), ", model ours.model:case")
    assert not lacks(form(found("", "ours.model:case")), ", model of mnist-fp8 → ours.model:case")
    assert "model of mnist-fp8" not in form(found("", "")), "Control: our own"


# --- Markdown ----------------------------------------------------------------------------------------------------


def test_markdown_starts_with_its_mark_and_the_verdict() -> None:
    lines = markdown.markdown(View.of(compared(CHANGED))).splitlines()
    assert lines[0] == "<!-- mnist-fp8 upgrade -->"
    assert lines[2] == "## ⚠️ CHANGED: Transformer Engine 2.2.0 → 2.3.0"


def test_markdown_has_a_row_for_each_area() -> None:
    text = markdown.markdown(View.of(EVERYTHING))
    assert "| claims | the suite's claims | 3 | **1** |  |  |  |" in text
    assert "| behaviour | what layers and contexts do | 1 |  |  |  | **1** |" in text
    assert "| training | training curves | 3 |  |  |  |  |" in text
    assert "| costs |" not in text, "no verdict rests on them"


def test_markdown_says_which_of_the_environment_differs() -> None:
    text = markdown.markdown(View.of(EVERYTHING))
    assert "| **transformer-engine** | `2.2.0` | `2.3.0` |" in text
    assert "| jax | `0.10.2` | `0.10.2` |" in text


# --- the page ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page() -> str:
    return html.html(View.of(EVERYTHING))


def test_page_needs_nothing_else(page: str) -> None:
    addresses = re.findall(r"https?://[^\"' )]*", page)
    assert set(addresses) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}, "names of namespaces only"
    assert not re.search(r"""\bsrc=|<link|@import|url\((?!#)|href="(?!#)""", page)


def test_page_has_each_id_once_and_links_to_what_is_there(page: str) -> None:
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    links = re.findall(r'\bhref="#([^"]*)"', page) + re.findall(r"url\(#([^)]*)\)", page)
    assert "differences" in links
    assert set(links) <= set(ids)


def test_page_marks_where_values_differ() -> None:
    page = without_pictures(with_values("bfloat16 x float8, 3 times", "bfloat16 x bfloat16, 3 times"))
    assert "<code>bfloat16 x <mark>float8</mark>, 3 times</code>" in page
    assert "<code>bfloat16 x <mark>bfloat16</mark>, 3 times</code>" in page


def test_page_shows_pictures_of_what_differs_and_folds_the_others(page: str) -> None:
    shown = re.sub(r"<details>.*?</details>", "", page, flags=re.DOTALL)
    titles = re.findall("<figcaption>(.*?)</figcaption>", page)
    assert [title.partition(":")[0] for title in titles] == [
        "TE FP8, loss",
        "max, x",
        "DelayedScaling, error of output",
    ]
    assert re.findall("<figcaption>(.*?)</figcaption>", shown) == titles[1:]
    assert "1 picture of what does not differ, or not beyond noise" in page


def test_page_of_two_equal_records_says_so_and_has_no_cards() -> None:
    page = without_pictures(compared())
    assert "<article" not in page
    assert 'class="banner holds"' in page
    assert "1.05 (1 to 1.1)" in page, "the end of training"


# --- JUnit and JSON ----------------------------------------------------------------------------------------------


def suites(comparison: Comparison) -> dict[str, ET.Element]:
    root = ET.fromstring(files.junit(View.of(comparison)))  # noqa: S314 - our own
    return {str(suite.get("name")): suite for suite in root}


@pytest.mark.parametrize("comparison", [EVERYTHING, UNVERIFIED, compared(), many(50)])
def test_junit_counts_agree(comparison: Comparison) -> None:
    for suite in suites(comparison).values():
        cases = suite.findall("testcase")
        assert suite.get("tests") == str(len(cases))
        for name, outcome in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert suite.get(name) == str(len(suite.findall(f"testcase/{outcome}")))


def test_junit_fails_what_breaks_and_skips_what_changes_or_is_accepted() -> None:
    found = {
        (area, case.get("name")): [(child.tag, (child.get("message") or "").partition(":")[0]) for child in case]
        for area, suite in suites(EVERYTHING).items()
        for case in suite.findall("testcase")
    }
    assert found == {
        ("upgrade", "enough is known for a verdict"): [],
        ("upgrade", "everything that can be was looked at"): [],
        ("claims", "parity: promise broken"): [("failure", "breaks")],
        ("claims", "jaxpr"): [],
        ("claims", "kernels"): [("skipped", "not verified")],
        ("api", EVERYTHING.of("api")[0].title): [("system-out", "")],
        ("recipes", "DelayedScaling: no longer runs here"): [("failure", "breaks")],
        ("variables", "3 entries without a difference"): [],
        ("float8", "2 entries without a difference"): [],
        ("bits", "1 entry without a difference"): [],
        ("special", "2 entries without a difference"): [],
        ("metadata", "scale stored: metadata stored differently"): [("skipped", "changes")],
        ("numerics", "DelayedScaling: results rounded differently"): [("skipped", "changes")],
        ("behaviour", "kernel after init: parameter container changed"): [("skipped", "accepted")],
        ("training", "3 entries without a difference"): [],
        ("import", "1 entry without a difference"): [],
        ("layers", "3 entries without a difference"): [],
    }


@pytest.mark.parametrize("form", FORMS)
def test_command_that_mends_a_checkpoint_is_said(form: str) -> None:
    def shown(new: Value) -> str:
        key, as_it_was = "checkpoints/R/Orbax/steps", Numbers((1.0,), ("step 1",))
        old = record("2.2.0", {**SAFE, key: as_it_was})
        found = compare.compare(old, record("2.3.0", {**SAFE, key: new}), (), TODAY)
        return " ".join(FORMS[form](found).split())

    command = "mnist-fp8 migrate CHECKPOINT -o NEW --from 2.2.0 --to 2.3.0 --like SHAPES"
    error = Unrestored("ValueError", "no such name", tuple(command.split()))
    assert command in shown(error)
    assert "after migration; as it is" in shown(error)
    assert "nor after migration: no way" in shown(dataclasses.replace(error, problem="no way"))


def test_junit_makes_what_is_not_known_an_error() -> None:
    errors = suites(UNVERIFIED)["upgrade"].findall("testcase/error")
    assert [each.get("message") for each in errors] == ["the old one could not be measured: it hung for ever"]


def test_junit_skips_what_a_partial_look_leaves_out() -> None:
    (case,) = suites(PARTIAL)["upgrade"].findall("testcase/skipped")
    assert case.get("message") == "only this was asked for: numerics, bits"


def test_json_has_every_field() -> None:
    document = json.loads(files.as_json(View.of(EVERYTHING)))
    assert document["schema_version"] == 3
    assert (document["verdict"], document["run"]) == ("BROKEN", "host")
    assert document["old"]["environment"] == dict(EVERYTHING.old.environment)
    assert document["compared"] == dict(EVERYTHING.compared)
    assert (document["unverified"], document["partial"]) == ([], [])
    assert document["coverage"] == {
        "layers": {"DenseGeneral": ["BF16"], "LayerNorm": ["BF16"]},
        "modes": ["BF16"],
        "gaps": [
            {"kind": "claims skipped", "effect": "noted", "names": ["kernels"], "reason": "needs a GPU"},
            {"kind": "checkpoints not tried", "effect": "noted", "names": [], "reason": ""},
            {
                "kind": "layers that are not looked at",
                "effect": "noted",
                "names": sorted(SUBJECTS.keys() - {"DenseGeneral", "LayerNorm"}),
                "reason": "",
            },
        ],
    }
    assert [each["title"] for each in document["differences"]] == [each.title for each in EVERYTHING.differences]
    first, difference = document["differences"][0], EVERYTHING.differences[0]
    rule, change = difference.rule, difference.entries[0]
    words = {"rule": rule.id, "severity": "breaks", "meaning": rule.meaning, "action": rule.action}
    assert first.items() >= (words | {"area": "claims", "subject": "parity", "counts": True, "accepted": ""}).items()
    assert first["entries"][0] == {
        "key": change.key,
        "old": "passed",
        "new": "failed: dW is twice too large",
        "size": "test_dw",
        "weight": 0.0,
        "command": EVERYTHING.command(change.key),
    }
    assert document["costs"][0]["ratio"] == 2


def test_json_has_no_numbers_that_json_does_not_know() -> None:
    change = EntryChange("behaviour/layers/x", Text("1"), Text("nan"), weight=math.inf)
    difference = dataclasses.replace(many(1).differences[0], entries=(change,))
    costs = (CostChange("x", 0.0, 1.0, "s", 3, math.nan),)
    text = files.as_json(View.of(dataclasses.replace(EVERYTHING, differences=(difference,), costs=costs)))
    document = json.loads(text, parse_constant=lambda name: pytest.fail(f"a bare {name}"))
    assert document["differences"][0]["entries"][0]["weight"] == "inf"
    assert (document["costs"][0]["ratio"], document["costs"][0]["spread"]) == ("nan", "nan")


# --- pieces ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("a b c", "a x c", ("a ", "b", "x", " c")),
        ("a", "b", ("", "a", "b", "")),
        ("a", "a", ("a", "", "", "")),
        ("a a", "a a a", ("a a", "", " a", "")),
        ("scale 1.25e-05", "scale 1.75e-05", ("scale ", "1.25e-05", "1.75e-05", "")),
        ("", "x", ("", "", "x", "")),
    ],
)
def test_texts_are_taken_apart_at_whole_words(old: str, new: str, parts: tuple[str, ...]) -> None:
    assert markup.apart(old, new) == parts
    assert parts[0] + parts[1] + parts[3] == old
    assert parts[0] + parts[2] + parts[3] == new


@pytest.mark.parametrize(
    ("old", "new"), [("a" * 500, "b"), ("b", "a" * 500), ("a " * 200 + "b", "a " * 200 + "c"), ("a" * 500, "b" * 500)]
)
def test_shortened_texts_fit_and_differ(old: str, new: str) -> None:
    one, other = view.around(old, new, 60)
    assert len(one) + len(other) <= 60
    assert one != other


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1.5, "s", "1.5 s"),
        (0.00312, "s", "3.12 ms"),
        (2.5e-06, "s", "2.5 µs"),
        (3 * 2**20, "bytes", "3.0 MiB"),
        (0.0, "s", "0 µs"),
    ],
)
def test_amounts_have_a_unit_of_their_size(value: float, unit: str, text: str) -> None:
    assert costs.amount(value, unit) == text


def test_costs_that_repetitions_explain_are_no_change() -> None:
    costs = (CostChange("a", 1.0, 1.2, "s", 3, 0.3), CostChange("b", 1.0, 0.9, "s", 3, 0.05))
    assert "b 1 s → 900 ms, -10%, repetitions ± 5%; the largest change of 2" in printed(
        dataclasses.replace(EVERYTHING, costs=costs), 200
    )
    assert "none of 1 changed by more than repetitions do" in printed(
        dataclasses.replace(EVERYTHING, costs=costs[:1]), 200
    )


def test_importing_it_imports_nothing_heavy() -> None:
    code = """
        import sys
        import mnist_fp8.gate.reports.verdict.html, mnist_fp8.gate.reports.verdict.files
        print([name for name in ("matplotlib", "numpy", "jax", "transformer_engine") if name in sys.modules])
    """
    assert run_code(code).strip() == "[]"


def test_upgrade_of_jax_is_called_that() -> None:
    old = record("2.20.2", SAFE)
    new = dataclasses.replace(old, environment={**old.environment, "jax": "0.11.2"})
    headline = view.headline(View.of(compare.compare(old, new, (), TODAY)))
    assert headline == "JAX 0.10.2 → 0.11.2 with Transformer Engine 2.20.2"


def test_release_against_itself_is_called_that() -> None:
    old = record("2.20.2", SAFE)
    headline = view.headline(View.of(compare.compare(old, old, (), TODAY)))
    assert headline == "Transformer Engine 2.20.2 against itself"


@every_form
def test_flax_alone_that_trains_differently_is_said_first(form: Callable[[Comparison], str]) -> None:
    sides = [SAFE | {"training/Flax BF16/loss": Curves((1,), ((end,),))} for end in (1.0, 1.1)]
    found = compare.compare(record("2.2.0", sides[0]), record("2.3.0", sides[1]), (), TODAY)
    assert not lacks(form(found), "Flax alone trains differently, with the same JAX and Flax: all else may follow")


NASTY_NAME = "2.0\x1b[31m\x07\u202e<b>\ud800"


@pytest.mark.parametrize("form", [printed, of_markdown, of_html, of_junit])
def test_names_and_versions_do_nothing_to_what_shows_them(form: Callable[[Comparison], str]) -> None:
    """A record comes from anywhere."""
    nasty = dataclasses.replace(
        record(NASTY_NAME, {**SAFE, f"behaviour/layers/{NASTY_NAME}": Text("x")}),
        arguments=(NASTY_NAME,),
        only=(NASTY_NAME,),
        suite=SuiteResult(
            (ClaimResult(NASTY_NAME, (TestResult(f"{NASTY_NAME}::t", Outcome.FAILED, NASTY_NAME),)),), NASTY_NAME
        ),
    )
    for sides in ((nasty, nasty), (record("2.2.0", SAFE), nasty), (nasty, record("2.2.0", SAFE))):
        found = compare.compare(*sides, (), TODAY)
        text = form(found)
        assert "2.0" in text
        assert not re.search("[\x1b\x07\u202e\ud800]", text)
        assert "<b>" not in without_pictures(found)
