"""``dense.dense``: the function behind the dense layers, called by a user's own module.

Such a module derives from ``TransformerEngineBase`` for its quantizers. MaxText's overrides ``generate_quantizer_set``,
so that it has a recipe of its own and keeps its metadata in another collection.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mnist_fp8 import te
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.oracle.arithmetic import Arithmetic, Params, Reference
from mnist_fp8.subjects.layer import OVERWRITE
from mnist_fp8.subjects.making import demand_parameters, name_of_te
from mnist_fp8.subjects.subject import Case, InnerProduct, Parameter, RecipeFrom, Subject, first_kernel

CASES = (Case("plain", {"features": 32}, {"x": (2, 32, 96)}),)


def _users_dense() -> Any:  # noqa: ANN401
    base, dense = name_of_te("flax", "module", "TransformerEngineBase"), name_of_te("dense", "dense")

    class UsersDense(base):  # type: ignore[misc, valid-type]
        features: int

        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], self.features), jnp.float32)
            quantizers = self.generate_quantizer_set()
            dimensions = ((x.ndim - 1,), (0,))
            y: jax.Array = dense(x, kernel.astype(x.dtype), contracting_dims=dimensions, quantizer_set=quantizers)
            return y

    return UsersDense


def _make(case: Case, _recipe: RecipeConfig | None) -> Any:  # noqa: ANN401
    return _users_dense()(**case.fields)


def _make_with_override(case: Case, recipe: RecipeConfig | None) -> Any:  # noqa: ANN401
    base = _users_dense()
    demand_parameters(base.generate_quantizer_set, "variable_collection", "fp8_recipe")
    own = te.make_recipe(recipe) if recipe else None

    class OverridingDense(base):  # type: ignore[misc, valid-type]
        def generate_quantizer_set(self, postfix: str = "", **options: Any) -> Any:  # noqa: ANN401
            return super().generate_quantizer_set(postfix, variable_collection=OVERWRITE, fp8_recipe=own, **options)

    return OverridingDense(**case.fields)


def dense_on_bf16_kernel(_case: Case) -> Reference:
    """The reference of a dense layer that is given its kernel in BF16."""

    def reference(arithmetic: Arithmetic, params: Params, inputs: Mapping[str, jax.Array]) -> jax.Array:
        y = arithmetic.product("dense", inputs["x"], params["kernel"], cast=True)
        return y + arithmetic.parameter(params["bias"]) if "bias" in params else y

    return reference


def flax_kernel(case: Case) -> dict[str, Parameter]:
    """The kernel of a layer that is not Transformer Engine's own."""
    return {"kernel": first_kernel((case.inputs["x"][-1], case.fields["features"]), None)}


SUBJECT = Subject(
    name="dense.dense",
    cases=CASES,
    make=_make,
    reference=dense_on_bf16_kernel,
    parameters=flax_kernel,
    products=lambda _case: (InnerProduct("dense"),),
)
OVERRIDING = dataclasses.replace(
    SUBJECT, name="TransformerEngineBase", make=_make_with_override, recipe_from=RecipeFrom.CONSTRUCTION
)
