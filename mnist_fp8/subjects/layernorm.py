"""``LayerNorm``: normalisation alone, by mean and variance or by the root mean square."""

from collections.abc import Mapping
from typing import Any

import jax

from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.oracle import fused, layers
from mnist_fp8.oracle.arithmetic import Arithmetic, Params, Reference
from mnist_fp8.oracle.fused import Norm
from mnist_fp8.subjects.making import flax_layer
from mnist_fp8.subjects.subject import Case, Parameter, RecipeFrom, Subject

KINDS: dict[str, dict[str, Any]] = {
    "layernorm": {},
    "layernorm around one": {"zero_centered_gamma": True},
    "rmsnorm": {"layernorm_type": "rmsnorm"},
    "rmsnorm with a larger epsilon": {"layernorm_type": "rmsnorm", "epsilon": 1e-2},
}
"""Fields of layers that normalise, by the name of the case."""


def norm_of(case: Case) -> Norm | None:
    """The layer norm inside a case, if there is one."""
    if not case.fields.get("enable_layernorm", True):
        return None
    return Norm(case.fields.get("zero_centered_gamma", False), case.fields.get("epsilon", layers.EPSILON))


def normalised(case: Case, arithmetic: Arithmetic, params: Params, x: jax.Array) -> jax.Array:
    """What the layer norm inside a case makes of its input, if there is one."""
    return fused.normalised(norm_of(case), arithmetic, params, x)


def scale_and_bias(fields: Mapping[str, Any], width: int, axis: str) -> dict[str, Parameter]:
    """The parameters of a layer norm of ``width`` features: none but a layer norm by mean and variance shifts."""
    mean = float(not fields.get("zero_centered_gamma", False))
    shifts = fields.get("layernorm_type", "layernorm") == "layernorm"
    bias = {"ln_bias": Parameter((width,), (axis,))} if shifts else {}
    return {"scale": Parameter((width,), (axis,), mean=mean), **bias}


def norm_parameters(case: Case) -> dict[str, Parameter]:
    """The parameters of the layer norm inside a case, if there is one."""
    normalises = case.fields.get("enable_layernorm", True)
    return scale_and_bias(case.fields, case.inputs["x"][-1], "embed") if normalises else {}


def _make(case: Case, _recipe: RecipeConfig | None) -> Any:  # noqa: ANN401
    return flax_layer("LayerNorm", **case.fields)


def _reference(case: Case) -> Reference:
    def reference(arithmetic: Arithmetic, params: Params, inputs: Mapping[str, jax.Array]) -> jax.Array:
        return normalised(case, arithmetic, params, inputs["x"])

    return reference


SUBJECT = Subject(
    name="LayerNorm",
    cases=tuple(Case(name, fields, {"x": (2, 32, 96)}) for name, fields in KINDS.items()),
    make=_make,
    reference=_reference,
    parameters=norm_parameters,
    recipe_from=RecipeFrom.NOWHERE,
    recorded=("rmsnorm",),
)
