"""Claim: logical axis names and ``MeshResource`` divide a dense layer as documented, and change none of its results.

Promised by the docstrings of ``DenseGeneral`` (``kernel_axes``, ``bias_axes``, ``input_axes``), ``MeshResource``,
``extend_logical_axis_rules`` and ``with_sharding_constraint_by_logical_axes``: parameters carry their names, tensors
are constrained by Flax's logical axis rules, and where there are none by TE's own table. (A batch that is divided from
outside is the claim of ``test_data_parallel.py``.)

What a failure means for an upgrade: tensors that should be divided are kept whole on every device, which costs memory
and time without a visible error; or a divided layer computes something else.
"""

import contextlib
import dataclasses
import functools
import inspect
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mnist_fp8 import te
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.oracle.dense import TENSORS, Meta
from mnist_fp8.oracle.tolerances import exact_tolerance
from mnist_fp8.te.dense_step import Step, dense_layer, dense_step, exact, init, on_device, variables_of
from support.assertions import assert_close, assert_close_norm, assert_equal
from support.layouts import are_codes_transposed
from support.metadata import assert_metas, meta_of, next_metas
from support.programs import equations

Rules = tuple[tuple[str, str | None], ...]

RECIPES = {"bf16": None, "delayed": RecipeConfig(amax_history_len=4)}


BATCH, ROWS, CONTRACTED, FEATURES = 4, 16, 64, 32


def mesh_of(**sizes: int) -> Mesh:
    """A mesh with the given axes, of as many devices as their sizes ask for."""
    devices = np.asarray(jax.devices()[: math.prod(sizes.values())]).reshape(tuple(sizes.values()))
    return Mesh(devices, tuple(sizes))


def ones() -> jax.Array:
    """Input of a layer, where neither its size nor its values matter."""
    return on_device(np.ones((16, 32)), "bfloat16")


# --- names of the parameters' axes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["bf16", "delayed"])
def test_parameters_carry_the_names_of_their_axes(mode: str) -> None:
    layer = te.dense_general(
        features=(2, 8),
        kernel_axes=("in", "heads", "out"),
        bias_axes=("heads", "out"),
        enable_low_rank_adaptation=True,
        low_rank_adaptation_dim=4,
    )
    with te.Autocast(RECIPES[mode])(), nn.logical_axis_rules((("in", None),)):
        variables = layer.init(jax.random.key(0), ones())
    found = {name: box.names for name, box in variables["params"].items()}
    expected = {
        "kernel": ("in", "heads", "out"),
        "bias": ("heads", "out"),
        "lora_a_kernel": (None, None, None),
        "lora_b_kernel": (None, None, None),
    }
    assert found == expected, f"names of axes={found}, but should be {expected}"
    spec = nn.get_partition_spec(variables)["params"]["kernel"]
    assert spec == PartitionSpec("in", "heads", "out"), f"Flax reads the kernel's axes as {spec}"


def test_axes_have_no_names_by_default() -> None:
    variables = te.dense_general(features=16).init(jax.random.key(0), ones())
    found = {name: box.names for name, box in variables["params"].items()}
    assert found == {"kernel": (), "bias": ()}, f"names of axes={found}, but should be empty"


class OneOfAStack(nn.Module):
    """One layer, as `nn.scan` wants it."""

    @nn.compact
    def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        """Apply it."""
        return te.dense_general(features=CONTRACTED, name="layer")(x), None


STACKED = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
STACKS = {
    "nn.scan": nn.scan(OneOfAStack, length=2, **STACKED),
    "nn.vmap": nn.vmap(OneOfAStack, axis_size=2, in_axes=None, **STACKED),
}


@pytest.mark.parametrize("how", STACKS)
def test_stack_of_layers_needs_no_name_of_its_axis_where_the_others_have_none(how: str) -> None:
    variables = STACKS[how]().init(jax.random.key(0), on_device(np.ones((ROWS, CONTRACTED)), "bfloat16"), None)
    found = te.unbox(variables)["params"]["layer"]["kernel"].shape
    expected = (2, *te.kernel_shape((CONTRACTED,), (CONTRACTED,)))
    assert found == expected, f"shape of the stacked kernels={found}, but should be {expected}"


