"""Claim: the parts of a mixture of experts route, sort, weight and combine tokens as they document it.

TE documents its router by formulas (scores, choice, probabilities, auxiliary loss), and sorting as a permutation that
its counterpart undoes. The router's and the Triton functions are kernels; what is written in JAX is seen everywhere.

What a failure means for an upgrade: tokens go to other experts, come back to other places, or with other weights.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mnist_fp8 import te
from mnist_fp8.oracle import arithmetic, experts
from mnist_fp8.oracle.dense import Array
from mnist_fp8.oracle.experts import Routing
from mnist_fp8.programs.jaxprs import equations
from mnist_fp8.subjects.making import name_of_te
from mnist_fp8.te.dense_step import on_device
from support.assertions import assert_close_norm, assert_equal
from support.stand_ins import Kernel

TOKENS, EXPERTS, HIDDEN = 48, 8, 16
FLOAT32 = 2.0**-18
"""Largest relative norm of a difference between float32 and float64: some tens of roundings of 2**-24 each."""


def _logits(seed: int = 0) -> Array:
    """No two of a token are close to each other, so that the choice does not hang on a rounding."""
    drawn = np.random.default_rng(seed)
    ranks = drawn.permuted(np.tile(np.arange(EXPERTS), (TOKENS, 1)), axis=1)
    return ((ranks - EXPERTS / 2) / 2 + drawn.uniform(-0.1, 0.1, ranks.shape)).astype(np.float32)


router = pytest.mark.te_name("router", "fused_topk_with_score_function")
sorting = pytest.mark.te_name("permutation", "pure_jax_token_dispatch")
ROUTINGS = {
    "softmax of the chosen": Routing(2),
    "softmax of all": Routing(2, softmax_first=True),
    "one expert": Routing(1, softmax_first=True),
    "sigmoid": Routing(2, "sigmoid"),
    "sigmoid, one expert": Routing(1, "sigmoid"),
    "square root of softplus": Routing(2, "sqrtsoftplus"),
    "scaled": Routing(3, "sigmoid", scaling=2.5),
    "groups": Routing(4, "sigmoid", groups=4, group_topk=2),
}


@pytest.mark.gpu
@router
@pytest.mark.parametrize(
    "routing",
    [
        pytest.param(routing, id=name, marks=pytest.mark.te_name("router", "ScoreFunction", routing.score.upper()))
        for name, routing in ROUTINGS.items()
    ],
)
def test_router_gives_tokens_to_their_best_experts(routing: Routing) -> None:
    """Probabilities, choice and the gradient of the logits."""
    route = _router(routing)
    logits, weights = _logits(), np.random.default_rng(1).normal(0, 1, (TOKENS, EXPERTS)).astype(np.float32)

    @jax.jit
    def found(logits: jax.Array) -> Any:
        probs, pull_back, choice = jax.vjp(route, logits, has_aux=True)
        return probs, choice, pull_back(jnp.asarray(weights, probs.dtype))[0]

    probs, choice, grad = found(logits)
    assert_equal(where="choice", actual=choice, expected=experts.chosen(routing, logits))
    exact = arithmetic.exact(lambda _a, _p, i: experts.probabilities(routing, i["x"]), {}, {"x": logits}, (weights,))
    assert_close_norm(where="probabilities", actual=probs, expected=exact.y[0], tolerance=FLOAT32)
    assert_close_norm(where="gradient of the logits", actual=grad, expected=exact.dx["x"], tolerance=FLOAT32)


def _router(routing: Routing, **options: Any) -> Callable[[jax.Array], Any]:
    route = name_of_te("router", "fused_topk_with_score_function")
    given = {
        "use_pre_softmax": routing.softmax_first,
        "scaling_factor": routing.scaling,
        "score_function": routing.score,
        **({"num_groups": routing.groups, "group_topk": routing.group_topk} if routing.groups > 1 else {}),
    }
    return lambda logits: route(logits, routing.topk, **given, **options)


@pytest.mark.gpu
@router
def test_bias_of_experts_counts_for_the_choice_alone() -> None:
    routing, logits = Routing(2, "sigmoid"), _logits()
    bias = np.linspace(-0.9, 0.9, EXPERTS).astype(np.float32)
    probs, choice = _router(routing, expert_bias=jnp.asarray(bias))(jnp.asarray(logits))
    assert_equal(where="choice", actual=choice, expected=experts.chosen(routing, logits, bias))
    expected = experts.probabilities(routing, logits, bias)
    assert_close_norm(where="probabilities", actual=probs, expected=expected, tolerance=FLOAT32)
    assert not np.array_equal(choice, experts.chosen(routing, logits)), "Control: the bias should change the choice"


@pytest.mark.gpu
@pytest.mark.te_name("router", "fused_moe_aux_loss")
def test_auxiliary_loss_is_that_of_its_formula() -> None:
    loss_of = name_of_te("router", "fused_moe_aux_loss")
    drawn = np.random.default_rng(2)
    probs = drawn.uniform(0, 1, (TOKENS, EXPERTS)).astype(np.float32)
    counts = drawn.integers(0, TOKENS, EXPERTS).astype(np.int32)
    loss, grad = jax.value_and_grad(lambda probs: loss_of(probs, jnp.asarray(counts), 2, 0.5))(jnp.asarray(probs))
    exact = arithmetic.exact(
        lambda _a, _p, i: experts.auxiliary_loss(i["probs"], counts, 2, 0.5), {}, {"probs": probs}, (np.float32(1),)
    )
    assert_close_norm(where="loss", actual=loss, expected=exact.y[0], tolerance=FLOAT32)
    assert_close_norm(where="gradient", actual=grad, expected=exact.dx["probs"], tolerance=FLOAT32)


def kernel_of(program: Any, name: str) -> Any:
    """The one equation of a program that calls a kernel, which a host run does not compute."""
    (found,) = (e for e in equations(program) if name in e.primitive.name)
    return found


@router
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_scores_are_kept_for_the_backward_pass_in_float32(score: str, dtype: str) -> None:
    """Its kernel writes and reads them so, whatever the dtype of the logits, which is that of all else."""
    route, logits = _router(Routing(2, score, softmax_first=True)), jnp.asarray(_logits(), dtype)

    def passes(logits: jax.Array) -> Any:
        probs, pull_back, choice = jax.vjp(route, logits, has_aux=True)
        return probs, choice, pull_back(probs)[0]

    program = jax.make_jaxpr(passes)(logits)
    probs, choice, grad = (str(aval.dtype) for aval in program.out_avals)
    assert (probs, choice, grad) == (dtype, "bool", dtype), f"{probs=}, {choice=}, {grad=}"
    kept = kernel_of(program, "topk_with_score_function_forward").outvars[-1].aval
    given = kernel_of(program, "topk_with_score_function_backward").invars[1].aval
    for aval in (kept, given):
        assert (aval.shape, str(aval.dtype)) == (logits.shape, "float32"), f"kept for the backward pass: {aval}"


@pytest.mark.te_name("router", "fused_moe_aux_loss")
def test_gradient_of_the_auxiliary_loss_is_a_number_like_itself() -> None:
    """As partitioning over devices takes it for one."""
    loss_of = name_of_te("router", "fused_moe_aux_loss")
    probs, counts = jnp.ones((TOKENS, EXPERTS)), jnp.ones(EXPERTS, jnp.int32)
    program = jax.make_jaxpr(jax.value_and_grad(lambda probs: loss_of(probs, counts, 2, 0.5)))(probs)
    assert [aval.shape for aval in program.out_avals] == [(), (TOKENS, EXPERTS)]
    shapes = [of.aval.shape for of in kernel_of(program, "aux_loss_backward").invars]
    assert shapes.count(()) == 1, f"the kernel is given tensors of {shapes}, but should be given one number"


@pytest.mark.host
@pytest.mark.devices(2)
@pytest.mark.shardy
@pytest.mark.te_name("router", "fused_moe_aux_loss")
def test_auxiliary_loss_of_tokens_on_two_devices_is_that_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a kernel of this suite's own, which computes the loss of the tokens that it is given."""

    def bind(probs: jax.Array, counts: jax.Array, *, topk: int, coeff: float) -> list[jax.Array]:
        loss = experts.auxiliary_loss(probs, counts, topk, coeff)
        return [loss.astype(probs.dtype), jnp.zeros(2, jnp.float32)]

    primitive = name_of_te("cpp_extensions", "router", "FusedMoEAuxLossFwdPrimitive")
    monkeypatch.setattr(primitive, "inner_primitive", Kernel(bind))
    drawn = np.random.default_rng(2)
    probs = drawn.uniform(0, 1, (TOKENS, EXPERTS)).astype(np.float32)
    counts = drawn.integers(0, TOKENS, EXPERTS).astype(np.int32)
    mesh = Mesh(np.asarray(jax.devices()[:2]), ("data",))
    with te.mesh_context(mesh):
        given = jax.device_put(probs, NamedSharding(mesh, PartitionSpec("data")))
        loss = jax.jit(lambda probs: name_of_te("router", "fused_moe_aux_loss")(probs, counts, 2, 0.5))(given)
    wanted = experts.auxiliary_loss(probs.astype(np.float64), counts, 2, 0.5)
    for shard in loss.addressable_shards:
        assert_close_norm(where=f"loss of {shard.device}", actual=shard.data, expected=wanted, tolerance=FLOAT32)


