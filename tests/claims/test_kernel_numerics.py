"""Claim: TE's kernels compute what TE's own JAX path and the definition of FP8 say, whatever the sizes and the load.

Promised by TE's user guide (scale, saturate, round, multiply, undo the scales) for its kernels, and by its switch for
custom calls, which is to change how a layer is computed and not what. Three computations of a layer are compared: by
TE's kernels, by TE's JAX path on the same GPU (by cuBLASLt, through XLA), and by the NumPy oracle.

What a failure means for an upgrade: the CUDA extension computes something else than the Python beside it says, for some
sizes or layouts, or only now and then.
"""

import contextlib
import functools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from mnist_fp8 import te
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.oracle import dense
from mnist_fp8.oracle.dense import FORMATS, TENSORS, Array
from mnist_fp8.oracle.tolerances import (
    KERNEL_AGAINST_JAX,
    product_norm_tolerance,
    product_tolerance,
    rounding_tolerance,
)
from mnist_fp8.programs import hlo
from mnist_fp8.te.dense_step import Step, dense_layer, dense_step, exact, fp8, on_device, variables_of
from support.assertions import assert_close, assert_close_norm, assert_equal, assert_trees_equal
from support.codes import codes_at_both_ends
from support.kernels import (
    CUBLAS,
    FACTORS,
    RECIPES,
    Shape,
    arguments,
    compile_step,
    expected_rows,
    formats,
    passes,
    sampled,
    tensors,
    without_custom_calls,
)
from support.metadata import assert_metas, meta_of, next_metas

pytestmark = pytest.mark.gpu

SMALL: list[Shape] = [
    (16, 16, 16),
    (16, 48, 80),  # multiples of 16 and of nothing more
    (112, 16, 272),
    (64, 12544, 128),  # the network's dense layers
    (64, 128, 32),
    (64, 32, 32),
    (512, 1024, 256),
    (8192, 16, 16),
    (16, 8192, 16),
    (16, 16, 8192),
    (1040, 2064, 528),  # tiles that are not full
]
LARGE: list[Shape] = [(2048, 2048, 2048), (4096, 4096, 4096), (8192, 8192, 8192), (8192, 1040, 4112)]
SHAPES = [*SMALL, *(pytest.param(shape, marks=pytest.mark.slow) for shape in LARGE)]


def by_kernels(recipe: str, values: dict[str, Array]) -> Step:
    """A layer's forward and backward pass by TE's kernels, its program looked at first: all of it has to be theirs."""
    program, given = compile_step(recipe, values)
    text = program.as_text()
    found = Counter(
        tuple(sorted((gemm.lhs, gemm.rhs)))
        for gemm in hlo.compiled_gemms(text).values()
        if gemm.primitive.startswith("te_gemm")
    )
    expected = Counter(tuple(sorted(formats(recipe, which))) for which in FACTORS)
    assert found == expected, f"{recipe}: products by TE's kernels={dict(found)}, but should be {dict(expected)}"
    calls = sum(count for name, count in hlo.custom_calls(text).items() if "quantize" in name)
    wanted = 0 if recipe == "bf16" else len(TENSORS)
    assert calls == wanted, f"{recipe}: quantizations by TE's kernels={calls}, but should be {wanted}"
    step: Step = program(*given)
    return step


def by_jax(recipe: str, values: dict[str, Array]) -> Step:
    """A layer's forward and backward pass by TE's own JAX path, on the same GPU."""
    with without_custom_calls():
        program, given = compile_step(recipe, values, CUBLAS)
        step: Step = program(*given)
    return step


