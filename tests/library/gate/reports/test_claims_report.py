"""What a person, a browser and a program get to see."""

import dataclasses
import io
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console, RenderableType

from mnist_fp8.core.capability import VARIABLE as CAPABILITY
from mnist_fp8.core.model import FOLDER, VARIABLE
from mnist_fp8.gate.reports.claims import files, terminal, view
from mnist_fp8.gate.reports.claims.history import CHOSEN, History, histories
from mnist_fp8.gate.reports.claims.terminal import ClaimTable
from mnist_fp8.gate.reports.claims.view import Examined, Reason
from mnist_fp8.gate.runner.matrix import MatrixCell
from mnist_fp8.record.claims import ClaimResult, Outcome, SuiteResult, TestResult
from mnist_fp8.record.entries import Failure, Text, Value
from mnist_fp8.record.keys import AREAS
from mnist_fp8.record.record import Record
from support.comparing import numbers, record

PASSED, FAILED, SKIPPED, KNOWN = Outcome.PASSED, Outcome.FAILED, Outcome.SKIPPED, Outcome.KNOWN
SKIP = TestResult("tests/claims/test_jaxpr.py::test_mx", SKIPPED, "needs recipe MX; found: no Blackwell")


def claim(name: str, *tests: TestResult) -> ClaimResult:
    passed = TestResult(f"tests/claims/test_{name}.py::test_good", PASSED)
    return ClaimResult(name, (passed, *tests))


def failure(name: str, reason: str) -> TestResult:
    return TestResult(f"tests/claims/test_{name}.py::test_bad", FAILED, reason)


def examined(
    te: str, *claims: ClaimResult, entries: dict[str, Value] | None = None, problem: str = "", jax: str | None = None
) -> Examined:
    suite = SuiteResult(claims, "host run: no kernels", 61.0, problem, "cd x && pytest")
    versions = {"jax": "0.5.0", "flax": "0.10.4", "python": "3.11.7"}
    return Examined(te, jax, record(te, entries, environment=versions, suite=suite))


def cell(each: Examined) -> MatrixCell:
    return MatrixCell(each.label, record=each.record)


def entries(history: str) -> dict[str, Value]:
    return {"behaviour/same": Text("1"), "behaviour/history": Text(history)}


PARITY_FAILS = [failure("parity", f"dW is 16 times too large [TE {te}]\nassert 1 == 2") for te in ("2.1.0", "2.2.0")]
RELEASES = [
    examined("2.1.0", claim("parity", PARITY_FAILS[0]), claim("jaxpr", SKIP), entries=entries("16")),
    examined("2.2.0", claim("parity", PARITY_FAILS[1]), claim("jaxpr", SKIP), entries=entries("16")),
    examined("2.3.0", claim("parity"), claim("jaxpr"), entries=entries("1024")),
]
CELLS = [*map(cell, RELEASES), MatrixCell("2.4.0", error="there is no <network>")]


def printed(what: RenderableType, width: int = 120) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(what)
    return out.getvalue()


# --- cells and reasons ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcomes", "cell", "short"),
    [
        ([PASSED], "holds", "holds"),
        ([PASSED, SKIPPED, SKIPPED], "holds (2 not verified)", "holds 2?"),
        ([PASSED, FAILED, SKIPPED], "broken (1 of 3), 1 not verified", "broken 1 1?"),
        ([FAILED, KNOWN], "broken (1 of 2)", "broken 1"),
        ([PASSED, KNOWN], "known defect (1 of 2)", "known defect"),
        ([SKIPPED], "not verified", "not verified"),
    ],
)
def test_cell_says_verdict_and_counts(outcomes: list[Outcome], cell: str, short: str) -> None:
    tests = tuple(TestResult(f"t{i}", each, "why") for i, each in enumerate(outcomes))
    found = ClaimResult("c", tests)
    assert (terminal.cell(found), files.short(found)) == (cell, short)


def test_equal_reasons_are_told_once_and_the_worst_first() -> None:
    tests = [
        TestResult("a", SKIPPED, "needs X"),
        TestResult("b", FAILED, "wrong\nmore"),
        TestResult("c", SKIPPED, "needs X"),
    ]
    assert view.reasons(ClaimResult("c", tuple(tests))) == (
        Reason(FAILED, "wrong", ("b",)),
        Reason(SKIPPED, "needs X", ("a", "c")),
    )


