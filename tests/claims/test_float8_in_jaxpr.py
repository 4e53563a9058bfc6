"""Claim: under autocast every dense layer multiplies float8 operands, forward and backward; outside there is none.

Promised by TE's user guide and by its MNIST example, whose own check looks for a float8 name anywhere in the printed
forward program. Here the program is read as structure: which operands each matrix product really takes.

What a failure means for an upgrade: training that is believed to run in FP8 runs, in part or as a whole, in BF16; or
the other way round.
"""

import contextlib
import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_fp8 import te
from mnist_fp8.core.capability import Capability
from mnist_fp8.core.errors import Float8MissingError
from mnist_fp8.core.modes import Precision, RecipeConfig
from mnist_fp8.programs import jaxprs
from mnist_fp8.te import host, pretended
from mnist_fp8.te.dense_step import BF16, dense_layer, fp8, on_device
from mnist_fp8.training import fp8_check, train
from mnist_fp8.training.config import TrainConfig
from support.layouts import are_codes_transposed
from support.programs import equations

E4M3, E5M2 = "float8_e4m3fn", "float8_e5m2"

Function = Callable[..., Any]


def ones() -> jax.Array:
    """An input of 16 rows."""
    return on_device(np.ones((16, 32)), "bfloat16")


def shapes(module: nn.Module, x: jax.Array | None = None) -> Any:
    """A module's variables without values; those for `ones` unless an input is given."""
    return te.unbox(jax.eval_shape(module.init, jax.random.key(0), ones() if x is None else x))


class Stack(nn.Module):
    """Two dense layers."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply both."""
        return te.dense_general(features=16, name="second")(te.dense_general(features=32, name="first")(x))


def gradient_jaxpr(
    mode: te.Autocast, *, of_loss: Callable[[Function], Function] | None = None, of_gradient: Any = None
) -> Any:
    """The jaxpr of a loss and its gradients with respect to variables and input, traced afresh in a mode.

    Args:
        mode: what to trace in.
        of_loss: a transformation of the loss before it is differentiated.
        of_gradient: a transformation of the differentiated loss.
    """
    with mode():
        model = Stack()
        variables = shapes(model)

        def loss(variables: Any, x: jax.Array) -> jax.Array:
            return jnp.sum(model.apply(variables, x).astype(jnp.float32) ** 2)

        gradient = jax.value_and_grad(of_loss(loss) if of_loss else loss, argnums=(0, 1))
        return jax.make_jaxpr(of_gradient(gradient) if of_gradient else gradient)(variables, ones())


def operands(jaxpr: Any) -> dict[tuple[str, str], Counter[tuple[str, str]]]:
    """Operand dtypes of the matrix products, by layer and direction. Left and right are not told apart."""
    found: dict[tuple[str, str], Counter[tuple[str, str]]] = {}
    for gemm in jaxprs.gemms(jaxpr, dequantized=te.leaves_float8_to_xla()):
        layer = gemm.layer.split("/")[-1]
        pair = (min(gemm.lhs, gemm.rhs), max(gemm.lhs, gemm.rhs))
        found.setdefault((layer, "backward" if gemm.backward else "forward"), Counter())[pair] += 1
    return found


def assert_operands(jaxpr: Any, *, forward: tuple[str, str], backward: tuple[str, str]) -> None:
    """Each of the layers has one forward and two backward products, of the given operands."""
    __tracebackhide__ = True
    found = operands(jaxpr)
    problems = []
    for layer in ("first", "second"):
        for direction, pair, count in (("forward", forward, 1), ("backward", backward, 2)):
            products = found.pop((layer, direction), Counter())
            if products != Counter({pair: count}):
                problems.append(f"{layer} {direction}: products={dict(products)}, but should be {count} of {pair}")
    problems += [f"unexpected products in {where}: {dict(products)}" for where, products in found.items()]
    assert not problems, "; ".join(problems)


BACKWARD = {"HYBRID": (E4M3, E5M2), "E4M3": (E4M3, E4M3)}


