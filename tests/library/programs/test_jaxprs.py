"""What is found in a program, on jaxprs built by hand."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend import core

from mnist_fp8.programs import hlo, jaxprs
from mnist_fp8.programs.jaxprs import Gemm, ScaledOperand
from mnist_fp8.te import lowerings
from support.programs import compiled_text

F8 = jnp.float8_e4m3fn
A, B = np.ones((4, 4), np.float32), np.ones((4, 4), np.float32)

Program = Callable[[jax.Array, jax.Array], Any]


def dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """A product in float32, whatever its operands are."""
    return lax.dot(a, b, preferred_element_type=jnp.float32)


def quantized(a: jax.Array, b: jax.Array) -> jax.Array:
    """A product of float8 operands."""
    return dot(a.astype(F8), b.astype(F8))


def plain(a: jax.Array, b: jax.Array) -> jax.Array:
    """A product of BF16 operands."""
    return dot(a.astype(jnp.bfloat16), b.astype(jnp.bfloat16))


def with_own_derivative(f: Program) -> Program:
    """The same function with a derivative of its own."""
    wrapped = jax.custom_vjp(f)
    wrapped.defvjp(lambda a, b: (f(a, b), (a, b)), lambda saved, grad: (grad, saved[1]))
    return wrapped


def with_own_tangent(f: Program) -> Program:
    """The same function with a forward derivative of its own."""
    wrapped = jax.custom_jvp(f)
    wrapped.defjvp(lambda values, tangents: (f(*values), tangents[0]))
    return wrapped


WRAPPERS: dict[str, Callable[[Program], Program]] = {
    "nothing": lambda f: f,
    "jit": jax.jit,
    "jit in jit": lambda f: jax.jit(jax.jit(f)),
    "remat": jax.checkpoint,
    "custom_vjp": with_own_derivative,
    "custom_jvp": with_own_tangent,
    "scan": lambda f: lambda a, b: lax.scan(lambda carry, _: (f(carry, b), None), a, None, length=3)[0],
    "body of while": lambda f: lambda a, b: lax.while_loop(lambda x: x.sum() < 0, lambda x: f(x, b), a),
    "condition of while": lambda f: lambda a, b: lax.while_loop(lambda x: f(x, b).sum() < 0, lambda x: x, a),
    "first branch of cond": lambda f: lambda a, b: lax.cond(a.sum() > 0, f, lambda x, _: x, a, b),
    "second branch of cond": lambda f: lambda a, b: lax.cond(a.sum() > 0, lambda x, _: x, f, a, b),
}


def gemms(f: Callable[..., Any], *arguments: Any) -> list[Gemm]:
    """The products of a function."""
    return jaxprs.gemms(jax.make_jaxpr(f)(*arguments))


def dtypes(f: Callable[..., Any], *arguments: Any) -> set[str]:
    """The quantized dtypes of a function."""
    return jaxprs.quantized_dtypes(jax.make_jaxpr(f)(*arguments))


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_product_is_found_inside(wrap: Callable[[Program], Program]) -> None:
    found = gemms(wrap(quantized), A, B)
    assert [(gemm.lhs, gemm.rhs, gemm.primitive) for gemm in found] == [("float8_e4m3fn",) * 2 + ("dot_general",)]
    assert found[0].quantized
    # Control: the same program in BF16.
    assert [(gemm.lhs, gemm.rhs, gemm.quantized) for gemm in gemms(wrap(plain), A, B)] == [("bfloat16",) * 2 + (False,)]


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_dtype_that_occurs_only_inside_is_found(wrap: Callable[[Program], Program]) -> None:
    assert dtypes(wrap(lambda a, b: a.astype(F8).astype(a.dtype) + b), A, B) == {"float8_e4m3fn"}
    # Control: the same program in BF16.
    assert dtypes(wrap(lambda a, b: a.astype(jnp.bfloat16).astype(a.dtype) + b), A, B) == set()


def test_number_of_a_format_is_no_tensor() -> None:
    """A scale is computed from the largest number of its format, whether or not anything is quantized."""
    as_float32 = jax.jit(lambda number: number.astype(jnp.float32))

    def scale(a: jax.Array) -> jax.Array:
        return as_float32(jnp.asarray(448, F8)) / jnp.max(jnp.abs(a))

    assert "f8_e4m3fn[]" in str(jax.make_jaxpr(scale)(A)), "Control: the number is in the program"
    assert dtypes(scale, A) == set()
    assert dtypes(lambda a: (a * scale(a)).astype(F8), A) == {"float8_e4m3fn"}


def test_tensor_cast_to_float8_and_back_does_not_count_as_quantized() -> None:
    def fake(a: jax.Array, b: jax.Array) -> jax.Array:
        return dot(a.astype(F8).astype(jnp.bfloat16), b.astype(F8).astype(jnp.bfloat16))

    (found,) = gemms(fake, A, B)
    assert (found.lhs, found.rhs, found.quantized) == ("bfloat16", "bfloat16", False)
    assert dtypes(fake, A, B) == {"float8_e4m3fn"}


@pytest.mark.parametrize(("lhs", "rhs"), [(F8, jnp.float32), (jnp.float32, F8)], ids=["left only", "right only"])
def test_product_with_one_quantized_operand_does_not_count_as_quantized(lhs: Any, rhs: Any) -> None:
    (found,) = gemms(lambda a, b: dot(a.astype(lhs), b.astype(rhs)), A, B)
    assert not found.quantized


def test_products_come_in_program_order() -> None:
    def three(a: jax.Array, b: jax.Array) -> jax.Array:
        return plain(jax.jit(quantized)(plain(a, b), b), b)

    assert [gemm.quantized for gemm in gemms(three, A, B)] == [False, True, False]


def test_program_without_products_has_none() -> None:
    assert gemms(lambda a, b: a.astype(F8).astype(jnp.float32) * b, A, B) == []


def test_input_that_nothing_uses_counts_among_the_dtypes() -> None:
    assert dtypes(lambda _, b: b, A.astype(jnp.float8_e5m2), B) == {"float8_e5m2"}


def test_constant_counts_among_the_dtypes() -> None:
    constant = jnp.arange(4.0).astype(F8)
    assert dtypes(lambda a: (a, constant), A) == {"float8_e4m3fn"}


def test_closed_and_open_jaxpr_say_the_same() -> None:
    closed = jax.make_jaxpr(quantized)(A, B)
    assert jaxprs.gemms(closed.jaxpr) == jaxprs.gemms(closed) != []
    assert jaxprs.quantized_dtypes(closed.jaxpr) == jaxprs.quantized_dtypes(closed) != set()


@pytest.mark.parametrize(
    ("name", "positions"),
    [("te_gemm_ffi_wrapper", (0, 2)), ("scaled_matmul_wrapper", (0, 1)), ("dot_general", (0, 1))],
)
def test_operands_are_taken_from_the_places_of_the_primitive(name: str, positions: tuple[int, int]) -> None:
    """TE's GEMM has the scale between its operands, JAX's scaled product has both scales behind them."""
    primitive = core.Primitive(name)
    primitive.def_abstract_eval(lambda *operands: operands[-1])
    inputs = [jnp.ones(4, jnp.float8_e5m2 if place in positions else jnp.float32) for place in range(4)]
    (found,) = gemms(primitive.bind, *inputs)
    assert (found.lhs, found.rhs, found.primitive) == ("float8_e5m2", "float8_e5m2", name)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("float8_e4m3fn", True),
        ("float8_e4m3fnuz", True),
        ("float8_e5m2", True),
        ("float4_e2m1fn", True),
        ("float8_e8m0fnu", False),
        ("bfloat16", False),
        ("float32", False),
        ("int8", False),
        ("", False),
    ],
)
def test_dtype_counts_as_quantized_by_its_name(dtype: str, expected: bool) -> None:  # noqa: FBT001
    assert jaxprs.is_quantized(dtype) is expected


class Net(nn.Module):
    """Two dense layers, the second one deeper."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply both."""
        return Block(name="block")(nn.Dense(4, name="dense1")(x))