def test_many_tests_under_one_reason_are_named_in_part() -> None:
    reason = Reason(FAILED, "wrong", tuple("abcdefgh"))
    assert reason.shown == ("a", "b", "c", "d", "e", "and 3 more")
    assert Reason(FAILED, "wrong", tuple("abcdef")).shown[-1] == "and 1 more"
    assert Reason(FAILED, "wrong", tuple("abcde")).shown == tuple("abcde")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("none in 2.3.0", "none in this release"),
        ("2.3.0: none", "this release: none"),
        ("none in 12.3.0 or 2.3.0.1", "none in 12.3.0 or 2.3.0.1"),
        ("none in TE 2.3.0.", "none in TE this release."),
        ("step_2.3.0", "step_2.3.0"),
    ],
)
def test_own_version_does_not_tell_neighbours_apart(text: str, shown: str) -> None:
    found = view.reasons(ClaimResult("c", (TestResult("t", SKIPPED, text),)), "2.3.0")
    assert found[0].text == shown


def test_equal_evidence_of_neighbours_is_one() -> None:
    parity, jaxpr = view.evidence(RELEASES)
    assert (parity.claims, parity.labels) == (("parity",), ("2.1.0", "2.2.0"))
    assert parity.title == "parity, 2.1.0 to 2.2.0: broken"
    assert parity.reasons[0].text == "dW is 16 times too large [TE this release]"
    assert jaxpr.title == "jaxpr, 2.1.0 to 2.2.0: not verified in part"
    assert [parity.anchor, jaxpr.anchor] == ["e1", "e2"]


def test_equal_evidence_on_both_sides_of_a_good_release_is_two() -> None:
    found = view.evidence([RELEASES[0], RELEASES[2], RELEASES[1]])
    assert [each.labels for each in found if each.claims == ("parity",)] == [("2.1.0",), ("2.2.0",)]


def test_one_reason_for_several_claims_is_told_once() -> None:
    hung = [ClaimResult(name, (TestResult(f"{name}::t", FAILED, "it hung"),)) for name in ("a", "b")]
    (only,) = view.evidence([examined("2.1.0", *hung)])
    assert only.claims == ("a", "b")
    assert only.reasons == (Reason(FAILED, "it hung", ("a::t", "b::t")),)


@pytest.mark.parametrize(
    ("arguments", "jax", "command"),
    [
        (("2.1.0",), None, "mnist-fp8 verify 2.1.0 --claim a b"),
        (("2.1.0",), "0.9.2", "mnist-fp8 verify 2.1.0 --jax 0.9.2 --claim a b"),
        (("/my te",), None, "mnist-fp8 verify '/my te' --claim a b"),
    ],
)
def test_command_shows_it_again(arguments: tuple[str, ...], jax: str | None, command: str) -> None:
    assert Examined("x", jax, record(arguments=arguments)).shown_again(["a", "b"]) == command


def test_model_is_named_by_the_command_and_on_the_page() -> None:
    ours = {VARIABLE: "ours.model:case", FOLDER: "/mine"}
    each = examined("2.1.0", claim("model_float8", SKIP))
    each = dataclasses.replace(each, record=dataclasses.replace(each.record, environment=ours))
    assert each.shown_again(["kernels"]) == "mnist-fp8 verify 2.1.0 --claim kernels"
    command = "mnist-fp8 verify 2.1.0 --model ours.model:case --model-path /mine --claim model_float8"
    assert each.shown_again(["model_float8"]) == command
    for page in (files.markdown([cell(each)], "x"), files.html([cell(each)])):
        assert "The claims on models: ours.model:case." in page
        assert command in page
    assert "The claims on models" not in files.markdown(CELLS, "x"), "Control: our own"


def test_capability_that_was_asked_for_is_named_by_the_command() -> None:
    asked = Examined("x", "0.9.2", record(arguments=("2.1.0",), environment={CAPABILITY: "10.0"}))
    assert asked.shown_again(["a"]) == "mnist-fp8 verify 2.1.0 --jax 0.9.2 --capability 10.0 --claim a"