@pytest.mark.parametrize("fp8_format", BACKWARD)
@pytest.mark.parametrize("recipe", ["DelayedScaling", "Float8CurrentScaling"])
def test_every_product_takes_the_float8_operands_of_the_format(recipe: str, fp8_format: str) -> None:
    jaxpr = gradient_jaxpr(fp8(recipe, fp8_format=fp8_format))
    assert_operands(jaxpr, forward=(E4M3, E4M3), backward=BACKWARD[fp8_format])


@pytest.mark.host  # on a GPU, a product is TE's own primitive
@pytest.mark.parametrize("recipe", ["DelayedScaling", "Float8CurrentScaling"])
def test_products_of_codes_contract_the_axes_that_the_gpu_sums_along(recipe: str) -> None:
    """FP8 on Hopper is multiplied along last axes alone: of a tensor's two layouts, the other is for other products.

    Blackwell needs one layout: there, a product contracts the axes that it is about.
    """
    products = [
        (equation.params["dimension_numbers"][0], [operand.aval for operand in equation.invars])
        for equation in equations(gradient_jaxpr(fp8(recipe)), "dot_general")
    ]
    contracted = [
        [axes == (operand.ndim - 1,) for axes, operand in zip(both, operands, strict=True)]
        for both, operands in products
        if all(jaxprs.is_quantized(operand.dtype.name) for operand in operands)
    ]
    forward, backward = [[True, False]], [[True, True], [False, False]]  # by kernel; gradients of input and of kernel
    expected = [[True, True]] * 6 if are_codes_transposed() else 2 * forward + 2 * backward
    assert contracted == expected, f"are the last axes contracted? {contracted}, but should be {expected}"


@pytest.mark.host
@pytest.mark.parametrize("recipe", ["DelayedScaling", "Float8CurrentScaling"])
def test_products_are_given_out_in_the_dtype_of_the_input(recipe: str) -> None:
    """In float32 they would take twice the memory. Read in TE's JAX path; its kernels decide that in CUDA."""
    products = equations(gradient_jaxpr(fp8(recipe)), "dot_general")
    found = Counter(str(product.outvars[0].aval.dtype) for product in products)
    assert found == {"bfloat16": 6}, f"dtypes of the products={dict(found)}, but should be 6 of bfloat16"


@pytest.mark.parametrize("recipe", ["DelayedScaling", "Float8CurrentScaling"])
def test_hybrid_is_the_default_format(recipe: str) -> None:
    assert_operands(gradient_jaxpr(fp8(recipe)), forward=(E4M3, E4M3), backward=BACKWARD["HYBRID"])


def test_autocast_without_a_recipe_is_delayed_scaling() -> None:
    with te.autocast(enabled=True):
        variables = shapes(Stack())
        forward = jax.make_jaxpr(Stack().apply)(variables, ones())
    found = operands(forward)
    expected = {(layer, "forward"): Counter({(E4M3, E4M3): 1}) for layer in ("first", "second")}
    assert found == expected, f"products={found}, but should be {expected}"
    assert te.metadata_collection() in variables, "autocast without a recipe made no metadata"


def _scan_over_batches(gradient: Function) -> Function:
    return lambda variables, x: jax.lax.scan(lambda _, row: (None, gradient(variables, row)), None, jnp.stack([x, x]))


def _vmap_over_batches(gradient: Function) -> Function:
    return lambda variables, x: jax.vmap(gradient, in_axes=(None, 0))(variables, jnp.stack([x, x]))


TRANSFORMATIONS = [
    pytest.param(jax.jit, id="jit"),
    pytest.param(_scan_over_batches, id="scan"),
    # TE's custom calls have no batching rule (docs/explanation/te-findings.md), its JAX path does.
    pytest.param(_vmap_over_batches, id="vmap", marks=pytest.mark.host),
]


@pytest.mark.parametrize("recipe", ["DelayedScaling", "Float8CurrentScaling"])
@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
def test_products_stay_float8_under_transformations(transformation: Function, recipe: str) -> None:
    jaxpr = gradient_jaxpr(fp8(recipe), of_gradient=transformation)
    assert_operands(jaxpr, forward=(E4M3, E4M3), backward=(E4M3, E5M2))


