"""A state that was saved and restored trains on as if nothing had happened."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import serialization

from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.model.carrying import following
from mnist_fp8.model.case import Case, Factory
from mnist_fp8.model.metadata import by_path
from mnist_fp8.model.problems import Problem
from mnist_fp8.model.run import case_of, own_copy


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
    resumed = by_path(_steps(case, recipe, _through(STORES[store], through)))
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


def _is_array(leaf: Any) -> bool:  # noqa: ANN401
    return isinstance(leaf, jax.Array | np.ndarray)


def _equal(first: Any, second: Any) -> bool:  # noqa: ANN401
    if _is_key(first):
        first, second = map(jax.random.key_data, (first, second))
    return bool(np.array_equal(np.asarray(first), np.asarray(second)))


def _is_key(leaf: Any) -> bool:  # noqa: ANN401
    return _is_array(leaf) and bool(jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _save_as_msgpack(place: Path, state: Any) -> None:  # noqa: ANN401
    place.write_bytes(serialization.to_bytes(state if _is_known_to_flax(state) else _plain_leaves(state)))


def _restored_from_msgpack(place: Path, like: Any) -> Any:  # noqa: ANN401
    if _is_known_to_flax(like):
        return serialization.from_bytes(like, place.read_bytes())
    leaves, form = jax.tree.flatten(like)
    restored = serialization.from_bytes(_plain_leaves(like), place.read_bytes())
    pairs = zip(restored, leaves, strict=True)
    return jax.tree.unflatten(
        form,
        [
            jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else data
            for data, leaf in pairs
        ],
    )


def _is_known_to_flax(state: Any) -> bool:  # noqa: ANN401
    """Whether Flax makes a state dictionary of a tree; of one that it does not know, such as NNX's, it does not."""
    try:
        serialization.to_bytes(state)
    except TypeError:
        return False
    return True


def _plain_leaves(state: Any) -> list[Any]:  # noqa: ANN401
    return [jax.random.key_data(leaf) if _is_key(leaf) else leaf for leaf in jax.tree.leaves(state)]


def _save_by_orbax(place: Path, tree: Any) -> None:  # noqa: ANN401
    from orbax.checkpoint import StandardCheckpointer  # noqa: PLC0415 - importing it takes seconds

    with StandardCheckpointer() as checkpointer:
        checkpointer.save(place, tree if _takes_placeholders(tree) else jax.tree.leaves(tree))
        checkpointer.wait_until_finished()


def _restored_by_orbax(place: Path, like: Any) -> Any:  # noqa: ANN401
    from orbax.checkpoint import StandardCheckpointer  # noqa: PLC0415

    with StandardCheckpointer() as checkpointer:
        if _takes_placeholders(like):
            return checkpointer.restore(place, like)
        leaves, form = jax.tree.flatten(like)
        return jax.tree.unflatten(form, checkpointer.restore(place, leaves))


def _takes_placeholders(tree: Any) -> bool:  # noqa: ANN401
    """Whether a tree can be made with something else in the place of its arrays, as Orbax does while it saves.

    TE's quantizers of delayed scaling refuse it since 2.10: who keeps them in a state saves their arrays.
    """
    try:
        jax.tree.map(lambda _: None, tree)
    except Exception:  # noqa: BLE001 - whatever a container raises
        return False
    return True


class Store(NamedTuple):
    """What keeps a state.

    Attributes:
        save: into a place, a file or a folder, where nothing is.
        read: what is there, in the form of another state.
    """

    save: Callable[[Path, Any], None]
    read: Callable[[Path, Any], Any]

    def restored(self, place: Path, like: Any) -> Any:  # noqa: ANN401
        """What is in a place, as a train step has it: outside of ``jit``, TE takes no arrays of NumPy."""
        state = self.read(place, like)
        return jax.tree.map(lambda leaf: jax.device_put(leaf) if _is_array(leaf) else leaf, state)


STORES: Mapping[str, Store] = {
    "msgpack": Store(_save_as_msgpack, _restored_from_msgpack),
    "Orbax": Store(_save_by_orbax, _restored_by_orbax),
}
"""What saves a state and restores it, by name."""


def _through(store: Store, state: Any) -> Any:  # noqa: ANN401
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "checkpoint"
        store.save(place, state)
        return store.restored(place, state)


def through_orbax(tree: Any, like: Any = None) -> Any:  # noqa: ANN401 - whatever tree it is
    """Save a tree of arrays, and give what Orbax restores of it.

    Args:
        tree: what is saved.
        like: a tree of the form to restore into; ``None`` is as it is written.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "checkpoint"
        _save_by_orbax(place, tree)
        return _restored_by_orbax(place, like)
