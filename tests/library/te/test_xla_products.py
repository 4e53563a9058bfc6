"""The control of XLA's own products: it knows one that adds up in BF16, in every form."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest

from mnist_fp8 import te
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.plugin import needs
from mnist_fp8.te import xla_products
from mnist_fp8.te.xla_products import FORMS, Form, Sums

WRONG = Sums("x @ kernel", 2.6e-2, 2.5e-3)


def summed_in_bf16(form: Form) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The product of a form, each of its partial sums rounded to BF16."""

    def multiply(lhs: jax.Array, rhs: jax.Array) -> jax.Array:
        (left, right), result = form.subscripts.partition("->")[0].split(","), form.subscripts.partition("->")[2]
        contracted = "".join(axis for axis in left if axis not in result)
        own = [[axis for axis in axes if axis not in contracted] for axes in (left, right)]
        terms = [
            jnp.einsum(f"{axes}->{contracted}{''.join(kept)}", tensor).reshape(512, -1)
            for axes, kept, tensor in zip((left, right), own, (lhs, rhs), strict=True)
        ]
        sizes = [
            size
            for axes, tensor in ((left, lhs), (right, rhs))
            for axis, size in zip(axes, tensor.shape, strict=True)
            if axis in result
        ]
        start = jnp.zeros((terms[0].shape[1], terms[1].shape[1]), jnp.bfloat16)
        total, _ = jax.lax.scan(lambda total, pair: (total + jnp.outer(pair[0], pair[1]), None), start, tuple(terms))
        return total.reshape(sizes)

    return multiply


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_product_that_sums_in_bf16_is_found(form: Form) -> None:
    found = xla_products.measure([dataclasses.replace(form, multiply=summed_in_bf16(form))])
    assert not found.are_float32
    assert found.error > 5 * found.allowed


@pytest.mark.xla_sums_in_float32
def test_the_form_that_is_furthest_off_is_named() -> None:
    assert xla_products.measure(FORMS).are_float32, "Control: without a wrong one there is nothing to find"
    last = dataclasses.replace(FORMS[3], multiply=summed_in_bf16(FORMS[3]))
    assert xla_products.measure([*FORMS[:3], last]).form == last.name


def test_a_product_that_is_not_a_number_is_found() -> None:
    nothing = dataclasses.replace(FORMS[0], multiply=lambda lhs, rhs: jnp.dot(lhs, rhs) * jnp.nan)
    assert not xla_products.measure([FORMS[1], nothing]).are_float32


def test_it_is_said_how_far_off_a_product_is() -> None:
    assert str(WRONG) == "not summed in float32: error 2.6e-02, 2.5e-03 allowed (x @ kernel)"
    assert str(dataclasses.replace(WRONG, error=1e-3)).startswith("summed in float32: error 1.0e-03, ")


@pytest.mark.parametrize("kind", RunKind)
def test_claims_need_float32_sums_on_a_host_run(monkeypatch: pytest.MonkeyPatch, kind: RunKind) -> None:
    engine = dataclasses.replace(te.engine(), kind=kind)
    monkeypatch.setattr(te, "engine", lambda: engine)
    monkeypatch.setattr(xla_products, "sums", lambda: WRONG)
    reason = needs.NEEDS["xla_sums_in_float32"]()
    needed = f"needs an XLA that sums BF16 products in float32; found them {WRONG}"
    assert reason == (needed if kind is RunKind.HOST else None)
    monkeypatch.setattr(xla_products, "sums", lambda: dataclasses.replace(WRONG, error=1e-3))
    assert needs.NEEDS["xla_sums_in_float32"]() is None