def test_products_stay_float8_in_a_scan_over_layers() -> None:
    """A stack of layers as one scanned body, as in a transformer: differentiated from outside."""
    layer = dense_layer(features=32)

    def loss(stacked: Any, x: jax.Array) -> jax.Array:
        y, _ = jax.lax.scan(lambda carry, variables: (layer.apply(variables, carry), None), x, stacked)
        return jnp.sum(y.astype(jnp.float32) ** 2)

    with fp8()():
        variables = shapes(layer)
        stacked = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((2, *leaf.shape), leaf.dtype), variables)
        found = operands(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(stacked, ones()))
    total = {direction: products for (_, direction), products in found.items()}
    expected = {"forward": Counter({(E4M3, E4M3): 1}), "backward": Counter({(E4M3, E5M2): 2})}
    assert total == expected, f"products={total}, but should be {expected}"


def test_rematerialised_products_stay_float8() -> None:
    """The backward pass repeats the forward products: three to each layer, all float8."""
    found = operands(gradient_jaxpr(fp8("Float8CurrentScaling"), of_loss=jax.checkpoint))
    for layer in ("first", "second"):
        total = sum((found.get((layer, direction), Counter()) for direction in ("forward", "backward")), Counter())
        assert total[E4M3, E5M2] == 2, f"{layer}: e4m3 x e5m2 products={total[E4M3, E5M2]}, but should be 2"
        assert total[E4M3, E4M3] >= 1, f"{layer}: e4m3 x e4m3 products={total[E4M3, E4M3]}, but should be some"
        assert set(total) == {(E4M3, E4M3), (E4M3, E5M2)}, f"{layer}: unexpected products {dict(total)}"


def test_forward_program_alone_holds_e4m3_and_no_e5m2() -> None:
    with fp8()():
        variables = shapes(Stack())
        found = jaxprs.quantized_dtypes(jax.make_jaxpr(Stack().apply)(variables, ones()))
    assert found == {E4M3}, f"quantized dtypes={sorted(found)}, but should be {E4M3} only"


@pytest.mark.te_name("autocast")
@pytest.mark.te_name("fp8_autocast")
def test_former_name_of_autocast_means_the_same() -> None:
    """``te.fp8_autocast(enabled, fp8_recipe, mesh_resource)``, as programs written before 2.9 call it."""
    recipe = te.make_recipe(RecipeConfig(fp8_format="E4M3", amax_history_len=16))
    with contextlib.ExitStack() as stack:
        with pytest.warns(DeprecationWarning, match="autocast"):
            stack.enter_context(te.former_autocast(recipe))
        variables = shapes(Stack())
        gradient = jax.grad(lambda x, variables: jnp.sum(Stack().apply(variables, x).astype(jnp.float32)))
        found = jaxprs.quantized_dtypes(jax.make_jaxpr(gradient)(ones(), variables))
    assert found == {E4M3}, f"quantized dtypes={sorted(found)}, but should be {E4M3} only"
    history = variables[te.metadata_collection()]["first"][te.history_leaf("x")]
    assert history.shape == (16,), f"history shape={history.shape}, but should be (16,)"
    assert not jaxprs.quantized_dtypes(jax.make_jaxpr(Stack().apply)(variables, ones())), "it did not end"


@pytest.mark.host
@pytest.mark.parametrize(("recipe", "capability"), [("MXFP8BlockScaling", "9.9"), ("NVFP4BlockScaling", "10.0")])
def test_recipe_that_the_device_lacks_is_refused_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, recipe: str, capability: str
) -> None:
    """On compute capability 9.0, where the host run pretends to have no other."""
    monkeypatch.setattr(host.DEVICE, "asked", Capability.HOPPER)
    with pretended.pretending(Capability.HOPPER):
        support = te.support(te.make_recipe(RecipeConfig(recipe)))
    assert not support.ok, f"{recipe} is accepted on compute capability 9.0"
    assert f"compute capability {capability} or higher" in support.reason, f"reason={support.reason!r}"