def test_cell_is_told_from_others_by_the_jax_that_was_asked_for() -> None:
    found = view.examined([MatrixCell("2.9.0", "0.10", record()), MatrixCell("2.9.0", None, record()), CELLS[-1]])
    assert [(each.label, each.jax_asked) for each in found] == [("2.9.0 with JAX 0.10", "0.10"), ("2.9.0", None)]


def test_history_has_the_entries_that_change_and_the_releases_that_share_a_value() -> None:
    unmeasured = examined("2.2.5")
    found = histories([*RELEASES[:2], unmeasured, RELEASES[2]])
    assert found == [History("behaviour/history", (("16", "2.1.0 to 2.2.0"), ("1024", "2.3.0")))]


def test_history_compares_values_and_shows_the_digits_that_differ() -> None:
    key = "numerics/BF16/output against float64"
    values = (1.0, 1.0 + 2**-30, 1.0 + 2**-30)
    exact = [examined(str(number), entries={key: numbers(value)}) for number, value in enumerate(values)]
    assert histories(exact, (key,)) == [History(key, (("step 0: 1", "0"), ("step 0: 1.0000000009313226", "1 to 2")))]
    noisy = [
        examined(str(number), entries={key: numbers(value, noise=0.01)}) for number, value in enumerate((1.0, 1.01))
    ]
    assert histories(noisy, (key,)) == [], "Control: noise is no history"


def test_history_keeps_the_order_of_the_chosen_keys_and_leaves_out_others() -> None:
    both = [examined(te, entries={key: Text(te) for key in ("a/x", "b/y", "b/x", "c/x")}) for te in ("1", "2")]
    assert [history.key for history in histories(both, ("b", "a/*"))] == ["b/x", "b/y", "a/x"]


def test_values_that_differ_in_the_name_of_the_release_only_are_one() -> None:
    said = [
        examined(v, entries={"behaviour/a": Failure("RuntimeError", f"none in Transformer Engine {v}")})
        for v in ("2.1.0", "2.2")
    ]
    assert histories(said) == []


def test_entry_that_a_release_lacks_is_a_change() -> None:
    both = [examined("1", entries={"behaviour/a": Text("x")}), examined("2", entries={"bits/b": Text("y")})]
    assert histories(both)[0].values == (("x", "1"), ("not there", "2"))


def test_chosen_keys_are_of_known_areas() -> None:
    assert {key.partition("/")[0] for key in CHOSEN} <= AREAS.keys()


# --- terminal ------------------------------------------------------------------------------------------------------


def test_claims_are_rows_where_there_is_room_beside_each_other() -> None:
    lines = printed(ClaimTable(RELEASES)).splitlines()
    assert [re.split(r"\s*│\s*", line)[1:-1] for line in lines if line.startswith("│")] == [
        ["parity", "broken (1 of 2)", "broken (1 of 2)", "holds"],
        ["jaxpr", "holds (1 not verified)", "holds (1 not verified)", "holds"],
    ]


def test_claims_are_columns_elsewhere_by_name_or_by_number() -> None:
    wide, narrow = (printed(ClaimTable(RELEASES), width) for width in (80, 28))
    assert "parity" in wide.splitlines()[1]
    assert "1  parity" not in wide
    assert "1  parity" in narrow
    assert "┃" not in narrow, "the table with names"
    assert "✗ 1" in wide
    assert "✓ 1?" in wide
    assert max(map(len, narrow.splitlines())) <= 28


def test_long_name_of_one_alone_is_folded() -> None:
    lines = printed(ClaimTable([examined("folder /" + 90 * "y", claim("parity"))]), 60).splitlines()
    assert max(map(len, lines)) <= 60
    assert "".join(lines).count("y") == 91, "and that of the claim"
    assert any(line.startswith("│ parity │ holds") for line in lines)


def test_narrow_table_has_a_column_for_every_claim() -> None:
    """A terminal of 80 columns and a dozen claims, each partly verified: none may be dropped."""
    tests = (TestResult("t::a", PASSED), TestResult("t::b", SKIPPED, "needs more"))
    many = examined("2.6.0.post1", *(ClaimResult(f"a_claim_with_a_long_name_{n}", tests) for n in range(1, 13)))
    lines = printed(ClaimTable([many, many]), 80).splitlines()
    heading, row = (next(line.split() for line in lines if name in line) for name in (" TE ", "2.6.0.post1"))
    assert heading == ["TE", *map(str, range(1, 13))]
    assert row == ["2.6.0.post1", *12 * ["✓?"]]


