"""A user's own model and train step: what they are given as, what is looked at, and what has to hold.

`case` is the contract. `claims` are what holds of any model; each gives the problems that it found. A team that has
these in a suite of its own needs no more than ::

    @pytest.mark.parametrize("recipe", RECIPES, ids=str)
    @pytest.mark.parametrize("claim", CLAIMS)
    def test_our_model(claim, recipe):
        require_none(CLAIMS[claim](our_factory, recipe))
"""

from mnist_fp8.model.case import Case, Factory
from mnist_fp8.model.claims import CLAIMS, RECIPES
from mnist_fp8.model.loading import load
from mnist_fp8.model.problems import Problem, require_none

__all__ = ["CLAIMS", "RECIPES", "Case", "Factory", "Problem", "load", "require_none"]
