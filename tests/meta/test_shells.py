"""The proof of verdicts in shells can fail: it has a control, and no verdict is a wrong one."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from proofs import shells
from proofs.mutation.results import Notes
from proofs.shells import Outcome, Question, try_all
from proofs.verdicts import CODES

pytestmark = pytest.mark.host

NONE = f"{CODES[2]}: 2.02.2 is no release"
ONE_SHELL = ({"JAX_ENABLE_X64": "1"},)
WHOLE, PART = Question("healthy", "faulty"), Question("healthy", "faulty", ("numerics",))
Answers = Callable[..., None]


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path / "notes")


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Lets an upgrade answer by its shell: with the variable of `ONE_SHELL`, or bare."""

    def answer(bare: tuple[str, str], other: tuple[str, str] = ("", "")) -> None:
        def upgrade(_old: str, new: str, *_options: str, variables: Mapping[str, str]) -> tuple[str, str]:
            verdict, _, words = (other if variables else bare)[new == "faulty"].partition(": ")
            return verdict, f"looking\n{words}"

        monkeypatch.setattr(shells, "upgrade", upgrade)
        monkeypatch.setattr(shells, "SHELLS", ONE_SHELL)
        monkeypatch.setattr(shells, "PAIRS", ())

    return answer


@pytest.mark.parametrize(
    ("question", "healthy", "faulty"),
    [
        (WHOLE, NONE, NONE),
        (WHOLE, NONE, "BROKEN"),
        (WHOLE, "SAFE", NONE),
        (WHOLE, "SAFE", "SAFE"),
        (WHOLE, "SAFE", "PARTIAL"),
        (WHOLE, "SAFE", "UNVERIFIED"),
        (WHOLE, "PARTIAL", "BROKEN"),
        (WHOLE, "CHANGED", "BROKEN"),
        (PART, "SAFE", "BROKEN"),
        (PART, "PARTIAL", "PARTIAL"),
    ],
)
def test_no_shell_is_tried_if_the_bare_one_does_not_tell_them_apart(
    answers: Answers, notes: Notes, question: Question, healthy: str, faulty: str
) -> None:
    answers((healthy, faulty))
    with pytest.raises(SystemExit, match=r"^control: the verdicts in the bare shell are ") as ended:
        try_all(question, 1, notes)
    assert f"{healthy} and {faulty}; expected" in str(ended.value)


@pytest.mark.parametrize(
    ("question", "healthy", "faulty", "wrong"),
    [
        (WHOLE, "SAFE", "CHANGED", 0),
        (WHOLE, "UNVERIFIED", "UNVERIFIED", 0),
        (WHOLE, "BROKEN", "BROKEN", 1),
        (WHOLE, "SAFE", "SAFE", 1),
        (WHOLE, NONE, "BROKEN", 1),
        (WHOLE, NONE, NONE, 2),
        (WHOLE, "exit code -11: ", "exit code -11: ", 2),
        (PART, "PARTIAL", "CHANGED", 0),
        (PART, "PARTIAL", "PARTIAL", 1),
    ],
)
def test_verdict_that_is_wrong_or_missing_counts(
    answers: Answers, notes: Notes, question: Question, healthy: str, faulty: str, wrong: int
) -> None:
    answers((question.unchanged, "BROKEN"), (healthy, faulty))
    outcomes = try_all(question, 1, notes)
    assert list(outcomes) == ["bare", "JAX_ENABLE_X64=1"]
    assert {name: outcome.wrong(question) for name, outcome in outcomes.items()} == {
        "bare": 0,
        "JAX_ENABLE_X64=1": wrong,
    }
    assert outcomes["JAX_ENABLE_X64=1"] == Outcome(healthy, faulty, outcomes["JAX_ENABLE_X64=1"].seconds)


def test_what_ended_is_not_asked_again(answers: Answers, tmp_path: Path) -> None:
    file = tmp_path / "notes"
    answers(("SAFE", "BROKEN"), ("SAFE", "CHANGED"))
    outcomes = try_all(WHOLE, 1, Notes(file))
    answers((NONE, NONE), (NONE, NONE))
    assert try_all(WHOLE, 1, Notes(file)) == outcomes
    with pytest.raises(SystemExit):
        try_all(PART, 1, Notes(file))
