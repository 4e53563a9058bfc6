"""``LayerNormMLP``: a layer norm, a dense layer, an activation and another dense layer."""

from collections.abc import Mapping
from typing import Any

import jax

from mnist_fp8 import te
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.oracle import fused
from mnist_fp8.oracle.arithmetic import Arithmetic, Params, Reference
from mnist_fp8.oracle.fused import Fusion
from mnist_fp8.subjects.layernorm import KINDS, norm_of, norm_parameters
from mnist_fp8.subjects.making import flax_layer, name_of_te
from mnist_fp8.subjects.subject import Case, InnerProduct, NotInReleaseError, Parameter, Subject, first_kernel

CLAMPED = ("clamped_silu", "clamped_linear")
"""The youngest of the activations."""
ACTIVATIONS = (
    ("gelu",),
    ("silu",),
    ("relu",),
    ("quick_gelu",),
    ("squared_relu",),
    ("gelu", "linear"),
    ("silu", "linear"),
    ("relu", "linear"),
    ("quick_gelu", "linear"),
    ("squared_relu", "linear"),
    fused.COMPOSED,
    CLAMPED,
)
"""All that Transformer Engine has, with the gated ones."""
INPUTS = {"x": (2, 32, 96)}


def _fields(**fields: Any) -> dict[str, Any]:  # noqa: ANN401
    plain = {"intermediate_dim": 64, "return_layernorm_output": False, "intermediate_dropout_rate": 0.0}
    return {**plain, "activations": ("gelu",), **fields}


CASES = (
    *(Case(" x ".join(names), _fields(activations=names), INPUTS) for names in ACTIVATIONS),
    *(Case(name, _fields(**fields), INPUTS) for name, fields in KINDS.items() if fields),
    Case("no layer norm", _fields(enable_layernorm=False), INPUTS),
    Case("biases", _fields(use_bias=True, activations=("silu", "linear")), INPUTS),
    Case("normalised as well", _fields(return_layernorm_output=True), INPUTS),
    Case("realistic", _fields(intermediate_dim=768, activations=("silu", "linear")), {"x": (2, 64, 256)}),
)


def _make(case: Case, _recipe: RecipeConfig | None) -> Any:  # noqa: ANN401
    if case.fields["activations"] == CLAMPED:
        _demand_clamped()
    return flax_layer("LayerNormMLP", **case.fields)


def _demand_clamped() -> None:
    if CLAMPED not in name_of_te("cpp_extensions", "activation", "ActivationEnum"):
        message = (
            f"needs {' x '.join(CLAMPED)} among the activations of Transformer Engine; found none in {te.version()}"
        )
        raise NotInReleaseError(message)


def _fusion(case: Case) -> Fusion:
    return Fusion(norm_of(case), case.fields["return_layernorm_output"], case.fields["activations"])


def mlp(case: Case, arithmetic: Arithmetic, params: Params, x: jax.Array, prefix: str = "") -> Any:  # noqa: ANN401
    """What the MLP of a case makes of its input, as `fused.mlp`: output, and what was normalised."""
    return fused.mlp(_fusion(case), arithmetic, params, x, prefix)


def _reference(case: Case) -> Reference:
    def reference(arithmetic: Arithmetic, params: Params, inputs: Mapping[str, jax.Array]) -> Any:  # noqa: ANN401
        y, normal = mlp(case, arithmetic, params, inputs["x"])
        return (y, normal) if case.fields["return_layernorm_output"] else y

    return reference


def products(case: Case, module: tuple[str, ...] = ()) -> tuple[InnerProduct, ...]:
    """Both products; ``module`` is the MLP's path in the layer.

    Since 2.3, Transformer Engine keeps the gradients' metadata under each other's number where the whole MLP is one
    function.
    """
    prefix = "".join(f"{name}/" for name in module)
    return tuple(
        InnerProduct(f"{prefix}{name}", module, number, crossed=1 - number if _fusion(case).is_one else None)
        for number, name in enumerate(("wi", "wo"))
    )


def _parameters(case: Case) -> dict[str, Parameter]:
    return {**norm_parameters(case), **mlp_parameters(case, case.inputs["x"][-1], ("embed", "act", "mlp"), "embed")}


def mlp_parameters(case: Case, width: int, axes: tuple[str, str, str], last: str) -> dict[str, Parameter]:
    """The parameters of the products of an MLP.

    Args:
        case: of the MLP.
        width: of its input and output.
        axes: names of the axes of the first kernel.
        last: name of the axis of the last bias.
    """
    hidden, parts = case.fields["intermediate_dim"], len(case.fields["activations"])
    outer, joined, inner = axes
    kernels = {
        "wi_kernel": first_kernel((width, parts, hidden), axes, fan_in=width),
        "wo_kernel": first_kernel((hidden, width), (inner, outer)),
    }
    biases = {"wi_bias": Parameter((parts, hidden), (joined, inner)), "wo_bias": Parameter((width,), (last,))}
    return {**kernels, **(biases if case.fields.get("use_bias", False) else {})}


SUBJECT = Subject(
    name="LayerNormMLP",
    cases=CASES,
    make=_make,
    reference=_reference,
    parameters=_parameters,
    products=products,
    recorded=("silu x linear",),
)
