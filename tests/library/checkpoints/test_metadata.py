"""Metadata from before 2.3 as those of 2.3 and later: held to both releases' own steps."""

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from mnist_fp8.checkpoints import metadata
from mnist_fp8.checkpoints.metadata import Mlps, Recipe
from mnist_fp8.checkpoints.tree import Leaf, Leaves
from mnist_fp8.core.errors import ConfigError
from mnist_fp8.oracle.dense import FORMATS, FP8_MAX, Meta, initial_meta, next_meta, next_meta_before_2_3

AMAXES = st.floats(0, 2.0**100, width=32, allow_subnormal=False) | st.sampled_from([0.0, float("inf"), float("nan")])


@given(
    amaxes=st.lists(AMAXES, max_size=12),
    more=st.lists(AMAXES, min_size=1, max_size=6),
    length=st.integers(1, 6),
    recipe=st.builds(Recipe, st.sampled_from(["HYBRID", "E4M3"]), st.integers(0, 3), st.just("max")),
    tensor=st.sampled_from(["x", "kernel", "grad"]),
)
def test_steps_after_it_have_the_scales_that_the_old_release_would_use(
    amaxes: list[float], more: list[float], length: int, recipe: Recipe, tensor: str
) -> None:
    options: dict[str, Any] = {"margin": recipe.margin, "algo": recipe.algo}
    options["fp8_max"] = FP8_MAX[FORMATS[recipe.fp8_format][tensor]]
    old = initial_meta(length)
    for amax in amaxes:
        old = next_meta_before_2_3(old, amax, **options)
    scale = metadata.next_scale(np.array([old.scale]), old.history, fp8_max=options["fp8_max"], recipe=recipe)
    new = Meta(scale[0], metadata.rolled(old.history))
    for amax in more:
        old = next_meta_before_2_3(old, amax, **options)
        assert old.scale.tobytes() == np.float32(new.scale).tobytes()
        new = next_meta(new, amax, **options)


def test_layers_of_a_stack_are_each_on_their_own() -> None:
    rng = np.random.default_rng(0)
    history, scale = rng.uniform(1, 2, (3, 2, 8)).astype(np.float32), np.ones((3, 2, 1), np.float32)
    new = metadata.next_scale(scale, history, fp8_max=448.0, recipe=Recipe())
    assert new.shape == scale.shape
    np.testing.assert_array_equal(new, np.float32(448) / history.max(-1, keepdims=True))
    np.testing.assert_array_equal(metadata.rolled(history)[2, 1], [0, *history[2, 1, 2:], history[2, 1, 0]])


def test_margin_and_algorithm_are_those_of_the_recipe() -> None:
    history, scale = np.array([2, 8, 4], np.float32), np.ones(1, np.float32)
    assert metadata.next_scale(scale, history, fp8_max=448.0, recipe=Recipe(margin=1)) == 28
    assert metadata.next_scale(scale, history, fp8_max=448.0, recipe=Recipe(algo="most_recent")) == 224


def leaves(*texts: str, number: str = "0", ending: str = "") -> Leaves:
    """A layer's metadata from before 2.3, and other leaves."""
    layer = {f"fp8_metas/d/{kind}_{each}_{number}{ending}" for kind in ("amax", "scale") for each in "iwg"}
    return {tuple(text.split("/")): Leaf((8,) if "amax" in text else (1,)) for text in (*sorted(layer), *texts)}


def new_names(of: Leaves, **mlps: tuple[str, ...]) -> dict[str, str]:
    return {"/".join(old): "/".join(new.path) for old, new in metadata.renamed(of, Recipe(), Mlps(**mlps)).items()}


def test_the_number_of_an_only_product_goes() -> None:
    assert new_names(leaves())["fp8_metas/d/amax_i_0"] == "fp8_metas/d/x_amax_history"
    assert new_names(leaves(number="1"))["fp8_metas/d/scale_w_1"] == "fp8_metas/d/kernel_1_scale"
    assert new_names(leaves(ending="/value"))["fp8_metas/d/scale_g_0/value"] == "fp8_metas/d/grad_scale/value"


def test_gradients_of_two_products_in_one_function_exchange_their_numbers() -> None:
    both = {**leaves(), **leaves(number="1")}
    names = new_names(both, fused=("fp8_metas/*",))
    assert names["fp8_metas/d/scale_g_0"] == "fp8_metas/d/grad_1_scale"
    assert names["fp8_metas/d/amax_g_1"] == "fp8_metas/d/grad_0_amax_history"
    assert names["fp8_metas/d/amax_i_1"] == "fp8_metas/d/x_1_amax_history"
    apart = new_names(both, separate=("fp8_metas/d",))
    assert apart["fp8_metas/d/scale_g_0"] == "fp8_metas/d/grad_0_scale"


def test_a_complete_set_is_found_outside_the_collections_and_others_are_left() -> None:
    found = leaves("mine/amax_i_0", "mine/other")
    assert not any(name.startswith("mine") for name in new_names(found))
    nnx = {("dense", *path[2:]): leaf for path, leaf in leaves().items()}
    assert new_names(nnx)["dense/amax_w_0"] == "dense/kernel_amax_history"


@pytest.mark.parametrize(
    ("found", "old", "line"),
    [
        (leaves("fp8_metas/d/other"), True, "fp8_metas/d/other is not a name.*nothing is known"),
        (leaves("fp8_metas/e/x_scale"), True, "fp8_metas/e/x_scale.*of 2.3 and later: is --from right"),
        (leaves(), False, "amax_g_0 is not a name that TE 2.2.0.*before 2.3: is --from right"),
        (leaves("_overwrite_with_gradient/f/input_scale", "_overwrite_with_gradient/f/odd"), True, "input_scale"),
    ],
)
def test_unknown_names_are_refused(found: Leaves, line: str, *, old: bool) -> None:
    with pytest.raises(ConfigError, match=line):
        metadata.check_names(found, old=old, release="2.2.0")


def test_names_of_flax_are_its_own() -> None:
    metadata.check_names(leaves("_overwrite_with_gradient/f/output_grad_scale"), old=True, release="2.2.0")


def test_damaged_metadata_are_refused() -> None:
    found = dict(leaves())
    del found["fp8_metas", "d", "scale_g_0"]
    with pytest.raises(ConfigError, match=r"fp8_metas/d has FP8 metadata, but no scale_g_0"):
        metadata.renamed(found, Recipe(), Mlps())
    odd = {**leaves(), ("fp8_metas", "d", "scale_g_0"): Leaf((2,))}
    with pytest.raises(ConfigError, match=r"scale_g_0 has the shape \(2,\); expected \(1,\)"):
        metadata.renamed(odd, Recipe(), Mlps())


@pytest.mark.parametrize("patterns", [(), ("fp8_metas/*",)])
def test_an_mlp_of_which_nothing_is_said_is_refused(patterns: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"fp8_metas/d has the FP8 metadata of a LayerNormMLP.*not by both"):
        new_names({**leaves(), **leaves(number="1")}, fused=patterns, separate=patterns)
