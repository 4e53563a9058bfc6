"""Claim: attention that is given one token after the other computes what it does for the whole sequence.

TE documents ``decode`` of ``MultiHeadAttention`` and ``TransformerLayer`` as an autoregressive cache: keys and values
of earlier tokens are kept in the collection ``cache``. A token sees those and itself, as in causal attention.

What a failure means for an upgrade: a model generates something else than what it was trained for, without an error.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_fp8 import te
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.oracle import layers
from mnist_fp8.oracle.dense import Array
from mnist_fp8.subjects import find_subject
from mnist_fp8.subjects.layer import Layer
from mnist_fp8.subjects.making import flax_layer
from mnist_fp8.te.dense_step import BF16
from support.assertions import assert_close_norm, assert_equal
from support.attention import FLOAT32, numpy_attention
from support.layers import defined, short_variables

BATCH, LENGTH, WIDTH, SIZE = 2, 6, 24, 8
TF32 = 2.0**-9
"""Largest relative norm of a difference where TE's kernels compute products of float32 in TF32."""
attention = pytest.mark.subject("MultiHeadAttention", "separate parameters")
pytestmark = [
    pytest.mark.filterwarnings("ignore:transpose_batch_sequence is not well tested"),
    pytest.mark.filterwarnings("ignore:.*does not officially support sequence-first inputs"),  # 2.6
]


def tolerance() -> float:
    """Largest relative norm of a difference in float32."""
    return TF32 if te.engine().kind is RunKind.KERNEL else FLOAT32


@dataclasses.dataclass(frozen=True)
class Decoder:
    """Attention that generates.

    Attributes:
        kind: of the mask that it is made for; a token sees what came before it, whichever that is.
        heads: of queries, and of keys and values.
        first: the axis of the tokens in what it is given.
        rotary: whether queries and keys are turned by their positions.
    """

    kind: str = "padding"
    heads: tuple[int, int] = (2, 2)
    first: str = "batch"
    rotary: bool = False

    @property
    def module(self) -> Any:
        """The Flax module."""
        return flax_layer(
            "MultiHeadAttention",
            head_dim=SIZE,
            num_attention_heads=self.heads[0],
            num_gqa_groups=self.heads[1],
            attn_mask_type=self.kind,
            fuse_qkv_params=False,
            layernorm_type="rmsnorm",
            scale_attn_logits=True,
            enable_rotary_pos_emb=self.rotary,
            transpose_batch_sequence=self.first == "sequence",
        )

    def variables(self) -> dict[str, Any]:
        """Random parameters, and a cache for as many tokens as it is initialised with."""
        x = self.placed(jnp.ones((BATCH, LENGTH, WIDTH)))
        mask = jnp.zeros((BATCH, 1, LENGTH, LENGTH), jnp.uint8)
        with BF16():
            made = jax.eval_shape(lambda x: self.module.init(jax.random.PRNGKey(0), x, x, mask, decode=True), x)
        drawn, shapes = np.random.default_rng(0), te.unbox(made)

        def draw(leaf: Any) -> jax.Array:
            return jnp.asarray(drawn.normal(0, leaf.shape[0] ** -0.5, leaf.shape), leaf.dtype)

        cache = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes["cache"])
        return {"params": jax.tree.map(draw, shapes["params"]), "cache": cache}

    def placed(self, tokens: Any) -> Any:
        """Tokens, (batch, tokens, features), as the layer takes them."""
        return jnp.swapaxes(tokens, 0, 1) if self.first == "sequence" else tokens

    def generated(self, tokens: Any, mask: Any = None, bias: Any = None) -> tuple[Array, Mapping[str, Any]]:
        """The outputs of tokens one by one, (batch, tokens, features), and the cache behind the last."""
        variables, module = self.variables(), self.module

        def one(cache: Any, token: jax.Array) -> Any:
            given = {"params": variables["params"], "cache": cache}
            x = self.placed(token[:, None])
            (y, _), changed = module.apply(given, x, x, mask, bias, decode=True, deterministic=True, mutable=["cache"])
            return changed["cache"], self.placed(y)[:, 0]

        with BF16(), jax.default_matmul_precision("highest"):
            cache, y = jax.jit(lambda cache, x: jax.lax.scan(one, cache, x))(
                variables["cache"], jnp.swapaxes(tokens, 0, 1)
            )
        return np.swapaxes(np.asarray(y), 0, 1), cache

    def expected(self, tokens: Any, seen: Array, bias: Array | None = None) -> Array:
        """The outputs of the whole sequence by NumPy, of keys that are seen."""
        params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), self.variables()["params"])
        y = numpy_attention(*self.projected(tokens, params), seen, bias)
        return y.reshape(BATCH, LENGTH, -1) @ params["out"]["kernel"]

    def projected(self, tokens: Any, params: Any) -> tuple[Array, Array, Array]:
        """Queries, keys and values, (batch, tokens, heads, size)."""
        x = np.asarray(tokens, np.float64)
        normal = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + layers.EPSILON) * params["query"]["scale"]
        shape = (BATCH, LENGTH, -1, SIZE)
        query, key, value = ((normal @ params[name]["kernel"]).reshape(shape) for name in ("query", "key", "value"))
        return (turned(query), turned(key), value) if self.rotary else (query, key, value)


