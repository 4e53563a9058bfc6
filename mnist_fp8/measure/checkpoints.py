"""A checkpoint of a model in training, which one release writes and another one restores.

``python -m mnist_fp8.measure.checkpoints FILE write FOLDER`` writes checkpoints to a folder; ``… FILE restore FOLDER
SHAPES`` restores those that are in it into the state that the installed release makes anew. What it measures goes to
the file: how the state is as restored and after further steps. Under the release that wrote it, that is the control,
and the noise. To another folder go the shapes of a state into which nothing could be restored.
"""

import contextlib
import dataclasses
import functools
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from flax.core import meta

from mnist_fp8 import te
from mnist_fp8.core.model import VARIABLE
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.measure.common import modes, repeated
from mnist_fp8.measure.document import write_measured
from mnist_fp8.measure.model import state_norms, trained
from mnist_fp8.model import load, metadata
from mnist_fp8.model.carrying import following
from mnist_fp8.model.case import Case, Factory
from mnist_fp8.model.checkpoints import STORES, Store
from mnist_fp8.model.loading import NoCaseError, make
from mnist_fp8.model.run import DELAYED, case_of, own_copy
from mnist_fp8.programs import cache
from mnist_fp8.record.checkpoints import AS_RESTORED, CHECKPOINTS, FURTHER, Unrestored
from mnist_fp8.record.entries import Failure, Quantity, Value
from mnist_fp8.record.keys import BF16
from mnist_fp8.training.case import mnist

BEFORE, AFTER = 2, 3
"""Steps up to the checkpoint, and from it on."""
_MESSAGE = 200
"""Characters of a message; that of a tree that does not fit lists all of its leaves."""
_RECIPES: Mapping[str, RecipeConfig | None] = {DELAYED.name: DELAYED, BF16: None}
"""What a model is trained in, the first that it has a case for: only delayed scaling keeps metadata."""


def _forms() -> Mapping[str, Factory]:
    """The user's model; else the network of this project, and its variables alone with parameters in boxes."""
    if os.environ.get(VARIABLE):
        return {"": load()}
    return {"": mnist, " boxed": _in_boxes}


def _in_boxes(recipe: Any) -> Case:  # noqa: ANN401 - of the installed Transformer Engine
    """The network's variables: what is in boxes is restored or not, and then trains as arrays do."""
    return dataclasses.replace(mnist(recipe, boxed=True), train_step=None, state=None)


def write(folder: Path) -> dict[str, Value]:
    """Train, and write a checkpoint of each kind.

    Args:
        folder: for the checkpoints, by what follows the area in the keys of their entries.
    """
    entries: dict[str, Value] = {}
    for form, factory in _forms().items():
        recipe, case = _case(factory)
        state = _first_state(factory, _RECIPES[recipe])
        for _ in range(BEFORE if case.train_step else 0):
            state = following(case, _RECIPES[recipe], state)
        for name, store in STORES.items():
            kind = f"{recipe}/{name}{form}"
            entries |= _guarded(kind, functools.partial(_written, store, folder / kind, case, _RECIPES[recipe], state))
    return entries


def _case(factory: Factory) -> tuple[str, Case]:
    """What a model is trained in, and its case.

    Raises:
        NoCaseError: it has no case for any recipe.
    """
    if DELAYED.name in modes():
        with contextlib.suppress(NoCaseError):
            return DELAYED.name, case_of(factory, DELAYED)
    return BF16, case_of(factory, None)


def _first_state(factory: Factory, recipe: RecipeConfig | None) -> Any:  # noqa: ANN401
    """What is saved before any step: the state, and of a model without a train step its variables."""
    case = case_of(factory, recipe)
    return own_copy(case.state if case.train_step else dict(make(factory, recipe).variables))


def _written(store: Store, place: Path, case: Case, recipe: RecipeConfig | None, state: Any) -> dict[str, Value]:  # noqa: ANN401
    """Write a checkpoint, and compare a run that goes on from it with one that was not interrupted."""
    place.parent.mkdir(parents=True, exist_ok=True)
    through = own_copy(state)
    store.save(place, through)
    restored = store.restored(place, through)
    return _numbers(case, recipe, through, restored)