class Block(nn.Module):
    """A layer inside of a layer."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply it."""
        return nn.Dense(4, name="dense2")(x)


@pytest.fixture(scope="module")
def variables() -> Any:
    """Of `Net`."""
    return Net().init(jax.random.key(0), A)


def gradient(variables: Any, x: jax.Array) -> Any:
    """Forward and backward pass of `Net`, with gradients of parameters and input."""
    return jax.value_and_grad(lambda v, x: Net().apply(v, x).sum(), argnums=(0, 1))(variables, x)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_product_belongs_to_its_module(variables: Any, wrap: Callable[..., Any]) -> None:
    found = gemms(wrap(Net().apply), variables, A)
    assert [(gemm.layer, gemm.backward) for gemm in found] == [("Net/dense1", False), ("Net/block/dense2", False)]


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_backward_products_are_told_from_forward_ones(variables: Any, wrap: Callable[..., Any]) -> None:
    found = [(gemm.layer, gemm.backward) for gemm in gemms(wrap(gradient), variables, A)]
    assert found[:2] == [("Net/dense1", False), ("Net/block/dense2", False)]
    assert sorted(found[2:]) == [("Net/block/dense2", True)] * 2 + [("Net/dense1", True)] * 2


def test_product_outside_of_modules_belongs_to_none() -> None:
    assert [gemm.layer for gemm in gemms(quantized, A, B)] == [""]