# --- sizes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("recipe", RECIPES)
def test_kernels_jax_path_and_oracle_agree(recipe: str, shape: Shape) -> None:
    """The JAX path rounds a product before it undoes the scales, and once more afterwards; a kernel rounds once.

    Each may round one more time, where cuBLAS divides a long sum into parts.
    """
    values = tensors(shape)
    if recipe == "current":
        assert_no_code_hangs_on_the_last_bits(values)
    found = {"kernels": by_kernels(recipe, values), "JAX path": by_jax(recipe, values)}
    kind, fp8 = te.engine().kind, recipe != "bf16"
    for which, (rows, expected) in expected_rows(recipe, values).items():
        margins = []
        for path, roundings in (("kernels", 2), ("JAX path", 2 + fp8)):
            where, actual = f"{recipe}, {which}, {path}", passes(found[path])[which][rows]
            tolerance = product_tolerance(expected, "bfloat16", kind, roundings=roundings, fp8=fp8)
            assert_close(where=where, actual=actual, expected=expected.value, tolerance=tolerance)
            margins.append(product_norm_tolerance(expected, "bfloat16", kind, roundings=roundings, fp8=fp8))
            assert_close_norm(where=where, actual=actual, expected=expected.value, tolerance=margins[-1])
        kernel, reference = (passes(found[path])[which] for path in ("kernels", "JAX path"))
        where = f"{recipe}, {which}, kernels against TE's JAX path, all rows"
        assert_close_norm(
            where=where, actual=kernel, expected=reference, tolerance=float(np.hypot(margins[0], margins[1]))
        )
    if recipe == "delayed":
        stored, wanted = (found[path].metadata for path in ("kernels", "JAX path"))
        assert_trees_equal(where="metadata, kernels against TE's JAX path", actual=stored, expected=wanted)


def assert_no_code_hangs_on_the_last_bits(values: dict[str, Array]) -> None:
    """Control: no value is so close to halfway between two codes that a GPU's division decides which one it becomes.

    Subnormal codes are left out: a step between two of them is too small to be seen in a product.
    """
    some = {name: tensor[sampled(len(tensor))] for name, tensor in values.items()}
    scales = dense.current_scales(values, "HYBRID")
    for name, low, high in codes_at_both_ends(some, scales, "HYBRID", RunKind.KERNEL):
        normal = np.abs(low) >= float(ml_dtypes.finfo(FORMATS["HYBRID"][name]).smallest_normal)
        where = f"Control: codes of {name} at both ends of the scale's error"
        assert_equal(where=where, actual=low[normal], expected=high[normal])


@pytest.mark.parametrize("recipe", RECIPES)
def test_bias_and_its_gradient_agree_with_the_jax_path(recipe: str) -> None:
    """A bias takes other paths through TE: its gradient is a sum, which a kernel may make while it quantizes."""
    values = tensors((64, 128, 32))
    _, mode, variables, x, grad = arguments(recipe, values)
    layer = dense_layer(features=32)
    variables["params"]["bias"] = jnp.linspace(-1, 1, 32, dtype=jnp.float32)
    kernels = dense_step(layer, mode, variables, x, grad)
    with without_custom_calls():
        reference = dense_step(layer, mode, variables, x, grad)
    pairs = {
        **{which: (found, passes(reference)[which]) for which, found in passes(kernels).items()},
        "bias gradient": (kernels.grads["params"]["bias"], reference.grads["params"]["bias"]),
    }
    for name, (actual, expected) in pairs.items():
        where = f"{recipe}: {name}, kernels against TE's JAX path"
        assert_close_norm(where=where, actual=actual, expected=expected, tolerance=KERNEL_AGAINST_JAX)


# --- layouts -------------------------------------------------------------------------------------------------------

LAYOUTS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "transposed": lambda stored: jnp.swapaxes(stored["transposed"], -1, -2),
    "every second row": lambda stored: stored["every second row"][::2],
    "part of the columns": lambda stored: stored["part of the columns"][:, 8:-24],
    "reversed": lambda stored: stored["reversed"][::-1, ::-1],
}


