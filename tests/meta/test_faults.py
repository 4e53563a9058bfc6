"""The fault runner: it sees a fault, does not see one where there is none, and reads no file that is wrong."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from proofs import faults
from proofs.faults import FOLDER, Fault, Outcome, arguments, faulty, load, page, run, select
from proofs.mutation import subject
from proofs.mutation.claims import Verdict
from proofs.regressions import Regression

pytestmark = pytest.mark.host

ROOT = Path(__file__).resolve().parents[2]
FAULTS = load(FOLDER, Fault)
BY_NAME = {fault.name: fault for fault in FAULTS}
INVERTED = BY_NAME["scale-inverted"]

WITHOUT_FAULTS = {
    "kernel_training",
    "kernel_speed",
    "data_parallel",
    "recipe_options",
    "sharding_options",
}
"""Those of the last three are mutants (docs/evidence/mutants.md) and past regressions. For the first two there are
none: nothing was found that makes training worse, or a kernel slower, on a GPU alone and is not seen by other
claims."""


def test_every_other_claim_has_at_least_five_faults() -> None:
    files = (ROOT / "tests" / "claims").glob("test_*.py")
    claims = {path.stem.removeprefix("test_") for path in files} - WITHOUT_FAULTS
    counts = {claim: sum(fault.claim == claim for fault in FAULTS) for claim in claims}
    assert min(counts.values()) >= 5, f"faults by claim: {counts}"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_place_of_every_fault_is_there(fault: Fault) -> None:
    """Also of those that this machine cannot try."""
    changed = faulty(fault)
    assert changed != subject.read(fault.file)
    compile(changed, fault.file, "exec")


def test_a_fault_turns_its_claim_red() -> None:
    (outcome,) = run([INVERTED], 1)
    assert outcome.caught, outcome.message
    assert "written" in outcome.test or "worked_out_by_hand" in outcome.test


def test_a_harmless_edit_leaves_the_claim_green() -> None:
    # Control: what turns red is the fault, not the copy.
    (outcome,) = run([dataclasses.replace(INVERTED, new="sf = (fp8_max / amax) / 2**margin")], 1)
    assert not outcome.test, f"{outcome.test} failed: {outcome.message}"


def test_message_of_a_failure_says_not_where_transformer_engine_lies() -> None:
    (outcome,) = run([dataclasses.replace(INVERTED, new="raise RuntimeError(__file__)")], 1)
    assert outcome.message.splitlines()[0] == f"RuntimeError: transformer_engine/{INVERTED.file}"


def test_a_harmless_edit_does_not_come_under_the_rule_of_the_banner() -> None:
    banner = BY_NAME["import-prints-a-banner"]
    edits = [dataclasses.replace(banner, message="stdout"), dataclasses.replace(banner, new=f"{banner.old}# print()\n")]
    outcomes = {outcome.fault.new: outcome for outcome in run(edits, 2)}
    assert outcomes[edits[0].new].caught, "Control"
    assert not outcomes[edits[1].new].test, outcomes[edits[1].new].message


def test_a_fault_without_its_place_is_an_error() -> None:
    misplaced = dataclasses.replace(INVERTED, old="no such text")
    with pytest.raises(LookupError, match=r"the text to replace is not in jax/quantize/quantizer.py"):
        faulty(misplaced)
    (outcome,) = run([misplaced], 1)
    assert not outcome.caught, outcome.message


# --- the files -----------------------------------------------------------------------------------------------------

FIELDS = {
    "what": "'a fault'",
    "claim": "'fp8_numerics'",
    "file": "'jax/dense.py'",
    "message": "'output'",
    "old": "'''\n  a\n'''",
    "new": "'b'",
}
STORY = {"origin": "['TransformerEngine#1', 'MaxText#2']", "story": "'It was so.'"}


def written(folder: Path, fields: Mapping[str, str | None], name: str = "one") -> Path:
    """A folder with a fault's file in it; a field that is None is left out."""
    lines = [f"{field} = {value}\n" for field, value in fields.items() if value is not None]
    (folder / f"{name}.toml").write_text("".join(lines))
    return folder


def test_file_becomes_a_fault_to_the_character(tmp_path: Path) -> None:
    (found,) = load(written(tmp_path, FIELDS | {"gpus": "2"}), Fault)
    expected = Fault(
        name="one",
        what="a fault",
        claim="fp8_numerics",
        file="jax/dense.py",
        message="output",
        old="  a\n",
        new="b",
        gpus=2,
    )
    assert found == expected


def test_regression_has_an_origin_and_a_story_as_well(tmp_path: Path) -> None:
    (found,) = load(written(tmp_path, FIELDS | STORY), Regression)
    assert (found.origin, found.story) == (("TransformerEngine#1", "MaxText#2"), "It was so.")


