"""Trees as releases of Transformer Engine save them, and the two ways to save them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import serialization

Tree = dict[str, Any]

LENGTH = 8


def numbers(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Any:
    """Random numbers between 0.5 and 2."""
    return np.random.default_rng(seed).uniform(0.5, 2, shape).astype(dtype)


def old_metadata(*products: str, stack: tuple[int, ...] = (), seed: int = 0) -> Tree:
    """Metadata of a layer before 2.3, by default those of one product."""
    new = {}
    for number in products or ("0",):
        for letter in "iwg":
            seed += 1
            new[f"amax_{letter}_{number}"] = numbers(*stack, LENGTH, seed=seed)
            new[f"scale_{letter}_{number}"] = numbers(*stack, 1, seed=100 + seed)
    return new


def old_state() -> Tree:
    """A train state from before 2.1: a flat kernel, moments that mirror the parameters, axes, and leaves of others."""
    params = {
        "out": {"kernel": numbers(64, 32, seed=1), "bias": numbers(32, seed=2)},
        "norm": {"scale": numbers(16, seed=3, dtype=jnp.bfloat16)},
    }
    return {
        "step": 7,
        "params": params,
        "params_axes": {"out": {"kernel_axes": numbers(1)}},
        "fp8_metas": {"out": old_metadata(), "mlp": old_metadata("0", "1", stack=(3,), seed=10)},
        "opt_state": {
            "0": {"count": np.int32(7), "mu": doubled(params), "nu": doubled(params)},
            "1": {},
        },
        "mine": {"amax_i_0": numbers(5, seed=4)},
    }


def doubled(tree: Any) -> Any:
    """A tree with all numbers doubled."""
    return {key: doubled(value) for key, value in tree.items()} if isinstance(tree, dict) else tree * 2


def boxed(tree: Any) -> Any:
    """A tree with each leaf in a box, as it is saved."""
    return {key: boxed(value) for key, value in tree.items()} if isinstance(tree, dict) else {"value": tree}


def save_orbax(place: Path, tree: Tree) -> None:
    """Save by Orbax's StandardCheckpointer."""
    from orbax.checkpoint import StandardCheckpointer  # noqa: PLC0415 - importing it takes seconds

    with StandardCheckpointer() as checkpointer:
        checkpointer.save(place.resolve(), tree)


def restored_by_orbax(place: Path) -> Any:
    """What Orbax restores without a target."""
    from orbax.checkpoint import PyTreeCheckpointer  # noqa: PLC0415

    return PyTreeCheckpointer().restore(place.resolve())


def save_flax(place: Path, tree: Tree) -> None:
    """Save as ``flax.serialization`` does."""
    place.write_bytes(serialization.to_bytes(tree))


def restored_by_flax(place: Path) -> Any:
    """What Flax restores without a target."""
    return serialization.msgpack_restore(place.read_bytes())


STORES: Mapping[str, tuple[Callable[[Path, Tree], None], Callable[[Path], Any]]] = {
    "orbax": (save_orbax, restored_by_orbax),
    "flax": (save_flax, restored_by_flax),
}
"""What saves a tree and restores it."""


def flat(tree: Any, path: str = "") -> dict[str, Any]:
    """Leaves by path; of what is empty, the path alone."""
    if isinstance(tree, list | tuple):
        tree = {str(number): each for number, each in enumerate(tree)}
    if not isinstance(tree, dict) or not tree:
        return {path: tree}
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{path}/{key}" if path else key)
    return leaves


def is_same(one: Any, other: Any) -> bool:
    """Whether two leaves have the same bits."""
    if isinstance(one, dict) or one is None or isinstance(other, dict) or other is None:
        return bool(one == other)
    first, second = np.asarray(one), np.asarray(other)
    return (first.shape, first.dtype, first.tobytes()) == (second.shape, second.dtype, second.tobytes())
