"""Claim: a layer that is divided over devices computes what it computes on one, metadata included.

Promised by TE's documentation of ``MeshResource`` and of the layers' names of axes: amaxes are reduced over all
devices, so that each of them quantizes with the same scales, and the layers constrain the tensors inside of them by the
axes that they are given. (Current scaling is left out: TE's kernels let each device use the amax of its own part.)

What a failure means for an upgrade: devices drift apart, a part of a model is quantized by what one device sees, or
tensors that should be divided are kept whole on every device.
"""

import contextlib
import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mnist_fp8 import te
from mnist_fp8.core.capability import Capability
from mnist_fp8.oracle.tolerances import PARTIAL_SUMS
from mnist_fp8.subjects import find_subject
from mnist_fp8.subjects.layer import Layer, Step, next_variables, step
from mnist_fp8.subjects.making import name_of_te
from mnist_fp8.subjects.subject import Case, Subject
from mnist_fp8.te.dense_step import BF16, on_device
from mnist_fp8.te.pretended import pretending
from support import divided_kernels
from support.assertions import assert_close_norm, assert_equal, assert_trees_close_norm, assert_trees_equal
from support.layer_kernels import NARROW, REPLACED, assert_amaxes, assert_defined, own_scales
from support.layers import DELAYED, cases, fresh_step, has_rows, paths, plainest, tolerance_of
from support.layouts import are_codes_transposed
from support.programs import equations
from support.stand_ins import Kernel

pytestmark = pytest.mark.devices(2)

modes = pytest.mark.parametrize(
    "mode", [BF16, pytest.param(DELAYED, marks=pytest.mark.recipe("DelayedScaling"))], ids=["bf16", "delayed"]
)


def over_two_devices(axis: str, rules: Mapping[str, str | None]) -> contextlib.AbstractContextManager[Mesh]:
    """A mesh of one axis, its mesh resource, and Flax's rules."""
    return over_devices({axis: 2}, rules)


@contextlib.contextmanager
def over_devices(sizes: Mapping[str, int], rules: Mapping[str, str | None]) -> Iterator[Mesh]:
    """A mesh of axes that have the names of their kinds of parallelism, its mesh resource, and Flax's rules."""
    devices = np.asarray(jax.devices()[: math.prod(sizes.values())]).reshape(tuple(sizes.values()))
    mesh = Mesh(devices, tuple(sizes))
    with te.mesh_context(mesh), te.Autocast(axes=tuple(sizes))(), nn.logical_axis_rules(tuple(rules.items())):
        yield mesh


def given_for(layer: Layer) -> tuple[Any, Any, Any]:
    """Variables after a step, whose scales count, and a batch of which one half alone holds the amaxes."""
    inputs, grads = jax.tree.map(lambda array: array.at[-1].multiply(8), (layer.inputs(), layer.grads()))
    variables = layer.variables()
    return next_variables(layer, variables, step(layer, variables, inputs, grads).grads), inputs, grads


def assert_as_on_one_device(layer: Layer, found: Step, expected: Step, *, where: str) -> None:
    """Results up to sums in two parts; metadata exactly, and the same on both devices."""
    __tracebackhide__ = True
    results = [{"y": result.y, "dx": result.dx} for result in (found, expected)]
    assert_trees_close_norm(where=where, actual=results[0], expected=results[1], tolerance=PARTIAL_SUMS)
    params = [paths(dict(result.grads.get("params", {}))) for result in (found, expected)]
    for path, wanted in params[1].items():
        tolerance = max(PARTIAL_SUMS, tolerance_of(layer, path))
        assert_close_norm(
            where=f"{where}: gradient of {path}", actual=params[0][path], expected=wanted, tolerance=tolerance
        )
    if layer.quantizes:
        for device in range(2):
            own = jax.tree.map(lambda leaf, d=device: leaf.addressable_shards[d].data, found.grads[layer.collection])
            wanted = expected.grads[layer.collection]
            assert_trees_equal(where=f"{where}: metadata on device {device}", actual=own, expected=wanted)


# --- every layer: its batch, or its batch and its parameters -------------------------------------------------------


