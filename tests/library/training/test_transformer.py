"""The transformer that learns to copy: its sequences, its layer of Flax's layers, and what its programs depend on."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_fp8 import te
from mnist_fp8.core.modes import Precision, RecipeConfig
from mnist_fp8.training import transformer
from mnist_fp8.training.transformer import CopyConfig, FlaxLayer, copies, first_parameters, prepare, rotated

pytestmark = pytest.mark.host

TINY = CopyConfig(Precision.TE_FP8, RecipeConfig("DelayedScaling"), steps=2)


def test_sequences_begin_with_a_start_and_repeat() -> None:
    read, following = copies(64, seed=1)
    assert read.shape == following.shape == (64, 16)
    assert not read[:, 0].any()
    assert following.min() >= 1
    np.testing.assert_array_equal(read[:, 1:], following[:, :-1])
    np.testing.assert_array_equal(following[:, :8], following[:, 8:])
    assert (following != copies(64, seed=2)[1]).any(), "Control: another seed"


def test_parameters_have_transformer_engine_s_layout() -> None:
    x = jax.ShapeDtypeStruct((16, 16, transformer.HIDDEN), jnp.bfloat16)
    init = functools.partial(transformer.te_layer().init, deterministic=True)
    made = te.unbox(jax.eval_shape(init, jax.random.key(0), x))["params"]
    ours = first_parameters(1)
    layer = {name: ours[name] for name in ("attention", "mlp")}
    assert jax.tree.map(jnp.shape, layer) == jax.tree.map(jnp.shape, made)


def test_layer_of_flax_s_layers_sees_no_later_position() -> None:
    x = np.random.default_rng(0).normal(0, 1, (1, 16, transformer.HIDDEN)).astype(np.float32)
    changed = x.copy()
    changed[:, 5] += 8
    before, after = (FlaxLayer().apply({"params": first_parameters(1)}, jnp.asarray(given)) for given in (x, changed))
    differs = np.any(before != after, axis=(0, 2))
    assert differs.tolist() == [False] * 5 + [True] * 11


def test_rotated_queries_and_keys_know_their_distance_alone() -> None:
    query, key = np.random.default_rng(0).normal(0, 1, (2, 1, 1, 1, 16)).astype(np.float32)
    queries, keys = (rotated(jnp.asarray(np.repeat(one, 16, axis=1)))[0, :, 0] for one in (query, key))
    logits = np.asarray(queries @ keys.T)
    for away in range(16):
        np.testing.assert_allclose(np.diagonal(logits, -away), logits[away, 0], atol=1e-4)
    assert np.ptp(logits[:, 0]) > 1, "Control: distances differ"


def test_programs_say_what_is_trained() -> None:
    programs = prepare(TINY).programs()
    assert prepare(TINY).programs() == programs, "Control: the same every time"
    others: list[dict[str, Any]] = [
        {"seed": 2},
        {"learning_rate": 0.02},
        {"recipe": RecipeConfig("DelayedScaling", margin=1)},
    ]
    for other in others:
        assert prepare(dataclasses.replace(TINY, **other)).programs() != programs, other
