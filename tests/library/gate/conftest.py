"""What tests of the gate share."""

import pytest

from mnist_fp8.core.modes import RECIPES
from mnist_fp8.gate.verdict import coverage


@pytest.fixture(autouse=True)
def _r_is_a_recipe_that_claims_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the records that the tests make, ``R`` is the recipe that runs."""
    monkeypatch.setattr(coverage, "RECIPES", (*RECIPES, "R"))
