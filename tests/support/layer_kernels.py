"""Kernels that normalise and activate, on a host run, beside those of `support.fp8_kernels`.

Each computes its definition in float32 and quantizes that, as it is told.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from mnist_fp8.model.delayed import newest
from mnist_fp8.oracle import arithmetic, layers
from mnist_fp8.oracle.arithmetic import Passes
from mnist_fp8.oracle.products import ProductForm, Scales
from mnist_fp8.subjects.layer import Layer, Step, next_variables, read_metas
from mnist_fp8.subjects.making import name_of_te
from mnist_fp8.subjects.prediction import distance, pairs
from mnist_fp8.te.predictions import KEPT
from support import fp8_kernels, stand_ins
from support.assertions import assert_close
from support.layers import DELAYED, amax_tolerance, assert_step, scales_of, tolerance_of
from support.stand_ins import Asked

_QUANTIZED = (
    *("x_aval", "scale_aval", "amax_aval", "out_dtype", "scaling_mode", "is_2x", "quantize_layout", "scale_dtype"),
    *("amax_scope", "transpose_batch_sequence", "output_amax_when_no_scaling", "is_outer"),
)
_ACTIVATE = (*_QUANTIZED, "act_enum", "act_len", "act_params")
_NORMALISE = (*_QUANTIZED, "gamma_aval", "beta_aval", "norm_type", "zero_centered_gamma", "epsilon")
_BACK = ("dz_aval", "x_aval", "mu_aval", "rsigma_aval", "gamma_aval", "norm_type", "zero_centered_gamma")
PARAMETERS = {
    ("cpp_extensions.normalization", "NormFwdPrimitive"): _NORMALISE,
    ("cpp_extensions.normalization", "NormBwdPrimitive"): _BACK,
    ("cpp_extensions.activation", "ActLuPrimitive"): _ACTIVATE,
    **{
        ("cpp_extensions.activation", f"{name}Primitive"): (*_ACTIVATE, "dz_aval", "is_dbias")
        for name in ("DActLuDBiasQuantize", "DActLuQuantize")
    },
}
"""What the kernels take in all known releases: with others, they may give something else."""
REPLACED = [
    *fp8_kernels.REPLACED,
    *[pytest.mark.te_parameters((*path, "abstract"), known) for path, known in PARAMETERS.items()],
]
ACTIVATIONS = {
    "GELU": ("gelu",),
    "GEGLU": ("gelu", "linear"),
    "SILU": ("silu",),
    "SWIGLU": ("silu", "linear"),
    "RELU": ("relu",),
    "REGLU": ("relu", "linear"),
    "QGELU": ("quick_gelu",),
    "QGEGLU": ("quick_gelu", "linear"),
    "SRELU": ("squared_relu",),
    "SREGLU": ("squared_relu", "linear"),
    "GLU": ("sigmoid", "linear"),
    "CLAMPED_SWIGLU": ("clamped_silu", "clamped_linear"),
}
"""What the activations of the kernels are, by their names there."""
NARROW = 2.0**-7
"""Largest relative norm of a difference in BF16, where the reference activates in BF16 and a kernel in float32. Seen:
0.0045."""


def put_in_place(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Have Transformer Engine ask for all kernels of its dense layers, and compute them here.

    Raises:
        NotInReleaseError: the release has other kernels.
    """
    asked = fp8_kernels.put_in_place(monkeypatch, fp8_kernels.LEFT_OFF)
    norms, activations = (name_of_te("cpp_extensions", name) for name in ("normalization", "activation"))
    sizes = [f"get_norm_{part}_workspace_sizes" for part in ("fwd", "bwd")]
    fp8_kernels.give_workspaces(monkeypatch, "normalization", *sizes)
    fp8_kernels.give_workspaces(monkeypatch, "activation", "get_dact_dbias_quantize_workspace_sizes")
    stand_ins.put_in(monkeypatch, norms.NormFwdPrimitive, _normalise(asked, norms.NVTE_Norm_Type))
    stand_ins.put_in(monkeypatch, norms.NormBwdPrimitive, _differentiate_norm(norms.NVTE_Norm_Type))
    kinds = activations.NVTE_Activation_Type
    stand_ins.put_in(monkeypatch, activations.ActLuPrimitive, _activate(asked, kinds))
    base = getattr(activations, "BaseDActLuDBiasQuantizePrimitive", None)  # since 2.5
    for kernel in (activations.DActLuDBiasQuantizePrimitive, getattr(activations, "DActLuQuantizePrimitive", None)):
        if kernel is not None:
            stand_ins.put_in(monkeypatch, kernel, _differentiate_activation(asked, kinds), base)
    return asked


