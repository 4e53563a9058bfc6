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
from flax.traverse_util import flatten_dict, unflatten_dict

from mnist_fp8 import te
from mnist_fp8.subjects.making import flax_layer, name_of_te
from mnist_fp8.te.dense_step import BF16
from support.assertions import assert_equal

RATE = 0.5
X = np.random.default_rng(0).normal(0, 1, (512, 4, 16)).astype(np.float32)
NONE = {"hidden_dropout": 0.0, "attention_dropout": 0.0, "intermediate_dropout": 0.0}
ENDS = {
    "attention": ("attention", "out", "kernel"),
    "self-attention": ("self_attention", "out", "kernel"),
    "cross-attention": ("encoder_decoder_attention", "out", "kernel"),
    "MLP": ("mlp", "wo_kernel"),
}
"""The last kernel of each path that is added to the residual: without it, the path adds nothing."""
transformer = pytest.mark.subject("TransformerLayer", "encoder")


def _layer(**fields: Any) -> Any:
    plain = {"hidden_size": 16, "mlp_hidden_size": 32, "num_attention_heads": 2, "enable_relative_embedding": False}
    return flax_layer("TransformerLayer", **{**plain, **NONE, **fields})


def _outputs(layer: Any, *, seed: int = 1, **arguments: Any) -> Any:
    """A layer's output on the parameters of the same layer without dropout."""
    return _computed(layer, X, {"dropout": seed}, **arguments)


def _computed(layer: Any, x: Any, seeds: dict[str, int], **arguments: Any) -> Any:
    """As `_outputs`, of an input, and with a seed for each name of random numbers."""
    keys = {name: jax.random.PRNGKey(seed) for name, seed in seeds.items()}
    y = _applied(layer, te.unbox(_variables()), jnp.asarray(x, jnp.bfloat16), keys, {}, **arguments)
    return np.asarray(y, np.float64)


@functools.partial(jax.jit, static_argnums=0, static_argnames="deterministic")
def _applied(layer: Any, variables: Any, x: jax.Array, keys: Any, more: Any, *, deterministic: bool = False) -> Any:
    with BF16():
        return layer.apply(variables, x, **more, rngs=keys, deterministic=deterministic)


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
@pytest.mark.filterwarnings("ignore:transpose_batch_sequence is not well tested")
@pytest.mark.filterwarnings("ignore:.*does not officially support sequence-first inputs")  # 2.6
@pytest.mark.parametrize("first", ["batch", "sequence"])
def test_whole_paths_of_examples_are_dropped(first: str) -> None:
    """At a rate of a half, both paths of one example in four are dropped: it comes out as it went in."""
    turned = first == "sequence"
    x = X.swapaxes(0, 1) if turned else X
    found = _computed(_layer(drop_path=RATE, transpose_batch_sequence=turned), x, {"dropout": 1})
    untouched = found == np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64)
    kept = untouched.all(axis=(0, 2) if turned else (1, 2))
    count, expected, deviation = kept.sum(), len(X) / 4, (len(X) * 3 / 16) ** 0.5
    assert abs(count - expected) <= 4 * deviation, f"{count} of {len(X)} examples pass by, not {expected:.0f}"


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        pytest.param(kind, path, id=f"{kind}, {path}", marks=pytest.mark.subject("TransformerLayer", case))
        for kind, case, paths in (
            ("ENCODER", "encoder", ("attention", "MLP")),
            ("DECODER", "decoder, relative embedding", ("self-attention", "cross-attention", "MLP")),
        )
        for path in paths
    ],
)
def test_half_of_what_a_path_adds_is_dropped(kind: str, path: str) -> None:
    """``hidden_dropout`` is of the attention, the cross-attention and the MLP alike; here of one that alone adds."""
    layers = [
        _layer(layer_type=name_of_te("flax", "TransformerLayerType", kind), hidden_dropout=rate) for rate in (0.0, RATE)
    ]
    x, mask = jnp.asarray(X, jnp.bfloat16), jnp.zeros((len(X), 1, *X.shape[1:2] * 2), jnp.uint8)
    inputs = {"encoded": x, "encoder_decoder_mask": mask} if kind == "DECODER" else {}
    with BF16():
        params = te.unbox(jax.jit(layers[0].init)({"params": jax.random.PRNGKey(0)}, x, **inputs))["params"]
    flat = flatten_dict(params)
    flat |= {end: 0 * flat[end] for name, end in ENDS.items() if name != path and end in flat}
    keys = {"dropout": jax.random.PRNGKey(1)}
    outputs = (_applied(layer, {"params": unflatten_dict(flat)}, x, keys, inputs) for layer in layers)
    plain, found = (np.asarray(y, np.float64) - np.asarray(x, np.float64) for y in outputs)
    counted, kept = plain != 0, found != 0
    share, error = 1 - kept[counted].mean(), 0.5 / counted.sum() ** 0.5
    assert abs(share - RATE) <= 5 * error, f"{path}: share dropped={share:.4f}, but should be {RATE}"
    scale = np.linalg.norm(found[kept]) / np.linalg.norm(plain[kept])
    assert abs(scale * (1 - RATE) - 1) <= 0.01, f"{path}: what is kept is {scale:.3f} times as large, but should be 2"


