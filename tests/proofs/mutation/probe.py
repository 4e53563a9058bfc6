"""What can be seen of Transformer Engine's dense path from outside: a long list of observations.

Two TEs that differ in no observation are taken for the same. The probe decides which surviving faults are no faults at
all; it knows nothing of what is right, and it shares no code with the claims. It is wider than they are: it looks at
bits.
"""

import contextlib
import hashlib
import threading
import warnings
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mnist_fp8 import te
from mnist_fp8.core.modes import RecipeConfig
from proofs.mutation import probe_blocks, probe_layers
from proofs.mutation.probe_values import values

Observations = dict[str, dict[str, str]]
"""What is seen, by the scenario in which it is."""

IMPORT = "te_api can load"
"""The scenario in which Transformer Engine is imported: what it executes counts in all others."""

MODES: dict[str, RecipeConfig | None] = {
    "bf16": None,
    "delayed": RecipeConfig(),
    "short history": RecipeConfig(amax_history_len=3, margin=2),
    "most recent": RecipeConfig(amax_history_len=1, amax_compute_algo="most_recent", margin=-1),
    "delayed E4M3": RecipeConfig(fp8_format="E4M3", amax_history_len=16),
    "current": RecipeConfig("Float8CurrentScaling"),
    "current E4M3": RecipeConfig("Float8CurrentScaling", fp8_format="E4M3"),
}

LAYERS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "plain": ({"features": 16}, (16, 32)),
    "no bias": ({"features": 16, "use_bias": False}, (16, 32)),
    "three axes": ({"features": 16}, (2, 8, 32)),
    "vector": ({"features": 16}, (32,)),
    "vector, several axes": ({"features": (2, 8), "axis": (0, 1)}, (4, 8)),
    "several axes": ({"features": (2, 8), "axis": (-2, -1)}, (4, 4, 2, 16)),
    "positive axis": ({"features": 16, "axis": 1}, (16, 32)),
    "bf16 parameters": ({"features": 16, "dtype": jnp.bfloat16}, (16, 32)),
    "own initialisers": (
        {"features": 16, "kernel_init": nn.initializers.ones, "bias_init": nn.initializers.normal()},
        (16, 32),
    ),
    "low rank": (
        {
            "features": 16,
            "enable_low_rank_adaptation": True,
            "low_rank_adaptation_dim": 4,
            "low_rank_adaptation_alpha": 8,
        },
        (16, 32),
    ),
    "low rank, defaults": ({"features": 16, "enable_low_rank_adaptation": True}, (16, 32)),
    "named axes": (
        {"features": 16, "kernel_axes": ("in", "out"), "bias_axes": ("out",), "input_axes": ("b", "in")},
        (16, 32),
    ),
    "checkpoint name": ({"features": 16, "quantization_checkpoint_name": "kept"}, (16, 32)),
    "sequence first": ({"features": 16, "transpose_batch_sequence": True}, (2, 8, 32)),
}


def scenarios() -> tuple[str, ...]:
    """The names of all scenarios."""
    return tuple(name for name, _ in _scenarios())


def observe(names: Collection[str], begin: Callable[[str], object] = lambda _scenario: None) -> Observations:
    """The observations of the Transformer Engine in this process; an exception is one, by its type.

    Args:
        names: of the scenarios beside the import.
        begin: is told of each before it begins.
    """
    seen = {}
    for name, look in _scenarios():
        if name == IMPORT or name in names:
            begin(name)
            seen[name] = _seen(look)
    return seen


def difference(expected: Observations) -> str:
    """The first observation that is not as expected, in words; empty if there is none. It looks no further then.

    Args:
        expected: of the scenarios that are looked at.
    """
    for name, look in _scenarios():
        if name in expected:
            found, wanted = _seen(look), expected[name]
            for path in [*found, *wanted]:
                if found.get(path) != wanted.get(path):
                    value, was = (each.get(path, "not there") for each in (found, wanted))
                    return f"{name}{path}: {value}, was {was}"
    return ""


def _seen(look: Callable[[], Any]) -> dict[str, str]:
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        try:
            found = _describe(look())
        except Exception as error:
            found = {"": f"raises {type(error).__name__}"}
    return found | {"/warnings": str(sorted({each.category.__name__ for each in raised}))}


def _describe(result: Any) -> dict[str, str]:
    leaves = jax.tree_util.tree_leaves_with_path(result)
    return {jax.tree_util.keystr(path): _digest(leaf) for path, leaf in leaves} | {
        "/structure": str(jax.tree_util.tree_structure(result))
    }