@pytest.mark.parametrize("axes", [("in",), ("in", "heads", "out")])
def test_wrong_number_of_kernel_axes_is_refused(axes: tuple[str, ...]) -> None:
    layer = te.dense_general(features=16, kernel_axes=axes)
    with pytest.raises(AssertionError, match=r"len\(kernel_shape\) to match len\(kernel_axes\).*\(32, 16\)"):
        init(layer, te.Autocast(), ones())


# --- a divided layer ------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Plan:
    """A way to divide a layer over the devices of a mesh.

    Attributes:
        sizes: of the mesh axes, each by the name of its kind of parallelism.
        rules: which logical axes are divided over which of them.
        y: how the output is divided in consequence.
        x: how the input and its gradient are.
        kernel: how the kernel and its gradient are.
    """

    sizes: Mapping[str, int]
    rules: Mapping[str, str]
    y: tuple[str | None, ...]
    x: tuple[str | None, ...]
    kernel: tuple[str | None, ...]


PLANS = {
    "column parallel": Plan({"tp": 2}, {"kernel_out": "tp"}, (None, None, "tp"), (None, None, None), (None, "tp")),
    "row parallel": Plan(
        {"tp": 2}, {"kernel_in": "tp", "hidden": "tp"}, (None, None, None), (None, None, "tp"), ("tp", None)
    ),
    "batch divided": Plan({"dp": 2}, {"batch": "dp"}, ("dp", None, None), ("dp", None, None), (None, None)),
    "fully sharded": Plan(
        {"fsdp": 2},
        {"batch": "fsdp", "kernel_in": "fsdp"},
        ("fsdp", None, None),
        ("fsdp", None, None),
        ("fsdp", None),
    ),
    "batch and columns": Plan(
        {"dp": 2, "tp": 2},
        {"batch": "dp", "kernel_out": "tp"},
        ("dp", None, "tp"),
        ("dp", None, None),
        (None, "tp"),
    ),
    "fully sharded, and columns": Plan(
        {"fsdp": 4, "tp": 2},
        {"batch": "fsdp", "kernel_in": "fsdp", "kernel_out": "tp"},
        ("fsdp", None, "tp"),
        ("fsdp", None, None),
        ("fsdp", "tp"),
    ),
}
LOGICAL = ("batch", "seq", "hidden", "kernel_in", "kernel_out")
LAYER = {
    "features": FEATURES,
    "input_axes": ("batch", "seq", "hidden"),
    "kernel_axes": ("kernel_in", "kernel_out"),
    "bias_axes": ("kernel_out",),
}


@contextlib.contextmanager
def divided_by(**sizes: int) -> Iterator[Mesh]:
    """A mesh and its mesh resource, whose axes have the names of the kinds of parallelism."""
    mesh = mesh_of(**sizes)
    with te.mesh_context(mesh), te.Autocast(axes=tuple(sizes))():
        yield mesh


@contextlib.contextmanager
def divided(plan: Plan) -> Iterator[Mesh]:
    """The devices and the rules of a plan."""
    rules = tuple((name, plan.rules.get(name)) for name in LOGICAL)
    with divided_by(**plan.sizes) as mesh, nn.logical_axis_rules(rules):
        yield mesh


def fresh_step(mode: te.Autocast) -> Callable[..., Step]:
    """A layer's passes, to be traced anew: ``jax.jit`` does not see that Flax's rules have changed."""

    def passes(layer: Any, *arguments: Any) -> Step:
        return inspect.unwrap(dense_step)(layer, mode, *arguments)

    return jax.jit(passes, static_argnums=0)


def tensors() -> dict[str, Any]:
    """Input, kernel, bias and gradient that no mode rounds; the first device alone sees the amax of each."""
    return {
        "x": exact((BATCH, ROWS, CONTRACTED), 1),
        "kernel": exact((CONTRACTED, FEATURES), 2, 3.5),
        "grad": exact((BATCH, ROWS, FEATURES), 3, 7.0),
        "bias": exact((FEATURES,), 4),
    }


def metas_for(recipe: str) -> dict[str, Meta]:
    """Metadata at which the tensors are exact."""
    scales = {"x": 128, "kernel": 32, "grad": 256}
    return {name: meta_of(scales[name], (0, 0.5, 0.5, 0.5)) for name in TENSORS} if recipe == "delayed" else {}