def turned(x: Array) -> Array:
    """Rotary embedding of neighbours."""
    angles = np.asarray(layers.rotary_angles(LENGTH, SIZE), np.float64)[:, None]
    first, second = x[..., 0::2], x[..., 1::2]
    parts = first * np.cos(angles) - second * np.sin(angles), second * np.cos(angles) + first * np.sin(angles)
    return np.stack(parts, axis=-1).reshape(x.shape)


def draw_tokens() -> jax.Array:
    """Normally distributed tokens, (batch, tokens, features)."""
    return jnp.asarray(np.random.default_rng(1).normal(0, 1, (BATCH, LENGTH, WIDTH)), jnp.float32)


BEFORE = np.tril(np.ones((LENGTH, LENGTH), bool))
"""A token sees those before it, and itself."""
DECODERS = {
    "padding": Decoder(),
    "padding_causal": Decoder("padding_causal"),
    "causal": Decoder("causal"),
    "no_mask": Decoder("no_mask"),
    "sequence first": Decoder(first="sequence"),
    "grouped heads": Decoder(heads=(4, 2)),
    "rotary": Decoder(rotary=True),
}


@attention
@pytest.mark.parametrize("name", DECODERS)
def test_tokens_one_by_one_see_those_before_them(name: str) -> None:
    decoder, tokens = DECODERS[name], draw_tokens()
    found, _ = decoder.generated(tokens)
    assert_close_norm(where=name, actual=found, expected=decoder.expected(tokens, BEFORE), tolerance=tolerance())


@attention
@pytest.mark.parametrize("name", ["causal", "sequence first", "grouped heads", "rotary"])
def test_control_whole_sequences_are_those_of_the_reference(name: str) -> None:
    decoder, tokens = dataclasses.replace(DECODERS[name], kind="causal"), draw_tokens()
    x, params = decoder.placed(tokens), decoder.variables()["params"]
    hidden = jnp.broadcast_to(jnp.asarray(~BEFORE, jnp.uint8), (BATCH, 1, LENGTH, LENGTH))  # asked for before 2.3

    @jax.jit
    def apply(params: Any, x: jax.Array) -> Any:
        return decoder.module.apply({"params": params}, x, x, hidden, deterministic=True)[0]

    with BF16(), jax.default_matmul_precision("highest"):
        y = apply(params, x)
    wanted = decoder.expected(tokens, BEFORE)
    assert_close_norm(where=name, actual=decoder.placed(y), expected=wanted, tolerance=tolerance())


@attention
def test_bias_of_a_token_is_the_one_of_its_position() -> None:
    decoder, tokens = Decoder(), draw_tokens()
    bias = np.random.default_rng(2).normal(0, 1, (1, 2, LENGTH, LENGTH)).astype(np.float32)
    found, _ = decoder.generated(tokens, bias=jnp.asarray(bias))
    wanted = decoder.expected(tokens, BEFORE, bias)
    assert_close_norm(where="with a bias", actual=found, expected=wanted, tolerance=tolerance())