def in_scopes(f: Program) -> Program:
    """The function compiled on its own, called in a scope; it opens another one."""

    def inner(a: jax.Array, b: jax.Array) -> Any:
        with jax.named_scope("inner"):
            return f(a, b)

    def outer(a: jax.Array, b: jax.Array) -> Any:
        with jax.named_scope("outer"):
            return jax.jit(inner)(a, b)

    return outer


def test_names_of_inner_and_outer_programs_are_joined() -> None:
    assert [gemm.layer for gemm in gemms(in_scopes(quantized), A, B)] == ["outer/inner"]
    gradients = jax.grad(lambda a, b: in_scopes(plain)(a, b).sum(), argnums=(0, 1))
    found = gemms(gradients, A, B)
    assert {gemm.layer for gemm in found} == {"outer/inner"}
    assert sorted(gemm.backward for gemm in found) == [False, True, True]


def test_custom_calls_are_counted_by_target() -> None:
    text = """
      %a = f32[4] custom-call(%x), custom_call_target="te_gemm_v2_ffi", api_version=API_VERSION_TYPED_FFI
      %b = f32[4] custom-call(%a), custom_call_target="te_quantize_ffi"
      %c = f32[4] custom-call(%b), custom_call_target="te_gemm_v2_ffi"
      %d = f32[4] add(%b, %c), metadata={op_name="custom_call_target"}
    """
    assert hlo.custom_calls(text) == {"te_gemm_v2_ffi": 2, "te_quantize_ffi": 1}
    assert not hlo.custom_calls("%d = f32[4] add(%b, %c)")


COMPILED = """
%product (parameter_0: f8e4m3fn[64,128], parameter_1: f8e5m2[128,32]) -> bf16[64,32] {
  %parameter_0 = f8e4m3fn[64,128]{1,0} parameter(0)
  %parameter_1 = f8e5m2[128,32]{1,0} parameter(1)
  ROOT %dot.9 = bf16[64,32]{1,0} dot(%parameter_0, %parameter_1), lhs_contracting_dims={1}, metadata={op_name="jit(step)/transpose(jvp(Net))/dense2/jit(_gemm)/dot_general"}
}
ENTRY %main (x.1: bf16[64,128], k.1: f32[128,32]) -> bf16[64,32] {
  %x.1 = bf16[64,128]{1,0} parameter(0)
  %codes = f8e4m3fn[64,128]{1,0} get-tuple-element(%quantize), index=0
  %other = (f8e5m2[32,128]{1,0}, f32[1]{0}) custom-call(%k.1), custom_call_target="te_dbias_quantize_ffi"
  %wrapped_transpose = f8e5m2[32,128]{1,0} fusion(%other), kind=kInput, calls=%transposed
  %scale = f32[1]{0} constant({1})
  %te_gemm_v2_ffi.0 = (bf16[64,32]{1,0}, u8[33]{0}) custom-call(%codes, %scale, %wrapped_transpose, %scale, %none, /*index=5*/%none), custom_call_target="te_gemm_v2_ffi", metadata={op_name="jit(step)/jvp(Net)/dense1/te_gemm_v2_ffi" stack_frame_id=21}
  ROOT %cublas-gemm.1 = (bf16[64,32]{1,0}, s8[33]{0}) custom-call(%x.1, %codes, %scale), custom_call_target="__cublas$lt$matmul$f8"
}
"""  # noqa: E501 - as XLA writes it


def test_products_of_a_compiled_program_are_found_with_their_operands() -> None:
    assert hlo.compiled_gemms(COMPILED) == {
        "dot.9": Gemm("Net/dense2", backward=True, lhs="float8_e4m3fn", rhs="float8_e5m2", primitive="dot"),
        "te_gemm_v2_ffi.0": Gemm(
            "Net/dense1", backward=False, lhs="float8_e4m3fn", rhs="float8_e5m2", primitive="te_gemm_v2_ffi"
        ),
        "cublas-gemm.1": Gemm(
            "", backward=False, lhs="bfloat16", rhs="float8_e4m3fn", primitive="__cublas$lt$matmul$f8"
        ),
    }


