"""The claims on models, on models in the styles of real users, and on the same with one thing wrong."""

import re
from collections.abc import Callable

import pytest

from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.model import CLAIMS, RECIPES, Factory, require_none
from mnist_fp8.model.carrying import carrying_problems
from mnist_fp8.model.float8 import float8_problems
from mnist_fp8.model.numerics import numerics_problems
from mnist_fp8.model.options import options_problems
from mnist_fp8.model.problems import Problem
from mnist_fp8.model.run import DELAYED
from models import BUGS, CORRECT, IGNORING

pytestmark = pytest.mark.filterwarnings("default")  # as in the claims: Flax warns of what it will remove


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("name", CORRECT)
def test_nothing_is_wrong_with_a_correct_model(name: str, claim: str, recipe: RecipeConfig) -> None:
    require_none(CLAIMS[claim](CORRECT[name], recipe))


@pytest.mark.parametrize("problems", [float8_problems, numerics_problems, carrying_problems])
@pytest.mark.parametrize("name", CORRECT)
def test_nothing_is_wrong_with_a_correct_model_in_bf16(name: str, problems: Callable[..., list[Problem]]) -> None:
    require_none(problems(CORRECT[name], None))


@pytest.mark.parametrize(("factory", "said"), BUGS.values(), ids=BUGS)
def test_plumbing_bug_is_named(factory: Factory, said: str) -> None:
    problems = carrying_problems(factory, DELAYED)
    assert any(re.search(said, problem.what) for problem in problems), list(map(str, problems)) or "nothing was found"


@pytest.mark.parametrize(("factory", "said"), IGNORING.values(), ids=IGNORING)
def test_option_that_is_ignored_is_named(factory: Factory, said: str) -> None:
    problems = options_problems(factory, DELAYED)
    assert any(re.search(said, problem.what) for problem in problems), list(map(str, problems)) or "nothing was found"
