"""Claim: grouped dense layers ask the kernels for each group's own scales and rows, and keep what these give back.

``grouped_dense`` has one kernel for each group of rows. TE's Python hands group sizes, scales and codes of all groups
to kernels, says which axes are contracted and which of them are the groups', and keeps the groups' amaxes. Here, the
kernels compute their definitions on a CPU, so that a layer has to compute its own.

What a failure means for an upgrade: experts of a mixture are computed from rows, kernels or scales of each other.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_fp8.core.capability import Capability
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.oracle import dense
from mnist_fp8.oracle.blocks import BlockDense
from mnist_fp8.oracle.dense import TENSORS, Array
from mnist_fp8.subjects.making import name_of_te
from mnist_fp8.te.dense_step import on_device
from mnist_fp8.te.pretended import pretending
from support.assertions import assert_close_norm, assert_equal
from support.grouped_kernels import REPLACED, put_in_place
from support.programs import equations

pytestmark = [pytest.mark.host, *REPLACED]

ALIGNED = "multiples of 128"
SIZES = {"any sizes": (32, 96, 0, 64), ALIGNED: (128, 256, 0, 128)}
"""Of the latter, TE has other kernels in BF16 and in MXFP8."""
QUANTIZERS = {"x": "x", "kernel": "kernel", "dgrad": "grad"}
"""What TE's sets of quantizers have, and what it quantizes."""
MODES = {
    "bf16": ("NO_SCALING", Capability.HOPPER),
    "delayed": ("DELAYED_TENSOR_SCALING", Capability.HOPPER),
    "delayed on a Blackwell": ("DELAYED_TENSOR_SCALING", Capability.BLACKWELL),
    "current": ("CURRENT_TENSOR_SCALING", Capability.HOPPER),
    "MXFP8": ("MXFP8_1D_SCALING", Capability.BLACKWELL),
}
SCALES = {
    tensor: [np.float32(first + 1.5 * group) for group in range(4)]
    for tensor, first in {"x": 30.1, "kernel": 200.3, "grad": 5000.7}.items()
}
"""Of delayed scaling, by group."""
EXACT = 2.0**-8
"""Largest relative norm of a difference that rounding to BF16 explains."""


def tensors(sizes: tuple[int, ...]) -> dict[str, Array]:
    """Rows, kernels and gradients of BF16's numbers, each group of another size."""
    drawn = np.random.default_rng(4)
    rows, contracted, features = sum(sizes), 128, 256 if sizes == SIZES[ALIGNED] else 64
    of_rows = np.repeat(1 + np.arange(len(sizes)), sizes)[:, None]
    shapes = {
        "x": drawn.normal(0, 1, (rows, contracted)) * of_rows,
        "kernel": drawn.normal(0, 0.3, (len(sizes), contracted, features)) * [[[1]], [[2]], [[3]], [[1]]],
        "grad": drawn.normal(0, 0.1, (rows, features)) / of_rows,
    }
    return {name: np.array(on_device(values, "bfloat16"), np.float32) for name, values in shapes.items()}


def quantizers(mode: str, **options: Any) -> Any:
    """What quantizes four groups in a mode."""
    scaling = getattr(name_of_te("quantize", "ScalingMode"), mode)
    e4m3, e5m2 = jnp.float8_e4m3fn, jnp.float8_e5m2
    backward = e4m3 if mode == "MXFP8_1D_SCALING" else e5m2
    create = name_of_te("quantize", "QuantizerFactory").create_set
    made = create(scaling_mode=scaling, fwd_dtype=e4m3, bwd_dtype=backward, n_groups=4, **options)
    if mode == "DELAYED_TENSOR_SCALING":
        for attribute, tensor in QUANTIZERS.items():
            for quantizer, scale in zip(getattr(made, attribute).quantizers, SCALES[tensor], strict=True):
                quantizer.scale = on_device([scale])
    return made


def of_group(mode: str, values: dict[str, Array], rows: slice, group: int) -> Any:
    """The oracle's passes of a group."""
    parts = {"x": values["x"][rows], "kernel": values["kernel"][group], "grad": values["grad"][rows]}
    if mode == "NO_SCALING":
        return dense.dense(**parts)
    if mode == "MXFP8_1D_SCALING":
        return BlockDense(RecipeConfig("MXFP8BlockScaling"), **parts)
    scales = {tensor: SCALES[tensor][group] for tensor in TENSORS}
    if mode == "CURRENT_TENSOR_SCALING":
        scales = dense.current_scales(parts, "HYBRID")
    return dense.fp8_dense(**parts, scales=scales, fp8_format="HYBRID")


Groups = tuple[tuple[int, slice], ...]


