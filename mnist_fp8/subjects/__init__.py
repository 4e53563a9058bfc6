"""The layers that are judged, a module each."""

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.subjects import (
    attention,
    dense_general,
    functional_dense,
    grouped_dense,
    layernorm,
    layernorm_dense,
    layernorm_mlp,
    multi_head_attention,
    relative_positions,
    transformer_layer,
    wrapped_dense,
)
from mnist_fp8.subjects.subject import Subject

SUBJECTS: tuple[Subject, ...] = (
    dense_general.SUBJECT,
    layernorm.SUBJECT,
    layernorm_dense.SUBJECT,
    layernorm_mlp.SUBJECT,
    functional_dense.SUBJECT,
    functional_dense.OVERRIDING,
    wrapped_dense.SUBJECT,
    grouped_dense.SUBJECT,
    grouped_dense.WRAPPED,
    attention.SUBJECT,
    multi_head_attention.SUBJECT,
    transformer_layer.SUBJECT,
    attention.PACKED,
    relative_positions.SUBJECT,
)
"""All of them, in the order of reports."""


def find_subject(name: str) -> Subject:
    """The subject of a name.

    Raises:
        ConfigError: there is none.
    """
    for subject in SUBJECTS:
        if subject.name == name:
            return subject
    raise ConfigError(f"there is no subject {name!r}; there are {', '.join(subject.name for subject in SUBJECTS)}")