# TE's kernels take any left operand that is divided over tp for sequence parallelism, and warn.
@pytest.mark.filterwarnings("ignore:Tensor sequence parallelism is detected:UserWarning")
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.devices(math.prod(plan.sizes.values()))) for name, plan in PLANS.items()],
)
def test_divided_layer_computes_the_whole_product(name: str, recipe: str) -> None:
    """All tensors come whole to every device: what divides them are TE's constraints alone.

    Current scaling is left out, since TE's kernels let each device use the amax of its own part.
    """
    plan, given = PLANS[name], tensors()
    variables = variables_of(given["kernel"], metas_for(recipe), given["bias"])
    arguments = variables, on_device(given["x"]), on_device(given["grad"])
    with divided(plan) as mesh:
        whole = jax.device_put(arguments, NamedSharding(mesh, PartitionSpec()))
        step = fresh_step(te.Autocast(RECIPES[recipe], tuple(plan.sizes)))(dense_layer(**LAYER), *whole)
    x, grad = given["x"].reshape(-1, CONTRACTED), given["grad"].reshape(-1, FEATURES)
    kernel_grad = step.grads["params"]["kernel"]
    results = {
        "output": (step.y, given["x"] @ given["kernel"] + given["bias"], plan.y),
        "input gradient": (step.dx, given["grad"] @ given["kernel"].T, plan.x),
        "kernel gradient": (kernel_grad, x.T @ grad, plan.kernel),
        "bias gradient": (step.grads["params"]["bias"], grad.sum(axis=0), None),
    }
    for where, (found, wanted, spec) in results.items():
        tolerance = exact_tolerance(wanted, te.engine().kind)
        assert_close(where=f"{name}, {recipe}: {where}", actual=found, expected=wanted, tolerance=tolerance)
        if spec is not None:
            assert_divided(found, mesh, spec, where=f"{name}, {recipe}: {where}")
    if recipe == "delayed":
        expected = next_metas(metas_for(recipe), {"x": 1.75, "kernel": 3.5, "grad": 7.0}, {})
        assert_metas(step.metadata, expected, where=f"{name}: metadata of the whole tensors")


def assert_divided(array: jax.Array, mesh: Mesh, spec: tuple[str | None, ...], *, where: str) -> None:
    """An array lies on the devices of a mesh as a partition spec says."""
    __tracebackhide__ = True
    wanted = NamedSharding(mesh, PartitionSpec(*spec))
    assert array.sharding.is_equivalent_to(wanted, array.ndim), f"{where}: {array.sharding}, but should be {wanted}"


# --- which tensors are constrained ------------------------------------------------------------------------------------

Constraint = tuple[str, tuple[int, ...], tuple[Any, ...]]
X, T = (BATCH, ROWS, CONTRACTED), (CONTRACTED, BATCH, ROWS)
KERNEL, KERNEL_T = (CONTRACTED, FEATURES), (FEATURES, CONTRACTED)
E4M3 = "float8_e4m3fn"


def constraints(layer: Any, recipe: str = "bf16", axes: tuple[str, ...] = ()) -> Counter[Constraint]:
    """Dtype, shape and division of all tensors that a layer's passes constrain, but for those kept whole."""
    given = tensors()
    variables = variables_of(given["kernel"], metas_for(recipe), given["bias"])
    x, grad = (on_device(given[name], "bfloat16") for name in ("x", "grad"))
    step = functools.partial(fresh_step(te.Autocast(RECIPES[recipe], axes)), layer)
    found = equations(jax.make_jaxpr(step)(variables, x, grad), "sharding_constraint")
    every = ((e.invars[0].aval, tuple(e.params["sharding"].spec)) for e in found)
    return Counter((str(aval.dtype), aval.shape, spec) for aval, spec in every if any(spec))


def assert_constraints(found: Counter[Constraint], *expected: Constraint) -> None:
    """Compare what is constrained; every difference is listed."""
    __tracebackhide__ = True
    missing, unexpected = Counter(expected) - found, found - Counter(expected)
    assert not missing, f"not constrained: {dict(missing)}; found {dict(found)}"
    assert not unexpected, f"should not be constrained: {dict(unexpected)}"


@pytest.mark.devices(2)
def test_input_kernel_and_their_gradients_are_constrained_by_flax_rules() -> None:
    with divided(PLANS["row parallel"]):
        found = constraints(dense_layer(**LAYER))
    assert_constraints(
        found,
        *2 * [("bfloat16", X, (None, None, "tp"))],
        *2 * [("bfloat16", KERNEL, ("tp", None))],
    )


