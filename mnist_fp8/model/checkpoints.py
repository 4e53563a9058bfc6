"""A state that was saved and restored trains on as if nothing had happened."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import serialization

from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.model.carrying import following
from mnist_fp8.model.case import Case, Factory
from mnist_fp8.model.problems import Problem
from mnist_fp8.model.run import by_path, case_of, own_copy


def checkpoint_problems(factory: Factory, recipe: RecipeConfig | None, store: str) -> list[Problem]:
    """Differences of a run that was interrupted after two steps to one that was not; none without a train step.

    Args:
        factory: the model.
        recipe: to train in.
        store: a name in `STORES`.
    """
    case = case_of(factory, recipe)
    if case.train_step is None:
        return []
    before = _steps(case, recipe, own_copy(case.state))
    through = own_copy(before)
    ended = by_path(own_copy(_steps(case, recipe, own_copy(before))))
    resumed = by_path(_steps(case, recipe, _on_device(STORES[store](through))))
    if ended.keys() != resumed.keys():
        return [Problem(f"the state restored by {store}", f"lacks or adds {min(ended.keys() ^ resumed.keys())}")]
    return [
        Problem(f"{path}, restored by {store}", "is another one after two more steps than without an interruption")
        for path, value in ended.items()
        if not _equal(value, resumed[path])
    ]


def _steps(case: Case, recipe: RecipeConfig | None, state: Any) -> Any:  # noqa: ANN401
    for _ in range(2):
        state = following(case, recipe, state)
    return state


def _on_device(state: Any) -> Any:  # noqa: ANN401
    """A state as a train step has it: outside of ``jit``, TE takes no arrays of NumPy."""
    return jax.tree.map(lambda leaf: jax.device_put(leaf) if _is_array(leaf) else leaf, state)


def _is_array(leaf: Any) -> bool:  # noqa: ANN401
    return isinstance(leaf, jax.Array | np.ndarray)


def _equal(first: Any, second: Any) -> bool:  # noqa: ANN401
    if _is_key(first):
        first, second = map(jax.random.key_data, (first, second))
    return bool(np.array_equal(np.asarray(first), np.asarray(second)))


def _through_msgpack(state: Any) -> Any:  # noqa: ANN401
    """By way of Flax's state dictionary; a tree that Flax does not know, such as NNX's, as a list of its leaves."""
    try:
        return serialization.from_bytes(state, serialization.to_bytes(state))
    except TypeError:
        leaves, form = jax.tree.flatten(state)
    plain = [jax.random.key_data(leaf) if _is_key(leaf) else leaf for leaf in leaves]
    restored = serialization.from_bytes(plain, serialization.to_bytes(plain))
    pairs = zip(restored, leaves, strict=True)
    return jax.tree.unflatten(
        form,
        [
            jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else data
            for data, leaf in pairs
        ],
    )


def _is_key(leaf: Any) -> bool:  # noqa: ANN401
    return _is_array(leaf) and bool(jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def through_orbax(tree: Any, like: Any = None) -> Any:  # noqa: ANN401 - whatever tree it is
    """Save a tree of arrays, and give what Orbax restores of it.

    Args:
        tree: what is saved.
        like: a tree of the form to restore into; ``None`` is as it is written.
    """
    from orbax.checkpoint import StandardCheckpointer  # noqa: PLC0415 - importing it takes seconds

    with tempfile.TemporaryDirectory() as folder, StandardCheckpointer() as checkpointer:
        path = Path(folder) / "checkpoint"
        checkpointer.save(path, tree)
        checkpointer.wait_until_finished()
        return checkpointer.restore(path, like)


STORES: Mapping[str, Callable[[Any], Any]] = {
    "msgpack": _through_msgpack,
    "Orbax": lambda state: through_orbax(state, like=state),
}
"""What saves a state and restores it, by name."""