# --- controls: no float8 where there should be none ----------------------------------------------------------------


def test_no_float8_with_autocast_disabled() -> None:
    # Control.
    jaxpr = gradient_jaxpr(BF16)
    assert_operands(jaxpr, forward=("bfloat16", "bfloat16"), backward=("bfloat16", "bfloat16"))
    assert not jaxprs.quantized_dtypes(jaxpr), f"quantized dtypes={sorted(jaxprs.quantized_dtypes(jaxpr))}"


def test_disabled_autocast_ignores_its_recipe() -> None:
    # Control.
    recipe = te.make_recipe(RecipeConfig())
    with te.autocast(enabled=False, recipe=recipe):
        variables = shapes(Stack())
        found = jaxprs.quantized_dtypes(jax.make_jaxpr(Stack().apply)(variables, ones()))
    assert not found, f"quantized dtypes={sorted(found)}, but should be none"
    assert set(variables) == {"params"}, f"collections={sorted(variables)}, but should be params only"


def test_no_float8_outside_autocast() -> None:
    # Control.
    layer = dense_layer(features=16)
    variables = shapes(layer)
    jaxpr = jax.make_jaxpr(jax.grad(lambda v: jnp.sum(layer.apply(v, ones()).astype(jnp.float32))))(variables)
    found = jaxprs.quantized_dtypes(jaxpr)
    assert not found, f"quantized dtypes={sorted(found)}, but should be none"
    assert jaxprs.gemms(jaxpr), "no matrix product was found at all"


def test_no_float8_in_the_flax_layer_under_autocast() -> None:
    # Control: autocast is about TE's layers only.
    layer = nn.Dense(16, dtype=jnp.bfloat16)
    with fp8()():
        variables = jax.eval_shape(layer.init, jax.random.key(0), ones())
        jaxpr = jax.make_jaxpr(jax.grad(lambda v: jnp.sum(layer.apply(v, ones()).astype(jnp.float32))))(variables)
    assert not jaxprs.quantized_dtypes(jaxpr)
    assert set(variables) == {"params"}


# --- the network, and check_fp8 ------------------------------------------------------------------------------------


def _network(precision: Precision, recipe: str = "DelayedScaling") -> tuple[Any, ...]:
    config = TrainConfig(precision=precision, recipe=RecipeConfig(recipe), batch_size=16)
    state, metadata = jax.eval_shape(functools.partial(train.create_train_state, config))
    images, labels = np.zeros((16, 28, 28, 1), np.float32), np.zeros(16, np.int32)
    return state, images, labels, metadata, {"dropout": jax.random.key(0)}


@pytest.mark.parametrize("recipe", ["DelayedScaling", "Float8CurrentScaling"])
def test_network_multiplies_float8_in_all_three_layers(recipe: str) -> None:
    found = fp8_check.check_fp8(*_network(Precision.TE_FP8, recipe))
    counts = Counter((gemm.layer, gemm.backward) for gemm in found)
    expected = {(f"Net/dense{i}", backward): 1 + backward for i in (1, 2, 3) for backward in (False, True)}
    assert counts == expected, f"float8 products={dict(counts)}, but should be {expected}"


@pytest.mark.parametrize("precision", [Precision.FLAX_BF16, Precision.TE_BF16])
def test_check_fp8_rejects_a_network_in_bf16(precision: Precision) -> None:
    # Control.
    with pytest.raises(Float8MissingError, match=r"dense1: forward has 0 float8 matrix products, expected 1"):
        fp8_check.check_fp8(*_network(precision))


class LooksLikeFp8(nn.Module):
    """Layers that hold float8 numbers and do not, or not all, compute with them."""

    how: str

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Two layers of which the second is the one in question."""
        del train
        x = jnp.asarray(images).reshape(images.shape[0], -1)[:, :32].astype(jnp.bfloat16)
        x = te.dense_general(features=32, name="real")(x)
        return FAKES[self.how](features=32, name="fake")(x).astype(jnp.float32)


class CastAndBack(nn.Module):
    """Casts both operands to float8 and back, and multiplies in BF16."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Multiply."""
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], self.features))
        lhs, rhs = (a.astype(jnp.float8_e4m3fn).astype(jnp.bfloat16) for a in (x, kernel))
        return lhs @ rhs