def _numbers(case: Case, recipe: RecipeConfig | None, state: Any, again: Any) -> dict[str, Value]:  # noqa: ANN401
    """How a state is and trains on, and as the noise of that, how far another state is from it."""
    both = state, own_copy(again)
    first = repeated(Quantity.NORM, *map(state_norms, both))
    return {AS_RESTORED: first, FURTHER: repeated(Quantity.NORM, *(_further(case, recipe, each) for each in both))}


def _further(case: Case, recipe: RecipeConfig | None, state: Any) -> dict[str, float]:  # noqa: ANN401
    """What a state becomes; without a train step it stays what it is."""
    if case.train_step is None:
        return _norms_but_metadata(state)
    return trained(case, recipe, own_copy(state), AFTER, _norms_but_metadata)


def _norms_but_metadata(state: Any) -> dict[str, float]:  # noqa: ANN401
    """Norms of what every release calls the same; what metadata are shows in the steps that they scale."""
    of_te = metadata.leaves(meta.unbox(state))
    return {path: norm for path, norm in state_norms(state).items() if path not in of_te}


def restore(folder: Path, shapes: Path) -> dict[str, Value]:
    """Restore each checkpoint that is in a folder, and train on.

    Args:
        folder: as `write` made it.
        shapes: folder for a file of each checkpoint that cannot be restored: the shapes of what it should become, by
            path, as ``mnist-fp8 migrate --like`` takes them.
    """
    entries: dict[str, Value] = {}
    for form, factory in _forms().items():
        for recipe, name in ((recipe, name) for recipe in _RECIPES for name in STORES):
            kind = f"{recipe}/{name}{form}"
            if (folder / kind).exists():
                of_kind = STORES[name], folder / kind, shapes / kind
                work = functools.partial(_restored, *of_kind, factory, _RECIPES[recipe])
                entries |= _guarded(kind, work)
    return entries


def _restored(
    store: Store, place: Path, shapes: Path, factory: Factory, recipe: RecipeConfig | None
) -> dict[str, Value]:
    case, like = case_of(factory, recipe), _first_state(factory, recipe)
    try:
        state = store.restored(place, like)
        _check(state, like)
    except Exception as error:  # noqa: BLE001 - whatever is raised, a user sees it
        message = " ".join(str(error).split())[:_MESSAGE]
        failed = Unrestored(type(error).__name__, message)
        shapes.parent.mkdir(parents=True, exist_ok=True)
        shapes.write_text(json.dumps(_shapes(like)))
        return {FURTHER: failed}
    return _numbers(case, recipe, state, state)


def _check(state: Any, like: Any) -> None:  # noqa: ANN401
    """Refuse what was restored without an error to something else than a state: Flax compares no shapes.

    Raises:
        ValueError: it was.
    """
    found, wanted = _shapes(state), _shapes(like)
    if different := [path for path in {**wanted, **found} if found.get(path) != wanted.get(path)]:
        path = different[0]
        raise ValueError(f"no error, but {path} is {found.get(path)}, and {wanted.get(path)} in a new state")


def _shapes(state: Any) -> dict[str, tuple[int, ...]]:  # noqa: ANN401
    """Shapes of the leaves of a state, boxes included, by path."""
    return {path: jax.numpy.shape(value) for path, value in metadata.by_path(state).items()}


def _guarded(kind: str, work: Callable[[], Mapping[str, Value]]) -> dict[str, Value]:
    try:
        found = work()
    except Exception as error:  # noqa: BLE001 - what a release raises is what it does
        found = {AS_RESTORED: Failure.of(error)}
    return {f"{CHECKPOINTS}/{kind}/{name}": value for name, value in found.items()}


def main() -> None:
    """Write or restore checkpoints, and write what was measured to the file that comes first."""
    file, what, *folders = sys.argv[1:]

    def measured() -> Mapping[str, Value]:
        te.engine()
        cache.keep_programs()
        return write(*map(Path, folders)) if what == "write" else restore(*map(Path, folders))

    write_measured(file, measured)


if __name__ == "__main__":
    main()