@pytest.mark.host
@pytest.mark.devices(2)
def test_constraints_of_fp8_are_put_on_the_quantized_tensors() -> None:
    """In each layout that there is: the transposed one, which a Hopper GPU needs, is divided along the same axes."""
    transposed = [(E4M3, T, ("tp", None, None)), (E4M3, KERNEL_T, (None, "tp"))]
    with divided(PLANS["row parallel"]):
        found = constraints(dense_layer(**LAYER), "delayed")
    assert_constraints(
        found,
        *(transposed if are_codes_transposed() else []),
        (E4M3, X, (None, None, "tp")),
        (E4M3, KERNEL, ("tp", None)),
        ("bfloat16", X, (None, None, "tp")),
        ("bfloat16", KERNEL, ("tp", None)),
    )


@pytest.mark.devices(2)
@pytest.mark.parametrize("recipe", RECIPES)
def test_nothing_is_constrained_by_default_or_by_names_without_a_rule(recipe: str) -> None:
    # Control.
    with divided(PLANS["row parallel"]):
        assert_constraints(constraints(dense_layer(features=FEATURES), recipe))
        other = dense_layer(features=FEATURES, input_axes=("a", "b", "c"), kernel_axes=("d", "e"))
        assert_constraints(constraints(other, recipe))


@pytest.mark.devices(2)
def test_a_rule_may_name_several_mesh_axes() -> None:
    rules = (("batch", ("dp", "fsdp")),)
    with te.mesh_context(mesh_of(dp=2, fsdp=1)), nn.logical_axis_rules(rules):
        found = constraints(dense_layer(**LAYER))
    assert_constraints(found, *2 * [("bfloat16", X, (("dp", "fsdp"), None, None))])


RULES: dict[str, tuple[Rules, tuple[str | None, ...]]] = {
    "second rule where the first's axis is taken": (
        (("batch", "a"), ("hidden", "a"), ("hidden", "b")),
        ("a", None, "b"),
    ),
    "no rule left": ((("batch", "a"), ("hidden", "a")), ("a", None, None)),
    "first of two rules": ((("hidden", "b"), ("hidden", "a")), (None, None, "b")),
    "rule of no axis before one of an axis": ((("batch", "a"), ("hidden", None), ("hidden", "b")), ("a", None, None)),
    "rules of other names": ((("elsewhere", "b"), ("seq", "a")), (None, "a", None)),
}
"""Flax's rules, and how they divide the input over a mesh of the axes ``a`` and ``b``."""


@pytest.mark.devices(2)
@pytest.mark.parametrize("name", RULES)
def test_rules_are_followed_as_flax_documents(name: str) -> None:
    """In their order: a rule whose mesh axis is taken by another axis of the tensor is passed over."""
    rules, spec = RULES[name]
    with te.mesh_context(mesh_of(a=2, b=1)), nn.logical_axis_rules(rules):
        found = constraints(dense_layer(features=FEATURES, input_axes=("batch", "seq", "hidden")))
    assert_constraints(found, *2 * [("bfloat16", X, spec)])


# --- TE's own table of logical axes ---------------------------------------------------------------------------------

NVTE_LAYER = {
    "features": FEATURES,
    "input_axes": ("nvte_batch", "nvte_seqlen", "nvte_hidden_tp"),
    "kernel_axes": ("nvte_w_fsdp", "nvte_w_tp"),
}
DEPRECATED = "TransformerEngine logical axes, such as BATCH_AXES"


@pytest.mark.devices(2)
@pytest.mark.filterwarnings("ignore:`with mesh.` context manager:DeprecationWarning")
@pytest.mark.parametrize("legacy", [False, True], ids=["set_mesh", "with mesh"])
def test_te_names_are_constrained_without_flax_rules_and_warn(legacy: bool) -> None:  # noqa: FBT001
    mesh = mesh_of(dp=1, tp=2)
    with mesh if legacy else te.mesh_context(mesh), pytest.warns(DeprecationWarning, match=DEPRECATED):
        found = constraints(dense_layer(**NVTE_LAYER), axes=("dp", "tp"))
    assert_constraints(
        found,
        *2 * [("bfloat16", X, ("dp", None, "tp"))],
        *2 * [("bfloat16", KERNEL, (None, "tp"))],
    )