@pytest.mark.recipe("DelayedScaling")
@pytest.mark.parametrize("axis", ["dp", "fsdp"])
@pytest.mark.parametrize(
    ("subject", "case"), cases(lambda subject, case: plainest(subject, case) and has_rows(subject))
)
def test_divided_batch_gives_what_one_device_does(subject: Subject, case: Case, axis: str) -> None:
    """With fsdp, the kernels are divided as well."""
    layer = Layer(subject, case, DELAYED if subject.products(case) else BF16)
    given = given_for(layer)
    divided = dataclasses.replace(layer, mode=dataclasses.replace(layer.mode, axes=(axis,)))
    with over_two_devices(axis, {}) as mesh:
        first, whole = (NamedSharding(mesh, PartitionSpec(*spec)) for spec in ((axis,), ()))
        variables = jax.tree.map(
            lambda leaf: jax.device_put(leaf, first if axis == "fsdp" and leaf.ndim > 1 else whole), given[0]
        )
        found = step(divided, variables, *jax.device_put(given[1:], first))
    assert len(found.y[0].sharding.device_set) == 2, "Control: the output should be divided over 2 devices"
    assert_as_on_one_device(layer, found, step(layer, *given), where=f"{subject.name} over {axis}")


# --- the layers that name the axes of what is inside of them -------------------------------------------------------

INSIDE: dict[str, dict[str, Any]] = {
    "LayerNormDenseGeneral": {
        "features": 32,
        "return_layernorm_output": False,
        "kernel_axes": ("embed", "mlp"),
        "layernorm_input_axes": ("batch", "seq", "embed"),
        "dot_input_axes": ("batch", "whole", "embed"),
    },
    "LayerNormMLP": {
        "intermediate_dim": 64,
        "activations": ("gelu", "linear"),
        "return_layernorm_output": False,
        "intermediate_dropout_rate": 0.0,
        "layernorm_input_axes": ("batch", "seq", "embed"),
        "dot_1_input_axes": ("batch", "whole", "embed"),
        "dot_2_input_axes": ("batch", "whole", "mlp"),
    },
}
"""Fields of layers whose hidden axis is divided."""
PLANS: dict[str, tuple[str, dict[str, str | None]]] = {
    "batch": ("dp", {"batch": "dp"}),
    "tensors": ("tp", {"mlp": "tp"}),
    "tensors and sequence": ("tpsp", {"mlp": "tpsp", "seq": "tpsp"}),
}
"""By what is divided: the kind of parallelism, and which axes are divided by it.

Releases before 2.8 have no kind of its own for tensors and sequence: there, it is that of tensors.
"""
NAMES = ("batch", "seq", "whole", "embed", "act", "mlp")


@contextlib.contextmanager
def planned(plan: str) -> Iterator[tuple[Mesh, te.Autocast]]:
    """The devices and rules of a plan, and the mode without its recipe."""
    axis, rules = PLANS[plan]
    if axis not in te.mesh_axes():
        axis, rules = "tp", dict.fromkeys(rules, "tp")
    with over_two_devices(axis, {name: rules.get(name) for name in NAMES}) as mesh:
        yield mesh, te.Autocast(axes=(axis,))


def divided_layer(name: str, mode: te.Autocast) -> Layer:
    """A layer that names the axes of its tensors."""
    subject = find_subject(name)
    return Layer(subject, Case("divided", INSIDE[name], {"x": (4, 16, 48)}), mode)


inside = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.subject(name, find_subject(name).cases[0].name)) for name in INSIDE]
)


@pytest.mark.filterwarnings("ignore:Tensor sequence parallelism is detected:UserWarning")
@pytest.mark.recipe("DelayedScaling")
@pytest.mark.parametrize("plan", ["tensors", "tensors and sequence"])
@inside
def test_layer_that_divides_its_tensors_gives_what_one_device_does(name: str, plan: str) -> None:
    layer = divided_layer(name, DELAYED)
    given = given_for(layer)
    expected = fresh_step(layer)(*given)
    with planned(plan) as (mesh, around):
        divided = dataclasses.replace(layer, mode=dataclasses.replace(DELAYED, axes=around.axes))
        found = fresh_step(divided)(*jax.device_put(given, NamedSharding(mesh, PartitionSpec())))
    assert_as_on_one_device(layer, found, expected, where=f"{name}, divided: {plan}")


