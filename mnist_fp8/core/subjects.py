"""The layers that can be judged: what they are called, and which of them are where nobody says.

What judges and what is judged both know this table; `mnist_fp8.subjects` has what else there is to a layer.
"""

from collections.abc import Iterable, Mapping

from mnist_fp8.core.errors import ConfigError

SUBJECTS: Mapping[str, tuple[str, ...]] = {
    "DenseGeneral": ("DenseGeneral",),
    "LayerNorm": ("LayerNorm", "layernorm"),
    "LayerNormDenseGeneral": ("LayerNormDenseGeneral", "layernorm_dense"),
    "LayerNormMLP": ("LayerNormMLP", "layernorm_mlp"),
    "dense.dense": ("dense",),
    "TransformerEngineBase": ("TransformerEngineBase",),
    "make_dot_general_cls": ("make_dot_general_cls",),
    "DotProductAttention": ("DotProductAttention", "fused_attn"),
    "DotProductAttention THD": ("DotProductAttention", "fused_attn"),
    "RelativePositionBiases": ("RelativePositionBiases",),
    "MultiHeadAttention": ("MultiHeadAttention",),
    "TransformerLayer": ("TransformerLayer",),
    "grouped_dense": ("grouped_dense",),
    "make_grouped_dense_cls": ("make_grouped_dense_cls",),
}
"""All of them in the order of reports, each with its names in Transformer Engine: one is a part of a dotted path."""
ALWAYS = "DenseGeneral"
"""The layer that all other areas of a record are about."""
DEFAULT = ("DenseGeneral", "LayerNormDenseGeneral", "LayerNormMLP", "DotProductAttention")
"""Those that are judged where nobody says which: what the larger layers are made of. A verdict has no time for all."""
VARIABLE = "MNIST_FP8_SUBJECTS"
"""The environment variable that tells a run which; without it, all are."""
ALL = "all"


def parse_subjects(text: str) -> tuple[str, ...]:
    """The subjects of a text such as ``LayerNorm,LayerNormMLP`` or ``all``, and the one that always is.

    Raises:
        ConfigError: there is no such subject.
    """
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in SUBJECTS and name != ALL]:
        raise ConfigError(f"there is no subject {unknown[0]!r}; there are {', '.join(SUBJECTS)}, and {ALL}")
    return tuple(name for name in SUBJECTS if name in (*names, ALWAYS) or ALL in names)


def named_in(paths: Iterable[str]) -> tuple[str, ...]:
    """The subjects that some dotted paths lead to, as ``transformer_engine.jax.flax.LayerNorm.__call__`` does."""
    words = {word for path in paths for word in path.split(".")}
    return tuple(name for name, names in SUBJECTS.items() if not words.isdisjoint(names))