def stored(tensor: jax.Array) -> dict[str, jax.Array]:
    """A matrix as it has to be stored for each of `LAYOUTS` to read it."""
    rows, columns = tensor.shape
    return {
        "transposed": tensor.T,
        "every second row": jnp.full((2 * rows, columns), 7, tensor.dtype).at[::2].set(tensor),
        "part of the columns": jnp.full((rows, columns + 32), 7, tensor.dtype).at[:, 8:-24].set(tensor),
        "reversed": tensor[::-1, ::-1],
    }


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_strided_input_is_read_as_what_it_is(recipe: str, layout: str) -> None:
    """The program itself makes the view, so that it is XLA's choice whether TE's kernels get it with other strides."""
    layer, mode, variables, x, grad = arguments(recipe, tensors((64, 128, 48)))

    def viewed(variables: Any, x: Any, grad: Any) -> Step:
        return dense_step(layer, mode, variables, LAYOUTS[layout](x), LAYOUTS[layout](grad))

    actual = jax.jit(viewed)(variables, stored(x), stored(grad))
    expected = dense_step(layer, mode, variables, x, grad)
    assert_trees_equal(where=f"{recipe}, {layout}", actual=actual, expected=expected)


@pytest.mark.parametrize("batch", [(64,), (2, 32), (2, 2, 16), (1, 64), (64, 1), (4, 2, 2, 4)])
@pytest.mark.parametrize("recipe", RECIPES)
def test_several_batch_dimensions_are_as_one(recipe: str, batch: tuple[int, ...]) -> None:
    layer, mode, variables, x, grad = arguments(recipe, tensors((64, 128, 48)))
    found = dense_step(layer, mode, variables, x.reshape(*batch, 128), grad.reshape(*batch, 48))
    expected = dense_step(layer, mode, variables, x, grad)
    flat = Step(found.y.reshape(64, 48), found.dx.reshape(64, 128), found.grads)
    assert_trees_equal(where=f"{recipe}, batch of {batch}", actual=flat, expected=expected)


# --- special numbers -----------------------------------------------------------------------------------------------

SPECIAL: dict[str, tuple[str, float]] = {
    "an infinity in the input": ("x", np.inf),
    "a NaN in the input": ("x", np.nan),
    "an infinity in the output gradient": ("grad", -np.inf),
    "a NaN in the output gradient": ("grad", np.nan),
    "an infinity in the kernel": ("kernel", np.inf),
    "a NaN in the kernel": ("kernel", np.nan),
    "a number beyond the format in the input": ("x", 3.3895314e38),
    "a subnormal number in the input": ("x", 2.0**-130),
}


@pytest.mark.parametrize("case", SPECIAL)
@pytest.mark.parametrize("recipe", ["delayed", "current"])
def test_special_numbers_go_the_same_way_on_both_paths(recipe: str, case: str) -> None:
    """The other numbers are such that no mode rounds them, so that what differs is what the special one does."""
    name, special = SPECIAL[case]
    sizes = {"x": (32, 16), "kernel": (16, 48), "grad": (32, 48)}
    values = {tensor: exact(size, seed) for seed, (tensor, size) in enumerate(sizes.items())}
    values[name][3, 5] = special
    metas = {tensor: meta_of(64) for tensor in TENSORS} if recipe == "delayed" else {}
    layer, variables = dense_layer(features=48, use_bias=False), variables_of(values["kernel"], metas)
    x, grad = (on_device(values[tensor], "bfloat16") for tensor in ("x", "grad"))
    kernels = dense_step(layer, RECIPES[recipe], variables, x, grad)
    with without_custom_calls():
        reference = dense_step.lower(layer, RECIPES[recipe], variables, x, grad).compile(compiler_options=CUBLAS)(
            variables, x, grad
        )
    for which, actual in passes(kernels).items():
        found, wanted = (np.asarray(array).astype(np.float64) for array in (actual, passes(reference)[which]))
        where, finite = f"{recipe}, {case}, {which}", np.isfinite(wanted)
        not_finite = [np.where(np.isfinite(array), 0, array) for array in (found, wanted)]
        assert_equal(where=f"{where}: what is not finite", actual=not_finite[0], expected=not_finite[1], nan=True)
        tolerance = rounding_tolerance(wanted[finite], "bfloat16", roundings=3)
        assert_close(where=where, actual=found[finite], expected=wanted[finite], tolerance=tolerance)


# --- metadata ------------------------------------------------------------------------------------------------------