# --- norms ------------------------------------------------------------------------------------------------------------


def _normalise(asked: Asked, kinds: Any) -> Callable[..., Any]:
    def computed(room: Any, x: jax.Array, scale: jax.Array, *rest: jax.Array, **options: Any) -> Any:
        """The normalised rows as codes, the amax, means and what rows were multiplied by."""
        gamma, beta = rest[-2:]
        by_mean = options["norm_type"] == kinds.LayerNorm
        wide = x.astype(jnp.float32)
        mean = wide.mean(-1) if by_mean else jnp.zeros(x.shape[:-1])
        factor = 1 / jnp.sqrt(((wide - mean[..., None]) ** 2).mean(-1) + options["epsilon"])
        y = (wide - mean[..., None]) * factor[..., None] * _around(gamma, options)
        y = y + beta.astype(jnp.float32) if by_mean else y
        found = _written(asked, room, y, scale, options)
        return *found, mean if by_mean else None, factor

    return computed


def _around(gamma: jax.Array, options: Any) -> jax.Array:
    return gamma.astype(jnp.float32) + float(options["zero_centered_gamma"])


def _differentiate_norm(kinds: Any) -> Callable[..., Any]:
    def computed(
        _room: Any, dz: jax.Array, x: jax.Array, mean: jax.Array, factor: jax.Array, gamma: jax.Array, **options: Any
    ) -> Any:
        """Gradients of the rows, of the scale and of the bias."""
        by_mean = options["norm_type"] == kinds.LayerNorm
        wide, grad = x.astype(jnp.float32), dz.astype(jnp.float32)
        normal = (wide - mean[..., None] if by_mean else wide) * factor[..., None]
        scaled = grad * _around(gamma, options)
        centred = scaled - scaled.mean(-1, keepdims=True) if by_mean else scaled
        dx = (centred - normal * (scaled * normal).mean(-1, keepdims=True)) * factor[..., None]
        rows = tuple(range(x.ndim - 1))
        dgamma, dbeta = (each.sum(rows).astype(gamma.dtype) for each in (grad * normal, grad))
        return dx.astype(x.dtype), dgamma, dbeta if by_mean else None

    return computed


def _written(asked: Asked, room: Any, y: jax.Array, scale: jax.Array, options: Any, axis: int = -1) -> tuple[Any, ...]:
    """Codes, scales and amax of a result; of one that is not quantized, the amax if it is asked for."""
    mode = stand_ins.mode_of(options["scaling_mode"])
    found = stand_ins.codes(y, room, mode, scale, axis)
    if mode != stand_ins.NO_SCALING:
        return *found, jnp.abs(y).max().reshape(1)
    if not options.get("output_amax_when_no_scaling", False):  # since 2.9
        return *found, None
    asked.note_amax(y, options)
    return *found, jnp.abs(y.astype(room[0].dtype)).max().astype(jnp.float32).reshape(1)


# --- activations ------------------------------------------------------------------------------------------------------


def _activation(kinds: Any, options: Any) -> Callable[[jax.Array], jax.Array]:
    names = next(names for kind, names in ACTIVATIONS.items() if int(getattr(kinds, kind)) == int(options["act_enum"]))
    if names != ACTIVATIONS["CLAMPED_SWIGLU"]:
        return lambda x: layers.activate(x, names)
    told = options["act_params"].to_ffi_lowering_dict()["clamped_swiglu"]
    return clamped(
        float(told["limit"]),
        float(told["alpha"]),
        float(told.get("glu_linear_offset", layers.OFFSET)),  # since 2.17
    )


def clamped(limit: float, alpha: float, offset: float = layers.OFFSET) -> Callable[[jax.Array], jax.Array]:
    """The clamped SwiGLU of rows, (..., 2, features), by where it clamps, the sigmoid's slope and what is added."""

    def activated(x: jax.Array) -> jax.Array:
        gate = jnp.minimum(x[..., 0, :], limit)
        return gate * jax.nn.sigmoid(alpha * gate) * (jnp.clip(x[..., 1, :], -limit, limit) + offset)

    return activated


