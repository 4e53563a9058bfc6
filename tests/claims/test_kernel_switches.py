"""Claim: the switches of single kernels turn off what they name, and nothing else.

``NVTE_JAX_CUSTOM_CALLS`` is ``true`` or ``false`` for all kernels, or says it of some by their names, as in
``ActLuPrimitive=false,GemmPrimitive=true``; ``NVTE_JAX_CUSTOM_CALLS_RE``, which is older, is a pattern of the names of
those that stay. TE reads both whenever it is traced. A jaxpr shows which kernels are asked for, without running them.

What a failure means for an upgrade: a kernel that was switched off, mostly for its wrong numbers, is back without a
word, or kernels that nobody named are gone.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from mnist_fp8.subjects.making import name_of_te
from support.programs import equations

pytestmark = [
    pytest.mark.host,
    pytest.mark.te_name("cpp_extensions", "base", "manage_primitives"),  # since kernels are switched by these names
    pytest.mark.filterwarnings("ignore:NVTE_JAX_CUSTOM_CALLS_RE is deprecated"),
]

SWITCH, PATTERN = "NVTE_JAX_CUSTOM_CALLS", "NVTE_JAX_CUSTOM_CALLS_RE"
FUSIONS = {
    "ScaledSoftmax": "SCALED",
    "ScaledMaskedSoftmax": "SCALED_MASKED",
    "ScaledUpperTriangMaskedSoftmax": "SCALED_UPPER_TRIANG_MASKED",
}
PARTS = {"Fwd": "forward", "Bwd": "backward"}
KERNELS = {
    "ActLuPrimitive": "te_act_lu_ffi",
    "GemmPrimitive": "te_gemm",
    **{
        f"{softmax}{part}Primitive": f"te_{fusion.lower()}_softmax_{direction}"
        for softmax, fusion in FUSIONS.items()
        for part, direction in PARTS.items()
    },
}
"""Kernels that can be traced without the CUDA extension, by their names in switches: how they begin in a jaxpr."""
ALL = frozenset(KERNELS)


def work(x: jax.Array) -> None:
    """An activation, a product and three kinds of softmax, each with its gradient, of (64, 64)."""
    softmax = name_of_te("softmax")
    fusions = getattr(softmax, "SoftmaxFusionType", None) or softmax.SoftmaxType  # renamed in 2.10
    name_of_te("activation", "activation")(x[:, None], ("gelu",))
    name_of_te("dense", "dense")(x, x)

    def attend(mask: jax.Array | None, fusion: Any, x: jax.Array) -> jax.Array:
        y: jax.Array = softmax.softmax(x, mask, 1.0, fusion)
        return y

    for fusion in FUSIONS.values():
        mask = jnp.zeros((1, 1, *x.shape), jnp.uint8) if fusion == "SCALED_MASKED" else None
        y, pull_back = jax.vjp(functools.partial(attend, mask, fusions[fusion]), x[None, None])
        pull_back(y)


def asked(monkeypatch: pytest.MonkeyPatch, **switches: str) -> set[str]:
    """The kernels that are asked for with these switches alone."""
    for name in (SWITCH, PATTERN):
        monkeypatch.delenv(name, raising=False)
    for name, value in switches.items():
        monkeypatch.setenv(name, value)
    # A program of its own: JAX would not see that a switch is turned.
    jaxpr = jax.make_jaxpr(functools.partial(work))(jnp.ones((64, 64), jnp.bfloat16))
    return {kernel for kernel, begins in KERNELS.items() if any(equations(jaxpr, begins))}


def assert_asked(monkeypatch: pytest.MonkeyPatch, wanted: frozenset[str] | set[str], **switches: str) -> None:
    """Compare the kernels that are asked for with some switches."""
    __tracebackhide__ = True
    found = asked(monkeypatch, **switches)
    assert found == wanted, f"{switches}: kernels={sorted(found)}, but should be {sorted(wanted)}"


@pytest.mark.parametrize("spelt", ["true", "True", " TRUE "])
def test_all_kernels_are_switched_on_at_once(spelt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_asked(monkeypatch, ALL, **{SWITCH: spelt})
    assert_asked(monkeypatch, ALL, **{SWITCH: spelt, PATTERN: "^$"})


@pytest.mark.parametrize("spelt", ["false", "False", " FALSE "])
def test_all_kernels_are_switched_off_at_once(spelt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_asked(monkeypatch, set(), **{SWITCH: spelt})
    assert_asked(monkeypatch, set(), **{SWITCH: spelt, PATTERN: ".*"})


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernel_is_switched_alone(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are as they are without switches; then the kernel is back."""
    others = asked(monkeypatch) - {kernel}
    for spelt in (f"{kernel}=false", f" {kernel} = False ,"):
        assert_asked(monkeypatch, others, **{SWITCH: spelt})
    for spelt in (f"{kernel}=true", f" {kernel} = True ,"):
        assert_asked(monkeypatch, others | {kernel}, **{SWITCH: spelt})


def test_several_kernels_are_switched_each_as_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    off = {"ActLuPrimitive", "ScaledSoftmaxBwdPrimitive"}
    on = {"GemmPrimitive", "ScaledSoftmaxFwdPrimitive"}
    said = ",".join([*(f"{kernel}=false" for kernel in off), *(f"{kernel}=true" for kernel in on)])
    assert_asked(monkeypatch, (asked(monkeypatch) - off) | on, **{SWITCH: said})


@pytest.mark.parametrize("name", ["NoSuchPrimitive", "ActLu", "te_act_lu_ffi", "actluprimitive", "ActLuPrimitive2"])
def test_name_of_no_kernel_switches_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = asked(monkeypatch)
    for state in ("false", "true"):
        assert_asked(monkeypatch, usual, **{SWITCH: f"{name}={state}"})


@pytest.mark.parametrize("kernel", KERNELS)
def test_pattern_keeps_the_kernels_whose_whole_names_it_fits(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_asked(monkeypatch, {kernel}, **{PATTERN: kernel})
    assert_asked(monkeypatch, ALL - {kernel}, **{PATTERN: f"^(?!{kernel}$).+$"})
    assert_asked(monkeypatch, set(), **{PATTERN: kernel.removesuffix("Primitive")})


def test_names_go_before_a_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which says the rest."""
    assert_asked(monkeypatch, ALL - {"ActLuPrimitive"}, **{SWITCH: "ActLuPrimitive=false", PATTERN: ".*"})
    assert_asked(monkeypatch, {"ActLuPrimitive"}, **{SWITCH: "ActLuPrimitive=true", PATTERN: "^$"})


def test_kernels_are_switched_in_a_program_where_no_variable_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Off goes before on."""
    manage, usual = name_of_te("cpp_extensions", "base", "manage_primitives"), asked(monkeypatch)
    changed = {"ActLuPrimitive", "GemmPrimitive"}
    try:
        manage(enable_names=list(changed), disable_names=["ActLuPrimitive"])
        assert_asked(monkeypatch, (usual | changed) - {"ActLuPrimitive"})
        assert_asked(monkeypatch, ALL, **{SWITCH: "true"})
        manage(disable_names=["GemmPrimitive"])
        assert_asked(monkeypatch, usual - changed)
        with pytest.raises(ValueError, match="NoSuchPrimitive"):
            manage(disable_names=["NoSuchPrimitive"])
    finally:
        manage(enable_names=list(changed & usual), disable_names=list(changed - usual))
    assert_asked(monkeypatch, usual)