def constraints(name: str, plan: str, mode: te.Autocast) -> Counter[tuple[Any, ...]]:
    """Shape and division of all tensors that a layer's passes constrain, but for those kept whole."""
    layer = divided_layer(name, mode)
    given = layer.variables(), layer.inputs(), layer.grads()
    with planned(plan) as (_, around):
        divided = dataclasses.replace(layer, mode=dataclasses.replace(mode, axes=around.axes))
        program = jax.make_jaxpr(fresh_step(divided))(*given)
    found = equations(program, "sharding_constraint")
    every = ((e.invars[0].aval.shape, tuple(e.params["sharding"].spec)) for e in found)
    return Counter((shape, *spec) for shape, spec in every if any(spec))


X = ((4, 16, 48), ("batch", "seq", "embed"))
NORMAL, NORMAL_T = ((4, 16, 48), ("batch", "whole", "embed")), ((48, 4, 16), ("embed", "batch", "whole"))
KERNEL, KERNEL_T = ((48, 32), ("embed", "mlp")), ((32, 48), ("mlp", "embed"))
PARTS = ((4, 16, 2, 64), ("batch", "whole", None, "mlp"))
HIDDEN, HIDDEN_T = ((4, 16, 64), ("batch", "whole", "mlp")), ((64, 4, 16), ("mlp", "batch", "whole"))
WI, WO = ((48, 2, 64), ("embed", "act", "mlp")), ((64, 48), ("mlp", "embed"))
CONSTRAINED: dict[tuple[str, te.Autocast], dict[Any, int]] = {
    # What goes in, its gradient; what is multiplied and its gradient, for the layer and for the product; the kernel.
    ("LayerNormDenseGeneral", BF16): {X: 2, NORMAL: 4, KERNEL: 2},
    # What goes in, for the layer and for the function of all in one, and both gradients; codes in each layout.
    ("LayerNormDenseGeneral", DELAYED): {X: 4, NORMAL: 1, NORMAL_T: 1, KERNEL: 2, KERNEL_T: 1},
    ("LayerNormMLP", BF16): {X: 2, NORMAL: 4, HIDDEN: 4, WI: 2, WO: 2},
    # The output and its gradient lie as what is normalised does. Of the kernels, the gradients alone.
    ("LayerNormMLP", DELAYED): {X: 3, NORMAL: 4, NORMAL_T: 1, PARTS: 1, HIDDEN: 2, HIDDEN_T: 1, WI: 1, WO: 1},
}
"""How often a tensor of some shape and names of axes is constrained, forward and backward."""
OTHER_LAYOUTS = (NORMAL_T, KERNEL_T, HIDDEN_T)
"""Those of codes that only some GPUs need."""


@pytest.mark.host
@pytest.mark.parametrize("plan", PLANS)
@modes
@inside
def test_tensors_inside_are_divided_by_the_names_of_their_axes(name: str, mode: te.Autocast, plan: str) -> None:
    """Read in TE's JAX path; in the layouts that the GPU needs."""
    rules = PLANS[plan][1]
    left_out = () if are_codes_transposed() else OTHER_LAYOUTS
    expected: Counter[tuple[Any, ...]] = Counter()
    for (shape, axes), count in CONSTRAINED[name, mode].items():
        spec = tuple(rules.get(axis) for axis in axes)
        expected[(shape, *spec)] += count * any(spec) * ((shape, axes) not in left_out)
    found = constraints(name, plan, mode)
    missing, unexpected = dict(expected - found), dict(found - expected)
    assert not missing | unexpected, f"{name}, {plan}: not constrained: {missing}; should not be: {unexpected}"


ROWS, WEIGHTS = ("batch", None, "heads", None), ("batch", "heads", None, None)
WITH_HEADS: dict[tuple[str, str], dict[Any, int]] = {
    ("DotProductAttention", "causal"): {((2, 4, 16, 16), WEIGHTS): 1},
    ("DotProductAttention", "grouped queries"): {((2, 4, 16, 16), WEIGHTS): 1},
    ("MultiHeadAttention", "asks itself"): {
        ((2, 32, 3, 4, 16), ("batch", None, None, "heads", None)): 1,
        ((2, 4, 32, 32), WEIGHTS): 1,
    },
    ("MultiHeadAttention", "separate parameters"): {
        ((2, 32, 4, 16), ROWS): 1,
        ((2, 32, 2, 16), ROWS): 2,
        ((2, 4, 32, 32), WEIGHTS): 1,
    },
    ("MultiHeadAttention", "cross attention, padded"): {
        ((2, 32, 4, 16), ROWS): 1,
        ((2, 64, 2, 16), ROWS): 2,
        ((2, 4, 32, 64), WEIGHTS): 1,
    },
}
"""How often queries, keys and values, and the weights of values, are constrained, forward."""


