"""``make_dot_general_cls``: Flax's dense layer, whose product is Transformer Engine's.

It takes its recipe at its construction; an autocast around it changes nothing.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mnist_fp8 import te
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.subjects.functional_dense import dense_on_bf16_kernel, flax_kernel
from mnist_fp8.subjects.making import name_of_te
from mnist_fp8.subjects.subject import Case, InnerProduct, Parameter, RecipeFrom, Subject


def _make(case: Case, recipe: RecipeConfig | None) -> Any:  # noqa: ANN401
    product = name_of_te("flax", "make_dot_general_cls")(te.make_recipe(recipe) if recipe else None)
    return nn.Dense(dot_general=product(), dtype=jnp.bfloat16, **case.fields)


def _parameters(case: Case) -> dict[str, Parameter]:
    bias = {"bias": Parameter((case.fields["features"],), None)} if case.fields.get("use_bias", True) else {}
    return {**flax_kernel(case), **bias}


SUBJECT = Subject(
    name="make_dot_general_cls",
    cases=(
        Case("plain", {"features": 32, "use_bias": False}, {"x": (2, 32, 96)}),
        Case("bias", {"features": 32}, {"x": (2, 32, 96)}),
    ),
    make=_make,
    reference=dense_on_bf16_kernel,
    parameters=_parameters,
    products=lambda _case: (InnerProduct("dense", module=("dot_general",)),),
    recipe_from=RecipeFrom.CONSTRUCTION,
)
