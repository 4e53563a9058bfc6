"""Options of a recipe that a model ignores: how they are found out, and named."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from mnist_fp8 import te
from mnist_fp8.core.metadata import SINCE_1_8
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.model import Case, require_none
from mnist_fp8.model.metadata import positions
from mnist_fp8.model.numerics import metadata_problems, metadata_problems_of
from mnist_fp8.model.options import WITH_OPTIONS, options_problems
from mnist_fp8.model.run import DELAYED, passes, why_no_case
from models.faults import with_options
from models.functional import functional
from models.small import Deep, factory

pytestmark = pytest.mark.filterwarnings("default")  # as in the claims: Flax warns of what it will remove


def said(problems: Any) -> list[str]:
    """What is said of layers, in any order, each line once."""
    return sorted({problem.what for problem in problems})


@pytest.mark.parametrize("length", [1, 1024])
def test_history_of_another_length_is_named_in_one_line(length: int) -> None:
    made = factory(Deep(), instead=RecipeConfig("DelayedScaling", amax_history_len=length))
    amaxes = "1 amax" if length == 1 else "1024 amaxes"
    assert said(metadata_problems(made, DELAYED)) == [f"keeps {amaxes}; expected 8, from amax_history_len"]


@pytest.mark.parametrize(
    ("options", "found", "due"),
    [
        ({"margin": 7}, "margin=7", "margin=0"),
        ({"fp8_format": "E4M3"}, "fp8_format=E4M3", "fp8_format=HYBRID"),
        ({"fp8_format": "E4M3", "margin": 1}, "margin=1, fp8_format=E4M3", "margin=0, fp8_format=HYBRID"),
    ],
)
def test_format_and_margin_are_told_apart(options: Mapping[str, Any], found: str, due: str) -> None:
    """A margin of 7 divides a gradient's scale by as much as E4M3 in the place of E5M2 does."""
    made = factory(Deep(), instead=dataclasses.replace(DELAYED, **options))
    wanted = f"scales follow from {found}; expected {due}, as the recipe says"
    assert said(metadata_problems(made, DELAYED)) == [wanted]


def test_scale_that_no_option_explains_is_named_with_its_tensor() -> None:
    call = passes(factory(Deep()), DELAYED).calls[0]
    scale, _ = next(positions(call.inputs))
    arrays = list(call.d_inputs)
    arrays[scale] = arrays[scale] * np.float32(1.5)
    (problem,) = metadata_problems_of(dataclasses.replace(call, d_inputs=tuple(arrays)), DELAYED)
    assert re.fullmatch(r"scale of x is \S+; expected \S+, from 448 and the largest amax", problem.what)


def test_histories_of_one_step_are_no_scales_before_2_3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(te, "metadata_dialect", lambda: SINCE_1_8)
    one, bias = np.ones(1, np.float32), np.ones(32, np.float32)
    assert list(positions([bias, *[one] * 6])) == [(4, 1), (5, 2), (6, 3)]
    assert list(positions([bias, *[np.ones(8, np.float32)] * 3, *[one] * 3])) == [(4, 1), (5, 2), (6, 3)]


@pytest.mark.parametrize("step", [{"margin": None}, {"amax_compute_algo": None}], ids=str)
def test_option_that_only_the_train_step_ignores_is_named(step: Mapping[str, Any]) -> None:
    asked = WITH_OPTIONS[DELAYED.name]
    made = factory(Deep(), in_step=dataclasses.replace(asked, **step))
    assert any(
        re.match(r"step 1, d\d at .*: scales follow from ", str(each)) for each in options_problems(made, DELAYED)
    )


def test_quantizers_that_are_made_without_the_options_are_named() -> None:
    """Those of pure functions: a quantizer has its own since 2.10, whatever autocast says."""
    made = with_options(functional, margin=None, amax_compute_algo=None)
    wanted = "scales follow from margin=0, amax_compute_algo=max; expected margin=2, amax_compute_algo=most_recent"
    assert said(options_problems(made, DELAYED)) == [f"{wanted}, as the recipe says"]


def test_factory_without_a_case_for_the_options_is_asked_nothing() -> None:
    """It says so by `NotImplementedError`; the claim is not verified then."""

    def case(recipe: Any) -> Case:
        if recipe is not None and te.recipe_config(recipe).fp8_format == "E4M3":
            raise NotImplementedError("HYBRID alone")
        made: Case = factory(Deep(), instead=DELAYED)(recipe)
        return made

    assert "HYBRID alone" in why_no_case(case, WITH_OPTIONS[DELAYED.name])
    require_none(options_problems(case, DELAYED))
