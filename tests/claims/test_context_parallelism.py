"""Claim: attention whose sequences are divided over devices computes what one device computes.

Keys and values are gathered or sent round a ring, and each device asks a kernel for its part. TE's Python says which
keys a part sees, where its sequences lie, and puts outputs and gradients together. Here that kernel computes its
definition on a CPU, so that what is put together has to be attention.

What a failure means for an upgrade: training with context parallelism attends to wrong tokens, or gets wrong gradients.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mnist_fp8 import te
from mnist_fp8.oracle.dense import Array
from mnist_fp8.subjects.attention import from_segments, segment_positions
from mnist_fp8.subjects.making import demand_parameters, name_of_te
from support.assertions import assert_close_norm
from support.attention import FLOAT32, NumpyPasses, draw, numpy_passes
from support.inner_kernels import STOOD_IN, put_in_place

pytestmark = [
    pytest.mark.host,
    pytest.mark.shardy,
    *STOOD_IN,
    pytest.mark.filterwarnings("ignore:Scan loop is"),
]

BATCH, LENGTH, HEADS, GROUPS, SIZE, SCALE = 2, 48, 4, 2, 8, 0.3
WHOLE = ((1,) * LENGTH,) * BATCH
LONG = ((1,) * 13 + (2,) * 20 + (3,) * 15, (1,) * 25 + (2,) * 23)
"""Of packed sequences: which segment a token belongs to, 0 for padding. Each device has some tokens of all."""
SHORT = ((1,) * 13 + (2,) * 34 + (3,), (1,) + (2,) * 21 + (3,) * 26)
"""With some of one token, that most devices have nothing of."""
GAPS = ((1,) * 13 + (0,) * 3 + (2,) * 17 + (3,) * 9 + (0,) * 6, (1,) * 11 + (2,) * 20 + (0,) * 1 + (3,) * 14 + (0,) * 2)
"""With padding between segments and behind them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A way to compute attention of sequences that are divided over devices.

    Attributes:
        strategy: TE's name of it.
        causal: whether no query sees the future.
        balanced: whether tokens are in an order that gives all devices as much to do.
        segments: which each token belongs to, where several are packed into a sequence.
        together: whether keys and values are one tensor.
        stripe: how many neighbours stay together, where sequences are packed; 1 by default.
        window: how many tokens a query sees before its own.
        scan: whether a ring's steps are a loop of XLA's.
        batch: over how many devices the batch is divided.
        devices: over how many a sequence is.
        whole: whether positions, and gradients of the output, come to every device whole.
    """

    strategy: str
    causal: bool = True
    balanced: bool = False
    segments: tuple[tuple[int, ...], ...] = ()
    together: bool = False
    stripe: int | None = None
    window: int = -1
    scan: bool = False
    batch: int = 1
    devices: int = 4
    whole: bool = False

    @property
    def packed(self) -> bool:
        """Whether sequences are of segments."""
        return bool(self.segments)

    def order(self) -> Array:
        """Which token stands at each place."""
        places = np.arange(LENGTH)
        if not self.balanced:
            return places
        if self.packed:
            stripes = places.reshape(-1, self.stripe or 1)
            return np.concatenate([stripes[device :: self.devices].ravel() for device in range(self.devices)])
        chunks = np.split(places, 2 * self.devices)
        return np.concatenate([np.append(chunks[device], chunks[-1 - device]) for device in range(self.devices)])

    def seen(self) -> Array:
        """Which keys a query sees, (batch, queries, keys), in the tokens' own order."""
        ids = np.asarray(self.segments or WHOLE)
        distance = np.arange(LENGTH) - np.arange(LENGTH)[:, None]
        near = ((distance <= 0) | (not self.causal)) & ((distance >= -self.window) | (self.window < 0))
        seen: Array = (ids[:, None] == ids[:, :, None]) & (ids > 0)[:, None] & near
        return seen


PLANS = {
    "gathered": Plan(strategy="ALL_GATHER", causal=False, whole=True),
    "gathered, causal": Plan(strategy="ALL_GATHER"),
    "gathered, causal, balanced": Plan(strategy="ALL_GATHER", balanced=True, together=True, batch=2),
    "gathered, packed": Plan(
        strategy="ALL_GATHER", balanced=True, segments=GAPS, together=True, stripe=4, window=7, devices=2
    ),
    "ring": Plan(strategy="RING", causal=False, whole=True),
    "ring, causal": Plan(strategy="RING"),
    "ring, causal, balanced": Plan(strategy="RING", balanced=True, together=True, batch=2),
    "ring, causal, balanced, in a loop": Plan(strategy="RING", balanced=True, scan=True),
    "ring, packed": Plan(strategy="RING", balanced=True, segments=LONG, together=True, batch=2, devices=2),
}