@pytest.mark.devices(2)
def test_te_names_are_constrained_with_flax_rules_that_te_extended() -> None:
    """The documented way: no warning, and the same constraints."""
    with divided_by(fsdp=2, tp=1):
        rules = te.extend_logical_axis_rules()
        with nn.logical_axis_rules(rules):
            found = constraints(dense_layer(**NVTE_LAYER))
    assert_constraints(
        found,
        *2 * [("bfloat16", X, ("fsdp", None, "tp"))],
        *2 * [("bfloat16", KERNEL, ("fsdp", "tp"))],
    )


def test_te_names_for_another_number_of_axes_are_refused() -> None:
    layer = te.dense_general(features=FEATURES, input_axes=("nvte_batch", "nvte_hidden"))
    x = on_device(np.ones((BATCH, ROWS, CONTRACTED)), "bfloat16")
    with pytest.warns(DeprecationWarning, match=DEPRECATED), pytest.raises(AssertionError):
        layer.init(jax.random.key(0), x)


WHOLE = ("nvte_seqlen", "nvte_hidden", "nvte_joined", "nvte_w_no_shard", "nvte_w_joined")
TABLES: dict[str, tuple[dict[str, int], dict[str, str | None]]] = {
    "dp and tp": (
        {"dp": 2, "tp": 1},
        {"nvte_batch": "dp", "nvte_head": "tp", "nvte_hidden_tp": "tp", "nvte_w_tp": "tp"},
    ),
    "fsdp instead of dp": ({"dp": 1, "fsdp": 2}, {"nvte_batch": "fsdp", "nvte_w_fsdp": "fsdp"}),
    "fsdp of one device": ({"dp": 2, "fsdp": 1}, {"nvte_batch": "dp", "nvte_w_fsdp": "fsdp"}),
    "tpsp instead of tp": (
        {"tp": 1, "tpsp": 2},
        {"nvte_seqlen_tp": "tpsp", "nvte_head": "tpsp", "nvte_hidden_tp": "tpsp", "nvte_w_tp": "tpsp"},
    ),
    "tpsp of one device": (
        {"tp": 2, "tpsp": 1},
        {"nvte_seqlen_tp": "tpsp", "nvte_head": "tp", "nvte_hidden_tp": "tp", "nvte_w_tp": "tp"},
    ),
    "cp and pp": ({"cp": 2, "pp": 1}, {"nvte_seqlen_cp": "cp"}),
}
NAMES = {
    *WHOLE,
    "nvte_batch",
    "nvte_seqlen_tp",
    "nvte_seqlen_cp",
    "nvte_head",
    "nvte_hidden_tp",
    "nvte_w_fsdp",
    "nvte_w_tp",
}


@pytest.mark.devices(2)
@pytest.mark.parametrize("name", TABLES)
def test_te_names_stand_for_the_axes_of_the_mesh_resource(name: str) -> None:
    sizes, divided_names = TABLES[name]
    with divided_by(**sizes):
        found = dict(te.extend_logical_axis_rules())
    expected = dict.fromkeys(NAMES) | divided_names
    assert found == expected, f"{name}: logical axes={found}, but should be {expected}"


@pytest.mark.devices(2)
def test_te_rules_are_added_to_those_given() -> None:
    given: Rules = (("mine", "dp"), ("nvte_batch", "dp"), ("mine", None))
    with divided_by(dp=2):
        found = te.extend_logical_axis_rules(given)
    assert found[:3] == given, f"rules begin with {found[:3]}, but should with those given"
    added = [name for name, _ in found[3:]]
    assert set(added) == NAMES - {"nvte_batch"}, f"added rules={sorted(added)}, but should be TE's other names"
    assert len(added) == len(set(added)), f"a rule was added twice: {added}"


BAD_RULES = {
    "another mesh axis": ((("nvte_batch", "tp"),), "The rule diverged between TE and given rule"),
    "one more mesh axis": ((("nvte_batch", "dp"), ("nvte_batch", "tp")), "The rule diverged between TE and given rule"),
    "no pair": ((("mine", "dp", "tp"),), "rule should be like"),
    "no name": (((1, "dp"),), "axis_name should be str, but got <class 'int'>"),
    "no mesh axis": ((("mine", 1),), "mesh_axis_name should be str or None, but got <class 'int'>"),
}