@pytest.mark.host  # Not tried on kernels yet.
@pytest.mark.subject("TransformerLayer", "decoder, relative embedding")
@pytest.mark.parametrize("path", ["self-attention", "cross-attention"])
def test_weights_of_each_attention_of_a_decoder_are_dropped(path: str) -> None:
    """``attention_dropout`` is of both; here of one that alone adds."""
    kind = name_of_te("flax", "TransformerLayerType", "DECODER")
    x = jnp.asarray(X[:4], jnp.bfloat16)
    inputs = {"encoded": x, "encoder_decoder_mask": jnp.zeros((4, 1, *X.shape[1:2] * 2), jnp.uint8)}
    layers = [_layer(layer_type=kind, attention_dropout=rate) for rate in (0.0, RATE)]
    with BF16():
        params = te.unbox(jax.jit(layers[0].init)({"params": jax.random.PRNGKey(0)}, x, **inputs))["params"]
    flat = flatten_dict(params)
    flat |= {end: 0 * flat[end] for name, end in ENDS.items() if name != path and end in flat}
    keys = {"dropout": jax.random.PRNGKey(1)}
    plain, found = (_applied(layer, {"params": unflatten_dict(flat)}, x, keys, inputs) for layer in layers)
    assert (np.asarray(plain) != np.asarray(x)).any(), f"Control: the {path} should add something"
    assert (np.asarray(plain) != np.asarray(found)).any(), f"{path}: no weight is dropped"


@pytest.mark.host  # Not tried on kernels yet.
@pytest.mark.subject("MultiHeadAttention", "asks itself")
@pytest.mark.filterwarnings("ignore:.*dropout_rate is deprecated:DeprecationWarning")  # whenever Flax copies the layer
def test_rate_of_attention_by_its_former_name_warns_and_counts() -> None:
    fields = {"head_dim": 8, "num_attention_heads": 2, "transpose_batch_sequence": False, "dropout_rate": RATE}
    with pytest.warns(DeprecationWarning, match="dropout_rate is deprecated"):
        layer = flax_layer("MultiHeadAttention", **fields)
    x, keys = jnp.asarray(X[:4], jnp.bfloat16), {name: jax.random.PRNGKey(0) for name in ("params", "dropout")}
    with BF16():
        variables = te.unbox(layer.init(keys, x, x))
        plain, found = (layer.apply(variables, x, x, rngs=keys, deterministic=each)[0] for each in (True, False))
    assert (np.asarray(plain) != np.asarray(found)).any(), f"dropout_rate={RATE}: no weight is dropped"


@transformer
@pytest.mark.parametrize("name", [*NONE, "drop_path"])
def test_random_numbers_of_the_given_name_decide(name: str) -> None:
    """``dropout_rng_name`` says so."""
    layer = _layer(**{name: RATE}, dropout_rng_name="mine")
    found, other = (_computed(layer, X[:4], {"mine": seed, "dropout": 1}) for seed in (1, 2))
    assert (found != other).any(), f"{name}: another key of the given name drops the same"


@transformer
@pytest.mark.parametrize("name", [*NONE, "drop_path"])
def test_random_numbers_of_another_name_do_not_count(name: str) -> None:
    layer = _layer(**{name: RATE}, dropout_rng_name="mine")
    found, other = (_computed(layer, X[:64], {"mine": 1, "dropout": seed}) for seed in (1, 2))
    assert_equal(where=f"{name}, another key of another name", actual=other, expected=found)


@transformer
@pytest.mark.host  # A fused kernel rounds attention to two equal tokens otherwise than to one.
@pytest.mark.parametrize("kind", ["hidden", "intermediate"])
def test_positions_share_what_is_dropped_where_that_is_asked_for(kind: str) -> None:
    """``hidden_dropout_dims`` and ``intermediate_dropout_dims``, here of tokens that are all the same."""
    x = np.broadcast_to(X[:1, :1], (8, *X.shape[1:]))
    fields = {f"{kind}_dropout": RATE}
    alone, shared = (
        _computed(_layer(**fields, **dims), x, {"dropout": 1}) for dims in ({}, {f"{kind}_dropout_dims": (1,)})
    )
    assert (alone != alone[:, :1]).any(), "Control: positions drop on their own"
    assert_equal(
        where=f"positions behind the first, {kind}", actual=shared[:, 1:], expected=0 * alone[:, 1:] + shared[:, :1]
    )
    assert (shared != shared[:1]).any(), f"{kind}: all examples drop the same"


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
