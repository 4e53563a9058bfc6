"""What tests of the gate share."""

import pytest

from mnist_fp8.core.modes import RECIPES


@pytest.fixture(autouse=True)
def _r_is_a_recipe_that_claims_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the records that the tests make, ``R`` is the recipe that runs.

    The module is named by a string: a GPU machine, which collects this folder in vain, may lack what it imports.
    """
    monkeypatch.setattr("mnist_fp8.gate.verdict.coverage.RECIPES", (*RECIPES, "R"))