def _digest(leaf: Any) -> str:
    if not hasattr(leaf, "dtype"):
        return repr(leaf)
    array = np.asarray(leaf)
    values = array.astype(np.float64)
    bits = hashlib.sha256(np.where(np.isnan(values), 0, values).tobytes() + np.isnan(values).tobytes())
    return f"{array.dtype}{list(array.shape)} norm {np.linalg.norm(values.ravel()):.9g} bits {bits.hexdigest()[:8]}"


def _scenarios() -> Iterator[tuple[str, Callable[[], Any]]]:
    yield IMPORT, lambda: te.engine().kind.value
    yield from probe_layers.scenarios()
    yield from probe_blocks.scenarios()
    yield from _STANDALONE.items()
    for mode in MODES:
        yield f"{mode}: program", partial(_program, mode)
        yield f"{mode}, bfloat16", partial(_train, "plain", mode)
    for mode in ("bf16", "short history", "current"):
        yield f"{mode}, float32", partial(_train, "plain", mode, "float32")
        for axis in ("dp", "fsdp", "tp", "tpsp"):
            yield f"two devices, {axis}, {mode}", partial(_two_devices, axis, mode)
        for layer in LAYERS:
            yield f"{layer}, {mode}", partial(_train, layer, mode)
    for special in ("zero", "infinite", "nan", "tiny", "huge"):
        for mode in ("short history", "most recent", "current"):
            yield f"{special}, {mode}", partial(_train, "plain", mode, "float32", special)


def _mode(name: str) -> te.Autocast:
    return te.Autocast(MODES[name])


def _train(layer: str, mode: str, dtype: str = "bfloat16", special: str = "") -> Any:
    """Initial variables with their boxes, and three steps in which the metadata move on; then an evaluation.

    It is compiled: the programs of most mutants are those of the healthy TE and come from the cache.
    """
    fields, shape = LAYERS[layer]
    module = te.dense_general(**fields)
    name = te.metadata_collection()
    seen: list[Any] = []
    with _mode(mode)():
        boxed = jax.jit(module.init)(jax.random.key(0), values(shape, dtype, 0))
        seen.append(str(jax.tree_util.tree_structure(boxed)))
        variables = te.unbox(boxed)
        variables["params"] = jax.tree.map(
            lambda p: p + np.asarray(0.125, p.dtype), jax.device_get(variables["params"])
        )
        seen.append(variables)
        step = jax.jit(partial(_step, module))
        for number in range(3):
            x = values(shape, dtype, number + 1, special if number == 1 else "")
            y = jax.eval_shape(module.apply, variables, x)
            grad = values(y.shape, str(y.dtype), number + 5, special if number == 1 else "")
            seen.append(step(variables, x, grad))
            grads = seen[-1][2]
            variables = variables | ({name: grads[name]} if name in grads else {})
        seen.append(jax.jit(module.apply)(variables, values(shape, dtype, 9)))
    return seen


def _step(module: Any, variables: Any, x: jax.Array, grad: jax.Array) -> Any:
    y, pull_back = jax.vjp(module.apply, variables, x)
    grads, dx = pull_back(grad)
    return y, dx, grads


def _program(mode: str) -> Any:
    """Every matrix product of the differentiated program, with all its parameters, and the names of checkpoints."""
    module = te.dense_general(features=16, quantization_checkpoint_name="kept")
    x = values((16, 32), "bfloat16", 1)
    with _mode(mode)():
        variables = te.unbox(jax.jit(module.init)(jax.random.key(0), x))
        jaxpr = jax.make_jaxpr(jax.grad(lambda v, x: module.apply(v, x).astype("float32").sum(), (0, 1)))(variables, x)
    return [
        f"{eqn.primitive} {[v.aval.str_short() for v in eqn.invars]} {sorted(map(str, eqn.params.items()))}"
        for eqn in _equations(jaxpr.jaxpr)
        if eqn.primitive.name in ("dot_general", "name", "sharding_constraint", "convert_element_type")
    ]


def _equations(jaxpr: Any) -> Iterator[Any]:
    for eqn in jaxpr.eqns:
        yield eqn
        for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)