def groups_of(sizes: tuple[int, ...]) -> Groups:
    """Numbers and rows of the groups that have rows."""
    ends = np.cumsum(sizes)
    return tuple(
        (group, slice(end - size, end)) for group, (size, end) in enumerate(zip(sizes, ends, strict=True)) if size
    )


@pytest.mark.parametrize(
    ("mode", "which"), [(mode, "any sizes") for mode in MODES] + [(mode, ALIGNED) for mode in ("bf16", "MXFP8")]
)
def test_groups_by_kernels_are_computed_each_by_its_own(mode: str, which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a bias where groups are of any size; of an empty group, the gradient of its kernel is zero."""
    scaling, capability = MODES[mode]
    sizes, values = SIZES[which], tensors(SIZES[which])
    bias = None if which == ALIGNED else np.arange(4.0 * values["grad"].shape[1]).reshape(4, -1) % 7 + 1
    put_in_place(monkeypatch)
    with pretending(capability):
        step = run(quantizers(scaling), sizes, values, bias)
    nothing = np.zeros(values["kernel"].shape[1:])
    empty = f"{mode}, {which}: kernel gradient of an empty group"
    assert_equal(where=empty, actual=step.dkernel[sizes.index(0)], expected=nothing)
    for group, rows in groups_of(sizes):
        wanted, where = of_group(scaling, values, rows, group), f"{mode}, {which}, group {group}"
        added = 0.0 if bias is None else bias[group]
        assert_close_norm(
            where=f"{where}: output", actual=step.y[rows], expected=wanted.y.value + added, tolerance=EXACT
        )
        assert_close_norm(
            where=f"{where}: input gradient", actual=step.dx[rows], expected=wanted.dx.value, tolerance=EXACT
        )
        assert_close_norm(
            where=f"{where}: kernel gradient",
            actual=step.dkernel[group],
            expected=wanted.dkernel.value,
            tolerance=EXACT,
        )
        if step.dbias is not None:
            summed = values["grad"][rows].astype(np.float64).sum(0)
            assert_close_norm(
                where=f"{where}: bias gradient", actual=step.dbias[group], expected=summed, tolerance=EXACT
            )


class Step(NamedTuple):
    """Result of a forward and backward pass; what quantizes the next step."""

    y: jax.Array
    dx: jax.Array
    dkernel: jax.Array
    dbias: jax.Array | None
    quantizers: Any


def run(made: Any, sizes: tuple[int, ...], values: dict[str, Array], bias: Array | None = None) -> Step:
    """A grouped layer's passes, traced anew: JAX would not see that kernels are in place."""
    grouped = name_of_te("dense", "grouped_dense")

    def compute(x: Any, kernel: Any, bias: Any, made: Any) -> Any:
        return grouped(x, kernel, jnp.array(sizes, jnp.int32), bias=bias, quantizer_set=made)

    x, kernel, grad = (on_device(values[name], "bfloat16") for name in TENSORS)
    given = x, kernel, None if bias is None else on_device(bias, "bfloat16"), made
    y, pull_back = jax.vjp(compute, *given)
    return Step(y, *pull_back(grad))


def test_amaxes_of_groups_are_kept_each_as_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    put_in_place(monkeypatch)
    sizes = SIZES["any sizes"]
    values = tensors(sizes)
    following = run(quantizers("DELAYED_TENSOR_SCALING"), sizes, values).quantizers
    for attribute, tensor in QUANTIZERS.items():
        for group, rows in groups_of(sizes):
            part = values[tensor][group if tensor == "kernel" else rows]
            history = getattr(following, attribute).quantizers[group].amax_history
            where = f"newest amax of {tensor}, group {group}"
            assert_equal(where=where, actual=history.max(), expected=np.abs(part).max())


def test_operands_of_groups_are_saved_by_their_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the backward pass of what is recomputed does not quantize the inputs again."""
    put_in_place(monkeypatch)
    sizes = SIZES["any sizes"]
    values, grouped = tensors(sizes), name_of_te("dense", "grouped_dense")
    policy = jax.checkpoint_policies.save_only_these_names("codes")

    @functools.partial(jax.checkpoint, policy=policy)
    def compute(x: jax.Array, kernel: jax.Array, made: Any) -> jax.Array:
        y: jax.Array = grouped(x, kernel, jnp.array(sizes, jnp.int32), quantizer_set=made)
        return jnp.sin(y.astype(jnp.float32)).sum()

    with pretending(Capability.BLACKWELL):
        made = quantizers("MXFP8_1D_SCALING", checkpoint_name="codes")
        program = jax.make_jaxpr(jax.grad(compute, (0, 1)))(
            *(on_device(values[n], "bfloat16") for n in ("x", "kernel")), made
        )
    found = sum(len(each.outvars) > 1 for each in equations(program, "pure_callback"))
    assert found == len(TENSORS), f"tensors quantized in a step={found}, but should be {len(TENSORS)}"