@pytest.mark.host
@pytest.mark.devices(2)
@pytest.mark.shardy
@router
@pytest.mark.parametrize("given_whole", [False, True], ids=["divided gradient", "whole gradient"])
def test_tokens_on_two_devices_are_routed_as_on_one(given_whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001
    """With kernels of this suite's own, each for the tokens of its device, also where all have the whole gradient."""
    routing = Routing(2, "sigmoid", scaling=2.5)
    probabilities = functools.partial(experts.probabilities, routing)

    def forward(logits: jax.Array, _bias: jax.Array, **_options: Any) -> list[jax.Array]:
        return [probabilities(logits), experts.chosen(routing, logits), logits]

    def backward(_choice: jax.Array, logits: jax.Array, grad: jax.Array, **_options: Any) -> jax.Array:
        return jax.vjp(probabilities, logits)[1](grad)[0]

    for way, kernel in (("Fwd", forward), ("Bwd", backward)):
        primitive = name_of_te("cpp_extensions", "router", f"FusedTopkWithScoreFunction{way}Primitive")
        monkeypatch.setattr(primitive, "inner_primitive", Kernel(kernel))
    logits, grad = _logits(), np.random.default_rng(1).normal(0, 1, (TOKENS, EXPERTS)).astype(np.float32)

    @jax.jit
    def passes(logits: jax.Array, grad: jax.Array) -> Any:
        probs, pull_back, choice = jax.vjp(_router(routing), logits, has_aux=True)
        return probs, choice, pull_back(grad)[0]

    mesh = Mesh(np.asarray(jax.devices()[:2]), ("data",))
    with te.mesh_context(mesh):
        divided, whole = (NamedSharding(mesh, PartitionSpec(*spec)) for spec in (("data",), ()))
        found = passes(jax.device_put(logits, divided), jax.device_put(grad, whole if given_whole else divided))
    wanted = forward(jnp.asarray(logits), jnp.zeros(0))[:2]
    wanted.append(backward(wanted[1], jnp.asarray(logits), jnp.asarray(grad)))
    for name, actual, right in zip(("probabilities", "choice", "gradient"), found, wanted, strict=True):
        assert_close_norm(where=name, actual=actual, expected=np.asarray(right), tolerance=FLOAT32)
        assert actual.sharding.is_equivalent_to(divided, 2), f"{name}: {actual.sharding}, but should be {divided}"


CAPACITIES: list[tuple[int, int, int, int, float | None, int]] = [
    (8, 2, 100, 2, None, 1024),  # each of 4 experts may get 200 tokens, so 256 rows
    (8, 1, 128, 4, None, 768),  # 512 tokens of one expert each, and up to 127 rows for each of 2: 766
    (8, 2, 300, 1, None, 1664),  # 600, and up to 127 rows for each of 8: 1616
    (8, 2, 100, 2, 1.0, 512),  # 50 tokens for each of 4 experts, so 128 rows
    (8, 2, 100, 2, 1.2, 640),  # 614.4 rows
    (8, 2, 100, 2, 3.0, 1024),  # no more than there may be
]
"""Experts, experts of a token, tokens of a rank, ranks, factor; and the rows that a rank has to have room for."""


@pytest.mark.te_name("moe", "get_moe_recv_capacity_per_rank")
@pytest.mark.parametrize(("count", "topk", "tokens", "ranks", "factor", "rows"), CAPACITIES)
def test_room_for_tokens_of_other_ranks_is_that_of_its_factor(
    count: int, topk: int, tokens: int, ranks: int, factor: float | None, rows: int
) -> None:
    """In blocks of 128 rows for each expert; none is dropped where no factor is given."""
    found = name_of_te("moe", "get_moe_recv_capacity_per_rank")(
        num_experts=count,
        num_experts_per_tok=topk,
        max_tokens_per_rank=tokens,
        ep_size=ranks,
        recv_capacity_factor=factor,
    )
    assert found == rows, f"room for {found} rows, but should be for {rows}"


@pytest.mark.te_name("moe", "get_moe_recv_capacity_per_rank")
@pytest.mark.parametrize("wrong", [{"recv_capacity_factor": 0.5}, {"ep_size": 3}, {"max_tokens_per_rank": 0}], ids=str)
def test_room_for_tokens_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    given = {"num_experts": 8, "num_experts_per_tok": 2, "max_tokens_per_rank": 100, "ep_size": 2}
    with pytest.raises(ValueError, match=f"{next(iter(wrong)).removeprefix('max_')}|divisible"):
        name_of_te("moe", "get_moe_recv_capacity_per_rank")(**given | wrong)


@pytest.mark.te_name("dense", "grouped_dense")
@pytest.mark.parametrize("use_bias", [False, True], ids=["without a bias", "with a bias"])
def test_products_of_groups_have_the_shapes_and_dtypes_of_their_tensors(use_bias: bool) -> None:  # noqa: FBT001
    """Kernels alone compute them, and are given what a program says."""
    product, sizes = name_of_te("dense", "grouped_dense"), jnp.asarray([32, 32, 64, 0], jnp.int32)
    shapes = {"x": (128, 48), "kernel": (4, 48, 96), **({"bias": (4, 96)} if use_bias else {})}
    given = {name: jax.ShapeDtypeStruct(shape, jnp.bfloat16) for name, shape in shapes.items()}

    def passes(given: dict[str, jax.Array]) -> Any:
        y, pull_back = jax.vjp(lambda given: product(given["x"], given["kernel"], sizes, bias=given.get("bias")), given)
        return y, pull_back(y)[0]

    y, grads = jax.eval_shape(passes, given)
    assert (y.shape, y.dtype) == ((128, 96), jnp.bfloat16), f"output={y}"
    assert grads == given, f"gradients={grads}, but should be as {given}"


# --- sorting -------------------------------------------------------------------------------------------------------


def _routed(topk: int) -> tuple[Array, Array, Array]:
    """Tokens, the experts of each in some order, and weights that BF16 has."""
    drawn = np.random.default_rng(3)
    tokens = drawn.integers(-8, 9, (TOKENS, HIDDEN)).astype(np.float32)
    selected = np.stack([drawn.permutation(EXPERTS)[:topk] for _ in range(TOKENS)])
    return tokens, selected, drawn.choice([0.25, 0.5, 1.0, 2.0], (TOKENS, topk)).astype(np.float32)


@sorting
@pytest.mark.parametrize("align", [0, 8], ids=["as they are", "aligned"])
def test_tokens_are_sorted_by_their_experts_and_come_back_weighted(align: int) -> None:
    """Each expert multiplies by a number of its own, so that a token at a wrong one shows. All is exact."""
    dispatch = name_of_te("permutation", "pure_jax_token_dispatch")
    combine = name_of_te("permutation", "pure_jax_token_combine")
    topk, factors = 2, 2.0 ** np.arange(-4, EXPERTS - 4)
    tokens, selected, weights = _routed(topk)

    def through(tokens: jax.Array) -> tuple[jax.Array, Any]:
        rows, state, sizes = dispatch(tokens, jnp.asarray(selected), EXPERTS, topk, align_size=align)
        expert = jnp.searchsorted(jnp.cumsum(sizes), jnp.arange(len(rows)), side="right")
        made = rows * jnp.take(jnp.asarray(factors, rows.dtype), jnp.minimum(expert, EXPERTS - 1))[:, None]
        return combine(made, state, jnp.asarray(weights), topk, 1, TOKENS)[0], (rows, sizes)

    y, pull_back, (rows, sizes) = jax.vjp(through, on_device(tokens), has_aux=True)
    counts = np.bincount(selected.ravel(), minlength=EXPERTS)
    wanted = -(-counts // align) * align if align else counts
    assert_equal(where="tokens of each expert", actual=sizes, expected=wanted)
    _assert_sorted(np.asarray(rows), np.cumsum([0, *wanted]), tokens, selected)
    share = (weights * factors[selected]).sum(axis=1, keepdims=True)
    assert_equal(where="combined tokens", actual=y, expected=tokens * share)
    assert_equal(where="gradient", actual=pull_back(jnp.ones_like(y))[0], expected=np.broadcast_to(share, tokens.shape))


def _assert_sorted(rows: Array, starts: Array, tokens: Array, selected: Array) -> None:
    """Each expert has the tokens that go to it, in their order, and zeros to the next multiple."""
    __tracebackhide__ = True
    for expert in range(EXPERTS):
        own = tokens[(selected == expert).any(axis=1)]
        part = rows[starts[expert] : starts[expert + 1]]
        assert_equal(where=f"tokens of expert {expert}", actual=part[: len(own)], expected=own)
        assert not part[len(own) :].any(), f"expert {expert}: what fills its rows up is not zero"


@sorting
@pytest.mark.parametrize("align", [0, 8], ids=["as they are", "aligned"])
def test_experts_of_another_rank_come_first_when_rolled(align: int) -> None:
    dispatch = name_of_te("permutation", "pure_jax_token_dispatch")
    tokens, selected, _ = _routed(1)
    rows, _, sizes = dispatch(on_device(tokens), jnp.asarray(selected), EXPERTS, 1, align, roll_to_expert_id=3)
    counts = np.bincount(selected.ravel(), minlength=EXPERTS)
    wanted = np.roll(-(-counts // align) * align if align else counts, -3)
    _assert_sorted(np.asarray(rows), np.cumsum([0, *wanted]), tokens, (selected - 3) % EXPERTS)
    assert_equal(where="tokens of each expert", actual=sizes, expected=wanted)


RANKS = 4
COUNTS = np.random.default_rng(4).integers(0, 6, (RANKS, EXPERTS))
"""How many tokens each rank has for each expert; some have none."""


def _sent(way: str, given: list[list[str]]) -> list[list[str]]:
    """What all ranks hold after each has sent its parts to where TE says, as `jax.lax.ragged_all_to_all` does."""
    found = [["nothing"] * 60 for _ in range(RANKS)]
    parameters = name_of_te("permutation", f"compute_{way}ragged_all_to_all_params")
    said = [[np.asarray(part) for part in parameters(jnp.asarray(COUNTS), rank, RANKS)] for rank in range(RANKS)]
    for rank, (starts, sizes, places, _) in enumerate(said):
        for to in range(RANKS):
            assert sizes[to] == said[to][3][rank], (
                f"rank {rank} sends {sizes[to]} rows, {to} waits for {said[to][3][rank]}"
            )
            found[to][places[to] : places[to] + sizes[to]] = given[rank][starts[to] : starts[to] + sizes[to]]
    return [[row for row in rows if row != "nothing"] for rows in found]


def _of_ranks(order: Callable[[int, int, int], Any]) -> list[list[str]]:
    """Tokens, each by its rank, expert and number, as each rank should hold them."""
    every = [
        (rank, expert, at) for rank in range(RANKS) for expert in range(EXPERTS) for at in range(COUNTS[rank, expert])
    ]
    own = EXPERTS // RANKS
    return [
        [str(each) for each in sorted(every, key=lambda e: order(*e)) if each[1] // own == to] for to in range(RANKS)
    ]


@pytest.mark.host  # Not tried on kernels yet.
@pytest.mark.te_name("permutation", "compute_ragged_all_to_all_params")
def test_tokens_are_sent_to_the_ranks_of_their_experts_and_back() -> None:
    """On the way there, by the rank that they come from; on the way back, where they were."""
    mine = [[str((rank, e, at)) for e in range(EXPERTS) for at in range(COUNTS[rank, e])] for rank in range(RANKS)]
    there = _sent("", mine)
    assert there == _of_ranks(lambda rank, expert, at: (rank, expert, at)), "rows are not those of a rank's experts"
    assert _sent("reverse_", there) == mine, "rows do not come back to where they were"


@pytest.mark.host  # Not tried on kernels yet.
@pytest.mark.te_name("permutation", "local_permute_after_a2a")
def test_tokens_of_all_ranks_are_put_together_by_expert(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a kernel of this suite's own that sorts chunks."""
    module = name_of_te("permutation")

    def sort(rows: jax.Array, sizes: jax.Array, order: jax.Array) -> tuple[jax.Array, None]:
        chunks = np.split(np.asarray(rows), np.cumsum(np.asarray(sizes)))
        return jnp.asarray(np.concatenate([*(chunks[at] for at in np.asarray(order)), chunks[-1]])), None

    monkeypatch.setattr(module, "sort_chunks_by_index", sort)
    received, sorted_ = _of_ranks(lambda *token: token), _of_ranks(lambda rank, expert, at: (expert, rank, at))
    for rank in range(RANKS):
        number = {name: at for at, name in enumerate(received[rank])}
        rows = jnp.arange(60)  # with room for more
        found, sizes, state = module.local_permute_after_a2a(rows, jnp.asarray(COUNTS), rank, RANKS)
        own = COUNTS[:, rank * 2 : rank * 2 + 2].sum(axis=0)
        assert_equal(where=f"tokens of each expert of rank {rank}", actual=sizes, expected=own)
        wanted = np.asarray([number[name] for name in sorted_[rank]])
        assert_equal(where=f"tokens of rank {rank}", actual=found[: len(wanted)], expected=wanted)
        assert_equal(where="back", actual=module.local_unpermute_before_a2a(found, state), expected=rows)


@pytest.mark.te_name("permutation", "routing_map_to_selected_experts")
def test_routing_map_becomes_experts_and_their_weights() -> None:
    convert = name_of_te("permutation", "routing_map_to_selected_experts")
    _, selected, weights = _routed(2)
    chosen, probs = np.zeros((TOKENS, EXPERTS), bool), np.zeros((TOKENS, EXPERTS), np.float32)
    np.put_along_axis(chosen, selected, values=True, axis=1)
    np.put_along_axis(probs, selected, weights, axis=1)
    found, given = (np.asarray(array) for array in convert(jnp.asarray(probs), jnp.asarray(chosen), 2))
    assert_equal(where="experts", actual=np.sort(found, axis=1), expected=np.sort(selected, axis=1))
    assert_equal(where="weights", actual=given, expected=np.take_along_axis(probs, found, axis=1))


@pytest.mark.gpu
@pytest.mark.te_name("permutation", "token_dispatch")
@pytest.mark.parametrize("align", [None, 16], ids=["as they are", "aligned"])
def test_kernels_sort_tokens_as_the_routing_map_says(align: int | None) -> None:
    """Triton's dispatch and combine: every token comes back as the sum over its experts, with its probabilities."""
    dispatch, combine = name_of_te("permutation", "token_dispatch"), name_of_te("permutation", "token_combine")
    topk = 2
    tokens, selected, weights = _routed(topk)
    chosen, probs = np.zeros((TOKENS, EXPERTS), np.int32), np.zeros((TOKENS, EXPERTS), np.float32)
    np.put_along_axis(chosen, selected, 1, axis=1)
    np.put_along_axis(probs, selected, weights, axis=1)

    def through(tokens: jax.Array, probs: jax.Array) -> tuple[jax.Array, Any]:
        rows, row_probs, row_ids, pads, sizes = dispatch(
            tokens, jnp.asarray(chosen), TOKENS * topk, probs=probs, align_size=align
        )
        return combine(rows, row_ids, merging_probs=probs, pad_offsets=pads), (rows, row_probs, sizes)

    y, pull_back, (rows, row_probs, sizes) = jax.vjp(through, on_device(tokens), on_device(probs), has_aux=True)
    counts = chosen.sum(axis=0)
    wanted = -(-counts // align) * align if align else counts
    assert_equal(where="tokens of each expert", actual=sizes, expected=wanted)
    starts = np.cumsum([0, *wanted])
    for expert in range(EXPERTS):
        own = chosen[:, expert].astype(bool)
        rows_of = slice(starts[expert], starts[expert] + counts[expert])
        assert_equal(where=f"tokens of expert {expert}", actual=rows[rows_of], expected=tokens[own])
        assert_equal(where=f"probabilities of expert {expert}", actual=row_probs[rows_of], expected=probs[own, expert])
    share = weights.sum(axis=1, keepdims=True)
    assert_equal(where="combined tokens", actual=y, expected=tokens * share)
    grad = pull_back(jnp.ones_like(y))[0]
    assert_equal(where="gradient of the tokens", actual=grad, expected=np.broadcast_to(share, tokens.shape))


@pytest.mark.te_name("permutation", "token_dispatch")
@pytest.mark.parametrize("rows", [0, -1])
def test_dispatch_to_no_rows_is_refused(rows: int) -> None:
    """Also -1, which asks another framework to count them: a program of JAX has to know its shapes."""
    tokens, chosen = jnp.ones((TOKENS, HIDDEN)), jnp.ones((TOKENS, EXPERTS), jnp.int32)
    with pytest.raises(AssertionError, match="num_out_tokens > 0"):
        name_of_te("permutation", "token_dispatch")(tokens, chosen, rows)


@pytest.mark.gpu
@pytest.mark.te_name("permutation", "sort_chunks_by_index")
def test_chunks_are_sorted_by_their_index() -> None:
    sort = name_of_te("permutation", "sort_chunks_by_index")
    tokens, sizes, order = _routed(1)[0], np.array([8, 24, 4, 12], np.int32), np.array([2, 0, 3, 1], np.int32)
    found, _ = sort(on_device(tokens), jnp.asarray(sizes), jnp.asarray(order))
    chunks = np.split(tokens, np.cumsum(sizes)[:-1])
    assert_equal(where="sorted chunks", actual=found, expected=np.concatenate([chunks[index] for index in order]))


UNROUTABLE: dict[str, tuple[dict[str, Any], type[Exception]]] = {
    "a bias of experts beside a softmax": ({"expert_bias": np.ones(EXPERTS, np.float32)}, ValueError),
    "an unknown score": ({"score_function": "tanh"}, ValueError),
    "a factor that JAX has computed": ({"scaling_factor": np.float32(2.5).reshape(1)}, TypeError),
}


@router
@pytest.mark.parametrize("wrong", UNROUTABLE)
def test_option_of_the_router_that_means_nothing_is_refused(wrong: str) -> None:
    options, error = UNROUTABLE[wrong]
    route = functools.partial(name_of_te("router", "fused_topk_with_score_function"), topk=2, **options)
    with pytest.raises(error):
        jax.eval_shape(route, jnp.asarray(_logits()))


@sorting
def test_blocks_of_less_than_no_tokens_are_refused() -> None:
    dispatch, chosen = name_of_te("permutation", "pure_jax_token_dispatch"), jnp.zeros((TOKENS, 2), jnp.int32)
    with pytest.raises(AssertionError, match="align_size"):
        dispatch(jnp.ones((TOKENS, HIDDEN)), chosen, num_experts=EXPERTS, num_experts_per_tok=2, align_size=-1)