def test_products_of_a_program_that_xla_compiled_here_are_found() -> None:
    """The same on the text of this machine's XLA."""

    def step(a: jax.Array, b: jax.Array) -> jax.Array:
        with jax.named_scope("dense1"):
            return (a @ b).sum()

    size = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    text = compiled_text(jax.jit(jax.grad(step, argnums=(0, 1))).lower(size, size).compile())
    found = hlo.compiled_gemms(text).values()
    assert {(gemm.layer, gemm.lhs, gemm.rhs) for gemm in found} == {("dense1", "float32", "float32")}
    assert any(gemm.backward for gemm in found)


# --- dequantized operands ------------------------------------------------------------------------------------------


def dequantize(codes: jax.Array, scale_inv: jax.Array) -> jax.Array:
    """Codes as BF16 numbers, as Transformer Engine before 2.5 gives them to a product."""
    return codes.astype(jnp.bfloat16) * scale_inv.astype(jnp.bfloat16)


DEQUANTIZED: dict[str, tuple[Callable[..., Any], str]] = {
    "scaled": (lambda a, s: dequantize(a.astype(F8), s), "float8_e4m3fn"),
    "scaled and transposed": (lambda a, s: dequantize(a.astype(F8), s).T.reshape(4, 4), "float8_e4m3fn"),
    "E5M2": (lambda a, s: dequantize(a.astype(jnp.float8_e5m2), s), "float8_e5m2"),
    "added to": (lambda a, s: dequantize(a.astype(F8), s) + 1, "bfloat16"),
    "times another tensor": (lambda a, s: dequantize(a.astype(F8), s) * jnp.ones((4, 4), jnp.bfloat16), "bfloat16"),
    "times itself": (lambda a, s: dequantize(a.astype(F8), s) * a.astype(jnp.bfloat16), "bfloat16"),
    "never quantized": (lambda a, s: a.astype(jnp.bfloat16) * s.astype(jnp.bfloat16), "bfloat16"),
}


@pytest.mark.parametrize("case", DEQUANTIZED)
def test_dequantized_operand_counts_as_float8_where_asked_for(case: str) -> None:
    operand, expected = DEQUANTIZED[case]
    program = jax.make_jaxpr(lambda a, s: lax.dot(operand(a, s), operand(a, s)))(A, np.ones(1, np.float32))
    (gemm,) = jaxprs.gemms(program, dequantized=True)
    assert (gemm.lhs, gemm.rhs) == (expected, expected)
    (gemm,) = jaxprs.gemms(program)
    assert (gemm.lhs, gemm.rhs) == ("bfloat16", "bfloat16"), "Control: it is not one"


# --- operands of block-scaled products --------------------------------------------------------------------------------


def scaled(rows: int, exponent: int) -> tuple[jax.Array, jax.Array]:
    """Codes (1, rows, 64) of one and scales that are a power of two."""
    ones = jnp.ones((1, rows, 64), jnp.float8_e4m3fn)
    return ones, jnp.full((1, rows, 2), 2.0**exponent, jnp.float8_e8m0fnu)


def two_scaled_products(x: jax.Array, x_scales: jax.Array, y: jax.Array, y_scales: jax.Array) -> jax.Array:
    first = jax.jit(jax.nn.scaled_matmul)(x, y, x_scales, y_scales)
    return first + jax.nn.scaled_matmul(y, x, y_scales, x_scales).mT


@pytest.mark.parametrize("traced", [False, True])
def test_operands_of_scaled_products_are_found_in_their_order(traced: bool) -> None:  # noqa: FBT001
    lowerings.provide()
    given = (*scaled(8, 1), *scaled(16, -3))

    def operands(*given: jax.Array) -> list[tuple[ScaledOperand, ScaledOperand]]:
        return jaxprs.scaled_products(jax.make_jaxpr(two_scaled_products)(*given), *given)

    found = (jax.jit(operands) if traced else operands)(*given)
    shapes = [[(operand.codes.shape, float(operand.scales[0, 0, 0])) for operand in both] for both in found]
    x, y = ((1, 8, 64), 2.0), ((1, 16, 64), 0.125)
    assert shapes == [[x, y], [y, x]]


def test_other_products_are_no_scaled_ones() -> None:
    # Control.
    a = jnp.ones((4, 4))
    assert jaxprs.scaled_products(jax.make_jaxpr(dot)(a, a), a, a) == []