@pytest.mark.devices(2)
@pytest.mark.parametrize("bad", BAD_RULES)
def test_rules_that_contradict_te_or_are_none_are_refused(bad: str) -> None:
    rules, message = BAD_RULES[bad]
    with divided_by(dp=2, tp=1), pytest.raises(AssertionError, match=message):
        te.extend_logical_axis_rules(rules)  # type: ignore[arg-type]


def test_without_a_mesh_no_rule_is_added_and_nothing_constrained() -> None:
    # Control. A mesh resource is not asked for either.
    given: Rules = (("mine", "dp"),)
    found = te.extend_logical_axis_rules(given)
    assert found == given, f"rules={found}, but should be those given"
    with nn.logical_axis_rules((("batch", "dp"), ("kernel_in", "dp"))):
        assert_constraints(constraints(dense_layer(**LAYER)))
    with pytest.warns(DeprecationWarning, match=DEPRECATED):
        assert_constraints(constraints(dense_layer(**NVTE_LAYER)))


# --- inside shard_map -------------------------------------------------------------------------------------------------


MANUAL = [
    pytest.param(("dp", "tp"), id="all"),
    # TE's kernels cannot be partitioned over the axes that are left (an assertion of JAX's custom partitioning).
    pytest.param(("dp",), id="one", marks=pytest.mark.host),
]


@pytest.mark.devices(2)
@pytest.mark.parametrize("manual", MANUAL)
def test_axes_that_shard_map_has_taken_are_left_out_of_constraints(manual: tuple[str, ...]) -> None:
    """Also out of several mesh axes that stand for one logical axis."""
    several: Any = ("dp", "tp")  # where TE has a name of one mesh axis in its types
    resource = te.mesh_resource(dp_resource="dp", tp_resource="tp", cp_resource=several)
    fields = NVTE_LAYER | {"input_axes": ("nvte_batch", "nvte_seqlen_cp", None)}
    with te.mesh_context(mesh_of(dp=2, tp=1)), te.autocast(enabled=False, resource=resource):
        assert_constrained_in_shard_map(fields, manual, pytest.warns(DeprecationWarning, match=DEPRECATED))


@pytest.mark.devices(2)
@pytest.mark.parametrize("manual", MANUAL)
def test_axes_that_shard_map_has_taken_are_left_out_of_rules_of_flax(manual: tuple[str, ...]) -> None:
    """As out of TE's own table. Flax itself constrains by all axes that a rule names."""
    rules: Rules = (("batch", "dp"), ("seq", "tp"), ("in", None), ("out", "tp"))
    fields = {"features": FEATURES, "input_axes": ("batch", "seq", None), "kernel_axes": ("in", "out")}
    with te.mesh_context(mesh_of(dp=2, tp=1)), nn.logical_axis_rules(rules):
        assert_constrained_in_shard_map(fields, manual, contextlib.nullcontext())


@pytest.mark.devices(2)
def test_no_mesh_resource_is_asked_for_where_shard_map_has_taken_all_axes() -> None:
    """None of them is left to be named."""
    with te.mesh_context(mesh_of(dp=2, tp=1)):
        assert_constrained_in_shard_map(NVTE_LAYER, ("dp", "tp"), pytest.warns(DeprecationWarning, match=DEPRECATED))


def assert_constrained_in_shard_map(
    fields: dict[str, Any], manual: tuple[str, ...], traced_in: contextlib.AbstractContextManager[Any]
) -> None:
    """A layer whose batch shard_map divides over dp constrains by the axes that are left, and computes the product."""
    __tracebackhide__ = True
    layer = dense_layer(**fields, use_bias=False)
    dp, whole, given = PartitionSpec("dp"), PartitionSpec(), tensors()
    arguments = variables_of(given["kernel"], {}), on_device(given["x"]), on_device(given["grad"])

    def passes(variables: Any, x: jax.Array, grad: jax.Array) -> Any:
        y, pull_back = jax.vjp(layer.apply, variables, x)
        return y, pull_back(grad)[1]

    specs: dict[str, Any] = {"in_specs": (whole, dp, dp), "out_specs": (dp, dp), "axis_names": set(manual)}
    mapped = jax.jit(jax.shard_map(passes, check_vma=False, **specs))
    with traced_in:
        traced = mapped.trace(*arguments)
    y, dx = traced.lower().compile()(*arguments)
    found = Counter(e.params["sharding"].spec for e in equations(traced.jaxpr, "sharding_constraint"))
    of_x, of_kernel = PartitionSpec(None, "tp", None), PartitionSpec(None, "tp")
    expected = Counter() if "tp" in manual else Counter({of_x: 2, of_kernel: 2})
    assert found == expected, f"constraints={dict(found)}, but should be {dict(expected)}"
    assert_equal(where="output", actual=y, expected=given["x"] @ given["kernel"])
    assert_equal(where="input gradient", actual=dx, expected=given["grad"] @ given["kernel"].T)


