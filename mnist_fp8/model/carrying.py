"""After a train step, the state holds exactly what TE's layers returned, whatever carries it.

The metadata in the state are replaced by numbers that can be told apart (`metadata.tagged`). So each call of a layer
shows by what it was given which of the state's leaves it used, and that leaf has to hold what this call returned.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mnist_fp8.core.metadata import METADATA_COLLECTIONS
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.model import metadata
from mnist_fp8.model.case import Case, Factory
from mnist_fp8.model.float8 import site_problems
from mnist_fp8.model.layers import lacking, matches
from mnist_fp8.model.metadata import Leaf, Pair, Place, by_path
from mnist_fp8.model.numerics import call_problems, metadata_problems_of
from mnist_fp8.model.problems import Problem
from mnist_fp8.model.run import case_of, context, own_copy, traced
from mnist_fp8.oracle.dense import Array
from mnist_fp8.te.calls import Call, Recording, Site, recorded

STEPS = 3
"""Steps that are looked at in all respects: enough that a wrong one shows in what the next one is given."""
ALL_STEPS = 16
"""Steps after which the state is compared with what TE returned: some are wrong only now and then, or later."""


@dataclasses.dataclass(frozen=True)
class _Step:
    """What became of a state in a step.

    Attributes:
        numbers: of the state before.
        known: its metadata.
        calls: of TE's layers.
        state: after it.
    """

    numbers: dict[str, Array]
    known: Mapping[Place, Pair]
    calls: tuple[Call, ...]
    state: Any


def carrying_problems(factory: Factory, recipe: RecipeConfig | None) -> list[Problem]:
    """What of a case's train step does not hold; a case without one has none.

    A step that meets a number that is not finite may skip its batch, if it keeps all of the state.
    """
    case = case_of(factory, recipe)
    if case.train_step is None:
        return []
    state, taken = own_copy(case.state), 0
    first = last = _numbers(state)
    of_model = traced(factory, recipe)[1]
    with recorded() as recording:
        for number in range(ALL_STEPS):
            step = _step(case, recipe, metadata.tagged(state), recording)
            state = step.state
            if _is_skipped(step):
                continue
            problems = [] if taken else list(_first_problems(case, recipe, step, of_model, recording.sites))
            problems += _problems(step)
            if taken < STEPS:
                problems += [*_outdated(step, last), *_infinite(step)]
            if problems:
                return [Problem(f"step {number + 1}, {problem.where}", problem.what) for problem in problems]
            taken, last = taken + 1, step.numbers
    if not taken:
        return [Problem("the train step", f"skips each of {ALL_STEPS} batches as not finite: none can be looked at")]
    return list(_untrained(first, state, case))


def _step(case: Case, recipe: RecipeConfig | None, state: Any, recording: Recording) -> _Step:  # noqa: ANN401
    numbers, known = _numbers(state), metadata.pairs(state)
    after = following(case, recipe, state)
    calls = recording.calls
    recording.forget()
    return _Step(numbers, known, calls, after)


def _is_skipped(step: _Step) -> bool:
    """Whether a step met a number that is not finite, and kept all of the state but for scalars, such as counters."""
    met = (array for call in step.calls for array in (*call.outputs, *call.d_outputs, *call.d_inputs))
    if all(np.isfinite(array.astype(np.float32)).all() for array in met):
        return False
    after, arrays = _numbers(step.state), {path: numbers for path, numbers in step.numbers.items() if numbers.ndim}
    return all(np.array_equal(after.get(path, np.nan), numbers) for path, numbers in arrays.items())


def _first_problems(
    case: Case, recipe: RecipeConfig | None, step: _Step, of_model: Sequence[Site], sites: Sequence[Site]
) -> Iterator[Problem]:
    """What the first step shows for all: types of the metadata, layers, and what these compute.

    Args:
        case: the model.
        recipe: in force.
        step: the first one.
        of_model: the layers that the model calls.
        sites: those that its train step does.
    """
    yield from _types(case.state)
    yield from site_problems(sites, case, recipe)
    for site in lacking(of_model, sites) if sites else ():
        if not matches(site, case.left_out):
            yield Problem(str(site), "is a layer of Transformer Engine in the model, and none in its train step")
    for call in step.calls:
        yield from call_problems(call, recipe)
        yield from metadata_problems_of(call, recipe)


def _problems(step: _Step) -> Iterator[Problem]:
    """Metadata that the state does not hold as TE returned them."""
    returned = _returned(step.calls)
    yield from _strangers(step.calls, {pair.key for pair in step.known.values()} | _results(returned))
    yield from _metadata_problems(step.known, returned, step.state)


def following(case: Case, recipe: RecipeConfig | None, state: Any) -> Any:  # noqa: ANN401
    """The state after a step."""
    assert case.train_step is not None  # noqa: S101 - for the types
    with context(case, recipe):
        result = case.train_step(state, *(case.inputs if case.batch is None else case.batch))
    return _begins_with(state, result)


def _begins_with(state: Any, result: Any) -> Any:  # noqa: ANN401
    """The next state in what a step returns: that, or what it begins with.

    A state may be a tuple itself, such as a train state and the other variables; the latter may have other collections
    after the first step, as TE's own examples have.
    """
    if not _is_plain_tuple(result) or not result or _form(result) == _form(state):
        return result
    if _is_plain_tuple(state) and state and _form(result[0]) == _form(state[0]):
        return result[: len(state)]
    return result[0]


def _is_plain_tuple(value: Any) -> bool:  # noqa: ANN401
    return isinstance(value, tuple) and not hasattr(value, "_fields")


def _form(tree: Any) -> str:  # noqa: ANN401
    return str(jax.tree.structure(tree))


_Key = tuple[bytes, bytes]
Returned = Mapping[_Key, Sequence[Pair]]
"""What calls returned, by what they were given."""


def _returned(calls: Iterable[Call]) -> Returned:
    returned = defaultdict[_Key, list[Pair]](list)
    for call in calls:
        for given, result in _kept(call):
            returned[given.key].append(result)
    return returned


def _kept(call: Call) -> Iterator[tuple[Pair, Pair]]:
    """Scales and histories that a call was given, and that it returned."""
    for scale, history in metadata.positions(call.inputs):
        yield Pair(call.inputs[scale], call.inputs[history]), Pair(call.d_inputs[scale], call.d_inputs[history])


def _results(returned: Returned) -> set[_Key]:
    return {pair.key for pairs in returned.values() for pair in pairs}


def _types(state: Any) -> Iterator[Problem]:  # noqa: ANN401
    for path, leaf in metadata.leaves(state).items():
        if leaf.value.dtype != np.float32:
            yield Problem(path, f"is {leaf.value.dtype}; TE's metadata are float32")


def _strangers(calls: Iterable[Call], known: set[_Key]) -> Iterator[Problem]:
    """Calls that are given metadata which are not in the state: they never advance."""
    for call in calls:
        if any(given.key not in known for given, _ in _kept(call)):
            yield Problem(str(call.site), "is given FP8 metadata that are not in the state: they cannot advance")


def _outdated(step: _Step, last: Mapping[str, Array]) -> Iterator[Problem]:
    """Calls that compute with a kernel as it was before the last step, which has changed it."""
    given = step.numbers
    changed = {path: old for path, old in last.items() if path in given and not np.array_equal(old, given[path])}
    for call in step.calls:
        for path, old in changed.items():
            if old.ndim > 1 and any(np.array_equal(old, kernel) for kernel in call.inputs[1:]):
                yield Problem(
                    str(call.site), f"computes with {path} of before the last step: the step does not read it"
                )


def _metadata_problems(known: Mapping[Place, Pair], returned: Returned, state: Any) -> Iterator[Problem]:  # noqa: ANN401
    leaves = metadata.leaves(state)
    rows = {(leaf.owner, leaf.is_scale): _rows(leaf) for leaf in leaves.values()}
    paths = {(leaf.owner, leaf.is_scale): leaf.path for leaf in leaves.values()}
    used = {_place_in_collection(owner) for (owner, _), given in known.items() if given.key in returned}
    for (owner, number), given in known.items():
        results, wanted = returned.get(given.key, ()), _wanted(given, returned)
        if not results and _is_copy(owner, used):
            continue
        for kind, is_scale in (("scale", True), ("history", False)):
            found = rows.get((owner, is_scale), "is not in the state after the step")
            if not isinstance(found, str):
                values = [getattr(pair, kind) for pair in (given, wanted, *results)]
                found = _explained(found[number] if number < len(found) else found[:0], *values)
            if found:
                path = paths.get((owner, is_scale), f"{'/'.join(owner)} {kind}")
                yield Problem(path + (f"[{number}]" if number else ""), found)


def _is_copy(owner: tuple[str, ...], used: set[tuple[str, ...]]) -> bool:
    """Whether metadata lie beside those that layers use, such as an optimizer's moments or an average.

    Args:
        owner: of metadata that no layer used.
        used: places in their collections of those that layers did; where there is no collection, names tell.
    """
    if any(name in METADATA_COLLECTIONS for name in owner):
        return _place_in_collection(owner) in used
    return any(name in _MOMENTS for name in owner)


def _place_in_collection(owner: tuple[str, ...]) -> tuple[str, ...]:
    """What is the same of all copies of a leaf: its path below the collection of metadata."""
    starts = [n for n, name in enumerate(owner) if name in METADATA_COLLECTIONS]
    return owner[starts[-1] :] if starts else owner


def _rows(leaf: Leaf) -> Array | str:
    """The rows of a leaf, or why there are none."""
    try:
        return leaf.rows()
    except RuntimeError as error:
        return f"cannot be read after the step: {' '.join(str(error).split())[:120]}"


def _wanted(given: Pair, returned: Returned) -> Pair:
    """What the state must hold where it held ``given``.

    Where no call was given it, it stays. Where several were, as with microbatches that all start from the same state,
    the largest amaxes count, and the scale that follows from them, which is the smallest. Where microbatches follow on
    each other, the last one's counts.
    """
    seen = set[_Key]()
    while (results := returned.get(given.key)) and given.key not in seen:
        seen.add(given.key)
        scales, histories = zip(*results, strict=True)
        given = Pair(np.minimum.reduce(scales), np.maximum.reduce(histories))
    return given


def _explained(found: Array, given: Array, wanted: Array, *results: Array) -> str:
    """What became of a scale or history, by what is wrong in real train steps; empty if it is as it should be."""
    if found.shape != wanted.shape:
        return f"has the shape {found.shape} after the step; expected {wanted.shape}"
    if np.array_equal(found, wanted):
        return ""
    numbers = f"found {_shown(found)}; expected {_shown(wanted)}"
    if not results:
        what = "changes" if found.any() else "is overwritten by zeros"
        return f"{what}, although no layer of TE used it in this step and returned anything: {numbers}"
    return f"{_what_happened(found, given, results, wanted)}: {numbers}"


def _what_happened(found: Array, given: Array, results: Sequence[Array], wanted: Array) -> str:
    """The first of the things that go wrong in real train steps which explains what was found."""
    count, factor = len(results), _factor(found, wanted)
    of_many = count > 1
    explanations = (
        ("is as it was before the step: what TE returned is lost", np.array_equal(found, given)),
        ("is not finite", not np.isfinite(found).all()),
        ("is overwritten by zeros", not found.any()),
        (f"is the sum of {count} microbatches, where the largest amax counts", of_many and _close(found, sum(results))),
        (
            f"is the mean of {count} microbatches, where the largest counts",
            of_many and _close(found, sum(results) / count),
        ),
        (
            "is that of one microbatch alone, where the largest amax of all counts",
            of_many and any(np.array_equal(found, result) for result in results),
        ),
        ("was rounded to bfloat16", np.array_equal(found, _as_bfloat16(wanted))),
        (
            f"is what TE returned multiplied by {factor or 0:.4g}, as a clipped gradient is",
            factor is not None and 0 < factor < 1,
        ),
        ("was moved by an optimizer, as if TE had returned a gradient", _is_moved(found - given, wanted)),
    )
    return next((text for text, holds in explanations if holds), "is not what TE returned")


def _is_moved(step: Array, wanted: Array) -> bool:
    """Whether a step is along a gradient, or of one length wherever that is not zero, as Adam's first are."""
    sizes = np.abs(step[wanted != 0])
    alike = sizes.size > 1 and sizes.all() and np.ptp(sizes) < 1e-3 * sizes.max()
    return _factor(step, wanted) is not None or bool(alike)


