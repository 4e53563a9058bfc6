"""What can be seen of the block-scaled recipes from outside; see `probe`."""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mnist_fp8 import te
from mnist_fp8.core.modes import BLOCK_SCALED, RecipeConfig
from proofs.mutation.probe_values import tried, values

MODES: dict[str, RecipeConfig] = {
    "MXFP8": RecipeConfig("MXFP8BlockScaling"),
    "NVFP4": RecipeConfig("NVFP4BlockScaling"),
    "NVFP4 to the nearest": RecipeConfig("NVFP4BlockScaling", disable_stochastic_rounding=True),
    "NVFP4 not rotated": RecipeConfig("NVFP4BlockScaling", disable_rht=True, disable_stochastic_rounding=True),
    "NVFP4 in rows": RecipeConfig(
        "NVFP4BlockScaling", disable_rht=True, disable_stochastic_rounding=True, disable_2d_quantization=True
    ),
}

_LAYERS: Mapping[str, tuple[str, Mapping[str, Any], tuple[int, ...]]] = {
    "dense": ("DenseGeneral", {"features": 64}, (64, 128)),
    "dense with bias": ("DenseGeneral", {"features": 64, "use_bias": True}, (2, 32, 64)),
    "dense over two axes": ("DenseGeneral", {"features": (2, 32), "axis": (-2, -1)}, (64, 4, 32)),
    "dense of few rows": ("DenseGeneral", {"features": 64}, (8, 64)),
    "dense of odd features": ("DenseGeneral", {"features": 40}, (64, 64)),
    "norm and dense": ("LayerNormDenseGeneral", {"features": 64}, (2, 32, 64)),
    "norm and MLP": ("LayerNormMLP", {"intermediate_dim": 64, "activations": ("gelu", "linear")}, (2, 32, 64)),
}
_PLAIN = ("MXFP8", "NVFP4", "NVFP4 not rotated")


def scenarios() -> Iterator[tuple[str, Callable[[], Any]]]:
    """Their names and what to look at."""
    for mode in MODES:
        yield f"{mode}: program", partial(_program, mode)
        for layer in _LAYERS if mode in _PLAIN else ("dense",):
            yield f"{mode}: {layer}", partial(_train, layer, mode)
        for dtype in ("float32", "float16"):
            yield f"{mode}: dense, {dtype}", partial(_train, "dense", mode, dtype)
    for mode in _PLAIN:
        for special in ("half zero", "infinite", "nan", "tiny", "huge"):
            yield f"{mode}: {special}", partial(_train, "dense", mode, "float32", special)
        for axis in ("dp", "fsdp", "tp", "tpsp"):
            yield f"{mode}: two devices, {axis}", partial(_two_devices, axis, mode)
        yield f"{mode}: transformations", partial(_transformations, mode)
    for name in BLOCK_SCALED:
        yield f"{name}: recipe", partial(_recipe, name)


def _rngs(seed: int) -> dict[str, jax.Array]:
    return {"params": jax.random.key(seed), "sr_rng": jax.random.key(seed + 1)}


def _output(module: Any, variables: Any, x: jax.Array, seed: int) -> Any:
    """The output; some layers return what they have normalised as well."""
    found = module.apply(variables, x, rngs=_rngs(seed))
    return jax.tree.leaves(found)[0]


def _train(layer: str, mode: str, dtype: str = "bfloat16", special: str = "") -> Any:
    """Initial variables, and two passes with other random numbers each."""
    name, fields, shape = _LAYERS[layer]
    module = getattr(te.engine().module.flax, name)(**fields, dtype=jnp.dtype(dtype))
    seen: list[Any] = []
    with te.Autocast(MODES[mode])():
        x = values(shape, dtype, 0, special)
        variables = te.unbox(jax.jit(module.init)(_rngs(0), x))
        seen.append(variables)

        def both(variables: Any, x: jax.Array, seed: int) -> Any:
            y, pull_back = jax.vjp(lambda v, x: _output(module, v, x, seed), variables, x)
            return y, pull_back(values(y.shape, str(y.dtype), 5))

        seen += [jax.jit(both, static_argnums=2)(variables, x, seed) for seed in (1, 2)]
    return seen


