"""Claim: what a transformer layer drops, and where queries begin, is as documented.

The docstrings of TE's flax modules say what each rate drops, which random numbers decide it, and that nothing is
dropped where the layer is deterministic.

What a failure means for an upgrade: a model is regularised otherwise than it was, or begins to learn elsewhere.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_fp8 import te
from mnist_fp8.subjects.making import flax_layer
from mnist_fp8.te.dense_step import BF16
from support.assertions import assert_equal

RATE = 0.5
X = np.random.default_rng(0).normal(0, 1, (512, 4, 16)).astype(np.float32)
NONE = {"hidden_dropout": 0.0, "attention_dropout": 0.0, "intermediate_dropout": 0.0}
transformer = pytest.mark.subject("TransformerLayer", "encoder")


def _layer(**fields: Any) -> Any:
    plain = {"hidden_size": 16, "mlp_hidden_size": 32, "num_attention_heads": 2, "enable_relative_embedding": False}
    return flax_layer("TransformerLayer", **{**plain, **NONE, **fields})


def _outputs(layer: Any, *, rng: str = "dropout", seed: int = 1, **arguments: Any) -> Any:
    """A layer's output on the parameters of the same layer without dropout."""
    x = jnp.asarray(X, jnp.bfloat16)
    variables = te.unbox(_variables())
    run = jax.jit(lambda v, x, key: layer.apply(v, x, rngs={rng: key}, **arguments))
    with BF16():
        return np.asarray(run(variables, x, jax.random.PRNGKey(seed)), np.float64)


@functools.cache
def _variables() -> Any:
    with BF16():
        return jax.jit(_layer().init)({"params": jax.random.PRNGKey(0)}, jnp.asarray(X, jnp.bfloat16))


@transformer
@pytest.mark.parametrize("name", [*NONE, "drop_path"])
def test_deterministic_layer_drops_nothing_and_another_does(name: str) -> None:
    plain, layer = _outputs(_layer()), _layer(**{name: RATE})
    assert_equal(where=name, actual=_outputs(layer, deterministic=True), expected=plain)
    found = _outputs(layer)
    assert (found != plain).any(), f"{name}={RATE}: nothing is dropped"
    assert_equal(where=f"{name}, same key", actual=_outputs(layer), expected=found)
    assert (_outputs(layer, seed=2) != found).any(), f"{name}={RATE}: another key drops the same"


@transformer
def test_whole_paths_of_examples_are_dropped() -> None:
    """At a rate of a half, both paths of one example in four are dropped: it comes out as it went in."""
    found = _outputs(_layer(drop_path=RATE))
    kept = (found == np.asarray(jnp.asarray(X, jnp.bfloat16), np.float64)).all(axis=(1, 2))
    count, expected, deviation = kept.sum(), len(X) / 4, (len(X) * 3 / 16) ** 0.5
    assert abs(count - expected) <= 4 * deviation, f"{count} of {len(X)} examples pass by, not {expected:.0f}"


@transformer
def test_random_numbers_of_all_dropout_have_the_given_name() -> None:
    """``dropout_rng_name`` says so; nothing but drop_path is dropped here, in both of its places."""
    _outputs(_layer(drop_path=RATE, dropout_rng_name="mine"), rng="mine")


@pytest.mark.subject("LayerNormMLP", "gelu")
def test_mlp_drops_its_activations() -> None:
    """With an identity behind it, each activation is zero or twice itself, and half of them are zero."""
    fields = {"intermediate_dim": 16, "return_layernorm_output": False, "activations": ("gelu",)}
    x = jnp.asarray(X, jnp.bfloat16)
    plain, dropping = (flax_layer("LayerNormMLP", intermediate_dropout_rate=rate, **fields) for rate in (0.0, RATE))
    with BF16():
        params = dict(te.unbox(jax.jit(plain.init)({"params": jax.random.PRNGKey(0)}, x))["params"])
    params["wo_kernel"] = jnp.eye(16, dtype=params["wo_kernel"].dtype)
    run = functools.partial(jax.jit, static_argnums=0, static_argnames="deterministic")(_first)
    whole, found = (np.asarray(run(layer, params, x), np.float64) for layer in (plain, dropping))
    counted = whole != 0
    dropped = (found == 0) & counted
    assert_equal(where="kept", actual=found[~dropped], expected=2 * whole[~dropped])
    share, error = dropped.sum() / counted.sum(), 0.5 / counted.sum() ** 0.5
    assert abs(share - RATE) <= 5 * error, f"share dropped={share:.4f}, but should be {RATE}"
    assert_equal(where="deterministic", actual=run(dropping, params, x, deterministic=True), expected=whole)


def _first(layer: Any, params: Any, x: jax.Array, *, deterministic: bool = False) -> Any:
    rngs = {"dropout": jax.random.PRNGKey(1)}
    with BF16():
        return layer.apply({"params": params}, x, rngs=rngs, deterministic=deterministic)[0]


@pytest.mark.subject("MultiHeadAttention", "asks itself")
@pytest.mark.parametrize("scaled", [True, False])
def test_queries_begin_smaller_by_the_root_of_the_head(scaled: bool) -> None:  # noqa: FBT001
    """``scaled_query_init``: the first kernels of keys and values are spread by the width alone."""
    layer = flax_layer("MultiHeadAttention", head_dim=16, num_attention_heads=4, scaled_query_init=scaled)
    x = jnp.ones((1, 4, 64), jnp.bfloat16)
    with BF16():
        params = te.unbox(jax.jit(lambda x: layer.init({"params": jax.random.PRNGKey(0)}, x, x))(x))["params"]
    kernel = params["qkv"]["kernel"]
    query, key, value = np.moveaxis(np.asarray(kernel, np.float64).reshape(64, 3, 64), 1, 0)
    error = 5 / (2 * query.size) ** 0.5
    for name, part, deviation in (("query", query, 0.25 if scaled else 1), ("key", key, 1), ("value", value, 1)):
        found = part.std() * 8 / deviation
        assert abs(found - 1) <= error, f"{name}: spread by {found:.3f} times of what is documented"
