"""Claim: layers ask the kernels that normalise, activate and quantize for what they are set to, in every recipe.

Between products, TE's Python hands a norm's scale, bias and epsilon to a kernel, has it quantize along rows and columns
or quantizes what it gives, and takes means, amaxes and gradients of biases from it. In blocks, it pads and orders their
scales, says what is rotated, and gives each gradient random numbers of its own. Here, the kernels compute their
definitions in JAX on a CPU, so that a layer has to compute its own.

What a failure means for an upgrade: with TE's kernels, a layer normalises, activates or quantizes something else than
it is set to, although it computes the right numbers without them.
"""

import contextlib
import functools
import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from mnist_fp8 import te
from mnist_fp8.core.capability import Capability
from mnist_fp8.oracle import dense, layers
from mnist_fp8.subjects import find_subject
from mnist_fp8.subjects.layer import Layer, next_variables, step
from mnist_fp8.subjects.making import name_of_te
from mnist_fp8.subjects.subject import Case
from mnist_fp8.te.dense_step import BF16, fp8, on_device
from mnist_fp8.te.pretended import pretending
from support import divided_kernels
from support.assertions import assert_close_norm, assert_trees_close_norm
from support.layer_kernels import (
    ACTIVATIONS,
    NARROW,
    REPLACED,
    assert_amaxes,
    assert_defined,
    clamped,
    own_scales,
    put_in_place,
)
from support.layers import CURRENT, DELAYED, MXFP8, fresh_step, paths

pytestmark = [
    pytest.mark.host,
    pytest.mark.te_name("cpp_extensions", "base", "manage_primitives"),  # since kernels are switched by their names
    *REPLACED,
]

INPUTS = {"x": (2, 32, 128)}
"""Of sizes that a kernel of NVFP4 can rotate."""
MLP = {"intermediate_dim": 128, "intermediate_dropout_rate": 0.0, "return_layernorm_output": False, "use_bias": True}
RMS = {"layernorm_type": "rmsnorm", "epsilon": 1e-2}
LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "gated": ("LayerNormMLP", {**MLP, "activations": ("silu", "linear"), "zero_centered_gamma": True}),
    "not gated": ("LayerNormMLP", {**MLP, **RMS, "activations": ("gelu",), "intermediate_dim": 256}),
    "norm apart": ("LayerNormDenseGeneral", {"features": 128, "use_bias": True, "return_layernorm_output": True}),
}
"""Subject and fields, by what is tested."""
NVFP4 = fp8("NVFP4BlockScaling", disable_stochastic_rounding=True)
STOCHASTIC = fp8("NVFP4BlockScaling")


class Mode(NamedTuple):
    """A recipe, and the GPU that TE sees, which decides how it asks; by default the one that the recipe needs."""

    autocast: te.Autocast
    capability: Capability | None = None

    def device(self) -> contextlib.AbstractContextManager[None]:
        return pretending(self.capability) if self.capability else contextlib.nullcontext()


MODES = {
    "bf16": Mode(BF16),
    "delayed": Mode(DELAYED),
    "delayed on a Blackwell": Mode(DELAYED, Capability.BLACKWELL),
    "current": Mode(CURRENT),
    "current on a Blackwell": Mode(CURRENT, Capability.BLACKWELL),
    "MXFP8": Mode(MXFP8),
    "NVFP4": Mode(NVFP4),
}
CASES = {
    "gated": tuple(MODES),
    "not gated": ("bf16", "delayed", "delayed on a Blackwell", "current on a Blackwell", "MXFP8"),
    "norm apart": ("delayed", "MXFP8"),
}
"""The modes that TE takes another way in, by layer."""
NEEDS = {name: [pytest.mark.recipe(f"{name}BlockScaling")] for name in ("MXFP8", "NVFP4")}


def layer_of(which: str, mode: te.Autocast) -> Layer:
    name, fields = LAYERS[which]
    return Layer(find_subject(name), Case(which, fields, INPUTS), mode)