def _program(mode: str) -> Any:
    """Shapes and dtypes of all that a differentiated layer computes in float4, float8 or with scales."""
    module = te.dense_general(features=64)
    x = values((64, 128), "bfloat16", 1)
    with te.Autocast(MODES[mode])():
        variables = te.unbox(module.init(_rngs(0), x))

        def loss(variables: Any, x: jax.Array) -> jax.Array:
            return module.apply(variables, x, rngs=_rngs(1)).astype("float32").sum()

        jaxpr = jax.make_jaxpr(jax.grad(loss, (0, 1)))(variables, x)
    lines = [line.strip() for line in str(jaxpr).splitlines() if "f4" in line or "f8" in line or "scaled" in line]
    return [re.sub(r"\b[a-z]{1,3}(?=[:\s)\]]|$)", "_", line) for line in lines]  # names of variables say nothing


def _two_devices(axis: str, mode: str) -> Any:
    mesh = Mesh(np.asarray(jax.devices()[:2]), (axis,))
    fields = {"kernel_axes": ("in", "out"), "input_axes": ("rows", None)} if axis != "dp" else {}
    module = te.dense_general(features=64, **fields)
    rules = [(name, over if over == axis else None) for name, over in (("rows", "dp"), ("in", "fsdp"), ("out", "tp"))]
    with jax.set_mesh(mesh), te.Autocast(MODES[mode], (axis,))(), nn.logical_axis_rules(rules):
        x = jax.device_put(values((128, 128), "bfloat16", 1), NamedSharding(mesh, PartitionSpec(axis)))
        variables = te.unbox(module.init(_rngs(0), x))

        def both(variables: Any, x: jax.Array) -> Any:
            y, pull_back = jax.vjp(lambda v, x: _output(module, v, x, 1), variables, x)
            return y, pull_back(y)

        found = jax.jit(both)(variables, x)
    return found, [str(getattr(leaf, "sharding", "")) for leaf in jax.tree.leaves(found)]


def _transformations(mode: str) -> Any:
    module, x = te.dense_general(features=64), values((64, 64), "bfloat16", 1)
    with te.Autocast(MODES[mode])():
        variables = te.unbox(module.init(_rngs(0), x))

        def loss(v: Any, x: jax.Array) -> jax.Array:
            return (_output(module, v, x, 3).astype("float32") ** 2).mean()

        def through(stacked: Any, x: jax.Array) -> jax.Array:
            y, _ = jax.lax.scan(lambda carry, v: (_output(module, v, carry, 4), None), x, stacked)
            return y.astype("float32").sum()

        stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, -leaf]), variables)
        tries = [
            lambda: jax.jit(jax.grad(jax.checkpoint(loss), (0, 1)))(variables, x),
            lambda: jax.jit(jax.grad(through))(stacked, x),
            lambda: jax.jit(jax.vmap(jax.grad(loss, (0, 1)), (None, 0)))(variables, jnp.stack([x, 2 * x])),
        ]
        return [tried(each) for each in tries]


def _recipe(name: str) -> Any:
    """The recipe's fields, what it says of itself, and what happens without random numbers."""
    recipe: Any = te.make_recipe(RecipeConfig(name))
    seen: list[Any] = [sorted(f"{key}={value}" for key, value in vars(recipe).items()), repr(recipe)]
    module, x = te.dense_general(features=64), values((64, 64), "bfloat16", 1)
    with te.Autocast(RecipeConfig(name))():
        variables = te.unbox(module.init({"params": jax.random.key(0)}, x))
        seen.append(tried(lambda: module.apply(variables, x)))
        seen.append(tried(lambda: jax.grad(lambda v: module.apply(v, x).astype("float32").sum())(variables)))
    return seen