def test_faults_come_by_claim_and_then_by_name(tmp_path: Path) -> None:
    for name, claim in (("b", "kernels"), ("a", "kernels"), ("c", "bf16_parity")):
        written(tmp_path, FIELDS | {"claim": f"'{claim}'"}, name)
    assert [fault.name for fault in load(tmp_path, Fault)] == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("kind", "changes", "problem"),
    [
        (Fault, {"claims": "'fp8_numerics'"}, "unknown field 'claims'; the fields are what, claim, "),
        (Fault, {"origin": "['a']"}, "unknown field 'origin'; "),
        (Fault, {"name": "'another'"}, "unknown field 'name'; "),
        (Fault, {"old": None}, "missing field 'old'; the fields are what, "),
        (Regression, {"story": None}, "missing field 'story'; "),
        (Fault, {"gpus": "'1'"}, "field 'gpus' is '1'; expected a whole number"),
        (Fault, {"gpus": "true"}, "field 'gpus' is True; expected a whole number"),
        (Fault, {"new": "1"}, "field 'new' is 1; expected a string"),
        (Regression, {"origin": "'MaxText#2'"}, "field 'origin' is 'MaxText#2'; expected a list of strings"),
        (Regression, {"origin": "[2]"}, r"field 'origin' is [2]; expected a list of strings"),
        (Fault, {"claim": "'fp8'"}, "claim 'fp8' has no file tests/claims/test_fp8.py"),
        (Fault, {"claim": None, "rule": "'import'"}, "there is no rule 'import'"),
        (Fault, {"claim": None}, "one of the fields 'claim' and 'rule' is needed"),
        (Fault, {"rule": "'import-prints'"}, "one of the fields 'claim' and 'rule' is needed"),
        (Fault, {"old": "''"}, "field 'old' is empty; expected the text to replace"),
        (Fault, {"message": "'('"}, "message '(' is no pattern: "),
        (Fault, {"what": "a fault"}, "Invalid value"),
    ],
)
def test_wrong_file_is_refused_in_one_line_with_its_name(
    tmp_path: Path, kind: type[Fault], changes: dict[str, str | None], problem: str
) -> None:
    fields = FIELDS | (STORY if kind is Regression else {}) | changes
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path.name}/one.toml: {problem}")) as refusal:
        load(written(tmp_path, fields), kind)
    assert "\n" not in str(refusal.value)


# --- the command and its page --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("/scale-inv", {"scale-inverted"}),
        ("^kernel_numerics/scale-not", {"scale-not-passed-to-the-quantization"}),
    ],
)
def test_pattern_selects_by_claim_and_name(pattern: str, names: set[str]) -> None:
    assert {fault.name for fault in select(FAULTS, pattern)} == names


def test_pattern_that_selects_nothing_is_refused() -> None:
    with pytest.raises(SystemExit, match=r"nothing to try: no CLAIM/NAME matches 'no such'"):
        select(FAULTS, "no such")


@pytest.mark.parametrize(
    ("words", "says"), [("--only=(", "'(' is no regular expression: missing )"), ("--jobs=0", "'0'")]
)
def test_wrong_option_is_one_line(words: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments(None).parse_args([words])
    assert ended.value.code == 2
    assert says in capsys.readouterr().err.splitlines()[-1]


def judged(fault: Fault) -> Any:
    """What stands for a claim that is red at once."""
    return Verdict(fault.claim, "test_a", f"{fault.name} | was\nwrong", silent=True, seconds=0.0)


def test_outcomes_come_in_the_order_of_the_faults(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(faults, "judge", judged)
    some = [dataclasses.replace(fault, message="was") for fault in FAULTS[:3]]
    some[1] = dataclasses.replace(some[1], message="another message")
    outcomes = faults.try_all(some, 2)
    assert [(outcome.fault, outcome.caught) for outcome in outcomes] == list(
        zip(some, (True, False, True), strict=True)
    )
    said = capsys.readouterr().err
    assert said.count("caught by test_a") == 2, said
    assert f"{some[1].claim}/{some[1].name}: MISSED: test_a: {some[1].name} | was\nwrong" in said


def test_page_counts_what_was_caught_and_marks_what_was_missed_or_not_tried() -> None:
    caught = Outcome(INVERTED, "test_a", "x scale:\nis | wrong, 1/2, of a/b/c in /home/me/lib/core.py")
    outcomes = [caught, Outcome(INVERTED, "test_b", "another"), Outcome(INVERTED, "", "")]
    text = page(outcomes, [dataclasses.replace(INVERTED, gpus=2)], "a host run", on_gpu=False)
    assert "1 of 3 were caught" in text
    assert (
        "| fp8_metadata_update | scale inverted | test_a | x scale: is \\| wrong, 1/2, of a/b/c in …/core.py |\n"
        in text
    )
    assert text.count("**missed**") == 2
    assert text.endswith("| fp8_metadata_update | scale inverted | not tried | GPUs needed: 2 |\n")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_page_has_every_fault_and_what_caught_it(fault: Fault) -> None:
    text = (ROOT / "docs" / "evidence" / ("faults-gpu.md" if fault.gpus else "faults.md")).read_text()
    caught_by = "(test_|not tried)" if fault.gpus else "test_" if fault.claim else f"{fault.rule} "
    row = re.escape(f"| {fault.catcher} | {fault.what} | ") + caught_by
    assert re.search(row, text), "write the page anew"


@pytest.mark.parametrize(("name", "on_gpu"), [("faults.md", False), ("faults-gpu.md", True)])
def test_page_has_no_fault_that_is_gone(name: str, on_gpu: bool) -> None:  # noqa: FBT001
    rows = (ROOT / "docs" / "evidence" / name).read_text().count("\n| ") - 1
    assert rows == sum(bool(fault.gpus) is on_gpu for fault in FAULTS)
