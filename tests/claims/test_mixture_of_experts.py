"""Claim: the parts of a mixture of experts route, sort, weight and combine tokens as they document it.

TE documents its router by formulas (scores, choice, probabilities, auxiliary loss), and sorting as a permutation that
its counterpart undoes. The router's and the Triton functions are kernels; what is written in JAX is seen everywhere.

What a failure means for an upgrade: tokens go to other experts, come back to other places, or with other weights.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_fp8.oracle import arithmetic, experts
from mnist_fp8.oracle.dense import Array
from mnist_fp8.oracle.experts import Routing
from mnist_fp8.subjects.making import name_of_te
from mnist_fp8.te.dense_step import on_device
from support.assertions import assert_close_norm, assert_equal

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
