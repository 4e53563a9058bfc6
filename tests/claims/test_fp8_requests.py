"""Claim: layers ask the kernels that quantize and multiply for what their recipe says, and keep what these give back.

On a GPU, TE's Python takes another way than on a host run: it hands tensors and scales to kernels, gets codes along
rows and along columns, turns the contracted axes with them, and keeps the amaxes. Here, the kernels compute their
definitions in JAX on a CPU, so that a layer has to compute its own.

What a failure means for an upgrade: with TE's kernels, a layer multiplies other codes than its recipe's, or undoes
other scales, although it computes the right numbers without them.
"""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from mnist_fp8 import te
from mnist_fp8.oracle.dense import TENSORS, Array
from mnist_fp8.oracle.tolerances import product_norm_tolerance
from mnist_fp8.subjects.making import flax_layer, name_of_te
from mnist_fp8.te.dense_step import Step, dense_layer, dense_step, fp8, on_device
from support.assertions import assert_close_norm, assert_equal
from support.fp8_kernels import REPLACED, put_in_place
from support.kernels import FACTORS, RECIPES, SCALES, arguments, expected_rows, formats, passes, tensors
from support.metadata import assert_metas, meta_of, next_metas

pytestmark = [
    pytest.mark.host,
    pytest.mark.te_name("cpp_extensions", "base", "manage_primitives"),  # since kernels are switched by their names
    *REPLACED,
]

SHAPE = (64, 128, 32)


def run(layer: Any, mode: te.Autocast, *given: Any) -> Step:
    """A layer's passes, traced anew: JAX would not see that kernels are in place."""
    step: Step = jax.jit(lambda *given: inspect.unwrap(dense_step)(layer, mode, *given))(*given)
    return step


@pytest.mark.parametrize("recipe", RECIPES)
def test_dense_layer_by_kernels_computes_its_definition(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, values = put_in_place(monkeypatch), tensors(SHAPE)
    found = run(*arguments(recipe, values))
    assert_passes(found, recipe, values, where="a matrix")
    wanted = {tuple(sorted(formats(recipe, which))) for which in FACTORS}
    multiplied = {tuple(sorted(pair)) for pair in asked.multiplied}
    assert multiplied == wanted, f"{recipe}: products by kernels={multiplied}, but should be {wanted}"


@pytest.mark.parametrize("recipe", RECIPES)
def test_dense_layer_of_several_axes_by_kernels_computes_its_definition(
    recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two axes are contracted, and two are made; codes along columns have all four turned."""
    put_in_place(monkeypatch)
    values, (rows, contracted, features) = tensors(SHAPE), SHAPE
    _, mode, variables, x, grad = arguments(recipe, values)
    variables["params"]["kernel"] = variables["params"]["kernel"].reshape(8, contracted // 8, 2, features // 2)
    variables["params"]["bias"] = on_device(np.linspace(-1, 1, features).reshape(2, -1))
    layer = dense_layer(features=(2, features // 2), axis=(-2, -1))
    found = run(layer, mode, variables, x.reshape(4, -1, 8, contracted // 8), grad.reshape(4, -1, 2, features // 2))
    params = {"kernel": found.grads["params"]["kernel"].reshape(contracted, features)}
    y = found.y.reshape(rows, features).astype("float32") - np.linspace(-1, 1, features)
    flat = Step(y, found.dx.reshape(rows, contracted), {**found.grads, "params": params})
    assert_passes(flat, recipe, values, where="four axes")


def assert_passes(found: Step, recipe: str, values: dict[str, Array], *, where: str) -> None:
    """Compare the three products with the oracle's, and the metadata of the next step."""
    __tracebackhide__ = True
    for which, (rows, expected) in expected_rows(recipe, values).items():
        tolerance = product_norm_tolerance(expected, "bfloat16", te.engine().kind, roundings=2, fp8=recipe != "bf16")
        actual = passes(found)[which][rows]
        assert_close_norm(where=f"{where}: {which}", actual=actual, expected=expected.value, tolerance=tolerance)
    if recipe == "delayed":
        metas = {name: meta_of(float(SCALES[name])) for name in TENSORS}
        amaxes = {name: float(np.abs(tensor).max()) for name, tensor in values.items()}
        assert_metas(found.metadata, next_metas(metas, amaxes, {"amax_history_len": 4}), where=f"{where}: metadata")


# --- amaxes of current scaling --------------------------------------------------------------------------------------

CURRENT = fp8("Float8CurrentScaling")


@pytest.mark.te_name("cpp_extensions", "amax", "AmaxScope")  # before 2.9, layers chose by their kind of parallelism
@pytest.mark.parametrize("name", ["DenseGeneral", "LayerNormDenseGeneral", "LayerNormMLP"])
def test_amaxes_are_taken_over_the_devices_that_share_a_tensor(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are divided by FSDP, and inputs and gradients, at most, by sequences beside tensor parallelism."""
    asked = put_in_place(monkeypatch)
    sizes: dict[str, Any] = (
        {"intermediate_dim": 96, "intermediate_dropout_rate": 0.0} if name == "LayerNormMLP" else {"features": 32}
    )
    layer = flax_layer(name, **sizes)
    x = on_device(np.ones((4, 16, 64)), "bfloat16")
    with CURRENT():
        variables = te.unbox(layer.init(jax.random.key(0), x))
        made, pull_back = jax.vjp(layer.apply, variables, x)
        pull_back(jax.tree.map(jnp.ones_like, made))
    kernels = {tuple(leaf.shape) for leaf in jax.tree.leaves(variables["params"]) if leaf.ndim > 1}
    asked.assert_scopes(kernels, where=name)


DIVIDED = {
    "sequences": ("TPSP", "tpsp", (None, "tpsp", None), False, True),
    "sequences that come first": ("TPSP", "tpsp", ("tpsp", None, None), True, True),
    "a batch that comes first, not sequences": ("TPSP", "tpsp", ("tpsp", None, None), False, False),
    "a kernel": ("FSDP", "fsdp", ("fsdp", None), False, True),
    "a kernel by tensor parallelism alone": ("FSDP", "tpsp", (None, "tpsp"), False, False),
    "each device alone": ("LOCAL", "tpsp", (None, "tpsp", None), False, False),
}
"""Scope, axis of the mesh, how a tensor is divided, whether sequences come first, and whether the amax is shared."""


@pytest.mark.devices(2)
@pytest.mark.te_name("cpp_extensions", "amax", "AmaxScope")
@pytest.mark.parametrize("case", DIVIDED)
def test_devices_share_the_amax_of_what_is_divided_among_them(case: str) -> None:
    name, axis, spec, sequence_first, shared = DIVIDED[case]
    scope = getattr(name_of_te("cpp_extensions", "amax", "AmaxScope"), name)
    mesh = Mesh(np.asarray(jax.devices()[:2]), (axis,))

    def reduce(amax: jax.Array) -> Any:
        return scope.all_reduce_amax_along_TPSP_and_FSDP(amax, spec, sequence_first, mesh)

    along: dict[str, Any] = {
        "mesh": mesh,
        "in_specs": PartitionSpec(axis),
        "out_specs": PartitionSpec(axis),
        "check_vma": False,
    }
    with te.mesh_context(mesh), te.Autocast(axes=(axis,))():
        found = jax.jit(jax.shard_map(reduce, **along))(on_device([3, 5]))
    assert_equal(where=f"amax on both devices, {case}", actual=found, expected=[5, 5] if shared else [3, 5])