def _two_devices(axis: str, mode: str) -> Any:
    """Values and shardings over two devices of one mesh axis, with logical names for the parameters' axes."""
    rules = (("rows", "dp"), ("in", "fsdp"), ("out", "tp"))
    mesh = Mesh(np.asarray(jax.devices()[:2]), (axis,))
    fields = {"kernel_axes": ("in", "out"), "bias_axes": ("out",), "input_axes": ("rows", None)} if axis != "dp" else {}
    module = te.dense_general(features=16, **fields)
    known = [(name, over if over == axis else None) for name, over in rules]
    autocast = te.Autocast(MODES[mode], (axis,))
    with jax.set_mesh(mesh), autocast(), nn.logical_axis_rules(known):
        x = jax.device_put(values((16, 32), "bfloat16", 1), NamedSharding(mesh, PartitionSpec(axis)))
        variables = te.unbox(module.init(jax.random.key(0), x))

        def both(variables: Any, x: jax.Array) -> Any:
            y, pull_back = jax.vjp(module.apply, variables, x)
            return y, pull_back(y)

        found = jax.jit(both)(variables, x)
    return found, [str(getattr(leaf, "sharding", "")) for leaf in jax.tree.leaves(found)]


# --- what is looked at once ----------------------------------------------------------------------------------------


def _mode_inside() -> str:
    """What a dense layer does in the mode around it: its variables' collections and what it computes."""
    module, x = te.dense_general(features=16), values((16, 32), "bfloat16", 1)
    variables = te.unbox(jax.jit(lambda x: module.init(jax.random.key(0), x))(x))
    sizes = jax.tree.map(jnp.shape, variables)
    return f"{sizes} {_digest(jax.jit(module.apply)(variables, x))}"


def _nested() -> list[str]:
    delayed, current = _mode("short history"), _mode("current")
    seen = [_mode_inside()]
    with delayed():
        seen.append(_mode_inside())
        with te.autocast(enabled=False):
            seen.append(_mode_inside())
            with current():
                seen.append(_mode_inside())
            seen.append(_mode_inside())
        with contextlib.suppress(RuntimeError), current():
            raise RuntimeError
        seen.append(_mode_inside())
    with contextlib.suppress(Exception), _unsupported():
        pass
    thread_saw: list[str] = []
    with delayed():
        thread = threading.Thread(target=lambda: thread_saw.append(_mode_inside()))
        thread.start()
        thread.join()
    return [*seen, *thread_saw, _mode_inside()]


def _unsupported() -> Any:
    return te.autocast(enabled=True, recipe=te.make_recipe(RecipeConfig("Float8BlockScaling")))


def _bare_autocast() -> list[str]:
    """TE's own function, with each of its arguments left out or by position."""
    module, recipe = te.engine().module, te.make_recipe(RecipeConfig("Float8CurrentScaling"))
    calls = [
        module.autocast,
        lambda: module.autocast(True),  # noqa: FBT003 - by position
        lambda: module.autocast(True, recipe),  # noqa: FBT003
        lambda: module.autocast(enabled=True),
        lambda: module.autocast(enabled=True, recipe=recipe),
        lambda: module.autocast(enabled=True, recipe=recipe, mesh_resource=module.MeshResource()),
        lambda: module.fp8_autocast(enabled=True, fp8_recipe=recipe),
        module.fp8_autocast,
        lambda: module.fp8_autocast(True, None, module.MeshResource()),  # noqa: FBT003
    ]
    seen = []
    for call in calls:
        with call():
            seen.append(_mode_inside())
    return seen


def _collections() -> Any:
    new, old = {"fp8_metas": {"a": 3}, "added": {"c": 4}}, {"params": {"w": 1}, "fp8_metas": {"a": 1, "b": 2}}
    given = [(new, old), (new, flax.core.freeze(old)), (flax.core.freeze(new), old), ({}, old), (new, {})]
    return [repr(te.update_collections(*pair)) for pair in given]


def _apply_variants() -> Any:
    """Metadata missing, mutable, stale, frozen."""
    module, x = te.dense_general(features=16), values((16, 32), "bfloat16", 1)
    name = te.metadata_collection()
    seen: list[Any] = []
    with _mode("short history")():
        variables = te.unbox(module.init(jax.random.key(0), x))
        seen.append(module.apply({"params": variables["params"]}, x, mutable=[name]))
        seen.append(module.apply(variables, x, mutable=[name]))
        seen.append(module.apply(flax.core.freeze(variables), x))
        with contextlib.suppress(flax.errors.FlaxError):
            seen.append(module.apply({"params": variables["params"]}, x))
    seen.append(module.apply(variables, x))
    seen.append(jax.grad(lambda v: module.apply(v, x).astype("float32").sum())(variables))
    with _mode("current")():
        seen.append(jax.grad(lambda v: module.apply(v, x).astype("float32").sum())(variables))
    return seen