SCAN = "NVTE_FUSED_RING_ATTENTION_USE_SCAN"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which passes a kernel of the suite's own is asked for; the steps of a ring are no loop."""
    monkeypatch.setenv(SCAN, "0")
    return put_in_place(monkeypatch)


def tensors() -> list[jax.Array]:
    """Queries, keys, values and a gradient of the output."""
    few = (BATCH, LENGTH, GROUPS, SIZE)
    return draw((BATCH, LENGTH, HEADS, SIZE), few, few, (BATCH, LENGTH, HEADS, SIZE))


def attend(plan: Plan, operands: list[jax.Array], segments: list[jax.Array], **more: Any) -> Any:
    """TE's attention.

    Args:
        plan: how.
        operands: queries, keys and values, in the order of the plan.
        segments: the segment of each token and the position in it, likewise.
        more: arguments that not all releases take.
    """
    attention = name_of_te("attention")
    layouts = ("THD_THD_THD", "THD_T2HD") if plan.packed else ("BSHD_BSHD_BSHD", "BSHD_BS2HD")
    kind = "PADDING_CAUSAL_MASK" if plan.packed else "CAUSAL_MASK" if plan.causal else "NO_MASK"
    if plan.packed:
        described = from_segments(*segments)
        more = {"max_segments_per_seq": 4, **({"stripe_size": plan.stripe} if plan.stripe else {}), **more}
    else:
        described = attention.SequenceDescriptor.from_seqlens(jnp.full(BATCH, LENGTH, jnp.int32))
    if hasattr(attention, "AttnSoftmaxType"):
        more = {"softmax_type": attention.AttnSoftmaxType.VANILLA_SOFTMAX, **more}
    demand_parameters(attention.fused_attn, *more)
    query, key, value = operands
    return attention.fused_attn(
        (query, jnp.stack([key, value], axis=2)) if plan.together else (query, key, value),
        more.pop("bias", None),
        described,
        more.pop("seed", None),
        attn_bias_type=more.pop("attn_bias_type", attention.AttnBiasType.NO_BIAS),
        attn_mask_type=attention.AttnMaskType[kind],
        qkv_layout=attention.QKVLayout[layouts[plan.together]],
        scaling_factor=SCALE,
        dropout_probability=0.0,
        is_training=True,
        window_size=(plan.window, 0) if plan.window >= 0 else None,
        context_parallel_strategy=attention.CPStrategy[plan.strategy],
        context_parallel_causal_load_balanced=plan.balanced,
        context_parallel_axis="cp",
        **more,
    )


def run(plan: Plan, attended: Callable[..., Any], *tensors: Any) -> Any:
    """Call a function of tensors, and of the segments of tokens, in a program of several devices.

    Args:
        plan: which devices, and in what order tokens are given.
        attended: the function.
        tensors: (batch, positions, ...) each, in the tokens' own order.
    """
    mesh = Mesh(np.asarray(jax.devices()[: plan.batch * plan.devices]).reshape(plan.batch, -1), ("dp", "cp"))
    ids = plan.segments or WHOLE
    segments = [np.asarray(part, np.int32) for part in (ids, segment_positions(ids))]
    divided = NamedSharding(mesh, PartitionSpec("dp", "cp"))
    given = [jax.device_put(tensor[:, plan.order()], divided) for tensor in (*tensors, *segments)]
    if plan.whole:
        everywhere = NamedSharding(mesh, PartitionSpec())
        given[3:-2], given[-1] = jax.device_put((given[3:-2], given[-1]), everywhere)
    guard = name_of_te("sharding", "global_shard_guard")(te.mesh_resource(dp_resource="dp", cp_resource="cp"))
    with te.mesh_context(mesh), guard, jax.default_matmul_precision("highest"):
        return jax.jit(attended)(given[:-2], given[-2:])


def both_passes(plan: Plan, *tensors: Any) -> tuple[tuple[Array, ...], PartitionSpec]:
    """Output and gradients of queries, keys and values, in the tokens' own order; and how the output is divided."""

    def passes(tensors: list[jax.Array], segments: list[jax.Array]) -> Any:
        *operands, grad = tensors
        y, pull_back = jax.vjp(lambda operands: attend(plan, operands, segments), operands)
        return y, *pull_back(grad)[0]

    found = run(plan, passes, *tensors)
    back = np.argsort(plan.order())
    return tuple(np.asarray(each, np.float64)[:, back] for each in found), found[0].sharding.spec