@jax.custom_vjp
def _forward_only(x: jax.Array, kernel: jax.Array) -> jax.Array:
    lhs, rhs = (a.astype(jnp.float8_e4m3fn) for a in (x, kernel))
    return jax.lax.dot(lhs, rhs, preferred_element_type=jnp.bfloat16)


_forward_only.defvjp(
    lambda x, kernel: (_forward_only(x, kernel), (x, kernel)),
    lambda kept, g: (g @ kept[1].T.astype(g.dtype), (kept[0].T @ g).astype(jnp.float32)),
)


class ForwardOnly(nn.Module):
    """FP8 forward and BF16 backward."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Multiply."""
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], self.features))
        return _forward_only(x, kernel)


class Decoy(nn.Module):
    """A BF16 layer beside a float8 product that nobody uses."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Multiply."""
        code = x.astype(jnp.float8_e4m3fn)
        jax.lax.dot(code, code.T, preferred_element_type=jnp.bfloat16)
        return nn.Dense(self.features, dtype=jnp.bfloat16, name="dense")(x)


FAKES: dict[str, Any] = {"cast and back": CastAndBack, "forward only": ForwardOnly, "decoy": Decoy}
MESSAGES = {
    "cast and back": r"fake: forward dot_general multiplies bfloat16 by bfloat16",
    "forward only": r"fake: backward has 0 float8 matrix products, expected 2",
    "decoy": r"fake/dense: forward has 0 float8 matrix products, expected 1",
}


@pytest.mark.parametrize("how", FAKES)
def test_check_fp8_rejects_a_model_that_only_looks_like_fp8(how: str) -> None:
    # Control.
    state, images, labels, _, rngs = _network(Precision.TE_FP8, "Float8CurrentScaling")
    model = LooksLikeFp8(how)
    with state.mode():
        variables = shapes(model, images)
    fake = state.replace(apply_fn=model.apply, params=variables["params"])
    with pytest.raises(Float8MissingError, match=MESSAGES[how]):
        fp8_check.check_fp8(fake, images, labels, {}, rngs)


class Unusual(nn.Module):
    """Healthy layers: one name ends with another's, one has two feature axes, one is used twice."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Four products."""
        del train
        x = jnp.asarray(images).reshape(images.shape[0], -1)[:, :32].astype(jnp.bfloat16)
        x = te.dense_general(features=32, name="mydense")(x)
        x = te.dense_general(features=(2, 16), name="wide")(x).reshape(x.shape[0], -1)
        dense = te.dense_general(features=32, name="dense")
        return dense(dense(x)).astype(jnp.float32)


def test_check_fp8_accepts_unusual_models_that_do_compute_in_fp8() -> None:
    state, images, labels, _, rngs = _network(Precision.TE_FP8, "Float8CurrentScaling")
    with state.mode():
        variables = shapes(Unusual(), images)
    unusual = state.replace(apply_fn=Unusual().apply, params=variables["params"])
    found = fp8_check.check_fp8(unusual, images, labels, {}, rngs)
    assert len(found) == 12, f"float8 products={len(found)}, but should be 3 for each of 4 uses"


def test_check_fp8_rejects_a_model_without_dense_layers() -> None:
    # Control: nothing found is nothing verified.
    state, images, labels, _, rngs = _network(Precision.TE_FP8, "Float8CurrentScaling")
    model = nn.Conv(32, (28, 28), padding="VALID")
    params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]

    def apply(variables: Any, x: jax.Array, **_: Any) -> jax.Array:
        return model.apply(variables, x).reshape(x.shape[0], -1)

    with pytest.raises(Float8MissingError, match="the model has no dense layer"):
        fp8_check.check_fp8(state.replace(apply_fn=apply, params=params), images, labels, {}, rngs)
