"""A small transformer that learns to copy, its layer Flax's or Transformer Engine's.

A sequence is a start, eight random tokens and the same eight once more; everywhere the next token is asked for. The
first eight cannot be known. The others can: they are what stands seven tokens back, which takes a causal mask and
positions to find.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax

from mnist_fp8 import te
from mnist_fp8.core.modes import Precision, RecipeConfig
from mnist_fp8.subjects.making import flax_layer
from mnist_fp8.training import train
from mnist_fp8.training.train import Context, Metadata, TrainState

TOKENS, COPIED = 32, 8
HIDDEN, INTERMEDIATE, HEADS = 32, 64, 2
EPSILON = 1e-6
TEST_SEQUENCES = 512


@dataclasses.dataclass(frozen=True)
class CopyConfig:
    """One training run, by Adam on sequences that are never seen twice; the seed decides them and the parameters."""

    precision: Precision = Precision.FLAX_BF16
    recipe: RecipeConfig = dataclasses.field(default_factory=RecipeConfig)
    seed: int = 1
    steps: int = 200
    batch_size: int = 16
    learning_rate: float = 0.01


@dataclasses.dataclass(frozen=True)
class Learned:
    """What came out.

    Attributes:
        losses: mean loss of each step, in nats.
        copy_loss: mean loss on tokens that can be known, in new sequences.
        guessed: share of the tokens that cannot be known which were predicted nevertheless.
    """

    losses: list[float]
    copy_loss: float
    guessed: float


def copies(count: int, seed: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Draw sequences: what is read, a start (0) first, and what comes next; both of shape (count, 16)."""
    words = np.random.default_rng(seed).integers(1, TOKENS, (count, COPIED), dtype=np.int32)
    sequences = np.concatenate([np.zeros((count, 1), np.int32), words, words], axis=1)
    return sequences[:, :-1], sequences[:, 1:]


def first_parameters(seed: int) -> dict[str, Any]:
    """Parameters in Transformer Engine's layout, the same numbers in every mode and release."""
    drawn = np.random.default_rng(seed)

    def kernel(*shape: int) -> npt.NDArray[np.float32]:
        return (drawn.normal(0, 1, shape) / np.sqrt(shape[0])).astype(np.float32)

    def zeros(*shape: int) -> npt.NDArray[np.float32]:
        return np.zeros(shape, np.float32)

    norm = {"scale": np.ones(HIDDEN, np.float32), "ln_bias": zeros(HIDDEN)}
    qkv = {**norm, "kernel": kernel(HIDDEN, 3, HIDDEN), "bias": zeros(3, HIDDEN)}
    wi = {"wi_kernel": kernel(HIDDEN, 1, INTERMEDIATE), "wi_bias": zeros(1, INTERMEDIATE)}
    wo = {"wo_kernel": kernel(INTERMEDIATE, HIDDEN), "wo_bias": zeros(HIDDEN)}
    return {
        "embedding": {"embedding": drawn.normal(0, 1, (TOKENS, HIDDEN)).astype(np.float32)},
        "attention": {"qkv": qkv, "out": {"kernel": kernel(HIDDEN, HIDDEN), "bias": zeros(HIDDEN)}},
        "mlp": {**norm, **wi, **wo},
        "logits": {"kernel": kernel(HIDDEN, TOKENS), "bias": zeros(TOKENS)},
    }


# --- the model -----------------------------------------------------------------------------------------------------


def apply(
    layer: Any,  # noqa: ANN401 - a Flax module
    variables: Mapping[str, Any],
    tokens: jax.Array,
    *,
    train: bool = False,  # noqa: ARG001 - there is no dropout
    rngs: Mapping[str, jax.Array] | None = None,
) -> jax.Array:
    """Compute logits, shape (N, L, 32), float32, of tokens, shape (N, L).

    An embedding, one layer with causal attention and rotary positions, and a product. Activations are BF16 and
    parameters float32. The modes differ in the layer only.
    """
    params = variables["params"]
    of_layer = {**variables, "params": {name: params[name] for name in ("attention", "mlp")}}
    x = nn.Embed(TOKENS, HIDDEN, dtype=jnp.bfloat16).apply({"params": params["embedding"]}, tokens)
    x = layer.apply(of_layer, x, deterministic=True, rngs=rngs)
    return nn.Dense(TOKENS, dtype=jnp.bfloat16).apply({"params": params["logits"]}, x).astype(jnp.float32)


def te_layer() -> Any:  # noqa: ANN401
    """Transformer Engine's layer."""
    dropout = dict.fromkeys(("hidden_dropout", "attention_dropout", "intermediate_dropout"), 0.0)
    return flax_layer(
        "TransformerLayer",
        hidden_size=HIDDEN,
        mlp_hidden_size=INTERMEDIATE,
        num_attention_heads=HEADS,
        layernorm_epsilon=EPSILON,
        mlp_activations=("gelu",),
        use_bias=True,
        enable_relative_embedding=False,
        enable_rotary_pos_emb=True,
        scale_attn_logits=True,
        **dropout,
    )