def _close(found: Array, wanted: Any) -> bool:  # noqa: ANN401 - an array
    return bool(np.allclose(found, wanted, rtol=1e-5))


def _as_bfloat16(numbers: Array) -> Array:
    return np.asarray(jax.numpy.asarray(numbers, jax.numpy.bfloat16).astype(np.float32))


def _factor(found: Array, wanted: Array) -> float | None:
    """The one number by which two numbers or more were multiplied; ``None`` if it is 1 or 0, or there is none such."""
    nonzero = wanted != 0
    if np.count_nonzero(nonzero) <= 1 or (found[~nonzero] != 0).any():
        return None
    ratios = found[nonzero] / wanted[nonzero]
    same = np.allclose(ratios, ratios[0], rtol=1e-3) and ratios[0] not in (0, 1)
    return float(ratios[0]) if same else None


def _shown(numbers: Array) -> str:
    shown = ", ".join(f"{number:.6g}" for number in numbers[:4])
    return f"[{shown}{', ...' if numbers.size > 4 else ''}]"  # noqa: PLR2004


def _infinite(step: _Step) -> Iterator[Problem]:
    """The numbers of the state have to stay finite."""
    before = step.numbers
    for path, numbers in _numbers(step.state).items():
        if path in before and np.isfinite(before[path]).all() and not np.isfinite(numbers).all():
            yield Problem(path, "is not finite after the step")


