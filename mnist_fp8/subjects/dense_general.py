"""``DenseGeneral``: a dense layer, with its kernel among its parameters."""

from collections.abc import Mapping
from typing import Any

import jax

from mnist_fp8 import te
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.oracle.arithmetic import Arithmetic, Params, Reference
from mnist_fp8.subjects.subject import Case, InnerProduct, Parameter, Subject, first_kernel

CASES = (
    Case("plain", {"features": 32, "use_bias": False}, {"x": (2, 32, 96)}),
    Case("bias", {"features": 32, "use_bias": True}, {"x": (2, 32, 96)}),
    Case("several features", {"features": (2, 32), "use_bias": False}, {"x": (2, 32, 96)}),
)


def _make(case: Case, _recipe: RecipeConfig | None) -> Any:  # noqa: ANN401
    return te.dense_general(**case.fields)


def _reference(_case: Case) -> Reference:
    def reference(arithmetic: Arithmetic, params: Params, inputs: Mapping[str, jax.Array]) -> jax.Array:
        y = arithmetic.product("dense", inputs["x"], params["kernel"])
        return y + arithmetic.parameter(params["bias"]) if "bias" in params else y

    return reference


def dense_parameters(case: Case) -> dict[str, Parameter]:
    """The parameters of a dense layer over the last axis."""
    given = case.fields["features"]
    features = given if isinstance(given, tuple) else (given,)
    bias = {"bias": Parameter(features)} if case.fields.get("use_bias", False) else {}
    return {"kernel": first_kernel((case.inputs["x"][-1], *features)), **bias}


SUBJECT = Subject(
    name="DenseGeneral",
    cases=CASES,
    make=_make,
    reference=_reference,
    parameters=dense_parameters,
    products=lambda _case: (InnerProduct("dense"),),
)