def test_explanation_says_what_broke_and_what_was_not_verified() -> None:
    lines = [line.plain for line in terminal.explain(RELEASES[0])]
    assert lines == [
        "TE 2.1.0 (JAX 0.5.0, Flax 0.10.4, Python 3.11.7)",
        "  host run: no kernels",
        "\n  parity: broken (1 of 2)",
        "    dW is 16 times too large [TE 2.1.0]",
        "      test_parity.py::test_bad",
        "\n  jaxpr: holds (1 not verified)",
        "    not verified, 1 test: needs recipe MX; found: no Blackwell",
        "\n  to see the first failure:\n  cd x && pytest 'tests/claims/test_parity.py::test_bad'",
    ]


def test_explanation_of_one_that_plainly_holds_is_its_header() -> None:
    assert len(list(terminal.explain(RELEASES[2]))) == 2


def test_explanation_says_a_problem() -> None:
    assert "  it hung" in [line.plain for line in terminal.explain(examined("2.1.0", problem="it hung"))]


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (RELEASES[0], "TE 2.1.0, JAX 0.5.0: 1 holds, 1 broken"),
        (examined("2.1.0"), "TE 2.1.0, JAX 0.5.0: no claims"),
    ],
)
def test_finished_release_is_one_line(found: Examined, line: str) -> None:
    assert terminal.summary(found) == line


# --- files ---------------------------------------------------------------------------------------------------------


def test_markdown_links_each_cell_to_evidence_that_is_there() -> None:
    text = files.markdown(CELLS, "mnist-fp8 matrix")
    assert "| 2.1.0 | 0.5.0 | 0.10.4 | [**broken 1**](#e1) | [holds 1?](#e2) |" in text
    assert "| 2.3.0 | 0.5.0 | 0.10.4 | holds | holds |" in text
    assert set(re.findall(r"\(#(\w+)\)", text)) == set(re.findall(r'<a id="(\w+)">', text)) == {"e1", "e2"}
    assert "- **Not judged:** TE 2.4.0: there is no \\<network\\>" in text
    assert "| behaviour/history | 2.1.0 to 2.2.0: 16 <br> 2.3.0: 1024 |" in text
    assert "`mnist-fp8 verify 2.1.0 --claim parity`" in text


def test_markdown_says_what_generated_it() -> None:
    text = files.markdown(CELLS, "mnist-fp8 matrix")
    assert text.splitlines()[2] == "> Generated by `mnist-fp8 matrix`. Do not edit: the next run overwrites this page."


def test_markdown_leaves_texts_as_they_are() -> None:
    text = files.markdown([cell(examined("1", claim("a", failure("a", "x[0] * y_1 | <b> & ~c~"))))], "mnist-fp8 verify")
    assert r"broken, 1 test: x\[0\] \* y\_1 \| \<b\> \& \~c\~" in text


