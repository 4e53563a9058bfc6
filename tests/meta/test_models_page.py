"""The page on models: a release is judged once, and what it says is what came of it."""

from pathlib import Path

import pytest

from proofs import models
from proofs.models import Judged, noted, page
from proofs.mutation.results import Notes

RIGHT = Judged("2.20.2", {"transformer, a claim, DelayedScaling": []}, {"transformer: clipped": True}, {})
WRONG = Judged(
    "2.4.0", {"scanned, a claim, DelayedScaling": ["up: is off"]}, {"scanned: bf16": False}, {"bridged": "no"}
)


def test_release_that_was_judged_is_not_judged_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[str]()

    def judged(release: str, seeds: int) -> Judged:
        asked.append(f"{release} {seeds}")
        return WRONG

    monkeypatch.setattr(models, "judged", judged)
    first = noted("2.4.0", 1, Notes(tmp_path / "notes.jsonl"))
    again = noted("2.4.0", 1, Notes(tmp_path / "notes.jsonl"))  # as another process reads them
    assert first == again == WRONG
    noted("2.4.0", 2, Notes(tmp_path / "notes.jsonl"))
    assert asked == ["2.4.0 1", "2.4.0 2"]


def test_page_counts_and_names_what_was_blamed_and_what_was_missed() -> None:
    text = page([RIGHT, WRONG], 1)
    assert "**1 of 2 claims on correct models were blamed; 1 of 2 mistakes were named**" in text
    assert "- 2.4.0, scanned, a claim, DelayedScaling: up: is off" in text
    assert "- 2.4.0, scanned: bf16: not named" in text
    assert "2.20.2, " not in text