@pytest.mark.devices(2)
@pytest.mark.host  # Kernels cannot be partitioned over what shard_map leaves, and a GPU has not all recipes.
@pytest.mark.parametrize(
    ("recipe", "tolerance"),
    [
        pytest.param(recipe, tolerance, id=recipe, marks=pytest.mark.recipe(recipe))
        for recipe, tolerance in (
            ("DelayedScaling", 2.0**-8),
            ("Float8CurrentScaling", 2.0**-4),
            ("MXFP8BlockScaling", 2.0**-8),
            ("NVFP4BlockScaling", 0.5),
        )
    ],
)
def test_recipe_multiplies_what_it_says_where_shard_map_has_taken_all_axes(recipe: str, tolerance: float) -> None:
    """Of tensors that delayed scaling and MXFP8 do not round; NVFP4 rounds them, gradients by a key."""
    given, mode = tensors(), te.Autocast(RecipeConfig(recipe), ("dp", "tp"))
    rows, grads = given["x"].reshape(-1, CONTRACTED), given["grad"].reshape(-1, FEATURES)
    layer, dp, whole = dense_layer(features=FEATURES, use_bias=False), PartitionSpec("dp"), PartitionSpec()
    variables = variables_of(given["kernel"], metas_for("delayed") if recipe == "DelayedScaling" else {})

    def passes(variables: Any, x: jax.Array, grad: jax.Array) -> Any:
        apply = functools.partial(layer.apply, rngs={"sr_rng": jax.random.key(0)})
        y, pull_back = jax.vjp(apply, variables, x)
        return y, pull_back(grad)[1]

    with te.mesh_context(mesh_of(dp=2, tp=1)), mode():
        run = jax.jit(jax.shard_map(passes, check_vma=False, in_specs=(whole, dp, dp), out_specs=(dp, dp)))
        y, dx = run(variables, on_device(rows, "bfloat16"), on_device(grads, "bfloat16"))
    products = {"output": (y, rows @ given["kernel"]), "input gradient": (dx, grads @ given["kernel"].T)}
    for where, (found, wanted) in products.items():
        assert_close_norm(where=f"{recipe}: {where}", actual=found, expected=wanted, tolerance=tolerance)


# --- keys of stochastic rounding -------------------------------------------------------------------------------------


@pytest.mark.host  # A GPU has not all recipes.
@pytest.mark.devices(2)
@pytest.mark.recipe("NVFP4BlockScaling")
@pytest.mark.filterwarnings("ignore:`with mesh.` context manager:DeprecationWarning")
@pytest.mark.parametrize("legacy", [False, True], ids=["set_mesh", "with mesh"])
def test_each_device_of_a_mesh_has_a_key_of_its_own_for_stochastic_rounding(legacy: bool) -> None:  # noqa: FBT001
    """Four numbers, divided over all axes: kernels round what their device has by its own ones."""
    mesh, layer = mesh_of(dp=2, tp=1), dense_layer(features=FEATURES, use_bias=False)
    given, mode = tensors(), te.Autocast(RecipeConfig("NVFP4BlockScaling"), ("dp", "tp"))
    rows, grads = given["x"].reshape(-1, CONTRACTED), given["grad"].reshape(-1, FEATURES)

    def passes(variables: Any, x: jax.Array, grad: jax.Array) -> Any:
        apply = functools.partial(layer.apply, rngs={"sr_rng": jax.random.key(0)})
        return jax.vjp(apply, variables, x)[1](grad)

    with mesh if legacy else te.mesh_context(mesh), mode():
        program = jax.make_jaxpr(passes)(
            variables_of(given["kernel"], {}), on_device(rows, "bfloat16"), on_device(grads, "bfloat16")
        )
    found = [
        (e.invars[0].aval.shape, tuple(e.params["sharding"].spec))
        for e in equations(program, "sharding_constraint")
        if str(e.invars[0].aval.dtype) == "uint32"
    ]
    assert found == [((2, 4), (("dp", "tp"), None))], f"keys={found}, but should be one of four numbers for each device"


