"""How long a dense layer takes: a program that runs it in one mode, and times of programs taken in turn."""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mnist_fp8.core.errors import Float8MissingError
from mnist_fp8.core.modes import Mode
from mnist_fp8.core.spread import Spread
from mnist_fp8.programs import jaxprs
from mnist_fp8.te.autocasts import Autocast
from mnist_fp8.te.dense import dense_general, unbox
from mnist_fp8.te.metadata import leaves_float8_to_xla

_UNROLLED = 8
Program = Callable[[], jax.Array]
"""A compiled program and its arguments: a call starts it, its result is there when it has ended."""


def interleaved(programs: Sequence[Program], repeats: int, seconds: float) -> list[Spread]:
    """Time programs in turn; returns the seconds of a call for each of them.

    Calls are asynchronous: in a repeat they are made one right after the other, and only the last is waited for, so
    that the device has always something to do.

    Args:
        programs: what to time.
        repeats: how often each has its turn.
        seconds: that a turn should take; it decides how many calls there are in it.
    """
    counts = []
    for program in programs:
        jax.block_until_ready(program())  # compiles it
        counts.append(max(1, round(seconds / _seconds_of_a_call(program, 1))))
    times = [
        [_seconds_of_a_call(program, count) for program, count in zip(programs, counts, strict=True)]
        for _ in range(repeats)
    ]
    return [Spread(tuple(column)) for column in zip(*times, strict=True)]


def _seconds_of_a_call(program: Program, calls: int) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        last = program()
    last.block_until_ready()
    return (time.perf_counter() - begin) / calls


def layer_program(mode: Mode, shape: tuple[int, int, int], applications: int, *, backward: bool) -> Program:
    """A program that runs a dense layer some times, each time after the other; its result is of no interest.

    Args:
        mode: which layer.
        shape: rows of the input, contracted size, features.
        applications: how often a call of the program runs it.
        backward: whether forward and backward, or forward only.

    Raises:
        Float8MissingError: a layer in FP8 does not multiply float8.
    """
    m, k, n = shape
    context = Autocast(mode.recipe) if mode.precision.uses_te else contextlib.nullcontext
    layer = _dense(mode, n)
    x, grad = (_normal(seed, size) for seed, size in enumerate(((m, k), (m, n))))

    def forward(variables: Mapping[str, Any], x: jax.Array) -> jax.Array:
        with context():
            y: jax.Array = layer.apply(variables, x)
        return y

    def whole(variables: Mapping[str, Any], x: jax.Array, grad: jax.Array) -> Any:  # noqa: ANN401 - y and gradients
        y, pull_back = jax.vjp(forward, variables, x)
        return y, *pull_back(grad)

    with context():
        variables = unbox(jax.jit(layer.init)(jax.random.key(0), x))
    variables = _with_settled_scales(jax.jit(whole), variables, x, grad)
    run = jax.jit(_repeated(whole, applications) if backward else _repeated(forward, applications))
    arguments = (variables, x, grad) if backward else (variables, x)
    if mode.is_fp8:
        _check_float8(jax.make_jaxpr(run)(*arguments), mode, shape)
    return lambda: run(*arguments)


def _dense(mode: Mode, features: int) -> Any:  # noqa: ANN401 - Flax's or TE's module
    """A dense layer without bias that keeps a float32 kernel and computes in BF16 or FP8, as in `model.Net`."""
    if mode.precision.uses_te:
        return dense_general(features=features, dtype=jnp.float32, use_bias=False)
    return nn.Dense(features, dtype=jnp.bfloat16, param_dtype=jnp.float32, use_bias=False)


def _normal(seed: int, shape: tuple[int, int]) -> jax.Array:
    """Numbers as a layer sees them: a GPU that multiplies zeros needs less power, and is faster."""
    return jax.random.normal(jax.random.key(seed), shape, jnp.bfloat16)


def _with_settled_scales(
    whole: Callable[..., Any], variables: dict[str, Any], x: jax.Array, grad: jax.Array
) -> dict[str, Any]:
    """Variables after two steps, whose scales are those of these tensors; as they were where there are none."""
    if set(variables) == {"params"}:
        return variables
    for _ in range(2):
        _, grads, _ = whole(variables, x, grad)
        variables = {name: variables[name] if name == "params" else grads[name] for name in variables}
    return variables


def _repeated(function: Callable[..., Any], times: int) -> Callable[..., jax.Array]:
    """A function that calls another one some times with the same arguments, one call after the other.

    So a call from Python costs little of what is measured. Barriers keep XLA from doing it once for all: the arguments
    of a call are not known before the one before it has ended, and its results are needed as a whole. A number out of
    each result ties the calls together, which costs a tiny kernel. Several calls stand in the loop's body one after the
    other: XLA starts the kernels of a short body one by one, and those of a longer one as a graph.
    """

    def repeated(*arguments: Any) -> jax.Array:  # noqa: ANN401
        def once(before: jax.Array, _: None) -> tuple[jax.Array, None]:
            *given, before = jax.lax.optimization_barrier((*arguments, before))
            results = jax.lax.optimization_barrier(jax.tree.leaves(function(*given)))
            return before + sum(result.ravel()[0].astype(jnp.float32) for result in results), None

        last, _ = jax.lax.scan(once, jnp.zeros(()), length=times, unroll=min(times, _UNROLLED))
        return last

    return repeated


def _check_float8(jaxpr: Any, mode: Mode, shape: tuple[int, int, int]) -> None:  # noqa: ANN401
    products = jaxprs.gemms(jaxpr, dequantized=leaves_float8_to_xla())
    if not products or not all(gemm.quantized for gemm in products):
        raise Float8MissingError(f"a dense layer of {shape} in {mode.value} should multiply float8, but does not")