@dataclasses.dataclass(frozen=True)
class FlaxLayer:
    """The same of Flax's layers, with the same parameters."""

    def apply(self, variables: Mapping[str, Any], x: jax.Array, **_: object) -> jax.Array:
        """Compute the layer, shape (N, L, 32), of its input."""
        attention, mlp = variables["params"]["attention"], variables["params"]["mlp"]
        qkv = _dense(attention["qkv"], _norm(attention["qkv"], x), (3, HIDDEN))
        query, key, value = (qkv[:, :, part].reshape(*x.shape[:2], HEADS, -1) for part in range(3))
        mask = nn.make_causal_mask(x[..., 0])
        mixed = nn.dot_product_attention(rotated(query), rotated(key), value, mask=mask, dtype=x.dtype)
        x += _dense(attention["out"], mixed.reshape(x.shape), HIDDEN)
        wide = nn.gelu(_dense(mlp, _norm(mlp, x), (1, INTERMEDIATE), "wi_"))
        return x + _dense(mlp, wide[:, :, 0], HIDDEN, "wo_")


def _norm(params: Mapping[str, Any], x: jax.Array) -> jax.Array:
    layer = nn.LayerNorm(epsilon=EPSILON, dtype=x.dtype)
    return layer.apply({"params": {"scale": params["scale"], "bias": params["ln_bias"]}}, x)


def _dense(params: Mapping[str, Any], x: jax.Array, features: int | tuple[int, ...], prefix: str = "") -> jax.Array:
    of_layer = {name: params[prefix + name] for name in ("kernel", "bias")}
    return nn.DenseGeneral(features, dtype=x.dtype).apply({"params": of_layer}, x)


def rotated(x: jax.Array) -> jax.Array:
    """Rotary positions of queries or keys, shape (N, L, heads, d): each two neighbours turn by the same angle."""
    _, length, _, size = x.shape
    angles = np.arange(length)[:, None, None] / 10000 ** (np.arange(0, size, 2) / size)
    turned = jax.lax.complex(*x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2).transpose(4, 0, 1, 2, 3))
    turned *= np.exp(1j * angles).astype(np.complex64)
    return jnp.stack([turned.real, turned.imag], axis=-1).reshape(x.shape).astype(x.dtype)


# --- the training --------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A run whose programs are written, but not compiled yet.

    Attributes:
        given: state, metadata, tokens, next tokens and key that training begins with.
        training: the program that trains.
        evaluation: the program that evaluates.
    """

    given: tuple[Any, ...]
    training: jax.stages.Lowered
    evaluation: jax.stages.Lowered

    def programs(self) -> list[str]:
        """Text of both programs, and all first numbers; on a CPU they decide the result, with the version of JAX."""
        *arrays, _key = self.given
        leaves = [np.asarray(leaf).tobytes().hex() for leaf in jax.tree.leaves(arrays)]
        return [self.training.as_text(), self.evaluation.as_text(), *leaves]

    def run(self) -> Learned:
        """Train and evaluate."""
        state, metadata, metrics = self.training.compile()(*self.given)
        copy_loss, guessed = self.evaluation.compile()(state, metadata, *_test_set()).tolist()
        return Learned(metrics[:, 0].tolist(), copy_loss, guessed)


def prepare(config: CopyConfig) -> Prepared:
    """Write the programs of a run.

    Raises:
        NotInReleaseError: the installed release has no such layer.
    """
    train.prepare_backend(config.precision)
    mode = train.mode_of(config.precision, config.recipe)
    layer = te_layer() if config.precision.uses_te else FlaxLayer()
    state = TrainState.create(
        apply_fn=_model(layer),
        params=jax.device_put(first_parameters(config.seed)),
        tx=_optimizer(config.learning_rate),
        mode=mode,
        metadata_interval=int(config.precision is Precision.TE_FP8),
    )
    metadata = first_metadata(layer, mode) if config.precision is Precision.TE_FP8 else {}
    sequences = copies(config.steps * config.batch_size, config.seed)
    given = (state, metadata, *sequences, jax.random.key(config.seed))
    training = train.epoch_at_once.lower(*given, config.batch_size)
    return Prepared(given, training, _evaluate.lower(state, metadata, *_test_set()))


@functools.cache
def _model(layer: Any) -> Any:  # noqa: ANN401
    """The same object for the same layer: it is a static part of what is traced."""
    return functools.partial(apply, layer)


@functools.cache
def _optimizer(learning_rate: float) -> optax.GradientTransformation:
    """The same object for the same value, as `_model`."""
    return optax.adam(learning_rate)


def first_metadata(layer: Any, mode: Context) -> Metadata:  # noqa: ANN401
    """FP8 metadata as Transformer Engine makes them; nothing else of what it initialises is computed."""

    @jax.jit
    def made() -> Metadata:
        with mode():
            x = jnp.zeros((1, 2 * COPIED, HIDDEN), jnp.bfloat16)
            variables = te.unbox(layer.init(jax.random.key(0), x, deterministic=True))
        return {name: tree for name, tree in variables.items() if name != "params"}

    return made()


def _test_set() -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    return copies(TEST_SEQUENCES, seed=0)


@jax.jit
def _evaluate(state: TrainState, metadata: Metadata, tokens: jax.Array, following: jax.Array) -> jax.Array:
    """Mean loss on what can be known, and share of what cannot be known that was predicted; shape (2,)."""
    logits = train.predict(state, metadata, tokens)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, following)
    hits = jnp.argmax(logits, axis=-1) == following
    return jnp.stack([losses[:, COPIED:].mean(), hits[:, :COPIED].mean()])