@attention
def test_padding_of_a_prompt_stays_hidden() -> None:
    """Padding comes first here: the prompts of a batch end at the same token, and begin at their own."""
    decoder, tokens, begins = Decoder(), draw_tokens(), np.asarray([0, 2])
    real = np.arange(LENGTH) >= begins[:, None]
    found, _ = decoder.generated(tokens, mask=jnp.asarray(~real[:, None, None], jnp.uint8))
    wanted = decoder.expected(tokens, BEFORE & real[:, None, None])
    assert_close_norm(where="behind padding", actual=found[real], expected=wanted[real], tolerance=tolerance())


@attention
@pytest.mark.parametrize("first", ["batch", "sequence"])
def test_cache_holds_keys_and_values_of_all_tokens(first: str) -> None:
    decoder, tokens = Decoder(first=first), draw_tokens()
    _, cache = decoder.generated(tokens)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), decoder.variables()["params"])
    _, key, value = decoder.projected(tokens, params)
    assert set(cache) == {"cached_key", "cached_value", "cache_index"}, f"the cache has {sorted(cache)}"
    for name, wanted in {"cached_key": key, "cached_value": value}.items():
        found = decoder.placed(cache[name])
        assert_close_norm(where=name, actual=found, expected=wanted, tolerance=tolerance())
    assert_equal(where="tokens counted", actual=cache["cache_index"], expected=LENGTH)


@attention
def test_cache_is_empty_where_no_token_was_given() -> None:
    """What initialises the layer says how long sequences may be; none of it is kept."""
    decoder = Decoder()
    x, mask = jnp.ones((BATCH, LENGTH, WIDTH)), jnp.zeros((BATCH, 1, LENGTH, LENGTH), jnp.uint8)
    with BF16():
        cache = jax.jit(lambda: decoder.module.init(jax.random.PRNGKey(0), x, x, mask, decode=True))()["cache"]
    for name, leaf in cache.items():
        assert_equal(where=name, actual=leaf, expected=np.zeros(leaf.shape))


@attention
def test_two_tokens_at_once_are_refused() -> None:
    decoder, variables = Decoder(), Decoder().variables()
    x = draw_tokens()[:, :2]
    with BF16(), pytest.raises(ValueError, match="Autoregressive cache shape error"):
        decoder.module.apply(variables, x, x, decode=True, mutable=["cache"])


@pytest.mark.subject("TransformerLayer", "decoder, relative embedding")
def test_decoder_generates_what_it_computes_for_the_whole_sequence() -> None:
    """With relative positions up to ``max_decode_length``, and what an encoder made beside."""
    subject = find_subject("TransformerLayer")
    case = subject.case("decoder, relative embedding")
    whole = Layer(subject, dataclasses.replace(case, fields={**case.fields, "fuse_qkv_params": False}))
    alone = dataclasses.replace(whole.case, fields={**whole.case.fields, "self_attn_mask_type": "padding"})
    module, variables, inputs = subject.make(alone, None).module, short_variables(whole), whole.inputs(dtype="float32")
    length, encoded = inputs["x"].shape[1], inputs["encoded"]
    masks = {"encoder_decoder_mask": jnp.asarray(case.arguments["encoder_decoder_mask"][:, :, :1])}
    fields = {"decode": True, "max_decode_length": length, "deterministic": True, **masks}

    def begin(x: jax.Array) -> Any:
        return module.init(jax.random.PRNGKey(0), x, encoded, jnp.zeros((2, 1, length, length), jnp.uint8), **fields)

    def one(cache: Any, token: jax.Array) -> Any:
        given = {"params": variables["params"], "cache": cache}
        y, changed = module.apply(given, token[:, None], encoded, mutable=["cache"], **fields)
        return changed["cache"], y[:, 0]

    with BF16(), jax.default_matmul_precision("highest"):
        cache = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(begin, inputs["x"])["cache"]
        )
        _, y = jax.jit(lambda cache, x: jax.lax.scan(one, cache, x))(cache, jnp.swapaxes(inputs["x"], 0, 1))
    expected = defined(whole, variables, inputs)
    assert_close_norm(where="decoder", actual=np.swapaxes(y, 0, 1), expected=expected, tolerance=tolerance())