def test_metadata_of_kernels_jax_path_and_oracle_are_the_same_step_by_step() -> None:
    """Over more steps than the history is long, with amaxes that grow, shrink, and are zero."""
    options: dict[str, Any] = {"amax_history_len": 4}
    amaxes = [1.0, 8.0, 0.25, 0.0, 0.25, 448.0, 3.0, 2.0**-20, 2.0**-20, 1.0]
    layer, mode = dense_layer(features=48, use_bias=False), fp8(**options)
    kernel = exact((16, 48), 1)

    def steps() -> Iterator[dict[str, Any]]:
        collection = variables_of(kernel, {tensor: meta_of(1, (0, 0, 0, 0)) for tensor in TENSORS})
        for seed, amax in enumerate(amaxes):
            x, grad = (on_device(exact(size, seed) * (amax / 1.75), "bfloat16") for size in ((32, 16), (32, 48)))
            found = dense_step(layer, mode, collection, x, grad)
            collection = {**collection, te.metadata_collection(): found.metadata}
            yield jax.device_get(found.metadata)

    by_kernels = list(steps())
    with without_custom_calls():
        by_reference = list(steps())
    expected = {tensor: meta_of(1, (0, 0, 0, 0)) for tensor in TENSORS}
    for step, (found, reference) in enumerate(zip(by_kernels, by_reference, strict=True)):
        seen = float(jnp.asarray(amaxes[step], jnp.bfloat16))
        expected = next_metas(expected, {"x": seen, "kernel": 1.75, "grad": seen}, options)
        assert_trees_equal(where=f"step {step}, kernels against JAX path", actual=found, expected=reference)
        assert_metas(found, expected, where=f"step {step}, kernels against oracle")


# --- the same every time -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def busy_device() -> Iterator[Callable[[], list[int]]]:
    """Other programs on the device, and copies to and from it, from threads of their own.

    Yields:
        How often each thread has done its work so far.
    """
    square, block = jnp.ones((2048, 2048), jnp.bfloat16), np.ones(2**22, np.float32)
    matmul, add = jax.jit(lambda a: a @ a), jax.jit(lambda a: a + 1)
    work = (lambda: jax.block_until_ready(matmul(square)), *2 * [lambda: np.asarray(add(jax.device_put(block)))])
    done, over = [0] * len(work), threading.Event()

    def repeat(number: int) -> None:
        while not over.is_set():
            work[number]()
            done[number] += 1

    threads = [threading.Thread(target=repeat, args=(number,)) for number in range(len(work))]
    for each in work:
        each()  # compiles it
    for thread in threads:
        thread.start()
    try:
        while not all(done):
            time.sleep(0.001)
        yield lambda: list(done)
    finally:
        over.set()
        for thread in threads:
            thread.join()


def take_turns(step: Callable[..., Step], turns: int, *givens: Sequence[Any]) -> list[Step]:
    """Start a step on its arguments in turn, without waiting for a result, and fetch all results."""
    found: list[Step] = jax.device_get([step(*givens[turn % len(givens)]) for turn in range(turns)])
    return found


@pytest.mark.parametrize("busy", [False, True], ids=["quiet", "busy"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_repeated_and_interleaved_steps_give_the_same_bits(recipe: str, busy: bool) -> None:  # noqa: FBT001
    """Promised by cuBLAS ("Results reproducibility") for a product; and quantization rounds to nearest.

    Two inputs take turns without waiting for results, so that a buffer that is used too early or freed too early shows.
    """
    layer, mode, *first = arguments(recipe, tensors((512, 1024, 256), seed=1))
    second = arguments(recipe, tensors((512, 1024, 256), seed=2))[2:]
    step = functools.partial(dense_step, layer, mode)
    alone = [jax.device_get(step(*given)) for given in (first, second)]
    if busy:
        turns = []
        with busy_device() as done:
            before = done()
            while not all(
                now > then for now, then in zip(done(), before, strict=True)
            ):  # all of them at work meanwhile
                turns += take_turns(step, 40, first, second)
    else:
        turns = take_turns(step, 40, first, second)
    for turn, found in enumerate(turns):
        assert_trees_equal(where=f"{recipe}, turn {turn}", actual=found, expected=alone[turn % 2])
    outputs = [passes(found)["forward"] for found in alone]
    assert not np.array_equal(outputs[0], outputs[1]), "Control: the two inputs give different outputs"