@pytest.mark.parametrize(
    ("which", "mode"),
    [pytest.param(which, mode, marks=NEEDS.get(mode, [])) for which, modes in CASES.items() for mode in modes],
)
def test_layer_by_kernels_computes_its_definition(which: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, where = layer_of(which, MODES[mode].autocast), f"{which}, {mode}"
    put_in_place(monkeypatch)
    with MODES[mode].device():
        variables = own_scales(layer)
        found = fresh_step(layer)(variables, layer.inputs(), layer.grads())
    wanted = assert_defined(layer, variables, found, where=where)
    if layer.mode is DELAYED:
        assert_amaxes(layer, next_variables(layer, variables, found.grads), wanted, where=where)


@pytest.mark.te_name("cpp_extensions", "amax", "AmaxScope")  # before 2.9, layers chose by their kind of parallelism
@pytest.mark.parametrize("mode", ["current", pytest.param("NVFP4", marks=NEEDS["NVFP4"])])
@pytest.mark.parametrize("which", LAYERS)
def test_amaxes_by_kernels_are_taken_over_the_devices_that_share_a_tensor(
    which: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of kernels by FSDP, and all others by sequences, also where a norm or an activation gives them."""
    asked, layer = put_in_place(monkeypatch), layer_of(which, MODES[mode].autocast)
    variables = layer.variables()
    asked.scopes.clear()
    jax.eval_shape(fresh_step(layer), variables, layer.inputs(), layer.grads())
    kernels = {tuple(leaf.shape) for path, leaf in paths(variables["params"]).items() if "kernel" in path}
    asked.assert_scopes(kernels, where=f"{which}, {mode}")


@pytest.mark.te_name("cpp_extensions", "amax", "AmaxScope")
@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
def test_amaxes_by_kernels_are_taken_of_sequences_where_they_are(norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An axis that is not the sequences' is not looked at for devices that share a tensor."""
    asked = put_in_place(monkeypatch)
    fields = {
        "features": 96,
        "return_layernorm_output": False,
        "layernorm_type": norm,
        "transpose_batch_sequence": True,
    }
    layer = Layer(find_subject("LayerNormDenseGeneral"), Case(norm, fields, INPUTS), CURRENT)
    variables = layer.variables()
    asked.sequences_first.clear()
    jax.eval_shape(fresh_step(layer), variables, layer.inputs(), layer.grads())
    told = {shape: first for shape, first in asked.sequences_first if len(shape) > 2}
    wanted = dict.fromkeys([INPUTS["x"], (*INPUTS["x"][:2], 96)], True)
    assert told == wanted, f"{norm}: sequences come first={told}, but should be {wanted}"


# --- activations ------------------------------------------------------------------------------------------------------

SCALE = 11.3
"""Of what is quantized: a swapped or an inverted one would show."""
WIDE = 2.0**-20
"""Largest relative norm of a difference in float32."""


def quantizer() -> Any:
    """What quantizes to E4M3 by a stored scale, along rows and columns."""
    create, scaling = name_of_te("quantize", "QuantizerFactory").create, name_of_te("quantize", "ScalingMode")
    both = name_of_te("quantize", "QuantizeLayout").ROWWISE_COLWISE
    return create(1, scaling.DELAYED_TENSOR_SCALING, jnp.float8_e4m3fn, both, scale=on_device([SCALE]))


def quantized(values: Any) -> Any:
    """What a tensor becomes by it."""
    return dense.quantize(np.asarray(values), SCALE, "float8_e4m3fn") / SCALE


def rows_of(parts: int) -> tuple[jax.Array, jax.Array]:
    """Rows for an activation of so many parts, and gradients of what it makes of them."""
    drawn = np.random.default_rng(3)
    return on_device(drawn.normal(0, 4, (64, parts, 32))), on_device(drawn.normal(0, 1, (64, 32)))


def test_activations_by_kernels_are_those_that_were_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those that the release has."""
    put_in_place(monkeypatch)
    kernels, activation = name_of_te("cpp_extensions", "activation"), name_of_te("activation", "activation")
    for names in (names for names in ACTIVATIONS.values() if names in kernels.ActivationEnum):
        where, (x, dz) = " x ".join(names), rows_of(len(names))
        found, back = jax.vjp(lambda x, names=names: activation(x, names), x)
        wanted, right = jax.vjp(lambda x, names=names: layers.activate(x, names), x)
        assert_close_norm(where=where, actual=found, expected=wanted, tolerance=WIDE)
        gradient = f"{where}: gradient"
        assert_close_norm(where=gradient, actual=back(dz)[0], expected=right(dz)[0], tolerance=WIDE)
        _, dbias = kernels.quantize_dact_dbias(dz, x, names, is_dbias=True, quantizer=None)
        summed = np.asarray(right(dz)[0], np.float64).sum(0)
        assert_close_norm(where=f"{where}: bias gradient", actual=dbias, expected=summed, tolerance=WIDE)
        codes = activation(x, names, quantizer())
        assert_close_norm(where=f"{where}, quantized", actual=codes, expected=quantized(wanted), tolerance=WIDE)


@pytest.mark.te_name("cpp_extensions", "activation", "ActivationParams")  # since 2.9
def test_clamped_activation_by_kernels_is_told_where_it_clamps(monkeypatch: pytest.MonkeyPatch) -> None:
    put_in_place(monkeypatch)
    kernels, names = name_of_te("cpp_extensions", "activation"), ACTIVATIONS["CLAMPED_SWIGLU"]
    told = {"limit": 3.0, "alpha": 0.7}
    if "glu_linear_offset" in inspect.signature(kernels.ClampedSwigluParams).parameters:  # since 2.17
        told["glu_linear_offset"] = 0.25
    params = kernels.ActivationParams.create(names, **told)
    x, dz = rows_of(2)
    wanted, right = jax.vjp(clamped(*told.values()), x)
    for where, make, codes_of in (("in float32", lambda: None, np.asarray), ("quantized", quantizer, quantized)):
        found = kernels.act_lu(x, names, make(), act_params=params).dequantize()
        assert_close_norm(where=where, actual=found, expected=codes_of(wanted), tolerance=WIDE)
        gradient = kernels.dact_lu(dz, x, names, make(), act_params=params).dequantize()
        assert_close_norm(where=f"gradient {where}", actual=gradient, expected=codes_of(right(dz)[0]), tolerance=WIDE)


# --- random numbers and rotations -------------------------------------------------------------------------------------


@pytest.mark.recipe("NVFP4BlockScaling")
def test_gradients_alone_are_rounded_by_random_numbers_each_by_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """And all is rotated that a kernel's gradient is computed from."""
    asked, layer = put_in_place(monkeypatch), layer_of("gated", STOCHASTIC)
    kernels, gradients = {(128, 2, 128), (128, 128)}, {(2, 32, 2, 128), (2, 32, 128)}
    variables = layer.variables()
    asked.keys.clear()
    asked.rotated.clear()

    def keys_of(*given: Any) -> list[jax.Array]:
        inspect.unwrap(step)(layer, *given)
        random = [shape for shape, key in asked.keys if key is not None]
        assert sorted(random) == sorted(gradients), f"rounded by random numbers={random}, but should be {gradients}"
        return [key for _, key in asked.keys if key is not None]

    keys = np.asarray(jax.jit(keys_of)(variables, layer.inputs(), layer.grads()))
    assert not np.array_equal(*keys), f"random numbers of two gradients={keys}, but should differ"
    others = {shape for shape, _ in asked.keys} - kernels
    assert set(asked.rotated) == others, f"rotated={set(asked.rotated)}, but should be {others}"


@pytest.mark.devices(2)
@pytest.mark.recipe("NVFP4BlockScaling")
def test_each_device_has_random_numbers_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = put_in_place(monkeypatch)
    layer = layer_of("norm apart", te.Autocast(STOCHASTIC.recipe, axes=("dp",)))
    mesh = Mesh(np.asarray(jax.devices()[:2]), ("dp",))

    def keys_of(*given: Any) -> list[jax.Array]:
        asked.keys.clear()
        inspect.unwrap(step)(layer, *given)
        return [key for _, key in asked.keys if key is not None]

    with te.mesh_context(mesh):
        (keys,) = jax.jit(keys_of)(layer.variables(), layer.inputs(), layer.grads())
    found = np.asarray(keys)
    assert found.shape == (2, 4), f"random numbers={found}, but should be four for each device"
    assert not np.array_equal(*found), f"random numbers={found}, but should differ"


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
def test_gradients_of_a_norm_mapped_over_its_inputs_are_those_of_each(
    norm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As gradients of single examples are taken; the output and the gradient of the input come first."""
    layer = Layer(find_subject("LayerNorm"), Case(norm, {"layernorm_type": norm}, INPUTS))
    variables, passes = layer.variables(), functools.partial(inspect.unwrap(step), layer)
    inputs, grads = jax.tree.map(lambda x: jnp.stack([x, -3 * x[::-1]]), (layer.inputs(), layer.grads()))
    divided_kernels.put_in_place(monkeypatch)
    found = jax.jit(jax.vmap(passes, in_axes=(None, 0, 0)))(variables, inputs, grads)
    for example in range(2):
        alone = jax.jit(passes)(variables, *jax.tree.map(lambda x, n=example: x[n], (inputs, grads)))
        own = jax.tree.map(lambda x, n=example: x[n], found)
        assert_trees_close_norm(where=f"{norm}, example {example}", actual=own, expected=alone, tolerance=NARROW)


def test_inputs_mapped_over_another_axis_than_the_first_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel takes all axes but the last for rows: of what is mapped, it would give the axes of another tensor."""
    layer = Layer(find_subject("LayerNorm"), Case("mapped", {}, INPUTS))
    divided_kernels.put_in_place(monkeypatch)
    with pytest.raises(AssertionError, match="batch_dim"):
        jax.make_jaxpr(jax.vmap(layer.apply, in_axes=(None, 1)))(layer.variables(), layer.inputs())