def _transformations() -> Any:
    module, x = te.dense_general(features=32), values((16, 32), "bfloat16", 1)
    seen: list[Any] = []
    for mode in ("bf16", "short history", "current"):
        with _mode(mode)():
            variables = te.unbox(module.init(jax.random.key(0), x))

            def loss(v: Any, x: jax.Array, module: Any = module) -> jax.Array:
                return (module.apply(v, x).astype("float32") ** 2).mean()

            grad = jax.grad(loss, (0, 1))
            stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), variables)
            seen.append(jax.jit(jax.grad(jax.checkpoint(loss), (0, 1)))(variables, x))
            seen.append(jax.jit(jax.vmap(grad, (None, 0)))(variables, jnp.stack([x, 2 * x])))
            seen.append(jax.jit(jax.grad(partial(_through, module)))(stacked, x))
            seen.append(grad(variables, x))
            seen.append(jax.eval_shape(loss, variables, x).dtype.name)
    return seen


def _through(module: Any, stacked: Any, x: jax.Array) -> jax.Array:
    y, _ = jax.lax.scan(lambda carry, variables: (module.apply(variables, carry), None), x, stacked)
    return y.astype("float32").sum()


def _recipes() -> Any:
    recipes = te.engine().recipes
    predicates = (
        "delayed",
        "float8_current_scaling",
        "mxfp8",
        "nvfp4",
        "float8_per_tensor_scaling",
        "float8_block_scaling",
    )
    seen: list[str] = [f"{name}={member.value}" for name, member in recipes.Format.__members__.items()]
    for cls in (recipes.DelayedScaling, recipes.Float8CurrentScaling):
        recipe = cls()
        seen.append(f"{cls.__name__}: {[(p, getattr(cls, p)()) for p in predicates if hasattr(cls, p)]}")
        seen.append(f"{[(n, v) for n, v in vars(recipe).items() if not callable(v)]}")
        seen.append(repr(recipe))
    wrong: list[dict[str, Any]] = [
        {"amax_compute_algo": "mean"},
        {"fp8_format": recipes.Format.E5M2},
        {"amax_history_len": -1},
        {"reduce_amax": False},
        {"margin": 1.5},
    ]
    classes = recipes.DelayedScaling, recipes.Float8CurrentScaling
    built = {f"{cls.__name__} {options}": partial(cls, **options) for options in wrong for cls in classes}
    return seen + [f"{call}: {_outcome(build)}" for call, build in built.items()]


def _outcome(action: Callable[[], Any]) -> str:
    try:
        return repr(action())
    except Exception as error:
        return type(error).__name__


def _support() -> Any:
    """What TE says it can run here."""
    module = te.engine().module
    seen = [f"{name}: {found.ok}" for name, found in te.support_by_recipe().items()]
    names = "is_fp8_available", "get_supported_quantization_recipes", "get_supported_scaling_modes"
    places = [(name, where) for name in names for where in (module, module.quantize)]
    return seen + [f"{name}: {_outcome(getattr(where, name, lambda: 'no such name'))}" for name, where in places]


def _refused() -> Any:
    """Uses that are refused, and how."""
    x = values((16, 32), "bfloat16", 1)
    recipe: Any = te.make_recipe(RecipeConfig())
    recipe.reduce_amax = False

    def unreduced() -> Any:
        with te.autocast(enabled=True, recipe=recipe):
            return te.dense_general(features=16).init(jax.random.key(0), x)

    def leading_axis() -> Any:
        return te.dense_general(features=16, axis=0).init_with_output(jax.random.key(0), x)[0].shape

    def wrong_axes() -> Any:
        return te.dense_general(features=16, kernel_axes=("a",)).init(jax.random.key(0), x)

    return [_outcome(action) for action in (unreduced, leading_axis, wrong_axes)]


def _surface() -> Any:
    module = te.engine().module
    names = [
        name
        for part in (module, module.flax, module.quantize)
        for name in sorted(vars(part))
        if not name.startswith("_")
    ]
    fields = module.flax.DenseGeneral.__dataclass_fields__
    defaults = [f"{name}={field.default!r}" for name, field in fields.items() if "init" not in name]
    mesh = [f"{n}={f.default!r}" for n, f in module.MeshResource.__dataclass_fields__.items()]
    return [names, [value.split(" at 0x")[0] for value in defaults], mesh, te.metadata_collection()]


_STANDALONE: dict[str, Callable[[], Any]] = {
    "nested autocasts": _nested,
    "autocast's arguments": _bare_autocast,
    "update_collections": _collections,
    "ways to apply": _apply_variants,
    "transformations": _transformations,
    "recipes": _recipes,
    "support": _support,
    "refusals": _refused,
    "public names": _surface,
}
