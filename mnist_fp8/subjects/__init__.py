"""The layers that are judged, a module each."""

import os

from mnist_fp8.core.subjects import VARIABLE, parse_subjects
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
    attention.SUBJECT,
    attention.PACKED,
    relative_positions.SUBJECT,
    multi_head_attention.SUBJECT,
    transformer_layer.SUBJECT,
    grouped_dense.SUBJECT,
    grouped_dense.WRAPPED,
)
"""All of them, in the order of reports."""


_BY_NAME = {subject.name: subject for subject in SUBJECTS}


def find_subject(name: str) -> Subject:
    """The subject of a name."""
    return _BY_NAME[name]


def asked_subjects() -> tuple[Subject, ...]:
    """Those that the environment asks for; all if it does not say.

    Raises:
        ConfigError: it asks for one that there is not.
    """
    names = os.environ.get(VARIABLE)
    return tuple(map(find_subject, parse_subjects(names))) if names else SUBJECTS