# --- MeshResource and its place in autocast --------------------------------------------------------------------------


def test_mesh_resource_names_kinds_of_parallelism_in_a_fixed_order() -> None:
    """A program may pass them by position."""
    kinds = ("dp", "tp", "tpsp", "fsdp", "pp", "cp")
    assert te.mesh_axes()[:6] == kinds, f"kinds of parallelism={te.mesh_axes()}, but should begin with {kinds}"
    empty = dataclasses.asdict(te.mesh_resource())
    assert set(empty.values()) == {None}, f"default mesh resource={empty}, but should be empty"


def test_mesh_resource_is_in_force_inside_autocast_and_restored_after() -> None:
    outer, inner = te.mesh_resource(dp_resource="a"), te.mesh_resource(fsdp_resource="b")
    for enabled in (False, True):
        with te.autocast(enabled=enabled, resource=outer):
            assert te.global_mesh_resource() == outer, "the mesh resource of autocast is not in force"
            with te.autocast(enabled=enabled, resource=inner):
                assert te.global_mesh_resource() == inner, "the mesh resource of the inner autocast is not in force"
            assert te.global_mesh_resource() == outer, "the outer mesh resource was not restored"
            with pytest.raises(RuntimeError, match="on purpose"), te.autocast(enabled=enabled, resource=inner):
                raise RuntimeError("on purpose")
            assert te.global_mesh_resource() == outer, "the outer mesh resource was not restored after an exception"
        with pytest.raises(AssertionError, match="Global mesh resource is not set"):
            te.global_mesh_resource()


def test_mesh_resource_of_an_autocast_that_cannot_be_entered_is_not_kept() -> None:
    recipe = te.make_recipe(RecipeConfig("Float8BlockScaling"))
    outer, inner = te.mesh_resource(dp_resource="a"), te.mesh_resource(fsdp_resource="b")
    with te.autocast(enabled=False, resource=outer):
        with pytest.raises((ValueError, AssertionError)), te.autocast(enabled=True, recipe=recipe, resource=inner):
            pass
        assert te.global_mesh_resource() == outer, "the outer mesh resource was not restored"


@pytest.mark.devices(2)
def test_missing_mesh_resource_is_named() -> None:
    with te.mesh_context(mesh_of(dp=2)), pytest.raises(AssertionError, match="Global mesh resource is not set"):
        te.extend_logical_axis_rules()


@pytest.mark.devices(2)
def test_mesh_resource_of_another_mesh_is_refused() -> None:
    fsdp = te.mesh_resource(fsdp_resource="fsdp")
    with te.mesh_context(mesh_of(dp=2)), te.autocast(enabled=False, resource=fsdp):
        refused = pytest.raises(AssertionError, match="fsdp is not a axis of the given mesh")
        with refused:
            te.extend_logical_axis_rules()


@pytest.mark.devices(4)
def test_data_parallelism_may_be_combined_with_a_fully_sharded_one() -> None:
    with divided_by(dp=2, fsdp=2):
        te.global_mesh_resource()
        found = dict(te.extend_logical_axis_rules())
    assert found["nvte_w_fsdp"] == "fsdp", f"axes of kernels are divided over {found['nvte_w_fsdp']}, not over fsdp"


@pytest.mark.devices(2)
def test_two_kinds_of_tensor_parallelism_at_once_are_refused() -> None:
    both = te.mesh_resource(tp_resource="model", tpsp_resource="model")
    message = "Tensor parallelism and tensor sequence parallelism cannot be enabled at the same time"
    with te.mesh_context(mesh_of(model=2)), te.autocast(enabled=False, resource=both):
        refused = pytest.raises(AssertionError, match=message)
        with refused:
            te.global_mesh_resource()
    for sizes in ({"tp": 2, "tpsp": 1}, {"tp": 1, "tpsp": 2}):  # Control: an axis of one device divides nothing.
        with divided_by(**sizes):
            te.global_mesh_resource()