@pytest.mark.host
@pytest.mark.parametrize("axis", ["dp", "tp", "tpsp"])
@pytest.mark.parametrize(
    ("name", "case"), [pytest.param(*both, marks=pytest.mark.subject(*both), id=" ".join(both)) for both in WITH_HEADS]
)
def test_attention_is_divided_by_sequences_or_by_heads(name: str, case: str, axis: str) -> None:
    """By TE's own names, where Flax's rules have them; a row of weights stays whole."""
    if axis not in te.mesh_axes():
        axis = "tp"
    layer = Layer(find_subject(name), find_subject(name).case(case))
    given = layer.variables(), layer.inputs()
    with over_two_devices(axis, {}), nn.logical_axis_rules(te.extend_logical_axis_rules()):
        program = jax.make_jaxpr(functools.partial(layer.apply))(*given)
    found: Counter[Any] = Counter()
    for equation in equations(program, "sharding_constraint"):
        shape, spec = equation.invars[0].aval.shape, tuple(equation.params["sharding"].spec)
        found[shape, spec] += len(shape) > 3  # with heads
    divided = "batch" if axis == "dp" else "heads"
    wanted = {
        (shape, tuple(axis if part == divided else None for part in parts)): count
        for (shape, parts), count in WITH_HEADS[name, case].items()
    }
    assert +found == wanted, f"{name}, {case}, by {axis}: constrained are {dict(+found)}, but should be {wanted}"


# --- kernels, each on its device's part ------------------------------------------------------------------------------

BY_KERNELS: dict[str, tuple[str, dict[str, Any]]] = {
    "gated": (
        "LayerNormMLP",
        {
            **INSIDE["LayerNormMLP"],
            "activations": ("silu", "linear"),
            "use_bias": True,
            "zero_centered_gamma": True,
            "kernel_axes_1": ("w", "act", "mlp"),
            "kernel_axes_2": ("mlp", "w"),
        },
    ),
    "norm apart": (
        "LayerNormDenseGeneral",
        {
            **INSIDE["LayerNormDenseGeneral"],
            "use_bias": True,
            "return_layernorm_output": True,
            "kernel_axes": ("w", "mlp"),
        },
    ),
}
BY_KERNELS["not gated"] = (
    "LayerNormMLP",
    {
        **BY_KERNELS["gated"][1],
        "activations": ("gelu",),
        "layernorm_type": "rmsnorm",
        "zero_centered_gamma": False,
        "epsilon": 1e-2,
    },
)
"""Subject and fields, by what is tested."""
MESHES: dict[str, tuple[dict[str, int], dict[str, str]]] = {
    "examples and hidden axis": ({"dp": 2, "tpsp": 2}, {"batch": "dp", "seq": "tpsp", "mlp": "tpsp"}),
    "examples and positions": ({"dp": 2, "tpsp": 2}, {"batch": "dp", "seq": "tpsp", "whole": "tpsp"}),
    "examples and kernels": ({"fsdp": 2}, {"batch": "fsdp", "w": "fsdp"}),
    "features": ({"tp": 2}, {"embed": "tp"}),
}
"""Sizes of a mesh, and which axes are divided over it."""
DIVIDED = [
    ("gated", "delayed on a Blackwell", "examples and hidden axis"),
    ("gated", "bf16", "examples and hidden axis"),
    ("not gated", "delayed on a Blackwell", "examples and kernels"),
    ("norm apart", "delayed", "examples and positions"),
    ("norm apart", "bf16", "features"),
]
"""What is tested, in which mode, and divided how."""
MODES = {"bf16": BF16, "delayed": DELAYED, "delayed on a Blackwell": DELAYED}
"""A Blackwell's kernels of a quantization sum up the gradient of a bias; on a Hopper, JAX does."""