class Links(HTMLParser):
    """Targets, links, and everything that is fetched from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name == "href" and tag == "a":
                self.links.append(value or "")
            if name == "src" or tag == "link":
                self.fetched.append(value or "")


def test_html_links_each_cell_to_evidence_that_is_there_and_needs_nothing_else() -> None:
    text = files.html(CELLS)
    page = Links(text)
    assert page.ids == ["e1", "e2"]
    assert page.links == ["#e1", "#e2", "#e1", "#e2"]
    assert page.fetched == []
    assert "url(" not in text
    assert "@import" not in text


def test_html_escapes_what_te_says() -> None:
    bad = examined("1", claim("a", failure("a", "<script>alert(1)</script>")))
    text = files.html([cell(bad), CELLS[-1]])
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "there is no &lt;network&gt;" in text


def test_html_shows_values_that_change() -> None:
    text = files.html(CELLS)
    assert re.findall(r'<span class="changed">(.*?)</span>', text) == ["16", "1024"]


def test_html_of_nothing_but_good_says_so() -> None:
    text = files.html([cell(examined("2.3.0", claim("parity")))])
    assert "there is nothing to explain" in text
    assert "What changes" not in text


def test_junit_counts_and_tells_why() -> None:
    root = ET.fromstring(files.junit(CELLS))  # noqa: S314 - our own
    suites = root.findall("testsuite")
    assert [suite.get("tests") for suite in suites] == ["4", "4", "2", "1"]
    assert (suites[0].get("failures"), suites[0].get("skipped"), suites[0].get("time")) == ("1", "1", "61.0")
    failed = suites[0].find("testcase/failure")
    assert failed is not None
    assert failed.get("message") == "dW is 16 times too large [TE 2.1.0]"
    assert failed.text == "dW is 16 times too large [TE 2.1.0]\nassert 1 == 2"
    error = suites[3].find("testcase/error")
    assert error is not None
    assert error.get("message") == "there is no <network>"


def test_junit_says_known_defects_and_survives_control_characters() -> None:
    known = TestResult("t", KNOWN, "defect 7")
    text = files.junit([cell(examined("1", claim("a", known, failure("a", "\x1b[31mred\x00"))))])
    root = ET.fromstring(text)  # noqa: S314 - our own
    assert [each.get("message") for each in root.iter("skipped")] == ["known defect: defect 7"]
    assert [each.get("message") for each in root.iter("failure")] == ["�[31mred�"]


def test_json_is_everything() -> None:
    document = json.loads(files.as_json(CELLS))
    assert document["schema_version"] == 2
    assert [Record.from_json(each) for each in document["records"]] == [each.record for each in RELEASES]
    assert document["not_judged"] == [{"te": "2.4.0", "error": "there is no <network>"}]


def test_long_value_is_cut() -> None:
    both = [cell(examined(te, entries={"behaviour/a": Text(te + 500 * "x")})) for te in ("1", "2")]
    for text in (files.markdown(both, "mnist-fp8 matrix"), files.html(both)):
        assert "1" + 198 * "x" + "…" in text
        assert 200 * "x" not in text


# --- layers ----------------------------------------------------------------------------------------------------------


def of_layer(name: str, outcome: Outcome, reason: str = "") -> TestResult:
    return TestResult(f"tests/claims/test_layers.py::test[{name}]", outcome, reason, name)


NO_MLP = "needs flax.LayerNormMLP in transformer_engine.jax; found none in 2.1.0"
OF_LAYERS = [
    examined(
        "2.1.0", ClaimResult("layers", (of_layer("LayerNorm", PASSED), of_layer("LayerNormMLP", SKIPPED, NO_MLP)))
    ),
    examined("2.2.0", ClaimResult("layers", (of_layer("LayerNormMLP", FAILED, "off by 1"),))),
]


def test_pages_say_of_each_layer_in_which_releases_it_works() -> None:
    page = files.markdown([*map(cell, OF_LAYERS)], "mnist-fp8 matrix")
    table = page.partition("## Layers")[2].partition("##")[0].strip().splitlines()
    assert [[text.strip() for text in line.strip("|").split("|")] for line in (table[0], *table[2:])] == [
        ["TE", "JAX", "Flax", "LayerNorm", "LayerNormMLP"],
        ["2.1.0", "0.5.0", "0.10.4", "holds", "[not verified](#l1)"],
        ["2.2.0", "0.5.0", "0.10.4", "", "[**broken 1**](#l2)"],
    ]
    proof = page.partition('<a id="l1"></a>')[2]
    assert "LayerNormMLP, 2.1.0: not verified" in proof
    assert "found none in this release" in proof
    assert "mnist-fp8 verify 2.1.0 --subjects LayerNormMLP`" in proof
    html = files.html([*map(cell, OF_LAYERS)])
    assert re.findall(r"<h2>(.*?)</h2>", html) == ["Claims", "Layers", "Evidence"]
    assert html.count('href="#l2"') == html.count('id="l2"') == 1


def test_pages_of_claims_on_no_layer_have_no_table_of_them() -> None:
    assert "## Layers" not in files.markdown(CELLS, "mnist-fp8 matrix")
    assert "<h2>Layers</h2>" not in files.html(CELLS)
