"""``RelativePositionBiases``: a learned bias for the distance between a query and a key, as in T5."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.oracle import layers
from mnist_fp8.oracle.arithmetic import Arithmetic, Params, Reference
from mnist_fp8.subjects.making import flax_layer
from mnist_fp8.subjects.subject import Case, Parameter, RecipeFrom, Subject

FIELDS = {"num_buckets": 32, "max_distance": 128, "num_attention_heads": 4}
CASES = (
    Case("both sides", FIELDS, {}, {"q_seqlen": 24, "k_seqlen": 40, "bidirectional": True}),
    Case("one side", FIELDS, {}, {"q_seqlen": 40, "k_seqlen": 24, "bidirectional": False}),
    Case("far", {**FIELDS, "max_distance": 64}, {}, {"q_seqlen": 160, "k_seqlen": 160, "bidirectional": True}),
    Case("far on one side", FIELDS, {}, {"q_seqlen": 160, "k_seqlen": 8, "bidirectional": False}),
)


RELATIVE = Parameter((4, 32), ("heads", "relpos_buckets"), deviation=None)
"""A bias for each head and bucket."""


def _make(case: Case, _recipe: RecipeConfig | None) -> Any:  # noqa: ANN401
    return flax_layer("RelativePositionBiases", **case.fields)


def _reference(case: Case) -> Reference:
    buckets = layers.relative_buckets(
        case.arguments["q_seqlen"],
        case.arguments["k_seqlen"],
        buckets=case.fields["num_buckets"],
        furthest=case.fields["max_distance"],
        both_sides=case.arguments["bidirectional"],
    )

    def reference(_arithmetic: Arithmetic, params: Params, _inputs: Mapping[str, jax.Array]) -> jax.Array:
        return jnp.asarray(params["rel_embedding"])[:, buckets][None]

    return reference


SUBJECT = Subject(
    name="RelativePositionBiases",
    cases=CASES,
    make=_make,
    reference=_reference,
    parameters=lambda _case: {"rel_embedding": RELATIVE},
    recipe_from=RecipeFrom.NOWHERE,
)