def by_kernels(test: Any) -> Any:
    """What a test on kernels needs that TE's rules divide."""
    marks = [
        pytest.mark.host,
        pytest.mark.shardy,
        pytest.mark.devices(4),
        pytest.mark.te_name("sharding", "is_mesh_available"),  # since 2.12, TE sees the mesh that Flax looks at
        *REPLACED,
    ]
    return functools.reduce(lambda marked, mark: mark(marked), marks, test)


def assert_divided(
    which: str, mode: str, sizes: Mapping[str, int], rules: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels that TE's rules divide over the devices of a mesh compute a layer's definition, metadata included."""
    __tracebackhide__ = True
    name, fields = BY_KERNELS[which]
    layer = Layer(find_subject(name), Case(which, fields, {"x": (4, 32, 64)}), MODES[mode])
    device = pretending(Capability.BLACKWELL) if "Blackwell" in mode else contextlib.nullcontext()
    variables, inputs, grads = own_scales(layer), layer.inputs(), layer.grads()
    divided_kernels.put_in_place(monkeypatch)
    with device, over_devices(sizes, {axis: rules.get(axis) for axis in (*NAMES, "w")}) as mesh:
        divided_kernels.show_mesh(monkeypatch, mesh)
        there = dataclasses.replace(layer, mode=dataclasses.replace(layer.mode, axes=tuple(sizes)))
        given = jax.device_put((variables, inputs, grads), NamedSharding(mesh, PartitionSpec()))
        found = fresh_step(there)(*given)
    where = f"{which}, {mode}, over {dict(sizes)}"
    wanted = assert_defined(layer, variables, found, where=where, least=PARTIAL_SUMS)
    for number in range(mesh.size if layer.mode is DELAYED else 0):
        own = jax.tree.map(lambda leaf, d=number: leaf.addressable_shards[d].data, found.grads[layer.collection])
        there_next = next_variables(layer, variables, {layer.collection: own})
        assert_amaxes(layer, there_next, wanted, where=f"{where}, on device {number}")


# A norm needs whole rows: TE puts them together, and warns.
@pytest.mark.filterwarnings("ignore:Does not support to shard hidden dim:UserWarning")
@pytest.mark.filterwarnings("ignore:Tensor sequence parallelism is detected:UserWarning")
@by_kernels
@pytest.mark.parametrize(("which", "mode", "divided"), DIVIDED)
def test_layer_by_kernels_on_several_devices_computes_its_definition(
    which: str, mode: str, divided: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TE's rules divide what each kernel is given, and put together what they give."""
    assert_divided(which, mode, *MESHES[divided], monkeypatch)


@by_kernels
def test_layer_by_kernels_whose_tensors_every_device_has_whole_computes_its_definition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a mesh that nothing is divided over."""
    assert_divided("norm apart", "bf16", {"dp": 2}, {}, monkeypatch)


SCOPES: dict[str, tuple[str, PartitionSpec, bool]] = {
    "positions": ("TPSP", PartitionSpec(None, "tpsp"), False),
    "positions, which come first": ("TPSP", PartitionSpec("tpsp"), True),
    "kernels": ("FSDP", PartitionSpec("fsdp"), False),
}
"""Scope of an amax, how the tensor is divided, and whether its first axis is that of sequences."""


@pytest.mark.host
@pytest.mark.shardy
@pytest.mark.devices(4)
@pytest.mark.te_name("cpp_extensions", "amax", "calculate_amax")  # since 2.9
@pytest.mark.parametrize("name", SCOPES)
def test_amax_of_a_divided_tensor_is_that_of_all_devices_that_share_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As current scaling takes it; the largest number is on the last device."""
    scope, spec, sequence_first = SCOPES[name]
    amaxes = name_of_te("cpp_extensions", "amax")
    tensor = -np.arange(4 * 4 * 2, dtype=np.float32).reshape(4, 4, 2)

    def amax(x: jax.Array) -> Any:
        return amaxes.calculate_amax(x, getattr(amaxes.AmaxScope, scope), sequence_first)

    with over_devices({"fsdp": 2, "tpsp": 2}, {}) as mesh:
        divided_kernels.show_mesh(monkeypatch, mesh)
        found = jax.jit(amax)(jax.device_put(tensor, NamedSharding(mesh, spec)))
    for shard in found.addressable_shards:
        assert_equal(
            where=f"amax of {name} on {shard.device}", actual=shard.data, expected=np.asarray([31], np.float32)
        )


SOFTMAXES = {"SCALED": "ScaledSoftmax", "SCALED_MASKED": "ScaledMaskedSoftmax"}
"""Kind of a softmax, and how the names of its kernels begin."""
LOGITS = (4, 4, 32, 32)
ALONG = {
    "sequences": PartitionSpec("a"),
    "heads": PartitionSpec(None, "a"),
    "keys": PartitionSpec(None, None, None, "a"),
}


def put_softmax_in_place(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have TE's rules divide the kernels of a softmax, and compute each part here."""

    def forward(logits: jax.Array, mask: Any = None, *, scale_factor: float) -> jax.Array:
        seen = None if mask is None else jnp.broadcast_to(mask == 0, logits.shape)
        return jax.nn.softmax(logits.astype(jnp.float32) * scale_factor, where=seen).astype(logits.dtype)

    def backward(grad: jax.Array, y: jax.Array, *, scale_factor: float) -> jax.Array:
        wide, weights = grad.astype(jnp.float32), y.astype(jnp.float32)
        inner = wide - (wide * weights).sum(axis=-1, keepdims=True)
        return (weights * inner * scale_factor).astype(grad.dtype)

    monkeypatch.setenv("NVTE_JAX_CUSTOM_CALLS", "true")
    for way, kernel in (("Fwd", forward), ("Bwd", backward)):
        primitive = name_of_te("cpp_extensions.softmax", f"{SOFTMAXES[kind]}{way}Primitive")
        monkeypatch.setattr(primitive, "inner_primitive", Kernel(kernel))


# A softmax needs whole rows: TE puts them together, and warns.
@pytest.mark.filterwarnings("ignore:Sharding the hidden dimension is not supported:UserWarning")
@pytest.mark.host
@pytest.mark.shardy
@pytest.mark.te_name("softmax", "SoftmaxFusionType", "SCALED")  # since 2.10, by that name
@pytest.mark.parametrize("along", ALONG)
@pytest.mark.parametrize("kind", SOFTMAXES)
def test_softmax_by_a_kernel_on_two_devices_computes_its_definition(
    kind: str, along: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_softmax_in_place(kind, monkeypatch)
    softmax, fusion = name_of_te("softmax", "softmax"), name_of_te("softmax", "SoftmaxFusionType", kind)
    drawn, scale = np.random.default_rng(3), 0.5
    logits, grad = (on_device(drawn.normal(0, 2, LOGITS), "bfloat16") for _ in range(2))
    hidden = drawn.random((LOGITS[0], 1, *LOGITS[2:])) < (0.25 if kind == "SCALED_MASKED" else 0)
    mask = on_device(hidden, "uint8")
    whole_or_not = ALONG[along] if along == "sequences" else PartitionSpec()

    @jax.jit
    def passes(logits: jax.Array, mask: jax.Array, grad: jax.Array) -> Any:
        y, pull_back = jax.vjp(lambda logits: softmax(logits, mask, scale, fusion), logits)
        return y, pull_back(grad)[0]

    mesh = Mesh(np.asarray(jax.devices()[:2]), ("a",))
    with te.mesh_context(mesh):
        specs = ALONG[along], whole_or_not, ALONG[along]
        given = [
            jax.device_put(x, NamedSharding(mesh, spec)) for x, spec in zip((logits, mask, grad), specs, strict=True)
        ]
        found = passes(*given)
    scaled = np.where(hidden, -np.inf, np.asarray(logits, np.float64) * scale)
    powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    weights = powers / powers.sum(axis=-1, keepdims=True)
    wide = np.asarray(grad, np.float64)
    dlogits = weights * (wide - (wide * weights).sum(axis=-1, keepdims=True)) * scale
    for name, actual, wanted in zip(("output", "gradient"), found, (weights, dlogits), strict=True):
        assert_close_norm(where=f"{kind}, {along}: {name}", actual=actual, expected=wanted, tolerance=NARROW)
