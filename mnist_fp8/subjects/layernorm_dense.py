"""``LayerNormDenseGeneral``: a layer norm and a dense layer, in one where nothing asks for what is between them."""

from collections.abc import Mapping
from typing import Any

import jax

from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.oracle import fused
from mnist_fp8.oracle.arithmetic import Arithmetic, Params, Reference
from mnist_fp8.oracle.fused import Fusion
from mnist_fp8.subjects.dense_general import dense_parameters
from mnist_fp8.subjects.layernorm import KINDS, norm_of, norm_parameters
from mnist_fp8.subjects.making import flax_layer
from mnist_fp8.subjects.subject import Case, InnerProduct, Subject

INPUTS = {"x": (2, 32, 96)}
CASES = (
    *(
        Case(name, {"features": 32, "return_layernorm_output": False, **fields}, INPUTS)
        for name, fields in KINDS.items()
    ),
    Case("bias", {"features": 32, "return_layernorm_output": False, "use_bias": True}, INPUTS),
    Case("normalised as well", {"features": 32, "return_layernorm_output": True, "use_bias": True}, INPUTS),
    Case("several features", {"features": (2, 32), "return_layernorm_output": False}, INPUTS),
    Case("no layer norm", {"features": 32, "return_layernorm_output": False, "enable_layernorm": False}, INPUTS),
    Case("depth scaling", {"features": 32, "return_layernorm_output": False, "depth_scaling": 4.0}, INPUTS),
    Case("realistic", {"features": 384, "return_layernorm_output": False}, {"x": (2, 128, 512)}),
)


def _make(case: Case, _recipe: RecipeConfig | None) -> Any:  # noqa: ANN401
    return flax_layer("LayerNormDenseGeneral", **case.fields)


def _reference(case: Case) -> Reference:
    fusion = Fusion(norm_of(case), case.fields["return_layernorm_output"])

    def reference(arithmetic: Arithmetic, params: Params, inputs: Mapping[str, jax.Array]) -> Any:  # noqa: ANN401
        y, normal = fused.dense(fusion, arithmetic, params, inputs["x"])
        y = y / case.fields.get("depth_scaling", 1.0)
        return (y, normal) if fusion.returns_normal else y

    return reference


SUBJECT = Subject(
    name="LayerNormDenseGeneral",
    cases=CASES,
    make=_make,
    reference=_reference,
    parameters=lambda case: {**norm_parameters(case), **dense_parameters(case)},
    products=lambda _case: (InnerProduct("dense"),),
    recorded=("normalised as well",),
)