def _untrained(before: Mapping[str, Array], state: Any, case: Case) -> Iterator[Problem]:  # noqa: ANN401
    """One of the parameters has to change, though not in each step: an optimizer may collect gradients first."""
    after = _numbers(state)
    params = _parameters(after, case) & before.keys()
    if params and all(np.array_equal(after[path], before[path]) for path in params):
        yield Problem("the state", f"has the same parameters after {ALL_STEPS} steps: nothing was trained")


def _parameters(numbers: Mapping[str, Array], case: Case) -> set[str]:
    """Paths of the parameters in a state: they end like those of the variables, and are not in an optimizer's part."""
    shapes = {path: np.shape(value) for path, value in by_path(case.variables.get("params", {})).items()}
    ends = {path: next((end for end in shapes if path.endswith(end)), "") for path in numbers}
    named = {path for path, end in ends.items() if end and numbers[path].shape == shapes[end]}
    of_optimizer = {path for path in named if any(part in _MOMENTS for part in path.split("/"))}
    return (named - of_optimizer) or named


_MOMENTS = ("opt", "opt_state", "mu", "nu", "trace", "momentum", "optimizer", "ema")
"""Parts of the paths of what is beside parameters and moves with them."""


def _numbers(state: Any) -> dict[str, Array]:  # noqa: ANN401
    """Copies of the floating-point arrays of a state, those that were donated left out."""
    values = {path: value for path, value in by_path(state).items() if hasattr(value, "dtype")}
    floating = {path: value for path, value in values.items() if jax.numpy.issubdtype(value.dtype, np.floating)}
    return {
        path: np.array(value)
        for path, value in floating.items()
        if not (isinstance(value, jax.Array) and value.is_deleted())
    }