def assert_passes(found: tuple[Array, ...], wanted: NumpyPasses, where: str) -> None:
    """Compare output and gradients of queries, keys and values."""
    __tracebackhide__ = True
    for name, actual in zip(("y", "query", "key", "value"), found, strict=True):
        expected = getattr(wanted, name)
        assert_close_norm(where=f"{where}: {name}", actual=actual, expected=expected, tolerance=FLOAT32)


@pytest.mark.devices(8)
@pytest.mark.parametrize("name", PLANS)
def test_attention_over_devices_computes_its_definition(
    name: str, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = PLANS[name]
    monkeypatch.setenv(SCAN, str(int(plan.scan)))
    given = tensors()
    found, spec = both_passes(plan, *given)
    assert {"Fwd", "Bwd"} <= set(asked), f"Control: passes asked for={sorted(set(asked))}"
    *operands, grad = given
    assert_passes(found, numpy_passes(operands, plan.seen(), grad, scale=SCALE), name)
    assert spec[:2] == ("dp", "cp"), f"the output is divided as {spec}, but should be as the queries are"


SINGLE = Plan(strategy="ALL_GATHER", balanced=True, segments=SHORT, stripe=1, devices=2)


@pytest.mark.usefixtures("asked")
@pytest.mark.devices(2)
def test_segments_are_told_apart_where_positions_follow_each_other() -> None:
    """A device has every other token: position 1 of a segment comes next to position 0 of another."""
    *operands, grad = tensors()
    found = run(SINGLE, lambda operands, segments: attend(SINGLE, operands, segments), *operands)
    wanted = numpy_passes(operands, SINGLE.seen(), grad, scale=SCALE).y
    assert_close_norm(where="stripes of one", actual=found, expected=wanted[:, SINGLE.order()], tolerance=FLOAT32)


RING_WINDOW = Plan(strategy="RING", balanced=True, segments=LONG, window=7, devices=3)


@pytest.mark.usefixtures("asked")
@pytest.mark.devices(3)
@pytest.mark.te_name("cpp_extensions", "attention", "adjust_cp_striped_window_size")
def test_window_of_a_ring_is_that_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """TE makes a program for each process, by the place of its first device: here for the one in the middle.

    The gradient of the output is zero but for its own queries, so that the others' shares are.
    """
    plan, own, place = RING_WINDOW, np.zeros(LENGTH), 1
    monkeypatch.setattr(name_of_te("cpp_extensions", "attention"), "get_mesh_axis_rank_host", lambda *_: place)
    own[np.split(plan.order(), plan.devices)[place]] = 1
    own = own[None, :, None, None]
    *operands, grad = tensors()
    (y, *grads), _ = both_passes(plan, *operands, grad * own)
    wanted = numpy_passes(operands, plan.seen(), np.asarray(grad) * own, scale=SCALE)
    assert_passes((y * own, *grads), dataclasses.replace(wanted, y=wanted.y * own), "ring, window")


@pytest.mark.te_name("cpp_extensions", "attention", "adjust_cp_striped_window_size")
@pytest.mark.parametrize("devices", [2, 3, 4])
def test_window_of_stripes_sees_the_same_keys(devices: int) -> None:
    """Of the queries and keys of two devices; a first query that sees nothing is not given to the kernel.

    Windows that reach less far than to the same place of all other devices are not looked at: they have no number.
    """
    adjust = name_of_te("cpp_extensions", "attention", "adjust_cp_striped_window_size")
    places = np.arange(6)
    for query, key, window in itertools.product(*[range(devices)] * 2, range(devices - 1, 3 * devices)):
        distance = (query + devices * places)[:, None] - (key + devices * places)
        wanted = (distance >= 0) & (distance <= window)
        left, right = adjust(query, key, devices, (window, 0))
        place = places[:, None] - (key > query)
        found = (places <= place) & (places >= place - left) & (place >= 0)
        where = f"query {query}, key {key} of {devices} devices, window {window}"
        assert np.array_equal(found, wanted), f"{where}: the window becomes {left}, {right}, which sees other keys"


def in_steps(plan: Plan, query: Array, key: Array, value: Array) -> Array:
    """Attention to the keys of each device, rounded to BF16 as a kernel does, and the sum of all, rounded once."""
    keys, values = (np.repeat(tensor, HEADS // GROUPS, axis=2) for tensor in (key, value))
    powers = np.where(plan.seen()[:, None], np.exp(np.einsum("bqhd,bkhd->bhqk", query, keys) * SCALE), 0)
    y, total = np.zeros(query.shape), np.maximum(powers.sum(axis=-1, keepdims=True), 1e-9)
    for own in np.split(plan.order(), plan.devices):
        share = powers[..., own].sum(axis=-1, keepdims=True)
        weights = powers[..., own] / np.maximum(share, 1e-9)
        part = np.einsum("bhqk,bkhd->bqhd", weights, values[:, own]).astype(jnp.bfloat16)
        y += part.astype(np.float64) * (share / total).swapaxes(1, 2)
    rounded: Array = y.astype(jnp.bfloat16)
    return rounded


ROUNDED = {
    "ring": PLANS["ring, causal, balanced"],
    "ring, short": Plan(strategy="RING", balanced=True, segments=SHORT, devices=2),
    "ring, gaps": Plan(strategy="RING", balanced=True, segments=GAPS, devices=2, whole=True),
}


@pytest.mark.usefixtures("asked")
@pytest.mark.devices(8)
@pytest.mark.parametrize("name", ROUNDED)
def test_steps_of_a_ring_are_put_together_and_rounded_once(name: str) -> None:
    plan = ROUNDED[name]
    operands = [tensor.astype(jnp.bfloat16) for tensor in tensors()[:3]]
    found = run(plan, lambda operands, segments: attend(plan, operands, segments), *operands)
    wanted = in_steps(plan, *(np.asarray(tensor, np.float64) for tensor in operands))[:, plan.order()]
    assert found.dtype == jnp.bfloat16, f"dtype of the output={found.dtype}"
    alike = float((np.asarray(found) == wanted).mean())
    assert alike >= 0.99, f"{name}: {alike:.1%} of the outputs are the sum of all steps, but should be all"


LARGEST = {
    "gathered": dataclasses.replace(PLANS["gathered, causal"], batch=2),
    "ring": PLANS["ring, causal, balanced"],
    "ring, packed": Plan(strategy="RING", balanced=True, segments=LONG, devices=2),
    "ring, short": ROUNDED["ring, short"],
}


@pytest.mark.usefixtures("asked")
@pytest.mark.devices(8)
@pytest.mark.parametrize("name", LARGEST)
def test_largest_logits_are_those_of_all_devices(name: str) -> None:
    plan = LARGEST[name]
    *operands, _ = tensors()
    found = run(plan, lambda operands, segments: attend(plan, operands, segments, return_max_logit=True)[1], *operands)
    query, key = (np.asarray(tensor, np.float64) for tensor in operands[:2])
    logits = np.einsum("bqhd,bkhd->bhqk", query, np.repeat(key, HEADS // GROUPS, axis=2)) * SCALE
    wanted = np.where(plan.seen()[:, None], logits, -np.inf).max(axis=(0, 2, 3))
    assert_close_norm(where=f"{name}: largest logits", actual=found, expected=wanted, tolerance=FLOAT32)


@pytest.mark.usefixtures("asked")
@pytest.mark.devices(2)
@pytest.mark.te_name("attention", "AttnSoftmaxType")
def test_gradients_of_bias_and_sink_are_summed_over_the_devices_of_a_batch() -> None:
    """Both are the same for all sequences, each of which a device has some of."""
    attention, plan = name_of_te("attention"), Plan(strategy="DEFAULT", batch=2, devices=1)
    *operands, grad = tensors()
    bias, sink = draw((1, HEADS, LENGTH, LENGTH), (1, HEADS, 1, 1))

    def passes(tensors: list[jax.Array], segments: list[jax.Array]) -> Any:
        def attended(bias: jax.Array, sink: jax.Array) -> Any:
            kinds = {
                "attn_bias_type": attention.AttnBiasType.POST_SCALE_BIAS,
                "softmax_type": attention.AttnSoftmaxType.LEARNABLE_SOFTMAX,
            }
            return attend(plan, tensors[:-1], segments, bias=bias, softmax_offset=sink, **kinds)

        y, pull_back = jax.vjp(attended, bias, sink)
        return y, *pull_back(tensors[-1])

    found = run(plan, passes, *operands, grad)
    wanted = numpy_passes(operands, plan.seen(), grad, scale=SCALE, bias=bias, sink=sink)
    for name, actual in zip(("y", "bias", "sink"), found, strict=True):
        assert_close_norm(where=name, actual=actual, expected=getattr(wanted, name), tolerance=FLOAT32)