def _activate(asked: Asked, kinds: Any) -> Callable[..., Any]:
    def computed(room: Any, x: jax.Array, scale: jax.Array, *_amax: jax.Array, **options: Any) -> Any:
        """The activated rows as codes, and the amax."""
        return _written(asked, room, _activation(kinds, options)(x.astype(jnp.float32)), scale, options)

    return computed


def _differentiate_activation(asked: Asked, kinds: Any) -> Callable[..., Any]:
    def computed(room: Any, dz: jax.Array, x: jax.Array, scale: jax.Array, *_amax: jax.Array, **options: Any) -> Any:
        """The gradient as codes, the amax, and the gradient of the bias."""
        _, pull_back = jax.vjp(_activation(kinds, options), x.astype(jnp.float32))
        (dx,) = pull_back(dz.astype(jnp.float32))
        dbias = dx.sum(tuple(range(x.ndim - 2))).astype(dz.dtype)
        return *_written(asked, room, dx, scale, options, -2), dbias if options["is_dbias"] else None

    return computed


# --- what a layer must compute by them --------------------------------------------------------------------------------


def own_scales(layer: Layer) -> dict[str, Any]:
    """Variables of which no two scales are the same, so that each tensor is quantized in its own way."""
    scales = itertools.count(3, 7)

    def own(path: Any, leaf: jax.Array) -> jax.Array:
        is_scale = path[0].key != "params" and "scale" in jax.tree_util.keystr(path[-1:])
        return jnp.full_like(leaf, next(scales)) if is_scale else leaf

    return jax.tree_util.tree_map_with_path(own, layer.variables())


def assert_amaxes(layer: Layer, following: Mapping[str, Any], wanted: Passes, *, where: str) -> None:
    """The metadata of the next step have the amaxes of this one."""
    __tracebackhide__ = True
    metas = read_metas(layer, following)
    for product, amaxes in wanted.amaxes.items():
        for tensor, amax in amaxes.items():
            at, tolerance = f"{where}: amax of {product} {tensor}", amax_tolerance(layer, tensor, amax)
            assert_close(where=at, actual=newest(metas[product][tensor]), expected=amax, tolerance=tolerance)


def assert_defined(
    layer: Layer, variables: Mapping[str, Any], found: Step, *, where: str, least: float = 0.0
) -> Passes:
    """Compare what a layer computed by kernels, on inputs and gradients of seed 0 and 1, with its definition.

    Args:
        layer: of any recipe; of delayed scaling, in `DELAYED`.
        variables: its variables.
        found: what it computed.
        where: what is compared.
        least: tolerance that is wide enough for each tensor under a recipe.

    Returns:
        What it should compute.
    """
    __tracebackhide__ = True
    scales = None
    if layer.mode is DELAYED:
        scales = scales_of(layer, variables, next_variables(layer, variables, found.grads))
    wanted = _expected(layer, variables, found, scales)
    least = least if layer.quantizes else NARROW
    assert_step(found, wanted, where=where, tolerance_of=lambda name: max(least, tolerance_of(layer, name)))
    return wanted


def _expected(layer: Layer, variables: Mapping[str, Any], found: Step, scales: Mapping[str, Scales] | None) -> Passes:
    """What a layer must compute, as the kernels have it; under current scaling if there are no scales.

    A kernel that quantizes what it computes does so in float32, and others are given BF16; which there are is TE's
    choice, and differs by release. The first that fits is expected of all of the step.
    """
    form = ProductForm.KERNEL if layer.quantizes else ProductForm.BF16
    tried = []
    for kept in KEPT if layer.quantizes else KEPT[:1]:
        arguments = layer.reference, variables["params"], layer.inputs(), layer.grads()
        wanted = arithmetic.rounded(
            *arguments, scales=scales, form=form, kept=frozenset(kept), recipe=layer.mode.recipe
        )
        tried.append((max(_shares(layer, found, wanted)), wanted))
        if tried[-1][0] <= 1:
            break
    return min(tried, key=lambda each: each[0])[1]


def _shares(layer: Layer, found: Step, wanted: Passes) -> Iterator[float]:
    for name, actual, right in pairs(found, wanted):
        yield distance(actual, right) / tolerance_of(layer, name)
